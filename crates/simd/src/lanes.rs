//! What `pulp` lacks, declared for every instruction set.

use pulp::Simd;

use crate::math;
use crate::value::F32;

/// Rows and columns of the block that [`Lanes::transpose`] turns.
pub const TRANSPOSE: usize = 8;

/// Rows that are so far apart, as [`Lanes::transpose`] takes them. A loop, as `core::array::from_fn` is called where it is not inlined,
/// and that for each block.
///
/// # Panics
/// If the last row begins past the end of the data.
#[inline(always)]
pub fn rows_apart(data: &[f32], stride: usize) -> [&[f32]; TRANSPOSE] {
    let mut rows = [data; TRANSPOSE];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = &data[i * stride..];
    }
    rows
}

/// The same rows, each from an element on.
///
/// # Panics
/// If a row ends before.
#[inline(always)]
pub fn rows_from(mut rows: [&[f32]; TRANSPOSE], first: usize) -> [&[f32]; TRANSPOSE] {
    for row in &mut rows {
        *row = &row[first..];
    }
    rows
}

/// How long runs of lines, each of which is read once, are asked for before they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    /// Into the first cache.
    IntoFirst,
    /// Into the second cache, and not the first.
    IntoSecond,
    /// The same, and only what is read next where that does not follow in memory: what does, the processor finds by itself.
    AtJumps,
    /// Into the second cache, a short way ahead. Lines that are read with one product each the processor finds by itself, but for jumps.
    Close,
}

/// The vectors of one instruction set.
///
/// A value of this type is a proof that the processor has the set: it is made by detection alone. Methods are
/// `#[inline(always)]` and meant for code that runs inside the set's door (`regard_engine::Engine::enter`).
pub trait Lanes: Copy + Send + Sync + 'static {
    /// The `pulp` token with the same lanes.
    type Simd: Simd;

    /// Number of 32-bit lanes.
    const WIDTH: usize = <Self::Simd as Simd>::F32_LANES;

    /// The `pulp` token.
    fn simd(self) -> Self::Simd;

    /// The largest integral float not above each lane. NaN stays NaN, infinities stay.
    fn floor(self, x: <Self::Simd as Simd>::f32s) -> <Self::Simd as Simd>::f32s;

    /// `b > a ? b : a` in each lane: `a` where one of them is NaN.
    #[inline(always)]
    fn max(self, a: <Self::Simd as Simd>::f32s, b: <Self::Simd as Simd>::f32s) -> <Self::Simd as Simd>::f32s {
        let (a, b) = (F32::from_raw(self, a), F32::from_raw(self, b));
        a.lt(b).select(b, a).raw()
    }

    /// `b < a ? b : a` in each lane: `a` where one of them is NaN.
    #[inline(always)]
    fn min(self, a: <Self::Simd as Simd>::f32s, b: <Self::Simd as Simd>::f32s) -> <Self::Simd as Simd>::f32s {
        let (a, b) = (F32::from_raw(self, a), F32::from_raw(self, b));
        b.lt(a).select(b, a).raw()
    }

    /// Truncates each lane to an int; saturates outside `i32`, NaN gives 0.
    fn to_i32(self, x: <Self::Simd as Simd>::f32s) -> <Self::Simd as Simd>::i32s;

    /// Each lane as the nearest float.
    fn to_f32(self, x: <Self::Simd as Simd>::i32s) -> <Self::Simd as Simd>::f32s;

    /// 2^n for integral n from −126 to 127; n = −127 gives 0. Any other lane gives some float that is not NaN.
    fn pow2_integral(self, n: <Self::Simd as Simd>::f32s) -> <Self::Simd as Simd>::f32s;

    /// 2^x for x up to 127, where a polynomial, its constant first, gives 2^f for f from 0 to 1: as [`crate::exp2_coarse`] does, for
    /// sets that have instructions for its parts.
    #[inline(always)]
    fn exp2_by<const N: usize>(
        self,
        fraction: &[f32; N],
        x: <Self::Simd as Simd>::f32s,
    ) -> <Self::Simd as Simd>::f32s {
        math::exp2_by(fraction, F32::from_raw(self, x)).raw()
    }

    /// Widens `WIDTH` binary16 values, given as bits.
    fn load_f16(self, bits: &[u16]) -> <Self::Simd as Simd>::f32s;

    /// Widens `WIDTH` bfloat16 values, given as bits.
    fn load_bf16(self, bits: &[u16]) -> <Self::Simd as Simd>::f32s;

    /// Narrows each lane to the nearest binary16, ties to even, and writes `WIDTH` of them as bits. NaN stays NaN, quiet, with
    /// the upper bits of its payload.
    fn store_f16(self, x: <Self::Simd as Simd>::f32s, bits: &mut [u16]);

    /// Asks for the line of memory at an address, which will be read soon. Nothing depends on it, not even on what is there.
    #[inline(always)]
    fn prefetch<T>(self, _at: *const T) {}

    /// As [`Lanes::prefetch`], into the caches behind the nearest one: for what is read after more than that one holds.
    #[inline(always)]
    fn prefetch_far<T>(self, _at: *const T) {}

    /// How long runs of lines are asked for, which no bit depends on: what is fastest depends on the processor.
    #[inline(always)]
    fn prefetches(self) -> Prefetch {
        Prefetch::IntoFirst
    }

    /// The same in another way, where the set can ask so: for tests of what must not depend on it.
    #[inline(always)]
    #[must_use]
    fn with_prefetches(self, _prefetch: Prefetch) -> Self {
        self
    }

    /// Writes 8 × 8 floats turned: `to[j * stride + i] = from[i][j]`.
    ///
    /// # Panics
    /// If a row of `from` is shorter than 8, or `to` is shorter than `7 * stride + 8`.
    #[inline(always)]
    fn transpose(self, from: [&[f32]; TRANSPOSE], to: &mut [f32], stride: usize) {
        for (i, row) in from.into_iter().enumerate() {
            for (j, &x) in row[..TRANSPOSE].iter().enumerate() {
                to[j * stride + i] = x;
            }
        }
    }
}
