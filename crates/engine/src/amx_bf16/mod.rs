//! The engine `amx-bf16`: bf16 products on matrix tiles.
//!
//! Scores are computed turned, keys by rows, and so are outputs, channels by rows: what comes out of one product are
//! rows in lanes, and two adjacent keys' weights, rounded and joined lane by lane, are an operand of the next. Storage
//! that is wider than bf16 is split into pieces, whose products are added up.

#[cfg(target_arch = "x86_64")]
pub mod hardware;

pub mod emulated;
mod layout;
mod longest;
mod matrix;
mod mend;
mod operands;
mod product;
mod step;
pub mod unit;

use pulp::bytemuck;
use regard_ir::plan::Dtype;
use regard_simd::{TRANSPOSE, rows_apart, rows_from};

use self::layout::{PART, ROWS, Sizes};
use self::longest::Longest;
use self::step::Pipeline;
use self::unit::{SIDE, Unit};
use crate::engine::{Engine, Fold, GROUP, Op, Shape, Step};
use crate::isa::Door;
use crate::pack::{Rows, is_odd};
use crate::pairs;
use crate::product::{Before, Matrix, Right};
use crate::split::{copy_channels, is_odd_bf16, join_rows, pair_channels, pair_rows};

/// bf16 products on the tiles of a unit, with the vectors of `D` between.
#[derive(Clone, Copy, Debug)]
pub struct AmxBf16<U, D> {
    /// The unit.
    pub unit: U,
    /// The vectors.
    pub lanes: D,
}

impl<U: Unit, D: Door> Engine for AmxBf16<U, D> {
    type Lanes = D;
    const STORAGE: &'static [Dtype] = &Dtype::ALL;
    const STATES: &'static [Dtype] = &[Dtype::Bf16];
    const ROWS: usize = ROWS;
    const ROW_STEP: usize = ROWS;
    const KEY_STEP: usize = GROUP;
    const CHANNEL_STEP: usize = ROWS;
    const UNSCALED: bool = true;
    const HAS_STAIRS: bool = false;
    const SLACK: f32 = 32.0;
    const WEIGHTS_KEPT: usize = PART;

    #[inline(always)]
    fn lanes(self) -> D {
        self.lanes
    }

    #[inline(always)]
    fn enter<O: Op>(self, op: O) -> O::Output {
        let _configured = self.unit.configure();
        self.lanes.enter(op)
    }

    fn query_len(shape: &Shape) -> usize {
        Sizes::new(shape).queries()
    }

    fn unit_keys(_: &Shape) -> usize {
        GROUP
    }

    fn packed_len(shape: &Shape) -> usize {
        Sizes::new(shape).unit()
    }

    fn scratch_len(shape: &Shape) -> usize {
        Sizes::new(shape).scratch()
    }

    fn pack_len(shape: &Shape) -> usize {
        let sizes = Sizes::new(shape);
        let turned = TRANSPOSE * (sizes.scores * sizes.row).max(sizes.values * sizes.value_width);
        2 * shape.dim.max(shape.value_dim) + turned
    }

    #[inline(always)]
    fn pack_queries<'t>(
        self,
        shape: &Shape,
        queries: &impl Rows<'t>,
        [count, _]: [usize; 2],
        factor: f32,
        scratch: &mut [f32],
        to: &mut [f32],
    ) {
        debug_assert!(factor == 1.0, "queries are packed as they are, so that bf16 is not rounded again");
        let sizes = Sizes::new(shape);
        let (row, words) = scratch.split_at_mut(shape.dim);
        let words = &mut words[..TRANSPOSE * sizes.scores * sizes.row];
        let (mut odd, mut longest) = (0u32, Longest::default());
        for first in (0..ROWS).step_by(TRANSPOSE) {
            for (i, words) in words.chunks_exact_mut(sizes.scores * sizes.row).enumerate() {
                if first + i < count {
                    let at = (first + i, shape.dim);
                    let is_odd = channels(self.lanes, queries, at, sizes.scores, row, words, &mut longest);
                    odd |= u32::from(is_odd) << (first + i);
                } else {
                    words.fill(0.0);
                }
            }
            // Tiles of 16 words of channels by 16 rows.
            for piece in 0..sizes.scores {
                let rows = rows_apart(&words[piece * sizes.row..], sizes.scores * sizes.row);
                let to = &mut to[piece * sizes.query_piece() + first / SIDE * SIDE * sizes.row..];
                for at in (0..sizes.row).step_by(TRANSPOSE) {
                    self.lanes.transpose(rows_from(rows, at), &mut to[at * SIDE + first % SIDE..], SIDE);
                }
            }
        }
        to[sizes.odd_queries()] = f32::from_bits(odd);
        to[sizes.longest_query()] = longest.length(self.lanes);
    }

    #[inline(always)]
    fn pack<'t>(
        self,
        shape: &Shape,
        keys: &impl Rows<'t>,
        values: &impl Rows<'t>,
        count: usize,
        scratch: &mut [f32],
        to: &mut [f32],
    ) {
        let sizes = Sizes::new(shape);
        let (rows, words) = scratch.split_at_mut(2 * shape.dim.max(shape.value_dim));
        let (mut odd, mut longest) = (0u32, Longest::default());
        for key in 0..GROUP {
            let row = &mut words[..sizes.scores * sizes.row];
            let scratch = &mut rows[..shape.dim];
            if key < count {
                let is_odd =
                    channels(self.lanes, keys, (key, shape.dim), sizes.scores, scratch, row, &mut longest);
                odd |= u32::from(is_odd) << key;
            } else {
                row.fill(0.0);
            }
            for (piece, row) in row.chunks_exact(sizes.row).enumerate() {
                for (channel, words) in row.as_chunks::<SIDE>().0.iter().enumerate() {
                    let at = piece * sizes.key_piece() + sizes.key(key, channel * SIDE);
                    to[at..at + SIDE].copy_from_slice(words);
                }
            }
        }
        to[sizes.odd_keys()] = f32::from_bits(odd);
        to[sizes.longest_key()] = longest.length(self.lanes);
        odd = 0;
        if sizes.value_width == 0 {
            to[sizes.odd_values()] = 0.0;
            return;
        }
        let (first_row, second_row) = rows.split_at_mut(rows.len() / 2);
        let words = &mut words[..TRANSPOSE * sizes.values * sizes.value_width];
        for first in (0..GROUP / 2).step_by(TRANSPOSE) {
            for (i, words) in words.chunks_exact_mut(sizes.values * sizes.value_width).enumerate() {
                let key = 2 * (first + i);
                let words = bytemuck::cast_slice_mut(words);
                let bits = |key| if key < count && sizes.values == 1 { values.bf16_bits(key) } else { None };
                if let (Some(a), Some(b)) = (bits(key), bits(key + 1)) {
                    let [a_is_odd, b_is_odd] = join_rows(&a[..shape.value_dim], &b[..shape.value_dim], words);
                    odd |= u32::from(a_is_odd) << key | u32::from(b_is_odd) << (key + 1);
                    continue;
                }
                let a = value(self.lanes, values, [key, count, shape.value_dim], &mut odd, first_row);
                let b = value(self.lanes, values, [key + 1, count, shape.value_dim], &mut odd, second_row);
                pair_rows(a, b, sizes.values, words);
            }
            for piece in 0..sizes.values {
                let rows = rows_apart(&words[piece * sizes.value_width..], sizes.values * sizes.value_width);
                let to = &mut to[sizes.keys() + piece * sizes.value_piece()..][..sizes.value_piece()];
                for channel in (0..sizes.value_width).step_by(TRANSPOSE) {
                    let to = &mut to[channel * SIDE + first..];
                    self.lanes.transpose(rows_from(rows, channel), to, SIDE);
                }
            }
        }
        to[sizes.odd_values()] = f32::from_bits(odd);
    }

    #[inline(always)]
    fn odd_keys(shape: &Shape, packed: &[f32], group: usize) -> u32 {
        let sizes = Sizes::new(shape);
        packed[group * sizes.unit() + sizes.odd_values()].to_bits()
    }

    #[inline(always)]
    fn step<F: Fold<D>>(self, step: Step<'_>, fold: &mut F) {
        self.lanes.call(Pipeline { lanes: self.lanes, unit: self.unit, step, fold });
    }

    fn right_len(sizes: [usize; 2], _is_turned: bool) -> usize {
        pairs::right_len(sizes)
    }

    fn left_len(depth: usize) -> usize {
        pairs::left_len(depth)
    }

    #[inline(always)]
    fn right<'a>(self, matrix: Matrix<'a>, sizes: [usize; 2], room: &'a mut [f32]) -> Right<'a> {
        pairs::right(self.lanes, matrix, sizes, room)
    }

    #[inline(always)]
    fn multiply(
        self,
        sizes: crate::product::Sizes,
        (left, right): (Matrix<'_>, Right<'_>),
        (to, stride): (&mut [f32], usize),
        before: Before<'_>,
        room: &mut [f32],
    ) {
        let Self { unit, lanes } = self;
        lanes.call(matrix::Multiply { unit, lanes, sizes, left, right, to, stride, before, room });
    }

    #[inline(always)]
    fn weights(shape: &Shape, scratch: &[f32], at: usize, to: &mut [f32]) {
        let sizes = Sizes::new(shape);
        let words = sizes.first_weights(scratch);
        for (row, to) in to.iter_mut().enumerate() {
            let pieces = words.chunks_exact(sizes.weight_piece());
            let halves = pieces.map(|words| words[Sizes::weight(at / 2, row)] << (16 * (1 - at % 2)));
            *to = halves.map(|half| f32::from_bits(half & 0xffff_0000)).sum();
        }
    }
}

/// Writes the channels of a row as words, piece by piece, and gives whether one of them is not finite.
#[inline(always)]
fn channels<'t, L: Door>(
    lanes: L,
    rows: &impl Rows<'t>,
    (at, dim): (usize, usize),
    pieces: usize,
    scratch: &mut [f32],
    to: &mut [f32],
    longest: &mut Longest,
) -> bool {
    // A row whose square is finite has no number that is not.
    if let Some(bits) = rows.bf16_bits(at).filter(|_| pieces == 1) {
        let bits = &bits[..dim];
        copy_channels(lanes, bits, to);
        return !longest.see_row(lanes, to) && is_odd_bf16(bits);
    }
    let row = rows.row(lanes, at, scratch);
    pair_channels(row, pieces, bytemuck::cast_slice_mut(to));
    !longest.see_row(lanes, &to[..to.len() / pieces]) && is_odd(row)
}

/// The value of a key of a unit, zeros where there is none, and whether it is finite.
#[inline(always)]
fn value<'a, 't: 'a, L: Door>(
    lanes: L,
    values: &impl Rows<'t>,
    [key, count, dim]: [usize; 3],
    odd: &mut u32,
    scratch: &'a mut [f32],
) -> &'a [f32] {
    let scratch = &mut scratch[..dim];
    if key >= count {
        scratch.fill(0.0);
        return scratch;
    }
    let row = &values.row(lanes, key, scratch)[..dim];
    *odd |= u32::from(is_odd(row)) << key;
    row
}
