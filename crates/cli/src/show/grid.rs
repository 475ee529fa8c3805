//! A mask as a grid of cells: the tiles as schedules classify them, and what is inside of the partial ones.
//!
//! All tiles come from one walk by halving, which is also what counts them. A partial tile is looked into as far as
//! that is cheap: pair by pair, else in the steps in which kernels test it, else not at all. What is smaller than a cell is
//! mixed by its area, so that a million queries by a million keys are a picture too.

use std::ops::Range;

use regard::{Head, Problem};
use regard_ir::expr::Tree;
use regard_ir::inputs::Captured;
use regard_ir::interval::{Liveness, Region, Span};
use regard_ir::plan::Blocks;
use regard_ir::tiles::{TileBox, Tiles};
use regard_oracle::eval::{self, IndexError, Scope, Value};

use super::cell::{Axis, Cell, Kind, overlaps, steps};
use crate::memory::{self, OutOfMemory};

/// Pairs, or steps, that are looked at one by one.
const MAX_LOOKS: u64 = 1 << 16;

/// Cells that an axis has at least, where it has as many queries or keys.
const FEW: u64 = 8;

/// How far partial tiles are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Pair by pair.
    Pairs,
    /// In steps of the mask.
    Steps,
    /// Not.
    Tiles,
}

/// How many cells there may be, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Rows of cells.
    pub(crate) rows: u32,
    /// Columns of cells.
    pub(crate) columns: u32,
    /// How many times as high as wide a cell is shown.
    pub(crate) height: u32,
    /// Whether a tile or step that is as large as a cell is a cell, rather than that cells cover a square of pairs.
    pub(crate) align: bool,
}

/// Pairs by a rectangle of their rows and columns, counted from the first query and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Queries.
    pub(crate) rows: Range<u64>,
    /// Keys.
    pub(crate) columns: Range<u64>,
}

/// A mask as cells, row by row.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    /// Queries.
    pub(crate) rows: Axis,
    /// Keys.
    pub(crate) columns: Axis,
    /// How far it looks into partial tiles.
    pub(crate) depth: Depth,
    /// All tiles that were walked over.
    pub(crate) tiles: Tiles,
    /// Allowed pairs, where each was looked at.
    pub(crate) allowed: Option<u64>,
    cells: Vec<Cell>,
}

impl Grid {
    /// A grid of cells of one pair each.
    #[cfg(test)]
    pub(crate) fn of(rows: usize, columns: usize, cells: Vec<Cell>) -> Self {
        let axis = |len: usize| Axis { first: 0, len: len as u64, unit: 1 };
        let (depth, tiles) = (Depth::Pairs, Tiles::default());
        Self { rows: axis(rows), columns: axis(columns), depth, tiles, allowed: None, cells }
    }

    /// The cells of a row.
    pub(crate) fn row(&self, row: usize) -> &[Cell] {
        let n = self.columns.cells();
        &self.cells[row * n..][..n]
    }
}

/// Why there is no picture.
#[derive(Debug)]
pub(crate) enum GridError {
    /// More memory than there is.
    Memory(OutOfMemory),
    /// The mask reads a tensor outside its axes.
    Index(IndexError),
}

/// What is looked at: one query head of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// Its key head, as schedules see it.
    pub(crate) head: &'a Head<'a>,
    /// The mask.
    pub(crate) allow: Tree<'a>,
    /// The captured inputs; `None` where the mask reads some and they are not known.
    pub(crate) captured: Option<&'a Captured<'a>>,
    /// The query head.
    pub(crate) query_head: u32,
    /// The sizes.
    pub(crate) problem: &'a Problem<'a>,
    /// The plan's blocks.
    pub(crate) blocks: &'a Blocks,
}

impl Subject<'_> {
    /// All pairs, in at most as many cells as there is room for.
    ///
    /// # Errors
    /// If the mask reads outside a tensor, or there is no memory.
    pub(crate) fn draw(&self, room: &Room) -> Result<Grid, GridError> {
        let all = Window { rows: 0..self.problem.queries.into(), columns: 0..self.problem.keys.into() };
        let depth = self.depth();
        let (unit_rows, unit_columns) = self.units(depth, room);
        let mut drawing = Drawing::new(self, &all, depth, (unit_rows, unit_columns))?;
        let mut done = Ok(());
        self.head.for_each_box(&mut |found| {
            if done.is_ok() {
                done = drawing.add(&found);
            }
        });
        done?;
        drawing.finish()
    }

    /// The pairs of a window, each a cell.
    ///
    /// # Errors
    /// As [`Subject::draw`].
    pub(crate) fn zoom(&self, window: &Window) -> Result<Grid, GridError> {
        let mut drawing = Drawing::new(self, window, Depth::Pairs, (1, 1))?;
        let tiles = |pairs: &Range<u64>, block: u32| {
            pairs.start / u64::from(block)..pairs.end.div_ceil(u64::from(block))
        };
        for row in tiles(&window.rows, self.blocks.query_block) {
            for column in tiles(&window.columns, self.blocks.key_block) {
                let mut tile =
                    TileBox { rows: row..row + 1, columns: column..column + 1, liveness: Liveness::Partial };
                tile.liveness = self.head.liveness(&self.region(&self.pairs_of(&tile), None));
                drawing.add(&tile)?;
            }
        }
        drawing.finish()
    }

    /// Where pairs that a grid does not show are worth a closer look: around the last pairs that the mask cuts in the
    /// middle row, or in the next row that it cuts. `None` where the cells are pairs, or it cuts none.
    pub(crate) fn worth_a_look(&self, grid: &Grid, side: u64) -> Option<Window> {
        let Grid { rows, columns, depth, .. } = *grid;
        if depth == Depth::Pairs {
            return None;
        }
        let whole = [Kind::Dead, Kind::Masked, Kind::Full].map(Cell::of);
        let cut = |row: usize| grid.row(row).iter().rposition(|cell| !whole.contains(cell));
        let middle = rows.cells() / 2;
        let (row, column) = (middle..rows.cells()).chain(0..middle).find_map(|row| Some((row, cut(row)?)))?;
        let cell = |axis: Axis, at: usize| axis.edge(at)..axis.edge(at + 1);
        let found = self
            .cut_within(Window { rows: cell(rows, row), columns: cell(columns, column) }, (side / 8).max(1));
        let around = |range: &Range<u64>, len: u64| {
            let side = side.min(len);
            let start = ((range.start + range.end) / 2).saturating_sub(side / 2).min(len - side);
            start..start + side
        };
        Some(Window { rows: around(&found.rows, rows.len), columns: around(&found.columns, columns.len) })
    }

    /// The last part of a window, no longer than `side`, that the mask may cut.
    fn cut_within(&self, mut window: Window, side: u64) -> Window {
        let len = |range: &Range<u64>| range.end - range.start;
        loop {
            let (height, width) = (len(&window.rows), len(&window.columns));
            if height.max(width) <= side {
                return window;
            }
            let (mut first, mut last) = (window.clone(), window);
            if height > width {
                last.rows.start += height / 2;
                first.rows.end = last.rows.start;
            } else {
                last.columns.start += width / 2;
                first.columns.end = last.columns.start;
            }
            let cut = self.head.liveness(&self.region(&last, None)) == Liveness::Partial;
            window = if cut { last } else { first };
        }
    }

    /// How far it is cheap to look into partial tiles.
    fn depth(&self) -> Depth {
        let Problem { queries, keys, .. } = *self.problem;
        let (rows, columns) = self.step();
        let looks =
            |row: u64, column: u64| u64::from(queries).div_ceil(row) * u64::from(keys).div_ceil(column);
        match () {
            () if looks(1, 1) <= MAX_LOOKS => Depth::Pairs,
            () if looks(rows, columns) <= MAX_LOOKS => Depth::Steps,
            () => Depth::Tiles,
        }
    }

    /// Queries and keys that are looked at together inside of a partial tile: the keys of a mask step, and about as many
    /// queries, of which a query block is a multiple.
    fn step(&self) -> (u64, u64) {
        let (mut a, mut b) = (self.blocks.query_block, self.blocks.mask_step);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        (a.into(), self.blocks.mask_step.into())
    }

    /// Queries and keys of a cell.
    fn units(&self, depth: Depth, room: &Room) -> (u64, u64) {
        let (queries, keys) = (u64::from(self.problem.queries), u64::from(self.problem.keys));
        let own = match depth {
            Depth::Pairs => (1, 1),
            Depth::Steps => self.step(),
            Depth::Tiles => (self.blocks.query_block.into(), self.blocks.key_block.into()),
        };
        let (rows, columns) = (u64::from(room.rows.max(1)), u64::from(room.columns.max(1)));
        let fits = queries.div_ceil(own.0) <= rows && keys.div_ceil(own.1) <= columns;
        if fits && (room.align || depth == Depth::Pairs) {
            return own;
        }
        let height = u64::from(room.height);
        let wide = keys.div_ceil(columns).max(queries.div_ceil(rows * height)).max(1);
        // Cells of a few queries are not square: better that than a blur.
        let sharp = |unit: u64, len: u64| unit.min(len.div_ceil(FEW)).max(1);
        (sharp(wide * height, queries), sharp(wide, keys))
    }

    fn pairs_of(&self, tiles: &TileBox) -> Window {
        let pairs = |tiles: &Range<u64>, block: u32, len: u32| {
            tiles.start * u64::from(block)..(tiles.end * u64::from(block)).min(len.into())
        };
        Window {
            rows: pairs(&tiles.rows, self.blocks.query_block, self.problem.queries),
            columns: pairs(&tiles.columns, self.blocks.key_block, self.problem.keys),
        }
    }

    /// A window as the interval reading sees it: for all query heads of the key head, or for one.
    fn region(&self, window: &Window, query_head: Option<u32>) -> Region {
        let region = self.head.region();
        let span = |first: i32, range: &Range<u64>| Span {
            lo: (i64::from(first) + range.start as i64) as i32,
            hi: (i64::from(first) + range.end as i64 - 1) as i32,
        };
        let (q, k) = (span(region.q.lo, &window.rows), span(region.k.lo, &window.columns));
        let h = query_head.map_or(region.h, |head| Span::point(head as i32));
        Region { h, q, k, ..region }
    }

    /// What one pair of a partial tile is.
    fn pair(&self, row: u64, column: u64) -> Result<Kind, GridError> {
        let Some(captured) = self.captured else {
            return Ok(self.step_kind(&Window { rows: row..row + 1, columns: column..column + 1 }));
        };
        let Region { b, g, q, k, nq, nk, .. } =
            self.region(&Window { rows: row..row + 1, columns: column..column + 1 }, None);
        let (b, g, h) = (b.lo, g.lo, self.query_head as i32);
        let scope = Scope { b, h, g, q: q.lo, k: k.lo, nq, nk, ..Scope::default() };
        match eval::eval(self.allow, &scope, captured).map_err(GridError::Index)? {
            Value::Bool(false) => Ok(Kind::Masked),
            _ => Ok(Kind::Allowed),
        }
    }

    /// What some pairs of a partial tile are, by the interval reading.
    fn step_kind(&self, window: &Window) -> Kind {
        match self.head.liveness(&self.region(window, Some(self.query_head))) {
            Liveness::Dead => Kind::Masked,
            Liveness::Partial => Kind::Tested,
            Liveness::Full => Kind::Allowed,
        }
    }
}

/// A grid under way.
struct Drawing<'a> {
    subject: &'a Subject<'a>,
    rows: Axis,
    columns: Axis,
    depth: Depth,
    tiles: Tiles,
    allowed: u64,
    /// Pairs of each kind, for each cell.
    areas: Vec<[u64; Kind::ALL.len()]>,
}

impl<'a> Drawing<'a> {
    fn new(
        subject: &'a Subject<'a>,
        window: &Window,
        depth: Depth,
        (unit_rows, unit_columns): (u64, u64),
    ) -> Result<Self, GridError> {
        let rows = Axis::new(&window.rows, unit_rows);
        let columns = Axis::new(&window.columns, unit_columns);
        let n = rows.cells() as u128 * columns.cells() as u128;
        let areas = memory::zeroed("the picture", n).map_err(GridError::Memory)?;
        Ok(Self { subject, rows, columns, depth, tiles: Tiles::default(), allowed: 0, areas })
    }

    fn add(&mut self, found: &TileBox) -> Result<(), GridError> {
        self.tiles.add(found);
        let pairs = self.inside(&self.subject.pairs_of(found));
        let (subject, depth) = (self.subject, self.depth);
        match found.liveness {
            Liveness::Dead => self.fill(&pairs, Kind::Dead),
            Liveness::Full => self.fill(&pairs, Kind::Full),
            Liveness::Partial if depth == Depth::Tiles => self.fill(&pairs, Kind::Tested),
            Liveness::Partial => {
                let step = if depth == Depth::Pairs { (1, 1) } else { subject.step() };
                for rows in steps(&pairs.rows, step.0) {
                    for columns in steps(&pairs.columns, step.1) {
                        let window = Window { rows: rows.clone(), columns };
                        let kind = match depth {
                            Depth::Pairs => subject.pair(window.rows.start, window.columns.start)?,
                            _ => subject.step_kind(&window),
                        };
                        self.fill(&window, kind);
                    }
                }
            }
        }
        Ok(())
    }

    /// The part of a window that is drawn.
    fn inside(&self, window: &Window) -> Window {
        let clip = |range: &Range<u64>, axis: Axis| {
            let start = range.start.max(axis.first);
            start..range.end.min(axis.first + axis.len).max(start)
        };
        Window { rows: clip(&window.rows, self.rows), columns: clip(&window.columns, self.columns) }
    }

    /// Adds pairs of one kind to the cells that they are in.
    fn fill(&mut self, window: &Window, kind: Kind) {
        if matches!(kind, Kind::Allowed | Kind::Full) {
            let n = (window.rows.end - window.rows.start) * (window.columns.end - window.columns.start);
            self.allowed += n;
        }
        let n_columns = self.columns.cells();
        for (row, height) in overlaps(self.rows, &window.rows) {
            for (column, width) in overlaps(self.columns, &window.columns) {
                self.areas[row * n_columns + column][kind as usize] += height * width;
            }
        }
    }

    fn finish(self) -> Result<Grid, GridError> {
        let mut cells =
            memory::reserved("the picture", self.areas.len() as u128).map_err(GridError::Memory)?;
        cells.extend(self.areas.iter().map(|&areas| Cell::from_areas(areas)));
        let known = self.depth == Depth::Pairs && self.subject.captured.is_some();
        let Self { rows, columns, depth, tiles, allowed, .. } = self;
        Ok(Grid { rows, columns, depth, tiles, allowed: known.then_some(allowed), cells })
    }
}
