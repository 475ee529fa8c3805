//! The workspace of passes over mixed keys: what all workers share, and a piece for each.

use regard_engine::Engine;
use regard_engine::cached::LANES;
use regard_ir::cache::{Block, Codec, PageShape};
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::variant::Variant;
use regard_simd::Lanes;

use super::super::memory as split;
use crate::carve::{self, ALIGN, Carve};
use crate::code::Code;
use crate::finish;
use crate::mix::Mixes;
use crate::tokens::TokenLayout;

/// Rows that are mixed at once, as far as heads have no more pseudo-heads: as many as a register tile has.
const MIXED: usize = 8;

/// Sizes of what a call works in.
pub(in crate::split) struct Layout {
    /// Of what any call on a cache has; its page is not the cache's.
    pub base: split::Layout,
    /// A page of the cache.
    pub page: PageShape,
    /// Cached heads.
    pub sources: usize,
    /// Heads that are attended.
    pub heads: usize,
    /// Positions of a token.
    pub per_token: usize,
    /// Heads whose rows are mixed at once.
    pub group: usize,
    /// Tokens that are mixed and scored before their values are.
    pub chunk: usize,
    /// Queries of a head at most, in positions.
    pub rows: usize,
    /// Channels of a key, and of a value in whole panels.
    pub dim: usize,
    pub value_width: usize,
    /// Whether keys are turned before they are mixed.
    pub turns_first: bool,
    /// Rotary pairs.
    pub half: usize,
    /// Of what is known of the positions that queries are turned by.
    pub tokens: TokenLayout,
    lanes: usize,
    code: usize,
}

/// What all workers share.
pub(super) struct Common<'a> {
    pub base: split::Common<'a>,
    /// Rotary frequencies, as f64.
    pub frequencies: &'a mut [f32],
    /// Cosine and sine from the first token of a chunk to each, for each rotary pair, as f64.
    pub steps: &'a mut [f32],
    /// What sources are multiplied by, `[head][pseudo-head][source]`, of keys and of values.
    pub factors: [&'a mut [f32]; 2],
    /// The workers' pieces.
    pub workers: &'a mut [f32],
}

/// One worker's memory.
pub(super) struct Memory<'a> {
    /// Queries, `[head][form][query]` rows; see [`Layout::forms`].
    pub query: &'a mut [f32],
    /// What is known of the positions that they are turned by.
    pub table: &'a mut [f32],
    /// What they are mixed in.
    pub room: &'a mut [f32],
    /// A row on its way.
    pub row: &'a mut [f32],
    /// Cached keys or values of some tokens, source by source in each line of lanes.
    pub sources: &'a mut [f32],
    /// Mixed rows of some heads.
    pub mixed: &'a mut [f32],
    /// A cached value, and one that is mixed of such.
    pub aside: &'a mut [f32],
    /// Cosines, then sines, of keys' angles, `[form][pair][token]`.
    pub angles: &'a mut [f32],
    /// Scores, then weights, `[head][query][pseudo-head][token]`.
    pub scores: &'a mut [f32],
    /// What each row's weights add up to, a vector of lanes each.
    pub totals: &'a mut [f32],
    /// Their references in log2 units, integral; −inf while no key was live.
    pub references: &'a mut [f32],
    /// What each row's sums are multiplied by.
    pub factors: &'a mut [f32],
    /// Of each head, what it sees of a chunk.
    pub seen: &'a mut [i32],
    /// Of each head, whether it has no sums so far, and whether they are multiplied by their factors.
    pub fresh: &'a mut [i32],
    pub moved: &'a mut [i32],
    /// Scratch of the variant's code.
    pub code: &'a mut [i32],
}

impl Layout {
    pub fn new<E: Engine>(
        variant: &Variant<'_>,
        stacked: &Variant<'_>,
        plan: &Plan,
        code: &dyn Code<E::Lanes>,
        problem: &Problem<'_>,
    ) -> Self {
        let heads = &variant.heads;
        let per_token = variant.per_token() as usize;
        let n_heads = heads.query as usize;
        let rows = problem.queries as usize;
        let turns_first =
            variant.qk_norm.is_none() && variant.position.is_some_and(|position| position.ids.is_none());
        let forms = if turns_first { per_token } else { 1 };
        Self {
            base: split::Layout::new::<E>(stacked, plan, code, problem),
            page: plan.cache.shape(variant),
            sources: heads.kv as usize,
            heads: n_heads,
            per_token,
            group: (MIXED / per_token.max(1)).clamp(1, n_heads.max(1)),
            chunk: plan.decode.key_chunk as usize,
            rows,
            dim: heads.dim as usize,
            value_width: (heads.value_dim as usize).next_multiple_of(LANES),
            turns_first,
            half: variant.position.map_or(0, |position| position.dim as usize / 2),
            tokens: TokenLayout::of_rows(variant, rows.saturating_add(forms - 1)),
            lanes: E::Lanes::WIDTH,
            code: code.scratch_len(E::Lanes::WIDTH),
        }
    }

    /// How many forms each query has: where keys are turned before they are mixed, one for each pseudo-head that it meets.
    pub const fn forms(&self) -> usize {
        if self.turns_first { self.per_token } else { 1 }
    }

    /// The row of the table of positions for a query in one of its forms.
    pub const fn form(&self, query: usize, form: usize) -> usize {
        query + self.forms() - 1 - form
    }

    /// How mixed keys of so many tokens lie.
    pub const fn key_block(&self, tokens: usize) -> Block {
        let panels = tokens.div_ceil(LANES);
        Block { codec: Codec::F32, channels: self.dim, panels, depth: self.dim, paired: false, groups: 0 }
    }

    /// How mixed values of so many tokens lie.
    pub const fn value_block(&self, tokens: usize) -> Block {
        let (channels, panels) = (self.value_width, self.value_width / LANES);
        Block { codec: Codec::F32, channels, panels, depth: tokens, paired: false, groups: 0 }
    }

    /// Numbers from the scores of one query to those of the next.
    pub const fn score_stride(&self) -> usize {
        self.per_token * self.chunk
    }

    /// Floats of cosines, and as many of sines.
    pub const fn angles(&self) -> usize {
        let forms = if self.turns_first { 1 } else { self.per_token };
        forms * self.half * self.chunk
    }

    /// The sizes of what is shared beside what any call has, in the order of [`Common`]'s fields.
    fn common(&self) -> [usize; 4] {
        let factors = self.heads.saturating_mul(self.per_token).saturating_mul(self.sources);
        [self.tokens.frequencies_len(), 4 * self.half * self.chunk, factors, factors]
    }

    /// The sizes of a worker's memory, in the order of [`Memory`]'s fields.
    fn sizes(&self) -> [usize; 16] {
        let Self { sources, heads, per_token, group, chunk, rows, dim, value_width, lanes, .. } = *self;
        let times = |sizes: &[usize]| sizes.iter().fold(1, |len: usize, &size| len.saturating_mul(size));
        let (width, all_rows) = (dim.max(value_width), times(&[heads, rows]));
        [
            times(&[all_rows, self.forms(), dim]),
            times(&[rows.saturating_add(self.forms() - 1), self.tokens.stride()]),
            Mixes::room_len(per_token, heads, dim),
            width,
            times(&[sources, chunk, width]),
            times(&[group, per_token, chunk, width]),
            2 * value_width,
            2 * self.angles(),
            times(&[all_rows, self.score_stride()]),
            times(&[all_rows, lanes]),
            all_rows,
            all_rows,
            heads,
            heads,
            heads,
            self.code,
        ]
    }

    /// Elements of one worker's memory.
    pub fn worker_len(&self) -> usize {
        // It is what outputs are finished in too.
        carve::len(self.sizes()).max(carve::len([finish::len(self.value_width)]))
    }

    /// Elements for `threads` workers and so many live cells, wherever the workspace starts; saturates.
    pub fn workspace_len(&self, cells: usize, threads: usize) -> usize {
        let workers = threads.max(1).saturating_mul(self.worker_len());
        let shared = self.base.common_len(cells).saturating_add(carve::len(self.common()));
        shared.saturating_add(workers).saturating_add(ALIGN)
    }

    /// Carves the aligned workspace, which is as long as [`Layout::workspace_len`] says.
    pub fn share<'a>(&self, memory: &'a mut [f32], cells: usize) -> Common<'a> {
        let (own, memory) = memory.split_at_mut(carve::len(self.common()));
        let base = self.base.share(memory, cells);
        let mut pieces = Carve::new(own, self.common());
        Common {
            frequencies: pieces.next(),
            steps: pieces.next(),
            factors: [pieces.next(), pieces.next()],
            workers: base.workers,
            base: split::Common { workers: &mut [], ..base },
        }
    }

    /// Carves one worker's memory.
    pub fn carve<'a>(&self, memory: &'a mut [f32]) -> Memory<'a> {
        let mut pieces = Carve::new(memory, self.sizes());
        Memory {
            query: pieces.next(),
            table: pieces.next(),
            room: pieces.next(),
            row: pieces.next(),
            sources: pieces.next(),
            mixed: pieces.next(),
            aside: pieces.next(),
            angles: pieces.next(),
            scores: pieces.next(),
            totals: pieces.next(),
            references: pieces.next(),
            factors: pieces.next(),
            seen: pieces.next_as(),
            fresh: pieces.next_as(),
            moved: pieces.next_as(),
            code: pieces.next_as(),
        }
    }
}
