//! Which tiles of a mask are live, found by recursive halving.
//!
//! A box of pairs is classified by the interval reading of the mask; only a box that is neither dead nor full is
//! cut in two. So the cost follows the boundary of what is live: a causal mask of a million queries by a million
//! keys is settled without a look at most of it, and no table of tiles is ever made.

use core::ops::Range;

use crate::expr::Tree;
use crate::interval::{self, InputRanges, Liveness, Region, Span};

/// What `allow` is over a whole region. An empty region is dead.
pub fn liveness(allow: Tree<'_>, region: &Region, inputs: &dyn InputRanges) -> Liveness {
    if region.is_empty() {
        return Liveness::Dead;
    }
    match interval::eval(allow, region, inputs) {
        interval::Range::Bool { can_be_false: true, can_be_true: false } => Liveness::Dead,
        interval::Range::Bool { can_be_false: false, can_be_true: true } => Liveness::Full,
        _ => Liveness::Partial,
    }
}

/// The live runs among `keys`, in ascending order.
///
/// Keys are cut on the grid of multiples of `block`, clipped to `keys`. Full runs are merged over as many blocks as
/// touch; a partial run is one block, so that its mask is tested there and nowhere else. `classify` is asked about
/// spans of whole blocks, a number of times that grows with the boundary of what is live and the logarithm of the
/// number of blocks.
///
/// # Panics
/// If `block` is 0.
pub fn runs<F: FnMut(Span) -> Liveness>(keys: Range<u32>, block: u32, classify: F) -> Runs<F> {
    let blocks = keys.start / block..keys.end.div_ceil(block);
    let mut stack = [(0, 0); MAX_HALVINGS];
    let depth = !keys.is_empty() as usize;
    stack[0] = (blocks.start, blocks.end);
    Runs { keys, block, classify, stack, depth, held: None }
}

/// Boxes that can wait at once: one for each halving of 2^32 blocks, and the whole.
const MAX_HALVINGS: usize = 33;

/// What [`runs`] gives.
///
/// An iterator and not a function of a closure, because the caller's loop body is compiled for an instruction set that
/// a closure called from here would not have.
pub struct Runs<F> {
    keys: Range<u32>,
    block: u32,
    classify: F,
    /// Ranges of blocks that are still to be looked at, the next one last.
    stack: [(u32, u32); MAX_HALVINGS],
    depth: usize,
    /// A run that was found behind a full one, which may yet have grown.
    held: Option<(Range<u32>, Liveness)>,
}

impl<F: FnMut(Span) -> Liveness> Iterator for Runs<F> {
    type Item = (Range<u32>, Liveness);

    fn next(&mut self) -> Option<Self::Item> {
        let (mut keys, liveness) = self.held.take().or_else(|| self.halve())?;
        if liveness == Liveness::Full {
            self.held = self.halve();
            while let Some((next, Liveness::Full)) = &self.held
                && next.start == keys.end
            {
                keys.end = next.end;
                self.held = self.halve();
            }
        }
        Some((keys, liveness))
    }
}

impl<F: FnMut(Span) -> Liveness> Runs<F> {
    /// The next live range of blocks that is full, or one block that is partial.
    fn halve(&mut self) -> Option<(Range<u32>, Liveness)> {
        while self.depth > 0 {
            self.depth -= 1;
            let (first, end) = self.stack[self.depth];
            let start = (first * self.block).max(self.keys.start);
            let keys = start..end.saturating_mul(self.block).min(self.keys.end);
            match (self.classify)(span(&keys)) {
                Liveness::Dead => {}
                Liveness::Partial if end - first > 1 => {
                    let middle = first + (end - first) / 2;
                    self.stack[self.depth] = (middle, end);
                    self.stack[self.depth + 1] = (first, middle);
                    self.depth += 2;
                }
                liveness => return Some((keys, liveness)),
            }
        }
        None
    }
}

/// The positions of a range of keys, which are all below 2^31.
fn span(keys: &Range<u32>) -> Span {
    Span { lo: keys.start as i32, hi: (keys.end as i64 - 1) as i32 }
}

/// Pairs of query and key in a box, by what is known of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Area {
    /// Pairs in boxes that are live throughout.
    pub full: u64,
    /// Pairs in boxes of the floor's size that may be live in part.
    pub partial: u64,
}

impl Area {
    /// An estimate of the live pairs: a boundary cuts its boxes in half on average.
    pub const fn live(self) -> u64 {
        self.full + self.partial / 2
    }
}

/// The pairs of `region.q` and `region.k` that `allow` leaves live, for one value or all values of the other
/// variables, by halving the longer side of what is partial down to boxes of `floor` queries by `floor` keys.
pub fn live_area(allow: Tree<'_>, region: &Region, floor: u32, inputs: &dyn InputRanges) -> Area {
    let mut area = Area::default();
    add_area(allow, region, floor.max(1) as u64, inputs, &mut area);
    area
}

fn add_area(allow: Tree<'_>, region: &Region, floor: u64, inputs: &dyn InputRanges, area: &mut Area) {
    let (queries, keys) = (region.q.len(), region.k.len());
    match liveness(allow, region, inputs) {
        Liveness::Dead => {}
        Liveness::Full => area.full += queries * keys,
        Liveness::Partial if queries.max(keys) <= floor => area.partial += queries * keys,
        Liveness::Partial => {
            let (first, second) = if queries > keys {
                let (a, b) = halves(region.q);
                (Region { q: a, ..*region }, Region { q: b, ..*region })
            } else {
                let (a, b) = halves(region.k);
                (Region { k: a, ..*region }, Region { k: b, ..*region })
            };
            add_area(allow, &first, floor, inputs, area);
            add_area(allow, &second, floor, inputs, area);
        }
    }
}

/// Two parts of a span of two ints or more.
fn halves(span: Span) -> (Span, Span) {
    let middle = (span.lo as i64 + (span.len() / 2) as i64 - 1) as i32;
    (Span { lo: span.lo, hi: middle }, Span { lo: middle + 1, hi: span.hi })
}

/// How many tiles of a box are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Tiles {
    /// Never visited.
    pub dead: u64,
    /// Without mask code.
    pub full: u64,
    /// Tested lane by lane.
    pub partial: u64,
}

/// Counts the tiles of `queries` by `keys` pairs of a box, as [`for_each_box`] finds them.
///
/// # Panics
/// If a side of the tile is 0.
pub fn count(
    allow: Tree<'_>,
    region: &Region,
    tile: (u32, u32),
    inputs: &dyn InputRanges,
    looks: &mut u64,
) -> Tiles {
    let mut tiles = Tiles::default();
    let tiling = Tiling { allow, region, tile, inputs };
    for_each_box(&tiling, looks, &mut |found| tiles.add(&found));
    tiles
}

/// A box of pairs cut into tiles; the last of a row or column may be cut short.
#[derive(Clone, Copy)]
pub struct Tiling<'a> {
    /// The mask.
    pub allow: Tree<'a>,
    /// The box.
    pub region: &'a Region,
    /// Queries and keys of a tile.
    pub tile: (u32, u32),
    /// What is known of the captured inputs.
    pub inputs: &'a dyn InputRanges,
}

/// A box of whole tiles that are all of one kind; indices count tiles from the first of the tiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TileBox {
    /// Rows of tiles.
    pub rows: Range<u64>,
    /// Columns of tiles.
    pub columns: Range<u64>,
    /// What each of its tiles is.
    pub liveness: Liveness,
}

impl Tiles {
    /// Counts the tiles of a box too.
    pub const fn add(&mut self, found: &TileBox) {
        let n = (found.rows.end - found.rows.start) * (found.columns.end - found.columns.start);
        match found.liveness {
            Liveness::Dead => self.dead += n,
            Liveness::Full => self.full += n,
            Liveness::Partial => self.partial += n,
        }
    }
}

/// Calls `visit` for boxes that together are all tiles, found by halving.
///
/// Takes a look off `looks` for each box that it classifies. When there are none left, what is not settled counts as
/// partial: the boundary of a mask over billions of keys would take minutes.
///
/// # Panics
/// If a side of the tile is 0.
pub fn for_each_box(tiling: &Tiling<'_>, looks: &mut u64, visit: &mut dyn FnMut(TileBox)) {
    let Tiling { region, tile, .. } = tiling;
    let (rows, columns) = (region.q.len().div_ceil(tile.0 as u64), region.k.len().div_ceil(tile.1 as u64));
    Halving { tiling, looks, visit }.visit(0..rows, 0..columns);
}

struct Halving<'a> {
    tiling: &'a Tiling<'a>,
    looks: &'a mut u64,
    visit: &'a mut dyn FnMut(TileBox),
}

impl Halving<'_> {
    fn visit(&mut self, rows: Range<u64>, columns: Range<u64>) {
        let (height, width) = (rows.end - rows.start, columns.end - columns.start);
        let liveness = match self.looks.checked_sub(1) {
            Some(left) => {
                *self.looks = left;
                self.tiling.liveness(&rows, &columns)
            }
            None => return (self.visit)(TileBox { rows, columns, liveness: Liveness::Partial }),
        };
        if liveness != Liveness::Partial || height * width == 1 {
            return (self.visit)(TileBox { rows, columns, liveness });
        }
        if height > width {
            let middle = rows.start + height / 2;
            self.visit(rows.start..middle, columns.clone());
            self.visit(middle..rows.end, columns);
        } else {
            let middle = columns.start + width / 2;
            self.visit(rows.clone(), columns.start..middle);
            self.visit(rows, middle..columns.end);
        }
    }
}

impl Tiling<'_> {
    fn liveness(&self, rows: &Range<u64>, columns: &Range<u64>) -> Liveness {
        let Tiling { allow, region, tile, inputs } = *self;
        let (q, k) = (part(region.q, rows, tile.0), part(region.k, columns, tile.1));
        liveness(allow, &Region { q, k, ..*region }, inputs)
    }
}

/// The part of `span` that tiles `tiles` of `size` cover.
fn part(span: Span, tiles: &Range<u64>, size: u32) -> Span {
    let at = |tile: u64| span.lo as i64 + (tile * size as u64) as i64;
    Span { lo: at(tiles.start) as i32, hi: (at(tiles.end) - 1).min(span.hi as i64) as i32 }
}
