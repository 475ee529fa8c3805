//! Pseudo-heads on a cache of keys and values as they were given: mixed tile by tile, used by all heads, and dropped.
//!
//! A cached row is a source of every head's rows, so that heads cannot go over the cache one after the other: each would read it
//! whole. Here a pass is one for all heads. It reads some tokens of all cached heads at once, which stay near, and makes of them
//! the rows of a few heads at a time. As in the split skeleton otherwise, sums start anew in each cell of absolute positions, and
//! cells are added up in their order.
//!
//! Lanes are tokens while keys are mixed, turned and scored, and channels while values are: what is mixed lies as a page's blocks
//! do, and is multiplied by what multiplies these. So the virtual tokens of a chunk are not in the order of their positions, but
//! pseudo-head by pseudo-head.
//!
//! Mixing and turning commute, but for norms: R(n·P + p) Σ a k = R(p) Σ a R(n·P) k. Where nothing is normed cached keys are turned
//! before they are mixed, as they are fewer, and queries are turned p positions less for pseudo-head p.

mod cell;
mod memory;
mod queries;
mod sources;

use regard_engine::Engine;
use regard_engine::Op;
use regard_engine::cached::LANES;
use regard_engine::grid::{LotRuns, Lots};
use regard_engine::isa::Door;
use regard_engine::pack::MAX_DIM;
use regard_engine::threads::Threads;
use regard_ir::inputs::Captured;
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::variant::{Heads, Variant};

use self::cell::{Cell, Shared};
use self::memory::{Common, Layout};
use self::queries::Pack;
use self::sources::Angles;
use super::live::LiveCells;
use super::merge::Cells;
use super::stacks::{Cached, Stacks};
use super::{Parts, Queries, added_up};
use crate::carve::align;
use crate::code::{Code, Fault};
use crate::flash::part::{Of, finish_of};
use crate::flash::{Outputs, RunError, Workspace, WorkspaceLen, check_tokens};
use crate::mix::{Mixes, Which};
use crate::operands::QueryRows;
use crate::sight::Sight;
use crate::summary::Summaries;
use crate::tokens;
use crate::view::View;

/// Floats that a call works in, of a problem in positions whose queries see keys in at most so many cells.
pub(super) fn workspace_len<E: Engine>(
    variant: &Variant<'_>,
    plan: &Plan,
    code: &dyn Code<E::Lanes>,
    problem: &Problem<'_>,
    cells: usize,
    threads: usize,
) -> usize {
    Layout::new::<E>(variant, &stacked(variant), plan, code, problem).workspace_len(cells, threads)
}

/// The variant with all heads in one group, whose rows are mixed and turned already.
fn stacked<'a>(variant: &Variant<'a>) -> Variant<'a> {
    let scored = variant.scored();
    Variant { heads: Heads { kv: 1, value: 1, ..scored.heads }, position: None, qk_norm: None, ..scored }
}

/// As [`super::run`], whose checks were made.
pub(super) fn run<E: Engine>(
    engine: E,
    parts: Parts<'_>,
    code: &dyn Code<E::Lanes>,
    queries: Queries<'_>,
    outputs: Outputs<'_>,
    threads: &dyn Threads,
    memory: Workspace<'_>,
) -> Result<(), RunError> {
    let Parts { variant, plan, problem, caches } = parts;
    let Queries { q: QueryRows::Plain(q), captured: data, gate } = queries else {
        return Err(RunError::Mechanism);
    };
    check_tokens(variant, problem)?;
    check(&parts)?;
    let (scored, stacked) = (variant.scored(), stacked(variant));
    let layout = Layout::new::<E>(variant, &stacked, plan, code, problem);
    let captured = Captured::bind(variant.inputs, data, &scored.heads, variant.source, problem)
        .map_err(RunError::Captured)?;
    let Some(mixes) = Mixes::new(variant, &captured).map_err(RunError::Captured)? else {
        return Err(RunError::Mechanism);
    };
    let spans = Summaries::len(variant.masks(), captured.lens());
    let found = WorkspaceLen { floats: memory.floats.len(), spans: memory.spans.len() };
    let short = |floats| RunError::Workspace { needed: WorkspaceLen { floats, spans }, found };
    if found.spans < spans {
        return Err(short(layout.workspace_len(0, threads.count())));
    }
    let ranges = Summaries::build(variant.masks(), captured, &mut memory.spans[..spans]);
    let sight = Sight { variant: &scored, problem, ranges: &ranges };
    sight.check_lost(caches, (plan.cache.tokens, variant.per_token()))?;
    let in_positions = plan.in_positions(variant.per_token());
    let live_cells = LiveCells { plan: &in_positions, sight };
    let cells = (0..caches.count()).map(|sequence| live_cells.of(sequence, |_| {})).sum();
    let needed = layout.workspace_len(cells, threads.count());
    if found.floats < needed {
        return Err(short(needed));
    }
    let Common { base, frequencies, steps, factors, workers } = layout.share(align(memory.floats), cells);
    let live = |sequence: usize, visit: &mut dyn FnMut(u32)| {
        live_cells.of(sequence, visit);
    };
    let stacks = Stacks::new(layout.base.stacks(), base.lists, live, &Cached { caches, problem, plan });

    if let Some(position) = &variant.position {
        tokens::frequencies(position, &captured, frequencies);
        Angles::steps(frequencies, variant.per_token(), layout.chunk, steps);
    }
    let [for_keys, for_values] = factors;
    sources::turn_factors(&mixes, Which::Key, for_keys);
    sources::turn_factors(&mixes, Which::Value, for_values);
    let fault = Fault::new();
    let shared = Shared {
        parts,
        scored: &scored,
        code,
        captured: &captured,
        ranges: &ranges,
        fault: &fault,
        layout: &layout,
        mixes,
        factors: [for_keys, for_values],
        angles: Angles { frequencies, steps },
        limit: sources::limit(for_values, layout.sources),
    };
    {
        let slots = LotRuns::new(&mut *base.sums, layout.base.slot.len(), stacks.starts);
        let lots = Lots::new(&mut *workers, layout.worker_len());
        threads.run(&|_| {
            if let Some((_, memory)) = lots.take() {
                engine.enter(Attend {
                    lanes: engine.lanes(),
                    q,
                    shared: &shared,
                    stacks,
                    slots: &slots,
                    memory,
                });
            }
        });
    }
    let heads = &stacked.heads;
    let cells = Cells { slot: layout.base.slot, heads, stacks, sums: base.sums, results: &[], problem };
    let rows = added_up(engine, cells, base.results, threads);
    let of = Of { rows, captured: &captured, weights: variant.weights };
    finish_of(engine, (variant, problem), of, gate, outputs, threads, workers)?;
    fault.input().map_or(Ok(()), |input| Err(RunError::Index { input }))
}

/// One worker's share of the passes, inside the engine's instruction set.
struct Attend<'a, D: Door> {
    lanes: D,
    q: View<'a>,
    shared: &'a Shared<'a, D>,
    stacks: Stacks<'a>,
    slots: &'a LotRuns<'a, f32>,
    memory: &'a mut [f32],
}

impl<D: Door> Op for Attend<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, q, shared, stacks, slots, memory } = self;
        let mut memory = shared.layout.carve(memory);
        let mut packed = None;
        while let Some((number, slot)) = slots.take() {
            let pass = stacks.pass(number);
            // No two sequences share a pass.
            let sequence = pass.sequences[0];
            if packed != Some(sequence) {
                lanes.call(Pack { lanes, q, shared, sequence, memory: &mut memory });
                packed = Some(sequence);
            }
            let sums = shared.layout.base.slot.split(slot);
            lanes.call(Cell { lanes, shared, sequence, cell: pass.cell, memory: &mut memory, sums });
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
    let fits = whole(decode.key_cell, cache.tokens)
        && whole(cache.tokens, decode.key_chunk)
        && whole(decode.key_chunk, LANES as u32)
        && decode.key_chunk <= u64::BITS
        && decode.stack_rows == 0
        && plan.prefill.channel_chain > 0;
    if !fits {
        return Err(RunError::Split { decode: *decode, cache: *cache });
    }
    Ok(())
}
