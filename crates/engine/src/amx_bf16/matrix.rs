//! Products of matrices of floats, which are rounded to bf16 where they are packed, and summed up in f32. Of a precise operand what
//! rounding takes is packed too, as the nearest bf16 of it; the product of what it takes of both is left out.
//!
//! The terms of a sum may come in any order that both operands share: a word holds two elements that are 16 apart in depth, so that
//! rows are packed vector by vector, without a shuffle.

use pulp::bytemuck;
use regard_simd::{F32, Lanes, TRANSPOSE, pair_bf16, round_bf16, vectors, vectors_mut};

use super::layout::DEPTH;
use super::unit::{SIDE, Source, Tiles, Unit};
use crate::engine::Op;
use crate::isa::Door;
use crate::product::{Before, Matrix, Right, Sizes};

/// Words of a tile.
const TILE: usize = SIDE * SIDE;

/// Words of a piece of a packed right operand.
const fn right_piece([depth, columns]: [usize; 2]) -> usize {
    (depth.next_multiple_of(DEPTH) / 2).saturating_mul(columns)
}

/// Words of a piece of the packed rows of a tile of the left operand.
const fn left_piece(depth: usize) -> usize {
    right_piece([depth, SIDE])
}

/// Words of a packed right operand of two pieces.
pub(super) const fn right_len(sizes: [usize; 2]) -> usize {
    right_piece(sizes).saturating_mul(2)
}

/// Words of the packed rows of a tile of the left operand, in two pieces.
pub(super) const fn left_len(depth: usize) -> usize {
    left_piece(depth).saturating_mul(2)
}

/// Packs a right operand: `[pieces][depth / 2][columns]` words.
///
/// # Panics
/// If depth or columns are no multiple of 16, or there are too few.
#[inline(always)]
pub(super) fn pack_right<L: Lanes>(
    lanes: L,
    matrix: Matrix<'_>,
    [depth, columns]: [usize; 2],
    to: &mut [f32],
) {
    assert!(depth.is_multiple_of(SIDE) && columns.is_multiple_of(SIDE), "whole tiles");
    let (nearest, rest) = to.split_at_mut(right_piece([depth, columns]));
    pack_right_piece::<L, false>(lanes, matrix, [depth, columns], nearest);
    if matrix.is_precise() {
        pack_right_piece::<L, true>(lanes, matrix, [depth, columns], rest);
    }
}

#[inline(always)]
fn pack_right_piece<L: Lanes, const REST: bool>(
    lanes: L,
    matrix: Matrix<'_>,
    [depth, columns]: [usize; 2],
    to: &mut [f32],
) {
    let (data, stride) = (matrix.data(), matrix.stride());
    if matrix.is_turned() {
        for first in (0..depth).step_by(DEPTH) {
            for column in (0..columns).step_by(SIDE) {
                let mut rows = [0.0; TILE];
                for (at, row) in rows.chunks_exact_mut(SIDE).enumerate() {
                    let from = &data[(column + at) * stride + first..];
                    pair_channels::<L, REST>(lanes, from, first + SIDE < depth, row);
                }
                turn(lanes, &rows, &mut to[first / 2 * columns + column..], columns);
            }
        }
        return;
    }
    let row = |at: usize| &data[at * stride..][..columns];
    for (at, to) in to[..right_piece([depth, columns])].chunks_exact_mut(columns.max(1)).enumerate() {
        let first = at / SIDE * DEPTH + at % SIDE;
        let second = (first + SIDE < depth).then(|| row(first + SIDE));
        pair::<L, REST>(lanes, row(first), second, to);
    }
}

/// Packs 16 rows of a left operand, from row `panel` on: a tile for each step of depth.
#[inline(always)]
fn pack_left<L: Lanes, const REST: bool>(
    lanes: L,
    left: Matrix<'_>,
    panel: usize,
    depth: usize,
    to: &mut [f32],
) {
    let (data, stride) = (left.data(), left.stride());
    let tiles = to[..left_piece(depth)].chunks_exact_mut(TILE).zip((0..depth).step_by(DEPTH));
    for (tile, first) in tiles {
        let has_second = first + SIDE < depth;
        if left.is_turned() {
            let row = |at: usize| &data[at * stride + panel..][..SIDE];
            let mut rows = [0.0; TILE];
            for (at, to) in rows.chunks_exact_mut(SIDE).enumerate() {
                let second = has_second.then(|| row(first + SIDE + at));
                pair::<L, REST>(lanes, row(first + at), second, to);
            }
            turn(lanes, &rows, tile, SIDE);
        } else {
            for (at, to) in tile.chunks_exact_mut(SIDE).enumerate() {
                pair_channels::<L, REST>(lanes, &data[(panel + at) * stride + first..], has_second, to);
            }
        }
    }
}

/// Words of 16 channels of a row and the 16 after them, if there are any.
#[inline(always)]
fn pair_channels<L: Lanes, const REST: bool>(lanes: L, row: &[f32], has_second: bool, to: &mut [f32]) {
    let second = has_second.then(|| &row[SIDE..DEPTH]);
    pair::<L, REST>(lanes, &row[..SIDE], second, to);
}

/// Writes a tile turned, to rows so far apart.
#[inline(always)]
fn turn<L: Lanes>(lanes: L, from: &[f32; TILE], to: &mut [f32], stride: usize) {
    for row in (0..SIDE).step_by(TRANSPOSE) {
        for column in (0..SIDE).step_by(TRANSPOSE) {
            let rows: [&[f32]; TRANSPOSE] = core::array::from_fn(|i| &from[(row + i) * SIDE + column..]);
            lanes.transpose(rows, &mut to[column * stride + row..], stride);
        }
    }
}

/// Words of two rows, the nearest bf16 of each element or of what that leaves; the second is zero where there is none.
#[inline(always)]
fn pair<L: Lanes, const REST: bool>(lanes: L, first: &[f32], second: Option<&[f32]>, to: &mut [f32]) {
    let Some(second) = second else {
        let zero = F32::splat(lanes, 0.0);
        for (to, &a) in vectors_mut(lanes, to).iter_mut().zip(vectors(lanes, first)) {
            *to = pair_bf16(piece::<L, REST>(F32::from_raw(lanes, a)), zero).raw();
        }
        return;
    };
    let rows = vectors(lanes, first).iter().zip(vectors(lanes, second));
    for (to, (&a, &b)) in vectors_mut(lanes, to).iter_mut().zip(rows) {
        let [a, b] = [piece::<L, REST>(F32::from_raw(lanes, a)), piece::<L, REST>(F32::from_raw(lanes, b))];
        *to = pair_bf16(a, b).raw();
    }
}

/// The nearest bf16, or that of what it leaves.
#[inline(always)]
fn piece<L: Lanes, const REST: bool>(x: F32<L>) -> F32<L> {
    let nearest = round_bf16(x);
    if REST { round_bf16(x - nearest) } else { nearest }
}

/// A product.
pub(super) struct Multiply<'a, U, D> {
    pub unit: U,
    pub lanes: D,
    pub sizes: Sizes,
    pub left: Matrix<'a>,
    /// As [`pack_right`] left it.
    pub right: Right<'a>,
    pub to: &'a mut [f32],
    pub stride: usize,
    pub before: Before<'a>,
    /// Where left operands are packed.
    pub room: &'a mut [f32],
}

impl<U: Unit, D: Door> Op for Multiply<'_, U, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { unit, lanes, sizes, left, right, to, stride, before, room } = self;
        let Sizes { rows, depth, columns } = sizes;
        assert!([rows, depth, columns].iter().all(|n| n.is_multiple_of(SIDE)), "whole tiles");
        let mut tiles = unit.tiles();
        // Where the second piece of the right operand begins, of two of the same length.
        let right_rest = right.data().len() / 2;
        for panel in (0..rows).step_by(SIDE) {
            let (nearest, rest) = room.split_at_mut(left_piece(depth));
            pack_left::<D, false>(lanes, left, panel, depth, nearest);
            if left.is_precise() {
                pack_left::<D, true>(lanes, left, panel, depth, rest);
            }
            let (a, a_rest): (&[u32], &[u32]) = (bytemuck::cast_slice(nearest), bytemuck::cast_slice(rest));
            let to = &mut to[panel * stride..];
            if let Before::Times(factors) = before {
                for (to, &factor) in to.chunks_mut(stride).zip(&factors[panel..panel + SIDE]) {
                    let factor = F32::splat(lanes, factor);
                    for x in vectors_mut(lanes, &mut to[..columns]) {
                        *x = (F32::from_raw(lanes, *x) * factor).raw();
                    }
                }
            }
            for first in (0..columns).step_by(4 * SIDE) {
                let b: &[u32] = bytemuck::cast_slice(&right.data()[first..]);
                let b_rest = &b[if right.is_precise() { right_rest } else { 0 }..];
                let terms = [(a, b, true), (a_rest, b, left.is_precise()), (a, b_rest, right.is_precise())];
                let block = Block {
                    terms,
                    b_stride: right.stride(),
                    steps: depth.div_ceil(DEPTH),
                    to: bytemuck::cast_slice_mut(&mut to[first..]),
                    stride,
                    adds: !matches!(before, Before::Replaced),
                };
                match (columns - first) / SIDE {
                    1 => block.multiply::<U::Tiles, 1>(&mut tiles),
                    2 => block.multiply::<U::Tiles, 2>(&mut tiles),
                    3 => block.multiply::<U::Tiles, 3>(&mut tiles),
                    _ => block.multiply::<U::Tiles, 4>(&mut tiles),
                }
            }
        }
    }
}

/// A row of tiles of a product.
struct Block<'a> {
    /// Pieces of both operands, and whether their product is a part of the whole.
    terms: [(&'a [u32], &'a [u32], bool); 3],
    b_stride: usize,
    /// Steps of depth.
    steps: usize,
    to: &'a mut [u32],
    stride: usize,
    /// Whether products are added to what is there.
    adds: bool,
}

impl Block<'_> {
    /// Multiplies `N` tiles, at most four.
    #[inline(always)]
    fn multiply<T: Tiles, const N: usize>(mut self, tiles: &mut T) {
        self.begin::<T, 0, N>(tiles);
        self.begin::<T, 1, N>(tiles);
        self.begin::<T, 2, N>(tiles);
        self.begin::<T, 3, N>(tiles);
        for (a, b, _) in self.terms.into_iter().filter(|(.., counts)| *counts) {
            for step in 0..self.steps {
                tiles.load::<4>(Source::new(&a[step * TILE..], SIDE));
                let b = &b[step * SIDE * self.b_stride..];
                tiles.load::<5>(Source::new(b, self.b_stride));
                tiles.dot::<0, 4, 5>();
                if const { N > 1 } {
                    tiles.load::<6>(Source::new(&b[SIDE..], self.b_stride));
                    tiles.dot::<1, 4, 6>();
                }
                if const { N > 2 } {
                    tiles.load::<7>(Source::new(&b[2 * SIDE..], self.b_stride));
                    tiles.dot::<2, 4, 7>();
                }
                if const { N > 3 } {
                    tiles.load::<5>(Source::new(&b[3 * SIDE..], self.b_stride));
                    tiles.dot::<3, 4, 5>();
                }
            }
        }
        self.end::<T, 0, N>(tiles);
        self.end::<T, 1, N>(tiles);
        self.end::<T, 2, N>(tiles);
        self.end::<T, 3, N>(tiles);
    }

    /// Loads tile `C` of `N`, if products are added to it.
    #[inline(always)]
    fn begin<T: Tiles, const C: usize, const N: usize>(&self, tiles: &mut T) {
        if const { C >= N } {
            return;
        }
        if self.adds {
            tiles.load::<C>(Source::new(&self.to[C * SIDE..], self.stride));
        } else {
            tiles.zero::<C>();
        }
    }

    /// Stores tile `C` of `N`.
    #[inline(always)]
    fn end<T: Tiles, const C: usize, const N: usize>(&mut self, tiles: &mut T) {
        if const { C < N } {
            tiles.store::<C>(&mut self.to[C * SIDE..], self.stride);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::super::AmxBf16;
    use super::super::emulated::Emulated;
    use super::*;
    use crate::engine::Engine;
    use crate::isa::scalar::Scalar;

    /// Numbers of seven bits: bf16 holds each of them.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut word = seed;
        let mut next = || {
            word = word.wrapping_mul(0x9e37_79b1).rotate_left(7) ^ 0x80ff_7f00;
            (word >> 25) as f32 / 64.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn turned(rows: &[f32], [count, width]: [usize; 2]) -> Vec<f32> {
        (0..width).flat_map(|column| (0..count).map(move |row| rows[row * width + column])).collect()
    }

    struct All<E>(E);

    impl<E: Engine> Op for All<E> {
        type Output = ();

        fn run(self) {
            for sizes in [(16, 16, 16), (32, 48, 80), (16, 64, 64), (48, 128, 48), (16, 80, 160)] {
                let (rows, depth, columns) = sizes;
                let (left, right) = (numbers(rows * depth, 1), numbers(depth * columns, 2));
                let (given, factors) = (numbers(rows * (columns + 16), 3), numbers(rows, 4));
                let (left_turned, right_turned) =
                    (turned(&left, [rows, depth]), turned(&right, [depth, columns]));
                for is_turned in [false, true] {
                    let left = if is_turned {
                        Matrix::turned(&left_turned, rows)
                    } else {
                        Matrix::rows(&left, depth)
                    };
                    let right = if is_turned {
                        Matrix::turned(&right_turned, depth)
                    } else {
                        Matrix::rows(&right, columns)
                    };
                    let mut packed = vec![f32::NAN; E::right_len([depth, columns], is_turned)];
                    let operand = self.0.right(right, [depth, columns], &mut packed);
                    // All of it, and less than was packed.
                    for (depth, columns) in [(depth, columns), (16, columns), (depth, 16)] {
                        for before in [Before::Replaced, Before::Kept, Before::Times(&factors)] {
                            self.compare([rows, depth, columns], (left, right, operand), &given, before);
                        }
                    }
                }
            }
        }
    }

    impl<E: Engine> All<E> {
        fn compare(
            &self,
            [rows, depth, columns]: [usize; 3],
            (left, right, operand): (Matrix<'_>, Matrix<'_>, Right<'_>),
            given: &[f32],
            before: Before<'_>,
        ) {
            let stride = given.len() / rows;
            let (mut to, mut room) = (given.to_vec(), vec![f32::NAN; E::left_len(depth)]);
            let sizes = Sizes { rows, depth, columns };
            self.0.multiply(sizes, (left, operand), (&mut to, stride), before, &mut room);
            let element = |of: Matrix<'_>, row: usize, column: usize| {
                let at = if of.is_turned() { [column, row] } else { [row, column] };
                f64::from(of.data()[at[0] * of.stride() + at[1]])
            };
            for (at, (&found, &given)) in to.iter().zip(given).enumerate() {
                let (row, column) = (at / stride, at % stride);
                if column >= columns {
                    assert_eq!(found, given, "beside the result");
                    continue;
                }
                let kept = match before {
                    Before::Replaced => 0.0,
                    Before::Kept => f64::from(given),
                    Before::Times(factors) => f64::from(factors[row]) * f64::from(given),
                };
                let product = |k| element(left, row, k) * element(right, k, column);
                let expected = kept + (0..depth).map(product).sum::<f64>();
                assert!((f64::from(found) - expected).abs() < 1e-5, "{found} for {expected}: {sizes:?}");
            }
        }
    }

    #[test]
    fn products_are_those_of_one_element_after_the_other() {
        let emulated = AmxBf16 { unit: Emulated, lanes: Scalar };
        emulated.enter(All(emulated));
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(lanes) = crate::isa::avx2::Avx2::detect() {
                let emulated = AmxBf16 { unit: Emulated, lanes };
                emulated.enter(All(emulated));
            }
            match super::super::hardware::Amx::detect() {
                Some(unit) => {
                    let engine = AmxBf16 { unit, lanes: unit.lanes() };
                    engine.enter(All(engine));
                }
                None => std::eprintln!("skipped amx: not on this CPU"),
            }
        }
    }
}
