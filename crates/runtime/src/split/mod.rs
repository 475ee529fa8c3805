//! The split skeleton: a few queries of each sequence over its cached keys, which are cut into cells for the threads.
//!
//! Generation is bound by the reads of the cache. So all query heads that share a key head take one pass over its keys,
//! each page is read once, and what is read next is asked for early. A cell of keys on a grid of absolute positions is the
//! work that is shared out: its sums start from zero, and the cells of a row are added up in their order, so that no bit
//! depends on how many threads there are, on the other sequences of a call, or on how many queries share the pass.
//!
//! In a cell, chunks of pages are scored, weighed and added up in turn. Lanes are keys while scores are made and weighed,
//! channels while values are added up. Of pseudo-heads, whose rows are sums over all heads, [`expanded`] mixes queries for a cache
//! of such rows, and [`mixed`] takes all heads through a cell of rows as they were given together.

mod append;
mod cell;
mod expanded;
mod learn;
mod lesson;
mod live;
mod memory;
mod merge;
mod mixed;
#[cfg(feature = "alloc")]
mod overview;
mod runs;
mod stacks;
mod teach;
mod weigh;

use regard_engine::grid::{LotRuns, Lots};
use regard_engine::isa::Door;
use regard_engine::pack::MAX_DIM;
use regard_engine::threads::Threads;
use regard_engine::{Engine, Op};
use regard_ir::cache::PAGE_STEP;
use regard_ir::inputs::{self, Captured, InputData};
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::variant::{Mechanism, Variant};

pub(crate) use self::append::{Stored, rows_len};
pub use self::append::{Tokens, append, append_len};
#[cfg(feature = "alloc")]
pub use self::overview::overview;

use self::cell::{Call, Cell, Shared};
use self::live::LiveCells;
use self::memory::{Common, Layout};
pub(crate) use self::merge::Cells;
use self::stacks::{Cached, Stacks};
use crate::cache::Caches;
use crate::carve::align;
use crate::code::{Code, Fault};
use crate::flash::part::{Of, RowsOf, finish_of};
use crate::flash::{Outputs, RunError, Workspace, WorkspaceLen, check_caches, check_outputs, check_storage};
use crate::latent;
use crate::operands::{self, QueryRows};
use crate::rows::{Change, Side, Tensor, turns};
use crate::sight::Sight;
use crate::summary::Summaries;
use crate::tokens;
use crate::view::View;

/// What a call reads beside the caches.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// The queries.
    pub q: QueryRows<'a>,
    /// Captured tensors: the declared ones in the order of their declaration, then those of learned tables.
    pub captured: &'a [InputData<'a>],
    /// The gate of the outputs, for variants that have one.
    pub gate: Option<View<'a>>,
}

impl<'a> Queries<'a> {
    /// Queries of a variant that captures nothing and has no gate.
    pub const fn new(q: View<'a>) -> Self {
        Self::of(QueryRows::Plain(q))
    }

    /// Queries of any mechanism, of a variant that captures nothing and has no gate.
    pub const fn of(q: QueryRows<'a>) -> Self {
        Self { q, captured: &[], gate: None }
    }

    /// With captured tensors.
    pub fn captured(self, captured: &'a [InputData<'a>]) -> Self {
        Self { captured, ..self }
    }

    /// With the gate of the outputs.
    pub fn gate(self, gate: View<'a>) -> Self {
        Self { gate: Some(gate), ..self }
    }
}

/// What a kernel is made of, and the caches of one call.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The variant.
    pub variant: &'a Variant<'a>,
    /// Its plan.
    pub plan: &'a Plan,
    /// Sizes of the call; its keys are those of the caches.
    pub problem: &'a Problem<'a>,
    /// The cache of each sequence.
    pub caches: &'a dyn Caches,
}

/// How much memory a call needs with `threads` workers: of a problem, in positions, that is no larger in any way, sequences,
/// queries of one, keys of one, and whose queries see keys in at most so many cells of each sequence.
pub fn workspace<E: Engine>(
    _: E,
    (variant, plan): (&Variant<'_>, &Plan),
    code: &dyn Code<E::Lanes>,
    problem: &Problem<'_>,
    cells_of_sequence: usize,
    threads: usize,
) -> WorkspaceLen {
    let cells = (problem.batch as usize).saturating_mul(cells_of_sequence);
    let lens = inputs::lens(variant.inputs, &variant.heads, variant.source, problem);
    let spans = Summaries::len(variant.masks(), lens);
    let (stored, beside) = match &variant.mechanism {
        Mechanism::Pseudo(_) if plan.cache.mixed => {
            (variant.scored(), expanded::workspace_len(variant, problem, threads))
        }
        Mechanism::Pseudo(_) => {
            let floats = mixed::workspace_len::<E>(variant, plan, code, problem, cells, threads);
            return WorkspaceLen { floats, spans };
        }
        Mechanism::Latent(latent) => {
            let brought = latent::DecodeLayout::new((variant, latent), problem, threads);
            (variant.absorbed(latent), brought.len())
        }
        Mechanism::Plain | Mechanism::Lookahead(_) | Mechanism::Recurrence(_) => (*variant, 0),
    };
    let plan = &plan.in_positions(plan.cache.rows_of_token(variant));
    let layout = Layout::new::<E>(&stored, plan, code, problem);
    let floats = layout.workspace_len(cells, threads).saturating_add(beside);
    WorkspaceLen { floats, spans }
}

/// Attends the queries of each sequence to its cached keys.
///
/// `memory` is as large as [`workspace`] says. Nothing is allocated and no lock is taken. The same bits come out whatever the
/// count of threads, and whatever other sequences there are.
///
/// # Errors
/// As [`RunError`] lists. After [`RunError::Index`] outputs are written but mean nothing; before any other error they are
/// untouched.
pub fn run<E: Engine>(
    engine: E,
    parts: Parts<'_>,
    code: &dyn Code<E::Lanes>,
    queries: Queries<'_>,
    outputs: Outputs<'_>,
    threads: &dyn Threads,
    memory: Workspace<'_>,
) -> Result<(), RunError> {
    check_storage::<E>(parts.plan.dtype)?;
    let Parts { variant, plan, problem, caches } = parts;
    let Queries { q, captured, gate } = queries;
    operands::check((variant, plan.dtype), problem, Some(&q), None)?;
    check_outputs((variant, plan.dtype), problem, gate.as_ref(), &outputs)?;
    check_caches(caches, &plan.cache, (variant, problem))?;
    match variant.mechanism {
        Mechanism::Lookahead(_) => learn::check(&parts)?,
        Mechanism::Recurrence(_) => return Err(RunError::Mechanism),
        _ => {}
    }
    if variant.pseudo().is_some() && plan.cache.mixed {
        return expanded::run(engine, parts, code, queries, outputs, threads, memory);
    }
    if variant.pseudo().is_some() {
        return mixed::run(engine, parts, code, queries, outputs, threads, memory);
    }
    match q {
        QueryRows::Plain(q) => {
            let feed = Feed { q: Tensor::One(q), captured };
            attend(engine, parts, code, feed, threads, memory, |of, workers| {
                finish_of(engine, (variant, problem), of, gate, outputs, threads, workers)
            })
        }
        QueryRows::Latent(queries) => {
            let feed = latent::Attended { queries, captured, gate };
            latent::decode(engine, parts, code, feed, outputs, threads, memory)
        }
    }
}

/// What queries are attended with; shapes fit variant and problem.
#[derive(Clone, Copy)]
pub(crate) struct Feed<'a> {
    pub q: Tensor<'a>,
    pub captured: &'a [InputData<'a>],
}

/// Adds up what queries attend to, and gives the sums, with memory for what comes after, to `finish`.
pub(crate) fn attend<E: Engine>(
    engine: E,
    parts: Parts<'_>,
    code: &dyn Code<E::Lanes>,
    feed: Feed<'_>,
    threads: &dyn Threads,
    memory: Workspace<'_>,
    finish: impl FnOnce(Of<'_>, &mut [f32]) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let Parts { variant, plan, problem, caches } = parts;
    let heads = &variant.heads;
    let layout = Layout::new::<E>(variant, plan, code, problem);
    check(&parts)?;
    let captured = Captured::bind(variant.inputs, feed.captured, heads, variant.source, problem)
        .map_err(RunError::Captured)?;
    let spans = Summaries::len(variant.masks(), captured.lens());
    let found = WorkspaceLen { floats: memory.floats.len(), spans: memory.spans.len() };
    let short = |floats| RunError::Workspace { needed: WorkspaceLen { floats, spans }, found };
    if found.spans < spans {
        return Err(short(layout.workspace_len(0, threads.count())));
    }
    let ranges = Summaries::build(variant.masks(), captured, &mut memory.spans[..spans]);
    let sight = Sight { variant, problem, ranges: &ranges };
    sight.check_lost(caches, (plan.cache.tokens, 1))?;
    let live_cells = LiveCells { plan, sight };
    let cells = (0..caches.count()).map(|sequence| live_cells.of(sequence, |_| {})).sum();
    let needed = layout.workspace_len(cells, threads.count());
    if found.floats < needed {
        return Err(short(needed));
    }
    let Common { frequencies, table, lists, sums, results, workers } =
        layout.share(align(memory.floats), cells);
    let live = |sequence: usize, visit: &mut dyn FnMut(u32)| {
        live_cells.of(sequence, visit);
    };
    let stacks = Stacks::new(layout.stacks(), lists, live, &Cached { caches, problem, plan });

    let fault = Fault::new();
    if let Some(position) = &variant.position {
        tokens::frequencies(position, &captured, frequencies);
    }
    if !table.is_empty() {
        let lots = Lots::new(&mut *table, tokens::CHUNK * layout.tokens.stride());
        let fill = tokens::Fill {
            layout: layout.tokens,
            variant,
            problem,
            rows: tokens::Rows { q: feed.q.one(), k: None },
            captured: &captured,
            fault: &fault,
            frequencies,
        };
        let work = || engine.enter(tokens::FillTokens { fill: &fill, lots: &lots });
        // A few tokens take less time than threads take to wake.
        if layout.tokens.table_len() <= tokens::CHUNK * layout.tokens.stride() {
            work();
        } else {
            threads.run(&|_| work());
        }
    }
    let known = tokens::Tokens { layout: layout.tokens, table };
    let shared = Shared {
        q: feed.q,
        change: Change::new(variant, Side::Query, &captured, known).filter(|_| turns(variant, Side::Query)),
        call: Call {
            parts,
            code,
            captured: &captured,
            ranges: &ranges,
            fault: &fault,
            layout: &layout,
            stacks,
        },
    };
    {
        let slots = LotRuns::new(&mut *sums, layout.slot.len(), stacks.starts);
        let lots = Lots::new(&mut *workers, layout.worker_len());
        threads.run(&|_| {
            if let Some((_, memory)) = lots.take() {
                engine.enter(Attend { lanes: engine.lanes(), shared: &shared, slots: &slots, memory });
            }
        });
    }
    let cells = Cells { slot: layout.slot, heads, stacks, sums, results: &[], problem };
    let rows = added_up(engine, cells, results, threads);
    let of = Of { rows, captured: &captured, weights: variant.weights };
    finish(of, workers)?;
    fault.input().map_or(Ok(()), |input| Err(RunError::Index { input }))
}

/// Adds up the cells of each row, where some row has several.
fn added_up<'a, E: Engine>(
    engine: E,
    cells: Cells<'a>,
    results: &'a mut [f32],
    threads: &dyn Threads,
) -> RowsOf<'a> {
    if cells.stacks.several() {
        let lots = Lots::new(&mut *results, cells.slot.len());
        threads.run(&|_| engine.enter(Merge { lanes: engine.lanes(), cells: &cells, results: &lots }));
    }
    RowsOf::Cells(Cells { results, ..cells })
}

/// One worker's share of the passes, inside the engine's instruction set.
struct Attend<'a, D: Door> {
    lanes: D,
    shared: &'a Shared<'a, D>,
    slots: &'a LotRuns<'a, f32>,
    memory: &'a mut [f32],
}

impl<D: Door> Op for Attend<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, shared, slots, memory } = self;
        let call = &shared.call;
        let mut memory = call.layout.carve(memory);
        let mut packed = None;
        while let Some((number, sums)) = slots.take() {
            let pass = call.stacks.pass(number);
            if packed != Some((pass.head, pass.sequences)) {
                shared.pack(lanes, pass, &mut memory);
                packed = Some((pass.head, pass.sequences));
            }
            let sums = call.layout.slot.of(pass.sequences.len()).split(sums);
            lanes.call(Cell { lanes, call, pass, slots, memory: &mut memory, sums });
        }
    }
}

/// One worker's share of adding up cells, inside the engine's instruction set.
struct Merge<'a, D> {
    lanes: D,
    cells: &'a Cells<'a>,
    results: &'a Lots<'a, f32>,
}

impl<D: Door> Op for Merge<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let heads = self.cells.heads.kv as usize;
        while let Some((number, result)) = self.results.take() {
            self.cells.add_up(self.lanes, [number / heads, number % heads], result);
        }
    }
}

fn check(parts: &Parts<'_>) -> Result<(), RunError> {
    let Parts { variant, plan, .. } = *parts;
    let heads = &variant.heads;
    let width = heads.dim.max(heads.value_dim) as usize;
    if width > MAX_DIM {
        return Err(RunError::TooWide { width, most: MAX_DIM });
    }
    let whole = |a: u32, b: u32| a > 0 && b > 0 && a.is_multiple_of(b);
    let Plan { decode, cache, .. } = plan;
    let fits = whole(decode.key_cell, decode.key_chunk)
        && whole(decode.key_chunk, cache.tokens)
        && whole(cache.tokens, PAGE_STEP)
        && decode.key_chunk / cache.tokens <= u64::BITS
        && plan.prefill.channel_chain > 0;
    if !fits {
        return Err(RunError::Split { decode: *decode, cache: *cache });
    }
    Ok(())
}
