//! bfloat16 in lanes: rounding to it, and pairs of it in a word.

use pulp::Simd;

use crate::lanes::Lanes;
use crate::value::{F32, I32};

/// Each lane as the nearest bfloat16, halves away from zero. Infinities stay; NaN stays NaN where its lowest 16 bits are
/// 0, as those are that arithmetic makes.
#[inline(always)]
pub fn round_bf16<L: Lanes>(x: F32<L>) -> F32<L> {
    let simd = x.lanes().simd();
    let rounded = (x.to_bits() + I32::splat(x.lanes(), 0x8000)).raw();
    let upper = simd.splat_u32s(0xffff_0000);
    let bits = simd.and_u32s(simd.transmute_u32s_i32s(rounded), upper);
    F32::from_raw(x.lanes(), simd.transmute_f32s_u32s(bits))
}

/// The two bfloat16 values of each word, the lower half first.
#[inline(always)]
pub fn halves_bf16<L: Lanes>(words: F32<L>) -> (F32<L>, F32<L>) {
    let simd = words.lanes().simd();
    let bits = simd.transmute_u32s_f32s(words.raw());
    let first = simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(16));
    let second = simd.and_u32s(bits, simd.splat_u32s(0xffff_0000));
    let float = |bits| F32::from_raw(words.lanes(), simd.transmute_f32s_u32s(bits));
    (float(first), float(second))
}

/// Words of two bfloat16 values each, given as floats that are such: `first` in the lower half.
#[inline(always)]
pub fn pair_bf16<L: Lanes>(first: F32<L>, second: F32<L>) -> F32<L> {
    let simd = first.lanes().simd();
    let first_bits = simd.transmute_u32s_f32s(first.raw());
    let lower = simd.wrapping_dyn_shr_u32s(first_bits, simd.splat_u32s(16));
    let bits = simd.or_u32s(lower, simd.transmute_u32s_f32s(second.raw()));
    F32::from_raw(first.lanes(), simd.transmute_f32s_u32s(bits))
}
