//! Products of a few rows with cached keys and values.
//!
//! Where queries are few, what counts is that each cached byte is read once and in order. Lanes are keys in scores and
//! channels in outputs, as `regard_ir::cache` lays them out, so that one query alone fills the vectors; rows, pairs of query
//! head and query, are broadcast. Floats are widened as they are loaded, or multiplied in pairs; of integers four are
//! multiplied at once, or two where a set has no products of bytes, with rows that are rounded to 16 bits.

mod ahead;
mod bytes;
mod columns;
mod floats;
mod inner;
mod integers;
mod load;
mod repack;
mod rows;
mod single;
mod store;
mod tile;
mod turn;

use regard_ir::cache::{Block, Codec};
use regard_simd::Prefetch;

use self::ahead::{Ask, IntoFirst, IntoSecond, Next, Pace, Stream};
use self::load::Step;
use self::rows::RowTile;
use self::tile::{Panels, Write};
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

/// The numbers of blocks of pages that lie one after the other, and what is read after them.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    /// How those of a page lie.
    pub block: &'a Block,
    /// Tokens of a page.
    pub tokens: usize,
    /// How many pages: one, or some where [`is_of_runs`] says so.
    pub pages: usize,
    /// Whether bf16 is multiplied in pairs.
    pub pairs: bool,
    /// The blocks with their scales and what else is between them, as many words of each page.
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

/// Weights of some rows over pages.
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
    /// Those of so many pages from one on, after which the next ones are read.
    #[inline(always)]
    fn part(&self, first: usize, pages: usize) -> Self {
        let len = self.words.len() / self.pages;
        let (words, then) = self.words[first * len..].split_at(pages * len);
        let ahead = match first + pages < self.pages {
            true => self.ahead.map(|_| Ahead::block(&then[..len], self.block)),
            false => self.ahead,
        };
        Self { pages, words, ahead, ..*self }
    }

    /// The lines of the numbers of the first page.
    #[inline(always)]
    fn steps(&self) -> &'a [Step] {
        self.words[..self.block.words()].as_chunks().0
    }

    /// Where tiles ask that go over the first panels of the last page, and all of those before it.
    #[inline(always)]
    fn stream<D: Door>(&self, lanes: D, panels: usize, pace: Pace) -> Option<Stream<'a>> {
        let before = self.words.len() / self.pages * (self.pages - 1) / LANES;
        let lines = &self.words.as_chunks().0[..before + panels * self.block.depth];
        Stream::new(lanes.prefetches(), (lines, self.words), self.ahead?, pace)
    }

    /// The panels that tiles go over together, of so many from the first on: so many pairs whose lines take turns, or all that do not.
    #[inline(always)]
    fn side(&self, first: usize, panels: usize, pairs: usize) -> Side<'a> {
        let block = self.block;
        let (turns, there) = (block.in_turns(first), panels - first);
        let count = match (block.paired, turns) {
            (false, _) => there,
            (true, 1) => 1,
            (true, _) => there.min(2 * pairs).min((block.panels - first) & !1),
        };
        Side { lines: &self.steps()[first * block.depth..], apart: block.depth, turns, count }
    }

    /// Asks for the lines of what is read next that tiles do not ask for.
    #[inline(always)]
    fn ask_for_rest<D: Door>(&self, lanes: D) {
        if let Some(ahead) = &self.ahead {
            ahead.ask_for_rest(lanes);
        }
    }
}

/// Whether pages of such blocks that lie one after the other are read in one call. Where there are scales between them they are not:
/// it takes no less time.
pub const fn is_of_runs(block: &Block) -> bool {
    block.groups == 0
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

/// `scores[r][k] = Σ_c query[r][c] · key[k][c]` for the first `count` keys of pages, of which the last has some, floats in chains of
/// so many channels.
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
    debug_assert!(words.pages == 1 || is_of_runs(words.block), "pages that are read one by one");
    words.ask_for_rest(lanes);
    match words.block.codec {
        Codec::F32 | Codec::F16 | Codec::Bf16 => {
            floats::scores(lanes, words, (queries, rows), (chain, count), target);
        }
        Codec::Int8 | Codec::Int4 => integers::scores(lanes, words, (queries, rows), count, target),
    }
}

/// `outputs[r][c] (+)= Σ_k weights[r][k] · value[k][c]` over the keys of pages, of which the last has some, in chains of so many keys of
/// a page.
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
    debug_assert!(words.pages == 1 || is_of_runs(words.block), "pages that are read one by one");
    words.ask_for_rest(lanes);
    match words.block.codec {
        Codec::F32 | Codec::F16 | Codec::Bf16 => {
            floats::outputs(lanes, words, weights, scratch, before, target);
        }
        Codec::Int8 | Codec::Int4 => integers::outputs(lanes, words, weights, scratch, before, target),
    }
}

/// Numbers of memory that [`outputs`] works in, for so many rows, of so many values at most, in chains of so many keys, whole panels.
pub const fn scratch_len((block, count): (&Block, usize), rows: usize, chain: usize) -> usize {
    match block.codec {
        // Weights in words of two.
        Codec::Bf16 => rows * count / 2,
        Codec::F32 | Codec::F16 => 0,
        Codec::Int8 | Codec::Int4 => integers::scratch_len(block, rows, chain),
    }
}

/// Panels that tiles go over together.
#[derive(Clone, Copy)]
struct Side<'a> {
    /// From the first line of the first on.
    lines: &'a [Step],
    /// Lines of each.
    apart: usize,
    /// How many take turns, line by line.
    turns: usize,
    /// How many are read.
    count: usize,
}

impl<'a> Side<'a> {
    /// The same from a line of each on.
    #[inline(always)]
    fn from(&self, line: usize) -> Panels<'a> {
        Panels { lines: &self.lines[line * self.turns..], apart: self.apart }
    }
}

/// A product of some rows with so many lines of some panels.
struct Part<'a> {
    /// Rows of the product.
    rows: usize,
    side: Side<'a>,
    depth: usize,
    before: Before<'a>,
}

/// Something that is done with a row tile and some vectors of lanes, `R` by `U`.
trait Tiles<D: Door> {
    /// The most rows of a tile, a power of two up to 8.
    const ROWS: usize;

    /// Vectors of a tile of 1, 2, 4 and 8 rows: as many as leave each sum in a register.
    const VECTORS: [usize; 4];

    /// Whether there are blocks whose panels do not lie in pairs.
    const UNPAIRED: bool;

    /// Vectors from number `first` on, of panels of which `W` take turns, which ask for lines as told.
    fn tile<A: Ask, const R: usize, const U: usize, const W: usize>(
        &self,
        lanes: D,
        at: (RowTile, usize),
        next: Option<Next>,
        write: Write<'_>,
    );
}

/// Vectors that all rows are taken over before the next: so few that they stay near, whatever else is read.
const STRIP: usize = 4;

/// Whether tiles of several rows take a panel alone: vectors are so short that a pair of panels has more of them than a tile.
const fn are_alone<D: Door>() -> bool {
    D::WIDTH < LANES
}

/// Takes all rows and vectors of lanes of a part in tiles: whole row tiles over as few vectors as they have, so that these are
/// still near for the next, then what is left of the rows.
#[inline(always)]
fn in_tiles<D: Door, T: Tiles<D>>(
    lanes: D,
    part: &Part<'_>,
    target: Target<'_>,
    tiles: &T,
    stream: &mut Option<Stream<'_>>,
) {
    let most = T::ROWS;
    let vectors = part.side.count * (LANES / D::WIDTH);
    let whole = part.rows / most * most;
    let rest = RowTile::new(whole, part.rows - whole);
    let mut strip = Strip { lanes, part, target, tiles, stream };
    for begin in (0..vectors).step_by(STRIP) {
        let end = vectors.min(begin + STRIP);
        let mut first = begin;
        while whole > 0 && first < end {
            let count = at_most(vectors_of::<D, T>(most), end - first);
            for row in (0..whole).step_by(most) {
                strip.tile(RowTile::new(row, most), (first, count), row == 0);
            }
            first += count;
        }
        first = begin;
        while rest.rows > 0 && first < end {
            let count = at_most(vectors_of::<D, T>(rest.width), end - first);
            strip.tile(rest, (first, count), whole == 0);
            first += count;
        }
    }
}

/// Vectors of a tile of so many rows.
const fn vectors_of<D: Door, T: Tiles<D>>(rows: usize) -> usize {
    T::VECTORS[rows.ilog2() as usize]
}

/// Whether [`in_tiles`] takes tiles of so many rows and vectors of panels of which so many take turns. Only such are compiled.
const fn is_taken<D: Door, T: Tiles<D>>(rows: usize, count: usize, turns: usize) -> bool {
    let (most, per_panel) = (vectors_of::<D, T>(rows), LANES / D::WIDTH);
    // Panels are taken whole as far as a tile has vectors, and without a partner one at a time.
    let are_whole = count >= per_panel || count == most;
    let are_together = turns == 2 || T::UNPAIRED || count <= per_panel;
    rows <= T::ROWS && count <= most && are_whole && are_together
}

/// As many as asked for, a power of two, or as many as there are of a smaller one.
const fn at_most(mut count: usize, there: usize) -> usize {
    while count > there {
        count /= 2;
    }
    count
}

/// What [`in_tiles`] goes over.
struct Strip<'a, 's, 't, D, T> {
    lanes: D,
    part: &'a Part<'a>,
    target: Target<'t>,
    tiles: &'a T,
    stream: &'a mut Option<Stream<'s>>,
}

impl<D: Door, T: Tiles<D>> Strip<'_, '_, '_, D, T> {
    /// Takes a row tile over some vectors, and asks for lines if it is the first that does.
    #[inline(always)]
    fn tile(&mut self, tile: RowTile, (first, count): (usize, usize), asks: bool) {
        let &Part { side: Side { turns, .. }, depth, before, .. } = self.part;
        let per_panel = LANES / D::WIDTH;
        // Where several tiles share lines the first one asks.
        let asks = asks && first.is_multiple_of(per_panel);
        let lines = count.div_ceil(per_panel) * depth;
        let next = self.stream.as_mut().filter(|_| asks).and_then(|stream| stream.next(lines));
        let (add, factors) = match before {
            Before::Nothing => (false, None),
            Before::Kept => (true, None),
            Before::Scaled(factors) => (true, Some(&factors[tile.first..])),
        };
        let stride = self.target.stride;
        let write = Write {
            to: &mut self.target.to[tile.first * stride + first * D::WIDTH..],
            stride,
            rows: tile.rows,
            add,
            factors,
        };
        let (lanes, tiles, of) = (self.lanes, self.tiles, (tile, first));
        match lanes.prefetches() {
            Prefetch::IntoFirst => take::<D, T, IntoFirst>(lanes, tiles, of, (count, turns), next, write),
            _ => {
                take::<D, T, IntoSecond>(lanes, tiles, of, (count, turns), next, write);
            }
        }
    }
}

/// Takes a row tile over so many vectors from one on, of panels of which so many take turns.
#[inline(always)]
fn take<D: Door, T: Tiles<D>, A: Ask>(
    lanes: D,
    tiles: &T,
    (tile, first): (RowTile, usize),
    (count, turns): (usize, usize),
    next: Option<Next>,
    write: Write<'_>,
) {
    let at = (tile, first, count);
    match turns {
        1 => of_turns::<D, T, A, 1>(lanes, tiles, at, next, write),
        2 => of_turns::<D, T, A, 2>(lanes, tiles, at, next, write),
        _ => unreachable!("{turns} panels take turns"),
    }
}

/// The same of panels of which `W` take turns.
#[inline(always)]
fn of_turns<D: Door, T: Tiles<D>, A: Ask, const W: usize>(
    lanes: D,
    tiles: &T,
    at: (RowTile, usize, usize),
    next: Option<Next>,
    write: Write<'_>,
) {
    match at.0.width {
        1 => of_rows::<D, T, A, 1, W>(lanes, tiles, at, next, write),
        2 => of_rows::<D, T, A, 2, W>(lanes, tiles, at, next, write),
        4 => of_rows::<D, T, A, 4, W>(lanes, tiles, at, next, write),
        8 => of_rows::<D, T, A, 8, W>(lanes, tiles, at, next, write),
        rows => unreachable!("a tile of {rows} rows"),
    }
}

/// The same of `R` rows.
#[inline(always)]
fn of_rows<D: Door, T: Tiles<D>, A: Ask, const R: usize, const W: usize>(
    lanes: D,
    tiles: &T,
    (tile, first, count): (RowTile, usize, usize),
    next: Option<Next>,
    write: Write<'_>,
) {
    let at = (tile, first);
    match count {
        4 if const { is_taken::<D, T>(R, 4, W) } => tiles.tile::<A, R, 4, W>(lanes, at, next, write),
        2 if const { is_taken::<D, T>(R, 2, W) } => tiles.tile::<A, R, 2, W>(lanes, at, next, write),
        1 if const { is_taken::<D, T>(R, 1, W) } => tiles.tile::<A, R, 1, W>(lanes, at, next, write),
        _ => unreachable!("a tile of {R} rows by {count} vectors, {W} in turns"),
    }
}
