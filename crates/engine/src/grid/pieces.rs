//! Pieces of tasks, where these are fewer than those who work on them: kept rows in strips, queries in blocks, heads and channels in
//! parts.

use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{Claim, Grid, Lots, Part, Task};

/// Strips of the rows that tasks keep: as many rows of each, given out once, with memory of their own.
pub struct Strips<'g, T> {
    grid: &'g Grid<'g, T>,
    rows: u32,
    per_task: usize,
    memory: Lots<'g, f32>,
}

impl<'g, T> Strips<'g, T> {
    /// Cuts the kept rows of each task into `per_task` strips of `rows`, which may reach past its last, and `memory` into a piece
    /// of `len` for each: strip s of task t is number t · `per_task` + s of both. Strips for which there is no memory are none.
    pub fn new(
        grid: &'g mut Grid<'_, T>,
        (rows, per_task): (u32, usize),
        memory: &'g mut [f32],
        len: usize,
    ) -> Self {
        Self { grid, rows, per_task, memory: Lots::new(memory, len) }
    }

    /// The next strip, which rows it has, and its memory; `None` when all are given out. Its task has no queries.
    pub fn take(&self) -> Option<(Claim<'_, T>, Range<u32>, &'g mut [f32])> {
        let (number, memory) = self.memory.take()?;
        let whole = *self.grid.tasks.tasks.get(number.checked_div(self.per_task)?)?;
        let first = u32::try_from(number % self.per_task).ok()?.saturating_mul(self.rows);
        let kept = first..first.saturating_add(self.rows);
        let task = Task { query_end: whole.query_begin, ..whole };
        let part = Part { heads: 0..0, channels: 0..0 };
        let part = if self.grid.states.is_some() { part } else { self.grid.whole() };
        Some((Claim { grid: self.grid, task, kept: kept.clone(), part }, kept, memory))
    }
}

/// Blocks of the queries of tasks, given out once.
pub struct Blocks<'g, T> {
    grid: &'g Grid<'g, T>,
    queries: u32,
    numbers: Range<u32>,
    next: AtomicUsize,
}

impl<'g, T> Blocks<'g, T> {
    /// Those of some numbers, of `queries` queries each, of each task.
    pub fn new(grid: &'g mut Grid<'_, T>, queries: u32, numbers: Range<u32>) -> Self {
        Self { grid, queries, numbers, next: AtomicUsize::new(0) }
    }

    /// The next block, the number of its task, and its number in this; `None` when all are given out. It has no kept rows.
    pub fn take(&self) -> Option<(Claim<'_, T>, usize, u32)> {
        loop {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let index = turn.checked_div(self.numbers.len())?;
            let whole = *self.grid.tasks.tasks.get(index)?;
            let number = self.numbers.start + (turn % self.numbers.len()) as u32;
            let at = |number: u32| {
                whole.query_begin.saturating_add(number.saturating_mul(self.queries)).min(whole.query_end)
            };
            let task = Task { query_begin: at(number), query_end: at(number.saturating_add(1)), ..whole };
            if task.query_begin < task.query_end {
                let heads = if self.grid.states.is_some() { 0..0 } else { 0..self.grid.tasks.group };
                let part = Part { heads, ..self.grid.whole() };
                return Some((Claim { grid: self.grid, task, kept: 0..0, part }, index, number));
            }
        }
    }
}

/// The most workers that have parts of their own; more share these.
const MAX_WORKERS: usize = 64;

/// Parts of the heads and channels of tasks, given out once, in the order of the tasks. Worker `w` of `n` has each `n`th of them, so
/// that from call to call it finds what it had in the cache of its core; when it is done with these it takes those of others.
pub struct Parts<'g, T> {
    grid: &'g Grid<'g, T>,
    heads: usize,
    channels: usize,
    workers: usize,
    /// Parts of a task.
    per_task: usize,
    /// How many of each worker's parts are given out.
    turns: [Turn; MAX_WORKERS],
}

/// A counter in a line of its own.
#[repr(align(64))]
struct Turn(AtomicUsize);

impl<'g, T> Parts<'g, T> {
    /// So many heads and channels each, at least 1; the last of a task may be fewer.
    pub fn new(grid: &'g mut Grid<'_, T>, heads: usize, channels: usize, workers: usize) -> Self {
        let (heads, channels) = (heads.max(1), channels.max(1));
        let Part { heads: all, channels: width } = grid.whole();
        let per_task = all.end.div_ceil(heads) * width.end.div_ceil(channels);
        let turns = [const { Turn(AtomicUsize::new(0)) }; MAX_WORKERS];
        Self { grid, heads, channels, workers: workers.clamp(1, MAX_WORKERS), per_task, turns }
    }

    /// The next part for a worker, its heads and its channels; `None` when all are given out. It has no kept rows.
    pub fn take(&self, worker: usize) -> Option<(Claim<'_, T>, Range<usize>, Range<usize>)> {
        let part = (0..self.workers).find_map(|ahead| self.turn((worker + ahead) % self.workers))?;
        // Most often a part is a task.
        let (task, piece) = match self.per_task {
            1 => (part, 0),
            pieces => (part / pieces, part % pieces),
        };
        let Part { heads, channels } = self.grid.whole();
        let by_channels = channels.end.div_ceil(self.channels).max(1);
        let cut = |all: usize, each: usize, nth: usize| nth * each..all.min((nth + 1) * each);
        let heads = cut(heads.end, self.heads, piece / by_channels);
        let channels = cut(channels.end, self.channels, piece % by_channels);
        let task = self.grid.tasks.tasks[*self.grid.tasks.order.get(task)? as usize];
        let part = Part { heads: heads.clone(), channels: channels.clone() };
        Some((Claim { grid: self.grid, task, kept: 0..0, part }, heads, channels))
    }

    /// The next of a worker's own parts.
    fn turn(&self, worker: usize) -> Option<usize> {
        let parts = self.grid.tasks.order.len() * self.per_task;
        let part = |turn: usize| Some(turn * self.workers + worker).filter(|&part| part < parts);
        let turns = &self.turns[worker].0;
        // Counters stop at the parts and the workers together, so that they never wrap.
        part(turns.load(Ordering::Relaxed)).and_then(|_| part(turns.fetch_add(1, Ordering::Relaxed)))
    }
}
