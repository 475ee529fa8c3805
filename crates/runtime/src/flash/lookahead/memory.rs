//! A worker's memory for lookahead keys.

use regard_engine::engine::GROUP;
use regard_engine::{Engine, Shape};

use super::super::memory::Tile;
use crate::carve::{self, Carve};
use crate::code::Code;

/// Sizes of what a query block works on, in elements, and the shapes of its products.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Tokens of a query block, in whole row tiles.
    pub tokens: usize,
    /// Channels of a lookahead key.
    pub dim: usize,
    /// What keys ask of tokens: rows of `k_u` against `q_u`.
    pub ask: Shape,
    /// What queries find: rows of q_c and of what their block's tokens teach them, against `u` and weights.
    pub find: Shape,
    /// What tokens leave: channels of `v_u` against weights, so many times over as these have halves.
    pub leave: Shape,
    /// What weights are the sum of, where one number of the engine has fewer digits than `u` must: that number and the rest.
    pub halves: usize,
    /// What a block's queries find in its own tokens: rows of q_c against `v_u`.
    pub own: Shape,
    tile: usize,
    sizes: [usize; 14],
    /// Elements of a packed row tile of each shape, in their order.
    query_lens: [usize; 3],
}

impl Layout {
    /// Of blocks of `rows` queries, whole row tiles.
    pub fn new<E: Engine>(shape: &Shape, tile: Tile, rows: usize, code: &dyn Code<E::Lanes>) -> Self {
        let dim = shape.dim;
        // Rows of tokens are channels too, and those of an engine come in groups.
        let tokens = rows.next_multiple_of(GROUP);
        let of = |dim, key_block| Shape { dim, value_dim: 0, key_block, ..*shape };
        let ask = of(dim, shape.key_block);
        let find = of(dim + tokens, shape.key_block);
        let halves = if E::UNSCALED && shape.pieces.scores == 1 { 2 } else { 1 };
        let leave = of(halves * tokens, shape.key_block);
        let own = of(dim, tokens);
        let tiles = rows / tile.rows;
        let packed = |shape: &Shape| {
            shape.key_block.div_ceil(E::unit_keys(shape).max(1)).saturating_mul(E::packed_len(shape))
        };
        let most = |of: fn(&Shape) -> usize| [ask, find, leave, own].iter().map(of).max().unwrap_or(0);
        let query_lens = [ask, find, leave].map(|shape| E::query_len(&shape));
        let sizes = [
            tiles * query_lens[0],
            tiles * query_lens[1],
            dim.div_ceil(tile.rows) * query_lens[2],
            packed(&own),
            packed(&ask),
            packed(&find).max(packed(&leave)),
            shape.key_block * tokens,
            tokens * tokens,
            tokens * dim,
            dim * tokens,
            shape.key_block.max(tokens) * tile.rows,
            most(E::scratch_len),
            most(E::pack_len).max(dim),
            tokens + code.scratch_len(tile.rows).max(tile.rows),
        ];
        Self { tokens, dim, ask, find, leave, halves, own, tile: tile.rows, sizes, query_lens }
    }

    /// The widest rows that are packed.
    pub fn width(&self) -> usize {
        self.find.dim.max(self.leave.dim)
    }

    /// Elements of one worker's memory.
    pub fn len(&self) -> usize {
        carve::len(self.sizes)
    }

    /// Carves it.
    pub fn carve<'a>(&self, memory: &'a mut [f32]) -> Memory<'a> {
        let mut pieces = Carve::new(memory, self.sizes);
        let mut memory = Memory {
            askers: pieces.next(),
            finders: pieces.next(),
            left: pieces.next(),
            own: pieces.next(),
            asked: pieces.next(),
            found: pieces.next(),
            weights: pieces.next(),
            own_scores: pieces.next(),
            rows: pieces.next(),
            turned: pieces.next(),
            scores: pieces.next(),
            scratch: pieces.next(),
            pack: pieces.next(),
            odd: &mut [],
            code: pieces.next_as(),
            has_odd_values: false,
            has_odd_weights: false,
        };
        (memory.odd, memory.code) = core::mem::take(&mut memory.code).split_at_mut(self.tokens);
        memory
    }

    /// Where a packed row tile of tokens lies that begins with row `first`.
    pub fn asker(&self, first: usize) -> core::ops::Range<usize> {
        self.packed(0, first)
    }

    /// The same of queries and what is taught them.
    pub fn finder(&self, first: usize) -> core::ops::Range<usize> {
        self.packed(1, first)
    }

    /// The same of channels of values.
    pub fn channels(&self, first: usize) -> core::ops::Range<usize> {
        self.packed(2, first)
    }

    fn packed(&self, which: usize, first: usize) -> core::ops::Range<usize> {
        let len = self.query_lens[which];
        let begin = first / self.tile * len;
        begin..begin + len
    }
}

/// What a query block works on.
pub struct Memory<'a> {
    /// Packed row tiles of `k_u`.
    pub askers: &'a mut [f32],
    /// Packed row tiles of q_c, and of what its block's tokens teach.
    pub finders: &'a mut [f32],
    /// Packed row tiles of the channels of `v_u`.
    pub left: &'a mut [f32],
    /// The block's `v_u`, packed as keys.
    pub own: &'a mut [f32],
    /// `q_u` of a key block, packed.
    pub asked: &'a mut [f32],
    /// `u` and weights of a key block, packed; then its weights alone.
    pub found: &'a mut [f32],
    /// What the block's tokens teach a key block, `[key][token]`.
    pub weights: &'a mut [f32],
    /// What the block's queries find in its tokens, `[query][token]`; 0 in later ones.
    pub own_scores: &'a mut [f32],
    /// Rows of q_c, as they are packed, `[query][dim]`.
    pub rows: &'a mut [f32],
    /// The block's `v_u`, `[dim][token]`; 0 where it is not finite.
    pub turned: &'a mut [f32],
    /// Scores of a row tile.
    pub scores: &'a mut [f32],
    /// An engine's room for a step.
    pub scratch: &'a mut [f32],
    /// Room for packing.
    pub pack: &'a mut [f32],
    /// Whether a token's `v_u` is not finite throughout.
    pub odd: &'a mut [i32],
    /// Scratch of the code that says who teaches whom.
    pub code: &'a mut [i32],
    /// Whether some token's is not.
    pub has_odd_values: bool,
    /// Whether some weight is no number.
    pub has_odd_weights: bool,
}
