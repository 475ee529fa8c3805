//! Products of bytes: rows are quantised as well, so that one instruction multiplies four numbers of a lane.
//!
//! Queries are rounded to 16 bits once a call, weights once a page, each row with a scale of its own, and multiplied as an
//! upper and a lower byte: of 8 bits alone either would leave an error near 1e-2 where keys are few. Sums are exact integers;
//! what a page adds is converted and scaled once.

use core::marker::PhantomData;

use pulp::bytemuck;
use regard_simd::{F32, I32, Simd, vectors, vectors_mut};

use super::load::Step;
use super::tile::Write;
use crate::engine::Op;
use crate::isa::Door;

/// How bytes of each lane are stored in a [`Step`]; a word of it takes `N` words of the other operand.
pub(super) trait Stored<const N: usize>: Copy + 'static {
    /// What is taken from the sums of keys, in units of the sum of the other operand's bytes.
    const KEY_BIAS: i32;
    /// What is taken from the sums of values, likewise.
    const VALUE_BIAS: i32;

    /// The words of vector `v` of the row's lanes, bytes of 0 to 255. `#[inline(always)]`.
    fn keys<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::u32s; N];

    /// The same, bytes of −128 to 127. `#[inline(always)]`.
    fn values<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::u32s; N];
}

#[inline(always)]
fn words<D: Door>(lanes: D, step: &Step, v: usize) -> <D::Simd as Simd>::u32s {
    lanes.simd().transmute_u32s_f32s(vectors(lanes, bytemuck::cast_slice(step))[v])
}

/// [`regard_ir::cache::Codec::Int8`]: bytes are numbers and 128.
#[derive(Clone, Copy)]
pub(super) struct Bytes;

impl Stored<1> for Bytes {
    const KEY_BIAS: i32 = 128;
    const VALUE_BIAS: i32 = 0;

    #[inline(always)]
    fn keys<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::u32s; 1] {
        [words(lanes, step, v)]
    }

    #[inline(always)]
    fn values<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::u32s; 1] {
        let simd = lanes.simd();
        [simd.xor_u32s(words(lanes, step, v), simd.splat_u32s(0x8080_8080))]
    }
}

/// [`regard_ir::cache::Codec::Int4`]: half bytes are numbers and 8, the first four in the lower halves.
#[derive(Clone, Copy)]
pub(super) struct Nibbles;

impl Stored<2> for Nibbles {
    const KEY_BIAS: i32 = 8;
    const VALUE_BIAS: i32 = 8;

    #[inline(always)]
    fn keys<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::u32s; 2] {
        let simd = lanes.simd();
        let (words, low) = (words(lanes, step, v), simd.splat_u32s(0x0f0f_0f0f));
        let high = simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(4));
        [simd.and_u32s(words, low), simd.and_u32s(high, low)]
    }

    #[inline(always)]
    fn values<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::u32s; 2] {
        Self::keys(lanes, step, v)
    }
}

/// Rows of numbers of two bytes, four to a word of upper and one of lower bytes: `depth` times `N` words of each, `stride`
/// words apart, and `lower` words from the upper bytes of a row to its lower ones.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub words: &'a [u32],
    pub stride: usize,
    pub lower: usize,
    /// Rows that there are; what a tile has more repeats the last.
    pub rows: usize,
    pub depth: usize,
    pub of_rows: &'a [OfRow],
}

/// What belongs to a row of numbers.
#[derive(Clone, Copy, Default)]
pub(super) struct OfRow {
    /// What sums of its lower bytes are multiplied by.
    pub scale: f32,
    /// What its upper and its lower bytes add up to.
    pub sums: [i32; 2],
}

/// How much more an upper byte counts.
const UPPER: f32 = 256.0;

/// One tile of integer sums, inside a function of its own.
pub(super) struct ByteTile<'a, D, S, const N: usize, const R: usize, const U: usize, const KEYS: bool> {
    pub lanes: D,
    pub a: Rows<'a>,
    /// Whole panels, each as deep as `a` or deeper, that are `panel` rows apart.
    pub panels: &'a [Step],
    pub panel: usize,
    /// The first vector of lanes, counted over the panels.
    pub first: usize,
    /// Lines that are asked for before they are needed, as many as are read.
    pub ahead: &'a [Step],
    pub write: Write<'a>,
    pub stored: PhantomData<S>,
}

impl<D: Door, S: Stored<N>, const N: usize, const R: usize, const U: usize, const KEYS: bool> Op
    for ByteTile<'_, D, S, N, R, U, KEYS>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, a, panels, panel, first, ahead, write, .. } = self;
        let simd = lanes.simd();
        let per_panel = super::LANES / D::WIDTH;
        let depth = a.depth;
        // Slices of one length, so that nothing is compared in the loop.
        let mut of_rows: [[&[[u32; N]]; 2]; R] = [[&[]; 2]; R];
        for (r, halves) in of_rows.iter_mut().enumerate() {
            for (half, row) in halves.iter_mut().enumerate() {
                let begin = r.min(a.rows - 1) * a.stride + half * a.lower;
                *row = &a.words[begin..].as_chunks().0[..depth];
            }
        }
        let mut rows = [&panels[..0]; U];
        for (u, rows) in rows.iter_mut().enumerate() {
            *rows = &panels[(first + u) / per_panel * panel..][..depth];
        }
        let mut sums = [[[simd.splat_i32s(0); U]; 2]; R];
        let mut line = 0;
        for j in 0..depth {
            let mut stored = [[simd.splat_u32s(0); N]; U];
            for (u, stored) in stored.iter_mut().enumerate() {
                let v = (first + u) % per_panel;
                *stored =
                    if KEYS { S::keys(lanes, &rows[u][j], v) } else { S::values(lanes, &rows[u][j], v) };
            }
            for n in 0..N {
                for (sums, a) in sums.iter_mut().zip(&of_rows) {
                    for (sums, a) in sums.iter_mut().zip(a) {
                        let a = simd.splat_u32s(a[j][n]);
                        for (sum, stored) in sums.iter_mut().zip(&stored) {
                            *sum = if KEYS {
                                lanes.dot_bytes(stored[n], a, *sum)
                            } else {
                                lanes.dot_bytes(a, stored[n], *sum)
                            };
                        }
                    }
                }
            }
            for u in 0..U {
                if (first + u) % per_panel == 0 {
                    if let Some(step) = ahead.get(line) {
                        lanes.prefetch(step);
                    }
                    line += 1;
                }
            }
        }
        let bias = if KEYS { S::KEY_BIAS } else { S::VALUE_BIAS };
        let mut floats = [[simd.splat_f32s(0.0); U]; R];
        for r in 0..R {
            let OfRow { scale, sums: [upper, lower] } = a.of_rows[r.min(a.rows - 1)];
            let (scale, up) = (F32::splat(lanes, scale), F32::splat(lanes, UPPER));
            let [upper, lower] = [upper, lower].map(|sum| I32::splat(lanes, bias * sum));
            for u in 0..U {
                let [high, low] = [sums[r][0][u], sums[r][1][u]];
                let high = (I32::from_raw(lanes, high) - upper).to_f32();
                let low = (I32::from_raw(lanes, low) - lower).to_f32();
                floats[r][u] = (high.mul_add(up, low) * scale).raw();
            }
        }
        write.write(lanes, &floats);
    }
}

/// Rounds a row of queries to numbers of two signed bytes. `to` has room for the upper and then for the lower bytes of a row in
/// whole words; what is missing there is zero. Of a row that is not finite the scale is NaN.
#[inline(always)]
pub(super) fn quantise_query<D: Door>(lanes: D, row: &[f32], to: &mut [u8]) -> f32 {
    /// The largest number whose upper byte is a signed one.
    const MOST: f32 = 32639.0;
    let mut peak = Peak::new(lanes);
    for &x in row {
        peak.see(F32::splat(lanes, x));
    }
    to.fill(0);
    let Some((scale, inverse)) = peak.scale(MOST) else { return f32::NAN };
    let (upper, lower) = to.split_at_mut(to.len() / 2);
    for ((upper, lower), x) in upper.iter_mut().zip(lower).zip(row) {
        let number = (x * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        let low = number as i8;
        (*upper, *lower) = (((number - i32::from(low)) >> 8) as u8, low as u8);
    }
    scale
}

/// Multiplies a row of weights, none of them negative, by scales, and rounds it to numbers of two bytes. `row` holds the scales
/// and is where the products go, a whole number of vectors; `to` has room for its upper and then for its lower bytes. Of a row
/// that is not finite the scale is NaN.
#[inline(always)]
pub(super) fn quantise_weights<D: Door>(lanes: D, weights: &[f32], row: &mut [f32], to: &mut [u8]) -> OfRow {
    let mut peak = Peak::new(lanes);
    for (x, &weight) in vectors_mut(lanes, row).iter_mut().zip(vectors(lanes, weights)) {
        let product = F32::from_raw(lanes, *x) * F32::from_raw(lanes, weight);
        peak.see(product);
        *x = product.raw();
    }
    let Some((scale, inverse)) = peak.scale(65535.0) else {
        return OfRow { scale: f32::NAN, sums: [0; 2] };
    };
    let (inverse, up) = (F32::splat(lanes, inverse), F32::splat(lanes, ROUND));
    let [mut upper_sum, mut lower_sum] = [I32::splat(lanes, 0); 2];
    for x in vectors_mut(lanes, row) {
        // The lowest bits of the sum are the integer.
        let number = (F32::from_raw(lanes, *x) * inverse + up).to_bits() - up.to_bits();
        let upper = number.shift_right::<8>();
        (upper_sum, lower_sum) = (upper_sum + upper, lower_sum + (number - upper * upper.like(256)));
        *x = number.from_bits().raw();
    }
    let (upper, lower) = to.split_at_mut(row.len());
    for ((upper, lower), number) in upper.iter_mut().zip(lower).zip(&*row) {
        let number = number.to_bits();
        (*upper, *lower) = ((number >> 8) as u8, number as u8);
    }
    OfRow { scale, sums: [upper_sum.sum(), lower_sum.sum()] }
}

/// Has no place for a fraction when a number below 2²² is added: the nearest integer is left, ties to even.
const ROUND: f32 = 1.5 * (1 << 23) as f32;

/// The largest magnitude of a row, and whether it is finite.
struct Peak<D: Door> {
    largest: F32<D>,
    /// Zeros, or NaN where something is not finite.
    odd: F32<D>,
}

impl<D: Door> Peak<D> {
    #[inline(always)]
    fn new(lanes: D) -> Self {
        Self { largest: F32::splat(lanes, 0.0), odd: F32::splat(lanes, 0.0) }
    }

    #[inline(always)]
    fn see(&mut self, x: F32<D>) {
        self.largest = self.largest.max(x.abs());
        self.odd = x.mul_add(x.like(0.0), self.odd);
    }

    /// What makes numbers of integers up to `most`, and its inverse; `None` where some number is not finite.
    #[inline(always)]
    fn scale(self, most: f32) -> Option<(f32, f32)> {
        if (!self.odd.eq(self.odd)).any() {
            return None;
        }
        let scale = self.largest.reduce_max() / most;
        let inverse = 1.0 / scale;
        Some(if inverse.is_finite() { (scale, inverse) } else { (0.0, 0.0) })
    }
}
