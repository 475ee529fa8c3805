//! Lessons: what tokens teach lookahead keys for good, before others are appended; and tokens that wait for theirs.

use regard_engine::cached;
use regard_engine::grid::Lots;
use regard_engine::isa::Door;
use regard_engine::pack::Rows as _;
use regard_engine::threads::Threads;
use regard_engine::{Engine, Op};
use regard_ir::cache::PageShape;
use regard_ir::expr::Tree;
use regard_ir::interval::{Region, Span, Unknown};
use regard_ir::problem::Problem;
use regard_ir::tiles;
use regard_ir::variant::{Mechanism, Turned, Variant};

use super::learn::{Teachers, Weighed, learn};
use super::teach::Product;
use crate::cache::{Learned, LearnedMut, LearnedShape};
use crate::operands::KeyRows;
use crate::rows::{Change, Changed, Tensor};
use crate::view::View;

/// Rows of lookahead keys beside keys and values, and how they change on their way.
#[derive(Clone, Copy)]
pub(super) struct Learners<'a> {
    pub q_u: (View<'a>, Option<Change<'a>>),
    k_u: (View<'a>, Option<Change<'a>>),
    v_u: (View<'a>, Option<Change<'a>>),
}

impl<'a> Learners<'a> {
    /// `None` where keys are no lookahead keys.
    pub fn new(variant: &Variant<'_>, rows: &KeyRows<'a>, change: Option<Change<'a>>) -> Option<Self> {
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
    pub problem: &'a Problem<'a>,
    pub allow: Tree<'a>,
    pub until: u32,
}

impl<D: Door> Lesson<'_, D> {
    /// Gives it: workers take the keys of one page after the other.
    pub fn give<E: Engine<Lanes = D>>(&self, engine: E, learned: &mut LearnedMut<'_>, threads: &dyn Threads) {
        let (shape, taught) = (learned.shape, *learned.taught);
        let keys = Lots::new(&mut *learned.keys, shape.page * shape.stride);
        let of = Learned { shape, keys: &[], weights: learned.weights, waiting: learned.waiting, taught };
        threads.run(&|_| engine.enter(Taking { lesson: self, learned: of, keys: &keys }));
        learned.drop_until(self.until);
    }
}

/// A worker's part of a lesson, inside the engine's instruction set.
struct Taking<'a, D> {
    lesson: &'a Lesson<'a, D>,
    /// The tokens that wait; its keys are given out by `keys`.
    learned: Learned<'a>,
    keys: &'a Lots<'a, f32>,
}

impl<D: Door> Op for Taking<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lesson: &Lesson { lanes, variant, problem, allow, until }, learned, keys } = self;
        let Learned { shape: LearnedShape { stride, room, page, .. }, taught, .. } = learned;
        let tokens = (until - taught) as usize;
        let of = problem.sequence(0);
        let ranges = &Unknown(variant.inputs);
        while let Some((at, keys)) = keys.take() {
            let (head, number) = (at / (room / page), at % (room / page));
            let first = number * page;
            let count = page.min((until as usize).saturating_sub(first));
            if count == 0 {
                continue;
            }
            let all = of.region(0, &variant.heads, head as u32);
            let teachers = Teachers::new(tokens, |tokens| {
                let q = Span {
                    lo: taught as i32 + tokens.start as i32,
                    hi: taught as i32 + tokens.end as i32 - 1,
                };
                let k = Span { lo: first as i32, hi: (first + count) as i32 - 1 };
                tiles::liveness(allow, &Region { q, k, ..all }, ranges)
            });
            let weighed = Weighed { weights: learned.weights(head, first), taught, teachers };
            learn(
                lanes,
                &mut keys[..count * stride],
                (stride, page),
                learned.values(head),
                weighed,
                0..tokens,
            );
        }
    }
}
