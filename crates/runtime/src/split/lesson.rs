//! Lessons: what tokens teach lookahead keys for good, before others are appended; and tokens that wait for theirs.

use regard_engine::cached::{self, LANES};
use regard_engine::element::Element;
use regard_engine::grid::Lots;
use regard_engine::isa::Door;
use regard_engine::pack::Rows as _;
use regard_engine::threads::Threads;
use regard_engine::{Engine, Op};
use regard_ir::cache::PageShape;
use regard_ir::expr::Tree;
use regard_ir::inputs::Captured;
use regard_ir::interval::{Liveness, Region, Span, Unknown};
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::tiles;
use regard_ir::variant::{Mechanism, Turned, Variant};

use super::learn::{Class, Product, Taught, learn};
use crate::cache::{CachedSequenceMut, Learned, LearnedMut, LearnedShape, WAITING};
use crate::carve::{self, Carve};
use crate::code::{Code, Fault, Keys, Place};
use crate::operands::KeyRows;
use crate::rows::{Change, Changed, Tensor};
use crate::view::View;

/// Rows of lookahead keys beside keys and values, and how they change on their way.
#[derive(Clone, Copy)]
pub(super) struct Learners<'a, T> {
    pub q_u: (View<'a, T>, Option<Change<'a>>),
    k_u: (View<'a, T>, Option<Change<'a>>),
    v_u: (View<'a, T>, Option<Change<'a>>),
}

impl<'a, T: Element> Learners<'a, T> {
    /// `None` where keys are no lookahead keys.
    pub fn new(variant: &Variant<'_>, rows: &KeyRows<'a, T>, change: Option<Change<'a>>) -> Option<Self> {
        let (Mechanism::Lookahead(lookahead), KeyRows::Lookahead(keys)) = (variant.mechanism, rows) else {
            return None;
        };
        let of = |view, tensor| (view, change.filter(|_| lookahead.turns(tensor)));
        Some(Self {
            q_u: of(keys.q_u, Turned::QU),
            k_u: of(keys.k_u, Turned::KU),
            v_u: of(keys.v_u, Turned::VU),
        })
    }

    /// Lets `count` tokens from position `first` on wait, and gives them lookahead keys that have learned nothing.
    #[inline(always)]
    pub fn wait<D: Door>(
        &self,
        lanes: D,
        (page, product): (&PageShape, Product),
        (first, count): (usize, usize),
        learned: &mut LearnedMut<'_>,
        row: &mut [f32],
    ) {
        let row = &mut row[..page.keys.channels];
        for (head, i) in (0..page.key_head_count()).flat_map(|head| (0..count).map(move |i| (head, i))) {
            let at = |i| [0, head, i];
            let [asker, value] = learned.waiting_mut(head, first + i);
            let (view, change) = self.k_u;
            Changed { change, tensor: Tensor::One(view), at }.row(lanes, i, row);
            row.iter_mut().for_each(|x| *x *= product.factor());
            cached::pack_query(lanes, (&page.keys, product.pairs), row, asker);
            let (view, change) = self.v_u;
            Changed { change, tensor: Tensor::One(view), at }.row(lanes, i, row);
            value.fill(0.0);
            value[..row.len()].copy_from_slice(row);
            learned.key_mut(head, first + i).fill(0.0);
        }
    }
}

/// Lookahead keys of a sequence are to learn from the tokens before `until`.
#[derive(Clone, Copy)]
pub(super) struct Lesson<'a, D> {
    pub lanes: D,
    pub variant: &'a Variant<'a>,
    pub plan: &'a Plan,
    pub problem: &'a Problem<'a>,
    pub page: PageShape,
    pub captured: &'a Captured<'a>,
    pub code: &'a dyn Code<D>,
    pub allow: Tree<'a>,
    pub until: u32,
}

impl<D: Door> Lesson<'_, D> {
    fn sizes(page: &PageShape, code: &dyn Code<D>) -> [usize; 2] {
        [WAITING * page.tokens, code.scratch_len(D::WIDTH)]
    }

    /// Floats that one worker works a lesson out in.
    pub fn len(page: &PageShape, code: &dyn Code<D>) -> usize {
        carve::len(Self::sizes(page, code))
    }

    /// Gives it: workers take the keys of one page after the other.
    pub fn give<E: Engine<Lanes = D>>(
        &self,
        engine: E,
        cache: &mut CachedSequenceMut<'_>,
        threads: &dyn Threads,
        floats: &mut [f32],
    ) {
        let Some(mut learned) = cache.learned.take() else { return };
        let (shape, taught) = (learned.shape, *learned.taught);
        let memory = Lots::new(floats, Self::len(&self.page, self.code));
        let keys = Lots::new(&mut *learned.keys, self.page.tokens * shape.stride);
        let learned_of = Learned { shape, keys: &[], waiting: learned.waiting, taught };
        let cache_of = &*cache;
        threads.run(&|_| {
            if let Some((_, floats)) = memory.take() {
                engine.enter(Taking {
                    lesson: self,
                    cache: cache_of,
                    learned: learned_of,
                    keys: &keys,
                    floats,
                });
            }
        });
        learned.drop_until(self.until);
        cache.learned = Some(learned);
    }
}

/// A worker's part of a lesson, inside the engine's instruction set.
struct Taking<'a, 'c, D> {
    lesson: &'a Lesson<'a, D>,
    cache: &'a CachedSequenceMut<'c>,
    /// The tokens that wait; its keys are given out by `keys`.
    learned: Learned<'a>,
    keys: &'a Lots<'a, f32>,
    floats: &'a mut [f32],
}

impl<D: Door> Op for Taking<'_, '_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lesson, cache, learned, keys, floats } = self;
        let &Lesson { lanes, variant, plan, problem, page, captured, code, allow, until } = lesson;
        let mut pieces = Carve::new(floats, Lesson::sizes(&page, code));
        let (weights, scratch) = (pieces.next(), pieces.next_as());
        let Learned { shape: LearnedShape { stride, room, .. }, taught, .. } = learned;
        let tokens = (until - taught) as usize;
        let product = Product::new(variant, plan, &page);
        let of = problem.sequence(0);
        let ranges = &Unknown(variant.inputs);
        while let Some((at, keys)) = keys.take() {
            let (head, number) = (at / (room / page.tokens), at % (room / page.tokens));
            let first = number * page.tokens;
            let count = page.tokens.min((until as usize).saturating_sub(first));
            if count == 0 {
                continue;
            }
            let region = Region {
                q: Span { lo: taught as i32, hi: until as i32 - 1 },
                k: Span { lo: first as i32, hi: (first + count) as i32 - 1 },
                ..of.region(0, &variant.heads, head as u32)
            };
            let liveness = tiles::liveness(allow, &region, ranges);
            if liveness == Liveness::Dead {
                continue;
            }
            let (h, q) = ([head as i32; LANES], [0; LANES]);
            let place = Place {
                b: 0,
                g: head as i32,
                nq: of.queries as i32,
                nk: of.keys as i32,
                q: &q[..D::WIDTH],
                h: &h[..D::WIDTH],
                first_key: 0,
                keys: Keys::Lanes(&super::cell::UP),
                captured,
                fault: &Fault::new(),
            };
            let asks = &cache.stored(&page, number)[page.asks_at(head)..][..page.keys_len()];
            let keys = &mut keys[..count * stride];
            let class = Class { lanes, shape: &page, product, code, place, head, learned };
            let met = Taught { first, count, keys: &*keys, asks, liveness, ahead: &[] };
            class.weigh(met, tokens, weights, scratch);
            learn(lanes, keys, (stride, page.tokens), learned.values(head), weights, 0..tokens);
        }
    }
}
