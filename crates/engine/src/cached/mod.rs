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

use self::load::{Bytes, Floats, Halves, Nibbles, Pairs, Step, Stored};
use self::tile::{Tile, Write};
use crate::isa::Door;

pub use self::rows::{RowTile, row_tiles};
pub use self::store::{is_odd, read_key, read_value, sanitise, write_key, write_value};

/// Words of a panel's row.
pub const LANES: usize = regard_ir::cache::LANES as usize;

/// Calls a function with the type that stands for a codec, and how many numbers its words have.
macro_rules! with_codec {
    ($codec:expr, $function:ident::<$($param:ident),*>($($argument:expr),*)) => {
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

/// The numbers of a page's block, and those of the one that will be read next.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    /// How they lie.
    pub block: &'a Block,
    /// Tokens of the page.
    pub tokens: usize,
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

/// Numbers of a packed row of `channels`, whole words.
pub const fn packed_row(codec: Codec, channels: usize) -> usize {
    channels.next_multiple_of(codec.numbers() as usize)
}

/// Packs a row tile of queries, rows of `channels` floats at `stride`, as words of `codec` are multiplied:
/// `[channels / numbers, rounded up][rows][numbers]`. Rows that are missing are zero.
pub fn pack_rows(codec: Codec, tile: RowTile, from: &[f32], channels: usize, to: &mut [f32]) {
    let numbers = codec.numbers() as usize;
    to.fill(0.0);
    for (r, row) in from.chunks(channels).take(tile.rows).enumerate() {
        for (c, &x) in row.iter().enumerate() {
            to[(c / numbers * tile.width + r) * numbers + c % numbers] = x;
        }
    }
}

/// `scores[r][k] = Σ_c query[r][c] · key[k][c]` for the first `count` keys of a page, in chains of so many channels.
/// `query` is as [`pack_rows`] made it; scores of panels that are begun are written to their ends.
#[inline(always)]
pub fn scores<D: Door>(
    lanes: D,
    words: Words<'_>,
    query: &[f32],
    tile: RowTile,
    (chain, count): (usize, usize),
    target: Target<'_>,
) {
    with_codec!(words.block.codec, scores_of::<D>(lanes, words, query, tile, (chain, count), target))
}

#[inline(always)]
fn scores_of<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    words: Words<'_>,
    query: &[f32],
    tile: RowTile,
    (chain, count): (usize, usize),
    target: Target<'_>,
) {
    let block = words.block;
    let depth = block.channels.div_ceil(N);
    // Each chain starts from zero and is added to those before it. A group of channels with a scale of its own is one.
    let chain = match block.groups {
        0 | 1 => chain.div_ceil(N),
        _ => regard_ir::cache::GROUP as usize / N,
    };
    let vectors = count.div_ceil(LANES) * (LANES / D::WIDTH);
    let panels = words.steps();
    let mut ahead = words.ahead();
    let chains = query.chunks(chain * tile.width * N).enumerate();
    for (i, query) in chains {
        let (begin, deep) = (i * chain, query.len() / (tile.width * N));
        let scales = match block.groups {
            0 => None,
            groups => Some((words.scales(), if groups == 1 { 0 } else { i }, groups)),
        };
        let part = Part {
            rows: tile.rows,
            a: query,
            panels: &panels[begin..],
            panel: depth,
            vectors,
            ahead,
            scales: scales.map(|(scales, group, groups)| Scales { scales, group, groups }),
            before: if i == 0 { Before::Nothing } else { Before::Kept },
        };
        ahead = &ahead[(deep * vectors.div_ceil(LANES / D::WIDTH)).min(ahead.len())..];
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
    with_codec!(words.block.codec, outputs_of::<D>(lanes, words, (tile, weights), scratch, before, target))
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
    let depth = words.tokens / N;
    let all_panels = block.channels.div_ceil(LANES);
    let group_panels = if block.groups > 1 { regard_ir::cache::GROUP as usize / LANES } else { all_panels };
    let scratch = &mut scratch[..weights.count.div_ceil(N) * tile.width * N];
    let panels = words.steps();
    let mut ahead = words.ahead();
    for first in (0..all_panels).step_by(group_panels.max(1)) {
        let count = group_panels.min(all_panels - first);
        let group = first / group_panels;
        let scales = (block.groups > 0).then(|| &words.scales()[group * words.tokens..][..words.tokens]);
        interleave::<N>(weights, tile, scales, scratch);
        for (i, a) in scratch.chunks(weights.chain.div_ceil(N) * tile.width * N).enumerate() {
            let deep = a.len() / (tile.width * N);
            let part = Part {
                rows: tile.rows,
                a,
                panels: &panels[first * depth + i * weights.chain.div_ceil(N)..],
                panel: depth,
                vectors: count * (LANES / D::WIDTH),
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

/// Brings rows of weights, each multiplied by its token's scale, in the order in which they are broadcast:
/// `[tokens / N][width][N]`.
#[inline(always)]
fn interleave<const N: usize>(weights: Weights<'_>, tile: RowTile, scales: Option<&[f32]>, to: &mut [f32]) {
    let tokens = to.len() / tile.width;
    for r in 0..tile.width {
        let row = &weights.rows[r.min(tile.rows - 1) * weights.stride..][..tokens];
        let places = to.as_chunks_mut::<N>().0[r..].iter_mut().step_by(tile.width);
        for (i, (to, from)) in places.zip(row.as_chunks::<N>().0).enumerate() {
            *to = *from;
            if let Some(scales) = scales {
                for (to, scale) in to.iter_mut().zip(&scales[i * N..]) {
                    *to *= scale;
                }
            }
        }
    }
}

/// Scales of the lanes of panels of keys: `[tokens / 16][groups][16]`.
#[derive(Clone, Copy)]
struct Scales<'a> {
    scales: &'a [f32],
    group: usize,
    groups: usize,
}

/// A product over some rows of all panels.
struct Part<'a> {
    /// Rows that are written.
    rows: usize,
    a: &'a [f32],
    panels: &'a [Step],
    panel: usize,
    vectors: usize,
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
    let mut first = 0;
    while first + U <= part.vectors {
        one::<D, S, N, R, U>(lanes, &mut part, first, &mut target);
        first += U;
    }
    while first < part.vectors {
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
    let a = part.a.as_chunks::<N>().0.as_chunks::<R>().0;
    let per_panel = LANES / D::WIDTH;
    // Scales of neighbouring panels lie apart where rows have several groups: then each panel's are taken by itself.
    let at = |first: usize, scales: Scales<'_>| {
        (first / per_panel * scales.groups + scales.group) * LANES + first % per_panel * D::WIDTH
    };
    let (add, factors) = match part.before {
        Before::Nothing => (false, None),
        Before::Kept => (true, None),
        Before::Scaled(factors) => (true, Some(factors)),
    };
    let mut gathered = [0.0f32; 4 * LANES];
    let scales = part.scales.map(|scales| {
        for u in 0..U {
            gathered[u * D::WIDTH..][..D::WIDTH]
                .copy_from_slice(&scales.scales[at(first + u, scales)..][..D::WIDTH]);
        }
        &gathered[..]
    });
    let write = Write {
        to: &mut target.to[first * D::WIDTH..],
        stride: target.stride,
        rows: part.rows,
        scales,
        add,
        factors,
    };
    let lines = (0..U).filter(|u| (first + u).is_multiple_of(per_panel)).count() * a.len();
    let ahead = &part.ahead[..lines.min(part.ahead.len())];
    part.ahead = &part.ahead[ahead.len()..];
    lanes.call(Tile::<D, S, N, R, U> {
        lanes,
        a,
        panels: part.panels,
        panel: part.panel,
        first,
        ahead,
        write,
        stored: PhantomData,
    });
}
