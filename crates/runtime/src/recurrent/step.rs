//! Few tokens, one after the other: the state stays where it is, and each token reads and writes it once.
//!
//! A delta rule reads it once before, from the first row to the last: what its key finds there, and what its query does, which reads
//! what was written besides. It is written from the last row to the first, as those are still in the nearest cache. Of states that do
//! not stay in a worker's caches rows are asked for a little before they are read.

use core::ops::Range;

use regard_engine::engine::LINE;
use regard_engine::grid::{Claim, MatrixMut};
use regard_engine::isa::Door;
use regard_engine::{Engine, Op};
use regard_ir::variant::Decay;
use regard_simd::{F32, Lanes as _, Prefetch, load_f32, vectors, vectors_mut};

use super::memory::{Layout, Memory};
use super::part::{Part, Span};
use super::rows::{add_rows, dot, times};
use super::{cell, kept};

/// Where the states are that tokens read and write one after the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// They are the caller's, and each token leaves one.
    Caller,
    /// They are a worker's own.
    Worker,
    /// There is one, which enters a chunk.
    Entering,
}

impl<E: Engine> Part<'_, '_, E> {
    /// Some tokens of some heads, one after the other.
    #[inline(always)]
    pub(super) fn one_by_one(
        &self,
        claim: &mut Claim<'_>,
        memory: &mut Memory<'_>,
        (heads, tokens): (Range<usize>, Range<usize>),
        states: At,
    ) {
        self.call(Each { part: self, claim, memory, heads, tokens, states });
    }

    #[inline(always)]
    fn each(
        &self,
        claim: &mut Claim<'_>,
        memory: &mut Memory<'_>,
        (heads, tokens): (Range<usize>, Range<usize>),
        states: At,
    ) {
        let layout = self.shared.layout;
        for token in tokens {
            let span = Span::token(token);
            self.features(0, memory, span);
            self.features(1, memory, span);
            for head in heads.clone() {
                let at = head - self.heads.start;
                self.write_alone(memory, head, span);
                let divisor = self.sum_features(claim, memory, (at, head, token), states);
                let Memory {
                    q,
                    k,
                    values,
                    o,
                    keep,
                    finding,
                    factors: [.., betas],
                    states: own,
                    entering,
                    ..
                } = &mut *memory;
                let own = match states {
                    At::Entering => &mut *entering[0],
                    _ => &mut own[at * layout.dims * layout.width..],
                };
                let own = MatrixMut::new(own, layout.width, self.channels.len());
                let kept = if states == At::Caller { claim.state(head, self.all_rows()) } else { None };
                let (mut state, numbers) = match kept {
                    Some(state) => (state, [token, token + 1].map(|token| self.state_number(token))),
                    None => (own, [0; 2]),
                };
                let mut rows = numbers.map(|number| number * layout.dim);
                if self.restarts(token) {
                    rows = [rows[1]; 2];
                    (rows[1]..rows[1] + layout.dim).for_each(|row| state.row(row).fill(0.0));
                }
                let (value, o) = (&values[..self.channels.len()], &mut o[..self.channels.len()]);
                let (lanes, [query, key]) =
                    (self.shared.engine.lanes(), [&*q, &*k].map(|row| &row[..layout.dims]));
                let erases = || Erases {
                    finding: [&finding[0][..layout.dim], &finding[1][..layout.dim]],
                    overlap: dot(lanes, query, key),
                    beta: betas[0],
                };
                let of = Token {
                    query: &query[..layout.dim],
                    key: &key[..layout.dim],
                    keep: self.has_decay().then(|| [&keep[0][..layout.dim], &keep[1][..layout.dim]]),
                    erases: self.rule.delta.then(erases),
                    // Rows lie one after the other, so that some processors look ahead by themselves.
                    asks: states == At::Caller
                        && !layout.holds_states
                        && lanes.prefetches() == Prefetch::IntoFirst,
                };
                of.write(lanes, (&mut state, rows), value, o);
                let factor = divisor.map_or(self.rule.scale, |divisor| 1.0 / divisor);
                for o in o {
                    *o *= factor;
                }
                self.write(claim, memory, head, span);
            }
        }
    }

    /// Reads what a head's token writes, whose key is there, and how much of the state it keeps.
    #[inline(always)]
    fn write_alone(&self, memory: &mut Memory<'_>, head: usize, span: Span) {
        self.values(memory, (0, head), span);
        self.strengths(memory, head, span);
        self.keep(memory, head, span.first);
        if self.rule.delta {
            let Memory { q, k, keep: [most, rest], finding, .. } = memory;
            for (to, from) in finding.iter_mut().zip([k, q]) {
                times(self.shared.engine.lanes(), &from[..to.len()], [most, rest], to);
            }
        }
    }

    /// Whether states decay.
    fn has_decay(&self) -> bool {
        !matches!(self.shared.recurrence.decay, Decay::None)
    }

    /// What some tokens add to their cell, one after the other.
    #[inline(always)]
    pub(super) fn add_each(&self, memory: &mut Memory<'_>, tokens: Range<usize>) {
        let (lanes, layout) = (self.shared.engine.lanes(), self.shared.layout);
        let Layout { dim, dims, width, .. } = *layout;
        for token in tokens {
            let span = Span::token(token);
            self.features(1, memory, span);
            for (at, head) in self.heads.clone().enumerate() {
                self.write_alone(memory, head, span);
                cell::keep(lanes, layout, memory, at);
                let Memory { k, values, o, keep, added: [added, norms], .. } = &mut *memory;
                let mut state = MatrixMut::new(&mut added[at * dims * width..], width, self.channels.len());
                let keep = [&*keep[0], &*keep[1]];
                let key = &k[..dim];
                // What the token reads there is no output.
                let decays = self.has_decay().then_some(keep);
                let of = Token { query: key, key, keep: decays, erases: None, asks: false };
                let value = &values[..self.channels.len()];
                of.write(lanes, (&mut state, [0; 2]), value, &mut o[..self.channels.len()]);
                add_rows(lanes, &k[..dims], None, Some(keep), &mut norms[at * dims..][..dims]);
            }
        }
    }

    /// Adds the features of a token's key to their sum, and gives what its output is divided by, where it is.
    #[inline(always)]
    fn sum_features(
        &self,
        claim: &mut Claim<'_>,
        memory: &mut Memory<'_>,
        (at, head, token): (usize, usize, usize),
        states: At,
    ) -> Option<f32> {
        let eps = self.rule.normalize_eps?;
        let layout = self.shared.layout;
        let Memory { q, k, keep, norms, entering: [_, entering], .. } = memory;
        let norm = match states {
            At::Entering => &mut **entering,
            _ => &mut norms[at * layout.dims..][..layout.dims],
        };
        let mut kept = claim.norm(head, 0..self.shared.depth).filter(|_| states == At::Caller);
        if let Some(kept) = &mut kept {
            norm.fill(0.0);
            norm[..layout.dim].copy_from_slice(kept.row(self.state_number(token)));
        }
        if self.restarts(token) {
            norm.fill(0.0);
        }
        let lanes = self.shared.engine.lanes();
        add_rows(lanes, &k[..layout.dims], None, Some([&*keep[0], &*keep[1]]), norm);
        if let Some(kept) = &mut kept {
            kept.row(self.state_number(token + 1)).copy_from_slice(&norm[..layout.dim]);
        }
        Some(dot(lanes, &q[..layout.dims], norm) + eps)
    }
}

/// Tokens one after the other.
struct Each<'p, 's, 'a, 'g, 'm, E: Engine> {
    part: &'p Part<'s, 'a, E>,
    claim: &'p mut Claim<'g>,
    memory: &'p mut Memory<'m>,
    heads: Range<usize>,
    tokens: Range<usize>,
    states: At,
}

impl<E: Engine> Op for Each<'_, '_, '_, '_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { part, claim, memory, heads, tokens, states } = self;
        part.each(claim, memory, (heads, tokens), states);
    }
}

/// What a token does to a state.
struct Token<'m> {
    query: &'m [f32],
    key: &'m [f32],
    /// What is left of the state's rows, where it decays.
    keep: Option<[&'m [f32]; 2]>,
    /// Of a delta rule.
    erases: Option<Erases<'m>>,
    /// Whether rows are asked for before they are read.
    asks: bool,
}

/// How a token of a delta rule erases what its key finds.
struct Erases<'m> {
    /// Key and query, as they find what is left of a state.
    finding: [&'m [f32]; 2],
    /// The product of the two as they are.
    overlap: f32,
    /// How strongly the rule writes.
    beta: f32,
}

impl Token<'_> {
    /// Decays a state, writes to it and reads it. It lies in a matrix from the first of two rows on; what comes of it, from the second.
    #[inline(always)]
    fn write<L: Door>(
        &self,
        lanes: L,
        (state, [before, after]): (&mut MatrixMut<'_>, [usize; 2]),
        value: &[f32],
        o: &mut [f32],
    ) {
        let width = state.width();
        let mut first = 0;
        while first + L::WIDTH <= width {
            let columns = Columns { lanes, token: self, state, before, after, first, value, o };
            first += L::WIDTH
                * match (width - first) / L::WIDTH {
                    8.. if L::TILE >= 8 => columns.call::<8>(),
                    4.. => columns.call::<4>(),
                    2.. => columns.call::<2>(),
                    _ => columns.call::<1>(),
                };
        }
        self.write_last((state, [before, after]), (&value[first..], first), &mut o[first..]);
    }

    /// The columns behind whole vectors.
    fn write_last(
        &self,
        (state, [before, after]): (&mut MatrixMut<'_>, [usize; 2]),
        (values, first): (&[f32], usize),
        o: &mut [f32],
    ) {
        for (column, (&value, o)) in (first..).zip(values.iter().zip(o)) {
            let mut written = value;
            if let Some(Erases { finding: [key, _], beta, .. }) = self.erases {
                let found = |(c, key): (usize, &f32)| key * state.row(before + c)[column];
                written = beta * (value - key.iter().enumerate().map(found).sum::<f32>());
            }
            *o = 0.0;
            for (c, (key, query)) in self.key.iter().zip(self.query).enumerate() {
                let mut s = state.row(before + c)[column];
                s = match self.keep {
                    Some([most, rest]) => most[c] * s + (rest[c] * s + key * written),
                    None => s + key * written,
                };
                state.row(after + c)[column] = s;
                *o += query * s;
            }
        }
    }
}

/// How many rows before it is read a row is asked for: of 128 channels some 4 KiB.
const AHEAD: usize = 8;

/// Some whole vectors of a state's rows.
struct Columns<'a, 'm, 's, L> {
    lanes: L,
    token: &'a Token<'m>,
    state: &'a mut MatrixMut<'s>,
    before: usize,
    after: usize,
    first: usize,
    value: &'a [f32],
    o: &'a mut [f32],
}

impl<L: Door> Columns<'_, '_, '_, L> {
    /// Takes `V` vectors, and says how many they are.
    #[inline(always)]
    fn call<const V: usize>(self) -> usize {
        if self.token.keep.is_some() {
            self.lanes.call(Vectors::<L, V, true>(self));
        } else {
            self.lanes.call(Vectors::<L, V, false>(self));
        }
        V
    }
}

/// One width: a function of its own, so that what is written and read keeps its registers.
struct Vectors<'a, 'm, 's, L, const V: usize, const DECAYS: bool>(Columns<'a, 'm, 's, L>);

impl<L: Door, const V: usize, const DECAYS: bool> Op for Vectors<'_, '_, '_, L, V, DECAYS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Columns { lanes, token, state, before, after, first, value, o } = self.0;
        let mut state = state.reborrow();
        let &Token { query, key, keep, ref erases, asks } = token;
        let columns = first..first + V * L::WIDTH;
        let (rows, ahead) = (key.len(), AHEAD * state.stride());
        let [most, rest] = keep.unwrap_or([key; 2]);
        let [key, query, most, rest] = [key, query, most, rest].map(|row| &row[..rows]);
        let ask = |row: &[f32]| {
            if asks {
                for line in row.chunks(LINE) {
                    lanes.prefetch(line.as_ptr().wrapping_add(ahead));
                }
            }
        };
        let mut value: [F32<L>; V] =
            core::array::from_fn(|v| load_f32(lanes, &value[first + v * L::WIDTH..]));
        let mut read = [F32::splat(lanes, 0.0); V];
        if let &Some(Erases { finding, overlap, beta }) = erases {
            let mut found = read;
            let [finding_key, finding_query] = finding.map(|row| &row[..rows]);
            for c in 0..rows {
                let (key, query) = (F32::splat(lanes, finding_key[c]), F32::splat(lanes, finding_query[c]));
                let row = &state.row(before + c)[columns.clone()];
                ask(row);
                for ((found, read), &s) in found.iter_mut().zip(&mut read).zip(vectors(lanes, row)) {
                    let s = F32::from_raw(lanes, s);
                    *found = s.mul_add(key, *found);
                    *read = s.mul_add(query, *read);
                }
            }
            let (beta, overlap) = (F32::splat(lanes, beta), F32::splat(lanes, overlap));
            for ((value, found), read) in value.iter_mut().zip(found).zip(&mut read) {
                *value = beta * (*value - found);
                *read = value.mul_add(overlap, *read);
            }
            put(lanes, read, &mut o[columns.clone()]);
            for c in (0..rows).rev() {
                let factors = splat(lanes, [key[c], most[c], rest[c]]);
                let row = &state.row(before + c)[columns.clone()];
                let s = decay_and_write::<L, V, DECAYS>(lanes, factors, row, &value);
                put(lanes, s, &mut state.row(after + c)[columns.clone()]);
            }
            return;
        }
        for c in 0..rows {
            let (factors, query) = (splat(lanes, [key[c], most[c], rest[c]]), F32::splat(lanes, query[c]));
            let row = &state.row(before + c)[columns.clone()];
            ask(row);
            let s = decay_and_write::<L, V, DECAYS>(lanes, factors, row, &value);
            for (read, s) in read.iter_mut().zip(&s) {
                *read = s.mul_add(query, *read);
            }
            put(lanes, s, &mut state.row(after + c)[columns.clone()]);
        }
        put(lanes, read, &mut o[columns]);
    }
}

/// Factors of a row in all lanes: one by one, as a closure would be compiled without the engine's instructions where it is not inlined.
#[inline(always)]
fn splat<L: Door>(lanes: L, [key, most, rest]: [f32; 3]) -> [F32<L>; 3] {
    [F32::splat(lanes, key), F32::splat(lanes, most), F32::splat(lanes, rest)]
}

/// What vectors of a row of a state become.
#[inline(always)]
fn decay_and_write<L: Door, const V: usize, const DECAYS: bool>(
    lanes: L,
    [key, most, rest]: [F32<L>; 3],
    row: &[f32],
    value: &[F32<L>; V],
) -> [F32<L>; V] {
    let mut after = *value;
    for (after, &s) in after.iter_mut().zip(vectors(lanes, row)) {
        let s = F32::from_raw(lanes, s);
        *after = if DECAYS { kept::decayed(s, [most, rest], key * *after) } else { after.mul_add(key, s) };
    }
    after
}

/// Writes vectors to a row.
#[inline(always)]
fn put<L: Door, const V: usize>(lanes: L, vectors: [F32<L>; V], row: &mut [f32]) {
    for (to, x) in vectors_mut(lanes, row).iter_mut().zip(vectors) {
        *to = x.raw();
    }
}
