//! Cells shared out, where heads and channels alone would keep threads waiting.
//!
//! Cells go in waves. What each adds is summed up first; then the states that they begin with follow, one from the other; then each is
//! read as if it were alone. All of this is done with the same numbers where one cell is taken after the other, so no bit depends on
//! it; what a chunk adds is made twice, which is a third of the work or less.

use core::ops::Range;

use regard_engine::grid::{
    Cell, Cells, Claim, Cut, Grid, GridError, Lots, Parts, Rows, Sharing, StateRows, Tasks,
};
use regard_engine::threads::Threads;
use regard_engine::{Engine, Op};

use super::cell;
use super::memory::{Layout, Memory};
use super::part::{Part, Shared};

/// What is shared out.
pub(super) struct Scan<'s, 'a, E: Engine> {
    pub shared: &'s Shared<'a, E>,
    pub tasks: Tasks<'s>,
    pub cut: Cut,
    /// Whether states are asked for.
    pub has_states: bool,
}

/// Where outputs and states go.
pub(super) struct To<'s> {
    pub o: Rows<'s>,
    pub states: Option<StateRows<'s>>,
}

/// Takes all tasks of a call, in the memory of workers and of waves.
pub(super) fn run<E: Engine>(
    scan: &Scan<'_, '_, E>,
    mut to: To<'_>,
    threads: &dyn Threads,
    (workers, slots): (&mut [f32], &mut [f32]),
) -> Result<(), GridError> {
    let (layout, causal) = (scan.shared.layout, scan.shared.recurrence.causal);
    let (wave, [keys, queries]) = (layout.wave as u32, scan.most_cells());
    scan.carry(&mut to, (workers, slots), |part, claim, memory, carried| {
        part.begin(claim, memory);
        carried.put(memory);
    })?;
    for first in (0..keys).step_by(layout.wave) {
        let cells = first..first.saturating_add(wave).min(keys);
        let lots = Lots::new(slots, Slot::len(layout));
        scan.each(threads, workers, |memory| Add { scan, cells: cells.clone(), lots: &lots, memory });
        let lots = Lots::new(slots, Slot::len(layout) * (layout.wave + 1));
        scan.each(threads, workers, |memory| Follow { scan, cells: cells.clone(), lots: &lots, memory });
        if causal {
            scan.read(&mut to.o, threads, cells, (workers, slots))?;
        }
    }
    if !causal {
        scan.read(&mut to.o, threads, 0..queries, (workers, slots))?;
    }
    scan.carry(&mut to, (workers, slots), |part, claim, memory, carried| {
        carried.get(memory);
        part.end(claim, memory);
    })
}

impl<'a, E: Engine> Scan<'_, 'a, E> {
    /// A part of all.
    fn part(&self, number: usize) -> Part<'_, 'a, E> {
        let [task, piece] = self.cut.task(number);
        let task = &self.tasks.tasks[self.tasks.order[task] as usize];
        Part::new(self.shared, task, self.cut.part(piece))
    }

    /// Cells of the keys and of the queries of the longest sequence.
    fn most_cells(&self) -> [u32; 2] {
        let cell = self.shared.layout.cell() as u32;
        let [keys, queries] = [self.shared.problem.keys, self.shared.problem.queries];
        [keys.div_ceil(cell), queries.div_ceil(cell)]
    }

    /// Tokens of a cell of a part's keys, and whether what they add is asked for.
    fn tokens(&self, part: &Part<'_, '_, E>, cell: u32) -> (Range<usize>, bool) {
        let (size, keys) = (self.shared.layout.cell(), part.of.keys as usize);
        let at = |cell: usize| cell.saturating_mul(size).min(keys);
        let tokens = at(cell as usize)..at(cell as usize + 1);
        let goes_on = tokens.end < keys || self.has_states || !self.shared.recurrence.causal;
        (tokens.clone(), goes_on && !tokens.is_empty())
    }

    /// Has each part take the state that is carried from wave to wave from the caller, or give it back.
    fn carry(
        &self,
        to: &mut To<'_>,
        (workers, slots): (&mut [f32], &mut [f32]),
        take: impl Fn(&Part<'_, 'a, E>, &mut Claim<'_>, &mut Memory<'_>, Slot<'_>),
    ) -> Result<(), GridError> {
        let layout = self.shared.layout;
        let mut grid = Grid::new(self.tasks, to.o.reborrow(), None)?;
        if let Some(states) = &mut to.states {
            grid = grid.with_states(states.reborrow())?;
        }
        let parts = Parts::new(&mut grid, [layout.heads, layout.channels], (1, Sharing::Even));
        let mut memory = layout.carve(&mut workers[..layout.worker_len()]);
        let all = slots.chunks_exact_mut(Slot::len(layout) * (layout.wave + 1)).enumerate();
        for (number, slots) in all {
            let Some((mut claim, ..)) = parts.take(0) else { break };
            let carried = Slot::of(layout, &mut slots[Slot::len(layout) * layout.wave..]);
            take(&self.part(number), &mut claim, &mut memory, carried);
        }
        Ok(())
    }

    /// Runs what each worker does in its memory.
    fn each<'m, O: Op<Output = ()>>(
        &self,
        threads: &dyn Threads,
        workers: &'m mut [f32],
        work: impl Fn(Memory<'m>) -> O + Sync,
    ) {
        let layout = self.shared.layout;
        let lots = Lots::new(workers, layout.worker_len());
        threads.run(&|_| {
            // More calls than lots mean a `Threads` that calls more often than it counts: the others do the work.
            if let Some((_, memory)) = lots.take() {
                self.shared.engine.enter(work(layout.carve(memory)));
            }
        });
    }

    /// Outputs of some cells, whose states are there.
    fn read(
        &self,
        o: &mut Rows<'_>,
        threads: &dyn Threads,
        cells: Range<u32>,
        (workers, slots): (&mut [f32], &[f32]),
    ) -> Result<(), GridError> {
        let layout = self.shared.layout;
        let mut grid = Grid::new(self.tasks, o.reborrow(), None)?;
        let sizes = [layout.heads, layout.channels];
        let first = cells.start;
        let cells = Cells::new(&mut grid, sizes, (layout.cell() as u32, cells));
        self.each(threads, workers, |memory| Read { scan: self, first, cells: &cells, slots, memory });
        Ok(())
    }
}

/// What of a part is kept of a cell: what it adds, and then the state that it begins with.
struct Slot<'m> {
    /// Of each head, as `Memory::states` and `Memory::norms` have them.
    state: &'m mut [f32],
    norms: &'m mut [f32],
    /// What the cell leaves of the states' rows.
    kept: [&'m mut [f32]; 2],
    /// One number: whether what came before the cell is forgotten.
    forgets: &'m mut [f32],
}

impl<'m> Slot<'m> {
    fn sizes(layout: &Layout) -> [usize; 5] {
        let norms = layout.heads.saturating_mul(layout.dims);
        [norms.saturating_mul(layout.width), norms, norms, norms, 1]
    }

    /// Floats of one.
    fn len(layout: &Layout) -> usize {
        crate::carve::len(Self::sizes(layout))
    }

    fn of(layout: &Layout, memory: &'m mut [f32]) -> Self {
        let mut carve = crate::carve::Carve::new(memory, Self::sizes(layout));
        Self {
            state: carve.next(),
            norms: carve.next(),
            kept: [carve.next(), carve.next()],
            forgets: carve.next(),
        }
    }

    /// Takes the states of a worker.
    fn put(self, memory: &Memory<'_>) {
        self.state.copy_from_slice(memory.states);
        self.norms.copy_from_slice(memory.norms);
    }

    /// Gives them to a worker.
    fn get(self, memory: &mut Memory<'_>) {
        memory.states.copy_from_slice(self.state);
        memory.norms.copy_from_slice(self.norms);
    }
}

/// Floats of all that is kept of a wave of so many parts.
pub(super) fn len(layout: &Layout) -> usize {
    match layout.wave {
        0 => 0,
        wave => Slot::len(layout).saturating_mul(wave + 1).saturating_mul(layout.parts),
    }
}

/// Sums up what each cell of a wave adds.
struct Add<'s, 'a, 'm, E: Engine> {
    scan: &'s Scan<'s, 'a, E>,
    cells: Range<u32>,
    lots: &'s Lots<'s, f32>,
    memory: Memory<'m>,
}

impl<E: Engine> Op for Add<'_, '_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { scan, cells, lots, mut memory } = self;
        let layout = scan.shared.layout;
        while let Some((number, slot)) = lots.take() {
            let (number, at) = (number / (layout.wave + 1), number % (layout.wave + 1));
            let cell = cells.start + at as u32;
            if at == layout.wave || !cells.contains(&cell) {
                continue;
            }
            let part = scan.part(number);
            let (tokens, is_wanted) = scan.tokens(&part, cell);
            if !is_wanted {
                continue;
            }
            let slot = Slot::of(layout, slot);
            slot.forgets[0] = f32::from(u8::from(tokens.clone().any(|token| part.restarts(token))));
            part.add_cell(&mut memory, tokens);
            slot.state.copy_from_slice(memory.added[0]);
            slot.norms.copy_from_slice(memory.added[1]);
            slot.kept.into_iter().zip(&memory.kept).for_each(|(to, from)| to.copy_from_slice(from));
        }
    }
}

/// Finds the state that each cell of a wave begins with.
struct Follow<'s, 'a, 'm, E: Engine> {
    scan: &'s Scan<'s, 'a, E>,
    cells: Range<u32>,
    lots: &'s Lots<'s, f32>,
    memory: Memory<'m>,
}

impl<E: Engine> Op for Follow<'_, '_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { scan, cells, lots, mut memory } = self;
        let (layout, lanes) = (scan.shared.layout, scan.shared.engine.lanes());
        while let Some((number, slots)) = lots.take() {
            let part = scan.part(number);
            let (slots, carried) = slots.split_at_mut(Slot::len(layout) * layout.wave);
            Slot::of(layout, carried).get(&mut memory);
            for (cell, slot) in cells.clone().zip(slots.chunks_exact_mut(Slot::len(layout))) {
                let slot = Slot::of(layout, slot);
                if scan.tokens(&part, cell).1 {
                    memory.added[0].copy_from_slice(slot.state);
                    memory.added[1].copy_from_slice(slot.norms);
                    memory.kept.iter_mut().zip(&slot.kept).for_each(|(to, from)| to.copy_from_slice(from));
                    let forgets = slot.forgets[0] != 0.0;
                    slot.put(&memory);
                    if forgets {
                        memory.states.fill(0.0);
                        memory.norms.fill(0.0);
                    }
                    cell::end(lanes, layout, &mut memory, part.heads.len());
                } else {
                    slot.put(&memory);
                }
            }
            Slot::of(layout, carried).put(&memory);
        }
    }
}

/// Outputs of cells.
struct Read<'s, 'a, 'm, E: Engine> {
    scan: &'s Scan<'s, 'a, E>,
    first: u32,
    cells: &'s Cells<'s>,
    slots: &'s [f32],
    memory: Memory<'m>,
}

impl<E: Engine> Op for Read<'_, '_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { scan, first, cells, slots, mut memory } = self;
        let (layout, causal) = (scan.shared.layout, scan.shared.recurrence.causal);
        let [states, norms, ..] = Slot::sizes(layout);
        while let Some(Cell { mut claim, part: number, number: cell }) = cells.take() {
            let part = scan.part(number);
            let task = claim.task();
            let tokens = task.query_begin as usize..task.query_end as usize;
            // Without a mask all read the state after the last key.
            let at = if causal { (cell - first) as usize } else { layout.wave };
            let slot = &slots[(number * (layout.wave + 1) + at) * Slot::len(layout)..];
            let (state, rest) = slot.split_at(states);
            memory.states.copy_from_slice(state);
            memory.norms.copy_from_slice(&rest[..norms]);
            if causal {
                part.causal(&mut claim, &mut memory, tokens);
            } else {
                part.read_all(&mut claim, &mut memory, tokens);
            }
        }
    }
}
