//! A worker's memory: one piece of the workspace, carved into the operands of a pass.

use pulp::bytemuck;
use regard_engine::Engine;
use regard_engine::engine::PANEL;
use regard_engine::isa::Door;
use regard_ir::plan::Blocks;
use regard_ir::variant::Heads;
use regard_simd::{Lanes, TRANSPOSE};

use crate::code::Code;

/// Every operand starts at a multiple of this many elements: a cache line, so that no vector straddles two.
const ALIGN: usize = 16;

/// Vectors of an engine's row tile.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub lanes: usize,
    pub vectors: usize,
}

impl Tile {
    pub fn of<E: Engine>(_: E) -> Self {
        Self { lanes: E::Lanes::WIDTH, vectors: E::MAX_VECTORS }
    }

    /// Rows of a full tile.
    pub fn rows(self) -> usize {
        self.lanes * self.vectors
    }
}

/// Sizes of a pass's operands, in elements.
pub(super) struct Layout {
    pub tile: Tile,
    /// Rows of a pass, rounded up to whole tiles.
    pub rows: usize,
    pub dim: usize,
    pub value_dim: usize,
    /// `value_dim` rounded up to whole panels.
    pub value_width: usize,
    pub key_block: usize,
    code: usize,
}

/// What is left of `workspace` from the first aligned element on.
pub(super) fn align(workspace: &mut [f32]) -> &mut [f32] {
    let skip = workspace.as_ptr().align_offset(ALIGN * size_of::<f32>()).min(workspace.len());
    &mut workspace[skip..]
}

impl Layout {
    pub fn new<L: Door>(heads: &Heads, blocks: &Blocks, tile: Tile, code: &dyn Code<L>) -> Self {
        let (dim, value_dim) = (heads.dim as usize, heads.value_dim as usize);
        let rows = heads.group() as usize * blocks.query_block as usize;
        Self {
            tile,
            rows: rows.next_multiple_of(tile.rows()),
            dim,
            value_dim,
            value_width: value_dim.next_multiple_of(PANEL),
            key_block: blocks.key_block as usize,
            code: code.scratch_len(tile.rows()),
        }
    }

    /// The operands' sizes, in the order of [`Memory`]'s fields.
    fn sizes(&self) -> [usize; 17] {
        let Self { tile, rows, dim, value_width, key_block, .. } = *self;
        [
            rows * dim,
            rows * value_width,
            rows * value_width,
            key_block * dim,
            key_block * value_width,
            key_block * tile.rows(),
            rows,
            rows,
            rows,
            rows,
            tile.rows(),
            tile.rows(),
            TRANSPOSE * dim.max(value_width),
            rows,
            rows,
            key_block,
            self.code.max(tile.rows()),
        ]
    }

    /// Elements of one worker's memory.
    pub fn worker_len(&self) -> usize {
        self.sizes().into_iter().map(|size| size.next_multiple_of(ALIGN)).sum()
    }

    /// Elements for `threads` workers, wherever the workspace starts.
    pub fn workspace_len(&self, threads: usize) -> usize {
        threads.max(1) * self.worker_len() + ALIGN
    }

    /// Carves one worker's memory.
    pub fn carve<'a>(&self, mut rest: &'a mut [f32]) -> Memory<'a> {
        let mut sizes = self.sizes().into_iter();
        let mut next = || -> &'a mut [f32] {
            let size = sizes.next().unwrap_or(0);
            let (piece, tail) = core::mem::take(&mut rest).split_at_mut(size.next_multiple_of(ALIGN));
            rest = tail;
            &mut piece[..size]
        };
        Memory {
            query: next(),
            cell_output: next(),
            total_output: next(),
            keys: next(),
            values: next(),
            scores: next(),
            cell_reference: next(),
            cell_sum: next(),
            total_reference: next(),
            total_sum: next(),
            factors: next(),
            other_factors: next(),
            rows: next(),
            positions: bytemuck::cast_slice_mut(next()),
            heads: bytemuck::cast_slice_mut(next()),
            odd_keys: bytemuck::cast_slice_mut(next()),
            code: bytemuck::cast_slice_mut(next()),
            packed: None,
        }
    }
}

/// The operands of a pass.
pub(super) struct Memory<'a> {
    /// Row panels of the queries, one after the other, each `[dim][width]`.
    pub query: &'a mut [f32],
    /// Outputs of the cell under way, for each row tile `[value_width][width]`.
    pub cell_output: &'a mut [f32],
    /// Outputs of the cells before it.
    pub total_output: &'a mut [f32],
    /// Key panels of the block under way.
    pub keys: &'a mut [f32],
    /// Its value panels.
    pub values: &'a mut [f32],
    /// Scores of one row tile, `[key_block][width]`.
    pub scores: &'a mut [f32],
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
    /// Eight rows on their way in or out.
    pub rows: &'a mut [f32],
    /// Absolute query position of each row.
    pub positions: &'a mut [i32],
    /// Query head of each row.
    pub heads: &'a mut [i32],
    /// Keys of the block whose values are not all finite.
    pub odd_keys: &'a mut [i32],
    /// Scratch of the variant's code.
    pub code: &'a mut [i32],
    /// The key block that is packed: sequence, key head, first key, and how many odd keys it has.
    pub packed: Option<([u32; 3], usize)>,
}
