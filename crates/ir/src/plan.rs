//! What a planner decided, as plain numbers that a kernel can be built with.

use core::fmt;

use crate::cache::PageFormat;
use crate::identity::Identity;
use crate::machine::Isa;
use crate::reach::Reach;
use crate::tiles::Tiles;

/// Storage type of q, k, v and o.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl Dtype {
    /// Every storage type.
    pub const ALL: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

    /// As it is written in specs and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }

    /// Bytes of an element.
    pub const fn size_bytes(self) -> u32 {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }
}

/// How products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Precision {
    /// f32 products in f32.
    Exact,
    /// f32 products may be made of bf16 pieces, within the bound.
    Fast,
}

/// Which engine computes the tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum EngineKind {
    /// f32 vector lanes; 16-bit storage is converted while it is packed.
    SimdF32,
    /// Products of bf16 pairs on vector lanes.
    DotBf16,
    /// bf16 matrix tiles; wider storage is split into bf16 pieces while it is packed.
    AmxBf16,
}

impl EngineKind {
    /// Every engine.
    pub const ALL: [EngineKind; 3] = [EngineKind::SimdF32, EngineKind::DotBf16, EngineKind::AmxBf16];

    /// As it is written on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            EngineKind::SimdF32 => "simd-f32",
            EngineKind::DotBf16 => "dot-bf16",
            EngineKind::AmxBf16 => "amx-bf16",
        }
    }
}

/// How many bf16 pieces, the first the nearest, each operand of a product is the sum of.
///
/// Of the products of pieces i and j those with i + j below an order are computed: of 2 pieces of both, 3 below the order of 2 and
/// all 4 below that of 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Pieces {
    /// Of queries and keys.
    pub scores: u8,
    /// Of weights.
    pub weights: u8,
    /// Of values.
    pub values: u8,
    /// The order of products of weights and values, and with it how precise weights are before they are split: below 3 as 16-bit
    /// storage asks for. The order of products of queries and keys is the number of their pieces.
    pub order: u8,
}

impl Pieces {
    /// Operands that are not split.
    pub const WHOLE: Self = Self { scores: 1, weights: 1, values: 1, order: 1 };

    /// Products that make up one of queries and keys, and one of weights and values.
    pub const fn products(self) -> [u32; 2] {
        [pairs(self.scores, self.scores, self.scores), pairs(self.weights, self.values, self.order)]
    }
}

/// Pairs of pieces below an order.
const fn pairs(a: u8, b: u8, order: u8) -> u32 {
    let (mut i, mut pairs) = (0, 0);
    while i < a {
        let rest = order.saturating_sub(i);
        pairs += if rest < b { rest } else { b } as u32;
        i += 1;
    }
    pairs
}

/// Block sizes of the flash skeleton, in elements.
///
/// Rows are pairs of query head and query position; a row tile is what the engine multiplies at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Blocks {
    /// Query positions that share one pass over the keys; with the heads of a group, the rows of a pass.
    pub query_block: u32,
    /// Keys that are packed, scored and folded at once; divides `key_cell`.
    pub key_block: u32,
    /// Keys whose sums start from zero, on a grid of absolute positions.
    pub key_cell: u32,
    /// Keys that are classified together inside a partial block; divides `key_block`.
    pub mask_step: u32,
    /// Channels that one chain of sums runs over.
    pub channel_chain: u32,
}

/// Sizes of the split skeleton, which serves few queries on a cache, in cached keys: of pseudo-heads, tokens, whatever is cached
/// of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Split {
    /// Keys whose sums start from zero, on a grid of absolute positions: what threads share out. Whole chunks.
    pub key_cell: u32,
    /// Keys that are scored before their values are added up: whole pages, or a part of one where pseudo-heads are mixed first.
    pub key_chunk: u32,
    /// Rows, pairs of query head and query, of sequences that share a prefix, in one pass over its keys at most; 0 where none
    /// share any.
    pub stack_rows: u32,
}

/// What a plan has for latents beside the blocks of their expanded form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LatentPlan {
    /// Block sizes of prefill in the absorbed form.
    pub absorbed: Blocks,
    /// What takes how long of one head, in units of their own; see [`LatentPlan::expands`].
    pub costs: LatentCosts,
}

/// What latents cost a query head, relative to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct LatentCosts {
    /// Making a key and a value of a latent.
    pub expand_key: u32,
    /// A pair of a query and an expanded key.
    pub expanded_pair: u32,
    /// Bringing a query to the latents, and its output back.
    pub absorb_query: u32,
    /// A pair of a query and a latent.
    pub absorbed_pair: u32,
}

impl LatentCosts {
    /// Whether keys and values of a sequence are made: where that costs no more than what queries brought to the latents do, of
    /// which so many `pairs` see each other.
    pub const fn expands(&self, queries: u32, keys: u32, pairs: u64) -> bool {
        let (queries, keys, pairs) = (queries as u128, keys as u128, pairs as u128);
        keys * self.expand_key as u128 + pairs * self.expanded_pair as u128
            <= queries * self.absorb_query as u128 + pairs * self.absorbed_pair as u128
    }
}

/// How many tokens a recurrence takes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct RecurrencePlan {
    /// Tokens of a chunk, on a grid of absolute positions.
    pub chunk: u32,
    /// The most tokens of a sequence that are taken one after the other instead, each of which reads and writes the state where it
    /// is.
    pub one_by_one: u32,
    /// Bytes of all states that a worker goes through in a call which its caches hold from one call to the next.
    pub held_bytes: u32,
}

/// A plan: one spec on one machine for one storage type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Plan {
    /// Identity of the spec that it was made for.
    pub identity: Identity,
    /// Instruction set that the kernel is built for.
    pub isa: Isa,
    /// Engine that computes the tiles.
    pub engine: EngineKind,
    /// Storage type of q, k, v and o.
    pub dtype: Dtype,
    /// What the engine splits operands into.
    pub pieces: Pieces,
    /// Block sizes of prefill.
    pub prefill: Blocks,
    /// Sizes of decoding.
    pub decode: Split,
    /// What there is for latents, where the spec has them.
    pub latent: Option<LatentPlan>,
    /// What there is for a recurrence, where the spec has one.
    pub recurrence: Option<RecurrencePlan>,
    /// How keys and values are cached.
    pub cache: PageFormat,
    /// Which keys a query can see at most, however long its sequence: what a ring holds. `None` where that has no end.
    pub reach: Option<Reach>,
    /// The most bytes of packed keys and values that are kept for all passes of their heads, each packed once a run. Where those of
    /// one head would be more, each pass packs its own blocks.
    pub pack_ahead_bytes: u64,
    /// How many tasks each thread gets at most when a schedule cuts the work, so that the last ones even out.
    pub tasks_per_thread: u32,
}

/// The most blocks of packed keys that a worker keeps: some megabytes.
const MOST_KEPT_BLOCKS: u32 = 32;

impl Plan {
    /// How many blocks of packed keys a pass visits at most, where that does not grow with its sequence and they are few enough
    /// for each worker to keep: the next pass packs none of them again.
    pub fn kept_blocks(&self) -> Option<u32> {
        let Blocks { query_block, key_block, .. } = self.prefill;
        let Reach { first, back } = self.reach?;
        let blocks = |keys: u32| keys.checked_div(key_block).map(|whole| whole.saturating_add(1));
        let window = blocks(back.saturating_add(query_block))?.saturating_add(1);
        let kept = if first > 0 { window.saturating_add(blocks(first)?) } else { window };
        (kept <= MOST_KEPT_BLOCKS).then_some(kept)
    }

    /// The same with sizes of calls on caches counted in positions, of which a token is so many; what is cached are rows of these.
    pub const fn in_positions(&self, per_token: u32) -> Self {
        let Split { key_cell, key_chunk, .. } = self.decode;
        let (key_cell, key_chunk) = (key_cell.saturating_mul(per_token), key_chunk.saturating_mul(per_token));
        let decode = Split { key_cell, key_chunk, ..self.decode };
        Self { decode, cache: self.cache.in_positions(per_token), ..*self }
    }

    /// Which bounds results keep.
    pub const fn precision(&self) -> Precision {
        match (self.engine, self.dtype) {
            (EngineKind::AmxBf16, Dtype::F32) => Precision::Fast,
            _ => Precision::Exact,
        }
    }
}

/// What a person wants to know of a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ScheduleOverview {
    /// Tasks that threads take one by one.
    pub tasks: u32,
    /// Threads that it was cut for.
    pub threads: u32,
    /// Live pairs among all pairs of query and key, estimated, from 0 to 1.
    pub live_share: f64,
    /// Tiles of a query block by a key block, over all key heads of all sequences.
    pub tiles: Tiles,
    /// How much longer the busiest thread works than the average, as a fraction, if time goes by live pairs.
    pub imbalance: f64,
    /// How the tasks of a recurrence are shared out, where it is one.
    pub recurrence: Option<RecurrenceShares>,
}

/// How threads share the tasks of a recurrence, each of which is the value heads of a key head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct RecurrenceShares {
    /// Parts of all tasks.
    pub parts: u32,
    /// Value heads of a part at most.
    pub heads: u32,
    /// Channels of their values at most.
    pub channels: u32,
    /// Tokens of a cell.
    pub cell: u32,
    /// Cells of a part that are shared out at a time; 0 where a part takes one after the other.
    pub wave: u32,
}

impl fmt::Display for RecurrenceShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parts, heads, channels, cell, wave } = self;
        let plural = if *heads == 1 { "" } else { "s" };
        writeln!(f, "parts     = {parts}, each of {heads} value head{plural} and {channels} channels")?;
        match wave {
            0 => Ok(()),
            _ => writeln!(f, "cells     = of {cell} tokens, {wave} of each part shared out at a time"),
        }
    }
}

impl ScheduleOverview {
    /// Of two schedules that are run one after the other, over sequences of their own.
    pub fn and(self, other: Self) -> Self {
        let sum = |a: u64, b: u64| a.saturating_add(b);
        Self {
            tasks: self.tasks.saturating_add(other.tasks),
            threads: self.threads.max(other.threads),
            live_share: self.live_share + other.live_share,
            tiles: Tiles {
                dead: sum(self.tiles.dead, other.tiles.dead),
                full: sum(self.tiles.full, other.tiles.full),
                partial: sum(self.tiles.partial, other.tiles.partial),
            },
            imbalance: self.imbalance.max(other.imbalance),
            recurrence: self.recurrence.or(other.recurrence),
        }
    }
}

impl fmt::Display for ScheduleOverview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tiles { dead, full, partial } = self.tiles;
        let plural = if self.threads == 1 { "" } else { "s" };
        writeln!(f, "tasks     = {} for {} thread{plural}", self.tasks, self.threads)?;
        writeln!(f, "live      = {:.2} % of the pairs", 100.0 * self.live_share)?;
        writeln!(f, "tiles     = {full} full, {partial} partial, {dead} dead and never visited")?;
        writeln!(f, "imbalance = {:.1} % above the average for the busiest thread", 100.0 * self.imbalance)
    }
}

/// What a person wants to know of a call on caches, and what its time is predicted from. A pass is that of the queries of one
/// key head over one cell of cached keys.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SplitOverview {
    /// Sequences.
    pub sequences: u32,
    /// Rows of a pass, pairs of query head and query, of the sequence that has most.
    pub rows: u32,
    /// Cells that some query sees keys of, over all sequences.
    pub live_cells: u64,
    /// Cells of all sequences.
    pub cells: u64,
    /// Chunks of a cell, each of which is scored before its values are added up.
    pub chunks: u32,
    /// Passes that threads take one by one.
    pub passes: u64,
    /// Keys, and values, that passes read, over all of them: whole pages, but for the end of a sequence.
    pub keys: u64,
    /// Their pairs with the rows of the passes that read them.
    pub pairs: u64,
    /// Those that the mask is asked about one by one.
    pub masked_pairs: u64,
    /// Lookahead keys among them, over all passes, that the last tokens may teach: what they ask was read when these were appended.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "none"))]
    pub learners: u64,
    /// Bytes of those keys and values, with their scales.
    pub read_bytes: u64,
    /// Threads that share the passes.
    pub threads: u32,
    /// How much longer the busiest thread works than the average, as a fraction, if each takes the next pass when it has done
    /// its last and time goes by keys. Of very many passes the most that it can be.
    pub imbalance: f64,
}

/// Whether there are none.
#[cfg(feature = "serde")]
const fn none(count: &u64) -> bool {
    *count == 0
}
