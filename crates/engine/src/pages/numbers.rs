//! Numbers as codecs store them: by themselves, and sixteen at a time with the same bits.

use half::f16;
use pulp::bytemuck;
use regard_ir::cache::{Block, Codec};
use regard_simd::{F32, I32, Simd, vectors, vectors_mut};

use super::Step;
use crate::cached::LANES;
use crate::element::store_f16;
use crate::isa::Door;

/// What is added to integers, so that none is negative.
pub(crate) const BYTE_BIAS: f32 = 128.0;
pub(crate) const NIBBLE_BIAS: f32 = 8.0;

/// Added to a small number and taken away again, it leaves the nearest integer, ties to even: the sum has no place for a
/// fraction.
const ROUND: f32 = 1.5 * (1 << 23) as f32;

/// Where the half byte of number `n` begins in its word: the first four are the lower halves of its bytes.
pub(crate) const fn nibble(n: usize) -> usize {
    n % 4 * 8 + n / 4 * 4
}

/// The smallest and the largest integer of a codec.
const fn ends(codec: Codec) -> [f32; 2] {
    match codec {
        Codec::Int4 => [-8.0, 7.0],
        _ => [-127.0, 127.0],
    }
}

/// How many steps negative and positive numbers have. Where integers are few, half a step past the last one counts too: what lies there
/// is as near to it as others are to theirs, and steps are shorter.
const fn steps(codec: Codec) -> [f32; 2] {
    match codec {
        Codec::Int4 => [8.5, 7.5],
        _ => [127.0, 127.0],
    }
}

/// What the magnitude of a number is below if a codec stores it, or its scale, as something finite.
pub(crate) const fn limit(codec: Codec) -> f32 {
    match codec {
        Codec::F32 | Codec::Int8 => f32::INFINITY,
        // Half a unit past the largest numbers, of which the last bit is odd.
        Codec::F16 => 65520.0,
        Codec::Bf16 => f32::from_bits(0x7f7f_8000),
        Codec::Int4 => 7.5 * 65520.0,
    }
}

/// The nearest integer with its bias, ties to even; NaN gives 0.
pub(crate) fn rounded(x: f32, codec: Codec, bias: f32) -> u32 {
    let [least, most] = ends(codec);
    (x.clamp(least, most) + ROUND - ROUND + bias) as u32
}

/// The largest magnitude of some numbers; the first NaN where one is.
#[inline(always)]
pub(crate) fn peak(numbers: &[f32]) -> f32 {
    // Magnitudes are ordered as their bits are, and NaN is above all.
    let size = |x: f32| x.to_bits() & (u32::MAX >> 1);
    let largest = numbers.iter().fold(0, |largest, &x| size(x).max(largest));
    if largest > f32::INFINITY.to_bits() {
        return numbers.iter().find(|x| x.is_nan()).map_or(f32::NAN, |x| x.abs());
    }
    f32::from_bits(largest)
}

/// The shortest step by which a codec reaches all numbers; the first NaN where one is.
#[inline(always)]
pub(crate) fn step_of(codec: Codec, numbers: &[f32]) -> f32 {
    let [down, up] = steps(codec);
    if down == up {
        return peak(numbers) / up;
    }
    // As [`peak`]: bits of positive numbers are ordered as integers with a sign are, and those of negative ones are below 0.
    let [least, most] = numbers.iter().fold([0, 0], |[least, most], &x| {
        [(-x).to_bits().cast_signed().max(least), x.to_bits().cast_signed().max(most)]
    });
    if least.max(most) > f32::INFINITY.to_bits().cast_signed() {
        return peak(numbers);
    }
    let [least, most] = [least, most].map(|bits| f32::from_bits(bits.cast_unsigned()));
    (least / down).max(most / up)
}

/// A scale as it is kept, and what numbers are multiplied by before they are rounded.
pub(crate) fn scale_of(codec: Codec, scale: f32) -> (f32, f32) {
    let scale = if codec == Codec::Int4 { f16::from_f32(scale).to_f32() } else { scale };
    (scale, inverse_of(scale))
}

#[inline(always)]
fn inverse_of(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if scale.is_nan() || inverse.is_finite() { inverse } else { 0.0 }
}

/// [`scale_of`] of sixteen steps.
pub(super) struct Scales {
    /// The scales.
    scales: [f32; LANES],
    /// The same as bits of binary16, where they are kept so.
    halves: [u16; LANES],
    /// What numbers are multiplied by.
    pub(super) inverses: [f32; LANES],
}

impl Scales {
    #[inline(always)]
    pub(super) fn new<D: Door>(lanes: D, codec: Codec, steps: &[f32; LANES]) -> Self {
        let (mut scales, mut halves, mut inverses) = (*steps, [0; LANES], [0.0; LANES]);
        if codec == Codec::Int4 {
            store_f16(lanes, &scales, &mut halves);
            for (halves, scales) in halves.chunks_exact(D::WIDTH).zip(vectors_mut(lanes, &mut scales)) {
                *scales = lanes.load_f16(halves);
            }
        }
        for (inverse, &scale) in inverses.iter_mut().zip(&scales) {
            *inverse = inverse_of(scale);
        }
        Self { scales, halves, inverses }
    }

    /// Writes scale `i` of them as scale number `at` of a block.
    #[inline(always)]
    pub(super) fn put(&self, i: usize, block: &Block, to: &mut [u32], at: usize) {
        let to = &mut to[block.words()..];
        match block.codec {
            Codec::Int4 => bytemuck::cast_slice_mut::<u32, u16>(to)[at] = self.halves[i],
            _ => to[at] = self.scales[i].to_bits(),
        }
    }
}

/// A codec, `N` numbers of which are in a word.
pub(super) trait Stored<const N: usize> {
    /// Which one.
    const CODEC: Codec;

    /// Writes number `n` of each lane of a step: of `x`, times `by` where the codec has scales. `#[inline(always)]`.
    fn put<D: Door>(lanes: D, x: &[f32; LANES], by: &[f32; LANES], n: usize, step: &mut Step);

    /// Takes number `n` of the lanes from number `first` on as they are in another step. `#[inline(always)]`.
    #[inline(always)]
    fn keep(_n: usize, first: usize, from: &Step, step: &mut Step) {
        step[first..].copy_from_slice(&from[first..]);
    }

    /// Writes the first `count` numbers of one lane of a step. `from` has each as the first number of a lane of its own, from lane
    /// `first` on. `#[inline(always)]`.
    fn gather(from: &Step, first: usize, count: usize, lane: usize, step: &mut Step);
}

/// A codec whose words are made of the bits of their numbers.
trait Words<const N: usize> {
    const CODEC: Codec;

    /// The bits that a number has.
    const MASK: u32;

    /// Where those of number `n` begin.
    fn shift(n: usize) -> usize;

    /// The numbers, in the lowest bits. `#[inline(always)]`.
    fn bits<D: Door>(x: F32<D>, by: F32<D>) -> I32<D>;
}

impl<const N: usize, W: Words<N>> Stored<N> for W {
    const CODEC: Codec = W::CODEC;

    #[inline(always)]
    fn put<D: Door>(lanes: D, x: &[f32; LANES], by: &[f32; LANES], n: usize, step: &mut Step) {
        let simd = lanes.simd();
        let shift = W::shift(n);
        let others = simd.splat_u32s(!(W::MASK << shift));
        let shift = simd.splat_u32s(shift as u32);
        let (words, _) = D::Simd::as_mut_simd_u32s(step);
        for ((word, &x), &by) in words.iter_mut().zip(vectors(lanes, x)).zip(vectors(lanes, by)) {
            let bits = W::bits(F32::from_raw(lanes, x), F32::from_raw(lanes, by));
            let bits = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_i32s(bits.raw()), shift);
            *word = simd.or_u32s(simd.and_u32s(*word, others), bits);
        }
    }

    #[inline(always)]
    fn gather(from: &Step, first: usize, count: usize, lane: usize, step: &mut Step) {
        let word = &mut step[lane];
        for n in 0..count {
            let shift = W::shift(n);
            *word = *word & !(W::MASK << shift) | from[first + n] << shift;
        }
    }
}

/// [`Codec::F32`].
pub(super) struct Floats;

impl Words<1> for Floats {
    const CODEC: Codec = Codec::F32;
    const MASK: u32 = u32::MAX;

    #[inline(always)]
    fn shift(_: usize) -> usize {
        0
    }

    #[inline(always)]
    fn bits<D: Door>(x: F32<D>, _: F32<D>) -> I32<D> {
        x.to_bits()
    }
}

/// [`Codec::Bf16`].
pub(super) struct Pairs;

impl Words<2> for Pairs {
    const CODEC: Codec = Codec::Bf16;
    const MASK: u32 = 0xffff;

    #[inline(always)]
    fn shift(n: usize) -> usize {
        16 * n
    }

    /// The nearest, ties to even; NaN is quiet, with the upper bits of its payload.
    #[inline(always)]
    fn bits<D: Door>(x: F32<D>, _: F32<D>) -> I32<D> {
        let (lanes, simd) = (x.lanes(), x.lanes().simd());
        let bits = x.to_bits();
        let upper = bits.shift_right::<16>();
        let (uppers, one) = (simd.transmute_u32s_i32s(upper.raw()), simd.splat_u32s(1));
        let is_odd = I32::from_raw(lanes, simd.transmute_i32s_u32s(simd.and_u32s(uppers, one)));
        let nearest = (bits + bits.like(0x7fff) + is_odd).shift_right::<16>();
        let quiet = simd.transmute_i32s_u32s(simd.or_u32s(uppers, simd.splat_u32s(0x40)));
        x.eq(x).select_i32(nearest, I32::from_raw(lanes, quiet))
    }
}

/// Integers as [`rounded`] gives them.
#[inline(always)]
fn integers<D: Door>(x: F32<D>, codec: Codec, bias: f32) -> I32<D> {
    let ([least, most], round) = (ends(codec), x.like(ROUND));
    let x = x.max(x.like(least)).min(x.like(most));
    (x + round - round + x.like(bias)).to_i32()
}

/// [`Codec::Int8`].
pub(super) struct Bytes;

impl Words<4> for Bytes {
    const CODEC: Codec = Codec::Int8;
    const MASK: u32 = 0xff;

    #[inline(always)]
    fn shift(n: usize) -> usize {
        8 * n
    }

    #[inline(always)]
    fn bits<D: Door>(x: F32<D>, by: F32<D>) -> I32<D> {
        integers(x * by, Codec::Int8, BYTE_BIAS)
    }
}

/// [`Codec::Int4`].
pub(super) struct Nibbles;

impl Words<8> for Nibbles {
    const CODEC: Codec = Codec::Int4;
    const MASK: u32 = 0xf;

    #[inline(always)]
    fn shift(n: usize) -> usize {
        nibble(n)
    }

    #[inline(always)]
    fn bits<D: Door>(x: F32<D>, by: F32<D>) -> I32<D> {
        integers(x * by, Codec::Int4, NIBBLE_BIAS)
    }
}

/// [`Codec::F16`], whose numbers are not in the words of their lanes.
pub(super) struct Halves;

/// The first and the second numbers of a step.
#[inline(always)]
fn halves(step: &mut Step) -> &mut [[u16; LANES]] {
    bytemuck::cast_slice_mut::<u32, u16>(step).as_chunks_mut().0
}

impl Stored<2> for Halves {
    const CODEC: Codec = Codec::F16;

    #[inline(always)]
    fn put<D: Door>(lanes: D, x: &[f32; LANES], _: &[f32; LANES], n: usize, step: &mut Step) {
        store_f16(lanes, x, &mut halves(step)[n]);
    }

    #[inline(always)]
    fn keep(n: usize, first: usize, from: &Step, step: &mut Step) {
        let from = &bytemuck::cast_slice::<u32, u16>(from)[n * LANES..][..LANES];
        halves(step)[n][first..].copy_from_slice(&from[first..]);
    }

    #[inline(always)]
    fn gather(from: &Step, first: usize, count: usize, lane: usize, step: &mut Step) {
        let from = &bytemuck::cast_slice::<u32, u16>(from)[first..][..count];
        for (&half, halves) in from.iter().zip(halves(step)) {
            halves[lane] = half;
        }
    }
}

/// Sixteen numbers of a row.
#[inline(always)]
pub(super) fn sixteen(row: &[f32], first: usize) -> &[f32; LANES] {
    row[first..].first_chunk().expect("rows are padded to whole vectors")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_the_shortest_that_reaches_all() {
        let step = |numbers: &[f32]| step_of(Codec::Int4, numbers);
        assert_eq!([step(&[0.5, 7.5, -3.0]), step(&[0.5, 7.5, -8.5]), step(&[-8.5])], [1.0; 3]);
        assert_eq!([step(&[15.0, -8.5]), step(&[7.5, -17.0])], [2.0; 2]);
        assert_eq!([step(&[]), step(&[0.0, -0.0])], [0.0; 2]);
        assert_eq!([step(&[1.0, f32::INFINITY]), step(&[f32::NEG_INFINITY])], [f32::INFINITY; 2]);
        assert!([f32::NAN, -f32::NAN].into_iter().all(|nan| step(&[1.0, nan]).is_nan()));
        assert_eq!(step_of(Codec::Int8, &[-254.0, 127.0]), 2.0);
    }

    /// By numbers whose scale has its digits in binary16.
    #[test]
    fn no_number_is_further_from_what_is_stored_than_half_a_step() {
        for (codec, bias) in [(Codec::Int8, BYTE_BIAS), (Codec::Int4, NIBBLE_BIAS)] {
            let [down, up] = steps(codec);
            let row: [f32; 1001] = core::array::from_fn(|i| -down + (down + up) * i as f32 / 1000.0);
            let (scale, by) = scale_of(codec, step_of(codec, &row));
            assert_eq!(scale, 1.0);
            for x in row {
                let stored = rounded(x * by, codec, bias) as f32 - bias;
                assert!((stored - x).abs() <= 0.5, "{codec:?}: {x} as {stored}");
                let [least, most] = ends(codec);
                assert!((least..=most).contains(&stored), "{codec:?}: {x} as {stored}");
            }
        }
    }
}
