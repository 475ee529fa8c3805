//! Elementary functions on lanes.
//!
//! Each states its error in units in the last place (ULP) of the exact result, as found by an exhaustive test over
//! every binary32 on AVX2 and with unfused arithmetic on the scalar lanes (`crates/engine/tests/lane_math`).
//! Results below the smallest normal float are 0: nothing here forms or depends on subnormal results.

use crate::lanes::Lanes;
use crate::value::F32;

/// 2^f on [0, 1], relative error 1.9e-9 before rounding: the minimax polynomial of degree 6 with weight 2^f, found by
/// the Remez exchange and rounded to binary32. Degree 5 would leave 7.5e-8, more than half an ULP.
#[allow(clippy::approx_constant)] // The best linear coefficient is three units in the last place from ln 2.
const EXP2: [f32; 7] =
    [1.0, 0.693_147, 0.240_229_83, 0.055_483_34, 0.009_678_841, 0.001_243_968_7, 0.000_217_022_55];

#[inline(always)]
fn exp2_fraction<L: Lanes>(f: F32<L>) -> F32<L> {
    polynomial(&EXP2, f)
}

/// The polynomial with these coefficients, the constant first.
#[inline(always)]
fn polynomial<L: Lanes, const N: usize>(coefficients: &[f32; N], x: F32<L>) -> F32<L> {
    let mut p = x.like(coefficients[N - 1]);
    for &c in coefficients[..N - 1].iter().rev() {
        p = p.mul_add(x, x.like(c));
    }
    p
}

/// The same of degree 3, relative error 7.5e-5. Half a unit in the last place of bfloat16 is 1.95e-3 or more. Degree 2 would leave
/// 1.73e-3: rows of a few keys were then seen at 8.1e-3, which is past their bound.
const EXP2_COARSE: [f32; 4] = [0.999_925_2, 0.695_833_5, 0.226_067_16, 0.078_024_52];

/// The same of degree 5, relative error 7.5e-8 before rounding. Half a unit of two bfloat16 pieces is 7.6e-6 or more.
const EXP2_FINE: [f32; 6] =
    [0.999_999_94, 0.693_153_1, 0.240_153_61, 0.055_826_318, 0.008_989_34, 0.001_877_576_7];

/// 2^n for integral n: 0 below −126, infinite above 127.
#[inline(always)]
pub fn pow2<L: Lanes>(n: F32<L>) -> F32<L> {
    let over = n.like(127.0).lt(n);
    let n = n.max(n.like(-127.0)).min(n.like(127.0));
    let power = F32::from_raw(n.lanes(), n.lanes().pow2_integral(n.raw()));
    over.select(n.like(f32::INFINITY), power)
}

/// The weight of a score `s` (in log2 units) against an integral reference: 2^(s − ⌊s⌋) · 2^(⌊s⌋ − reference).
///
/// The exponents are subtracted as integers, so a weight taken against one reference and multiplied by a power of
/// two has the bits of one taken against another. `reference` is finite and not below the largest ⌊s⌋ of its row.
/// −inf gives 0, as does any weight below 2^−126; NaN and +inf give NaN. Error at most 1.7 ULP.
#[inline(always)]
pub fn softmax_weight<L: Lanes>(s: F32<L>, reference: F32<L>) -> F32<L> {
    // The smallest finite float instead of −inf, so that −inf − −inf is never formed.
    let s = s.max(s.like(f32::MIN));
    let whole = s.floor();
    let exponent = (whole - reference).max(s.like(-127.0));
    let power = F32::from_raw(s.lanes(), s.lanes().pow2_integral(exponent.raw()));
    exp2_fraction(s - whole) * power
}

/// How far a reference may be from 0 for [`softmax_weight_near`].
pub const NEAR: f32 = 4_194_304.0;

/// As [`softmax_weight`], with the same bits and fewer instructions, against a reference of at most [`NEAR`] in size: `least` is 127
/// below it, where a weight is 0.
#[inline(always)]
pub fn softmax_weight_near<L: Lanes>(s: F32<L>, reference: F32<L>, least: F32<L>) -> F32<L> {
    let s = s.max(least);
    let whole = s.floor();
    let power = F32::from_raw(s.lanes(), s.lanes().pow2_integral((whole - reference).raw()));
    exp2_fraction(s - whole) * power
}

/// 2^x for x up to 127 with a relative error of 7.6e-5: for weights that are rounded to bfloat16 next. −inf gives 0. A set's own
/// instructions may make subnormal numbers of results below 2^−126, and infinity of +inf; without them it gives 0 and NaN.
#[inline(always)]
pub fn exp2_coarse<L: Lanes>(x: F32<L>) -> F32<L> {
    F32::from_raw(x.lanes(), x.lanes().exp2_by(&EXP2_COARSE, x.raw()))
}

/// As [`exp2_coarse`], with a relative error of 2e-7: for weights that are rounded to two bfloat16 pieces next.
#[inline(always)]
pub fn exp2_fine<L: Lanes>(x: F32<L>) -> F32<L> {
    F32::from_raw(x.lanes(), x.lanes().exp2_by(&EXP2_FINE, x.raw()))
}

/// 2^x by a polynomial for its fraction, where a set has no instructions for it.
#[inline(always)]
pub(crate) fn exp2_by<L: Lanes, const N: usize>(fraction: &[f32; N], x: F32<L>) -> F32<L> {
    let x = x.max(x.like(-127.0));
    let whole = x.floor();
    let power = F32::from_raw(x.lanes(), x.lanes().pow2_integral(whole.raw()));
    polynomial(fraction, x - whole) * power
}

/// 2^x. Error at most 1.7 ULP, 1.31 where a multiply-add is fused.
#[inline(always)]
pub fn exp2<L: Lanes>(x: F32<L>) -> F32<L> {
    // Beyond these the result is 0 or infinite whatever x is; NaN stays.
    let x = x.max(x.like(-127.0)).min(x.like(128.0));
    let whole = x.floor();
    scale(exp2_fraction(x - whole), whole)
}

/// e^x. Error at most 2.1 ULP.
#[inline(always)]
pub fn exp<L: Lanes>(x: F32<L>) -> F32<L> {
    let x = x.max(x.like(-89.0)).min(x.like(89.0));
    let whole = (x * x.like(core::f32::consts::LOG2_E)).floor();
    scale(exp2_fraction(past_power(x, whole) * x.like(core::f32::consts::LOG2_E)), whole)
}

/// x − n ln 2 for integral n of at most 8 bits.
#[inline(always)]
fn past_power<L: Lanes>(x: F32<L>, n: F32<L>) -> F32<L> {
    // ln 2 in two parts (Cody and Waite): the first has 9 bits, so that its product with an exponent is exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    (x - n * x.like(LN2_HIGH)) - n * x.like(LN2_LOW)
}

/// e^x as a sum of two floats, of which the second is positive and small. Below 2^−100.5 it is 0, and below 2^−125.5 both are.
///
/// What is multiplied by both, step by step, has no float's error again at each: that of the sum is at most 4e-8 of e^x, and where x
/// is above −0.3 also at most 1e-7 of x². As both are positive, their products with an infinite number have one sign.
#[inline(always)]
pub fn exp_parts<L: Lanes>(x: F32<L>) -> [F32<L>; 2] {
    // (e^r − 1 − r) / r² by its series: for r up to ln 2 / 2, what is left out is below r⁸ / 40,320.
    const SERIES: [f32; 6] = [1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];
    let x = x.max(x.like(-89.0)).min(x.like(89.0));
    let whole = (x * x.like(core::f32::consts::LOG2_E) + x.like(0.5)).floor();
    let rest = past_power(x, whole);
    let near = rest + x.like(1.0);
    // What rounding took of 1 + r, exactly, and what is past it.
    let past = (rest - (near - x.like(1.0))) + rest * rest * polynomial(&SERIES, rest);
    let [most, rest] = parts(near, past);
    let rest = whole.lt(x.like(-100.0)).select(x.like(0.0), rest);
    let whole = whole.lt(x.like(-125.0)).select(x.like(-127.0), whole);
    [scale(most, whole), scale(rest, whole)]
}

/// The product of two numbers of [`exp_parts`], as such a sum.
#[inline(always)]
pub fn times_parts<L: Lanes>(a: [F32<L>; 2], b: [F32<L>; 2]) -> [F32<L>; 2] {
    let near = a[0] * b[0];
    // What rounding took of it, where the instruction set fuses, and the other products but the least.
    parts(near, a[0].mul_add(b[0], -near) + a[0].mul_add(b[1], a[1] * b[0]))
}

/// A sum of a positive float and one that is small beside it, as the largest float that is not above it, and a positive rest.
#[inline(always)]
fn parts<L: Lanes>(near: F32<L>, past: F32<L>) -> [F32<L>; 2] {
    // The float before another is that times the one before 1; a rest of none would make no number of infinity.
    const BEFORE_ONE: f32 = 1.0 - f32::EPSILON / 2.0;
    const LEAST: f32 = f32::EPSILON * f32::EPSILON;
    let nearest = near + past;
    let is_above = ((near - nearest) + past).lt(near.like(0.0));
    let most = is_above.select(nearest * near.like(BEFORE_ONE), nearest);
    [most, ((near - most) + past).max(nearest * near.like(LEAST))]
}

/// `p * 2^n` for p from 1 to 2 and integral n from −129 to 129.
#[inline(always)]
fn scale<L: Lanes>(p: F32<L>, n: F32<L>) -> F32<L> {
    let over = n.like(127.0).lt(n);
    let n = n.max(n.like(-127.0)).min(n.like(127.0));
    let power = F32::from_raw(n.lanes(), n.lanes().pow2_integral(n.raw()));
    p * power * over.select(n.like(2.0), n.like(1.0))
}

/// tanh x. Error at most 1.7 ULP.
///
/// Below 0.625 an odd polynomial (coefficients of the Cephes library's `tanhf`), above it 1 − 2 / (e^2x + 1), which
/// would lose the leading digits of a small result.
#[inline(always)]
pub fn tanh<L: Lanes>(x: F32<L>) -> F32<L> {
    const ODD: [f32; 5] = [-0.333_332_8, 0.133_314_42, -0.053_739_72, 0.020_639_088, -0.005_704_988_7];
    let magnitude = x.abs();
    let square = x * x;
    let mut p = x.like(ODD[4]);
    for &c in ODD[..4].iter().rev() {
        p = p.mul_add(square, x.like(c));
    }
    let small = (p * square).mul_add(x, x);
    let one = x.like(1.0);
    // From 16 on the result is 1, so the exponent fits without a look at its ends; rounding it costs little, since the
    // exponential matters the less the larger it is.
    let exponent = magnitude.min(x.like(16.0)) * x.like(2.0 * core::f32::consts::LOG2_E);
    let whole = exponent.floor();
    let power = F32::from_raw(x.lanes(), x.lanes().pow2_integral(whole.raw()));
    let large = one - x.like(2.0) / (exp2_fraction(exponent - whole) * power + one);
    magnitude.lt(x.like(0.625)).select(small, large.signed_as(x))
}

/// 1 / (1 + e^−x). Error at most 2.9 ULP for x ≥ −87; below, where the result nears the smallest normal float, at most
/// 4 ULP or 0.
#[inline(always)]
pub fn sigmoid<L: Lanes>(x: F32<L>) -> F32<L> {
    let one = x.like(1.0);
    one / (one + exp(-x))
}
