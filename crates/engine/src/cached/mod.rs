//! Products of a few rows with cached keys and values.
//!
//! Where queries are few, what counts is that each cached byte is read once and in order. Lanes are keys in scores and
//! channels in outputs, as `regard_ir::cache` lays them out, so that one query alone fills the vectors; rows, pairs of query
//! head and query, are broadcast. Numbers are widened to f32 as they are loaded.

mod load;
mod rows;
mod store;
mod tile;

use core::marker::PhantomData;

use pulp::bytemuck;
use regard_ir::cache::{Block, Codec};

use self::load::{Bytes, Dots, Floats, Halves, Nibbles, Pairs, Step, Stored};
use self::tile::{Operand, Tile, Write};
use crate::isa::Door;

pub use self::rows::{RowTile, row_tiles};
pub use self::store::{is_odd, read_key, read_value, sanitise, write_key, write_value};

/// Words of a panel's row.
pub const LANES: usize = regard_ir::cache::LANES as usize;

/// Channels that share a scale.
const GROUP: usize = regard_ir::cache::GROUP as usize;

/// Calls a function with the type that stands for a codec, and how many numbers its words have.
macro_rules! with_codec {
    ($codec:expr, $function:ident[$($param:ident),*]($($argument:expr),*)) => {
        match $codec {
            Codec::F32 => $function::<$($param,)* Floats, 1>($($argument),*),
            Codec::F16 => $function::<$($param,)* Halves, 2>($($argument),*),
            Codec::Bf16 => $function::<$($param,)* Pairs, 2>($($argument),*),
            Codec::Int8 => $function::<$($param,)* Bytes, 4>($($argument),*),
            Codec::Int4 => $function::<$($param,)* Nibbles, 8>($($argument),*),
        }
    };
}
pub(crate) use with_codec;

/// As [`with_codec`], with the type that multiplies in pairs where that is asked for.
macro_rules! with_product {
    ($words:expr, $function:ident[$param:ident]($($argument:expr),*)) => {
        match ($words.block.codec, $words.pairs) {
            (Codec::Bf16, true) => $function::<$param, Dots, 1>($($argument),*),
            (codec, _) => with_codec!(codec, $function[$param]($($argument),*)),
        }
    };
}

/// The numbers of a page's block, and those of the one that will be read next.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    /// How they lie.
    pub block: &'a Block,
    /// Tokens of the page.
    pub tokens: usize,
    /// Whether bf16 is multiplied in pairs.
    pub pairs: bool,
    /// The block with its scales.
    pub words: &'a [u32],
    /// What is read after it; empty where nothing is.
    pub ahead: &'a [u32],
}

/// Rows on their way in and out, `stride` apart.
pub struct Target<'a> {
    /// The first row's first number.
    pub to: &'a mut [f32],
    /// Numbers from one row to the next.
    pub stride: usize,
}

/// Weights of a row tile over a page.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// The first row's first weight.
    pub rows: &'a [f32],
    /// Numbers from one row to the next.
    pub stride: usize,
    /// Keys that there are; weights past them, up to a whole panel, are zero.
    pub count: usize,
    /// Keys whose products are one chain of sums.
    pub chain: usize,
}

/// What becomes of outputs so far.
#[derive(Clone, Copy)]
pub enum Before<'a> {
    /// There are none.
    Nothing,
    /// They stay.
    Kept,
    /// Each row is multiplied by its factor, a power of two.
    Scaled(&'a [f32]),
}

impl Words<'_> {
    fn steps(&self) -> &[Step] {
        bytemuck::cast_slice(&self.words[..self.block.words])
    }

    fn ahead(&self) -> &[Step] {
        self.ahead.as_chunks().0
    }

    fn scales(&self) -> &[f32] {
        bytemuck::cast_slice(&self.words[self.block.words..][..self.block.groups * self.tokens])
    }
}

/// Numbers of a packed query of so many channels.
pub const fn packed_row(codec: Codec, channels: usize) -> usize {
    channels.next_multiple_of(codec.numbers() as usize)
}

/// Packs a query, as keys of `codec` are multiplied. `to` is as long as [`packed_row`] says.
#[inline(always)]
pub fn pack_query<D: Door>(lanes: D, (codec, pairs): (Codec, bool), row: &[f32], to: &mut [f32]) {
    let (there, missing) = to.split_at_mut(row.len());
    there.copy_from_slice(row);
    missing.fill(0.0);
    if pairs && codec == Codec::Bf16 {
        pair_in_place(lanes, to);
    }
}

/// Rewrites pairs of neighbours as words of two bf16 in the first half.
#[inline(always)]
fn pair_in_place<D: Door>(_: D, numbers: &mut [f32]) {
    for i in 0..numbers.len() / 2 {
        numbers[i] = pair(numbers[2 * i], numbers[2 * i + 1]);
    }
}

/// A word of two numbers, each rounded to the nearest bf16, halves away from zero.
#[inline(always)]
fn pair(first: f32, second: f32) -> f32 {
    let round = |x: f32| x.to_bits().wrapping_add(0x8000);
    f32::from_bits(round(first) >> 16 | round(second) & 0xffff_0000)
}

/// `scores[r][k] = Σ_c query[r][c] · key[k][c]` for the first `count` keys of a page, in chains of so many channels.
/// `queries` are the tile's rows as [`pack_query`] made them, one after the other; scores of panels that are begun are written
/// to their ends.
#[inline(always)]
pub fn scores<D: Door>(
    lanes: D,
    words: Words<'_>,
    queries: &[f32],
    tile: RowTile,
    (chain, count): (usize, usize),
    target: Target<'_>,
) {
    with_product!(words, scores_of[D](lanes, words, queries, tile, (chain, count), target))
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
    let depth = block.channels.div_ceil(S::NUMBERS);
    // Each chain starts from zero and is added to those before it. A group of channels with a scale of its own is one.
    let chain = if block.groups > 1 { GROUP / S::NUMBERS } else { chain.div_ceil(S::NUMBERS) };
    let panels = count.div_ceil(LANES);
    let stride = packed_row(block.codec, block.channels);
    let queries = Operand { numbers: queries, stride, rows: tile.rows, depth };
    let mut ahead = words.ahead();
    for (i, begin) in (0..depth).step_by(chain).enumerate() {
        let deep = chain.min(depth - begin);
        let group = if block.groups > 1 { i } else { 0 };
        let part = Part {
            a: queries.part::<N>(begin, deep),
            panels: &words.steps()[begin..],
            panel: depth,
            count: panels,
            ahead,
            scales: (block.groups > 0).then(|| Scales { all: words.scales(), group, groups: block.groups }),
            before: if i == 0 { Before::Nothing } else { Before::Kept },
        };
        ahead = &ahead[(deep * panels).min(ahead.len())..];
        multiply::<D, S, N>(lanes, tile.width, part, Target { to: target.to, stride: target.stride });
    }
}

/// `outputs[r][c] (+)= Σ_k weights[r][k] · value[k][c]` over the keys of a page, in chains of so many keys.
///
/// `scratch` holds a row tile's weights of a page; outputs are rows of channels in whole panels.
#[inline(always)]
pub fn outputs<D: Door>(
    lanes: D,
    words: Words<'_>,
    (tile, weights): (RowTile, Weights<'_>),
    scratch: &mut [f32],
    before: Before<'_>,
    target: Target<'_>,
) {
    with_product!(words, outputs_of[D](lanes, words, (tile, weights), scratch, before, target))
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
    let depth = words.tokens / S::NUMBERS;
    let (all_panels, chain) = (block.channels.div_ceil(LANES), weights.chain.div_ceil(S::NUMBERS));
    let group_panels = if block.groups > 1 { GROUP / LANES } else { all_panels };
    let mut ahead = words.ahead();
    for (group, first) in (0..all_panels).step_by(group_panels.max(1)).enumerate() {
        let count = group_panels.min(all_panels - first);
        let scales = (block.groups > 0).then(|| &words.scales()[group * words.tokens..][..words.tokens]);
        let weights = operand::<D, S, N>(lanes, weights, tile, scales, scratch);
        for (i, begin) in (0..weights.depth).step_by(chain).enumerate() {
            let deep = chain.min(weights.depth - begin);
            let part = Part {
                a: weights.part::<N>(begin, deep),
                panels: &words.steps()[first * depth + begin..],
                panel: depth,
                count,
                ahead,
                scales: None,
                before: if i == 0 { before } else { Before::Kept },
            };
            ahead = &ahead[(deep * count).min(ahead.len())..];
            let to = &mut target.to[first * LANES..];
            multiply::<D, S, N>(lanes, tile.width, part, Target { to, stride: target.stride });
        }
    }
}

/// Weights as they are multiplied: each by its token's scale, or as words of two; made in `scratch` where they must change.
#[inline(always)]
fn operand<'a, D: Door, S: Stored<N>, const N: usize>(
    _: D,
    weights: Weights<'a>,
    tile: RowTile,
    scales: Option<&[f32]>,
    scratch: &'a mut [f32],
) -> Operand<'a> {
    let Weights { rows: numbers, stride, count, .. } = weights;
    let (rows, depth) = (tile.rows, count.div_ceil(S::NUMBERS));
    if S::NUMBERS != N {
        for r in 0..rows {
            let to = &mut scratch[r * depth..][..depth];
            let from = &numbers[r * stride..][..2 * depth];
            for (to, [first, second]) in to.iter_mut().zip(from.as_chunks().0) {
                *to = pair(*first, *second);
            }
        }
        return Operand { numbers: scratch, stride: depth, rows, depth };
    }
    let Some(scales) = scales else { return Operand { numbers, stride, rows, depth } };
    for r in 0..rows {
        let to = &mut scratch[r * depth * N..][..depth * N];
        let from = &numbers[r * stride..][..depth * N];
        for ((to, x), scale) in to.iter_mut().zip(from).zip(&scales[..depth * N]) {
            *to = x * scale;
        }
    }
    Operand { numbers: scratch, stride: depth * N, rows, depth }
}

/// Scales of the lanes of panels of keys: `[tokens / 16][groups][16]`.
#[derive(Clone, Copy)]
struct Scales<'a> {
    all: &'a [f32],
    group: usize,
    groups: usize,
}

/// A product over some rows of all panels.
struct Part<'a> {
    a: Operand<'a>,
    panels: &'a [Step],
    panel: usize,
    /// How many panels.
    count: usize,
    ahead: &'a [Step],
    scales: Option<Scales<'a>>,
    before: Before<'a>,
}

/// Takes the vectors of lanes tile by tile.
#[inline(always)]
fn multiply<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    width: usize,
    part: Part<'_>,
    target: Target<'_>,
) {
    match (width, D::TILE > 4) {
        (1, true) => tiles::<D, S, N, 1, 4>(lanes, part, target),
        (2, true) => tiles::<D, S, N, 2, 4>(lanes, part, target),
        (4, true) => tiles::<D, S, N, 4, 4>(lanes, part, target),
        (8, true) => tiles::<D, S, N, 8, 2>(lanes, part, target),
        (1, false) => tiles::<D, S, N, 1, 2>(lanes, part, target),
        (2, false) => tiles::<D, S, N, 2, 2>(lanes, part, target),
        (4, false) => tiles::<D, S, N, 4, 2>(lanes, part, target),
        _ => panic!("a row tile has 1, 2, 4 or 8 rows, not {width}"),
    }
}

#[inline(always)]
fn tiles<D: Door, S: Stored<N>, const N: usize, const R: usize, const U: usize>(
    lanes: D,
    mut part: Part<'_>,
    mut target: Target<'_>,
) {
    let vectors = part.count * (LANES / D::WIDTH);
    let mut first = 0;
    while first + U <= vectors {
        one::<D, S, N, R, U>(lanes, &mut part, first, &mut target);
        first += U;
    }
    while first < vectors {
        one::<D, S, N, R, 1>(lanes, &mut part, first, &mut target);
        first += 1;
    }
}

#[inline(always)]
fn one<D: Door, S: Stored<N>, const N: usize, const R: usize, const U: usize>(
    lanes: D,
    part: &mut Part<'_>,
    first: usize,
    target: &mut Target<'_>,
) {
    let per_panel = LANES / D::WIDTH;
    let (add, factors) = match part.before {
        Before::Nothing => (false, None),
        Before::Kept => (true, None),
        Before::Scaled(factors) => (true, Some(factors)),
    };
    // Scales of neighbouring panels may lie apart.
    let mut gathered = [0.0f32; 4 * LANES];
    let gathered = &mut gathered[..U * D::WIDTH];
    if let Some(Scales { all, group, groups }) = part.scales {
        for (u, to) in gathered.chunks_exact_mut(D::WIDTH).enumerate() {
            let (panel, vector) = ((first + u) / per_panel, (first + u) % per_panel);
            to.copy_from_slice(&all[(panel * groups + group) * LANES + vector * D::WIDTH..][..D::WIDTH]);
        }
    }
    let to = &mut target.to[first * D::WIDTH..];
    let scales = part.scales.map(|_| &*gathered);
    let write = Write { to, stride: target.stride, rows: part.a.rows, scales, add, factors };
    let lines = (0..U).filter(|u| (first + u).is_multiple_of(per_panel)).count() * part.a.depth;
    let (ahead, rest) = part.ahead.split_at(lines.min(part.ahead.len()));
    part.ahead = rest;
    lanes.call(Tile::<D, S, N, R, U> {
        lanes,
        a: part.a,
        panels: part.panels,
        panel: part.panel,
        first,
        ahead,
        write,
        stored: PhantomData,
    });
}
