//! Pseudo-heads on a cache of their rows: mixed once, when they are appended, so that a call mixes its queries alone.
//!
//! With rows of virtual tokens in it a cache is as any other, in which each head has keys of its own: the split skeleton attends to
//! it in positions, of which a token is several. What is cached of a token is as many times larger than what was given, and is read
//! where the cache of given rows in [`super::mixed`] is read and mixed again.

use regard_engine::Engine;
use regard_engine::Op;
use regard_engine::grid::Lots;
use regard_engine::isa::Door;
use regard_engine::pack::Rows as _;
use regard_engine::threads::Threads;
use regard_ir::inputs::Captured;
use regard_ir::problem::Problem;
use regard_ir::variant::Variant;

use super::{Feed, Parts, Queries, attend};
use crate::cache::InPositions;
use crate::carve::{self, ALIGN, Carve, align};
use crate::code::Code;
use crate::flash::part::{Of, finish_of};
use crate::flash::{Outputs, RunError, Workspace, WorkspaceLen, check_tokens};
use crate::mix::{Mixed, MixedRows, Mixes, Sources, Which};
use crate::operands::QueryRows;
use crate::rows::Tensor;
use crate::view::View;

/// Sizes of what queries are mixed in, in floats.
struct Layout {
    /// A sequence's or all packed ones' queries, `[batch][head][query]` rows.
    counts: [usize; 3],
    dim: usize,
    /// What a worker mixes in, and a row on its way.
    room: usize,
    workers: usize,
}

impl Layout {
    fn new(variant: &Variant<'_>, problem: &Problem<'_>, threads: usize) -> Self {
        let [batch, queries, _] = problem.extents().map(|n| n as usize);
        Self {
            counts: [batch, variant.heads.query as usize, queries],
            dim: variant.heads.dim as usize,
            room: room_len(variant, variant.heads.dim),
            workers: threads.max(1),
        }
    }

    fn pieces(&self) -> [usize; 2] {
        let rows = self.counts.iter().fold(1, |n: usize, &count| n.saturating_mul(count));
        [rows.saturating_mul(self.dim), self.workers.saturating_mul(self.room)]
    }

    fn len(&self) -> usize {
        carve::len(self.pieces()).saturating_add(ALIGN)
    }
}

/// What rows of a width are mixed in.
fn room_len(variant: &Variant<'_>, width: u32) -> usize {
    let (heads, width) = (variant.heads.query as usize, width as usize);
    let room = Mixes::room_len(variant.per_token() as usize, heads, width).saturating_add(width);
    room.next_multiple_of(ALIGN)
}

/// Floats that a call works in beside the skeleton, of a problem in positions.
pub(super) fn workspace_len(variant: &Variant<'_>, problem: &Problem<'_>, threads: usize) -> usize {
    Layout::new(variant, problem, threads).len()
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
    let scored = variant.scored();
    let captured = Captured::bind(variant.inputs, data, &scored.heads, variant.source, problem)
        .map_err(RunError::Captured)?;
    let Some(mixes) = Mixes::new(variant, &captured).map_err(RunError::Captured)? else {
        return Err(RunError::Mechanism);
    };
    let layout = Layout::new(variant, problem, threads.count());
    let found = WorkspaceLen { floats: memory.floats.len(), spans: memory.spans.len() };
    if found.floats < layout.len() {
        let needed = WorkspaceLen { floats: layout.len(), spans: found.spans };
        return Err(RunError::Workspace { needed, found });
    }
    let Layout { counts, dim, room, .. } = layout;
    let mut pieces = Carve::new(align(memory.floats), layout.pieces());
    let (made, rooms) = (pieces.next(), pieces.next());
    {
        let rows = Lots::new(&mut *made, counts[2] * dim);
        let rooms = Lots::new(rooms, room);
        threads.run(&|_| {
            if let Some((_, room)) = rooms.take() {
                let which = Which::Query;
                engine.enter(Mix { lanes: engine.lanes(), mixes, which, given: q, rows: &rows, room });
            }
        });
    }
    let q = View::contiguous(made, counts, dim).map_err(|_| RunError::Mechanism)?;
    let per_token = variant.per_token();
    let parts = Parts {
        variant: &scored,
        plan: &plan.in_positions(per_token),
        caches: &InPositions { caches, per_token },
        problem,
    };
    let feed = Feed { q: Tensor::Made(q), captured: data };
    let memory = Workspace { floats: pieces.rest(), spans: memory.spans };
    attend(engine, parts, code, feed, threads, memory, |of: Of<'_>, workers| {
        finish_of(engine, (variant, problem), of, gate, outputs, threads, workers)
    })
}

/// Floats that keys and values of so many tokens are mixed to, and in.
pub(super) fn kv_len(variant: &Variant<'_>, tokens: usize) -> usize {
    carve::len(kv_pieces(variant, tokens))
}

fn kv_pieces(variant: &Variant<'_>, tokens: usize) -> [usize; 3] {
    let heads = &variant.heads;
    let rows = tokens.saturating_mul(variant.per_token() as usize).saturating_mul(heads.query as usize);
    let [keys, values] = [heads.dim, heads.value_dim].map(|width| rows.saturating_mul(width as usize));
    [keys, values, room_len(variant, heads.dim.max(heads.value_dim))]
}

/// Mixes keys and values of some tokens of one sequence, in memory as long as [`kv_len`] says: rows of virtual tokens.
pub(super) fn mix_kv<'m, E: Engine>(
    engine: E,
    (variant, mixes): (&Variant<'_>, Mixes<'_>),
    [k, v]: [View<'_>; 2],
    memory: &'m mut [f32],
) -> Result<[View<'m>; 2], RunError> {
    let heads = &variant.heads;
    let [_, _, tokens] = k.counts();
    let counts = [1, heads.query as usize, tokens * variant.per_token() as usize];
    let mut pieces = Carve::new(memory, kv_pieces(variant, tokens));
    let (keys, values, room) = (pieces.next(), pieces.next(), pieces.next());
    let mut mix = |which, given, width: u32, rows: &mut [f32]| {
        let rows = Lots::new(rows, counts[2] * width as usize);
        engine.enter(Mix { lanes: engine.lanes(), mixes, which, given, rows: &rows, room });
    };
    mix(Which::Key, k, heads.dim, keys);
    mix(Which::Value, v, heads.value_dim, values);
    let view = |rows, width: u32| View::contiguous(rows, counts, width as usize);
    let (keys, values) = (view(keys, heads.dim), view(values, heads.value_dim));
    Ok([keys.map_err(|_| RunError::Mechanism)?, values.map_err(|_| RunError::Mechanism)?])
}

/// One worker's share of rows that are mixed, those of a sequence and head in a lot, inside the engine's instruction set.
struct Mix<'a, 'm, D> {
    lanes: D,
    mixes: Mixes<'a>,
    which: Which,
    /// The rows of all heads that they are mixed from.
    given: View<'a>,
    rows: &'a Lots<'a, f32>,
    room: &'m mut [f32],
}

impl<D: Door> Op for Mix<'_, '_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, mixes, which, given, rows, room } = self;
        let width = given.width();
        let (scratch, room) = room.split_at_mut(width);
        while let Some((number, to)) = rows.take() {
            let (batch, head) = (number / mixes.heads(), number % mixes.heads());
            let sources = Sources::Given { rows: given, batch };
            let mixed = MixedRows::new(Mixed { mixes, which, sources, head }, 0, None, room);
            for (i, to) in to.chunks_exact_mut(width).enumerate() {
                to.copy_from_slice(mixed.row(lanes, i, scratch));
            }
        }
    }
}
