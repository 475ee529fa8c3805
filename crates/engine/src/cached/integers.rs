//! Products with cached integers.

use core::marker::PhantomData;
use core::ops::Range;

use pulp::bytemuck;
use regard_ir::cache::{Block, Codec};
use regard_simd::{F32, vectors_mut};

use super::ahead::{Ask, Course, Soon};
use super::bytes::{self, ByteTile, Bytes, Groups, Nibbles, Rows, Stored};
use super::load::Step;
use super::tile::Write;
use super::{Before, GROUP, LANES, Part, RowTile, Target, Tiles, Weights, Words, cursor, in_tiles};
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

/// See [`super::packed_row`]: the query's upper bytes, its lower ones, its scale, then what sums of either start from in each
/// group of channels.
pub(super) const fn packed_row(block: &Block) -> usize {
    2 * query_words(block) + 1 + 2 * block.groups
}

/// See [`super::pack_query`].
#[inline(always)]
pub(super) fn pack_query<D: Door>(lanes: D, block: &Block, row: &[f32], to: &mut [f32]) {
    let (words, beside) = to.split_at_mut(2 * query_words(block));
    let numbers: &mut [u8] = bytemuck::cast_slice_mut(words);
    let (scale, starts) = beside.split_first_mut().expect("a packed query has a scale");
    *scale = bytes::quantise_query(lanes, row, numbers);
    let bias = if block.codec == Codec::Int4 { Nibbles::KEY_BIAS } else { Bytes::KEY_BIAS };
    let (upper, lower) = numbers.split_at(numbers.len() / 2);
    let group = if block.groups > 1 { GROUP } else { upper.len().max(1) };
    let groups = upper.chunks(group).zip(lower.chunks(group));
    for (starts, (upper, lower)) in starts.as_chunks_mut().0.iter_mut().zip(groups) {
        // What keys are stored with is taken off again.
        let start = |bytes: &[u8]| -bias * bytes.iter().map(|&x| i32::from(x as i8)).sum::<i32>();
        *starts = [upper, lower].map(|bytes| f32::from_bits(start(bytes) as u32));
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
    let numbers = WORD * N;
    let (depth, panels) = (block.channels.div_ceil(numbers), count.div_ceil(LANES));
    let lower = query_words(block);
    let tiles = IntegerTiles::<S, N> {
        a: Rows {
            words: bytemuck::cast_slice(queries),
            stride: packed_row(block),
            lower,
            beside: 2 * lower,
            rows,
            depth,
        },
        panels: words.steps(),
        panel: depth,
        groups: Some(Groups {
            scales: &words.words[block.words..],
            count: block.groups,
            depth: if block.groups > 1 { GROUP / numbers } else { depth },
        }),
        stored: PhantomData,
    };
    let course = Course { lines: &words.steps()[..panels * depth], panel: depth, depth };
    let mut cursor = cursor::<D, IntegerTiles<'_, S, N>>(lanes, course, words.ahead, (rows, panels));
    let part = Part { rows, panels, before: Before::Nothing };
    in_tiles(lanes, &part, target, &tiles, &mut cursor);
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
    let block = words.block;
    let numbers = WORD * N;
    let (panel, panels) = (words.tokens / numbers, block.channels.div_ceil(LANES));
    let group_panels = if block.groups > 1 { GROUP / LANES } else { panels };
    let course = Course { lines: words.steps(), panel, depth: weights.chain.div_ceil(numbers).min(panel) };
    let mut cursor = cursor::<D, IntegerTiles<'_, S, N>>(
        lanes,
        course,
        words.ahead,
        (weights.rows, group_panels.min(panels)),
    );
    for begin in (0..weights.count).step_by(weights.chain) {
        let count = weights.chain.min(weights.count - begin);
        // Weights past the last key are zero, and so are rounded with the others.
        let (depth, len) = (count.div_ceil(numbers), count.next_multiple_of(LANES));
        let rounded = round_weights::<D, S, N>(lanes, &words, &weights, begin..begin + len, scratch);
        for (group, first) in (0..panels).step_by(group_panels.max(1)).enumerate() {
            let panels = group_panels.min(panels - first);
            // Past the bytes of the groups before.
            let at = group * 2 * len / WORD;
            let tiles = IntegerTiles::<S, N> {
                a: Rows { words: &rounded.words[at..], beside: rounded.beside - at, depth, ..rounded },
                panels: &words.steps()[first * panel + begin / numbers..],
                panel,
                groups: None,
                stored: PhantomData,
            };
            let before = if begin == 0 { before } else { Before::Kept };
            let part = Part { rows: weights.rows, panels, before };
            let to = &mut target.to[first * LANES..];
            in_tiles(lanes, &part, Target { to, ..target }, &tiles, &mut cursor);
        }
    }
}

/// Words of a row of rounded weights over so many keys: for each group its upper and its lower bytes, then its scale.
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
    let stored = &words.words[block.words..];
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
        let (scale, bytes) = to.split_last_mut().expect("a row has a scale");
        let bytes = bytemuck::cast_slice_mut(bytes);
        *scale = bytes::quantise_weights(lanes, weights, [largest, scales], row, bytes);
    }
    Rows {
        words: bytemuck::cast_slice(rest),
        stride,
        lower: len / WORD,
        beside: stride - 1,
        rows: weights.rows,
        depth: 0,
    }
}

struct IntegerTiles<'a, S, const N: usize> {
    a: Rows<'a>,
    /// Whole panels, each as deep as `a` or deeper, and how many rows they are apart.
    panels: &'a [Step],
    panel: usize,
    /// Of keys.
    groups: Option<Groups<'a>>,
    stored: PhantomData<S>,
}

impl<D: Door, S: Stored<N>, const N: usize> Tiles<D> for IntegerTiles<'_, S, N> {
    /// Rows have two sums, and two broadcasts for each load of the panels: no more of them, as loads bind then.
    const ROWS: usize = 4;
    const PRODUCTS: usize = 2 * N;

    fn vectors(rows: usize) -> usize {
        let most = if D::TILE > 4 { 4 } else { 2 };
        if rows < 4 { most } else { most / 2 }
    }

    #[inline(always)]
    fn tile<A: Ask, const R: usize, const U: usize>(
        &self,
        lanes: D,
        (tile, first): (RowTile, usize),
        soon: Option<Soon>,
        write: Write<'_>,
    ) {
        let &Self { a, panels, panel, groups, .. } = self;
        let a = Rows { words: &a.words[tile.first * a.stride..], rows: tile.rows, ..a };
        lanes.call_bytes(ByteTile::<D, S, A, N, R, U> {
            lanes,
            a,
            panels,
            panel,
            groups,
            first,
            soon,
            write,
            kind: PhantomData,
        });
    }
}
