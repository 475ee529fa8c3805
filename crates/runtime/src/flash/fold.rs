//! From scores to weights, one row tile and one key block at a time: the online softmax, or an activation.
//!
//! A row's reference is an integer in log2 units, which no score passes by more than the engine's slack; weights are
//! 2^(s − ⌊s⌋) · 2^(⌊s⌋ − reference), so that moving to another reference multiplies by a power of two and rounds
//! nothing. What a row adds up therefore depends on its own keys alone, not on when it was rescaled. It begins at 0 where the
//! scores of the first part are within the slack of that, and at the largest of them elsewhere. Where lengths of queries and keys
//! say that no score is larger than the slack, a reference of 0 or more stays, and nobody looks for the largest.
//!
//! Weights that are rounded to bfloat16 next, or split into two, are 2^(s − reference), which takes fewer instructions, and whose
//! last bits depend on the reference. That in turn depends on the row's own keys alone, as engines that make such weights cut
//! parts at fixed keys.
//!
//! Source of the recurrence: Milakov and Gimelshein, *Online normalizer calculation for softmax*, algorithm 3.

use regard_engine::isa::Door;
use regard_engine::weigh::{Precise, Weigher};
use regard_engine::{Change, Fold};
use regard_ir::interval::Liveness;
use regard_ir::variant::Weights;
use regard_simd::{F32, Lanes, load_f32, vectors, vectors_mut};

use crate::code::{Code, Place};
use crate::softmax::{activate, factor, finite, subtract_silu};

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

impl Steps {
    /// Those from step `step` on.
    pub fn after(self, step: usize) -> Self {
        Self { partial: self.partial >> step, dead: self.dead >> step }
    }

    /// Whether step number `step` is neither dead nor full.
    pub const fn is_partial(self, step: u32) -> bool {
        self.partial >> step & 1 != 0
    }

    /// The liveness of key `key`, counted from `first`, and the end of the run of `keys` that share it; a step is
    /// `step_keys` of them.
    pub fn run(self, step_keys: usize, first: usize, key: usize, keys: usize) -> (Liveness, usize) {
        let class = |key: usize| {
            let bit = 1u64 << ((first + key) / step_keys);
            match (self.dead & bit != 0, self.partial & bit != 0) {
                (true, _) => Liveness::Dead,
                (_, true) => Liveness::Partial,
                _ => Liveness::Full,
            }
        };
        let next_step = |key: usize| ((first + key) / step_keys + 1) * step_keys - first;
        let mut end = next_step(key);
        while end < keys && class(end) == class(key) {
            end = next_step(end);
        }
        (class(key), end.min(keys))
    }
}

/// What the queries of a row tile find at lookahead keys.
#[derive(Clone, Copy)]
pub(super) struct Learned<'a> {
    /// Of each live key, `[keys][width]`.
    pub scores: &'a [f32],
    /// What turns it into natural units, where it is not scaled yet.
    pub scale: Option<f32>,
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
    pub units: Units,
    /// What queries find at lookahead keys.
    pub learned: Option<Learned<'a>>,
    /// Whether no key of the cell came before.
    pub fresh: bool,
    pub sums: Sums<'a>,
    /// Room for what the output is multiplied by, `[width]`.
    pub factors: &'a mut [f32],
    pub scratch: &'a mut [i32],
}

/// Where a row's reference begins if its first scores are no further from there than the slack.
const START: f32 = 0.0;

/// What scores are as an engine gives them, and what they are to become.
#[derive(Clone, Copy)]
pub(super) struct Units {
    /// What turns them into natural units, where they are not scaled yet.
    pub scale: Option<f32>,
    /// What turns them, as given or as modified, into log2 units; positive.
    pub log2: f32,
    /// How far, in log2 units, a score may pass its row's reference before that moves.
    pub slack: f32,
}

impl<L: Door> Fold<L> for TileFold<'_, L> {
    #[inline(always)]
    fn open<const V: usize, P: Precise>(
        &mut self,
        lanes: L,
        first: usize,
        scores: &mut [f32],
        most: f32,
    ) -> (Change, Weigher<L, V, P>) {
        let as_given = self.shape(lanes, first, scores);
        let fresh = core::mem::take(&mut self.fresh);
        if !matches!(self.weights, Weights::Softmax { .. }) {
            activate(lanes, self.weights, scores);
            // Sums of weights that are not divided need no reference: any finite one keeps them as they are.
            self.sums.reference.fill(0.0);
            self.factors.fill(1.0);
            return (if fresh { Change::Replace } else { Change::Keep }, Weigher::identity(lanes));
        }
        let moved = if as_given && self.stay(lanes, fresh, most) {
            self.factors.fill(1.0);
            false
        } else {
            self.raise::<V>(lanes, scores)
        };
        let change = match (fresh, moved) {
            (true, _) => Change::Replace,
            (false, false) => Change::Keep,
            (false, true) => Change::Rescale,
        };
        // A loop, because a closure would be compiled without the door's instruction set.
        let mut references = [F32::splat(lanes, 0.0); V];
        for (v, reference) in references.iter_mut().enumerate() {
            *reference = finite(load_f32(lanes, &self.sums.reference[v * L::WIDTH..]));
        }
        (change, Weigher::softmax(lanes, self.units.log2, references))
    }

    #[inline(always)]
    fn close<const V: usize, P: Precise>(&mut self, lanes: L, weigher: Weigher<L, V, P>) {
        for (v, total) in vectors_mut(lanes, self.sums.total).iter_mut().enumerate() {
            let factor = load_f32(lanes, &self.factors[v * L::WIDTH..]);
            let before = F32::from_raw(lanes, *total);
            *total = (before * factor + weigher.sums[v]).raw();
        }
    }

    #[inline(always)]
    fn factors(&self) -> &[f32] {
        self.factors
    }
}

impl<L: Door> TileFold<'_, L> {
    /// Modifies and masks the scores. Gives whether they are as the engine gave them.
    #[inline(always)]
    fn shape(&mut self, lanes: L, first: usize, scores: &mut [f32]) -> bool {
        let mut as_given = self.units.scale.is_none() && self.learned.is_none();
        let modifies = self.code.modifies();
        if let Some(scale) = self.units.scale {
            let scale = F32::splat(lanes, scale);
            for score in vectors_mut(lanes, scores) {
                *score = (F32::from_raw(lanes, *score) * scale).raw();
            }
        }
        if let Some(learned) = self.learned {
            subtract_silu(
                lanes,
                scores,
                learned.scores.get(first * self.width..).unwrap_or_default(),
                learned.scale,
            );
        }
        if self.steps != Steps::default() || modifies {
            let keys = scores.len() / self.width;
            let mut key = 0;
            while key < keys {
                let (class, end) = self.steps.run(self.step_keys, first, key, keys);
                as_given &= class == Liveness::Full && !modifies;
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
        as_given
    }

    /// Whether scores of no more than `most` leave all references where they are, or where they begin: those of a fresh cell are
    /// set. Nothing has to be looked for among such scores.
    #[inline(always)]
    fn stay(&mut self, lanes: L, fresh: bool, most: f32) -> bool {
        // NaN is not small.
        let are_small = most * self.units.log2 <= self.units.slack;
        if !are_small {
            return false;
        }
        if fresh {
            self.sums.reference.fill(START);
            return true;
        }
        let start = F32::splat(lanes, START);
        let mut are_lower = false;
        for &reference in vectors(lanes, self.sums.reference) {
            are_lower |= F32::from_raw(lanes, reference).lt(start).any();
        }
        !are_lower
    }

    /// Moves each row's reference where a score passes it. Gives whether one moved, its factor then being in `factors`.
    #[inline(always)]
    fn raise<const V: usize>(&mut self, lanes: L, scores: &mut [f32]) -> bool {
        let mut largest = [F32::splat(lanes, f32::NEG_INFINITY); V];
        // Four keys side by side, so that none waits for the one before.
        let mut of_fours = [largest; 4];
        let (fours, rest) = vectors_mut(lanes, scores).as_chunks::<V>().0.as_chunks::<4>();
        for four in fours {
            for (largest, key) in of_fours.iter_mut().zip(four) {
                for (largest, &s) in largest.iter_mut().zip(key) {
                    *largest = largest.max(F32::from_raw(lanes, s));
                }
            }
        }
        for key in rest {
            for (largest, &s) in of_fours[0].iter_mut().zip(key) {
                *largest = largest.max(F32::from_raw(lanes, s));
            }
        }
        for four in of_fours {
            for (largest, four) in largest.iter_mut().zip(four) {
                *largest = largest.max(four);
            }
        }
        // Products round alike in the same order, so the largest score is the largest in log2 units.
        let log2 = F32::splat(lanes, self.units.log2);
        let slack = F32::splat(lanes, self.units.slack);
        let mut moved = false;
        let reference_rows = vectors_mut(lanes, self.sums.reference);
        for (v, old) in reference_rows.iter_mut().enumerate() {
            let before = F32::from_raw(lanes, *old);
            let largest = largest[v] * log2;
            let passes = (before + slack).lt(largest);
            let begins = before.eq(before.like(f32::NEG_INFINITY));
            let start = largest.abs().le(slack).select(before.like(START), largest.ceil());
            let after = passes.select(begins.select(start, largest.ceil()), before);
            *old = after.raw();
            moved |= passes.any();
            vectors_mut(lanes, self.factors)[v] = factor(before, after).raw();
        }
        moved
    }
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
