//! One cell: the queries of all heads over a run of cached tokens.

use core::ops::Range;

use pulp::bytemuck;
use regard_engine::Op;
use regard_engine::cached::{self, Before, LANES, Target, Weights, Words};
use regard_engine::isa::Door;
use regard_ir::inputs::Captured;
use regard_ir::interval::Liveness;
use regard_ir::variant::Variant;

use super::super::Parts;
use super::super::cell::VALUE_CHAIN;
use super::super::memory::STATS;
use super::super::weigh::{Row, Units};
use super::memory::{Layout, Memory};
use super::sources::{self, Ahead, Angles, Tokens};
use crate::code::{Code, Fault, Keys, Place};
use crate::mix::Mixes;
use crate::rows::Side;
use crate::sight::Sight;
use crate::summary::Summaries;
use crate::tokens;

/// What all workers read.
pub(super) struct Shared<'a, D: Door> {
    pub parts: Parts<'a>,
    /// The variant of the mixed rows.
    pub scored: &'a Variant<'a>,
    pub code: &'a dyn Code<D>,
    pub captured: &'a Captured<'a>,
    pub ranges: &'a Summaries<'a>,
    pub fault: &'a Fault,
    pub layout: &'a Layout,
    pub mixes: Mixes<'a>,
    /// Of keys and of values, `[head][pseudo-head][source]`.
    pub factors: [&'a [f32]; 2],
    pub angles: Angles<'a>,
    /// Values that are not below it are added one by one.
    pub limit: f32,
}

impl<'a, D: Door> Shared<'a, D> {
    /// What sources are multiplied by for the rows of some heads, of keys or of values.
    fn factors_of(&self, which: usize, heads: Range<usize>) -> &'a [f32] {
        let Layout { per_token, sources, .. } = *self.layout;
        &self.factors[which][heads.start * per_token * sources..heads.end * per_token * sources]
    }
}

/// One cell of a sequence, whose queries are packed.
pub(super) struct Cell<'a, 'm, D: Door> {
    pub lanes: D,
    pub shared: &'a Shared<'a, D>,
    pub sequence: u32,
    pub cell: u32,
    pub memory: &'a mut Memory<'m>,
    /// Weighted values of the rows, and what is beside them.
    pub sums: (&'a mut [f32], &'a mut [[f32; STATS]]),
}

impl<D: Door> Op for Cell<'_, '_, D> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let Shared { parts, layout, .. } = self.shared;
        let cache = parts.caches.get(self.sequence as usize);
        let rows = layout.heads * self.rows();
        self.memory.references[..rows].fill(f32::NEG_INFINITY);
        self.memory.totals[..rows * D::WIDTH].fill(0.0);
        self.memory.fresh.fill(1);
        let begin = self.cell * parts.plan.decode.key_cell;
        let end = cache.len.min(begin + parts.plan.decode.key_cell);
        for first in (begin..end).step_by(layout.chunk) {
            let (first, count) = (first as usize, layout.chunk.min((end - first) as usize));
            let after = first + count;
            let next = layout.chunk.min(end as usize - after);
            let of = |first, count| Tokens { cache: &cache, page: &layout.page, first, count };
            self.chunk(of(first, count), (next > 0).then(|| of(after, next)));
        }
        let (sums, stats) = self.sums;
        let of_head = rows / layout.heads * layout.base.slot.width;
        for (sums, &fresh) in sums.chunks_exact_mut(of_head.max(1)).zip(&*self.memory.fresh) {
            if fresh != 0 {
                sums.fill(0.0);
            }
        }
        let totals = self.memory.totals.chunks_exact(D::WIDTH).zip(&*self.memory.references);
        for (stats, (total, &reference)) in stats.iter_mut().zip(totals).take(rows) {
            *stats = [total.iter().sum(), reference];
        }
    }
}

impl<D: Door> Cell<'_, '_, D> {
    /// Queries of a head.
    fn rows(&self) -> usize {
        self.shared.parts.problem.sequence(self.sequence).queries as usize
    }

    #[inline(always)]
    fn chunk(&mut self, tokens: Tokens<'_>, next: Option<Tokens<'_>>) {
        let Layout { heads, per_token, .. } = *self.shared.layout;
        if self.look(&tokens) {
            let mut values = Ahead::new(&tokens, sources::Rows::Values, heads * per_token);
            self.score(&tokens, &mut values);
            let mut keys = next.map(|next| Ahead::new(&next, sources::Rows::Keys, heads * per_token));
            self.add_values(&tokens, keys.as_mut());
        }
    }

    /// Finds what each head sees of a chunk. Says whether some sees something.
    fn look(&mut self, tokens: &Tokens<'_>) -> bool {
        let per_token = self.shared.layout.per_token as u32;
        let Shared { parts, scored, ranges, .. } = self.shared;
        let sight = Sight { variant: scored, problem: parts.problem, ranges: *ranges };
        let (first, end) = (tokens.first as u32, (tokens.first + tokens.count) as u32);
        let mut is_seen = false;
        for (head, seen) in self.memory.seen.iter_mut().enumerate() {
            let positions = first * per_token..end * per_token;
            let liveness = sight.of_head(self.sequence, head as u32, positions);
            *seen = liveness as i32;
            is_seen |= liveness != Liveness::Dead;
        }
        is_seen
    }

    fn sees(&self, head: usize) -> bool {
        self.memory.seen[head] != Liveness::Dead as i32
    }

    /// Heads whose rows are mixed together, as far as one of them sees something.
    fn group(&self, first: usize) -> Option<Range<usize>> {
        let Layout { heads, group, .. } = *self.shared.layout;
        let group = first..heads.min(first + group);
        group.clone().any(|head| self.sees(head)).then_some(group)
    }

    /// Mixes keys, and makes weights of what queries find at them.
    #[inline(always)]
    fn score(&mut self, tokens: &Tokens<'_>, ahead: &mut Ahead<'_>) {
        let layout = self.shared.layout;
        let (lanes, span, rows) = (self.lanes, tokens.span(), self.rows());
        let Layout { dim, per_token, sources, .. } = *layout;
        tokens.read_keys(lanes, self.memory.sources);
        self.find_angles(tokens);
        if layout.turns_first {
            self.turn_sources(span);
        }
        let block = layout.key_block(span);
        let chain = self.shared.parts.plan.prefill.channel_chain as usize;
        for first in (0..layout.heads).step_by(layout.group) {
            let Some(heads) = self.group(first) else { continue };
            let factors = self.shared.factors_of(0, heads.clone());
            let read = (&*self.memory.sources, span / LANES * dim);
            sources::mix(lanes, read, (factors, sources), self.memory.mixed);
            for (i, head) in heads.enumerate() {
                if !self.sees(head) {
                    continue;
                }
                for p in 0..per_token {
                    let mixed = (i * per_token + p) * span * dim..(i * per_token + p + 1) * span * dim;
                    ahead.ask(lanes);
                    if !layout.turns_first {
                        self.change(p, mixed.clone());
                    }
                    let form = if layout.turns_first { p } else { 0 };
                    let query = (head * layout.forms() + form) * rows * dim;
                    let words = bytemuck::cast_slice(&self.memory.mixed[mixed]);
                    let words =
                        Words { block: &block, tokens: span, pages: 1, pairs: false, words, ahead: None };
                    let at = head * rows * layout.score_stride() + p * span;
                    let target = Target { to: &mut self.memory.scores[at..], stride: layout.score_stride() };
                    let queries = (&self.memory.query[query..][..rows * dim], rows);
                    cached::scores(lanes, words, queries, (chain, span), target);
                }
                self.weigh(tokens, head);
            }
        }
    }

    /// Finds the angles that keys of a chunk are turned by.
    #[inline(always)]
    fn find_angles(&mut self, tokens: &Tokens<'_>) {
        let Shared { parts, layout, captured, fault, angles, .. } = self.shared;
        let Some(position) = &parts.variant.position else { return };
        let (per_token, chunk) = (layout.per_token, layout.chunk);
        let (cos, sin) = self.memory.angles.split_at_mut(layout.angles());
        let first = (tokens.first * per_token) as i32;
        if layout.turns_first {
            angles.from(position, first, chunk, [cos, sin]);
            return;
        }
        let len = (layout.half * chunk).max(1);
        for (p, (cos, sin)) in cos.chunks_exact_mut(len).zip(sin.chunks_exact_mut(len)).enumerate() {
            for token in 0..tokens.count {
                let at = first + (token * per_token + p) as i32;
                let of = (self.sequence, at, true);
                let at = tokens::given(position, parts.variant.source, (captured, fault), of);
                angles.at(position, at, chunk, token, [&mut *cos, &mut *sin]);
            }
        }
    }

    /// Turns the keys of all sources.
    #[inline(always)]
    fn turn_sources(&mut self, span: usize) {
        let Shared { parts, layout, .. } = self.shared;
        let Some(position) = &parts.variant.position else { return };
        let (cos, sin) = self.memory.angles.split_at(layout.angles());
        let keys = &mut self.memory.sources[..span * layout.dim * layout.sources];
        let of = (layout.dim, layout.sources);
        sources::turn(self.lanes, position, ([cos, sin], layout.chunk), of, keys);
    }

    /// Norms and turns the mixed keys of a pseudo-head.
    #[inline(always)]
    fn change(&mut self, p: usize, mixed: Range<usize>) {
        let Shared { parts, layout, captured, .. } = self.shared;
        let (variant, dim) = (parts.variant, layout.dim);
        let keys = &mut self.memory.mixed[mixed];
        let norm = variant.qk_norm.as_ref();
        let learned = norm.and_then(|norm| norm.learned).map(|inputs| inputs[Side::Key as usize]);
        let learned = learned.and_then(|input| captured.floats(input));
        if let Some(norm) = norm.filter(|norm| !norm.after_rope) {
            sources::normalise(norm, learned, dim, keys);
        }
        if let Some(position) = &variant.position {
            let (cos, sin) = self.memory.angles.split_at(layout.angles());
            let from = p * layout.half * layout.chunk;
            let angles = ([&cos[from..], &sin[from..]], layout.chunk);
            sources::turn(self.lanes, position, angles, (dim, 1), keys);
        }
        if let Some(norm) = norm.filter(|norm| norm.after_rope) {
            sources::normalise(norm, learned, dim, keys);
        }
    }

    /// Makes weights of a head's scores.
    #[inline(always)]
    fn weigh(&mut self, tokens: &Tokens<'_>, head: usize) {
        let layout = self.shared.layout;
        let (span, rows) = (tokens.span(), self.rows());
        let natural = self.shared.is_natural();
        let units = Units {
            weights: self.shared.parts.variant.weights,
            scale: None,
            log2: if natural { core::f32::consts::LOG2_E } else { 1.0 },
            coarse: false,
        };
        let masked = self.memory.seen[head] == Liveness::Partial as i32;
        let shaped = masked || self.shared.code.modifies();
        let mut moved = false;
        for r in head * rows..(head + 1) * rows {
            let begin = r * layout.score_stride();
            for p in 0..layout.per_token {
                let at = begin + p * span;
                if shaped {
                    self.shape(tokens, (head, r - head * rows, p), at, masked);
                }
                self.memory.scores[at + tokens.count..at + span].fill(f32::NEG_INFINITY);
            }
            let mut row = Row {
                lanes: self.lanes,
                units,
                reference: &mut self.memory.references[r],
                factor: &mut self.memory.factors[r],
                total: &mut self.memory.totals[r * D::WIDTH..][..D::WIDTH],
            };
            moved |= row.weigh(&mut self.memory.scores[begin..][..layout.per_token * span]);
        }
        self.memory.moved[head] = i32::from(moved);
    }

    /// Where the scores of a query stand, but for the first key; `h` and `q` are filled with its head and its position.
    fn place<'p>(&'p self, (head, query): (usize, usize), [h, q]: [&'p mut [i32; LANES]; 2]) -> Place<'p> {
        let of = self.shared.parts.problem.sequence(self.sequence);
        *h = [head as i32; LANES];
        *q = [of.q_offset + query as i32; LANES];
        Place {
            b: self.sequence as i32,
            g: head as i32,
            heads: self.shared.parts.variant.heads.query,
            nq: of.queries as i32,
            nk: of.keys as i32,
            q: &q[..D::WIDTH],
            h: &h[..D::WIDTH],
            first_key: 0,
            keys: Keys::Rows,
            captured: self.shared.captured,
            fault: self.shared.fault,
        }
    }

    /// Modifies and masks the scores, from `at` on, of a query with a pseudo-head of each token.
    #[inline(always)]
    fn shape(
        &mut self,
        tokens: &Tokens<'_>,
        (head, query, p): (usize, usize, usize),
        at: usize,
        masked: bool,
    ) {
        let (code, per_token) = (self.shared.code, self.shared.layout.per_token);
        let (mut h, mut q) = ([0; LANES], [0; LANES]);
        let (scores, scratch) =
            (core::mem::take(&mut self.memory.scores), core::mem::take(&mut self.memory.code));
        let place = self.place((head, query), [&mut h, &mut q]);
        for first in (0..tokens.count).step_by(D::WIDTH) {
            // No lane is of a token that is not there: those past the last one repeat it.
            let last = tokens.count - first - 1;
            let after: [i32; LANES] = core::array::from_fn(|lane| (lane.min(last) * per_token) as i32);
            let first_key = ((tokens.first + first) * per_token + p) as i32;
            let place = Place { first_key, keys: Keys::Lanes(&after), ..place };
            code.apply(self.lanes, &place, &mut scores[at + first..][..D::WIDTH], masked, scratch);
        }
        (self.memory.scores, self.memory.code) = (scores, scratch);
    }

    /// Mixes values, and adds what queries take of them.
    #[inline(always)]
    fn add_values(&mut self, tokens: &Tokens<'_>, mut ahead: Option<&mut Ahead<'_>>) {
        let layout = self.shared.layout;
        let (lanes, span, rows) = (self.lanes, tokens.span(), self.rows());
        let Layout { per_token, sources, value_width, .. } = *layout;
        tokens.read_values(lanes, self.memory.sources);
        let odd = tokens.set_aside(lanes, self.shared.limit, self.memory.sources);
        let block = layout.value_block(span);
        let width = layout.base.slot.width;
        for first in (0..layout.heads).step_by(layout.group) {
            let Some(heads) = self.group(first) else { continue };
            let factors = self.shared.factors_of(1, heads.clone());
            let read = (&*self.memory.sources, value_width / LANES * span);
            sources::mix(lanes, read, (factors, sources), self.memory.mixed);
            for (i, head) in heads.enumerate() {
                if !self.sees(head) {
                    continue;
                }
                let mut before = match (self.memory.fresh[head] != 0, self.memory.moved[head] != 0) {
                    (true, _) => Before::Nothing,
                    (false, false) => Before::Kept,
                    (false, true) => Before::Scaled(&self.memory.factors[head * rows..][..rows]),
                };
                for p in 0..per_token {
                    if let Some(ahead) = &mut ahead {
                        ahead.ask(lanes);
                    }
                    let at = (i * per_token + p) * span * value_width;
                    let words = bytemuck::cast_slice(&self.memory.mixed[at..][..span * value_width]);
                    let words =
                        Words { block: &block, tokens: span, pages: 1, pairs: false, words, ahead: None };
                    let at = head * rows * layout.score_stride() + p * span;
                    let weights = Weights {
                        numbers: &self.memory.scores[at..],
                        stride: layout.score_stride(),
                        rows,
                        count: tokens.count,
                        chain: VALUE_CHAIN,
                    };
                    let target = Target { to: &mut self.sums.0[head * rows * width..], stride: width };
                    cached::outputs(lanes, words, weights, &mut [], before, target);
                    before = Before::Kept;
                }
                self.memory.fresh[head] = 0;
                for token in sources::bits(odd) {
                    self.add_aside(tokens, head, token);
                }
            }
        }
    }

    /// Adds what queries of a head take of the values of a token that were set aside.
    #[cold]
    fn add_aside(&mut self, tokens: &Tokens<'_>, head: usize, token: usize) {
        let layout = self.shared.layout;
        let (span, rows, width) = (tokens.span(), self.rows(), layout.base.slot.width);
        let channels = layout.page.values.channels;
        for p in 0..layout.per_token {
            let position = (tokens.first + token) * layout.per_token + p;
            let factors = self.shared.factors_of(1, head..head + 1);
            let factors = &factors[p * layout.sources..][..layout.sources];
            let (row, value) = self.memory.aside.split_at_mut(layout.value_width);
            tokens.mix_value(token, factors, row, &mut value[..channels]);
            for query in 0..rows {
                if self.memory.seen[head] == Liveness::Partial as i32
                    && !self.allows((head, query), position as i32)
                {
                    continue;
                }
                let row = head * rows + query;
                let weight = self.memory.scores[row * layout.score_stride() + p * span + token];
                let value = &self.memory.aside[layout.value_width..][..channels];
                for (sum, x) in self.sums.0[row * width..].iter_mut().zip(value) {
                    *sum += weight * x;
                }
            }
        }
    }

    /// Whether a query may see a key.
    fn allows(&mut self, of: (usize, usize), key: i32) -> bool {
        let (mut h, mut q, mut allowed) = ([0; LANES], [0; LANES], [1; LANES]);
        let scratch = core::mem::take(&mut self.memory.code);
        // Every lane is of this key.
        let place = Place { first_key: key, ..self.place(of, [&mut h, &mut q]) };
        self.shared.code.allow(self.lanes, &place, &mut allowed[..D::WIDTH], scratch);
        self.memory.code = scratch;
        allowed[0] != 0
    }
}
