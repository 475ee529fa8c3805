//! From scores to weights, one row and some keys at a time: lanes are keys.

use regard_engine::isa::Door;
use regard_engine::weigh::{Coarse, Full, Precise, Weigher};
use regard_ir::variant::Weights;
use regard_simd::{F32, vectors_mut};

use crate::softmax::{activate, factor, finite};

/// What scores are, and what they are to become.
#[derive(Clone, Copy)]
pub(super) struct Units {
    pub weights: Weights,
    /// What turns scores into natural units before they are modified, where they are not in them.
    pub scale: Option<f32>,
    /// What turns them, as given or as modified, into log2 units; positive.
    pub log2: f32,
    /// Whether weights are rounded to 8 bits next.
    pub coarse: bool,
}

/// One row's sums so far.
pub(super) struct Row<'a, D> {
    pub lanes: D,
    pub units: Units,
    /// In log2 units, integral; −inf while no key was live.
    pub reference: &'a mut f32,
    /// What the row's sums are multiplied by where the reference moves, else 1.
    pub factor: &'a mut f32,
    /// What its weights add up to, in each lane.
    pub total: &'a mut [f32],
}

impl<D: Door> Row<'_, D> {
    /// Rewrites scores as weights, and says whether the reference moved. Scores are whole vectors.
    #[inline(always)]
    pub fn weigh(&mut self, scores: &mut [f32]) -> bool {
        let lanes = self.lanes;
        *self.factor = 1.0;
        if !matches!(self.units.weights, Weights::Softmax { .. }) {
            activate(lanes, self.units.weights, scores);
            // Sums of weights that are not divided need no reference: any finite one keeps them as they are.
            *self.reference = 0.0;
            return false;
        }
        let mut largest = F32::splat(lanes, f32::NEG_INFINITY);
        for &score in &*vectors_mut(lanes, scores) {
            largest = largest.max(F32::from_raw(lanes, score));
        }
        let before = F32::splat(lanes, *self.reference);
        let largest = F32::splat(lanes, largest.reduce_max() * self.units.log2);
        let passes = before.lt(largest);
        let after = passes.select(largest.ceil(), before);
        let moved = passes.any();
        let total = &mut vectors_mut(lanes, self.total)[0];
        let mut sum = F32::from_raw(lanes, *total);
        if moved {
            let factor = factor(before, after);
            sum = sum * factor;
            *self.factor = first(factor);
            *self.reference = first(after);
        }
        let added = if self.units.coarse {
            weights::<D, Coarse>(lanes, self.units.log2, after, scores)
        } else {
            weights::<D, Full>(lanes, self.units.log2, after, scores)
        };
        *total = (sum + added).raw();
        moved
    }
}

/// Makes weights of scores, and gives what they add up to in each lane.
#[inline(always)]
fn weights<D: Door, P: Precise>(lanes: D, log2: f32, reference: F32<D>, scores: &mut [f32]) -> F32<D> {
    let mut weigher = Weigher::<D, 1, P>::softmax(lanes, log2, [finite(reference)]);
    for score in vectors_mut(lanes, scores) {
        *score = weigher.weigh(lanes, [*score])[0];
    }
    weigher.sums[0]
}

/// The first lane.
#[inline(always)]
fn first<D: Door>(x: F32<D>) -> f32 {
    f32::from_bits(x.to_bits().lane(0) as u32)
}
