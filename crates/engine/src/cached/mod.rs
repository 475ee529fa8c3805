//! Products of a few rows with cached keys and values.
//!
//! Where queries are few, what counts is that each cached byte is read once and in order. Lanes are keys in scores and
//! channels in outputs, as `regard_ir::cache` lays them out, so that one query alone fills the vectors; rows, pairs of query
//! head and query, are broadcast. Floats are widened as they are loaded, or multiplied in pairs; of integers four are
//! multiplied at once, with rows that are rounded to 16 bits, as two bytes.

mod ahead;
mod bytes;
mod columns;
mod floats;
mod inner;
mod integers;
mod load;
mod repack;
mod rows;
mod store;
mod tile;
mod turn;

use core::ops::Range;

use regard_ir::cache::{Block, Codec};
use regard_simd::{F32, vectors_mut};

use self::ahead::{Cursor, FAR, NEAR};
use self::load::Step;
use self::rows::RowTile;
use self::tile::Write;
use crate::isa::Door;

pub use self::ahead::Ahead;
pub use self::columns::{Columns, column_rows, columns, columns_scratch_len, has_columns, turn_columns};
pub use self::inner::{inner_product, inner_products};
pub use self::repack::CachedUnit;
pub(crate) use self::repack::{repack_floats, repack_pairs};
pub use self::store::{
    clear_keys, clear_odd, clear_values, has_odd, is_odd, is_odd_at, mend, mend_keys, read_key,
    read_key_channel, read_value, read_value_channel, sanitise, write_key, write_value,
};

pub use self::turn::{Lane, turn_keys, turn_rows, widen_keys, widen_value, widen_values};

/// Words of a panel's row.
pub const LANES: usize = regard_ir::cache::LANES as usize;

/// Channels that share a scale, where rows have several.
const GROUP: usize = regard_ir::cache::GROUP as usize;

/// The numbers of a page's block, and what is read after them.
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
    /// What is read after it; `None` if the numbers are near already, so that nothing is asked for.
    pub ahead: Option<Ahead<'a>>,
}

/// Rows on their way in and out, `stride` apart.
pub struct Target<'a> {
    /// The first row's first number.
    pub to: &'a mut [f32],
    /// Numbers from one row to the next.
    pub stride: usize,
}

/// Weights of some rows over a page.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// The first row's first weight.
    pub numbers: &'a [f32],
    /// Numbers from one row to the next.
    pub stride: usize,
    /// How many rows.
    pub rows: usize,
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

impl<'a> Words<'a> {
    fn steps(&self) -> &'a [Step] {
        self.words[..self.block.words].as_chunks().0
    }

    /// Asks for the lines of what is read next that tiles do not ask for.
    #[inline(always)]
    fn ask_for_rest<D: Door>(&self, lanes: D) {
        if let Some(ahead) = &self.ahead {
            ahead.ask_for_rest(lanes);
        }
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
/// `queries` are so many rows as [`pack_query`] made them, one after the other; scores of panels that are begun are written to
/// their ends.
#[inline(always)]
pub fn scores<D: Door>(
    lanes: D,
    words: Words<'_>,
    (queries, rows): (&[f32], usize),
    (chain, count): (usize, usize),
    target: Target<'_>,
) {
    words.ask_for_rest(lanes);
    match words.block.codec {
        Codec::F32 | Codec::F16 | Codec::Bf16 => {
            floats::scores(lanes, words, (queries, rows), (chain, count), target);
        }
        Codec::Int8 | Codec::Int4 => integers::scores(lanes, words, (queries, rows), count, target),
    }
}

/// `outputs[r][c] (+)= Σ_k weights[r][k] · value[k][c]` over the keys of a page, in chains of so many keys.
///
/// `scratch` is as long as [`scratch_len`] says; outputs are rows of channels in whole panels.
#[inline(always)]
pub fn outputs<D: Door>(
    lanes: D,
    words: Words<'_>,
    weights: Weights<'_>,
    scratch: &mut [f32],
    before: Before<'_>,
    target: Target<'_>,
) {
    words.ask_for_rest(lanes);
    match words.block.codec {
        Codec::F32 | Codec::F16 | Codec::Bf16 => {
            floats::outputs(lanes, words, weights, scratch, before, target);
        }
        Codec::Int8 | Codec::Int4 => integers::outputs(lanes, words, weights, scratch, before, target),
    }
}

/// Numbers of memory that [`outputs`] works in, for so many rows, of values in pages of so many tokens, in chains of so many keys, whole
/// panels.
pub const fn scratch_len((block, tokens): (&Block, usize), rows: usize, chain: usize) -> usize {
    match block.codec {
        Codec::F32 | Codec::F16 | Codec::Bf16 => rows * tokens / 2,
        Codec::Int8 | Codec::Int4 => integers::scratch_len(block, rows, chain),
    }
}

/// A product of some rows with some panels.
struct Part<'a> {
    /// Rows of the product.
    rows: usize,
    /// How many panels.
    panels: usize,
    before: Before<'a>,
}

/// Which vectors of lanes some tiles go over, counted over the panels, and which chains of sums.
#[derive(Clone)]
struct Over {
    vectors: Range<usize>,
    chains: Range<usize>,
}

/// What a tile is beside its rows.
#[derive(Clone, Copy)]
struct Shape {
    /// Vectors, a power of two.
    vectors: usize,
    /// Chains side by side.
    chains: usize,
}

impl Shape {
    /// The same of no more vectors than there are.
    const fn within(mut self, there: usize) -> Self {
        while self.vectors > there {
            self.vectors /= 2;
        }
        self
    }
}

/// Something that is done with row tiles, vectors of lanes and chains of sums.
trait Tiles<D: Door> {
    /// The most rows of a tile, a power of two up to 8.
    const ROWS: usize;

    /// What tiles of so many rows are, which may be all that there are: as large as leaves each sum in a register.
    fn shape(&self, rows: usize, alone: bool) -> Shape;

    /// Chains of sums.
    fn chains(&self) -> usize;

    /// Lines of a panel in a chain.
    fn depth(&self) -> usize;

    /// Takes rows over vectors and chains, in tiles that ask where they are told.
    fn take(
        &self,
        lanes: D,
        at: (RowTile, Shape),
        over: Over,
        cursor: Option<&mut Cursor<'_>>,
        write: Write<'_>,
    );
}

/// Rows whose products of a line take less time than it takes to come from memory.
const FEW: usize = 4;

/// What the first tiles of [`in_tiles`] are.
#[inline(always)]
fn first_shape<D: Door, T: Tiles<D>>(tiles: &T, part: &Part<'_>) -> Shape {
    let rows = RowTile::new(0, part.rows.min(T::ROWS)).width;
    tiles.shape(rows, part.rows <= T::ROWS).within(part.panels * (LANES / D::WIDTH))
}

/// Where the tiles of [`in_tiles`] ask that go over the lines of a block, each panel of which has so many.
#[inline(always)]
fn cursor<'a, D: Door, T: Tiles<D>>(
    tiles: &T,
    (part, shape): (&Part<'_>, Shape),
    (words, panel): (&Words<'a>, usize),
) -> Option<Cursor<'a>> {
    let ahead = words.ahead?;
    let lines = &words.steps()[..part.panels * panel];
    let tile = shape.vectors.div_ceil(LANES / D::WIDTH) * shape.chains * tiles.depth();
    let near = if part.rows <= FEW { NEAR } else { FAR };
    Some(Cursor::new(lines, ahead, (tile, near)))
}

/// Takes all rows and vectors of lanes of a part in tiles. One row tile takes all vectors and chains at once, several take those of a
/// tile, so that these are still near for the next.
#[inline(always)]
fn in_tiles<D: Door, T: Tiles<D>>(
    lanes: D,
    (part, shape): (&Part<'_>, Shape),
    target: Target<'_>,
    tiles: &T,
    cursor: &mut Option<Cursor<'_>>,
) {
    let (vectors, chains) = (part.panels * (LANES / D::WIDTH), tiles.chains());
    let mut strip = Strip { lanes, target, add: false, tiles, cursor };
    strip.begin(part);
    if part.rows <= T::ROWS {
        strip.take(RowTile::new(0, part.rows), shape, Over { vectors: 0..vectors, chains: 0..chains });
        return;
    }
    for first in (0..vectors).step_by(shape.vectors.max(1)) {
        for chain in (0..chains).step_by(shape.chains) {
            let vectors = first..vectors.min(first + shape.vectors);
            for row in (0..part.rows).step_by(T::ROWS) {
                let tile = RowTile::new(row, T::ROWS.min(part.rows - row));
                let shape = tiles.shape(tile.width, false);
                let over = Over { vectors: vectors.clone(), chains: chain..chain + shape.chains };
                strip.take(tile, shape, over);
            }
        }
    }
}

/// What [`in_tiles`] goes over.
struct Strip<'a, 'c, 't, D, T> {
    lanes: D,
    target: Target<'t>,
    /// Whether there is something to add to.
    add: bool,
    tiles: &'a T,
    cursor: &'a mut Option<Cursor<'c>>,
}

impl<D: Door, T: Tiles<D>> Strip<'_, '_, '_, D, T> {
    /// Multiplies what is there by its factors.
    #[inline(always)]
    fn begin(&mut self, part: &Part<'_>) {
        self.add = !matches!(part.before, Before::Nothing);
        if let Before::Scaled(factors) = part.before {
            for (row, &factor) in factors.iter().enumerate().take(part.rows) {
                let to = &mut self.target.to[row * self.target.stride..][..part.panels * LANES];
                for x in vectors_mut(self.lanes, to) {
                    *x = (F32::from_raw(self.lanes, *x) * F32::splat(self.lanes, factor)).raw();
                }
            }
        }
    }

    /// Takes a row tile over some vectors. The first one asks for lines.
    #[inline(always)]
    fn take(&mut self, tile: RowTile, shape: Shape, over: Over) {
        let (mut first, end) = (over.vectors.start, over.vectors.end);
        while first < end {
            let shape = shape.within(end - first);
            // Some power of two.
            let whole = end - ((end - first) & (shape.vectors - 1));
            let write = Write {
                to: &mut self.target.to[tile.first * self.target.stride..],
                stride: self.target.stride,
                rows: tile.rows,
                add: self.add,
            };
            let cursor = self.cursor.as_mut().filter(|_| tile.first == 0);
            let over = Over { vectors: first..whole, chains: over.chains.clone() };
            self.tiles.take(self.lanes, (tile, shape), over, cursor, write);
            first = whole;
        }
    }
}
