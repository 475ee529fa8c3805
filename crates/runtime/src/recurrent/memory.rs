//! What a worker computes in, and how large it is.

use regard_engine::Engine;
use regard_engine::engine::LINE;
use regard_ir::plan::{Dtype, Plan, RecurrencePlan};
use regard_ir::problem::Problem;
#[cfg(feature = "alloc")]
use regard_ir::variant::Heads;
use regard_ir::variant::{Decay, Recurrence, Variant};

use crate::carve::{self, Carve};
use crate::code::Code;
use crate::tokens::TokenLayout;

/// The most value heads that share a pass over their queries and keys: beyond, what they share is little beside their own states.
const MOST_HEADS: usize = 4;

/// Rows of a chunk that are decayed against one of them at a time: a line.
pub(super) const BLOCK: usize = LINE;

/// Chunks whose sum is kept apart from what rounding takes of it: what is kept so ends with the last of them, so that pieces of a
/// prompt that end there leave nothing behind but the state.
pub(super) const CELL: usize = 16;

/// The fewest channels that a state is cut at.
const LEAST_CHANNELS: usize = 2 * LINE;

/// Parts of the work for each thread, so that the last ones even out.
const PARTS_PER_THREAD: usize = 4;

/// Sizes of a worker's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Rows of a chunk: whole lines.
    pub chunk: usize,
    /// The most tokens that are taken one after the other.
    pub one_by_one: usize,
    /// Whether the state is a plain sum of f32, of whose roundings account is kept: nothing that decays or is erased adds up so
    /// many.
    pub is_sum: bool,
    /// Channels of a query and a key.
    pub dim: usize,
    /// The same in whole lines.
    pub dims: usize,
    /// Value heads of a part at most.
    pub heads: usize,
    /// Channels of values in a part at most.
    pub channels: usize,
    /// The same in whole lines.
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
    /// Factors of the state's rows.
    pub keep: &'a mut [f32],
    /// The states of the part's heads, `[heads][dims][width]`.
    pub states: &'a mut [f32],
    /// Their sums of features, `[heads][dims]`.
    pub norms: &'a mut [f32],
    /// What rounding took of states and sums of features, where account is kept of it.
    pub lost: [&'a mut [f32]; 2],
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
}

impl Share {
    pub fn new(
        variant: &Variant<'_>,
        recurrence: &Recurrence,
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
        Self { heads: part_heads, channels }
    }

    /// How many there are of a task.
    #[cfg(feature = "alloc")]
    pub fn parts(&self, heads: &Heads) -> usize {
        let group = (heads.value / heads.kv.max(1)) as usize;
        group.div_ceil(self.heads.max(1)) * (heads.value_dim as usize).div_ceil(self.channels.max(1))
    }
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
        let RecurrencePlan { chunk, one_by_one } =
            plan.recurrence.unwrap_or(RecurrencePlan { chunk: 1, one_by_one: 0 });
        let chunk = (chunk as usize).next_multiple_of(LINE);
        let Share { heads: part_heads, channels } = Share::new(variant, recurrence, problem, threads);
        let [dims, width] = [dim, channels].map(|n| n.next_multiple_of(LINE));
        let right = [([dims, chunk], true), ([dims, width], false), ([chunk, width], false)];
        let right = right.map(|(sizes, is_turned)| E::right_len(sizes, is_turned));
        // What is lost to rounding counts in the bounds of f32 alone.
        let is_exact = plan.dtype == Dtype::F32;
        Self {
            chunk,
            one_by_one: one_by_one as usize,
            is_sum: is_exact && matches!(recurrence.decay, Decay::None) && recurrence.delta.is_none(),
            dim,
            dims,
            heads: part_heads,
            channels,
            width,
            tokens: TokenLayout::new(variant, problem),
            packed: [right[0], right[1], right[2], E::left_len(dims.max(chunk))],
            per_channel: matches!(recurrence.decay, Decay::Channel(_)),
            delta: recurrence.delta.is_some(),
            finish: crate::finish::len(value_dim),
            code: code.scratch_len(LINE),
        }
    }

    fn sizes(&self) -> [usize; 30] {
        let Self { chunk, dims, width, heads, packed, per_channel, delta, is_sum, finish, code, .. } = *self;
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
            states,
            norms,
            of(is_sum, states),
            of(is_sum, norms),
            code,
            finish,
        ]
    }

    /// Floats of a worker's memory.
    pub fn worker_len(&self) -> usize {
        carve::len(self.sizes())
    }

    /// Floats of all: what is known of tokens, and each worker's.
    pub fn len(&self, threads: usize) -> usize {
        let common = carve::len([self.tokens.frequencies_len(), self.tokens.table_len()]);
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
            keep: carve.next(),
            states: carve.next(),
            norms: carve.next(),
            lost: [carve.next(), carve.next()],
            code: carve.next_as(),
            finish: carve.next(),
        }
    }
}
