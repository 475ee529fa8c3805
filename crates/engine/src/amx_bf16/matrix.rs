//! Products of matrices of floats on tiles. Of a precise operand what rounding takes is multiplied too, but for the product of what
//! it takes of both.

use pulp::bytemuck;
use regard_simd::{F32, vectors_mut};

use super::unit::{SIDE, Source, Tiles, Unit};
use crate::engine::Op;
use crate::isa::Door;
use crate::pairs::{self, DEPTH, Panel};
use crate::product::{Before, Matrix, Right, Sizes};

/// Words of a tile.
const TILE: usize = SIDE * SIDE;

/// A product.
pub(super) struct Multiply<'a, U, D> {
    pub unit: U,
    pub lanes: D,
    pub sizes: Sizes,
    pub left: Matrix<'a>,
    /// As [`pairs::right`] made it.
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
        // Of an operand that is not precise no second piece is read.
        let right_rest = if right.is_precise() { pairs::second_piece(&right) } else { right.data() };
        for panel in (0..rows).step_by(SIDE) {
            let (nearest, rest) = room.split_at_mut(pairs::left_piece(depth));
            let rows = Panel { first: panel, depth, row_stride: SIDE, step_stride: TILE };
            pairs::pack_left::<D, false>(lanes, left, rows, nearest);
            if left.is_precise() {
                pairs::pack_left::<D, true>(lanes, left, rows, rest);
            }
            let (a, a_rest): (&[u32], &[u32]) = (bytemuck::cast_slice(nearest), bytemuck::cast_slice(rest));
            let to = &mut to[panel * stride..];
            for (row, to) in to.chunks_mut(stride).take(SIDE).enumerate() {
                multiply_row(lanes, &mut to[..columns], before.skip_rows(panel + row));
            }
            for first in (0..columns).step_by(4 * SIDE) {
                let b: &[u32] = bytemuck::cast_slice(&right.data()[first..]);
                let b_rest: &[u32] = bytemuck::cast_slice(&right_rest[first..]);
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

/// Multiplies a row by its factors, which are the first.
#[inline(always)]
fn multiply_row<D: Door>(lanes: D, row: &mut [f32], before: Before<'_>) {
    let (most, rest) = match before {
        Before::Replaced | Before::Kept => return,
        Before::Times(factors) => (factors[0], None),
        Before::TimesBoth([most, rest]) => (most[0], Some(F32::splat(lanes, rest[0]))),
    };
    let most = F32::splat(lanes, most);
    for x in vectors_mut(lanes, row) {
        let before = F32::from_raw(lanes, *x);
        *x = match rest {
            Some(rest) => before.mul_add(most, before * rest),
            None => before * most,
        }
        .raw();
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
