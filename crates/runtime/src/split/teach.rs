//! What tokens weigh in what they teach lookahead keys, worked out once, when they are appended: what keys ask of them is read
//! then, and no more.

use core::ops::Range;

use regard_engine::cached::{self, Ahead, LANES, Target, Words};
use regard_engine::grid::Lots;
use regard_engine::isa::Door;
use regard_engine::pack;
use regard_engine::threads::Threads;
use regard_engine::{Engine, Op};
use regard_ir::cache::{Codec, PageShape};
use regard_ir::expr::Tree;
use regard_ir::inputs::Captured;
use regard_ir::interval::{Liveness, Region, Span, Unknown};
use regard_ir::plan::{EngineKind, Plan};
use regard_ir::problem::Problem;
use regard_ir::tiles;
use regard_ir::variant::Variant;
use regard_simd::{F32, sigmoid, vectors_mut};

use super::cell;
use crate::cache::{CachedSequenceMut, Learned, LearnedShape, WAITING};
use crate::code::{Code, Fault, Keys, Place};

/// How what keys ask meets tokens.
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// Whether bf16 is multiplied in pairs.
    pub pairs: bool,
    /// Channels of a chain of sums.
    chain: usize,
    scale: f32,
    /// Whether rows of `k_u` stay as they are, since a factor would round them, so that products are scaled instead.
    keeps_rows: bool,
}

impl Product {
    pub fn new(variant: &Variant<'_>, plan: &Plan, page: &PageShape) -> Self {
        let pairs = plan.engine == EngineKind::DotBf16;
        let keeps_rows = pairs && page.keys.codec == Codec::Bf16;
        let (chain, scale) = (plan.prefill.channel_chain as usize, variant.scale as f32);
        Self { pairs, chain, scale, keeps_rows }
    }

    /// What rows of `k_u` are multiplied by before they are packed.
    pub const fn factor(&self) -> f32 {
        if self.keeps_rows { 1.0 } else { self.scale }
    }
}

/// Tokens that were appended and wait are to weigh the keys of their sequence.
#[derive(Clone, Copy)]
pub(super) struct Weighing<'a, D> {
    pub lanes: D,
    pub variant: &'a Variant<'a>,
    pub plan: &'a Plan,
    pub problem: &'a Problem<'a>,
    pub page: PageShape,
    pub captured: &'a Captured<'a>,
    /// Who teaches whom.
    pub code: &'a dyn Code<D>,
    pub allow: Tree<'a>,
    /// Where the code meets an index outside of a captured tensor.
    pub fault: &'a Fault,
}

impl<D: Door> Weighing<'_, D> {
    /// Floats that one worker works in.
    pub fn len(code: &dyn Code<D>) -> usize {
        code.scratch_len(D::WIDTH).max(1)
    }

    /// Has the tokens from position `first` on, the last ones of `len`, weigh them: workers take page after page.
    pub fn weigh<E: Engine<Lanes = D>>(
        &self,
        engine: E,
        cache: &mut CachedSequenceMut<'_>,
        [first, len]: [u32; 2],
        threads: &dyn Threads,
        floats: &mut [f32],
    ) {
        let Some(learned) = cache.learned.take() else { return };
        let (shape, taught) = (learned.shape, *learned.taught);
        let of_page = shape.heads * shape.page * WAITING;
        let pages = (len as usize).div_ceil(shape.page);
        let weights = Lots::new(&mut learned.weights[..pages * of_page], of_page);
        let scratch = Lots::new(floats, Self::len(self.code));
        let waiting = Learned { shape, keys: &[], weights: &[], waiting: learned.waiting, taught };
        let cache_of = &*cache;
        threads.run(&|_| {
            if let Some((_, scratch)) = scratch.take() {
                engine.enter(Taking {
                    weighing: self,
                    cache: cache_of,
                    waiting,
                    tokens: first as usize..len as usize,
                    weights: &weights,
                    ahead: threads.count(),
                    scratch: pulp::bytemuck::cast_slice_mut(scratch),
                });
            }
        });
        cache.learned = Some(learned);
    }

    /// What the mask is over keys for tokens of some heads.
    fn liveness(&self, heads: Range<usize>, tokens: &Range<usize>, keys: Range<usize>) -> Liveness {
        let span = |range: &Range<usize>| Span { lo: range.start as i32, hi: range.end as i32 - 1 };
        let of = self.problem.sequence(0);
        let [low, high] =
            [heads.start, heads.end - 1].map(|head| of.region(0, &self.variant.heads, head as u32));
        let region = Region {
            q: span(tokens),
            k: span(&keys),
            g: Span { lo: low.g.lo, hi: high.g.hi },
            h: Span { lo: low.h.lo, hi: high.h.hi },
            ..low
        };
        tiles::liveness(self.allow, &region, &Unknown(self.variant.inputs))
    }
}

/// A worker's part, inside the engine's instruction set.
struct Taking<'a, 'c, D> {
    weighing: &'a Weighing<'a, D>,
    cache: &'a CachedSequenceMut<'c>,
    /// The tokens that wait.
    waiting: Learned<'a>,
    /// Positions of those that weigh.
    tokens: Range<usize>,
    weights: &'a Lots<'a, f32>,
    /// How many pages ahead the next one is that this worker will probably take.
    ahead: usize,
    scratch: &'a mut [i32],
}

impl<D: Door> Op for Taking<'_, '_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { weighing, cache, waiting, tokens, weights, ahead, scratch } = self;
        let &Weighing { page, plan, .. } = weighing;
        let (heads, cell) = (waiting.shape.heads, plan.decode.key_cell as usize);
        // Most cells of a long sequence are dead where keys learn in a window.
        let mut known = (usize::MAX, Liveness::Dead);
        while let Some((number, weights)) = weights.take() {
            let first = number * page.tokens;
            let keys = first..tokens.end.min(first + page.tokens);
            let fresh = tokens.start.max(first)..keys.end;
            if known.0 != first / cell {
                let begin = first / cell * cell;
                let all = begin..tokens.end.min(begin + cell);
                known = (first / cell, weighing.liveness(0..heads, &tokens, all));
            }
            // Little is worked out between two heads, as a core waits for what they ask meanwhile. A page that is dead may lie nowhere.
            let mut words = None;
            for (head, weights) in weights.chunks_exact_mut(page.tokens * WAITING).enumerate() {
                // The tokens before weigh nothing for keys that came after them.
                if !fresh.is_empty() {
                    for row in weights.chunks_exact_mut(page.tokens) {
                        row[fresh.start - first..fresh.end - first].fill(0.0);
                    }
                }
                let liveness = match known.1 {
                    Liveness::Partial => weighing.liveness(head..head + 1, &tokens, keys.clone()),
                    whole => whole,
                };
                if liveness == Liveness::Dead {
                    continue;
                }
                let words = *words.get_or_insert_with(|| cache.stored(&page, number));
                let next = match (head + 1 < heads, (number + ahead) * page.tokens < tokens.end) {
                    (true, _) => words.part(page.asks_at(head + 1)),
                    (false, true) => cache.stored(&page, number + ahead).part(page.asks_at(0)),
                    (false, false) => &[],
                };
                let (count, asks) = (keys.len(), words.part(page.asks_at(head)));
                let of = Page { first, count, head, asks, ahead: next, liveness };
                // Their rows may begin at the end of the block and go on where it begins.
                let row = LearnedShape::weights_row(tokens.start);
                let middle = tokens.end.min(tokens.start + WAITING - row);
                for (tokens, row) in [(tokens.start..middle, row), (middle..tokens.end, 0)] {
                    if !tokens.is_empty() {
                        let rows = &mut weights[row * page.tokens..][..tokens.len() * page.tokens];
                        weighing.page(&waiting, &of, tokens, rows, scratch);
                    }
                }
            }
        }
    }
}

/// The keys of a page and head that are weighed.
struct Page<'a> {
    first: usize,
    count: usize,
    head: usize,
    /// What they ask.
    asks: &'a [u32],
    /// What is read after that.
    ahead: &'a [u32],
    liveness: Liveness,
}

impl<D: Door> Weighing<'_, D> {
    /// What some tokens weigh for the keys of a page: rows of its tokens.
    #[inline(always)]
    fn page(
        &self,
        waiting: &Learned<'_>,
        of: &Page<'_>,
        tokens: Range<usize>,
        weights: &mut [f32],
        scratch: &mut [i32],
    ) {
        let Self { lanes, variant, plan, problem, page, captured, code, fault, .. } = *self;
        let Product { pairs, chain, scale, keeps_rows } = Product::new(variant, plan, &page);
        let stride = page.tokens;
        let ahead = Some(Ahead::keys(&page, of.ahead));
        let words = Words { block: &page.keys, tokens: stride, pages: 1, pairs, words: of.asks, ahead };
        let target = Target { to: &mut *weights, stride };
        let askers = waiting.askers(of.head, tokens.start - waiting.taught as usize);
        cached::scores(lanes, words, (askers, tokens.len()), (chain, of.count), target);
        let (zero, never) = (F32::splat(lanes, 0.0), F32::splat(lanes, f32::NEG_INFINITY));
        let whole = of.count.next_multiple_of(LANES);
        for (token, weights) in tokens.zip(weights.chunks_exact_mut(stride)) {
            let scores = &mut weights[..whole];
            if keeps_rows {
                pack::scale(lanes, scores, scale);
            }
            if of.liveness == Liveness::Full {
                for score in vectors_mut(lanes, scores) {
                    *score = sigmoid(F32::from_raw(lanes, *score)).raw();
                }
                continue;
            }
            let sequence = problem.sequence(0);
            let (h, q) = ([of.head as i32; LANES], [token as i32; LANES]);
            let place = Place {
                b: 0,
                g: of.head as i32,
                heads: variant.heads.query,
                nq: sequence.queries as i32,
                nk: sequence.keys as i32,
                q: &q[..D::WIDTH],
                h: &h[..D::WIDTH],
                first_key: of.first as i32,
                keys: Keys::Lanes(&cell::UP),
                captured,
                fault,
            };
            cell::apply(lanes, code, place, scores, (of.count, true), scratch);
            for score in vectors_mut(lanes, scores) {
                let x = F32::from_raw(lanes, *score);
                *score = x.eq(never).select(zero, sigmoid(x)).raw();
            }
        }
    }
}
