//! Products with cached integers.

use core::marker::PhantomData;

use pulp::bytemuck;
use regard_ir::cache::{Block, Codec};
use regard_simd::vectors_mut;

use super::bytes::{self, ByteTile, Bytes, Nibbles, OfRow, Rows, Stored};
use super::load::Step;
use super::tile::{MAX_ROWS, Write};
use super::{Before, GROUP, LANES, Part, RowTile, Target, Tiles, Weights, Words, in_tiles};
use crate::isa::Door;

/// Calls a function with the type that stands for a codec, and how many words of bytes its words take.
macro_rules! with_codec {
    ($codec:expr, $function:ident[$param:ident]($($argument:expr),*)) => {
        match $codec {
            Codec::Int8 => $function::<$param, Bytes, 1>($($argument),*),
            Codec::Int4 => $function::<$param, Nibbles, 2>($($argument),*),
            Codec::F32 | Codec::F16 | Codec::Bf16 => unreachable!("floats have products of their own"),
        }
    };
}

/// Calls a function for the rows and vectors of the tile that an instruction set's registers hold, with two sums of each.
macro_rules! for_width_of_halves {
    ($width:expr, $door:ident, $function:ident[$($param:ident),*]($($argument:expr),*)) => {
        match ($width, $door::TILE > 4) {
            (1, true) => $function::<$($param,)* 1, 4>($($argument),*),
            (2, true) => $function::<$($param,)* 2, 4>($($argument),*),
            (4, true) => $function::<$($param,)* 4, 2>($($argument),*),
            (8, true) => $function::<$($param,)* 8, 1>($($argument),*),
            (1, false) => $function::<$($param,)* 1, 2>($($argument),*),
            (2, false) => $function::<$($param,)* 2, 2>($($argument),*),
            (4, false) => $function::<$($param,)* 4, 1>($($argument),*),
            (width, _) => panic!("a row tile has 1, 2, 4 or 8 rows, not {width}"),
        }
    };
}

/// Bytes of a word of the other operand.
const WORD: usize = size_of::<u32>();

/// Words of a packed query's bytes.
const fn query_words(block: &Block) -> usize {
    block.channels.next_multiple_of(block.codec.numbers() as usize) / WORD
}

/// See [`super::packed_row`]: the query's upper bytes, its lower ones, its scale, then what either of each group of channels add
/// up to.
pub(super) const fn packed_row(block: &Block) -> usize {
    2 * query_words(block) + 1 + 2 * block.groups
}

/// See [`super::pack_query`].
#[inline(always)]
pub(super) fn pack_query<D: Door>(lanes: D, block: &Block, row: &[f32], to: &mut [f32]) {
    let (words, beside) = to.split_at_mut(2 * query_words(block));
    let numbers: &mut [u8] = bytemuck::cast_slice_mut(words);
    let (scale, sums) = beside.split_first_mut().expect("a packed query has a scale");
    *scale = bytes::quantise_query(lanes, row, numbers);
    let (upper, lower) = numbers.split_at(numbers.len() / 2);
    let group = if block.groups > 1 { GROUP } else { upper.len().max(1) };
    for (sums, halves) in sums.as_chunks_mut().0.iter_mut().zip(upper.chunks(group).zip(lower.chunks(group)))
    {
        let sum =
            |bytes: &[u8]| f32::from_bits(bytes.iter().map(|&x| i32::from(x as i8)).sum::<i32>() as u32);
        *sums = [sum(halves.0), sum(halves.1)];
    }
}

/// Scales of a block, as floats: as many as `to` takes, whole vectors, from number `first` on.
#[inline(always)]
fn scales_of<D: Door>(lanes: D, words: &Words<'_>, first: usize, to: &mut [f32]) {
    let stored = &words.words[words.block.words..];
    match words.block.codec {
        Codec::Int4 => {
            let halves = &bytemuck::cast_slice::<u32, u16>(stored)[first..];
            for (to, halves) in vectors_mut(lanes, to).iter_mut().zip(halves.chunks_exact(D::WIDTH)) {
                *to = lanes.load_f16(halves);
            }
        }
        _ => to.copy_from_slice(&bytemuck::cast_slice(stored)[first..][..to.len()]),
    }
}

/// The most panels of keys whose scales are gathered at once.
const PANELS: usize = 4;

/// See [`super::scores`].
#[inline(always)]
pub(super) fn scores<D: Door>(
    lanes: D,
    words: Words<'_>,
    queries: &[f32],
    tile: RowTile,
    count: usize,
    target: Target<'_>,
) {
    with_codec!(words.block.codec, scores_of[D](lanes, words, queries, tile, count, target))
}

#[inline(always)]
fn scores_of<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    words: Words<'_>,
    queries: &[f32],
    tile: RowTile,
    count: usize,
    target: Target<'_>,
) {
    let block = words.block;
    let numbers = WORD * N;
    let (depth, all_panels) = (block.channels.div_ceil(numbers), count.div_ceil(LANES));
    let group_depth = if block.groups > 1 { GROUP / numbers } else { depth };
    let (stride, words_of_row) = (packed_row(block), query_words(block));
    let rows_words: &[u32] = bytemuck::cast_slice(queries);
    let mut ahead = words.ahead();
    for first in (0..all_panels).step_by(PANELS) {
        let panels = PANELS.min(all_panels - first);
        for (group, begin) in (0..depth).step_by(group_depth).enumerate() {
            let deep = group_depth.min(depth - begin);
            let mut scales = [0.0; PANELS * LANES];
            for (panel, scales) in scales.as_chunks_mut::<LANES>().0[..panels].iter_mut().enumerate() {
                scales_of(lanes, &words, ((first + panel) * block.groups + group) * LANES, scales);
            }
            let mut of_rows = [OfRow::default(); MAX_ROWS];
            for (r, of_row) in of_rows[..tile.rows].iter_mut().enumerate() {
                let beside = &queries[r * stride + 2 * words_of_row..];
                let sums = [beside[1 + 2 * group], beside[2 + 2 * group]].map(|sum| sum.to_bits() as i32);
                *of_row = OfRow { scale: beside[0], sums };
            }
            let a = Rows {
                words: &rows_words[begin * N..],
                stride,
                lower: words_of_row,
                rows: tile.rows,
                depth: deep,
                of_rows: &of_rows[..tile.rows],
            };
            let part = Part {
                a,
                panels: &words.steps()[first * depth + begin..],
                panel: depth,
                count: panels,
                ahead,
                scales: Some(&scales),
                before: if group == 0 { Before::Nothing } else { Before::Kept },
            };
            ahead = &ahead[(deep * panels).min(ahead.len())..];
            let target = Target { to: &mut target.to[first * LANES..], stride: target.stride };
            for_width_of_halves!(tile.width, D, multiply_keys[D, S, N](lanes, part, target));
        }
    }
}

/// See [`super::outputs`].
#[inline(always)]
pub(super) fn outputs<D: Door>(
    lanes: D,
    words: Words<'_>,
    weights: (RowTile, Weights<'_>),
    scratch: &mut [f32],
    before: Before<'_>,
    target: Target<'_>,
) {
    with_codec!(words.block.codec, outputs_of[D](lanes, words, weights, scratch, before, target))
}

#[inline(always)]
fn outputs_of<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    words: Words<'_>,
    (tile, weights): (RowTile, Weights<'_>),
    scratch: &mut [f32],
    before: Before<'_>,
    target: Target<'_>,
) {
    let block = words.block;
    let numbers = WORD * N;
    let (depth, all_panels) = (words.tokens / numbers, block.channels.div_ceil(LANES));
    let group_panels = if block.groups > 1 { GROUP / LANES } else { all_panels };
    let (row, scratch) = scratch.split_at_mut(words.tokens);
    let all_bytes: &mut [u8] = bytemuck::cast_slice_mut(scratch);
    let mut ahead = words.ahead();
    for (group, first) in (0..all_panels).step_by(group_panels.max(1)).enumerate() {
        let count = group_panels.min(all_panels - first);
        for begin in (0..weights.count).step_by(weights.chain) {
            let tokens = weights.chain.min(weights.count - begin);
            // Weights past the last key are zero, and so are rounded with the others.
            let (deep, stride) = (tokens.div_ceil(numbers), tokens.next_multiple_of(LANES));
            let mut of_rows = [OfRow::default(); MAX_ROWS];
            for (r, of_row) in of_rows[..tile.rows].iter_mut().enumerate() {
                let row = &mut row[..stride];
                scales_of(lanes, &words, group * words.tokens + begin, row);
                let weights = &weights.rows[r * weights.stride + begin..][..stride];
                let bytes = &mut all_bytes[2 * r * stride..][..2 * stride];
                *of_row = bytes::quantise_weights(lanes, weights, row, bytes);
            }
            let a = Rows {
                words: bytemuck::cast_slice(&all_bytes[..2 * tile.rows * stride]),
                stride: 2 * stride / WORD,
                lower: stride / WORD,
                rows: tile.rows,
                depth: deep,
                of_rows: &of_rows[..tile.rows],
            };
            let part = Part {
                a,
                panels: &words.steps()[first * depth + begin / numbers..],
                panel: depth,
                count,
                ahead,
                scales: None,
                before: if begin == 0 { before } else { Before::Kept },
            };
            ahead = &ahead[(deep * count).min(ahead.len())..];
            let target = Target { to: &mut target.to[first * LANES..], stride: target.stride };
            for_width_of_halves!(tile.width, D, multiply_values[D, S, N](lanes, part, target));
        }
    }
}

#[inline(always)]
fn multiply_keys<D: Door, S: Stored<N>, const N: usize, const R: usize, const U: usize>(
    lanes: D,
    part: Part<'_, Rows<'_>>,
    target: Target<'_>,
) {
    let tiles = IntegerTiles::<S, N, R, true> { part: &part, stored: PhantomData };
    in_tiles::<D, _, U>(lanes, &part, (part.a.rows, part.a.depth), target, &tiles);
}

#[inline(always)]
fn multiply_values<D: Door, S: Stored<N>, const N: usize, const R: usize, const U: usize>(
    lanes: D,
    part: Part<'_, Rows<'_>>,
    target: Target<'_>,
) {
    let tiles = IntegerTiles::<S, N, R, false> { part: &part, stored: PhantomData };
    in_tiles::<D, _, U>(lanes, &part, (part.a.rows, part.a.depth), target, &tiles);
}

struct IntegerTiles<'a, S, const N: usize, const R: usize, const KEYS: bool> {
    part: &'a Part<'a, Rows<'a>>,
    stored: PhantomData<S>,
}

impl<D: Door, S: Stored<N>, const N: usize, const R: usize, const KEYS: bool> Tiles<D>
    for IntegerTiles<'_, S, N, R, KEYS>
{
    #[inline(always)]
    fn tile<const U: usize>(&self, lanes: D, first: usize, ahead: &[Step], write: Write<'_>) {
        let &Part { a, panels, panel, .. } = self.part;
        lanes.call_bytes(ByteTile::<D, S, N, R, U, KEYS> {
            lanes,
            a,
            panels,
            panel,
            first,
            ahead,
            write,
            stored: PhantomData,
        });
    }
}
