//! Products of matrices that lie in memory as rows: `to[i][·] = … + Σ_l left[i][l] · right[l][·]`. Elements are floats, or words of
//! two bf16.
//!
//! Lanes run along the rows of `right` and `to`, so that nothing is packed but a left operand that is needed turned: an element of
//! it is broadcast, from wherever it lies. A tile of 4 broadcast rows by 4 vectors keeps its sums in 16 registers, and loads 8
//! times for 16 multiply-adds; where there are fewer registers it has 3 vectors, and loads 7 times for 12. Sums run in chains of
//! [`CHAIN`], each from zero and in order.

use core::marker::PhantomData;

use regard_simd::{F32, Lanes, Simd, TRANSPOSE, rows_apart, rows_from, vectors_mut};

use crate::engine::{LINE, Op};
use crate::isa::Door;
use crate::panel::tile::{Elements, Floats};

/// Numbers of one chain of sums.
const CHAIN: usize = 64;

/// Rows of a register tile. Counts of rows are multiples of it.
pub(crate) const ROWS: usize = 4;

/// A matrix of floats.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    stride: usize,
    turned: bool,
    precise: bool,
}

impl<'a> Matrix<'a> {
    /// Rows, so far apart.
    pub const fn rows(data: &'a [f32], stride: usize) -> Self {
        Self { data, stride, turned: false, precise: false }
    }

    /// A matrix turned: its columns are the rows of `data`, so far apart.
    pub const fn turned(data: &'a [f32], stride: usize) -> Self {
        Self { data, stride, turned: true, precise: false }
    }

    /// The same, if so with the digits of floats: an engine that rounds operands keeps what that takes, and multiplies by it too.
    pub const fn precise(self, precise: bool) -> Self {
        Self { precise, ..self }
    }

    /// What it is made of.
    pub(crate) const fn data(self) -> &'a [f32] {
        self.data
    }

    /// Floats from one row of the data to the next.
    pub(crate) const fn stride(self) -> usize {
        self.stride
    }

    /// Whether the rows of the data are its columns.
    pub(crate) const fn is_turned(self) -> bool {
        self.turned
    }

    /// Whether what rounding takes is kept.
    pub(crate) const fn is_precise(self) -> bool {
        self.precise
    }

    /// A right operand of rows, which are those of the matrix or, where it is turned, are written to `room`: so deep and so wide,
    /// multiples of 8.
    #[inline(always)]
    pub(crate) fn into_rows<L: Lanes>(
        self,
        lanes: L,
        [depth, columns]: [usize; 2],
        room: &'a mut [f32],
    ) -> Right<'a> {
        if !self.turned {
            return Right::rows(self.data, self.stride);
        }
        for column in (0..columns).step_by(TRANSPOSE) {
            let eight = rows_apart(&self.data[column * self.stride..], self.stride);
            for row in (0..depth).step_by(TRANSPOSE) {
                lanes.transpose(rows_from(eight, row), &mut room[row * columns + column..], columns);
            }
        }
        Right::rows(room, columns)
    }
}

/// A right operand, as an engine multiplies by it ([`crate::Engine::right`]).
#[derive(Clone, Copy)]
pub struct Right<'a> {
    data: &'a [f32],
    stride: usize,
    precise: bool,
}

impl<'a> Right<'a> {
    /// Rows, so far apart.
    pub const fn rows(data: &'a [f32], stride: usize) -> Self {
        Self { data, stride, precise: false }
    }

    /// The same without what rounding took.
    pub const fn rounded(self) -> Self {
        Self { precise: false, ..self }
    }

    /// The same, with what rounding took.
    pub(crate) const fn precise(self) -> Self {
        Self { precise: true, ..self }
    }

    /// Whether what rounding took counts.
    pub(crate) const fn is_precise(self) -> bool {
        self.precise
    }

    /// What it is made of.
    pub(crate) const fn data(self) -> &'a [f32] {
        self.data
    }

    /// Floats from one row of what it is made of to the next.
    pub(crate) const fn stride(self) -> usize {
        self.stride
    }
}

/// What becomes of what is there.
#[derive(Clone, Copy, Debug)]
pub enum Before<'a> {
    /// The product replaces it.
    Replaced,
    /// The product is added.
    Kept,
    /// Each row is multiplied by its factor, and the product is added.
    Times(&'a [f32]),
    /// Each row is multiplied by the sum of its two factors, and the product is added.
    TimesBoth([&'a [f32]; 2]),
}

impl Before<'_> {
    /// The same of the rows from one on.
    pub(crate) fn skip_rows(self, row: usize) -> Self {
        match self {
            Self::Times(factors) => Self::Times(&factors[row..]),
            Self::TimesBoth(factors) => Self::TimesBoth(factors.map(|factors| &factors[row..])),
            Self::Replaced | Self::Kept => self,
        }
    }
}

/// Sizes of a product: rows, a multiple of 4, depth, and columns, a multiple of [`LINE`].
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Rows of the left operand and of the result.
    pub rows: usize,
    /// Elements of a row of the left operand, rows of the right one.
    pub depth: usize,
    /// Elements of a row of the right operand and of the result.
    pub columns: usize,
}

/// Multiplies by rows; those of `to` are so far apart.
///
/// # Panics
/// If an operand is too short, rows are not a multiple of 4, or columns, strides of `right` or `to` not of [`LINE`].
#[inline(always)]
pub fn multiply<D: Door>(
    lanes: D,
    sizes: Sizes,
    left: Matrix<'_>,
    right: Right<'_>,
    to: (&mut [f32], usize),
    before: Before<'_>,
) {
    multiply_elements::<D, Floats>(lanes, sizes, left, right, to, before);
}

/// The same of any elements, in which depth is counted.
#[inline(always)]
pub(crate) fn multiply_elements<D: Door, K: Elements>(
    lanes: D,
    sizes: Sizes,
    left: Matrix<'_>,
    Right { data: right, stride: right_stride, .. }: Right<'_>,
    (to, to_stride): (&mut [f32], usize),
    before: Before<'_>,
) {
    let Sizes { rows, depth, columns } = sizes;
    assert!(rows.is_multiple_of(ROWS) && columns.is_multiple_of(LINE), "whole tiles");
    assert!(right_stride.is_multiple_of(LINE) && to_stride.is_multiple_of(LINE), "rows begin with vectors");
    if rows == 0 {
        return;
    }
    let mut first = 0;
    while first < columns {
        let vectors = (columns - first) / D::WIDTH;
        let elements = PhantomData::<K>;
        let to = &mut *to;
        let mut tile =
            Tile { lanes, rows, depth, first, left, right, right_stride, to, to_stride, before, elements };
        first += D::WIDTH
            * match vectors {
                4.. if D::TILE >= 8 => tile.call::<4>(),
                3 | 5.. if D::TILE < 8 => tile.call::<3>(),
                2.. => tile.call::<2>(),
                _ => tile.call::<1>(),
            };
    }
}

/// Some vectors of all rows.
struct Tile<'a, D, K> {
    lanes: D,
    rows: usize,
    depth: usize,
    /// The first column.
    first: usize,
    left: Matrix<'a>,
    right: &'a [f32],
    right_stride: usize,
    to: &'a mut [f32],
    to_stride: usize,
    before: Before<'a>,
    elements: PhantomData<K>,
}

impl<D: Door, K: Elements> Tile<'_, D, K> {
    /// Multiplies `V` vectors of all rows, and says how many they are.
    #[inline(always)]
    fn call<const V: usize>(&mut self) -> usize {
        if self.left.turned {
            self.lanes.call(Columns::<D, K, V, true>(self));
        } else {
            self.lanes.call(Columns::<D, K, V, false>(self));
        }
        V
    }
}

/// One width and orientation: a function of its own, so that its sums keep every register.
struct Columns<'t, 'a, D, K, const V: usize, const TURNED: bool>(&'t mut Tile<'a, D, K>);

impl<D: Door, K: Elements, const V: usize, const TURNED: bool> Op for Columns<'_, '_, D, K, V, TURNED> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Tile { lanes, rows, depth, first, left, right, right_stride, to, to_stride, before, .. } = self.0;
        let (lanes, rows, depth, first) = (*lanes, *rows, *depth, *first);
        let (width, chain) = (V * D::WIDTH, CHAIN / K::NUMBERS);
        let right = Rows::new(right, [first, *right_stride, 1], [depth, width]);
        let (step, apart) = if TURNED { (left.stride, 1) } else { (1, left.stride) };
        let left = Rows::new(left.data, [0, step, apart], [depth, rows]);
        assert!(first + (rows - 1) * *to_stride + width <= to.len(), "the result has all rows");
        let mut before = *before;
        // What all rows are multiplied by stays near: the elements of one chain.
        for begin in (0..depth.max(1)).step_by(chain) {
            let count = chain.min(depth - begin);
            let right = right.part([begin, count], [0, width]);
            let panels = to[first..].chunks_mut(ROWS * *to_stride);
            for (panel, to) in (0..rows).step_by(ROWS).zip(panels) {
                let left = left.part([begin, count], [panel, ROWS]);
                let zeros = [[lanes.simd().splat_f32s(0.0); V]; ROWS];
                let sums = if K::NUMBERS == 1 {
                    lanes.strided_tile(zeros, left, right)
                } else {
                    sum::<D, K, V, ROWS>(lanes, zeros, left, right)
                };
                for (row, sums) in sums.iter().enumerate() {
                    write(lanes, sums, &mut to[row * *to_stride..][..width], before, panel + row);
                }
            }
            before = Before::Kept;
        }
    }
}

/// Elements of a slice that a sum reads: at each step of its depth some, so far apart.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    start: *const f32,
    step: usize,
    apart: usize,
    /// Steps, and elements of each.
    count: usize,
    each: usize,
    lifetime: PhantomData<&'a [f32]>,
}

impl<'a> Rows<'a> {
    /// `count` times `each` elements, of which the first is at `first`, from one step to the next `step` and from one element to
    /// the next `apart` further.
    ///
    /// # Panics
    /// If the last of them lies outside the data.
    #[inline(always)]
    pub(crate) fn new(data: &'a [f32], [first, step, apart]: [usize; 3], [count, each]: [usize; 2]) -> Self {
        let along = |n: usize, step: usize| n.saturating_sub(1).saturating_mul(step);
        let last = first.saturating_add(along(count, step)).saturating_add(along(each, apart));
        assert!(count == 0 || last < data.len(), "operands are whole matrices");
        Self { start: data.as_ptr().wrapping_add(first), step, apart, count, each, lifetime: PhantomData }
    }

    /// Some of the steps, and at each some of its elements.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline(always)]
    pub(crate) fn part(self, [first, count]: [usize; 2], [begin, each]: [usize; 2]) -> Self {
        assert!(first <= self.count && count <= self.count - first, "steps are of the whole");
        assert!(begin <= self.each && each <= self.each - begin, "elements are of the whole");
        let start = self.start.wrapping_add(first * self.step + begin * self.apart);
        Self { start, count, each, ..self }
    }

    /// The first element, and elements from one step to the next and from one to the next of a step. All of [`Self::sizes`] may be read.
    #[inline(always)]
    pub(crate) const fn place(self) -> (*const f32, [usize; 2]) {
        (self.start, [self.step, self.apart])
    }

    /// How many steps there are, and elements of each.
    #[inline(always)]
    pub(crate) const fn sizes(self) -> [usize; 2] {
        [self.count, self.each]
    }
}

/// Adds to sums of `R` rows by `V` vectors, which elements of both sides are.
///
/// # Panics
/// If these are not as many.
#[inline(always)]
pub(crate) fn sum<D: Door, K: Elements, const V: usize, const R: usize>(
    lanes: D,
    mut sums: [[<D::Simd as Simd>::f32s; V]; R],
    left: Rows<'_>,
    right: Rows<'_>,
) -> [[<D::Simd as Simd>::f32s; V]; R] {
    assert!(left.each == R && right.each == V * D::WIDTH, "operands are those of a tile");
    let simd = lanes.simd();
    let (mut a, mut b) = (left.start, right.start);
    for _ in 0..right.count.min(left.count) {
        // SAFETY: `Rows::new` looked that as many vectors lie inside the slice at this step, which is one of its count, and
        // `Rows::part` took no others; they are plain floats, and nothing is asked of their alignment.
        let vectors: [<D::Simd as Simd>::f32s; V] = unsafe { b.cast::<[_; V]>().read_unaligned() };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above, of the left operand's elements.
            let element = simd.splat_f32s(unsafe { a.wrapping_add(row * left.apart).read() });
            for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                *sum = K::mul_add(lanes, element, vector, *sum);
            }
        }
        (a, b) = (a.wrapping_add(left.step), b.wrapping_add(right.step));
    }
    sums
}

#[inline(always)]
fn write<D: Door, const V: usize>(
    lanes: D,
    sums: &[<D::Simd as Simd>::f32s; V],
    to: &mut [f32],
    before: Before<'_>,
    row: usize,
) {
    let simd = lanes.simd();
    for (to, &sum) in vectors_mut(lanes, to).iter_mut().zip(sums) {
        *to = match before {
            Before::Replaced => sum,
            Before::Kept => simd.add_f32s(*to, sum),
            Before::Times(factors) => {
                let factor = F32::splat(lanes, factors[row]);
                F32::from_raw(lanes, *to).mul_add(factor, F32::from_raw(lanes, sum)).raw()
            }
            Before::TimesBoth([most, rest]) => {
                let (most, rest) = (F32::splat(lanes, most[row]), F32::splat(lanes, rest[row]));
                let before = F32::from_raw(lanes, *to);
                before.mul_add(most, before.mul_add(rest, F32::from_raw(lanes, sum))).raw()
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::scalar::Scalar;

    fn numbers(count: usize, seed: u32) -> std::vec::Vec<f32> {
        let mut word = seed;
        let mut next = || {
            word = word.wrapping_mul(0x9e37_79b1).rotate_left(7) ^ 0x80ff_7f00;
            (word >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    struct All<D>(D);

    impl<D: Door> Op for All<D> {
        type Output = ();

        fn run(self) {
            for (rows, depth, columns) in [(4, 1, 16), (16, 16, 48), (8, 130, 80), (12, 0, 16), (4, 64, 64)] {
                let (left_stride, right_stride, to_stride) = (depth + 3, columns + 16, columns + 32);
                let left = numbers(rows * left_stride, 1);
                let turned: std::vec::Vec<f32> = (0..depth * (rows + 2))
                    .map(|at| {
                        left.get(at % (rows + 2) * left_stride + at / (rows + 2)).copied().unwrap_or(9.0)
                    })
                    .collect();
                let (right, given) = (numbers(depth * right_stride, 2), numbers(rows * to_stride, 3));
                let factors: std::vec::Vec<f32> = (0..rows).map(|row| 0.5 + row as f32).collect();
                let rest: std::vec::Vec<f32> = factors.iter().map(|factor| factor / 4.0).collect();
                let both = Before::TimesBoth([&factors, &rest]);
                for before in [Before::Replaced, Before::Kept, Before::Times(&factors), both] {
                    for left in [Matrix::rows(&left, left_stride), Matrix::turned(&turned, rows + 2)] {
                        let mut to = given.clone();
                        let sizes = Sizes { rows, depth, columns };
                        let operand = Right::rows(&right, right_stride);
                        multiply(self.0, sizes, left, operand, (&mut to, to_stride), before);
                        for (at, (&found, &given)) in to.iter().zip(&given).enumerate() {
                            let (i, n) = (at / to_stride, at % to_stride);
                            if n >= columns {
                                assert_eq!(found, given, "beside the result");
                                continue;
                            }
                            let factor = match before {
                                Before::Replaced => 0.0,
                                Before::Kept => 1.0,
                                Before::Times(factors) => f64::from(factors[i]),
                                Before::TimesBoth([most, rest]) => f64::from(most[i]) + f64::from(rest[i]),
                            };
                            let product: f64 = (0..depth)
                                .map(|l| {
                                    let left = if left.turned {
                                        turned[l * (rows + 2) + i]
                                    } else {
                                        left.data[i * left_stride + l]
                                    };
                                    f64::from(left) * f64::from(right[l * right_stride + n])
                                })
                                .sum();
                            let expected = factor * f64::from(given) + product;
                            assert!((f64::from(found) - expected).abs() < 1e-5, "{found} for {expected}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn products_are_those_of_one_element_after_the_other() {
        All(Scalar).run();
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(lanes) = crate::isa::avx2::Avx2::detect() {
                lanes.enter(All(lanes));
            }
            if let Some(lanes) = crate::isa::avx512::Avx512::detect() {
                lanes.enter(All(lanes));
            }
        }
    }

    /// A product of 8 rows, 3 deep, by 16 columns of operands with so many elements.
    fn of_lengths([left, right, to]: [usize; 3], turned: bool) {
        let (left, right, mut to) = (numbers(left, 1), numbers(right, 2), numbers(to, 3));
        let left = if turned { Matrix::turned(&left, 8) } else { Matrix::rows(&left, 3) };
        let sizes = Sizes { rows: 8, depth: 3, columns: 16 };
        multiply(Scalar, sizes, left, Right::rows(&right, 16), (&mut to, 32), Before::Replaced);
    }

    #[test]
    fn operands_that_are_too_short_are_refused() {
        for turned in [false, true] {
            let enough = [24, 48, 7 * 32 + 16];
            of_lengths(enough, turned);
            // By an element each, and a result by its last four rows.
            for (operand, missing) in [(0, 1), (1, 1), (2, 1), (2, 4 * 32)] {
                let mut lengths = enough;
                lengths[operand] -= missing;
                let refused = std::panic::catch_unwind(|| of_lengths(lengths, turned));
                assert!(refused.is_err(), "operand {operand} without {missing}, turned {turned}");
            }
        }
    }

    #[test]
    fn nothing_is_read_for_no_rows() {
        let sizes = Sizes { rows: 0, depth: 3, columns: 16 };
        let right = Right::rows(&[0.0; 48], 16);
        multiply(Scalar, sizes, Matrix::rows(&[], 3), right, (&mut [], 16), Before::Replaced);
    }
}
