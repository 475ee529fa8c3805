//! Heads shared out, where keys learn and heads are fewer than those who work on them: keys in cells, merged afterwards.
//!
//! A key's lookahead key is nobody else's business, so that a cell of keys can be taken through one query block after the other
//! by whoever has it. What a block sums up in a cell stays apart until all cells of some blocks are done; then cells are added in
//! their order, as one worker adds them, and so with the same bits.

use core::ops::Range;

use regard_engine::grid::{Blocks, Claim, Grid, Lots, Strips as Cells, Task};
use regard_engine::threads::Threads;
use regard_engine::{Engine, Op};
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;

use super::super::memory::{Layout, Memory};
use super::sweep::Lesson;
use super::{Block, EMPTY, Pass, Shared};
use crate::schedule;

/// How heads are shared out.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Strips {
    /// Whole heads of sequences.
    tasks: usize,
    /// Cells of a sequence's keys at most.
    cells: usize,
    /// Query blocks that are taken through all cells at a time, and all that a sequence has at most.
    blocks: usize,
    all_blocks: usize,
    /// Numbers of a block's sums.
    state: usize,
}

impl Strips {
    /// Of so many heads of sequences, with query blocks of so many rows of sums; `most` numbers of sums are kept if that many do.
    pub fn new(
        plan: &Plan,
        problem: &Problem<'_>,
        tasks: usize,
        (rows, value_width): (usize, usize),
        most: usize,
    ) -> Self {
        let [_, queries, keys] = problem.extents().map(|n| n as usize);
        let cells = keys.div_ceil(plan.prefill.key_cell.max(1) as usize);
        let all_blocks = queries.div_ceil(plan.prefill.query_block.max(1) as usize);
        let state = rows * (value_width + 2);
        let of_block = tasks.saturating_mul(cells).saturating_mul(state).max(1);
        Self { tasks, cells, blocks: (most / of_block).clamp(1, all_blocks.max(1)), all_blocks, state }
    }

    /// Numbers of sums that are kept if so many threads share the heads.
    pub fn len(&self, threads: usize) -> usize {
        if schedule::are_few(self.tasks, threads) && self.cells > 1 {
            self.tasks.saturating_mul(self.cells).saturating_mul(self.of_strip())
        } else {
            0
        }
    }

    /// Whether so many threads share them.
    pub fn serve(&self, threads: usize) -> bool {
        self.len(threads) > 0 && schedule::keep_waiting(self.tasks, threads)
    }

    /// Numbers of the sums of a cell.
    fn of_strip(&self) -> usize {
        self.blocks.saturating_mul(self.state)
    }

    /// Where the sums of a query block of a round in a cell of a task are.
    fn state(&self, task: usize, cell: usize, block: usize) -> Range<usize> {
        let begin = (task * self.cells + cell) * self.of_strip() + block * self.state;
        begin..begin + self.state
    }
}

/// Runs all tasks of a grid.
pub(in super::super) fn run<E: Engine>(
    shared: &Shared<'_, E>,
    strips: &Strips,
    grid: &mut Grid<'_>,
    threads: &dyn Threads,
    (sums, workers): (&mut [f32], &mut [f32]),
) {
    let (engine, blocks) = (shared.engine, &shared.parts.plan.prefill);
    for first in (0..strips.all_blocks).step_by(strips.blocks) {
        let numbers = first as u32..(first + strips.blocks).min(strips.all_blocks) as u32;
        let cells = Cells::new(grid, (blocks.key_cell, strips.cells), sums, strips.of_strip());
        let lots = Lots::new(&mut *workers, shared.layout.worker_len());
        threads.run(&|_| {
            if let Some((_, memory)) = lots.take() {
                engine.enter(Sweep { shared, strips, cells: &cells, numbers: numbers.clone(), memory });
            }
        });
        let merged = Blocks::new(grid, blocks.query_block, numbers.clone());
        let lots = Lots::new(&mut *workers, shared.layout.worker_len());
        let sums = &*sums;
        threads.run(&|_| {
            if let Some((_, memory)) = lots.take() {
                let first = numbers.start;
                engine.enter(Merge { shared, strips, blocks: &merged, first, sums, memory });
            }
        });
    }
}

/// A worker's share of the cells of some query blocks.
struct Sweep<'a, E: Engine> {
    shared: &'a Shared<'a, E>,
    strips: &'a Strips,
    cells: &'a Cells<'a>,
    numbers: Range<u32>,
    memory: &'a mut [f32],
}

impl<E: Engine> Op for Sweep<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { shared, strips, cells, numbers, memory } = self;
        let mut memory = shared.layout.carve(memory);
        while let Some((mut claim, keys, sums)) = cells.take() {
            strip(
                shared,
                &mut claim,
                (keys, numbers.clone()),
                sums.chunks_exact_mut(strips.state),
                &mut memory,
            );
        }
    }
}

/// A worker's share of the outputs of some query blocks.
struct Merge<'a, E: Engine> {
    shared: &'a Shared<'a, E>,
    strips: &'a Strips,
    blocks: &'a Blocks<'a>,
    /// The number of the first.
    first: u32,
    sums: &'a [f32],
    memory: &'a mut [f32],
}

impl<E: Engine> Op for Merge<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { shared, strips, blocks, first, sums, memory } = self;
        let mut memory = shared.layout.carve(memory);
        while let Some((mut claim, task, number)) = blocks.take() {
            let Task { query_begin, query_end, .. } = claim.task();
            let block = block(shared, claim.task(), query_begin..query_end);
            let pass = Pass { shared, block, visit: None };
            pass.prepare(&mut memory);
            for cell in 0..strips.cells {
                pass.restore(&sums[strips.state(task, cell, (number - first) as usize)], &mut memory);
                pass.close_cells(&mut memory);
            }
            pass.write_rows(&mut claim, &mut memory);
        }
    }
}

/// Some queries of a task.
fn block<E: Engine>(shared: &Shared<'_, E>, task: Task, queries: Range<u32>) -> Block {
    let Task { sequence, kv_head, .. } = task;
    let of = shared.parts.problem.sequence(sequence);
    Block { sequence, of, kv_head, first_query: queries.start, queries: queries.end - queries.start }
}

/// Takes the query blocks of some numbers through a cell of keys, and writes what each sums up there.
#[inline(always)]
fn strip<'s, E: Engine>(
    shared: &Shared<'_, E>,
    claim: &mut Claim<'_>,
    (keys, numbers): (Range<u32>, Range<u32>),
    sums: impl Iterator<Item = &'s mut [f32]>,
    memory: &mut Memory<'_>,
) {
    let task = claim.task();
    let visit = super::visit(shared, &task);
    let of = shared.parts.problem.sequence(task.sequence);
    let mut own = memory.learning.take();
    let learning = shared.learning.as_ref().zip(shared.layout.learning.as_ref());
    let mut lesson = learning.zip(own.as_mut()).map(|((of, layout), own)| Lesson { of, layout, own });
    let queries = |number: u32| {
        let at = |number: u32| number.saturating_mul(shared.parts.plan.prefill.query_block).min(of.queries);
        at(number)..at(number + 1)
    };
    if let Some(lesson) = &mut lesson {
        let fresh = if numbers.start == 0 { of.q_offset as u32..of.keys } else { 0..0 };
        lesson.begin(claim, fresh.start.max(keys.start)..fresh.end.min(keys.end));
    }
    for (queries, sums) in numbers.map(queries).zip(sums) {
        let pass = Pass { shared, block: block(shared, task, queries.clone()), visit: visit.as_ref() };
        let end = pass.taught_to().min(keys.end);
        if queries.is_empty() || keys.start >= end || pass.is_dead(keys.start..end, &lesson) {
            Pass::<E>::forget(shared.layout, sums);
            continue;
        }
        pass.prepare(memory);
        if let Some(lesson) = &mut lesson {
            pass.prepare_tokens(lesson, memory);
        }
        pass.sweep(keys.start..end, claim, memory, &mut lesson);
        pass.keep(memory, sums);
    }
    memory.learning = own;
}

impl<E: Engine> Pass<'_, E> {
    /// Copies the sums of the cell under way: outputs, references and sums of weights.
    fn keep(&self, memory: &Memory<'_>, to: &mut [f32]) {
        let parts = [&*memory.cell_output, &*memory.cell_reference, &*memory.cell_sum];
        let mut to = to;
        for part in parts {
            let (here, rest) = to.split_at_mut(part.len());
            here.copy_from_slice(part);
            to = rest;
        }
    }

    /// Takes them back.
    fn restore(&self, from: &[f32], memory: &mut Memory<'_>) {
        let (output, rest) = from.split_at(memory.cell_output.len());
        let (reference, sum) = rest.split_at(memory.cell_reference.len());
        memory.cell_sum.copy_from_slice(sum);
        if sum.iter().any(|&sum| sum != EMPTY) {
            memory.cell_output.copy_from_slice(output);
            memory.cell_reference.copy_from_slice(reference);
        }
    }

    /// Makes sums those of no key.
    fn forget(layout: &Layout, sums: &mut [f32]) {
        let at = sums.len() - layout.rows;
        sums[at..].fill(EMPTY);
    }
}

#[cfg(test)]
mod tests {
    use super::Strips;

    #[test]
    fn heads_are_shared_out_where_threads_would_wait() {
        let of = |tasks, cells| Strips { tasks, cells, blocks: 1, all_blocks: 1, state: 1 };
        for (tasks, threads, shared) in
            [(1, 2, true), (3, 2, true), (2, 2, false), (4, 2, false), (1, 1, false)]
        {
            assert_eq!(of(tasks, 4).serve(threads), shared, "{tasks} heads, {threads} threads");
            assert!(!of(tasks, 1).serve(threads), "one cell cannot be shared");
        }
    }

    #[test]
    fn memory_for_more_threads_serves_fewer() {
        for tasks in 1..9 {
            let strips = Strips { tasks, cells: 3, blocks: 2, all_blocks: 5, state: 7 };
            for (more, fewer) in (1..9).flat_map(|more| (1..=more).map(move |fewer| (more, fewer))) {
                assert!(strips.len(fewer) <= strips.len(more), "{tasks} heads, {fewer} of {more} threads");
            }
        }
    }
}
