//! Few tokens, one after the other: the state stays where it is, and each token reads and writes it once.
//!
//! A delta rule reads it once before, from the first row to the last; it is written from the last row to the first, as those are still
//! in the nearest cache. States that come from memory are read in the order in which they lie, and meanwhile that of the next head is
//! asked for, evenly: memory that has to wait for the second pass is not at work. Where a worker's states stay in its caches nothing is
//! asked for, as requests for lines that are there take their time too; and a delta rule goes through a state by panels of two lines,
//! of which one is written while the next is read for the first time: neither waits for the caches while the other multiplies.

use core::ops::Range;

use regard_engine::element::Element;
use regard_engine::engine::LINE;
use regard_engine::grid::{Claim, MatrixMut};
use regard_engine::isa::Door;
use regard_engine::{Engine, Op};
use regard_simd::{F32, load_f32, vectors, vectors_mut};

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

impl<E: Engine, T: Element> Part<'_, '_, E, T> {
    /// Some tokens of some heads, one after the other.
    #[inline(always)]
    pub(super) fn one_by_one(
        &self,
        claim: &mut Claim<'_, T>,
        memory: &mut Memory<'_>,
        (heads, tokens): (Range<usize>, Range<usize>),
        states: At,
    ) {
        self.call(Each { part: self, claim, memory, heads, tokens, states });
    }

    #[inline(always)]
    fn each(
        &self,
        claim: &mut Claim<'_, T>,
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
                let next = head + 1;
                let ahead = if next < self.heads.end {
                    self.shared.addresses(claim, next, token)
                } else {
                    self.ahead
                };
                let Memory {
                    q,
                    k,
                    values,
                    o,
                    keep,
                    erasing,
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
                let of = Token {
                    query: &q[..layout.dim],
                    key: &k[..layout.dim],
                    keep: [&keep[0][..layout.dim], &keep[1][..layout.dim]],
                    erases: self.rule.delta.then(|| (&erasing[..layout.dim], betas[0])),
                    is_near: layout.holds_states,
                    ahead: ahead.filter(|_| states == At::Caller && !layout.holds_states),
                };
                of.write(self.shared.engine.lanes(), (&mut state, rows), value, o);
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
            let Memory { k, keep: [most, rest], erasing, .. } = memory;
            times(self.shared.engine.lanes(), &k[..erasing.len()], [most, rest], erasing);
        }
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
                let of = Token { query: key, key, keep, erases: None, is_near: true, ahead: None };
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
        claim: &mut Claim<'_, T>,
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
struct Each<'p, 's, 'a, 'g, 'm, E: Engine, T> {
    part: &'p Part<'s, 'a, E, T>,
    claim: &'p mut Claim<'g, T>,
    memory: &'p mut Memory<'m>,
    heads: Range<usize>,
    tokens: Range<usize>,
    states: At,
}

impl<E: Engine, T: Element> Op for Each<'_, '_, '_, '_, '_, E, T> {
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
    /// What is left of the state's rows.
    keep: [&'m [f32]; 2],
    /// Of a delta rule: the key that finds in the state what is left of it, and how strongly the rule writes.
    erases: Option<(&'m [f32], f32)>,
    /// Whether the state is in a cache.
    is_near: bool,
    /// Where the state lies that is read next, and what comes of it, in rows as far apart as those of this one.
    ahead: Option<[*const f32; 2]>,
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
        // Vectors of two lines: of one, what a row has in common would be loaded for it alone.
        let panel = (2 * LINE / L::WIDTH).clamp(2, 8);
        let mut first = 0;
        while first + L::WIDTH <= width {
            let columns = Columns { lanes, token: self, state, before, after, first, value, o };
            let vectors = (width - first) / L::WIDTH;
            first += L::WIDTH
                * match (self.erases.filter(|_| self.is_near), vectors) {
                    (Some(erases), _) if vectors >= panel => match panel {
                        2 => columns.panels::<2>(erases),
                        4 => columns.panels::<4>(erases),
                        _ => columns.panels::<8>(erases),
                    },
                    (_, 8..) if L::TILE >= 8 => columns.call::<8>(),
                    (_, 4..) => columns.call::<4>(),
                    (_, 2..) => columns.call::<2>(),
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
            if let Some((erasing, beta)) = self.erases {
                let recalled = |(c, key): (usize, &f32)| key * state.row(before + c)[column];
                written = beta * (value - erasing.iter().enumerate().map(recalled).sum::<f32>());
            }
            *o = 0.0;
            let keep = self.keep[0].iter().zip(self.keep[1]);
            for (c, ((key, query), (most, rest))) in self.key.iter().zip(self.query).zip(keep).enumerate() {
                let s = state.row(before + c)[column];
                let s = most * s + (rest * s + key * written);
                state.row(after + c)[column] = s;
                *o += query * s;
            }
        }
    }
}

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
        self.lanes.call(Vectors::<L, V>(self));
        V
    }
}

impl<L: Door> Columns<'_, '_, '_, L> {
    /// Takes panels of `V` vectors of a delta rule, as many as there are, and says how many vectors they are.
    #[inline(always)]
    fn panels<const V: usize>(self, erases: (&[f32], f32)) -> usize {
        let count = (self.state.width() - self.first) / (V * L::WIDTH);
        self.lanes.call(Panels::<L, V> { columns: self, erases, count });
        V * count
    }
}

/// Some panels of `V` vectors, one written while the next is read for the first time.
struct Panels<'a, 'm, 's, L, const V: usize> {
    columns: Columns<'a, 'm, 's, L>,
    erases: (&'a [f32], f32),
    count: usize,
}

impl<L: Door, const V: usize> Op for Panels<'_, '_, '_, L, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { columns, erases: (erasing, beta), count } = self;
        let Columns { lanes, token, state, before, after, first, value, o } = columns;
        let mut state = state.reborrow();
        let Token { query, key, keep: [most, rest], .. } = *token;
        let rows = key.len();
        let [key, erasing, query, most, rest] = [key, erasing, query, most, rest].map(|row| &row[..rows]);
        let width = V * L::WIDTH;
        let beta = F32::splat(lanes, beta);
        let zeros = [F32::splat(lanes, 0.0); V];
        let mut recalled = zeros;
        for (c, &erasing) in erasing.iter().enumerate() {
            recall(lanes, erasing, &state.row(before + c)[first..first + width], &mut recalled);
        }
        for panel in 0..count {
            let columns = first + panel * width..first + (panel + 1) * width;
            let next = columns.end..columns.end + width;
            let mut written = zeros;
            let values = vectors(lanes, &value[columns.clone()]);
            for ((written, &value), recalled) in written.iter_mut().zip(values).zip(recalled) {
                *written = beta * (F32::from_raw(lanes, value) - recalled);
            }
            let mut read = zeros;
            recalled = zeros;
            for (c, &erasing) in erasing.iter().enumerate() {
                if panel + 1 < count {
                    recall(lanes, erasing, &state.row(before + c)[next.clone()], &mut recalled);
                }
                let last = rows - 1 - c;
                let factors = splat(lanes, [key[last], query[last], most[last], rest[last]]);
                let row = &state.row(before + last)[columns.clone()];
                let s = take(lanes, factors, row, &written, &mut read);
                put(lanes, s, &mut state.row(after + last)[columns.clone()]);
            }
            put(lanes, read, &mut o[columns]);
        }
    }
}

/// One width: a function of its own, so that what is written and read keeps its registers.
struct Vectors<'a, 'm, 's, L, const V: usize>(Columns<'a, 'm, 's, L>);

impl<L: Door, const V: usize> Op for Vectors<'_, '_, '_, L, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Columns { lanes, token, state, before, after, first, value, o } = self.0;
        let mut state = state.reborrow();
        let Token { query, key, keep: [most, rest], erases, ahead, .. } = *token;
        let columns = first..first + V * L::WIDTH;
        let (rows, stride) = (key.len(), state.stride());
        let [key, query, most, rest] = [key, query, most, rest].map(|row| &row[..rows]);
        let ask = |row: usize| {
            let Some([before, after]) = ahead else { return };
            for line in columns.clone().step_by(LINE) {
                lanes.prefetch_far(before.wrapping_add(row * stride + line));
                if after != before {
                    lanes.prefetch_far(after.wrapping_add(row * stride + line));
                }
            }
        };
        let mut value: [F32<L>; V] =
            core::array::from_fn(|v| load_f32(lanes, &value[first + v * L::WIDTH..]));
        if let Some((erasing, beta)) = erases {
            let mut recalled = [F32::splat(lanes, 0.0); V];
            for (c, &erasing) in erasing.iter().enumerate() {
                if c % 2 == 0 {
                    ask(c / 2);
                }
                recall(lanes, erasing, &state.row(before + c)[columns.clone()], &mut recalled);
            }
            let beta = F32::splat(lanes, beta);
            for (value, recalled) in value.iter_mut().zip(recalled) {
                *value = beta * (*value - recalled);
            }
        }
        let mut read = [F32::splat(lanes, 0.0); V];
        if erases.is_some() {
            for c in (0..rows).rev() {
                if c % 2 == 0 {
                    ask(rows - 1 - c / 2);
                }
                let factors = splat(lanes, [key[c], query[c], most[c], rest[c]]);
                let s = take(lanes, factors, &state.row(before + c)[columns.clone()], &value, &mut read);
                put(lanes, s, &mut state.row(after + c)[columns.clone()]);
            }
        } else {
            for c in 0..rows {
                ask(c);
                let factors = splat(lanes, [key[c], query[c], most[c], rest[c]]);
                let s = take(lanes, factors, &state.row(before + c)[columns.clone()], &value, &mut read);
                put(lanes, s, &mut state.row(after + c)[columns.clone()]);
            }
        }
        put(lanes, read, &mut o[columns]);
    }
}

/// Adds to what a key finds in a state: a row times its factor.
#[inline(always)]
fn recall<L: Door, const V: usize>(lanes: L, factor: f32, row: &[f32], recalled: &mut [F32<L>; V]) {
    let factor = F32::splat(lanes, factor);
    for (recalled, &s) in recalled.iter_mut().zip(vectors(lanes, row)) {
        *recalled = F32::from_raw(lanes, s).mul_add(factor, *recalled);
    }
}

/// Factors of a row in all lanes: one by one, as a closure would be compiled without the engine's instructions where it is not inlined,
/// and before the row is looked for, so that they are loaded into all lanes.
#[inline(always)]
fn splat<L: Door>(lanes: L, factors: [f32; 4]) -> [F32<L>; 4] {
    [
        F32::splat(lanes, factors[0]),
        F32::splat(lanes, factors[1]),
        F32::splat(lanes, factors[2]),
        F32::splat(lanes, factors[3]),
    ]
}

/// What vectors of a row of a state become, which are decayed and written to; adds to what is read of them.
#[inline(always)]
fn take<L: Door, const V: usize>(
    lanes: L,
    [key, query, most, rest]: [F32<L>; 4],
    row: &[f32],
    value: &[F32<L>; V],
    read: &mut [F32<L>; V],
) -> [F32<L>; V] {
    let mut after = *value;
    for ((after, &s), read) in after.iter_mut().zip(vectors(lanes, row)).zip(read) {
        *after = kept::decayed(F32::from_raw(lanes, s), [most, rest], key * *after);
        *read = after.mul_add(query, *read);
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
