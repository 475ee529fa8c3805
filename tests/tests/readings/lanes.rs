//! The lane reading of a variant's expressions over queries and keys, on any instruction set.

use std::ops::Range;

use regard_engine::any::{self, Visit};
use regard_engine::catalog::Entry;
use regard_engine::isa::Door;
use regard_engine::{Engine, Op};
use regard_ir::inputs::Captured;
use regard_ir::variant::Variant;
use regard_oracle::eval::Scope;
use regard_runtime::code::{AnyCode, Fault, Keys, Place};
use regard_runtime::interpreter::LaneProgram;

/// Rows of query and head, and keys, of one sequence and key head.
pub(crate) struct Grid<'a> {
    pub(crate) b: i32,
    pub(crate) g: i32,
    pub(crate) nq: i32,
    pub(crate) nk: i32,
    /// Query position and query head of each row.
    pub(crate) rows: &'a [(i32, i32)],
    pub(crate) keys: Range<i32>,
    pub(crate) captured: &'a Captured<'a>,
}

impl Grid<'_> {
    /// The variables at one row and key.
    pub(crate) fn scope(&self, (q, h): (i32, i32), k: i32, s: f32) -> Scope {
        let Self { b, g, nq, nk, .. } = *self;
        Scope { b, h, g, q, k, nq, nk, s: s.into(), x: 0.0 }
    }
}

/// Some rows at some keys, as one call of the lane program gave them: `values[key][row]`.
pub(crate) struct Part<T> {
    pub(crate) rows: Range<usize>,
    pub(crate) keys: Range<i32>,
    pub(crate) values: Vec<T>,
    /// Whether a bad index was reported.
    pub(crate) fault: bool,
}

impl<T: Copy> Part<T> {
    /// Each row and key with its value.
    pub(crate) fn points(&self) -> impl Iterator<Item = (usize, i32, T)> {
        let rows = self.rows.len();
        let place = move |at: usize| (self.rows.start + at % rows, self.keys.start + (at / rows) as i32);
        self.values.iter().enumerate().map(move |(at, &value)| {
            let (row, key) = place(at);
            (row, key, value)
        })
    }
}

/// The mask of a variant by the program's `allow`, one part for each row tile and key.
pub(crate) fn allow(entry: &Entry, variant: &Variant<'_>, grid: &Grid<'_>) -> Vec<Part<bool>> {
    let program = LaneProgram::new(variant);
    on(entry, Allow { program: &program, grid })
}

/// What the program's `apply` makes of `score(row, key)`, one part for each row tile.
pub(crate) fn apply(
    entry: &Entry,
    variant: &Variant<'_>,
    grid: &Grid<'_>,
    masked: bool,
    score: &dyn Fn(usize, i32) -> f32,
) -> Vec<Part<f32>> {
    let program = LaneProgram::new(variant);
    on(entry, Apply { program: &program, grid, masked, score })
}

/// Something that is done with lanes, tile by tile.
trait OnTile {
    type Value;

    fn tile<L: Door>(&self, lanes: L, tile: &Tile<'_>, parts: &mut Vec<Part<Self::Value>>);
}

/// One row tile of a grid.
struct Tile<'a> {
    grid: &'a Grid<'a>,
    rows: Range<usize>,
    q: Vec<i32>,
    h: Vec<i32>,
}

impl Tile<'_> {
    fn place<'a>(&'a self, first_key: i32, fault: &'a Fault) -> Place<'a> {
        let Grid { b, g, nq, nk, captured, .. } = *self.grid;
        // A lane program has the number of heads of each of its slopes.
        let heads = 0;
        Place { b, g, heads, nq, nk, q: &self.q, h: &self.h, first_key, keys: Keys::Rows, captured, fault }
    }

    /// The lanes of rows that exist.
    fn own<'a, T>(&self, lanes: &'a [T]) -> &'a [T] {
        &lanes[..self.rows.len()]
    }
}

fn on<W: OnTile + GridOf>(entry: &Entry, work: W) -> Vec<Part<W::Value>> {
    struct Outside<W>(W);
    struct Inside<L, W> {
        lanes: L,
        /// Of a row tile.
        rows: usize,
        work: W,
    }
    impl<W: OnTile + GridOf> Visit for Outside<W> {
        type Output = Vec<Part<W::Value>>;
        fn visit<E: Engine>(self, engine: E) -> Self::Output {
            engine.enter(Inside { lanes: engine.lanes(), rows: E::ROWS, work: self.0 })
        }
    }
    impl<L: Door, W: OnTile + GridOf> Op for Inside<L, W> {
        type Output = Vec<Part<W::Value>>;
        #[inline(always)]
        fn run(self) -> Self::Output {
            let Self { lanes, rows: most, work } = self;
            let grid = work.grid();
            let mut parts = vec![];
            for first in (0..grid.rows.len()).step_by(most) {
                let rows = first..(first + most).min(grid.rows.len());
                // The lanes past the last row repeat it, as they do in a kernel.
                let width = rows.len().next_multiple_of(L::WIDTH);
                let row = |lane: usize| grid.rows[(first + lane).min(rows.end - 1)];
                let (q, h) = (0..width).map(row).unzip();
                work.tile(lanes, &Tile { grid, rows, q, h }, &mut parts);
            }
            parts
        }
    }
    any::with(entry.engine, entry.isa, Outside(work)).expect("only what is available is run")
}

trait GridOf {
    fn grid(&self) -> &Grid<'_>;
}

struct Allow<'a> {
    program: &'a LaneProgram,
    grid: &'a Grid<'a>,
}

impl GridOf for Allow<'_> {
    fn grid(&self) -> &Grid<'_> {
        self.grid
    }
}

impl OnTile for Allow<'_> {
    type Value = bool;

    #[inline(always)]
    fn tile<L: Door>(&self, lanes: L, tile: &Tile<'_>, parts: &mut Vec<Part<bool>>) {
        let width = tile.q.len();
        let mut scratch = vec![i32::MIN; self.program.on::<L>().scratch_len(width)];
        for key in self.grid.keys.clone() {
            let fault = Fault::new();
            let mut allowed = vec![77; width];
            self.program.on::<L>().allow(lanes, &tile.place(key, &fault), &mut allowed, &mut scratch);
            let values = tile.own(&allowed).iter().map(|&allowed| allowed != 0).collect();
            let fault = fault.input().is_some();
            parts.push(Part { rows: tile.rows.clone(), keys: key..key + 1, values, fault });
        }
    }
}

struct Apply<'a> {
    program: &'a LaneProgram,
    grid: &'a Grid<'a>,
    masked: bool,
    score: &'a dyn Fn(usize, i32) -> f32,
}

impl GridOf for Apply<'_> {
    fn grid(&self) -> &Grid<'_> {
        self.grid
    }
}

impl OnTile for Apply<'_> {
    type Value = f32;

    #[inline(always)]
    fn tile<L: Door>(&self, lanes: L, tile: &Tile<'_>, parts: &mut Vec<Part<f32>>) {
        let (width, keys) = (tile.q.len(), self.grid.keys.clone());
        let mut scratch = vec![i32::MIN; self.program.on::<L>().scratch_len(width)];
        let row = |lane: usize| (tile.rows.start + lane).min(tile.rows.end - 1);
        let mut scores: Vec<f32> = keys
            .clone()
            .flat_map(|key| (0..width).map(move |lane| (lane, key)))
            .map(|(lane, key)| (self.score)(row(lane), key))
            .collect();
        let fault = Fault::new();
        let place = tile.place(keys.start, &fault);
        self.program.on::<L>().apply(lanes, &place, &mut scores, self.masked, &mut scratch);
        let values = scores.chunks(width).flat_map(|lanes| tile.own(lanes)).copied().collect();
        parts.push(Part { rows: tile.rows.clone(), keys, values, fault: fault.input().is_some() });
    }
}
