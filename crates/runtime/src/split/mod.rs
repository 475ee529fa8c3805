//! The split skeleton: a few queries of each sequence over its cached keys, which are cut into cells for the threads.
//!
//! Generation is bound by the reads of the cache. So all query heads that share a key head take one pass over its keys,
//! each page is read once, and what is read next is asked for early. A cell of keys on a grid of absolute positions is the
//! work that is shared out: its sums start from zero, and the cells of a row are added up in their order, so that no bit
//! depends on how many threads there are, on the other sequences of a call, or on how many queries share the pass.
//!
//! In a cell, chunks of pages are scored, weighed and added up in turn. Lanes are keys while scores are made and weighed,
//! channels while values are added up.

mod append;
mod cell;
mod memory;
mod merge;
mod weigh;

use regard_engine::element::Element;
use regard_engine::grid::{LotRuns, Lots};
use regard_engine::isa::Door;
use regard_engine::pack::MAX_DIM;
use regard_engine::threads::Threads;
use regard_engine::{Engine, Op};
use regard_ir::cache::PAGE_STEP;
use regard_ir::inputs::{self, Captured, InputData};
use regard_ir::interval::{Liveness, Span};
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::reach::Reach;
use regard_ir::tiles;
use regard_ir::variant::Variant;

pub use self::append::{Tokens, append, append_len};

use self::cell::{Call, Cell, Shared};
use self::memory::{Common, Layout};
pub(crate) use self::merge::Cells;
use crate::cache::Caches;
use crate::code::{Code, Fault};
use crate::flash::part::{Of, RowsOf, finish_of};
use crate::flash::{
    Gate, Outputs, RunError, Workspace, WorkspaceLen, align, check_caches, check_outputs, shape,
};
use crate::rows::{Change, Side};
use crate::sight::Sight;
use crate::summary::Summaries;
use crate::tokens;
use crate::view::View;

/// What a call reads beside the caches.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a, T> {
    /// Queries, `[sequence][query head][query]` rows of `dim`.
    pub q: View<'a, T>,
    /// Captured tensors: the declared ones in the order of their declaration, then those of learned tables.
    pub captured: &'a [InputData<'a>],
    /// The gate of the outputs, for variants that have one.
    pub gate: Option<Gate<'a, T>>,
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

/// How much memory a call needs with `threads` workers: of a problem that is no larger in any way, sequences, queries of one,
/// keys of one, and whose queries see keys in at most so many cells of each sequence.
pub fn workspace<E: Engine>(
    _: E,
    (variant, plan): (&Variant<'_>, &Plan),
    code: &dyn Code<E::Lanes>,
    problem: &Problem<'_>,
    cells_of_sequence: usize,
    threads: usize,
) -> WorkspaceLen {
    let layout = Layout::new::<E>(variant, plan, code, problem);
    let cells = (problem.batch as usize).saturating_mul(cells_of_sequence);
    let lens = inputs::lens(variant.inputs, &variant.heads, variant.source, problem);
    WorkspaceLen { floats: layout.workspace_len(cells, threads), spans: Summaries::len(variant.allow, lens) }
}

/// Attends the queries of each sequence to its cached keys.
///
/// `memory` is as large as [`workspace`] says. Nothing is allocated and no lock is taken. The same bits come out whatever the
/// count of threads, and whatever other sequences there are.
///
/// # Errors
/// As [`RunError`] lists. After [`RunError::Index`] outputs are written but mean nothing; before any other error they are
/// untouched.
pub fn run<E: Engine, T: Element>(
    engine: E,
    parts: Parts<'_>,
    code: &dyn Code<E::Lanes>,
    queries: Queries<'_, T>,
    outputs: Outputs<'_, T>,
    threads: &dyn Threads,
    memory: Workspace<'_>,
) -> Result<(), RunError> {
    let Parts { variant, plan, problem, caches } = parts;
    let heads = &variant.heads;
    let layout = Layout::new::<E>(variant, plan, code, problem);
    check(&parts, &layout, &queries, &outputs)?;
    let captured = Captured::bind(variant.inputs, queries.captured, heads, variant.source, problem)
        .map_err(RunError::Captured)?;
    let spans = Summaries::len(variant.allow, captured.lens());
    let found = WorkspaceLen { floats: memory.floats.len(), spans: memory.spans.len() };
    let short = |floats| RunError::Workspace { needed: WorkspaceLen { floats, spans }, found };
    if found.spans < spans {
        return Err(short(layout.workspace_len(0, threads.count())));
    }
    let ranges = Summaries::build(variant.allow, captured, &mut memory.spans[..spans]);
    let sight = Sight { variant, problem, ranges: &ranges };
    sight.check_lost(caches, plan.cache.tokens)?;
    let live_cells = LiveCells { parts: &parts, sight };
    let cells = (0..caches.count()).map(|sequence| live_cells.of(sequence, |_| {})).sum();
    let needed = layout.workspace_len(cells, threads.count());
    if found.floats < needed {
        return Err(short(needed));
    }
    let Common { frequencies, table, starts, firsts, live, sums, workers } =
        layout.share(align(memory.floats), cells);
    live_cells.list(starts, firsts, live);

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
            // No key is in the table: those of the caches were turned when they were appended.
            rows: tokens::Rows { q: queries.q, k: View::empty(heads.dim as usize) },
            captured: &captured,
            fault: &fault,
            frequencies,
        };
        threads.run(&|_| engine.enter(tokens::FillTokens { fill: &fill, lots: &lots }));
    }
    let known = tokens::Tokens { layout: layout.tokens, table };
    let shared = Shared {
        q: queries.q,
        change: Change::new(variant, Side::Query, &captured, known),
        call: Call {
            parts,
            code,
            captured: &captured,
            ranges: &ranges,
            fault: &fault,
            layout: &layout,
            starts,
            firsts,
            live,
        },
    };
    {
        let slots = Lots::new(&mut *sums, layout.slot.len());
        let lots = Lots::new(&mut *workers, layout.worker_len());
        threads.run(&|_| {
            if let Some((_, memory)) = lots.take() {
                engine.enter(Attend { lanes: engine.lanes(), shared: &shared, slots: &slots, memory });
            }
        });
    }
    if starts.windows(2).any(|pair| pair[1] - pair[0] > 1) {
        let runs = LotRuns::new(&mut *sums, layout.slot.len(), starts);
        threads.run(&|_| engine.enter(Merge { lanes: engine.lanes(), slot: layout.slot, runs: &runs }));
    }
    let rows = RowsOf::Cells(Cells { slot: layout.slot, heads, starts, sums, problem });
    let of = Of { rows, captured: &captured, weights: variant.weights };
    finish_of(engine, (variant, problem), of, queries.gate, outputs, threads, workers)?;
    fault.input().map_or(Ok(()), |input| Err(RunError::Index { input }))
}

/// Which cells of a call are live.
struct LiveCells<'a> {
    parts: &'a Parts<'a>,
    sight: Sight<'a>,
}

impl LiveCells<'_> {
    /// Calls `visit` with each cell of a sequence that some query may see keys of, and says how many there are.
    fn of(&self, sequence: usize, mut visit: impl FnMut(u32)) -> usize {
        let Parts { plan, problem, caches, .. } = *self.parts;
        let (cell, len) = (plan.decode.key_cell, caches.get(sequence).len);
        // Between the first tokens and the last ones nothing is seen, if the plan is right: one look says so, where a search
        // would take longer the longer the sequence is.
        let gap = plan.reach.map_or(0..0, |Reach { first, back }| {
            let seen = i64::from(problem.sequence(sequence as u32).q_offset) - i64::from(back) + 1;
            first.div_ceil(cell)..seen.clamp(0, len.into()) as u32 / cell
        });
        let gap = if gap.is_empty() { 0..0 } else { gap.start * cell..gap.end * cell };
        let is_dead = !gap.is_empty() && self.sight.of(sequence, gap.clone()) == Liveness::Dead;
        let parts = if is_dead { [0..gap.start, gap.end..len] } else { [0..0, 0..len] };
        let mut count = 0;
        for part in parts {
            let classify = |keys: Span| self.sight.of(sequence, keys.lo as u32..keys.hi as u32 + 1);
            for (keys, _) in tiles::runs(part, cell, classify) {
                for cell in keys.start / cell..keys.end.div_ceil(cell) {
                    visit(cell);
                    count += 1;
                }
            }
        }
        count
    }

    /// Lists the cells of all sequences; where those of each begin in the list, and where the sums of each key head do.
    fn list(&self, starts: &mut [u32], firsts: &mut [u32], live: &mut [u32]) {
        let heads = self.parts.variant.heads.kv as usize;
        let (mut listed, mut sums) = (0, 0);
        for sequence in 0..self.parts.caches.count() {
            firsts[sequence] = listed as u32;
            let count = self.of(sequence, |cell| {
                live[listed] = cell;
                listed += 1;
            });
            for start in &mut starts[sequence * heads..][..heads] {
                *start = sums;
                sums += count as u32;
            }
        }
        starts[self.parts.caches.count() * heads] = sums;
    }
}

/// One worker's share of the cells, inside the engine's instruction set.
struct Attend<'a, D: Door, T> {
    lanes: D,
    shared: &'a Shared<'a, D, T>,
    slots: &'a Lots<'a, f32>,
    memory: &'a mut [f32],
}

impl<D: Door, T: Element> Op for Attend<'_, D, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, shared, slots, memory } = self;
        let call = &shared.call;
        let mut memory = call.layout.carve(memory);
        while let Some((number, slot)) = slots.take() {
            let at = call.at(number);
            if memory.packed != Some((at.sequence, at.head)) {
                shared.pack(lanes, at, &mut memory);
            }
            lanes.call(Cell { lanes, call, at, memory: &mut memory, slot });
        }
    }
}

/// One worker's share of adding up cells, inside the engine's instruction set.
struct Merge<'a, D> {
    lanes: D,
    slot: memory::Slot,
    runs: &'a LotRuns<'a, f32>,
}

impl<D: Door> Op for Merge<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        while let Some((_, cells)) = self.runs.take() {
            merge::add_up(self.lanes, &self.slot, cells);
        }
    }
}

fn check<T>(
    parts: &Parts<'_>,
    layout: &Layout,
    queries: &Queries<'_, T>,
    outputs: &Outputs<'_, T>,
) -> Result<(), RunError> {
    let Parts { variant, plan, problem, caches } = *parts;
    let heads = &variant.heads;
    let [batch, n_queries, _] = problem.extents().map(|n| n as usize);
    let (query_heads, dim) = (heads.query as usize, heads.dim as usize);
    shape("q", queries.q.counts(), queries.q.width(), [batch, query_heads, n_queries, dim])?;
    check_outputs(variant, problem, queries.gate.as_ref(), outputs)?;
    let width = dim.max(heads.value_dim as usize);
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
    check_caches(caches, &layout.page, problem)
}
