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

/// Counts the tiles of `queries` by `keys` pairs of a box, by halving; the last of a row or column may be cut short.
///
/// Takes a look off `looks` for each box that it classifies. When there are none left, what is not settled counts as
/// partial: the boundary of a mask over billions of keys would take minutes.
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
    let (rows, columns) = (region.q.len().div_ceil(tile.0 as u64), region.k.len().div_ceil(tile.1 as u64));
    Count { allow, region, tile, inputs, looks }.add(0..rows, 0..columns, &mut tiles);
    tiles
}

struct Count<'a> {
    allow: Tree<'a>,
    region: &'a Region,
    tile: (u32, u32),
    inputs: &'a dyn InputRanges,
    looks: &'a mut u64,
}

impl Count<'_> {
    fn add(&mut self, rows: Range<u64>, columns: Range<u64>, tiles: &mut Tiles) {
        let (height, width) = (rows.end - rows.start, columns.end - columns.start);
        let region = Region {
            q: part(self.region.q, &rows, self.tile.0),
            k: part(self.region.k, &columns, self.tile.1),
            ..*self.region
        };
        if *self.looks == 0 {
            tiles.partial += height * width;
            return;
        }
        *self.looks -= 1;
        match liveness(self.allow, &region, self.inputs) {
            Liveness::Dead => tiles.dead += height * width,
            Liveness::Full => tiles.full += height * width,
            Liveness::Partial if height * width == 1 => tiles.partial += 1,
            Liveness::Partial if height > width => {
                let middle = rows.start + height / 2;
                self.add(rows.start..middle, columns.clone(), tiles);
                self.add(middle..rows.end, columns, tiles);
            }
            Liveness::Partial => {
                let middle = columns.start + width / 2;
                self.add(rows.clone(), columns.start..middle, tiles);
                self.add(rows, middle..columns.end, tiles);
            }
        }
    }
}

/// The part of `span` that tiles `tiles` of `size` cover.
fn part(span: Span, tiles: &Range<u64>, size: u32) -> Span {
    let at = |tile: u64| span.lo as i64 + (tile * size as u64) as i64;
    Span { lo: at(tiles.start) as i32, hi: (at(tiles.end) - 1).min(span.hi as i64) as i32 }
}
