//! What is done to rows of whole lines, one vector after the other.

use regard_engine::isa::Door;
use regard_simd::{F32, exp, load_f32, vectors, vectors_mut};

use super::kept;

/// `to = from · factor`.
#[inline(always)]
pub(super) fn scale<L: Door>(lanes: L, row: &mut [f32], factor: f32) {
    let factor = F32::splat(lanes, factor);
    for x in vectors_mut(lanes, row) {
        *x = (F32::from_raw(lanes, *x) * factor).raw();
    }
}

/// `to += from · factor`.
#[inline(always)]
pub(super) fn add<L: Door>(lanes: L, from: &[f32], factor: f32, to: &mut [f32]) {
    let factor = F32::splat(lanes, factor);
    for (to, &from) in vectors_mut(lanes, to).iter_mut().zip(vectors(lanes, from)) {
        *to = F32::from_raw(lanes, from).mul_add(factor, F32::from_raw(lanes, *to)).raw();
    }
}

/// `to = a · (b + c)`.
#[inline(always)]
pub(super) fn times<L: Door>(lanes: L, a: &[f32], [b, c]: [&[f32]; 2], to: &mut [f32]) {
    let sums = vectors(lanes, b).iter().zip(vectors(lanes, c));
    for ((to, &a), (&b, &c)) in vectors_mut(lanes, to).iter_mut().zip(vectors(lanes, a)).zip(sums) {
        let sum = F32::from_raw(lanes, b) + F32::from_raw(lanes, c);
        *to = (F32::from_raw(lanes, a) * sum).raw();
    }
}

/// `to = from · exp(logs)`.
#[inline(always)]
pub(super) fn decay<L: Door>(lanes: L, from: &[f32], logs: &[f32], to: &mut [f32]) {
    let logs = vectors(lanes, logs);
    for ((to, &from), &log) in vectors_mut(lanes, to).iter_mut().zip(vectors(lanes, from)).zip(logs) {
        *to = (F32::from_raw(lanes, from) * exp(F32::from_raw(lanes, log))).raw();
    }
}

/// `to = from · exp(logs + more)`.
#[inline(always)]
pub(super) fn decay_more<L: Door>(lanes: L, from: &[f32], [logs, more]: [&[f32]; 2], to: &mut [f32]) {
    let logs = vectors(lanes, logs).iter().zip(vectors(lanes, more));
    for ((to, &from), (&log, &more)) in vectors_mut(lanes, to).iter_mut().zip(vectors(lanes, from)).zip(logs)
    {
        let log = F32::from_raw(lanes, log) + F32::from_raw(lanes, more);
        *to = (F32::from_raw(lanes, from) * exp(log)).raw();
    }
}

/// `to = to · keep + Σ of rows · factor`: the sum from zero, so that few roundings are as large as what it is added to.
#[inline(always)]
pub(super) fn add_rows<L: Door>(
    lanes: L,
    rows: &[f32],
    factors: Option<&[f32]>,
    keep: Option<[&[f32]; 2]>,
    to: &mut [f32],
) {
    let width = to.len();
    for at in (0..width).step_by(L::WIDTH) {
        let mut sum = F32::splat(lanes, 0.0);
        for (i, row) in rows.chunks_exact(width).enumerate() {
            let own = load_f32(lanes, &row[at..]);
            sum = match factors {
                Some(factors) => own.mul_add(F32::splat(lanes, factors[i]), sum),
                None => sum + own,
            };
        }
        let to = &mut vectors_mut(lanes, &mut to[at..at + L::WIDTH])[0];
        let before = F32::from_raw(lanes, *to);
        *to = match keep {
            Some([most, rest]) => {
                kept::decayed(before, [load_f32(lanes, &most[at..]), load_f32(lanes, &rest[at..])], sum)
            }
            None => before + sum,
        }
        .raw();
    }
}

/// The sum of products.
#[inline(always)]
pub(super) fn dot<L: Door>(lanes: L, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = F32::splat(lanes, 0.0);
    for (&a, &b) in vectors(lanes, a).iter().zip(vectors(lanes, b)) {
        sum = F32::from_raw(lanes, a).mul_add(F32::from_raw(lanes, b), sum);
    }
    sum.sum()
}

/// The sum of elements.
#[inline(always)]
pub(super) fn sum<L: Door>(lanes: L, row: &[f32]) -> f32 {
    let mut sum = F32::splat(lanes, 0.0);
    for &x in vectors(lanes, row) {
        sum = sum + F32::from_raw(lanes, x);
    }
    sum.sum()
}

/// Whether every element is finite.
#[inline(always)]
pub(super) fn are_finite<L: Door>(lanes: L, row: &[f32]) -> bool {
    let zero = F32::splat(lanes, 0.0);
    // Four sums, so that none waits for the one before.
    let mut sums = [zero; 4];
    let (fours, rest) = vectors(lanes, row).as_chunks::<4>();
    for four in fours {
        for (sum, &x) in sums.iter_mut().zip(four) {
            *sum = F32::from_raw(lanes, x).mul_add(zero, *sum);
        }
    }
    for &x in rest {
        sums[0] = F32::from_raw(lanes, x).mul_add(zero, sums[0]);
    }
    ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum() == 0.0
}
