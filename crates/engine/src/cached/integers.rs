//! Products with cached integers.

use core::marker::PhantomData;
use core::ops::Range;

use pulp::bytemuck;
use regard_ir::cache::{Block, Codec};
use regard_simd::{F32, vectors_mut};

use super::ahead::{Ask, Next, Pace};
use super::bytes::{self, ByteTile, Bytes, Groups, MOST_IN_HALVES, Nibbles, Rows, Stored};
use super::tile::{Panels, Write};
use super::{Before, GROUP, LANES, Part, RowTile, Target, Tiles, Weights, Words, are_alone, in_tiles};
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

/// Bytes of a word of the other operand.
const WORD: usize = size_of::<u32>();

/// Words of a packed query's bytes.
const fn query_words(block: &Block) -> usize {
    block.channels.next_multiple_of(block.codec.numbers() as usize) / WORD
}

/// See [`super::packed_row`]: the first words of the query's numbers, the second ones, its scale, then what sums of either start from
/// in each group of channels.
pub(super) const fn packed_row(block: &Block) -> usize {
    2 * query_words(block) + 1 + 2 * block.groups
}

/// See [`super::pack_query`].
#[inline(always)]
pub(super) fn pack_query<D: Door>(lanes: D, block: &Block, row: &[f32], to: &mut [f32]) {
    let (words, beside) = to.split_at_mut(2 * query_words(block));
    let words: &mut [u32] = bytemuck::cast_slice_mut(words);
    let (scale, starts) = beside.split_first_mut().expect("a packed query has a scale");
    *scale = bytes::quantise_query(lanes, row, words);
    if !D::HAS_BYTES {
        return;
    }
    let bias = if block.codec == Codec::Int4 { Nibbles::KEY_BIAS } else { Bytes::KEY_BIAS };
    let (upper, lower) = words.split_at(words.len() / 2);
    let group = if block.groups > 1 { GROUP / WORD } else { upper.len().max(1) };
    let groups = upper.chunks(group).zip(lower.chunks(group));
    for (starts, (upper, lower)) in starts.as_chunks_mut().0.iter_mut().zip(groups) {
        // What keys are stored with is taken off again.
        let start = |words: &[u32]| {
            let bytes = words.iter().flat_map(|word| word.to_le_bytes());
            -bias * bytes.map(|x| i32::from(x as i8)).sum::<i32>()
        };
        *starts = [upper, lower].map(|words| f32::from_bits(start(words) as u32));
    }
}

/// See [`super::scores`].
#[inline(always)]
pub(super) fn scores<D: Door>(
    lanes: D,
    words: Words<'_>,
    queries: (&[f32], usize),
    count: usize,
    target: Target<'_>,
) {
    with_codec!(words.block.codec, scores_of[D](lanes, words, queries, count, target))
}

#[inline(always)]
fn scores_of<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    words: Words<'_>,
    (queries, rows): (&[f32], usize),
    count: usize,
    target: Target<'_>,
) {
    let block = words.block;
    let (depth, panels) = (block.depth, count.div_ceil(LANES));
    let second = query_words(block);
    let a = Rows {
        words: bytemuck::cast_slice(queries),
        stride: packed_row(block),
        second,
        beside: 2 * second,
        rows,
        depth,
    };
    let groups = Groups {
        scales: &words.words[block.words()..],
        before: 0,
        count: block.groups,
        depth: if block.groups > 1 { GROUP / (WORD * N) } else { depth },
    };
    let mut stream =
        words.stream(lanes, panels, Pace::new((block, panels), (1, are_alone::<D>()), depth, 2 * N * rows));
    let mut first = 0;
    while first < panels {
        let side = words.side(first, panels, 1);
        let groups = Some(Groups { before: first, ..groups });
        let tiles = IntegerTiles::<S, N> { a, panels: side.from(0), groups, stored: PhantomData };
        let part = Part { rows, side, depth, before: Before::Nothing };
        let to = &mut target.to[first * LANES..];
        in_tiles(lanes, &part, Target { to, ..target }, &tiles, &mut stream);
        first += side.count;
    }
}

/// See [`super::outputs`].
#[inline(always)]
pub(super) fn outputs<D: Door>(
    lanes: D,
    words: Words<'_>,
    weights: Weights<'_>,
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
    weights: Weights<'_>,
    scratch: &mut [f32],
    before: Before<'_>,
    target: Target<'_>,
) {
    assert!(D::HAS_BYTES || weights.chain <= MOST_IN_HALVES, "sums of {} keys in 32 bits", weights.chain);
    let block = words.block;
    let numbers = WORD * N;
    let depth = weights.chain.div_ceil(numbers).min(block.depth);
    let pace = Pace::new((block, block.panels), (1, are_alone::<D>()), depth, 2 * N * weights.rows);
    let mut stream = words.stream(lanes, block.panels, pace);
    for begin in (0..weights.count).step_by(weights.chain) {
        let count = weights.chain.min(weights.count - begin);
        // Weights past the last key are zero, and so are rounded with the others.
        let (depth, len) = (count.div_ceil(numbers), count.next_multiple_of(LANES));
        let rounded = round_weights::<D, S, N>(lanes, &words, &weights, begin..begin + len, scratch);
        let mut first = 0;
        while first < block.panels {
            let side = words.side(first, block.panels, 1);
            // Past the words of the groups before: panels that take turns are of one.
            let group = if block.groups > 1 { first * LANES / GROUP } else { 0 };
            let at = group * 2 * len / WORD;
            let a = Rows { words: &rounded.words[at..], beside: rounded.beside - at, depth, ..rounded };
            let panels = side.from(begin / numbers);
            let tiles = IntegerTiles::<S, N> { a, panels, groups: None, stored: PhantomData };
            let before = if begin == 0 { before } else { Before::Kept };
            let part = Part { rows: weights.rows, side, depth, before };
            let to = &mut target.to[first * LANES..];
            in_tiles(lanes, &part, Target { to, ..target }, &tiles, &mut stream);
            first += side.count;
        }
    }
}

/// Words of a row of rounded weights over so many keys: for each group its first and its second words, then its scale.
const fn rounded_row(block: &Block, len: usize) -> usize {
    block.groups * 2 * len / WORD + 1
}

/// See [`super::scratch_len`]: scales of each group and their largest, a row on its way, and the rounded rows.
pub(super) const fn scratch_len(block: &Block, rows: usize, chain: usize) -> usize {
    (block.groups + 2) * chain + rows * rounded_row(block, chain)
}

/// Rounds the weights of some keys times their scales.
#[inline(always)]
fn round_weights<'a, D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    words: &Words<'_>,
    weights: &Weights<'_>,
    keys: Range<usize>,
    scratch: &'a mut [f32],
) -> Rows<'a> {
    let (block, len) = (words.block, keys.len());
    let (scales, rest) = scratch.split_at_mut(block.groups * len);
    let (largest, rest) = rest.split_at_mut(len);
    let (row, rest) = rest.split_at_mut(len);
    let stored = &words.words[block.words()..];
    for (group, scales) in scales.chunks_exact_mut(len).enumerate() {
        let first = group * words.tokens + keys.start;
        for (v, (to, largest)) in
            vectors_mut(lanes, scales).iter_mut().zip(vectors_mut(lanes, largest)).enumerate()
        {
            let scale = S::scales(lanes, stored, first + v * D::WIDTH);
            *to = scale.raw();
            *largest = if group == 0 { scale } else { scale.max(F32::from_raw(lanes, *largest)) }.raw();
        }
    }
    let stride = rounded_row(block, len);
    for (r, to) in rest.chunks_exact_mut(stride).take(weights.rows).enumerate() {
        let weights = &weights.numbers[r * weights.stride + keys.start..][..len];
        let (scale, words) = to.split_last_mut().expect("a row has a scale");
        let words = bytemuck::cast_slice_mut(words);
        *scale = bytes::quantise_weights(lanes, weights, [largest, scales], row, words);
    }
    Rows {
        words: bytemuck::cast_slice(rest),
        stride,
        second: len / WORD,
        beside: stride - 1,
        rows: weights.rows,
        depth: 0,
    }
}

struct IntegerTiles<'a, S, const N: usize> {
    a: Rows<'a>,
    panels: Panels<'a>,
    /// Of keys.
    groups: Option<Groups<'a>>,
    stored: PhantomData<S>,
}

impl<D: Door, S: Stored<N>, const N: usize> Tiles<D> for IntegerTiles<'_, S, N> {
    /// Rows have two broadcasts for each load of the panels: no more of them, as loads bind then.
    const ROWS: usize = 4;

    const VECTORS: [usize; 4] = match (D::TILE > 4, D::HAS_BYTES) {
        (true, _) => [4, 4, 2, 2],
        // Of bytes a row has two sums.
        (false, true) => [2, 2, 1, 1],
        (false, false) => [2, 2, 2, 1],
    };

    const UNPAIRED: bool = false;

    #[inline(always)]
    fn tile<A: Ask, const R: usize, const U: usize, const W: usize>(
        &self,
        lanes: D,
        (tile, first): (RowTile, usize),
        next: Option<Next>,
        write: Write<'_>,
    ) {
        let &Self { a, panels, groups, .. } = self;
        let a = Rows { words: &a.words[tile.first * a.stride..], rows: tile.rows, ..a };
        let kind = PhantomData;
        lanes.call_dots(ByteTile::<D, S, A, N, R, U, W> {
            lanes,
            a,
            panels,
            groups,
            first,
            next,
            write,
            kind,
        });
    }
}
