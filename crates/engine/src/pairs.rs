//! Matrices of floats as words of two bf16, to which they are rounded. What rounding takes may be packed as well, as the nearest bf16
//! of it.
//!
//! The terms of a sum may come in any order that both operands share: a word holds two elements that are 16 apart in depth, so that
//! rows are packed vector by vector, without a shuffle.

use regard_simd::{F32, Lanes, TRANSPOSE, pair_bf16, round_bf16, rows_apart, vectors, vectors_mut};

use crate::engine::LINE;
use crate::product::{Matrix, Right};

/// Words of a row of a block: elements of two such rows are packed to one.
const SIDE: usize = LINE;

/// Elements of a row that are packed to a row of words.
pub(crate) const DEPTH: usize = 2 * SIDE;

/// Words of a block.
const BLOCK: usize = SIDE * SIDE;

/// Words of a piece of a packed right operand.
const fn right_piece([depth, columns]: [usize; 2]) -> usize {
    (depth.next_multiple_of(DEPTH) / 2).saturating_mul(columns)
}

/// Words of a piece of the packed rows of a tile of the left operand.
pub(crate) const fn left_piece(depth: usize) -> usize {
    right_piece([depth, SIDE])
}

/// Words of a packed right operand of two pieces.
pub(crate) const fn right_len(sizes: [usize; 2]) -> usize {
    right_piece(sizes).saturating_mul(2)
}

/// Words of the packed rows of a tile of the left operand, in two pieces.
pub(crate) const fn left_len(depth: usize) -> usize {
    left_piece(depth).saturating_mul(2)
}

/// Packs a right operand: `[pieces][depth / 2][columns]` words, two pieces where it is precise.
///
/// # Panics
/// If depth or columns are no multiple of 16, or there are too few.
#[inline(always)]
pub(crate) fn right<'a, L: Lanes>(
    lanes: L,
    matrix: Matrix<'_>,
    [depth, columns]: [usize; 2],
    room: &'a mut [f32],
) -> Right<'a> {
    assert!(depth.is_multiple_of(SIDE) && columns.is_multiple_of(SIDE), "whole tiles");
    let room = &mut room[..right_len([depth, columns])];
    let (nearest, rest) = room.split_at_mut(right_piece([depth, columns]));
    pack_right_piece::<L, false>(lanes, matrix, [depth, columns], nearest);
    if matrix.is_precise() {
        pack_right_piece::<L, true>(lanes, matrix, [depth, columns], rest);
    }
    let right = Right::rows(room, columns);
    if matrix.is_precise() { right.precise() } else { right }
}

/// The second piece of a precise right operand.
#[inline(always)]
pub(crate) fn second_piece<'a>(right: &Right<'a>) -> &'a [f32] {
    &right.data()[right.data().len() / 2..]
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
                let mut rows = [0.0; BLOCK];
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

/// Some rows of a left operand, and where their words go.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    /// The first of 16 rows.
    pub first: usize,
    /// Elements of a row.
    pub depth: usize,
    /// Words from one row to the next.
    pub row_stride: usize,
    /// Words from those of some [`DEPTH`] elements to those of the next.
    pub step_stride: usize,
}

/// Packs 16 rows of a left operand: 16 words of each for each [`DEPTH`] elements.
#[inline(always)]
pub(crate) fn pack_left<L: Lanes, const REST: bool>(
    lanes: L,
    left: Matrix<'_>,
    panel: Panel,
    to: &mut [f32],
) {
    let (data, stride) = (left.data(), left.stride());
    for first in (0..panel.depth).step_by(DEPTH) {
        let to = &mut to[first / DEPTH * panel.step_stride..];
        let has_second = first + SIDE < panel.depth;
        if left.is_turned() {
            let row = |at: usize| &data[at * stride + panel.first..][..SIDE];
            let mut rows = [0.0; BLOCK];
            for (at, to) in rows.chunks_exact_mut(SIDE).enumerate() {
                let second = has_second.then(|| row(first + SIDE + at));
                pair::<L, REST>(lanes, row(first + at), second, to);
            }
            turn(lanes, &rows, to, panel.row_stride);
        } else {
            for (at, to) in to.chunks_mut(panel.row_stride).take(SIDE).enumerate() {
                let from = &data[(panel.first + at) * stride + first..];
                pair_channels::<L, REST>(lanes, from, has_second, &mut to[..SIDE]);
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

/// Writes a block turned, to rows so far apart.
#[inline(always)]
fn turn<L: Lanes>(lanes: L, from: &[f32; BLOCK], to: &mut [f32], stride: usize) {
    for row in (0..SIDE).step_by(TRANSPOSE) {
        for column in (0..SIDE).step_by(TRANSPOSE) {
            let rows = rows_apart(&from[row * SIDE + column..], SIDE);
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

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::amx_bf16::AmxBf16;
    use crate::amx_bf16::emulated::Emulated;
    use crate::dot_bf16::DotBf16;
    use crate::engine::{Engine, Op};
    use crate::isa::scalar::Scalar;
    use crate::product::{Before, Right, Sizes};

    /// Numbers of seven bits, which bf16 holds, or of as many as two of it hold.
    fn numbers(count: usize, seed: u32, is_precise: bool) -> Vec<f32> {
        let mut word = seed;
        let mut next = || {
            word = word.wrapping_mul(0x9e37_79b1).rotate_left(7) ^ 0x80ff_7f00;
            (word >> if is_precise { 17 } else { 25 }) as f32 / if is_precise { 16384.0 } else { 64.0 } - 1.0
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
            for precise in [[false, false], [true, false], [true, true]] {
                self.all_sizes(precise);
            }
        }
    }

    impl<E: Engine> All<E> {
        /// Of a left and a right operand that are precise or not.
        fn all_sizes(&self, [left_is_precise, right_is_precise]: [bool; 2]) {
            for sizes in [(16, 16, 16), (32, 48, 80), (16, 64, 64), (48, 128, 48), (16, 80, 160)] {
                let (rows, depth, columns) = sizes;
                let left = numbers(rows * depth, 1, left_is_precise);
                let right = numbers(depth * columns, 2, right_is_precise);
                let (given, factors) = (numbers(rows * (columns + 16), 3, true), numbers(rows + 1, 4, true));
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
                    let (left, right) = (left.precise(left_is_precise), right.precise(right_is_precise));
                    let operand = self.0.right(right, [depth, columns], &mut packed);
                    // All of it, and less than was packed.
                    for (depth, columns) in [(depth, columns), (16, columns), (depth, 16)] {
                        let both = Before::TimesBoth([&factors, &factors[1..]]);
                        for before in [Before::Replaced, Before::Kept, Before::Times(&factors), both] {
                            self.compare([rows, depth, columns], (left, right, operand), &given, before);
                        }
                    }
                }
            }
        }

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
                    Before::TimesBoth([most, rest]) => {
                        (f64::from(most[row]) + f64::from(rest[row])) * f64::from(given)
                    }
                };
                let product = |k| element(left, row, k) * element(right, k, column);
                let expected = kept + (0..depth).map(product).sum::<f64>();
                // The product of what rounding takes of both is left out.
                let left_out = if left.is_precise() && right.is_precise() { 0.5f64.powi(18) } else { 0.0 };
                let allowed = 1e-5 + depth as f64 * left_out;
                assert!((f64::from(found) - expected).abs() < allowed, "{found} for {expected}: {sizes:?}");
            }
        }
    }

    #[test]
    fn products_are_those_of_one_element_after_the_other() {
        let (dots, emulated) = (DotBf16(Scalar), AmxBf16 { unit: Emulated, lanes: Scalar });
        dots.enter(All(dots));
        emulated.enter(All(emulated));
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(lanes) = crate::isa::avx2::Avx2::detect() {
                let (dots, emulated) = (DotBf16(lanes), AmxBf16 { unit: Emulated, lanes });
                dots.enter(All(dots));
                emulated.enter(All(emulated));
            }
            match crate::isa::avx512::Avx512Bf16::detect() {
                Some(lanes) => DotBf16(lanes).enter(All(DotBf16(lanes))),
                None => std::eprintln!("skipped avx512-bf16: not on this CPU"),
            }
            match crate::amx_bf16::hardware::Amx::detect() {
                Some(unit) => {
                    let engine = AmxBf16 { unit, lanes: unit.lanes() };
                    engine.enter(All(engine));
                }
                None => std::eprintln!("skipped amx: not on this CPU"),
            }
        }
    }
}
