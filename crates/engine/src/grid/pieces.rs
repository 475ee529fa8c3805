//! Pieces of tasks, where these are fewer than those who work on them: kept rows in strips, queries in blocks, heads and channels in
//! parts, and the queries of these in cells.

use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{Claim, Grid, Lots, Part, Task};

/// Strips of the rows that tasks keep: as many rows of each, given out once, with memory of their own.
pub struct Strips<'g> {
    grid: &'g Grid<'g>,
    rows: u32,
    per_task: usize,
    memory: Lots<'g, f32>,
}

impl<'g> Strips<'g> {
    /// Cuts the kept rows of each task into `per_task` strips of `rows`, which may reach past its last, and `memory` into a piece
    /// of `len` for each: strip s of task t is number t · `per_task` + s of both. Strips for which there is no memory are none.
    pub fn new(
        grid: &'g mut Grid<'_>,
        (rows, per_task): (u32, usize),
        memory: &'g mut [f32],
        len: usize,
    ) -> Self {
        Self { grid, rows, per_task, memory: Lots::new(memory, len) }
    }

    /// The next strip, which rows it has, and its memory; `None` when all are given out. Its task has no queries.
    pub fn take(&self) -> Option<(Claim<'_>, Range<u32>, &'g mut [f32])> {
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
pub struct Blocks<'g> {
    grid: &'g Grid<'g>,
    queries: u32,
    numbers: Range<u32>,
    next: AtomicUsize,
}

impl<'g> Blocks<'g> {
    /// Those of some numbers, of `queries` queries each, of each task.
    pub fn new(grid: &'g mut Grid<'_>, queries: u32, numbers: Range<u32>) -> Self {
        Self { grid, queries, numbers, next: AtomicUsize::new(0) }
    }

    /// The next block, the number of its task, and its number in this; `None` when all are given out. It has no kept rows.
    pub fn take(&self) -> Option<(Claim<'_>, usize, u32)> {
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

/// How tasks are cut into parts: so many heads and channels each; the last of a task may be fewer.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Heads of a task, and of a part.
    heads: [usize; 2],
    /// Channels of its rows, and of a part.
    channels: [usize; 2],
}

impl Cut {
    /// Tasks of so many heads, whose rows are so wide, into parts of so many heads and channels, at least 1.
    pub fn new([group, width]: [usize; 2], [heads, channels]: [usize; 2]) -> Self {
        Self { heads: [group, heads.max(1)], channels: [width, channels.max(1)] }
    }

    /// How many there are of a task.
    pub const fn parts(&self) -> usize {
        self.heads[0].div_ceil(self.heads[1]) * self.channels[0].div_ceil(self.channels[1])
    }

    /// Which part of all tasks is which of one task's.
    pub const fn task(&self, part: usize) -> [usize; 2] {
        // Most often a part is a task.
        match self.parts() {
            0 | 1 => [part, 0],
            parts => [part / parts, part % parts],
        }
    }

    /// Heads and channels of a part of a task.
    pub fn part(&self, part: usize) -> (Range<usize>, Range<usize>) {
        let by_channels = self.channels[0].div_ceil(self.channels[1]).max(1);
        let of = |[all, each]: [usize; 2], nth: usize| nth * each..all.min((nth + 1) * each);
        (of(self.heads, part / by_channels), of(self.channels, part % by_channels))
    }
}

/// Which parts a worker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Of `n` workers each has every `n`th, and when it is done with these it takes those of others.
    Even,
    /// Each has as many that follow each other, and when it is done with these it takes those of others: from call to call it finds
    /// most of what they read in a cache near its core, and asks for nothing of another's ahead.
    Near,
    /// As near, but each takes its own alone: what stays in the cache of its core is never another's.
    Own,
}

/// Parts of the heads and channels of tasks, given out once, in the order of the tasks.
pub struct Parts<'g> {
    grid: &'g Grid<'g>,
    cut: Cut,
    workers: usize,
    sharing: Sharing,
    /// How many of each worker's parts are given out.
    turns: [Turn; MAX_WORKERS],
}

/// A counter in a line of its own.
#[repr(align(64))]
struct Turn(AtomicUsize);

impl<'g> Parts<'g> {
    /// Parts of so many heads and channels, for so many workers.
    pub fn new(
        grid: &'g mut Grid<'_>,
        [heads, channels]: [usize; 2],
        (workers, sharing): (usize, Sharing),
    ) -> Self {
        let cut = grid.cut([heads, channels]);
        let turns = [const { Turn(AtomicUsize::new(0)) }; MAX_WORKERS];
        Self { grid, cut, workers: workers.clamp(1, MAX_WORKERS), sharing, turns }
    }

    /// The next part for a worker, its heads and its channels; `None` when all are given out. It has no kept rows.
    pub fn take(&self, worker: usize) -> Option<(Claim<'_>, Range<usize>, Range<usize>)> {
        let others = if self.sharing == Sharing::Own { 1 } else { self.workers };
        let part = (0..others).find_map(|ahead| self.turn((worker + ahead) % self.workers))?;
        let [task, piece] = self.cut.task(part);
        let (heads, channels) = self.cut.part(piece);
        let task = self.grid.tasks.tasks[*self.grid.tasks.order.get(task)? as usize];
        let part = Part { heads: heads.clone(), channels: channels.clone() };
        Some((Claim { grid: self.grid, task, kept: 0..0, part }, heads, channels))
    }

    /// The next of a worker's own parts.
    fn turn(&self, worker: usize) -> Option<usize> {
        let parts = self.grid.tasks.order.len() * self.cut.parts();
        let start = |worker: usize| parts * worker / self.workers;
        let part = |turn: usize| match self.sharing {
            Sharing::Even => Some(turn * self.workers + worker).filter(|&part| part < parts),
            Sharing::Near | Sharing::Own => {
                Some(start(worker) + turn).filter(|&part| part < start(worker + 1))
            }
        };
        let turns = &self.turns[worker].0;
        // Counters stop at the parts and the workers together, so that they never wrap.
        part(turns.load(Ordering::Relaxed)).and_then(|_| part(turns.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Cells of the queries of parts of tasks, given out once, a part's one after the other.
pub struct Cells<'g> {
    grid: &'g Grid<'g>,
    cut: Cut,
    queries: u32,
    numbers: Range<u32>,
    next: AtomicUsize,
}

/// A piece of [`Cells`].
pub struct Cell<'g> {
    /// Its rows.
    pub claim: Claim<'g>,
    /// Its number among those of all tasks' parts.
    pub part: usize,
    /// Its number in the part.
    pub number: u32,
}

impl<'g> Cells<'g> {
    /// Those of some numbers, of `queries` queries each, of each part. The grid has no states.
    pub fn new(
        grid: &'g mut Grid<'_>,
        [heads, channels]: [usize; 2],
        (queries, numbers): (u32, Range<u32>),
    ) -> Self {
        let cut = grid.cut([heads, channels]);
        Self { grid, cut, queries, numbers, next: AtomicUsize::new(0) }
    }

    /// The next cell, also one without queries; `None` when all are given out. It has no kept rows.
    pub fn take(&self) -> Option<Cell<'_>> {
        if self.grid.states.is_some() {
            return None;
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let part = turn.checked_div(self.numbers.len())?;
        let number = self.numbers.start + (turn % self.numbers.len()) as u32;
        let [task, piece] = self.cut.task(part);
        let whole = self.grid.tasks.tasks[*self.grid.tasks.order.get(task)? as usize];
        let at = |number: u32| {
            whole.query_begin.saturating_add(number.saturating_mul(self.queries)).min(whole.query_end)
        };
        let task = Task { query_begin: at(number), query_end: at(number.saturating_add(1)), ..whole };
        let (heads, channels) = self.cut.part(piece);
        let claim = Claim { grid: self.grid, task, kept: 0..0, part: Part { heads, channels } };
        Some(Cell { claim, part, number })
    }
}

impl Grid<'_> {
    /// Parts of its tasks.
    fn cut(&self, sizes: [usize; 2]) -> Cut {
        let Part { heads, channels } = self.whole();
        Cut::new([heads.end, channels.end], sizes)
    }
}
