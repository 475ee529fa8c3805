//! What is left of a state after a token, a chunk or a cell: e^x of a sum of log decays x.
//!
//! It is the sum of two floats. The nearest float is up to 6e-8 of it off, and where a decay is the same at every token that error
//! comes again with each: a state would be off by 6e-8 times as many tokens as it remembers. The second float is positive, and so are
//! products of both with an infinite element infinite.

use regard_engine::isa::Door;
use regard_simd::{F32, exp_parts, times_parts, vectors, vectors_mut};

/// Leaves what is left without decays: all. The second float changes no element.
pub(super) fn all(keep: &mut [&mut [f32]; 2]) {
    keep[0].fill(1.0);
    keep[1].fill(f32::EPSILON * f32::EPSILON);
}

/// Leaves what is left of all rows after one sum of log decays.
#[inline(always)]
pub(super) fn of_all<L: Door>(lanes: L, log: f32, keep: &mut [&mut [f32]; 2]) {
    let left = exp_parts(F32::splat(lanes, log));
    for (keep, left) in keep.iter_mut().zip(left) {
        for x in vectors_mut(lanes, keep) {
            *x = left.raw();
        }
    }
}

/// Leaves what is left of rows, whose sums of log decays are in the place of the first floats.
#[inline(always)]
pub(super) fn of_rows<L: Door>(lanes: L, keep: &mut [&mut [f32]; 2]) {
    let [most, rest] = keep;
    for (most, rest) in vectors_mut(lanes, most).iter_mut().zip(vectors_mut(lanes, rest)) {
        let left = exp_parts(F32::from_raw(lanes, *most));
        (*most, *rest) = (left[0].raw(), left[1].raw());
    }
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
