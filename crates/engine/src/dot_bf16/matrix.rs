//! Products of matrices of floats as words of two bf16. A right operand that is to be precise stays in floats, and so does what is
//! multiplied by it: with the pieces that hold them, dots would take longer. Of a left one what rounding takes is multiplied too.

use crate::engine::LINE;
use crate::isa::Door;
use crate::pairs::{self, Panel};
use crate::panel::tile::Pairs;
use crate::product::{self, Before, Matrix, Right, Sizes};

/// See [`crate::Engine::right_len`].
pub(super) fn right_len([depth, columns]: [usize; 2], is_turned: bool) -> usize {
    let floats = if is_turned { depth.saturating_mul(columns) } else { 0 };
    floats.max(pairs::right_piece([depth, columns]))
}

/// See [`crate::Engine::right`].
#[inline(always)]
pub(super) fn right<'a, D: Door>(
    lanes: D,
    matrix: Matrix<'a>,
    sizes: [usize; 2],
    room: &'a mut [f32],
) -> Right<'a> {
    if matrix.is_precise() {
        return matrix.into_rows(lanes, sizes, room);
    }
    let [_, columns] = sizes;
    pairs::pack_right(lanes, matrix, sizes, room);
    Right::pairs(room, columns)
}

/// See [`crate::Engine::multiply`].
#[inline(always)]
pub(super) fn multiply<D: Door>(
    lanes: D,
    sizes: Sizes,
    (left, right): (Matrix<'_>, Right<'_>),
    (to, stride): (&mut [f32], usize),
    before: Before<'_>,
    room: &mut [f32],
) {
    if !right.is_paired() {
        return product::multiply(lanes, sizes, left, right, (to, stride), before);
    }
    let Sizes { rows, depth, columns } = sizes;
    let words = pairs::left_piece(depth) / LINE;
    let room = &mut room[..LINE * words];
    for first in (0..rows).step_by(LINE) {
        let panel = Panel { first, depth, row_stride: words, step_stride: LINE };
        let before = match before {
            Before::Times(factors) => Before::Times(&factors[first..]),
            before => before,
        };
        pairs::pack_left::<D, false>(lanes, left, panel, room);
        let mut multiply = |room: &[f32], before| {
            let (sizes, left) = (Sizes { rows: LINE, depth: words, columns }, Matrix::rows(room, words));
            let to = (&mut to[first * stride..], stride);
            product::multiply_elements::<D, Pairs>(lanes, sizes, left, right, to, before);
        };
        multiply(room, before);
        if left.is_precise() {
            pairs::pack_left::<D, true>(lanes, left, panel, room);
            multiply(room, Before::Kept);
        }
    }
}
