//! What is left of a state after a token, a chunk or a cell: e^x of a sum of log decays x.
//!
//! It is the sum of two floats. The nearest float is up to 6e-8 of it off, and where a decay is the same at every token that error
//! comes again with each: a state would be off by 6e-8 times as many tokens as it remembers. The second float is positive, and so are
//! products of both with an infinite element infinite.

use regard_engine::isa::Door;
use regard_simd::{F32, exp_parts, times_parts, vectors, vectors_mut};

/// The smallest log of a decay that is told from others: its exponential is 0.
pub(super) const FORGETS: f64 = -1000.0;

/// What is left without decays: all. The second float changes no element.
pub(super) const ALL: [f32; 2] = [1.0, f32::EPSILON * f32::EPSILON];

/// Below this the second float is 0: it could be subnormal.
const LEAST: f64 = 1e-30;

/// What is left after a sum of log decays.
pub(super) fn of(log: f64) -> [f32; 2] {
    let left = libm::exp(if log < FORGETS { FORGETS } else { log });
    let nearest = left as f32;
    if left < LEAST || !nearest.is_finite() {
        return [nearest, 0.0];
    }
    let most = if f64::from(nearest) > left { nearest.next_down() } else { nearest };
    [most, ((left - f64::from(most)) as f32).max(most * ALL[1])]
}

/// What is left of rows, whose sums of log decays are in the place of the first floats.
#[inline(always)]
pub(super) fn of_rows<L: Door>(lanes: L, keep: &mut [&mut [f32]; 2]) {
    let [most, rest] = keep;
    let least = F32::splat(lanes, FORGETS as f32);
    for (most, rest) in vectors_mut(lanes, most).iter_mut().zip(vectors_mut(lanes, rest)) {
        let parts = exp_parts(F32::from_raw(lanes, *most).max(least));
        (*most, *rest) = (parts[0].raw(), parts[1].raw());
    }
}

/// The same of all rows.
pub(super) fn fill(keep: &mut [&mut [f32]; 2], [most, rest]: [f32; 2]) {
    keep[0].fill(most);
    keep[1].fill(rest);
}

/// `state · keep + more`.
#[inline(always)]
pub(super) fn decayed<L: Door>(state: F32<L>, keep: [F32<L>; 2], more: F32<L>) -> F32<L> {
    state.mul_add(keep[0], state.mul_add(keep[1], more))
}

/// `keep = keep · more`.
#[inline(always)]
pub(super) fn times<L: Door>(lanes: L, keep: [&mut [f32]; 2], more: [&[f32]; 2]) {
    let [most, rest] = keep.map(|row| vectors_mut(lanes, row));
    let more = vectors(lanes, more[0]).iter().zip(vectors(lanes, more[1]));
    for ((most, rest), (&more, &more_rest)) in most.iter_mut().zip(rest).zip(more) {
        let own = [F32::from_raw(lanes, *most), F32::from_raw(lanes, *rest)];
        let product = times_parts(own, [F32::from_raw(lanes, more), F32::from_raw(lanes, more_rest)]);
        (*most, *rest) = (product[0].raw(), product[1].raw());
    }
}
