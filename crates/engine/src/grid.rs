//! Hands each task the output rows that are its own, and each worker a piece of the workspace.
//!
//! Tasks run at the same time and write interleaved rows of one strided tensor, which safe Rust cannot split without
//! allocating. This module splits it by claims: it checks, in the call that makes a [`Grid`], that rows do not overlap
//! and that no row belongs to two tasks, and gives out each task once.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

pub use self::lots::{LotRuns, Lots};
pub use self::pieces::{Blocks, Cell, Cells, Cut, Parts, Sharing, Strips};
pub use self::rows::{Rows, RowsMut};
use self::rows::{Shared, SharedRows};
pub use self::shelf::{Found, Making, Shelf, Visit};
use self::states::States;
pub use self::states::{MatrixMut, StateRows};
use crate::element::ElementsMut;

mod lots;
mod pieces;
mod rows;
mod shelf;
mod states;

/// The most tasks of a grid: one bit each is kept on the stack while they are checked.
pub const MAX_TASKS: u32 = 1 << 16;

/// Some queries of one sequence, for every query head of one key head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Sequence.
    pub sequence: u32,
    /// Key head.
    pub kv_head: u32,
    /// First query, counted in the sequence.
    pub query_begin: u32,
    /// One past the last query.
    pub query_end: u32,
    /// Pairs that its rows attend to in one head, estimated, or tokens that a state is handed through: what tasks are ordered by.
    pub live: u64,
}

/// An output or a task list that cannot be shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GridError {
    /// Some element belongs to two rows.
    Overlap {
        /// Counts along sequence, head and query.
        counts: [usize; 3],
        /// Strides along them, in elements.
        strides: [usize; 3],
        /// Elements of a row.
        width: usize,
    },
    /// The last row ends past the tensor.
    Short {
        /// Elements that the rows reach to.
        needed: usize,
        /// Elements there are.
        found: usize,
    },
    /// The starts of packed sequences fall, do not begin at 0, or leave the tensor.
    Starts,
    /// Not one state for each sequence.
    States {
        /// Sequences.
        sequences: usize,
        /// States that there are for them.
        states: usize,
    },
    /// A sequence has the state of one before it.
    StateTwice {
        /// The second.
        sequence: usize,
    },
    /// A task's rows are not of the tensor, or another task's too, or the order names a task twice.
    Tasks {
        /// The task.
        task: usize,
    },
}

impl fmt::Display for GridError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GridError::Overlap { counts, strides, width } => write!(
                f,
                "output rows overlap: {counts:?} sequences, heads and queries of {width} elements at strides {strides:?}"
            ),
            GridError::Short { needed, found } => {
                write!(f, "the output's rows reach to element {needed}, it has {found}")
            }
            GridError::Starts => {
                write!(
                    f,
                    "the sequences' first rows do not start at 0, fall, or leave the output's one batch"
                )
            }
            GridError::States { sequences, states } => {
                write!(f, "{states} states for {sequences} sequences: each has one")
            }
            GridError::StateTwice { sequence } => {
                write!(
                    f,
                    "sequence {sequence} has the state of one before it: each call takes a sequence once"
                )
            }
            GridError::Tasks { task } => write!(f, "task {task} of the schedule does not fit the output"),
        }
    }
}

impl core::error::Error for GridError {}

/// Tasks of a call, and where their sequences lie in its outputs.
#[derive(Clone, Copy, Debug)]
pub struct Tasks<'a> {
    /// The tasks, sorted by sequence, key head and first query.
    pub tasks: &'a [Task],
    /// Names each of them once: the order in which they are given out.
    pub order: &'a [u32],
    /// Query heads of a key head.
    pub group: usize,
    /// Where sequences are packed: the row of each sequence's first query along the query axis, and past the last of all.
    pub starts: Option<&'a [i32]>,
}

/// Tasks and the outputs that they write.
pub struct Grid<'a> {
    tasks: Tasks<'a>,
    output: SharedRows<'a>,
    stats: Option<Shared<'a, f32>>,
    kept: Option<Shared<'a, f32>>,
    states: Option<States<'a>>,
    next: AtomicUsize,
}

// SAFETY: threads reach the outputs through `claim` alone, which gives each task to one caller, or, while the grid is borrowed for
// them alone, through `Strips`, `Blocks`, `Parts` or `Cells`, which give each piece of a task to one; `Grid::new` found the tasks' rows disjoint. Elements
// are sent to those threads.
unsafe impl Sync for Grid<'_> {}

impl<'a> Grid<'a> {
    /// Checks outputs and tasks and shares them out in their order. `stats` has the counts of `output`, for what is
    /// written beside each row.
    ///
    /// # Errors
    /// If rows overlap or leave their tensor, or the tasks are not disjoint pieces of it in that order.
    pub fn new(
        tasks: Tasks<'a>,
        output: Rows<'a>,
        stats: Option<RowsMut<'a, f32>>,
    ) -> Result<Self, GridError> {
        let counts = output.counts();
        check_tasks(&tasks, counts)?;
        if let Some(stats) = &stats {
            check_counts(stats, counts)?;
        }
        let stats = stats.map(Shared::new).transpose()?;
        Ok(Self {
            tasks,
            output: SharedRows::new(output)?,
            stats,
            kept: None,
            states: None,
            next: AtomicUsize::new(0),
        })
    }

    /// With rows that a task works on as long as it lasts, and that are an output too: of each head of a sequence as many as
    /// there are, whichever queries its only task has. Where sequences are packed, they are as many as their queries.
    ///
    /// # Errors
    /// If two tasks are of one head, or the rows have other counts than the outputs along sequences and heads, overlap or leave
    /// their tensor.
    pub fn keeping(self, rows: RowsMut<'a, f32>) -> Result<Self, GridError> {
        let counts = self.counts();
        let kept = if self.tasks.starts.is_some() { counts[2] } else { rows.counts[2] };
        check_counts(&rows, [counts[0], counts[1], kept])?;
        self.check_whole_heads()?;
        Ok(Self { kept: Some(Shared::new(rows)?), ..self })
    }

    /// No two tasks are of one head.
    fn check_whole_heads(&self) -> Result<(), GridError> {
        let head = |task: &Task| (task.sequence, task.kv_head);
        // Tasks are sorted: `new` compared them.
        match self.tasks.tasks.windows(2).position(|pair| head(&pair[0]) == head(&pair[1])) {
            Some(task) => Err(GridError::Tasks { task }),
            None => Ok(()),
        }
    }

    const fn counts(&self) -> [usize; 3] {
        self.output.counts()
    }

    /// All heads of a task, and all channels.
    const fn whole(&self) -> Part {
        Part { heads: 0..self.tasks.group, channels: 0..self.output.width() }
    }

    /// The next task, or `None` when all are given out.
    pub fn claim(&self) -> Option<Claim<'_>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let task = *self.tasks.order.get(turn)? as usize;
        Some(Claim { grid: self, task: self.tasks.tasks[task], kept: 0..u32::MAX, part: self.whole() })
    }
}

/// Whether rows are as many as those of the outputs.
fn check_counts(rows: &RowsMut<'_, f32>, counts: [usize; 3]) -> Result<(), GridError> {
    if rows.counts == counts {
        return Ok(());
    }
    let needed = counts.iter().fold(rows.width, |product: usize, &n| product.saturating_mul(n));
    Err(GridError::Short { needed, found: rows.data.len() })
}

fn check_tasks(tasks: &Tasks<'_>, counts: [usize; 3]) -> Result<(), GridError> {
    let &Tasks { tasks, order, group, starts } = tasks;
    let sequences = match starts {
        None => counts[0],
        Some(starts) => {
            let rise = starts.first() == Some(&0) && starts.is_sorted();
            let end = starts.last().and_then(|&end| usize::try_from(end).ok());
            if !rise || counts[0] != 1 || end.is_none_or(|end| end > counts[2]) {
                return Err(GridError::Starts);
            }
            starts.len() - 1
        }
    };
    let queries = |sequence: usize| match starts {
        None => counts[2],
        Some(starts) => (starts[sequence + 1] - starts[sequence]) as usize,
    };
    if tasks.len() > MAX_TASKS as usize || tasks.len() != order.len() {
        return Err(GridError::Tasks { task: tasks.len() });
    }
    let key = |task: &Task| (task.sequence, task.kv_head, task.query_begin);
    for (index, task) in tasks.iter().enumerate() {
        let inside = (task.sequence as usize) < sequences
            && (task.kv_head as usize).checked_mul(group).is_some_and(|head| head + group <= counts[1])
            && task.query_begin <= task.query_end
            && task.query_end as usize <= queries(task.sequence as usize);
        let after = index == 0 || {
            let before = &tasks[index - 1];
            let same = (before.sequence, before.kv_head) == (task.sequence, task.kv_head);
            if same { before.query_end <= task.query_begin } else { key(before) < key(task) }
        };
        if !inside || !after {
            return Err(GridError::Tasks { task: index });
        }
    }
    let mut seen = [0u64; MAX_TASKS as usize / 64];
    for &task in order {
        let (word, bit) = (task as usize / 64, 1 << (task % 64));
        if task as usize >= tasks.len() || seen[word] & bit != 0 {
            return Err(GridError::Tasks { task: task as usize });
        }
        seen[word] |= bit;
    }
    Ok(())
}

/// One task, or a piece of one, and the sole right to write its rows.
pub struct Claim<'g> {
    grid: &'g Grid<'g>,
    task: Task,
    /// Which of the task's kept rows.
    kept: Range<u32>,
    /// What of the rows.
    part: Part,
}

/// Some heads of a task, and some channels of their rows.
#[derive(Clone, Debug)]
struct Part {
    heads: Range<usize>,
    channels: Range<usize>,
}

impl Claim<'_> {
    /// What the task covers.
    pub fn task(&self) -> Task {
        self.task
    }

    #[inline]
    fn place(&self, head_in_group: usize, query: u32) -> [usize; 3] {
        let Task { sequence, kv_head, query_begin, query_end, .. } = self.task;
        let Tasks { group, starts, .. } = self.grid.tasks;
        let is_own = self.part.heads.contains(&head_in_group) && (query_begin..query_end).contains(&query);
        assert!(is_own, "a row of the task");
        let head = kv_head as usize * group + head_in_group;
        match starts {
            None => [sequence as usize, head, query as usize],
            // Starts never fall, so rows of two sequences are apart: `check_tasks` compared them.
            Some(starts) => [0, head, starts[sequence as usize] as usize + query as usize],
        }
    }

    /// The output row of a query, for one of the query heads that share the key head: the channels of it that are claimed.
    ///
    /// # Panics
    /// If the row is not of the task.
    #[inline]
    pub fn output(&mut self, head_in_group: usize, query: u32) -> ElementsMut<'_> {
        let place = self.place(head_in_group, query);
        // SAFETY: the row is of this task (`place` compared), no row is of two tasks (`Grid::new` checked), the task was given
        // out once (`claim` counts up and `order` names it once; so do `Blocks`, whose blocks are apart, `Parts`, whose heads or
        // channels are, and `Cells`, whose queries are too; strips have no such row), and `&mut self` keeps it to one borrow.
        unsafe { self.grid.output.part(place, self.part.channels.clone()) }
    }

    /// Where what is written beside the row goes, if it is asked for.
    ///
    /// # Panics
    /// If the row is not of the task.
    pub fn stats(&mut self, head_in_group: usize, query: u32) -> Option<&mut [f32]> {
        let place = self.place(head_in_group, query);
        assert!(self.part.channels == self.grid.whole().channels, "rows of all channels");
        // SAFETY: as for `output`; `Grid::new` found the counts the same.
        Some(unsafe { &mut *self.grid.stats.as_ref()?.row(place) })
    }

    fn kept_place(&self, head_in_group: usize, row: u32) -> [usize; 3] {
        let Task { sequence, kv_head, .. } = self.task;
        let Tasks { group, starts, .. } = self.grid.tasks;
        assert!(head_in_group < group && self.kept.contains(&row), "a kept row of the claim");
        let head = kv_head as usize * group + head_in_group;
        let Some(starts) = starts else { return [sequence as usize, head, row as usize] };
        let [begin, end] = [starts[sequence as usize], starts[sequence as usize + 1]].map(|at| at as usize);
        assert!((row as usize) < end - begin, "a row of the task's sequence");
        [0, head, begin + row as usize]
    }

    /// A kept row of the task's sequence, for one of its heads, if rows are kept.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn kept(&self, head_in_group: usize, row: u32) -> Option<&[f32]> {
        let place = self.kept_place(head_in_group, row);
        // SAFETY: `row` points into the data that `Grid::keeping` was given, at a row that it found apart from all others; it is
        // of a head of this task's sequence (`kept_place` compared), of which there is no other task (`Grid::keeping` checked),
        // the task was given out once, or its strips were (`Strips` counts, and `kept_place` looked that the row is of this one),
        // and `&self` keeps out `kept_mut`.
        Some(unsafe { &*self.grid.kept.as_ref()?.row(place) })
    }

    /// The same to be written.
    ///
    /// # Panics
    /// As [`Claim::kept`].
    pub fn kept_mut(&mut self, head_in_group: usize, row: u32) -> Option<&mut [f32]> {
        let place = self.kept_place(head_in_group, row);
        // SAFETY: as for `kept`; `&mut self` keeps it to one borrow.
        Some(unsafe { &mut *self.grid.kept.as_ref()?.row(place) })
    }
}

/// Rows of a tensor in bands of some queries of a sequence, over all of its heads, each given out once.
pub struct Bands<'a> {
    rows: SharedRows<'a>,
    queries: usize,
    next: AtomicUsize,
}

// SAFETY: threads reach the rows through `claim` alone, which gives each band to one caller; bands are disjoint, since
// each row lies in the band of its sequence and query. Elements are sent to those threads.
unsafe impl Sync for Bands<'_> {}

impl<'a> Bands<'a> {
    /// Cuts rows into bands of `queries`, at least 1; the last of a sequence may be smaller.
    ///
    /// # Errors
    /// If rows overlap or leave their tensor.
    pub fn new(rows: Rows<'a>, queries: usize) -> Result<Self, GridError> {
        Ok(Self { rows: SharedRows::new(rows)?, queries: queries.max(1), next: AtomicUsize::new(0) })
    }

    /// The next band, or `None` when all are given out.
    pub fn claim(&self) -> Option<Band<'_>> {
        let [sequences, _, queries] = self.rows.counts();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let per_sequence = queries.div_ceil(self.queries);
        let sequence = turn.checked_div(per_sequence).filter(|&sequence| sequence < sequences)?;
        let begin = turn % per_sequence * self.queries;
        let end = queries.min(begin + self.queries);
        Some(Band { rows: &self.rows, sequence, queries: begin..end })
    }
}

/// One band and the sole right to write its rows.
pub struct Band<'g> {
    rows: &'g SharedRows<'g>,
    /// The sequence.
    pub sequence: usize,
    queries: Range<usize>,
}

impl Band<'_> {
    /// The queries of the band.
    pub fn queries(&self) -> Range<usize> {
        self.queries.clone()
    }

    /// A row of the band.
    ///
    /// # Panics
    /// If it is not of the band.
    pub fn row(&mut self, head: usize, query: usize) -> ElementsMut<'_> {
        assert!(self.queries.contains(&query), "a row of the band");
        // SAFETY: the row is of this band (compared above), which was given out once (`claim` counts up; it would take 2^64
        // calls to wrap), and `&mut self` keeps it to one borrow.
        unsafe { self.rows.part([self.sequence, head, query], 0..self.rows.width()) }
    }
}

#[cfg(test)]
mod tests;
