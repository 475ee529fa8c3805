//! The workspace: what all workers share, and a piece for each, carved into the operands of a pass.

use regard_engine::{Engine, Shape};
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::rows::Output;
use regard_ir::variant::{Latent, Variant};
use regard_simd::TRANSPOSE;

use super::expand;
use super::keys::Scratch;
use super::lookahead::memory as lookahead;
use super::pass::strip::Strips;
use super::places::Places;
use crate::carve::{self, ALIGN, Carve};
use crate::code::Code;
use crate::finish;
use crate::mix::Mixes;
use crate::tokens::TokenLayout;

/// Of what may be packed ahead, sums of heads that are shared out take a part: what the last cache holds.
const STRIPS: usize = 16;

/// Numbers that name a key block.
pub(super) const BLOCK_NAME: usize = 3;

/// The name of a block that there is not.
const NO_BLOCK: [i32; BLOCK_NAME] = [-1; BLOCK_NAME];

/// Rows of an engine's row tile.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Of a full tile.
    pub rows: usize,
    /// Widths are multiples of this.
    pub step: usize,
}

/// Sizes of a pass's operands, in elements.
pub(super) struct Layout {
    pub tile: Tile,
    /// Rows of a pass, rounded up to whole tiles.
    pub rows: usize,
    pub shape: Shape,
    /// `value_dim` rounded up as the engine wants.
    pub value_width: usize,
    /// Elements of a packed full row tile.
    pub query_len: usize,
    /// Blocks that a worker keeps packed for itself.
    blocks: usize,
    scratch: usize,
    pack: usize,
    /// Where packed blocks are kept for all.
    pub places: Places,
    pub tokens: TokenLayout,
    /// Elements of the weighted sums that are mixed afterwards; 0 where none are.
    sums: usize,
    /// Whether output rows are mixed, normed or gated.
    finishes: bool,
    /// Elements of the room in which rows are mixed, of keys or queries and of values.
    kept: [usize; 2],
    code: usize,
    /// Elements that keys and values are made in, where they are made of latents.
    expansion: usize,
    /// Of lookahead keys, where there are some.
    pub learning: Option<lookahead::Layout>,
    /// How their heads are shared out where they are few.
    pub strips: Option<Strips>,
}

/// Where keys and values come from.
#[derive(Clone, Copy)]
pub(crate) enum KeysFrom<'a> {
    /// From tensors.
    Tensors,
    /// From pages, in which they are as they enter the products.
    Pages,
    /// From pages whose rows, so many channels each, hold keys and values both.
    Rows(usize),
    /// From latents in pages.
    Latents(&'a Latent),
}

/// What all workers share.
pub(super) struct Common<'a> {
    /// Rotary frequencies, as f64.
    pub frequencies: &'a mut [f32],
    /// What is known of each token.
    pub table: &'a mut [f32],
    /// Packed keys and values, where they are kept for all.
    pub packed: &'a mut [f32],
    /// What became of each of their blocks.
    pub marks: &'a mut [u32],
    /// Weighted sums of all query heads, where they are mixed.
    pub sums: &'a mut [f32],
    /// What query blocks sum up in each cell, where heads are shared out.
    pub strips: &'a mut [f32],
    /// The workers' pieces.
    pub workers: &'a mut [f32],
}

impl Layout {
    pub fn new<E: Engine>(
        variant: &Variant<'_>,
        problem: &Problem<'_>,
        plan: &Plan,
        code: &dyn Code<E::Lanes>,
        keys: KeysFrom<'_>,
    ) -> Self {
        let heads = &variant.heads;
        let blocks = &plan.prefill;
        let shape = Shape {
            dim: heads.dim as usize,
            value_dim: heads.value_dim as usize,
            key_block: blocks.key_block as usize,
            channel_chain: blocks.channel_chain as usize,
            pieces: plan.pieces,
        };
        let tile = Tile { rows: E::ROWS, step: E::ROW_STEP };
        let rows = heads.group() as usize * blocks.query_block as usize;
        let [batch, queries, _] = problem.extents();
        let sums = [batch, heads.query, queries, heads.value_dim];
        let sums = sums.into_iter().fold(1, |len: usize, n| len.saturating_mul(n as usize));
        let is_pseudo = variant.pseudo().is_some();
        // No more heads are mixed than there are query heads.
        let room = [heads.dim, heads.value_dim]
            .map(|width| Mixes::room_len(variant.per_token() as usize, heads.query as usize, width as usize));
        let mixes = is_pseudo || variant.output.mix.is_some();
        // Blocks of no keys are refused later.
        let unit = E::unit_keys(&shape).max(1);
        let places = Places::new(variant, problem, plan, shape.key_block / unit * E::packed_len(&shape));
        // Where several passes see the same few blocks, each is packed once for all of a task.
        let kept = plan.kept_blocks().filter(|_| places.repeats).map_or(1, |blocks| blocks as usize);
        let of_problem = (problem.keys as usize).div_ceil(shape.key_block.max(1)) + 1;
        let blocks = if places.are_some() { 1 } else { kept.min(of_problem) };
        let rows = rows.next_multiple_of(tile.rows);
        let value_width = shape.value_dim.next_multiple_of(E::CHANNEL_STEP);
        let most_kept = usize::try_from(plan.pack_ahead_bytes).unwrap_or(usize::MAX) / size_of::<f32>();
        let strips = code.teaches().map(|_| {
            let tasks = (problem.batch as usize).saturating_mul(heads.kv as usize);
            Strips::new(plan, problem, tasks, (rows, value_width), most_kept / STRIPS)
        });
        let learning = code.teaches().map(|code| {
            lookahead::Layout::new::<E>(&shape, (tile, rows), code, (problem.keys as usize, most_kept))
        });
        Self {
            tile,
            rows,
            shape,
            value_width,
            query_len: E::query_len(&shape),
            blocks,
            scratch: E::scratch_len(&shape),
            pack: E::pack_len(&shape),
            places,
            tokens: match keys {
                KeysFrom::Tensors => TokenLayout::new(variant, problem),
                KeysFrom::Pages | KeysFrom::Rows(_) | KeysFrom::Latents(_) => {
                    TokenLayout::of_queries(variant, problem)
                }
            },
            sums: if mixes && problem.part.is_none() { sums } else { 0 },
            finishes: mixes || variant.output != Output { lse: variant.output.lse, ..Output::default() },
            kept: if is_pseudo { room } else { [0; 2] },
            code: code.scratch_len(tile.rows),
            expansion: match keys {
                KeysFrom::Latents(latent) => expand::len::<E>(latent, unit, plan.dtype),
                KeysFrom::Rows(channels) => expand::rows_len(channels, unit),
                KeysFrom::Tensors | KeysFrom::Pages => 0,
            },
            learning,
            strips,
        }
    }

    /// Where the packed row tile lies that begins with row `first`.
    #[inline(always)]
    pub fn queries(&self, first: usize) -> core::ops::Range<usize> {
        let begin = first / self.tile.rows * self.query_len;
        begin..begin + self.query_len
    }

    /// Which of the kept blocks the one is that begins with a key.
    #[inline(always)]
    pub fn kept(&self, first_key: u32) -> usize {
        first_key as usize / self.shape.key_block % self.blocks.max(1)
    }

    /// Where the kept blocks lie, of that number.
    #[inline(always)]
    pub fn packed(&self, kept: usize) -> core::ops::Range<usize> {
        kept * self.places.block..(kept + 1) * self.places.block
    }

    /// The operands' sizes, in the order of [`Memory`]'s fields.
    fn sizes(&self) -> [usize; 20] {
        let Self { tile, rows, value_width, .. } = *self;
        let finish = if self.finishes { finish::len(value_width) } else { 0 };
        let [kept_keys, kept_values] = self.kept;
        [
            rows / tile.rows * self.query_len,
            rows * value_width,
            rows * value_width,
            self.blocks * self.places.block,
            self.blocks * BLOCK_NAME,
            self.scratch,
            rows,
            rows,
            rows,
            rows,
            tile.rows,
            tile.rows,
            self.pack.max(TRANSPOSE * value_width),
            rows,
            rows,
            finish,
            kept_keys,
            kept_values,
            self.code.max(tile.rows),
            self.expansion,
        ]
    }

    /// Elements of one worker's memory.
    pub fn worker_len(&self) -> usize {
        carve::len(self.sizes()).saturating_add(self.learning.as_ref().map_or(0, lookahead::Layout::len))
    }

    /// Elements for `threads` workers, wherever the workspace starts; saturates.
    pub fn workspace_len(&self, threads: usize) -> usize {
        let workers = threads.max(1).saturating_mul(self.worker_len());
        carve::len(self.common(threads)).saturating_add(workers).saturating_add(ALIGN)
    }

    /// The sizes of what is shared, in the order of [`Common`]'s fields.
    fn common(&self, threads: usize) -> [usize; 6] {
        let strips = self.strips.map_or(0, |strips| strips.len(threads));
        [
            self.tokens.frequencies_len(),
            self.tokens.table_len(),
            self.places.len(threads),
            self.places.marks_len(threads),
            self.sums,
            strips,
        ]
    }

    /// Carves the aligned workspace, which is as long as [`Layout::workspace_len`] says.
    pub fn share<'a>(&self, memory: &'a mut [f32], threads: usize) -> Common<'a> {
        let mut pieces = Carve::new(memory, self.common(threads));
        Common {
            frequencies: pieces.next(),
            table: pieces.next(),
            packed: pieces.next(),
            marks: pieces.next_as(),
            sums: pieces.next(),
            strips: pieces.next(),
            workers: pieces.rest(),
        }
    }

    /// Carves one worker's memory.
    pub fn carve<'a>(&self, memory: &'a mut [f32]) -> Memory<'a> {
        let mut pieces = Carve::new(memory, self.sizes());
        let mut memory = Memory {
            query: pieces.next(),
            cell_output: pieces.next(),
            total_output: pieces.next(),
            packed: pieces.next(),
            blocks: {
                let blocks = pieces.next_as::<i32>().as_chunks_mut().0;
                blocks.fill(NO_BLOCK);
                blocks
            },
            scratch: pieces.next(),
            cell_reference: pieces.next(),
            cell_sum: pieces.next(),
            total_reference: pieces.next(),
            total_sum: pieces.next(),
            factors: pieces.next(),
            other_factors: pieces.next(),
            rows: pieces.next(),
            positions: pieces.next_as(),
            heads: pieces.next_as(),
            finish: pieces.next(),
            kept: [pieces.next(), pieces.next()],
            code: pieces.next_as(),
            expansion: pieces.next(),
            expanded: None,
            learning: None,
        };
        memory.learning = self.learning.as_ref().map(|layout| layout.carve(pieces.rest()));
        memory
    }
}

impl Memory<'_> {
    /// Where keys are packed in.
    pub fn scratch(&mut self) -> Scratch<'_> {
        let Memory { rows, kept: [keys, values], expansion, expanded, .. } = self;
        Scratch { rows, kept: [keys, values], expansion, expanded }
    }
}

/// The operands of a pass.
pub(super) struct Memory<'a> {
    /// Packed row tiles of the queries, one after the other.
    pub query: &'a mut [f32],
    /// Outputs of the cell under way, for each row tile `[value_width][width]`.
    pub cell_output: &'a mut [f32],
    /// Outputs of the cells before it.
    pub total_output: &'a mut [f32],
    /// Packed key blocks: that under way, and those that are kept.
    pub packed: &'a mut [f32],
    /// Which they are: sequence, key head and first key.
    pub blocks: &'a mut [[i32; BLOCK_NAME]],
    /// Scores and weights of one row tile.
    pub scratch: &'a mut [f32],
    /// Reference of each row's cell.
    pub cell_reference: &'a mut [f32],
    /// Sum of the weights of each row's cell.
    pub cell_sum: &'a mut [f32],
    /// Reference of the cells before it.
    pub total_reference: &'a mut [f32],
    /// Sum of the weights of the cells before it.
    pub total_sum: &'a mut [f32],
    /// What each row of a tile is multiplied by.
    pub factors: &'a mut [f32],
    /// The same for a second operand.
    pub other_factors: &'a mut [f32],
    /// Rows on their way in or out.
    pub rows: &'a mut [f32],
    /// Absolute query position of each row.
    pub positions: &'a mut [i32],
    /// Query head of each row.
    pub heads: &'a mut [i32],
    /// Room for rows on their way out, as long as [`finish::len`] says; none where rows stay as they are.
    pub finish: &'a mut [f32],
    /// Room for rows that are mixed, of queries or keys, and of values; none where heads are not mixed.
    pub kept: [&'a mut [f32]; 2],
    /// Scratch of the variant's code.
    pub code: &'a mut [i32],
    /// What keys and values are made in, where they are made of latents.
    pub expansion: &'a mut [f32],
    /// The head whose matrices are packed there.
    pub expanded: Option<u32>,
    /// What lookahead keys need, where there are some.
    pub learning: Option<lookahead::Memory<'a>>,
}
