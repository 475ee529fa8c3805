//! Recurrences: a state of each value head, which tokens write and queries read, in chunks of tokens.
//!
//! A task is a sequence and key head; it is given out in parts of some value heads, whose queries and keys are the same, and some
//! channels of their values. Columns of a state have nothing to do with each other, so no bit depends on how they are shared out.
//! A part takes its tokens in chunks on a grid of absolute positions: inside a chunk products of matrices stand for the recurrence
//! ([`chunk`]), between chunks the state is handed on. Few tokens are taken one after the other ([`step`]).

mod ahead;
mod cell;
mod channels;
mod chunk;
mod inputs;
mod kept;
mod memory;
mod part;
mod rows;
mod scan;
mod step;

use regard_engine::grid::{Cut, Grid, Lots, Parts as GridParts, Sharing, StateRows, Task, Tasks};
use regard_engine::threads::Threads;
use regard_engine::{Engine, Op};
use regard_ir::inputs::{Captured, InputData};
use regard_ir::plan::Plan;
use regard_ir::problem::{Packed, Problem};
use regard_ir::variant::{Recurrence, Variant};

use self::memory::Layout;
#[cfg(feature = "alloc")]
pub(crate) use self::memory::Share;
use self::part::Shared;
use crate::carve::{Carve, align};
use crate::code::{Code, Fault};
use crate::finish::Finish;
use crate::flash::{Inputs, Outputs, Parts, RunError, Workspace, WorkspaceLen, check_outputs};
use crate::operands::{KeyRows, QueryRows};
use crate::rows::{Change, Side, turns};
use crate::tokens;
use crate::view::ViewMut;

/// States of a call: before its first tokens when it begins, and after the last when it ends.
#[derive(Debug)]
pub struct States<'a> {
    /// `[sequence][value head][dim]` rows of `value_dim`.
    pub state: ViewMut<'a>,
    /// Sums of features, `[sequence][value head][1]` rows of `dim`: of a variant that divides by them.
    pub norm: Option<ViewMut<'a>>,
}

/// States of sequences that are kept from call to call, the last few of each.
#[derive(Debug)]
pub struct CachedStates<'a> {
    /// `[state][value head]` with `depth` times `dim` rows of `value_dim`, and `depth` rows of `dim`. That after so many tokens, all
    /// calls together, is the one of this number modulo `depth`.
    pub states: States<'a>,
    /// Which state is that of each sequence of the call; where absent, they are in the same order.
    pub of: Option<&'a [u32]>,
    /// How many of its last states are kept of each head: at least 1. Calls of fewer tokens leave one after each of them.
    pub depth: usize,
}

impl<'a> From<States<'a>> for CachedStates<'a> {
    fn from(states: States<'a>) -> Self {
        Self { states, of: None, depth: 1 }
    }
}

/// Whether a call of so many tokens, on cached states of which so many are kept, leaves one after each token: else one after the last
/// alone.
pub fn leaves_each(plan: &Plan, tokens: usize, depth: usize) -> bool {
    let one_by_one = plan.recurrence.map_or(0, |recurrence| recurrence.one_by_one as usize);
    tokens <= one_by_one.max(depth.saturating_sub(1))
}

/// How much memory a run needs with `threads` workers.
pub(crate) fn workspace_len<E: Engine>(
    (variant, recurrence): (&Variant<'_>, &Recurrence),
    plan: &Plan,
    code: &dyn Code<E::Lanes>,
    problem: &Problem<'_>,
    threads: usize,
) -> WorkspaceLen {
    let layout = Layout::new::<E>(variant, recurrence, plan, problem, (code, threads));
    WorkspaceLen { floats: layout.len(threads.max(1)), spans: 0 }
}

/// Runs a recurrence over the tasks of a schedule, each of which is a whole head. States are zero where none are given.
pub(crate) fn run<E: Engine>(
    engine: E,
    (parts, recurrence): (Parts<'_>, &Recurrence),
    code: &dyn Code<E::Lanes>,
    inputs: Inputs<'_>,
    (outputs, states): (Outputs<'_>, Option<CachedStates<'_>>),
    threads: &dyn Threads,
    memory: Workspace<'_>,
) -> Result<(), RunError> {
    let Parts { variant, plan, problem, schedule, .. } = parts;
    let Inputs { q, kv, captured: data, gate } = inputs;
    let (QueryRows::Plain(q), KeyRows::Plain { k, v }) = (q, kv) else { return Err(RunError::Mechanism) };
    if problem.part.is_some() {
        return Err(RunError::Partial);
    }
    check_outputs((variant, plan.dtype), problem, gate.as_ref(), &outputs)?;
    if recurrence.causal && !has_query_for_each_key(problem) {
        return Err(RunError::QueryForEachKey);
    }
    if !are_heads(schedule.tasks, variant.heads.kv, problem) {
        return Err(RunError::Schedule);
    }
    if let Some(states) = &states {
        check_states((variant, recurrence), problem, states)?;
    }
    let captured = Captured::bind(variant.inputs, data, &variant.heads, variant.source, problem)
        .map_err(RunError::Captured)?;
    let layout = Layout::new::<E>(variant, recurrence, plan, problem, (code, schedule.threads as usize));
    let needed = WorkspaceLen { floats: layout.len(threads.count().max(1)), spans: 0 };
    let found = WorkspaceLen { floats: memory.floats.len(), spans: memory.spans.len() };
    if found.floats < needed.floats {
        return Err(RunError::Workspace { needed, found });
    }
    let sizes = [layout.tokens.frequencies_len(), layout.tokens.table_len(), scan::len(&layout)];
    let mut carve = Carve::new(align(memory.floats), sizes);
    let (frequencies, table, slots) = (carve.next(), carve.next(), carve.next());
    let workers = carve.rest();

    let group = (variant.heads.value / variant.heads.kv) as usize;
    let starts = problem.packed.as_ref().map(Packed::cu_q);
    let tasks = Tasks { tasks: schedule.tasks, order: schedule.order, group, starts };
    let depth = states.as_ref().map_or(1, |states| states.depth.max(1));
    let mut to = scan::To { o: outputs.o.0, states: states.map(rows_of).transpose()? };

    let fault = Fault::new();
    if let Some(position) = &variant.position {
        tokens::frequencies(position, &captured, frequencies);
    }
    let fill = tokens::Fill {
        layout: layout.tokens,
        variant,
        problem,
        rows: tokens::Rows { q: Some(q), k: Some(k) },
        captured: &captured,
        fault: &fault,
        frequencies,
    };
    let tokens = tokens::fill(engine, fill, table, threads);
    let change = |side| Change::new(variant, side, &captured, tokens).filter(|_| turns(variant, side));
    let shared = Shared {
        engine,
        variant,
        recurrence: *recurrence,
        problem,
        code,
        q,
        k,
        v,
        changes: [change(Side::Query), change(Side::Key)],
        captured: &captured,
        fault: &fault,
        layout: &layout,
        plan,
        depth,
        finish: Finish::new(variant, &captured, gate),
    };
    let is_whole = (0..problem.batch).all(|b| {
        let tokens = problem.sequence(b).keys as usize;
        !recurrence.causal || tokens == 0 || !leaves_each(plan, tokens, depth)
    });
    if layout.wave > 0 && is_whole {
        let cut = Cut::new([group, variant.heads.value_dim as usize], [layout.heads, layout.channels]);
        let scan = scan::Scan { shared: &shared, tasks, cut, has_states: to.states.is_some() };
        scan::run(&scan, to, threads, (workers, slots)).map_err(RunError::Output)?;
    } else {
        let mut grid = Grid::new(tasks, to.o.reborrow(), None).map_err(RunError::Output)?;
        if let Some(states) = to.states {
            grid = grid.with_states(states).map_err(RunError::Output)?;
        }
        let is_step = (0..problem.batch).all(|b| problem.sequence(b).queries as usize <= layout.one_by_one);
        // A state that another core has had comes from there, and has to go back for the next step.
        let sharing = match is_step {
            true if layout.holds_states => Sharing::Own,
            true => Sharing::Near,
            false => Sharing::Even,
        };
        let grid = GridParts::new(&mut grid, [layout.heads, layout.channels], (threads.count(), sharing));
        let lots = Lots::new(workers, layout.worker_len());
        threads.run(&|worker| {
            // More calls than lots mean a `Threads` that calls more often than it counts: the others do the work.
            if let Some((_, memory)) = lots.take() {
                engine.enter(Sweep { shared: &shared, grid: &grid, worker, memory });
            }
        });
    }
    fault.input().map_or(Ok(()), |input| Err(RunError::Index { input }))
}

/// Rows of states, which are floats.
fn rows_of(of: CachedStates<'_>) -> Result<StateRows<'_>, RunError> {
    let CachedStates { states: States { state, norm }, of, .. } = of;
    let norm = norm.map(|norm| norm.floats("norm")).transpose()?;
    Ok(StateRows { rows: state.floats("state")?, norm, of })
}

/// Whether tasks are the key heads of all sequences, each whole.
fn are_heads(tasks: &[Task], kv_heads: u32, problem: &Problem<'_>) -> bool {
    let heads = (0..problem.batch).flat_map(|b| {
        let queries = problem.sequence(b).queries;
        (0..kv_heads).map(move |g| (b, g, 0, queries))
    });
    tasks.iter().map(|task| (task.sequence, task.kv_head, task.query_begin, task.query_end)).eq(heads)
}

/// Whether each sequence has a query for each key. The first is at the position that so many tokens of its state have led to.
fn has_query_for_each_key(problem: &Problem<'_>) -> bool {
    (0..problem.batch).map(|b| problem.sequence(b)).all(|of| of.queries == of.keys && of.q_offset >= 0)
}

/// Whether states are as variant and problem make them.
fn check_states(
    (variant, recurrence): (&Variant<'_>, &Recurrence),
    problem: &Problem<'_>,
    CachedStates { states, of, depth }: &CachedStates<'_>,
) -> Result<(), RunError> {
    let [heads, dim, width] =
        [variant.heads.value, variant.heads.dim, variant.heads.value_dim].map(|n| n as usize);
    let shape = |tensor, view: &ViewMut<'_>, rows, width| {
        let [count, found_heads, found_rows] = view.0.counts();
        let found = [count, found_heads, found_rows, view.0.width()];
        let sequences = if of.is_some() { count } else { problem.batch as usize };
        let expected = [sequences, heads, rows, width];
        if found == expected { Ok(()) } else { Err(RunError::Shape { tensor, found, expected }) }
    };
    let depth = (*depth).max(1);
    shape("state", &states.state, dim.saturating_mul(depth), width)?;
    match (&states.norm, recurrence.normalize_eps) {
        (None, None) => Ok(()),
        (Some(norm), Some(_)) => shape("norm", norm, depth, dim),
        (norm, _) => Err(RunError::Norm { wanted: norm.is_none() }),
    }
}

/// One worker's share of the parts.
struct Sweep<'a, E: Engine> {
    shared: &'a Shared<'a, E>,
    grid: &'a GridParts<'a>,
    worker: usize,
    memory: &'a mut [f32],
}

impl<E: Engine> Op for Sweep<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut memory = self.shared.layout.carve(self.memory);
        while let Some((mut claim, heads, channels)) = self.grid.take(self.worker) {
            part::run(self.shared, &mut claim, (heads, channels), &mut memory);
        }
    }
}

/// The elements of an input of ids.
fn ids<'a>(captured: &Captured<'a>, input: u16) -> &'a [i32] {
    match captured.data(input.into()) {
        InputData::I32(ids) => ids,
        _ => &[],
    }
}
