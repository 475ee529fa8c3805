//! Variants as straight-line Rust: what a generated module implements, and the loop that it is put into.
//!
//! A module writes its expressions for one vector of scores. [`Straight`] takes them over a tile: vectors
//! outside and keys inside, so that what does not depend on the key is computed once a tile, and mask and modifier in
//! one pass over the scores. There are no slots and no dispatch, and nothing needs scratch.
//!
//! Everything on lanes is inlined into [`Straight`]'s methods, which enter the instruction set's door: a function that
//! is not inlined there would be compiled without the set.

use core::marker::PhantomData;

use regard_engine::Op;
use regard_engine::isa::Door;
use regard_simd::{F32, I32, Mask, load_i32, vectors_i32_mut, vectors_mut};

use crate::code::{Code, Place};
use crate::operations::{broadcast, gather, outside};

/// What generated modules name.
pub mod prelude {
    pub use regard_engine::isa::Door;
    pub use regard_ir::expr::{Binary, Node, Op, Tree, Type, Unary, Var};
    pub use regard_ir::identity::Identity;
    pub use regard_ir::rows::{
        Frequencies, Gate, Mix, NormKind, Output, OutputNorm, Position, QkNorm, RopeLayout, RopeScaling,
    };
    pub use regard_ir::variant::{
        Axis, Decay, Heads, InputShape, InputType, Latent, LatentForm, Lookahead, Mechanism, Pseudo,
        PseudoForm, Recurrence, Sink, Source, Variant, Weights,
    };
    pub use regard_simd::{F32, I32, Mask, exp, exp2, sigmoid, tanh};

    pub use super::{At, Straight, StraightLine, StraightLookahead};
    pub use crate::code::Code;
    pub use crate::operations::{abs, alibi, exactly, floor_div, floor_rem, pow, same, select_mask, truth};
}

/// A mask and a score modifier for one vector of rows and one key. All methods are `#[inline(always)]`.
pub trait StraightLine: Sync + 'static {
    /// Whether the modifier is anything but the score itself.
    const MODIFIES: bool = false;

    /// What does not depend on the key.
    type Row<L: Door>: Copy;

    /// Computes what does not depend on the key; reports nothing.
    fn row<L: Door>(at: &At<'_, L>) -> Self::Row<L>;

    /// Which rows may attend to the key.
    fn allow<L: Door>(at: &At<'_, L>, row: Self::Row<L>) -> Mask<L>;

    /// The modified score of each row; `live` are those that the mask does not forbid. Called where
    /// [`Self::MODIFIES`] says so.
    #[inline(always)]
    fn modify<L: Door>(_: &At<'_, L>, _: Self::Row<L>, s: F32<L>, _: Mask<L>) -> F32<L> {
        s
    }
}

/// One vector of scores: what an expression reads.
#[derive(Clone, Copy)]
pub struct At<'a, L: Door> {
    lanes: L,
    place: &'a Place<'a>,
    /// The first row, counted from the tile's first.
    row: usize,
    /// The positions of the lanes' keys.
    key: I32<L>,
}

impl<L: Door> At<'_, L> {
    /// The sequence.
    #[inline(always)]
    pub fn b(&self) -> I32<L> {
        self.int(self.place.b)
    }

    /// The query heads.
    #[inline(always)]
    pub fn h(&self) -> I32<L> {
        load_i32(self.lanes, &self.place.h[self.row..])
    }

    /// The key head.
    #[inline(always)]
    pub fn g(&self) -> I32<L> {
        self.int(self.place.g)
    }

    /// The number of query heads.
    #[inline(always)]
    pub fn heads(&self) -> u32 {
        self.place.heads
    }

    /// The absolute positions of the queries.
    #[inline(always)]
    pub fn q(&self) -> I32<L> {
        load_i32(self.lanes, &self.place.q[self.row..])
    }

    /// The absolute position of the key.
    #[inline(always)]
    pub fn k(&self) -> I32<L> {
        self.key
    }

    /// The number of queries of the sequence.
    #[inline(always)]
    pub fn nq(&self) -> I32<L> {
        self.int(self.place.nq)
    }

    /// The number of keys of the sequence.
    #[inline(always)]
    pub fn nk(&self) -> I32<L> {
        self.int(self.place.nk)
    }

    /// A bool in all lanes.
    #[inline(always)]
    pub fn bool(&self, x: bool) -> Mask<L> {
        Mask::splat(self.lanes, x)
    }

    /// An int in all lanes.
    #[inline(always)]
    pub fn int(&self, x: i32) -> I32<L> {
        I32::splat(self.lanes, x)
    }

    /// A float in all lanes.
    #[inline(always)]
    pub fn float(&self, x: f32) -> F32<L> {
        F32::splat(self.lanes, x)
    }

    /// The bits of an element of a captured input for each lane: 0 where the index leaves the axes, −1 for true.
    #[inline(always)]
    pub fn gather<const N: usize>(&self, input: u16, index: [I32<L>; N]) -> I32<L> {
        gather(self.lanes, self.place.captured, input, &index)
    }

    /// As [`At::gather`], where no index depends on the row: in prefill all lanes have the same one.
    #[inline(always)]
    pub fn fetch<const N: usize>(&self, input: u16, index: [I32<L>; N]) -> I32<L> {
        if self.place.keys.is_uniform() {
            broadcast(self.lanes, self.place.captured, input, &index)
        } else {
            gather(self.lanes, self.place.captured, input, &index)
        }
    }

    /// Whether an index leaves the axes of a captured input.
    #[inline(always)]
    pub fn outside<const N: usize>(&self, input: u16, index: [I32<L>; N]) -> Mask<L> {
        outside(self.lanes, self.place.captured, input, &index)
    }

    /// Reports the input if some lane is `outside`.
    #[inline(always)]
    pub fn check(&self, input: u16, outside: Mask<L>) {
        if outside.any() {
            self.place.fault.report(input);
        }
    }
}

/// A generated variant as code for skeletons.
#[derive(Clone, Copy, Debug)]
pub struct Straight<V>(pub V);

impl<L: Door, V: StraightLine> Code<L> for Straight<V> {
    fn modifies(&self) -> bool {
        V::MODIFIES
    }

    fn scratch_len(&self, _width: usize) -> usize {
        0
    }

    fn apply(&self, lanes: L, place: &Place<'_>, scores: &mut [f32], masked: bool, _scratch: &mut [i32]) {
        if masked {
            lanes.enter(Apply::<L, V, true> { lanes, place, scores, variant: PhantomData });
        } else {
            lanes.enter(Apply::<L, V, false> { lanes, place, scores, variant: PhantomData });
        }
    }

    fn allow(&self, lanes: L, place: &Place<'_>, allowed: &mut [i32], _scratch: &mut [i32]) {
        lanes.enter(Allow::<L, V> { lanes, place, allowed, variant: PhantomData });
    }
}

/// A generated variant with lookahead keys, and who teaches them.
#[derive(Clone, Copy, Debug)]
pub struct StraightLookahead<V, W>(pub Straight<V>, pub Straight<W>);

impl<L: Door, V: StraightLine, W: StraightLine> Code<L> for StraightLookahead<V, W> {
    fn modifies(&self) -> bool {
        Code::<L>::modifies(&self.0)
    }

    fn scratch_len(&self, width: usize) -> usize {
        Code::<L>::scratch_len(&self.0, width)
    }

    fn apply(&self, lanes: L, place: &Place<'_>, scores: &mut [f32], masked: bool, scratch: &mut [i32]) {
        self.0.apply(lanes, place, scores, masked, scratch);
    }

    fn allow(&self, lanes: L, place: &Place<'_>, allowed: &mut [i32], scratch: &mut [i32]) {
        self.0.allow(lanes, place, allowed, scratch);
    }

    fn teaches(&self) -> Option<&dyn Code<L>> {
        Some(&self.1)
    }
}

/// Scores of a tile through modifier and, if `MASKED`, mask, inside the door.
struct Apply<'a, L, V, const MASKED: bool> {
    lanes: L,
    place: &'a Place<'a>,
    scores: &'a mut [f32],
    variant: PhantomData<V>,
}

impl<L: Door, V: StraightLine, const MASKED: bool> Op for Apply<'_, L, V, MASKED> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, place, scores, .. } = self;
        let vectors = place.q.len() / L::WIDTH;
        let forbidden = F32::splat(lanes, f32::NEG_INFINITY);
        let step = I32::splat(lanes, place.keys.step::<L>());
        let scores = vectors_mut(lanes, scores);
        for vector in 0..vectors.min(scores.len()) {
            let key = place.keys.lanes(lanes, place.first_key);
            let mut at = At { lanes, place, row: vector * L::WIDTH, key };
            let row = V::row(&at);
            for score in scores[vector..].iter_mut().step_by(vectors) {
                let mut s = F32::from_raw(lanes, *score);
                let live = if MASKED { V::allow(&at, row) } else { at.bool(true) };
                if V::MODIFIES {
                    s = V::modify(&at, row, s, live);
                }
                if MASKED {
                    s = live.select(s, forbidden);
                }
                *score = s.raw();
                at.key = at.key + step;
            }
        }
    }
}

/// The mask of one key, inside the door.
struct Allow<'a, L, V> {
    lanes: L,
    place: &'a Place<'a>,
    allowed: &'a mut [i32],
    variant: PhantomData<V>,
}

impl<L: Door, V: StraightLine> Op for Allow<'_, L, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, place, allowed, .. } = self;
        let (yes, no) = (I32::splat(lanes, -1), I32::splat(lanes, 0));
        for (vector, allowed) in vectors_i32_mut(lanes, allowed).iter_mut().enumerate() {
            let key = place.keys.lanes(lanes, place.first_key);
            let at = At { lanes, place, row: vector * L::WIDTH, key };
            *allowed = V::allow(&at, V::row(&at)).select_i32(yes, no).raw();
        }
    }
}
