//! Products of bytes: rows are quantised as well, so that one instruction multiplies four numbers of a lane, or two.
//!
//! Queries are rounded to 16 bits once a call, weights once a page to 15, each row with a scale of its own: of 8 bits alone either
//! would leave an error near 1e-2 where keys are few. Where the set multiplies bytes ([`Door::HAS_BYTES`]) they are an upper and a
//! lower byte. Elsewhere stored bytes are widened, the even ones and the odd ones of each word, and multiplied with the even and the
//! odd numbers of a row. Sums are exact integers, the same of both; what a page adds is converted and scaled once.

use core::marker::PhantomData;
use core::ops::Range;

use pulp::bytemuck;
use regard_simd::{F32, I32, Lanes, Simd, vectors, vectors_mut};

use super::ahead::{Ask, Next};
use super::load::Step;
use super::tile::{Panels, Write};
use crate::isa::{Door, Dot, DotOp};

/// How bytes of each lane are stored in a [`Step`]; a word of it takes `N` words of the other operand.
pub(super) trait Stored<const N: usize>: Copy + 'static {
    /// What stored bytes of keys are more than their numbers.
    const KEY_BIAS: i32;

    /// The words of vector `v` of the row's lanes, bytes of 0 to 255. `#[inline(always)]`.
    fn keys<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::u32s; N];

    /// The same, bytes of −128 to 127, which are the numbers. `#[inline(always)]`.
    fn values<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::u32s; N];

    /// A vector of scales from number `first` on. `#[inline(always)]`.
    fn scales<D: Door>(lanes: D, scales: &[u32], first: usize) -> F32<D>;
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

    #[inline(always)]
    fn keys<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::u32s; 1] {
        [words(lanes, step, v)]
    }

    #[inline(always)]
    fn values<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::u32s; 1] {
        let simd = lanes.simd();
        [simd.xor_u32s(words(lanes, step, v), simd.splat_u32s(0x8080_8080))]
    }

    #[inline(always)]
    fn scales<D: Door>(lanes: D, scales: &[u32], first: usize) -> F32<D> {
        F32::from_raw(lanes, vectors(lanes, bytemuck::cast_slice(&scales[first..][..D::WIDTH]))[0])
    }
}

/// [`regard_ir::cache::Codec::Int4`]: half bytes are numbers and 8, the first four in the lower halves.
#[derive(Clone, Copy)]
pub(super) struct Nibbles;

impl Stored<2> for Nibbles {
    const KEY_BIAS: i32 = 8;

    #[inline(always)]
    fn keys<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::u32s; 2] {
        let simd = lanes.simd();
        let (words, low) = (words(lanes, step, v), simd.splat_u32s(0x0f0f_0f0f));
        let high = simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(4));
        [simd.and_u32s(words, low), simd.and_u32s(high, low)]
    }

    #[inline(always)]
    fn values<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::u32s; 2] {
        let simd = lanes.simd();
        // 120 more and the top bit flipped are 8 less, and no byte carries into the next.
        let (more, top) = (simd.splat_u32s(0x7878_7878), simd.splat_u32s(0x8080_8080));
        Self::keys(lanes, step, v).map(|words| simd.xor_u32s(simd.add_u32s(words, more), top))
    }

    #[inline(always)]
    fn scales<D: Door>(lanes: D, scales: &[u32], first: usize) -> F32<D> {
        let halves: &[u16] = bytemuck::cast_slice(scales);
        F32::from_raw(lanes, lanes.load_f16(&halves[first..][..D::WIDTH]))
    }
}

/// Rows of numbers of two bytes, four to two words: `depth` times `N` of the first and as many of the second. Where the set multiplies
/// bytes these are the upper and the lower bytes of all four, else the even and the odd numbers.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub words: &'a [u32],
    /// Words from one row to the next.
    pub stride: usize,
    /// Words from the first word of a row to the second one of the same numbers.
    pub second: usize,
    /// Words to what is beside them: the scale of a row and, of keys, for each group of channels what sums of upper and of
    /// lower bytes start from.
    pub beside: usize,
    /// Rows that there are; what a tile has more repeats the last.
    pub rows: usize,
    pub depth: usize,
}

/// Scales of the lanes, one vector for each group of `depth` rows of a panel.
#[derive(Clone, Copy)]
pub(super) struct Groups<'a> {
    pub scales: &'a [u32],
    /// Panels before the first.
    pub before: usize,
    pub count: usize,
    pub depth: usize,
}

/// How much more an upper byte counts.
const UPPER: f32 = 256.0;

/// One tile of integer sums of panels of which `W` take turns, which asks for lines as `A` does, inside a function of its own.
pub(super) struct ByteTile<'a, D, S, A, const N: usize, const R: usize, const U: usize, const W: usize> {
    pub lanes: D,
    pub a: Rows<'a>,
    pub panels: Panels<'a>,
    /// Of keys.
    pub groups: Option<Groups<'a>>,
    /// The first vector of lanes, counted over the panels.
    pub first: usize,
    /// Lines that are asked for while these are read.
    pub next: Option<Next>,
    pub write: Write<'a>,
    pub kind: PhantomData<(S, A)>,
}

/// Of each row those of upper and of lower bytes, or both of halves in the first.
type Sums<D, const R: usize, const U: usize> = [[[<<D as Lanes>::Simd as Simd>::i32s; U]; 2]; R];

impl<'a, D: Door, S: Stored<N>, A: Ask, const N: usize, const R: usize, const U: usize, const W: usize>
    ByteTile<'a, D, S, A, N, R, U, W>
{
    /// Adds the products of some rows of the panels.
    #[inline(always)]
    fn add<P: Dot<D>, const KEYS: bool>(
        &self,
        dot: P,
        sums: &mut Sums<D, R, U>,
        next: &mut Option<Next>,
        range: Range<usize>,
    ) {
        let Self { lanes, a, panels, first, .. } = *self;
        let simd = lanes.simd();
        let per_panel = super::LANES / D::WIDTH;
        // Slices of one length, so that nothing is compared in the loop.
        let count = range.len();
        let mut halves: [[&[[u32; N]]; 2]; R] = [[&[]; 2]; R];
        for (r, halves) in halves.iter_mut().enumerate() {
            for (half, row) in halves.iter_mut().enumerate() {
                let begin = r.min(a.rows - 1) * a.stride + half * a.second + range.start * N;
                *row = &a.words[begin..].as_chunks().0[..count];
            }
        }
        let mut lines = [(&[][..], 0); U];
        for (u, lines) in lines.iter_mut().enumerate() {
            *lines = panels.lines::<W>((first + u) / per_panel, range.clone());
        }
        for j in 0..count {
            // What either word of a row is multiplied with.
            let mut stored = [[[simd.splat_u32s(0); 2]; N]; U];
            for (u, stored) in stored.iter_mut().enumerate() {
                let ((of_panel, turn), v) = (lines[u], (first + u) % per_panel);
                let step = &of_panel[j][turn];
                *stored = match (D::HAS_BYTES, KEYS) {
                    (true, true) => S::keys(lanes, step, v).map(|words| [words; 2]),
                    (true, false) => S::values(lanes, step, v).map(|words| [words; 2]),
                    (false, _) => S::values(lanes, step, v).map(|words| lanes.halves_of_bytes(words)),
                };
            }
            for n in 0..N {
                for (sums, halves) in sums.iter_mut().zip(&halves) {
                    for (half, row) in halves.iter().enumerate() {
                        let a = simd.splat_u32s(row[j][n]);
                        let sums = &mut sums[if D::HAS_BYTES { half } else { 0 }];
                        for (sum, stored) in sums.iter_mut().zip(&stored) {
                            let stored = stored[n][half];
                            *sum = match (D::HAS_BYTES, KEYS) {
                                (true, true) => dot.dot(lanes, stored, a, *sum),
                                _ => dot.dot(lanes, a, stored, *sum),
                            };
                        }
                    }
                }
            }
            if let Some(next) = next {
                let count = U.div_ceil(per_panel);
                next.ask::<D, A>(lanes, 0..count);
                next.go_on(count);
            }
        }
    }

    /// What is beside a row of the tile.
    #[inline(always)]
    fn beside(&self, r: usize) -> &'a [u32] {
        &self.a.words[r.min(self.a.rows - 1) * self.a.stride + self.a.beside..]
    }

    /// The numbers that sums stand for, rounded once.
    #[inline(always)]
    fn joined(sums: [<D::Simd as Simd>::i32s; 2], lanes: D) -> F32<D> {
        let [first, second] = sums.map(|sum| I32::from_raw(lanes, sum).to_f32());
        if D::HAS_BYTES { first.mul_add(F32::splat(lanes, UPPER), second) } else { first }
    }
}

impl<D: Door, S: Stored<N>, A: Ask, const N: usize, const R: usize, const U: usize, const W: usize> DotOp<D>
    for ByteTile<'_, D, S, A, N, R, U, W>
{
    type Output = ();

    #[inline(always)]
    fn run<P: Dot<D>>(self, dot: P) {
        let (lanes, simd) = (self.lanes, self.lanes.simd());
        let per_panel = super::LANES / D::WIDTH;
        let (mut floats, mut next) = ([[F32::splat(lanes, 0.0); U]; R], self.next);
        if let Some(Groups { scales, before, count, depth }) = self.groups {
            let (mut group, mut begin) = (0, 0);
            while group < count {
                let mut sums = [[[simd.splat_i32s(0); U]; 2]; R];
                if D::HAS_BYTES {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let starts = &self.beside(r)[1 + 2 * group..][..2];
                        for (sums, &start) in sums.iter_mut().zip(starts) {
                            *sums = [simd.splat_i32s(start as i32); U];
                        }
                    }
                }
                let of_group = self.a.depth.min((group + 1) * depth);
                let end =
                    if D::HAS_BYTES { of_group } else { of_group.min(begin + MOST_IN_HALVES / (4 * N)) };
                self.add::<P, true>(dot, &mut sums, &mut next, begin..end);
                for u in 0..U {
                    let (panel, v) = ((self.first + u) / per_panel, (self.first + u) % per_panel);
                    let at = ((before + panel) * count + group) * super::LANES + v * D::WIDTH;
                    let scale = S::scales(lanes, scales, at);
                    for (floats, [upper, lower]) in floats.iter_mut().zip(&sums) {
                        floats[u] = Self::joined([upper[u], lower[u]], lanes).mul_add(scale, floats[u]);
                    }
                }
                begin = end;
                group += usize::from(end == of_group);
            }
        } else {
            let mut sums = [[[simd.splat_i32s(0); U]; 2]; R];
            self.add::<P, false>(dot, &mut sums, &mut next, 0..self.a.depth);
            for (floats, [upper, lower]) in floats.iter_mut().zip(&sums) {
                for u in 0..U {
                    floats[u] = Self::joined([upper[u], lower[u]], lanes);
                }
            }
        }
        let mut scaled = [[simd.splat_f32s(0.0); U]; R];
        for (r, (to, floats)) in scaled.iter_mut().zip(&floats).enumerate() {
            let scale = F32::splat(lanes, f32::from_bits(self.beside(r)[0]));
            *to = floats.map(|x| (x * scale).raw());
        }
        self.write.write(lanes, &scaled);
    }
}

/// The largest number of a rounded query: its upper byte is a signed one.
const MOST_OF_QUERY: f32 = 32639.0;

/// The largest number of a rounded weight: it is a signed half.
const MOST_OF_WEIGHT: f32 = 32767.0;

/// Numbers of two bytes, queries or weights, whose products with bytes of −128 to 127 an i32 holds the sum of.
pub(super) const MOST_IN_HALVES: usize = 512;

const _: () = {
    let most = if MOST_OF_QUERY > MOST_OF_WEIGHT { MOST_OF_QUERY } else { MOST_OF_WEIGHT };
    assert!(MOST_IN_HALVES as i64 * 128 * most as i64 <= i32::MAX as i64);
};

/// Rounds a row of queries to numbers of two signed bytes. `to` has room for the first and then for the second words of a row;
/// what is missing there is zero. Of a row that is not finite the scale is NaN.
#[inline(always)]
pub(super) fn quantise_query<D: Door>(lanes: D, row: &[f32], to: &mut [u32]) -> f32 {
    let mut peak = Peak::new(lanes);
    for &x in row {
        peak.see(F32::splat(lanes, x));
    }
    to.fill(0);
    let Some((scale, inverse)) = peak.scale(MOST_OF_QUERY) else { return f32::NAN };
    let (first, second) = to.split_at_mut(to.len() / 2);
    for ((first, second), row) in first.iter_mut().zip(second).zip(row.chunks(PER_WORD)) {
        let mut numbers = [0; PER_WORD];
        for (number, x) in numbers.iter_mut().zip(row) {
            *number = (x * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        }
        [*first, *second] = if D::HAS_BYTES {
            let low = numbers.map(|number| number as i8);
            let upper = |i: usize| ((numbers[i] - i32::from(low[i])) >> 8) as u8;
            [[0, 1, 2, 3].map(upper), low.map(|low| low as u8)].map(u32::from_le_bytes)
        } else {
            in_halves(numbers.map(|number| number as u32))
        };
    }
    scale
}

/// Rounds a row of weights, none of them negative, times scales to numbers of two bytes: for each of the groups of scales the
/// first and then the second words, all by one scale, which it gives. `largest` is the largest scale of each weight over the
/// groups; `row` is memory. All are whole vectors. Of a row that is not finite the scale is NaN.
#[inline(always)]
pub(super) fn quantise_weights<D: Door>(
    lanes: D,
    weights: &[f32],
    [largest, scales]: [&[f32]; 2],
    row: &mut [f32],
    to: &mut [u32],
) -> f32 {
    let mut peak = Peak::new(lanes);
    for (&largest, &weight) in vectors(lanes, largest).iter().zip(vectors(lanes, weights)) {
        peak.see(F32::from_raw(lanes, largest) * F32::from_raw(lanes, weight));
    }
    let Some((scale, inverse)) = peak.scale(MOST_OF_WEIGHT) else {
        to.fill(0);
        return f32::NAN;
    };
    let (inverse, up) = (F32::splat(lanes, inverse), F32::splat(lanes, ROUND));
    let len = weights.len();
    for (scales, to) in scales.chunks_exact(len).zip(to.chunks_exact_mut(2 * len / PER_WORD)) {
        let of_weights = vectors(lanes, scales).iter().zip(vectors(lanes, weights));
        for (x, (&scale, &weight)) in vectors_mut(lanes, row).iter_mut().zip(of_weights) {
            let product = F32::from_raw(lanes, scale) * F32::from_raw(lanes, weight);
            // The lowest bits of the sum are the integer.
            *x = (product * inverse + up).raw();
        }
        let (first, second) = to.split_at_mut(len / PER_WORD);
        if D::HAS_BYTES {
            let words = [first, second].map(|words| bytemuck::cast_slice_mut(words).as_chunks_mut().0);
            let [upper, lower] = words;
            for ((upper, lower), numbers) in upper.iter_mut().zip(lower).zip(row.as_chunks().0) {
                *upper = bytes::<8>(numbers);
                *lower = bytes::<0>(numbers);
            }
        } else {
            for ((first, second), numbers) in first.iter_mut().zip(second).zip(row.as_chunks().0) {
                [*first, *second] = in_halves(numbers.map(f32::to_bits));
            }
        }
    }
    scale
}

/// Numbers of two words.
const PER_WORD: usize = size_of::<u32>();

/// The byte of each number's bits that begins at bit `BEGIN`: of so many at once that vectors do it.
#[inline(always)]
fn bytes<const BEGIN: u32>(numbers: &[f32; super::LANES]) -> [u8; super::LANES] {
    numbers.map(|number| (number.to_bits() >> BEGIN) as u8)
}

/// The lower halves of the even numbers, and of the odd ones, as words.
#[inline(always)]
fn in_halves([a, b, c, d]: [u32; PER_WORD]) -> [u32; 2] {
    [a & 0xffff | c << 16, b & 0xffff | d << 16]
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
