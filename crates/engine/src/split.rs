//! f32 numbers as sums of bf16 pieces, and rows of them as words of two channels each.

use pulp::bytemuck;
use regard_ir::plan::Pieces;
use regard_simd::{F32, Lanes, vectors_mut};

/// The most pieces.
pub(crate) const MAX_PIECES: usize = 3;

const _: () = assert!(Pieces::WHOLE.scores as usize <= MAX_PIECES);

/// Bits of a bf16 that are all set where it is not finite.
const INFINITE: u16 = 0x7f80;

/// The bits of the bf16 nearest to a number, ties to even, as the upper half of a binary32. A finite number stays finite,
/// NaN stays NaN.
///
/// Of nothing but integers and selections, so that a loop over it becomes one over vectors.
#[inline(always)]
fn nearest(x: f32) -> u32 {
    const INFINITY: u32 = 0x7f80_0000;
    const UPPER: u32 = 0xffff_0000;
    const QUIET: u32 = 0x0040_0000;
    /// From here on rounding would give infinity, or change what is not finite.
    const LAST: u32 = 0x7f7f_8000;
    let bits = x.to_bits();
    let magnitude = bits & !(1 << 31);
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & UPPER;
    let quiet = if magnitude > INFINITY { QUIET } else { 0 };
    if magnitude < LAST { rounded } else { bits & UPPER | quiet }
}

/// The pieces of a number: each is the bf16 nearest to what those before it leave. Only the first of a number that is not
/// finite is not 0.
#[inline(always)]
pub(crate) fn split<const N: usize>(x: f32) -> [u32; N] {
    let (mut pieces, mut rest) = ([0; N], x);
    for piece in &mut pieces {
        *piece = nearest(rest);
        rest = if x.is_finite() { rest - f32::from_bits(*piece) } else { 0.0 };
    }
    pieces
}

/// Writes pairs of numbers as words, piece by piece: `to` are the pieces' words, `[pieces][words]`, each as many as there
/// are pairs. Missing numbers are 0.
#[inline(always)]
pub(crate) fn pair_channels(row: &[f32], pieces: usize, to: &mut [u32]) {
    match pieces {
        1 => pair_channels_of::<1>(row, to),
        2 => pair_channels_of::<2>(row, to),
        _ => pair_channels_of::<MAX_PIECES>(row, to),
    }
}

#[inline(always)]
fn pair_channels_of<const N: usize>(row: &[f32], to: &mut [u32]) {
    // Number by number, so that the loop is one over vectors. The first of a word is its lower half.
    const { assert!(cfg!(target_endian = "little")) };
    let halves = 2 * to.len() / N;
    let to: &mut [u16] = bytemuck::cast_slice_mut(to);
    for piece in 0..N {
        let (whole, missing) = to[piece * halves..][..halves].split_at_mut(row.len());
        for (half, &x) in whole.iter_mut().zip(row) {
            *half = (split::<N>(x)[piece] >> 16) as u16;
        }
        missing.fill(0);
    }
}

/// As [`pair_channels`] in one piece, of a row that is stored as bf16.
#[inline(always)]
pub(crate) fn copy_channels<L: Lanes>(lanes: L, row: &[u16], to: &mut [f32]) {
    let halves = 2 * L::WIDTH;
    let vectors = row.chunks_exact(halves);
    let last = vectors.remainder();
    let (whole, rest) = vectors_mut(lanes, to).split_at_mut(row.len() / halves);
    // Vector by vector: a copy of unknown length is a call.
    for (to, row) in whole.iter_mut().zip(vectors) {
        bytemuck::cast_slice_mut::<_, u16>(core::slice::from_mut(to)).copy_from_slice(row);
    }
    rest.fill(F32::splat(lanes, 0.0).raw());
    bytemuck::cast_slice_mut::<_, u16>(rest)[..last.len()].copy_from_slice(last);
}

/// Whether a row that is stored as bf16 has a number that is not finite.
#[cold]
pub(crate) fn is_odd_bf16(row: &[u16]) -> bool {
    row.iter().any(|bits| bits & INFINITE == INFINITE)
}

/// Writes the channels of two rows as words, piece by piece, as [`pair_channels`] does with the channels of one; what is
/// not finite counts as 0.
#[inline(always)]
pub(crate) fn pair_rows(first: &[f32], second: &[f32], pieces: usize, to: &mut [u32]) {
    match pieces {
        1 => pair_rows_of::<1>(first, second, to),
        2 => pair_rows_of::<2>(first, second, to),
        _ => pair_rows_of::<MAX_PIECES>(first, second, to),
    }
}

#[inline(always)]
fn pair_rows_of<const N: usize>(first: &[f32], second: &[f32], to: &mut [u32]) {
    let words = to.len() / N;
    let finite = |x: f32| if x.is_finite() { x } else { 0.0 };
    for piece in 0..N {
        let (whole, missing) = to[piece * words..][..words].split_at_mut(first.len());
        for ((word, &first), &second) in whole.iter_mut().zip(first).zip(second) {
            *word = split::<N>(finite(first))[piece] >> 16 | split::<N>(finite(second))[piece];
        }
        missing.fill(0);
    }
}

/// As [`pair_rows`], of rows that are stored as bf16. Gives for each whether it has a number that is not finite.
#[inline(always)]
pub(crate) fn join_rows(first: &[u16], second: &[u16], to: &mut [u32]) -> [bool; 2] {
    let (whole, missing) = to.split_at_mut(first.len());
    let mut odd = [0u16; 2];
    for ((word, &first), &second) in whole.iter_mut().zip(first).zip(second) {
        // All bits set where a number is not finite.
        let [a, b] = [first, second].map(|bits| if bits & INFINITE == INFINITE { u16::MAX } else { 0 });
        odd = [odd[0] | a, odd[1] | b];
        *word = u32::from(first & !a) | u32::from(second & !b) << 16;
    }
    missing.fill(0);
    odd.map(|odd| odd != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::scalar::Scalar;

    fn value(piece: u32) -> f32 {
        f32::from_bits(piece)
    }

    #[test]
    fn pieces_add_up() {
        for x in [0.0f32, -0.0, 1.0, -1.0, 0.1, 3.161_592_7, 1.0e-20, -7.7e19, 65_504.0] {
            let [whole] = split::<1>(x);
            assert!((value(whole) - x).abs() <= x.abs() / 256.0, "{x}");
            let [a, b] = split::<2>(x);
            assert!((value(a) + value(b) - x).abs() <= x.abs() / 65_536.0, "{x}");
            let [a, b, c] = split::<3>(x);
            assert_eq!(value(a) + (value(b) + value(c)), x, "{x}");
        }
    }

    #[test]
    fn what_is_not_finite_has_one_piece() {
        assert_eq!(split::<2>(f32::INFINITY), [f32::INFINITY.to_bits(), 0]);
        assert_eq!(split::<2>(f32::NEG_INFINITY), [f32::NEG_INFINITY.to_bits(), 0]);
        for bits in [0x7fc0_0000, 0x7f80_0001, u32::MAX] {
            let [first, second] = split::<2>(f32::from_bits(bits));
            assert!(value(first).is_nan() && first & 0xffff == 0 && second == 0, "{bits:x}");
        }
        // The largest float rounds up to infinity, and must not.
        let [first, second] = split::<2>(f32::MAX);
        assert!(value(first).is_finite() && value(second).is_finite());
    }

    #[test]
    fn words_have_two_channels_and_end_in_zeros() {
        let mut words = [u32::MAX; 8];
        pair_channels(&[1.0, -2.0, 0.5], 2, &mut words);
        let half = |x: f32| x.to_bits() >> 16;
        assert_eq!(words, [half(1.0) | half(-2.0) << 16, half(0.5), 0, 0, 0, 0, 0, 0]);
        let bits = |x: f32| half(x) as u16;
        assert_eq!(
            join_rows(&[bits(1.0), bits(f32::NAN)], &[bits(2.0), bits(3.0)], &mut words),
            [true, false]
        );
        assert_eq!(words, [half(1.0) | half(2.0) << 16, half(3.0) << 16, 0, 0, 0, 0, 0, 0]);
        words.fill(u32::MAX);
        pair_rows(&[1.0, f32::NAN], &[2.0, 3.0], 1, &mut words);
        assert_eq!(words, [half(1.0) | half(2.0) << 16, half(3.0) << 16, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn rows_of_bf16_are_copied_as_they_are() {
        copy_rows(Scalar);
        #[cfg(target_arch = "x86_64")]
        {
            crate::isa::avx2::Avx2::detect().map_or_else(|| skipped("avx2"), copy_rows);
            crate::isa::avx512::Avx512::detect().map_or_else(|| skipped("avx512"), copy_rows);
        }
    }

    fn skipped(isa: &str) {
        std::eprintln!("skipped {isa}: not on this CPU");
    }

    /// Whole vectors, what is left, and words that have no channel.
    fn copy_rows<L: Lanes>(lanes: L) {
        for len in 0..=81 {
            let row: std::vec::Vec<u16> = (1..=len).map(|i| i * 0x123).collect();
            let mut to = std::vec![f32::NAN; 48];
            copy_channels(lanes, &row, &mut to);
            let halves: &[u16] = bytemuck::cast_slice(&to);
            assert_eq!(halves[..row.len()], row);
            assert!(halves[row.len()..].iter().all(|&half| half == 0), "{len} channels");
        }
    }

    #[test]
    fn a_row_is_odd_that_has_an_infinity_or_nan() {
        let bits = |x: f32| (x.to_bits() >> 16) as u16;
        assert!(!is_odd_bf16(&[bits(1.0), bits(f32::MAX), 0]));
        assert!(is_odd_bf16(&[bits(1.0), bits(f32::NEG_INFINITY)]));
        assert!(is_odd_bf16(&[bits(f32::NAN), bits(1.0)]));
    }
}
