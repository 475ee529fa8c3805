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

/// Parts of the heads and channels of tasks, given out once, in the order of the tasks.
pub struct Parts<'g, T> {
    grid: &'g Grid<'g, T>,
    heads: usize,
    channels: usize,
    next: AtomicUsize,
}

impl<'g, T> Parts<'g, T> {
    /// So many heads and channels each, at least 1; the last of a task may be fewer.
    pub fn new(grid: &'g mut Grid<'_, T>, heads: usize, channels: usize) -> Self {
        Self { grid, heads: heads.max(1), channels: channels.max(1), next: AtomicUsize::new(0) }
    }

    /// The next part, its heads and its channels; `None` when all are given out. It has no kept rows.
    pub fn take(&self) -> Option<(Claim<'_, T>, Range<usize>, Range<usize>)> {
        let Part { heads, channels } = self.grid.whole();
        let (by_heads, by_channels) = (heads.end.div_ceil(self.heads), channels.end.div_ceil(self.channels));
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let index = turn.checked_div(by_heads * by_channels)?;
        let task = self.grid.tasks.tasks[*self.grid.tasks.order.get(index)? as usize];
        let (head, channel) = (turn / by_channels % by_heads, turn % by_channels);
        let heads = head * self.heads..heads.end.min((head + 1) * self.heads);
        let channels = channel * self.channels..channels.end.min((channel + 1) * self.channels);
        let part = Part { heads: heads.clone(), channels: channels.clone() };
        Some((Claim { grid: self.grid, task, kept: 0..0, part }, heads, channels))
    }
}
