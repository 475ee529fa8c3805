//! What both skeletons do to references and to weights that do not depend on one another.

use regard_engine::isa::Door;
use regard_ir::variant::Weights;
use regard_simd::{F32, Lanes, pow2, sigmoid, vectors, vectors_mut};

/// Turns scores into weights that do not depend on one another.
#[inline(always)]
pub(crate) fn activate<L: Door>(lanes: L, weights: Weights, scores: &mut [f32]) {
    let zero = F32::splat(lanes, 0.0);
    for score in vectors_mut(lanes, scores) {
        let s = F32::from_raw(lanes, *score);
        *score = match weights {
            Weights::Sigmoid => sigmoid(s),
            // Not a maximum, so that NaN stays NaN.
            _ => s.le(zero).select(zero, s),
        }
        .raw();
    }
}

/// A reference to subtract: rows without a live key so far have none, and any finite one gives them weights of zero.
#[inline(always)]
pub(crate) fn finite<L: Lanes>(reference: F32<L>) -> F32<L> {
    reference.eq(reference.like(f32::NEG_INFINITY)).select(reference.like(0.0), reference)
}

/// What sums against reference `before` are multiplied by when `after` takes its place. Never above 1: before the
/// first live key there is nothing to scale.
#[inline(always)]
pub(crate) fn factor<L: Lanes>(before: F32<L>, after: F32<L>) -> F32<L> {
    pow2((finite(before) - finite(after)).min(before.like(0.0)))
}

/// Takes the silu of what lookahead keys give from scores.
#[inline(always)]
pub(crate) fn subtract_silu<L: Lanes>(lanes: L, scores: &mut [f32], learned: &[f32], scale: Option<f32>) {
    let scale = F32::splat(lanes, scale.unwrap_or(1.0));
    let learned = vectors(lanes, &learned[..scores.len()]);
    for (score, &learned) in vectors_mut(lanes, scores).iter_mut().zip(learned) {
        let learned = F32::from_raw(lanes, learned) * scale;
        *score = (F32::from_raw(lanes, *score) - learned * sigmoid(learned)).raw();
    }
}
