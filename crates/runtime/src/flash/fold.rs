//! From scores to weights, one row tile and one key block at a time: the online softmax, or an activation.
//!
//! A row's reference is an integer in log2 units, at least its largest score rounded up; weights are
//! 2^(s − ⌊s⌋) · 2^(⌊s⌋ − reference), so that moving to another reference multiplies by a power of two and rounds
//! nothing. What a row adds up therefore depends on its own keys alone, not on when it was rescaled.
//!
//! Source of the recurrence: Milakov and Gimelshein, *Online normalizer calculation for softmax*, algorithm 3.

use regard_engine::isa::Door;
use regard_engine::{Fold, Rescale};
use regard_ir::interval::Liveness;
use regard_ir::variant::Weights;
use regard_simd::{F32, Lanes, load_f32, pow2, sigmoid, softmax_weight, vectors_mut};

use crate::code::{Code, Place};

/// The sums of a row tile's rows so far: what their weights add up to, and against which reference.
pub(super) struct Sums<'a> {
    /// Reference of each row in log2 units, integral; −inf while no key was live.
    pub reference: &'a mut [f32],
    /// Sum of the weights.
    pub total: &'a mut [f32],
}

/// Which steps of a key block are live; bit i is step i.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    /// Neither dead nor full: tested lane by lane.
    pub partial: u64,
    /// Dead: never allowed.
    pub dead: u64,
}

/// One row tile's weights over one key block.
pub(super) struct TileFold<'a, L> {
    pub code: &'a dyn Code<L>,
    pub weights: Weights,
    /// Where the block's first live key stands.
    pub place: Place<'a>,
    /// Liveness of steps of `step_keys` keys, from the first live key on.
    pub steps: Steps,
    pub step_keys: usize,
    pub width: usize,
    /// Whether no key of the cell came before.
    pub fresh: bool,
    pub sums: Sums<'a>,
    /// Room for what the output is multiplied by, `[width]`.
    pub factors: &'a mut [f32],
    pub scratch: &'a mut [i32],
}

impl<L: Door> Fold<L> for TileFold<'_, L> {
    #[inline(always)]
    fn fold(&mut self, lanes: L, first: usize, scores: &mut [f32]) -> Rescale<'_> {
        self.shape(lanes, first, scores);
        let activation = !matches!(self.weights, Weights::Softmax { .. });
        if activation {
            self.activate(lanes, scores);
            // Sums of weights that are not divided need no reference: any finite one keeps them as they are.
            self.sums.reference.fill(0.0);
            return if core::mem::take(&mut self.fresh) { Rescale::Replace } else { Rescale::Keep };
        }
        let rescaled = match (self.width / L::WIDTH, self.code.modifies()) {
            (1, false) => self.weigh::<1, false>(lanes, scores),
            (2, false) => self.weigh::<2, false>(lanes, scores),
            (3, false) => self.weigh::<3, false>(lanes, scores),
            (1, true) => self.weigh::<1, true>(lanes, scores),
            (2, true) => self.weigh::<2, true>(lanes, scores),
            (3, true) => self.weigh::<3, true>(lanes, scores),
            (vectors, _) => panic!("a row tile has 1 to 3 vectors, not {vectors}"),
        };
        match (core::mem::take(&mut self.fresh), rescaled) {
            (true, _) => Rescale::Replace,
            (false, false) => Rescale::Keep,
            (false, true) => Rescale::By(self.factors),
        }
    }
}

impl<L: Door> TileFold<'_, L> {
    /// Turns scores into weights that do not depend on one another.
    #[inline(always)]
    fn activate(&self, lanes: L, scores: &mut [f32]) {
        let zero = F32::splat(lanes, 0.0);
        for score in vectors_mut(lanes, scores) {
            let s = F32::from_raw(lanes, *score);
            *score = match self.weights {
                Weights::Sigmoid => sigmoid(s),
                // Not a maximum, so that NaN stays NaN.
                _ => s.le(zero).select(zero, s),
            }
            .raw();
        }
    }

    /// Modifies and masks the scores.
    #[inline(always)]
    fn shape(&mut self, lanes: L, first: usize, scores: &mut [f32]) {
        let modifies = self.code.modifies();
        if self.steps != Steps::default() || modifies {
            let keys = scores.len() / self.width;
            let mut key = 0;
            while key < keys {
                let (class, end) = self.class_run(first, key, keys);
                let place = Place { first_key: self.place.first_key + (first + key) as i32, ..self.place };
                let scores = &mut scores[key * self.width..end * self.width];
                match class {
                    Liveness::Dead => scores.fill(f32::NEG_INFINITY),
                    Liveness::Partial => self.code.apply(lanes, &place, scores, true, self.scratch),
                    Liveness::Full if modifies => self.code.apply(lanes, &place, scores, false, self.scratch),
                    Liveness::Full => {}
                }
                key = end;
            }
        }
    }

    /// The liveness of key `key`, counted from `first`, and the end of the run of keys that share it.
    fn class_run(&self, first: usize, key: usize, keys: usize) -> (Liveness, usize) {
        let class = |key: usize| {
            let bit = 1u64 << ((first + key) / self.step_keys);
            match (self.steps.dead & bit != 0, self.steps.partial & bit != 0) {
                (true, _) => Liveness::Dead,
                (_, true) => Liveness::Partial,
                _ => Liveness::Full,
            }
        };
        let next_step = |key: usize| ((first + key) / self.step_keys + 1) * self.step_keys - first;
        let mut end = next_step(key);
        while end < keys && class(end) == class(key) {
            end = next_step(end);
        }
        (class(key), end.min(keys))
    }

    /// Turns scores into weights and adds them up. Scores are in log2 units unless they are `NATURAL`. Gives whether some
    /// row's reference moved, its factor then being in `factors`.
    #[inline(always)]
    fn weigh<const V: usize, const NATURAL: bool>(&mut self, lanes: L, scores: &mut [f32]) -> bool {
        let (keys, _) = vectors_mut(lanes, scores).as_chunks_mut::<V>();
        let nothing = F32::splat(lanes, f32::NEG_INFINITY);
        let zero = F32::splat(lanes, 0.0);

        let mut largest = [nothing; V];
        let log2_e = F32::splat(lanes, core::f32::consts::LOG2_E);
        for key in &mut *keys {
            for (largest, s) in largest.iter_mut().zip(key) {
                if NATURAL {
                    *s = (F32::from_raw(lanes, *s) * log2_e).raw();
                }
                *largest = largest.max(F32::from_raw(lanes, *s));
            }
        }

        let mut references = [zero; V];
        let mut moved = false;
        let reference_rows = vectors_mut(lanes, self.sums.reference);
        for (v, old) in reference_rows.iter_mut().enumerate() {
            let before = F32::from_raw(lanes, *old);
            let after = before.max(largest[v].ceil());
            *old = after.raw();
            references[v] = finite(after);
            moved |= before.lt(after).any();
            vectors_mut(lanes, self.factors)[v] = factor(before, after).raw();
        }

        let mut sums = [zero; V];
        for key in keys {
            for v in 0..V {
                let weight = softmax_weight(F32::from_raw(lanes, key[v]), references[v]);
                sums[v] = sums[v] + weight;
                key[v] = weight.raw();
            }
        }
        for (v, total) in vectors_mut(lanes, self.sums.total).iter_mut().enumerate() {
            let factor = load_f32(lanes, &self.factors[v * L::WIDTH..]);
            let before = F32::from_raw(lanes, *total);
            *total = (before * factor + sums[v]).raw();
        }
        moved
    }
}

/// A reference to subtract: rows without a live key so far have none, and any finite one gives them weights of zero.
#[inline(always)]
fn finite<L: Lanes>(reference: F32<L>) -> F32<L> {
    reference.eq(reference.like(f32::NEG_INFINITY)).select(reference.like(0.0), reference)
}

/// What sums against reference `before` are multiplied by when `after` takes its place. Never above 1: before the
/// first live key there is nothing to scale.
#[inline(always)]
fn factor<L: Lanes>(before: F32<L>, after: F32<L>) -> F32<L> {
    pow2((finite(before) - finite(after)).min(before.like(0.0)))
}

/// Brings two sums of one row tile to a common reference: writes the factor of each and the new reference.
#[inline(always)]
pub(super) fn common_reference<L: Lanes>(
    lanes: L,
    total: &mut [f32],
    cell: &[f32],
    total_factor: &mut [f32],
    cell_factor: &mut [f32],
) {
    for at in (0..total.len()).step_by(L::WIDTH) {
        let (a, b) = (load_f32(lanes, &total[at..]), load_f32(lanes, &cell[at..]));
        let after = a.max(b);
        vectors_mut(lanes, &mut total_factor[at..at + L::WIDTH])[0] = factor(a, after).raw();
        vectors_mut(lanes, &mut cell_factor[at..at + L::WIDTH])[0] = factor(b, after).raw();
        vectors_mut(lanes, &mut total[at..at + L::WIDTH])[0] = after.raw();
    }
}
