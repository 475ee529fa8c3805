//! What a worker computes in, and how large it is.

use regard_engine::Engine;
use regard_engine::engine::LINE;
use regard_ir::plan::Plan;
#[cfg(feature = "alloc")]
use regard_ir::plan::RecurrenceShares;
use regard_ir::problem::Problem;
use regard_ir::variant::{Decay, Recurrence, Variant};
use regard_ir::work;

use super::leaves_each;
use crate::carve::{self, Carve};
use crate::code::Code;
use crate::tokens::TokenLayout;

/// The most value heads that share a pass over their queries and keys: beyond, what they share is little beside their own states.
const MOST_HEADS: usize = 4;

/// Rows of a chunk that are decayed against one of them at a time: a line.
pub(super) const BLOCK: usize = LINE;

/// Chunks of a cell: of tokens that only add to a state, those of a cell are summed up from zero, beside the state that it begins with
/// ([`super::cell`]).
pub(super) const CELL: usize = 16;

/// The fewest channels that a state is cut at.
const LEAST_CHANNELS: usize = 2 * LINE;

/// Parts of the work for each thread, so that the last ones even out.
const PARTS_PER_THREAD: usize = 4;

/// Cells that are shared out at a time for each thread: the more, the less threads wait for each other, and the more memory it takes.
const CELLS_PER_THREAD: usize = 4;

/// Sizes of a worker's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Rows of a chunk: whole lines.
    pub chunk: usize,
    /// The most tokens that are taken one after the other.
    pub one_by_one: usize,
    /// Whether a worker's states are in its caches when they are read again.
    pub holds_states: bool,
    /// Whether tokens only add to a state, which may decay, and erase nothing of it.
    pub adds: bool,
    /// Channels of a query and a key.
    pub dim: usize,
    /// The same in whole lines.
    pub dims: usize,
    /// Value heads of a part at most.
    pub heads: usize,
    /// Channels of values in a part at most.
    pub channels: usize,
    /// How many parts all tasks are.
    pub parts: usize,
    /// How many of a part's cells are shared out at a time; 0 where a part takes one after the other.
    pub wave: usize,
    /// Channels of a part in whole lines.
    pub width: usize,
    /// What is kept of tokens.
    pub tokens: TokenLayout,
    /// Floats of the right operands, and of a left one.
    packed: [usize; 4],
    per_channel: bool,
    delta: bool,
    finish: usize,
    code: usize,
}

/// Memory of one worker. Matrices are rows of whole lines: `dims` channels of queries and keys, `width` of values, `chunk` of pairs.
pub(super) struct Memory<'a> {
    /// Features of queries.
    pub q: &'a mut [f32],
    /// Features of keys.
    pub k: &'a mut [f32],
    /// Where an engine makes right operands: of keys turned, of a state, and of values.
    pub right: [&'a mut [f32]; 3],
    /// Where it packs left operands.
    pub left: &'a mut [f32],
    /// Products of queries and keys, `[chunk][chunk]`.
    pub scores: &'a mut [f32],
    /// Products of keys with each other.
    pub overlaps: &'a mut [f32],
    /// Weights of values: decayed products of queries and keys.
    pub weights: &'a mut [f32],
    /// What is taken from each value: decayed products of keys, negated.
    pub erased: &'a mut [f32],
    /// Values of each head, `[heads][chunk][width]`, and then what is written in their place.
    pub values: &'a mut [f32],
    /// Outputs.
    pub o: &'a mut [f32],
    /// Decayed rows of queries or keys.
    pub decayed: [&'a mut [f32]; 3],
    /// Log decays of channels.
    pub channel_logs: &'a mut [f32],
    /// Their sums over a block's rows: up to each row, after it, and of whole blocks.
    pub sums: [&'a mut [f32]; 3],
    /// Decays of a chunk: sums from its first row on, in f64.
    pub logs: &'a mut [f64],
    /// Factors of rows.
    pub factors: [&'a mut [f32]; 3],
    /// What is left of the state's rows: their factors, each the sum of two ([`super::kept`]).
    pub keep: [&'a mut [f32]; 2],
    /// Key and query of a token that erases, where tokens are taken one after the other: as they find what is left of a state.
    pub finding: [&'a mut [f32]; 2],
    /// The states of the part's heads, `[heads][dims][width]`: where tokens only add, those that the cell begins with.
    pub states: &'a mut [f32],
    /// Their sums of features, `[heads][dims]`.
    pub norms: &'a mut [f32],
    /// Where tokens only add, what the cell's have added to each.
    pub added: [&'a mut [f32]; 2],
    /// What the cell's tokens have left of rows of the states, `[heads][dims]`, as `keep`.
    pub kept: [&'a mut [f32]; 2],
    /// The state of a head and its sum of features that enter a chunk.
    pub entering: [&'a mut [f32]; 2],
    /// Where code works.
    pub code: &'a mut [i32],
    /// Where outputs are finished.
    pub finish: &'a mut [f32],
}

/// What of a task is given out as one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Value heads at most.
    heads: usize,
    /// Channels of their values at most.
    channels: usize,
    /// How many parts all tasks are.
    parts: usize,
    /// How many of a part's cells are shared out at a time; 0 where a part takes one after the other.
    wave: usize,
}

impl Share {
    pub fn new(
        (variant, recurrence): (&Variant<'_>, &Recurrence),
        plan: &Plan,
        problem: &Problem<'_>,
        threads: usize,
    ) -> Self {
        let heads = &variant.heads;
        let value_dim = heads.value_dim as usize;
        let group = (heads.value / heads.kv.max(1)) as usize;
        let tasks = problem.batch as usize * heads.kv as usize;
        let is_whole = variant.output.norm.is_some()
            || variant.output.gate.is_some()
            || recurrence.normalize_eps.is_some();
        let wanted = if threads > 1 { threads.saturating_mul(PARTS_PER_THREAD) } else { 1 };
        let by_heads = wanted.div_ceil(tasks.max(1)).max(group.div_ceil(MOST_HEADS)).clamp(1, group.max(1));
        let part_heads = group.div_ceil(by_heads).max(1);
        // Channels of a state have nothing to do with each other, but each part of them makes products of queries and keys anew.
        let few = threads.saturating_mul(2).div_ceil((tasks * group.div_ceil(part_heads)).max(1));
        let by_channels = if is_whole || threads <= 1 { 1 } else { few.max(1) };
        let channels = value_dim.div_ceil(by_channels).next_multiple_of(LEAST_CHANNELS).min(value_dim);
        let parts = tasks * group.div_ceil(part_heads) * value_dim.div_ceil(channels.max(1));
        // What is added is made twice: it pays where threads would wait for half as long again.
        let rounds = parts.div_ceil(threads.max(1)).saturating_mul(threads);
        let waits = threads > 1 && parts > 0 && rounds.saturating_mul(2) >= parts.saturating_mul(3);
        let shares_cells = waits && recurrence.delta.is_none() && has_cells(recurrence, plan, problem);
        let wave = if shares_cells { (threads * CELLS_PER_THREAD).div_ceil(parts) } else { 0 };
        Self { heads: part_heads, channels, parts, wave }
    }

    /// What a person wants to know of it.
    #[cfg(feature = "alloc")]
    pub fn overview(&self, plan: &Plan) -> RecurrenceShares {
        let [parts, heads, channels, cell, wave] =
            [self.parts, self.heads, self.channels, cell(plan), self.wave].map(|n| n as u32);
        RecurrenceShares { parts, heads, channels, cell, wave }
    }
}

/// Whether some sequence has several cells, and all begin with one and are not so short that their tokens are taken one after the other.
fn has_cells(recurrence: &Recurrence, plan: &Plan, problem: &Problem<'_>) -> bool {
    let cell = cell(plan);
    let is_in_cells = |b| {
        let of = problem.sequence(b);
        of.q_offset.rem_euclid(cell as i32) == 0 && !(of.keys > 0 && leaves_each(plan, of.keys as usize, 1))
    };
    let is_long = problem.keys.max(problem.queries) as usize > cell;
    is_long && (!recurrence.causal || (0..problem.batch).all(is_in_cells))
}

/// Tokens of a chunk of a plan.
fn chunk(plan: &Plan) -> usize {
    plan.recurrence.map_or(1, |recurrence| recurrence.chunk as usize).next_multiple_of(LINE)
}

/// Tokens of a cell.
fn cell(plan: &Plan) -> usize {
    CELL * chunk(plan)
}

impl Layout {
    pub fn new<E: Engine>(
        variant: &Variant<'_>,
        recurrence: &Recurrence,
        plan: &Plan,
        problem: &Problem<'_>,
        (code, threads): (&dyn Code<E::Lanes>, usize),
    ) -> Self {
        let heads = &variant.heads;
        let [dim, value_dim] = [heads.dim, heads.value_dim].map(|n| n as usize);
        let (one_by_one, held_bytes) =
            plan.recurrence.map_or((0, 0), |recurrence| (recurrence.one_by_one, recurrence.held_bytes));
        let state_bytes = work::state_bytes(variant, problem.batch) / threads.max(1) as f64;
        let chunk = chunk(plan);
        let Share { heads: part_heads, channels, parts, wave } =
            Share::new((variant, recurrence), plan, problem, threads);
        let [dims, width] = [dim, channels].map(|n| n.next_multiple_of(LINE));
        let right = [([dims, chunk], true), ([dims, width], false), ([chunk, width], false)];
        let right = right.map(|(sizes, is_turned)| E::right_len(sizes, is_turned));
        Self {
            chunk,
            one_by_one: one_by_one as usize,
            holds_states: state_bytes <= f64::from(held_bytes),
            adds: recurrence.delta.is_none(),
            dim,
            dims,
            heads: part_heads,
            channels,
            parts,
            wave,
            width,
            tokens: TokenLayout::new(variant, problem),
            packed: [right[0], right[1], right[2], E::left_len(dims.max(chunk))],
            per_channel: matches!(recurrence.decay, Decay::Channel(_)),
            delta: recurrence.delta.is_some(),
            finish: crate::finish::len(value_dim),
            code: code.scratch_len(LINE),
        }
    }

    fn sizes(&self) -> [usize; 37] {
        let Self { chunk, dims, width, heads, packed, per_channel, delta, adds, finish, code, .. } = *self;
        let [rows, pairs, values] = [dims, chunk, width].map(|row| chunk.saturating_mul(row));
        let of = |wanted: bool, size: usize| if wanted { size } else { 0 };
        let norms = heads.saturating_mul(dims);
        let states = norms.saturating_mul(width);
        [
            rows,
            rows,
            packed[0],
            packed[1],
            packed[2],
            packed[3],
            pairs,
            of(delta, pairs),
            pairs,
            of(delta, pairs),
            heads.saturating_mul(values),
            values,
            of(per_channel, rows),
            of(per_channel, rows),
            of(per_channel && delta, rows),
            of(per_channel, rows),
            of(per_channel, rows),
            of(per_channel, rows),
            of(per_channel, rows / BLOCK),
            2 * chunk,
            chunk,
            chunk,
            chunk,
            dims,
            dims,
            of(delta, dims),
            of(delta, dims),
            states,
            norms,
            of(adds, states),
            of(adds, norms),
            of(adds, norms),
            of(adds, norms),
            of(adds, dims.saturating_mul(width)),
            of(adds, dims),
            code,
            finish,
        ]
    }

    /// Floats of a worker's memory.
    pub fn worker_len(&self) -> usize {
        carve::len(self.sizes())
    }

    /// Tokens of a cell.
    pub const fn cell(&self) -> usize {
        CELL * self.chunk
    }

    /// Floats of all: what is known of tokens, what is kept of cells, and each worker's.
    pub fn len(&self, threads: usize) -> usize {
        let common =
            carve::len([self.tokens.frequencies_len(), self.tokens.table_len(), super::scan::len(self)]);
        common.saturating_add(self.worker_len().saturating_mul(threads)).saturating_add(carve::ALIGN)
    }

    /// Cuts a worker's memory.
    pub fn carve<'a>(&self, memory: &'a mut [f32]) -> Memory<'a> {
        let mut carve = Carve::new(memory, self.sizes());
        Memory {
            q: carve.next(),
            k: carve.next(),
            right: [carve.next(), carve.next(), carve.next()],
            left: carve.next(),
            scores: carve.next(),
            overlaps: carve.next(),
            weights: carve.next(),
            erased: carve.next(),
            values: carve.next(),
            o: carve.next(),
            decayed: [carve.next(), carve.next(), carve.next()],
            channel_logs: carve.next(),
            sums: [carve.next(), carve.next(), carve.next()],
            logs: carve.next_as(),
            factors: [carve.next(), carve.next(), carve.next()],
            keep: [carve.next(), carve.next()],
            finding: [carve.next(), carve.next()],
            states: carve.next(),
            norms: carve.next(),
            added: [carve.next(), carve.next()],
            kept: [carve.next(), carve.next()],
            entering: [carve.next(), carve.next()],
            code: carve.next_as(),
            finish: carve.next(),
        }
    }
}
