//! Products of matrices of floats as words of two bf16. Of a precise operand what rounding takes is multiplied too, but for the product
//! of what it takes of both.

use crate::engine::LINE;
use crate::isa::Door;
use crate::pairs::{self, Panel};
use crate::panel::tile::Pairs;
use crate::product::{self, Before, Matrix, Right, Sizes};

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
    let Sizes { rows, depth, columns } = sizes;
    let (nearest, rest) = room.split_at_mut(pairs::left_piece(depth));
    let words = nearest.len() / LINE;
    for first in (0..rows).step_by(LINE) {
        let panel = Panel { first, depth, row_stride: words, step_stride: LINE };
        let mut multiply = |left: &[f32], right, before| {
            let (sizes, left) = (Sizes { rows: LINE, depth: words, columns }, Matrix::rows(left, words));
            let to = (&mut to[first * stride..], stride);
            product::multiply_elements::<D, Pairs>(lanes, sizes, left, right, to, before);
        };
        pairs::pack_left::<D, false>(lanes, left, panel, nearest);
        multiply(nearest, right, before.skip_rows(first));
        if left.is_precise() {
            pairs::pack_left::<D, true>(lanes, left, panel, rest);
            multiply(rest, right, Before::Kept);
        }
        if right.is_precise() {
            let right = Right::rows(pairs::second_piece(&right), right.stride());
            multiply(nearest, right, Before::Kept);
        }
    }
}
