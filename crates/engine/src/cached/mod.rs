//! Products of a few rows with cached keys and values.
//!
//! Where queries are few, what counts is that each cached byte is read once and in order. Lanes are keys in scores and
//! channels in outputs, as `regard_ir::cache` lays them out, so that one query alone fills the vectors; rows, pairs of query
//! head and query, are broadcast. Floats are widened as they are loaded, or multiplied in pairs; of integers four are
//! multiplied at once, with rows that are rounded to 16 bits, as two bytes.

mod bytes;
mod floats;
mod integers;
mod load;
mod repack;
mod rows;
mod store;
mod tile;

use regard_ir::cache::{Block, Codec};

use self::load::Step;
use crate::isa::Door;

pub use self::repack::CachedUnit;
pub(crate) use self::repack::{repack_floats, repack_pairs};
pub use self::rows::{RowTile, row_tiles};
pub use self::store::{
    clear_keys, clear_values, is_odd, read_key, read_value, read_value_channel, sanitise, write_key,
    write_value,
};

/// Words of a panel's row.
pub const LANES: usize = regard_ir::cache::LANES as usize;

/// Channels that share a scale, where rows have several.
const GROUP: usize = regard_ir::cache::GROUP as usize;

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
        self.words[..self.block.words].as_chunks().0
    }

    fn ahead(&self) -> &[Step] {
        self.ahead.as_chunks().0
    }
}

/// Numbers of memory that a packed query of so many channels takes.
pub const fn packed_row(block: &Block) -> usize {
    let numbers = block.codec.numbers() as usize;
    match block.codec {
        Codec::F32 | Codec::F16 | Codec::Bf16 => block.channels.next_multiple_of(numbers),
        Codec::Int8 | Codec::Int4 => integers::packed_row(block),
    }
}

/// Packs a query, as keys of a block are multiplied: bf16 in pairs where that is asked for. `to` is as long as [`packed_row`]
/// says.
#[inline(always)]
pub fn pack_query<D: Door>(lanes: D, (block, pairs): (&Block, bool), row: &[f32], to: &mut [f32]) {
    match block.codec {
        Codec::F32 | Codec::F16 | Codec::Bf16 => {
            floats::pack_query(pairs && block.codec == Codec::Bf16, row, to)
        }
        Codec::Int8 | Codec::Int4 => integers::pack_query(lanes, block, row, to),
    }
}

/// `scores[r][k] = Σ_c query[r][c] · key[k][c]` for the first `count` keys of a page, floats in chains of so many channels.
///
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
    match words.block.codec {
        Codec::F32 | Codec::F16 | Codec::Bf16 => {
            floats::scores(lanes, words, queries, tile, (chain, count), target);
        }
        Codec::Int8 | Codec::Int4 => integers::scores(lanes, words, queries, tile, count, target),
    }
}

/// `outputs[r][c] (+)= Σ_k weights[r][k] · value[k][c]` over the keys of a page, in chains of so many keys.
///
/// `scratch` holds a row tile's weights of a page; outputs are rows of channels in whole panels.
#[inline(always)]
pub fn outputs<D: Door>(
    lanes: D,
    words: Words<'_>,
    weights: (RowTile, Weights<'_>),
    scratch: &mut [f32],
    before: Before<'_>,
    target: Target<'_>,
) {
    match words.block.codec {
        Codec::F32 | Codec::F16 | Codec::Bf16 => {
            floats::outputs(lanes, words, weights, scratch, before, target);
        }
        Codec::Int8 | Codec::Int4 => integers::outputs(lanes, words, weights, scratch, before, target),
    }
}

/// Numbers of memory that [`outputs`] works in, for row tiles of so many rows and pages of so many tokens.
pub const fn scratch_len(rows: usize, tokens: usize) -> usize {
    // Of every row its numbers, or as words of two bytes each half as many; and one row of numbers on their way there.
    (rows + 1) * tokens
}

/// A product of a row tile with some panels.
struct Part<'a, A> {
    /// The rows.
    a: A,
    /// The panels, each as deep as `a` or deeper, and how many rows they are apart.
    panels: &'a [Step],
    panel: usize,
    /// How many panels.
    count: usize,
    /// Lines that are asked for before they are needed.
    ahead: &'a [Step],
    /// What each lane of all panels is multiplied by.
    scales: Option<&'a [f32]>,
    before: Before<'a>,
}

/// Something that is done with some vectors of lanes of a [`Part`], `U` at a time.
trait Tiles<D: Door> {
    /// Vectors from number `first` on, whose lines ahead and place in the target are given.
    fn tile<const U: usize>(&self, lanes: D, first: usize, ahead: &[Step], write: tile::Write<'_>);
}

/// Takes all vectors of lanes of a part, which has `depth` rows of panels, in tiles of `U`, and the rest one by one.
#[inline(always)]
fn in_tiles<D: Door, A, const U: usize>(
    lanes: D,
    part: &Part<'_, A>,
    (rows, depth): (usize, usize),
    target: Target<'_>,
    tiles: &impl Tiles<D>,
) {
    let per_panel = LANES / D::WIDTH;
    let vectors = part.count * per_panel;
    let (add, factors) = match part.before {
        Before::Nothing => (false, None),
        Before::Kept => (true, None),
        Before::Scaled(factors) => (true, Some(factors)),
    };
    let mut ahead = part.ahead;
    let mut first = 0;
    while first < vectors {
        let wide = first + U <= vectors;
        let count = if wide { U } else { 1 };
        let lines = (first..first + count).filter(|u| u.is_multiple_of(per_panel)).count() * depth;
        let (now, later) = ahead.split_at(lines.min(ahead.len()));
        ahead = later;
        let write = tile::Write {
            to: &mut target.to[first * D::WIDTH..],
            stride: target.stride,
            rows,
            scales: part.scales.map(|scales| &scales[first * D::WIDTH..][..count * D::WIDTH]),
            add,
            factors,
        };
        if wide {
            tiles.tile::<U>(lanes, first, now, write);
        } else {
            tiles.tile::<1>(lanes, first, now, write);
        }
        first += count;
    }
}

/// Calls a function for the rows and vectors of the tile that an instruction set's registers hold: `R` and `U`.
macro_rules! for_width {
    ($width:expr, $door:ident, $function:ident[$($param:ident),*]($($argument:expr),*)) => {
        match ($width, $door::TILE > 4) {
            (1, true) => $function::<$($param,)* 1, 4>($($argument),*),
            (2, true) => $function::<$($param,)* 2, 4>($($argument),*),
            (4, true) => $function::<$($param,)* 4, 4>($($argument),*),
            (8, true) => $function::<$($param,)* 8, 2>($($argument),*),
            (1, false) => $function::<$($param,)* 1, 2>($($argument),*),
            (2, false) => $function::<$($param,)* 2, 2>($($argument),*),
            (4, false) => $function::<$($param,)* 4, 2>($($argument),*),
            (width, _) => panic!("a row tile has 1, 2, 4 or 8 rows, not {width}"),
        }
    };
}
use for_width;
