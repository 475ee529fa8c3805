//! Products with cached floats.

use core::marker::PhantomData;

use regard_ir::cache::Codec;

use super::load::{Dots, Floats, Halves, Pairs, Step, Stored};
use super::tile::{Operand, Tile, Write};
use super::{Before, LANES, Part, RowTile, Target, Tiles, Weights, Words, for_width, in_tiles, packed_row};
use crate::isa::Door;

/// Calls a function with the type that stands for a codec, and how many elements its words take.
macro_rules! with_codec {
    ($words:expr, $function:ident[$param:ident]($($argument:expr),*)) => {
        match ($words.block.codec, $words.pairs) {
            (Codec::F32, _) => $function::<$param, Floats, 1>($($argument),*),
            (Codec::F16, _) => $function::<$param, Halves, 2>($($argument),*),
            (Codec::Bf16, false) => $function::<$param, Pairs, 2>($($argument),*),
            (Codec::Bf16, true) => $function::<$param, Dots, 1>($($argument),*),
            (Codec::Int8 | Codec::Int4, _) => unreachable!("integers have products of their own"),
        }
    };
}

/// Packs a query: as it is, or as words of two bf16.
#[inline(always)]
pub(super) fn pack_query(pairs: bool, row: &[f32], to: &mut [f32]) {
    let (there, missing) = to.split_at_mut(row.len());
    there.copy_from_slice(row);
    missing.fill(0.0);
    if pairs {
        for i in 0..to.len() / 2 {
            to[i] = pair(to[2 * i], to[2 * i + 1]);
        }
    }
}

/// A word of two numbers, each rounded to the nearest bf16, halves away from zero.
#[inline(always)]
fn pair(first: f32, second: f32) -> f32 {
    let round = |x: f32| x.to_bits().wrapping_add(0x8000);
    f32::from_bits(round(first) >> 16 | round(second) & 0xffff_0000)
}

/// See [`super::scores`].
#[inline(always)]
pub(super) fn scores<D: Door>(
    lanes: D,
    words: Words<'_>,
    queries: &[f32],
    tile: RowTile,
    keys: (usize, usize),
    target: Target<'_>,
) {
    with_codec!(words, scores_of[D](lanes, words, queries, tile, keys, target))
}

#[inline(always)]
fn scores_of<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    words: Words<'_>,
    queries: &[f32],
    tile: RowTile,
    (chain, count): (usize, usize),
    target: Target<'_>,
) {
    let block = words.block;
    let (depth, panels) = (block.channels.div_ceil(S::NUMBERS), count.div_ceil(LANES));
    let queries = Operand { numbers: queries, stride: packed_row(block), rows: tile.rows, depth };
    // Each chain starts from zero and is added to those before it.
    let chain = chain.div_ceil(S::NUMBERS);
    let mut ahead = words.ahead();
    for begin in (0..depth).step_by(chain) {
        let deep = chain.min(depth - begin);
        let part = Part {
            a: queries.part::<N>(begin, deep),
            panels: &words.steps()[begin..],
            panel: depth,
            count: panels,
            ahead,
            scales: None,
            before: if begin == 0 { Before::Nothing } else { Before::Kept },
        };
        ahead = &ahead[(deep * panels).min(ahead.len())..];
        let target = Target { to: target.to, stride: target.stride };
        for_width!(tile.width, D, multiply[D, S, N](lanes, part, target));
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
    with_codec!(words, outputs_of[D](lanes, words, weights, scratch, before, target))
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
    let (depth, count) = (words.tokens / S::NUMBERS, words.block.channels.div_ceil(LANES));
    let chain = weights.chain.div_ceil(S::NUMBERS);
    let weights = operand::<S, N>(weights, tile, scratch);
    let mut ahead = words.ahead();
    for begin in (0..weights.depth).step_by(chain) {
        let deep = chain.min(weights.depth - begin);
        let part = Part {
            a: weights.part::<N>(begin, deep),
            panels: &words.steps()[begin..],
            panel: depth,
            count,
            ahead,
            scales: None,
            before: if begin == 0 { before } else { Before::Kept },
        };
        ahead = &ahead[(deep * count).min(ahead.len())..];
        let target = Target { to: target.to, stride: target.stride };
        for_width!(tile.width, D, multiply[D, S, N](lanes, part, target));
    }
}

/// Weights as they are multiplied: where they lie, or in words of two made in `scratch`.
#[inline(always)]
fn operand<'a, S: Stored<N>, const N: usize>(
    weights: Weights<'a>,
    tile: RowTile,
    scratch: &'a mut [f32],
) -> Operand<'a> {
    let Weights { rows: numbers, stride, count, .. } = weights;
    let (rows, depth) = (tile.rows, count.div_ceil(S::NUMBERS));
    if S::NUMBERS == N {
        return Operand { numbers, stride, rows, depth };
    }
    for r in 0..rows {
        let to = &mut scratch[r * depth..][..depth];
        let from = &numbers[r * stride..][..2 * depth];
        for (to, [first, second]) in to.iter_mut().zip(from.as_chunks().0) {
            *to = pair(*first, *second);
        }
    }
    Operand { numbers: scratch, stride: depth, rows, depth }
}

#[inline(always)]
fn multiply<D: Door, S: Stored<N>, const N: usize, const R: usize, const U: usize>(
    lanes: D,
    part: Part<'_, Operand<'_>>,
    target: Target<'_>,
) {
    let sizes = (part.a.rows, part.a.depth);
    in_tiles::<D, _, U>(
        lanes,
        &part,
        sizes,
        target,
        &FloatTiles::<S, N, R> { part: &part, stored: PhantomData },
    );
}

struct FloatTiles<'a, S, const N: usize, const R: usize> {
    part: &'a Part<'a, Operand<'a>>,
    stored: PhantomData<S>,
}

impl<D: Door, S: Stored<N>, const N: usize, const R: usize> Tiles<D> for FloatTiles<'_, S, N, R> {
    #[inline(always)]
    fn tile<const U: usize>(&self, lanes: D, first: usize, ahead: &[Step], write: Write<'_>) {
        let &Part { a, panels, panel, .. } = self.part;
        lanes.call(Tile::<D, S, N, R, U> {
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
