//! The workspace: what all workers share, the sums of each cell, and a piece for each worker.

use regard_engine::Engine;
use regard_engine::cached::{LANES, column_rows, columns_scratch_len, has_columns, packed_row, scratch_len};
use regard_ir::cache::PageShape;
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::variant::Variant;
use regard_simd::Lanes;

use super::cell::VALUE_CHAIN;
use super::learn;
use super::stacks::{Lists, Size};
use crate::carve::{self, ALIGN, Carve};
use crate::code::Code;
use crate::finish;
use crate::tokens::TokenLayout;

/// Sums of the rows of one key head over one cell, or over several: `[rows][width]` weighted values, then for each row the sum
/// of its weights and their reference.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Rows.
    pub rows: usize,
    /// Channels of a row, in whole panels.
    pub width: usize,
}

/// Numbers beside a row of sums: what its weights add up to, and their reference.
pub(super) const STATS: usize = 2;

impl Slot {
    /// So many slots of sequences whose rows take one pass, as one.
    pub const fn of(&self, sequences: usize) -> Self {
        Self { rows: self.rows * sequences, ..*self }
    }

    pub fn len(&self) -> usize {
        (self.rows * (self.width + STATS)).next_multiple_of(ALIGN)
    }

    /// The rows of a slot, and what is beside them.
    #[inline(always)]
    pub fn split<'a>(&self, slot: &'a mut [f32]) -> (&'a mut [f32], &'a mut [[f32; STATS]]) {
        let (rows, stats) = slot.split_at_mut(self.rows * self.width);
        (rows, &mut stats.as_chunks_mut().0[..self.rows])
    }

    /// One row of a slot, and what is beside it.
    pub fn row<'a>(&self, slot: &'a [f32], row: usize) -> (&'a [f32], [f32; STATS]) {
        let stats = &slot[self.rows * self.width..];
        (&slot[row * self.width..][..self.width], [stats[row * STATS], stats[row * STATS + 1]])
    }
}

/// Sizes of what a call works in.
pub(super) struct Layout {
    /// A page.
    pub page: PageShape,
    /// Keys that are scored before their values are added up.
    pub chunk: usize,
    /// What a cell leaves behind.
    pub slot: Slot,
    /// The most sequences of a pass.
    most: usize,
    /// Rows of a pass at most.
    rows: usize,
    /// Channels of a packed query.
    pub packed_row: usize,
    /// What is known of each query's token.
    pub tokens: TokenLayout,
    /// Lanes of a vector.
    lanes: usize,
    /// Whether values are read from keys as these lie, where there are rows enough.
    columns: bool,
    sequences: usize,
    heads: usize,
    code: usize,
    /// Of lookahead keys, where there are some.
    pub learning: Option<learn::Layout>,
}

/// What all workers share.
pub(super) struct Common<'a> {
    /// Rotary frequencies, as f64.
    pub frequencies: &'a mut [f32],
    /// What is known of each query's token.
    pub table: &'a mut [f32],
    /// The lists of live cells and of who shares them.
    pub lists: Lists<'a>,
    /// A slot for each live cell of each sequence and key head.
    pub sums: &'a mut [f32],
    /// A slot for each sequence and key head, where cells are added up.
    pub results: &'a mut [f32],
    /// The workers' pieces.
    pub workers: &'a mut [f32],
}

/// One worker's memory.
pub(super) struct Memory<'a> {
    /// The packed queries, one after the other.
    pub query: &'a mut [f32],
    /// A query on its way there.
    pub unpacked: &'a mut [f32],
    /// Scores, then weights, `[rows][chunk]`.
    pub scores: &'a mut [f32],
    /// Weights over some keys, on their way.
    pub weights: &'a mut [f32],
    /// What each row's weights add up to, a vector of lanes each.
    pub totals: &'a mut [f32],
    /// Their references in log2 units, integral; −inf while no key was live.
    pub references: &'a mut [f32],
    /// What each row's sums are multiplied by.
    pub factors: &'a mut [f32],
    /// A block of values without what is not finite.
    pub mended: &'a mut [u32],
    /// Sums of weighted values as columns, a vector of rows after the other for each channel.
    pub columns: &'a mut [f32],
    /// One value.
    pub value: &'a mut [f32],
    /// Query head and query position in each lane, and which keys are allowed.
    pub lanes: [&'a mut [i32]; 3],
    /// Scratch of the variant's code.
    pub code: &'a mut [i32],
    /// What lookahead keys need, where there are some.
    pub learning: Option<learn::Memory<'a>>,
}

impl Layout {
    pub fn new<E: Engine>(
        variant: &Variant<'_>,
        plan: &Plan,
        code: &dyn Code<E::Lanes>,
        problem: &Problem<'_>,
    ) -> Self {
        let heads = &variant.heads;
        let page = plan.cache.shape(variant);
        let rows = heads.group() as usize * problem.queries as usize;
        let (stack, batch) = (plan.decode.stack_rows as usize, problem.batch as usize);
        let most = (stack / rows.max(1)).clamp(1, batch.max(1));
        // As many for fewer queries, of which more sequences fit a stack.
        let all = rows.max(stack.min(rows.saturating_mul(batch)));
        let chunk = plan.decode.key_chunk as usize;
        Self {
            page,
            chunk,
            slot: Slot { rows, width: page.values.channels.next_multiple_of(LANES) },
            most,
            rows: all,
            packed_row: packed_row(&page.keys),
            tokens: TokenLayout::of_queries(variant, problem),
            lanes: E::Lanes::WIDTH,
            columns: page.shared && has_columns(&page.keys),
            sequences: problem.batch as usize,
            heads: heads.kv as usize,
            code: code.scratch_len(E::Lanes::WIDTH),
            learning: code.teaches().map(|_| learn::Layout::new(&page, all, chunk)),
        }
    }

    /// So many rows of a pass in whole vectors, where their sums are columns.
    pub fn column_rows(&self, rows: usize) -> Option<usize> {
        column_rows(rows, self.lanes).filter(|_| self.columns)
    }

    /// How large the lists of passes are.
    pub const fn stacks(&self) -> Size {
        Size { sequences: self.sequences, heads: self.heads, most: self.most }
    }

    /// The sizes of what is shared, in the order of [`Common`]'s fields up to the workers and of those of [`Lists`], with so
    /// many live cells over all sequences.
    fn common(&self, cells: usize) -> [usize; 11] {
        let times = usize::saturating_mul;
        let (slots, results) = (times(cells, self.heads), times(self.sequences, self.heads));
        let pairs = |count: usize| times(count, 2);
        [
            self.tokens.frequencies_len(),
            self.tokens.table_len(),
            self.sequences,
            self.sequences + 1,
            pairs(cells),
            self.sequences + 1,
            pairs(cells.saturating_add(1)),
            cells,
            slots.saturating_add(1),
            times(slots, self.slot.len()),
            times(results, self.slot.len()),
        ]
    }

    /// The operands' sizes, in the order of [`Memory`]'s fields.
    fn sizes(&self) -> [usize; 14] {
        let Self { page, chunk, rows, lanes, .. } = *self;
        let (chain, whole) = (page.tokens.min(VALUE_CHAIN), rows.next_multiple_of(lanes));
        // Values that are keys too are read page by page.
        let values = if page.shared { page.tokens } else { chunk };
        let [as_columns, columns] = match self.columns {
            true => [columns_scratch_len(whole, VALUE_CHAIN), whole * page.values.channels],
            false => [0, 0],
        };
        [
            rows * self.packed_row,
            page.keys.channels,
            rows * chunk,
            scratch_len((&page.values, values), rows, chain).max(as_columns),
            rows * lanes,
            rows,
            whole,
            page.value_block_len(),
            columns,
            self.slot.width,
            LANES,
            LANES,
            LANES,
            self.code,
        ]
    }

    /// Elements of one worker's memory, which also holds the rows that are at work while outputs are finished.
    pub fn worker_len(&self) -> usize {
        let learning = self.learning.as_ref().map_or(0, learn::Layout::len);
        carve::len(self.sizes()).saturating_add(learning).max(finish::len(self.slot.width))
    }

    /// Elements for `threads` workers and so many live cells over all sequences; saturates.
    pub fn workspace_len(&self, cells: usize, threads: usize) -> usize {
        let workers = threads.max(1).saturating_mul(self.worker_len());
        carve::len(self.common(cells)).saturating_add(workers).saturating_add(ALIGN)
    }

    /// Elements of what all workers share, with so many live cells over all sequences; saturates.
    pub fn common_len(&self, cells: usize) -> usize {
        carve::len(self.common(cells))
    }

    /// Carves the aligned workspace, which is as long as [`Layout::workspace_len`] says.
    pub fn share<'a>(&self, memory: &'a mut [f32], cells: usize) -> Common<'a> {
        let mut pieces = Carve::new(memory, self.common(cells));
        Common {
            frequencies: pieces.next(),
            table: pieces.next(),
            lists: Lists {
                roots: pieces.next_as(),
                firsts: pieces.next_as(),
                cells: pieces.next_as(),
                leads: pieces.next_as(),
                stacks: pieces.next_as(),
                members: pieces.next_as(),
                starts: pieces.next_as(),
            },
            sums: pieces.next(),
            results: pieces.next(),
            workers: pieces.rest(),
        }
    }

    /// Carves one worker's memory.
    pub fn carve<'a>(&self, memory: &'a mut [f32]) -> Memory<'a> {
        let mut pieces = Carve::new(memory, self.sizes());
        let mut memory = Memory {
            query: pieces.next(),
            unpacked: pieces.next(),
            scores: pieces.next(),
            weights: pieces.next(),
            totals: pieces.next(),
            references: pieces.next(),
            factors: pieces.next(),
            mended: pieces.next_as(),
            columns: pieces.next(),
            value: pieces.next(),
            lanes: [pieces.next_as(), pieces.next_as(), pieces.next_as()],
            code: pieces.next_as(),
            learning: None,
        };
        memory.learning = self.learning.as_ref().map(|layout| layout.carve(pieces.rest()));
        memory
    }
}
