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
    /// What keys ask of tokens, rows of `k_u` against `q_u`, and what queries find at keys as they are, rows of q_c against `u`.
    pub ask: Shape,
    /// What queries find in addition of their block's tokens: what they find in these against weights.
    pub add: Shape,
    /// What tokens leave: channels of `v_u` against weights, so many times over as these have halves.
    pub leave: Shape,
    /// What weights are the sum of, where one number of the engine has fewer digits than `u` must: that number and the rest.
    pub halves: usize,
    /// What a block's queries find in its own tokens: rows of q_c against `v_u`.
    pub own: Shape,
    /// Elements of the packed `q_u` of a key block.
    asked: usize,
    /// Key blocks whose packed `q_u` is kept.
    blocks: usize,
    key_block: usize,
    tile: usize,
    sizes: [usize; 15],
    /// Elements of a packed row tile of each shape, in their order.
    query_lens: [usize; 3],
}

impl Layout {
    /// Of blocks of `rows` queries, whole row tiles, and sequences of at most `keys` keys; `most_kept` numbers may be kept of `q_u`.
    pub fn new<E: Engine>(
        shape: &Shape,
        (tile, rows): (Tile, usize),
        code: &dyn Code<E::Lanes>,
        (keys, most_kept): (usize, usize),
    ) -> Self {
        let dim = shape.dim;
        // Rows of tokens are channels too, and those of an engine come in groups.
        let tokens = rows.next_multiple_of(GROUP);
        let of = |dim, key_block| Shape { dim, value_dim: 0, key_block, ..*shape };
        let ask = of(dim, shape.key_block);
        let add = of(tokens, shape.key_block);
        let halves = if E::UNSCALED && shape.pieces.scores == 1 { 2 } else { 1 };
        let leave = of(halves * tokens, shape.key_block);
        let own = of(dim, tokens);
        let tiles = rows / tile.rows;
        let packed = |shape: &Shape| {
            shape.key_block.div_ceil(E::unit_keys(shape).max(1)).saturating_mul(E::packed_len(shape))
        };
        let most = |of: fn(&Shape) -> usize| [ask, add, leave, own].iter().map(of).max().unwrap_or(0);
        let query_lens = [ask, add, leave].map(|shape| E::query_len(&shape));
        let asked = packed(&ask);
        let blocks = (keys.div_ceil(shape.key_block.max(1)) + 1).min(most_kept / asked.max(1)).max(1);
        let sizes = [
            tiles * query_lens[0],
            tiles * query_lens[1],
            dim.div_ceil(tile.rows) * query_lens[2],
            packed(&own),
            blocks.saturating_mul(asked),
            packed(&ask).max(packed(&leave)),
            packed(&add),
            shape.key_block * tokens,
            tokens * tokens,
            tokens * dim,
            dim * tokens,
            shape.key_block.max(tokens) * tile.rows,
            most(E::scratch_len),
            most(E::pack_len).max(2 * dim),
            blocks + tokens + code.scratch_len(tile.rows).max(tile.rows),
        ];
        let key_block = shape.key_block;
        let tile = tile.rows;
        Self { tokens, dim, ask, add, leave, halves, own, asked, blocks, key_block, tile, sizes, query_lens }
    }

    /// The widest rows that are packed.
    pub fn width(&self) -> usize {
        self.ask.dim.max(self.leave.dim)
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
            weighed: pieces.next(),
            weights: pieces.next(),
            own_scores: pieces.next(),
            rows: pieces.next(),
            turned: pieces.next(),
            scores: pieces.next(),
            scratch: pieces.next(),
            pack: pieces.next(),
            asked_blocks: &mut [],
            odd: &mut [],
            code: pieces.next_as(),
            has_odd_values: false,
            has_odd_weights: false,
        };
        let (asked_blocks, rest) = core::mem::take(&mut memory.code).split_at_mut(self.blocks);
        memory.asked_blocks = asked_blocks;
        (memory.odd, memory.code) = rest.split_at_mut(self.tokens);
        memory
    }

    /// Which of the kept blocks the one is that begins with a key, and where its packed `q_u` lies.
    pub fn kept(&self, first_key: u32) -> (usize, core::ops::Range<usize>) {
        let at = first_key as usize / self.key_block % self.blocks;
        (at, at * self.asked..(at + 1) * self.asked)
    }

    /// Where a packed row tile of tokens lies that begins with row `first`.
    pub fn asker(&self, first: usize) -> core::ops::Range<usize> {
        self.packed(0, first)
    }

    /// The same of what queries find in their block's tokens.
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
    /// Packed row tiles of what queries find in their block's tokens.
    pub finders: &'a mut [f32],
    /// Packed row tiles of the channels of `v_u`.
    pub left: &'a mut [f32],
    /// The block's `v_u`, packed as keys.
    pub own: &'a mut [f32],
    /// `q_u` of key blocks, packed.
    pub asked: &'a mut [f32],
    /// `u` of a key block, packed; then the halves of its weights, where they have some.
    pub found: &'a mut [f32],
    /// The weights of a key block, packed.
    pub weighed: &'a mut [f32],
    /// What the block's tokens teach a key block, `[key][token]`.
    pub weights: &'a mut [f32],
    /// What the block's queries find in its tokens, `[query][token]`; 0 in later ones.
    pub own_scores: &'a mut [f32],
    /// Rows of `v_u`, `[token][dim]`.
    pub rows: &'a mut [f32],
    /// The block's `v_u`, `[dim][token]`; 0 where it is not finite.
    pub turned: &'a mut [f32],
    /// Scores of a row tile.
    pub scores: &'a mut [f32],
    /// An engine's room for a step.
    pub scratch: &'a mut [f32],
    /// Room for packing.
    pub pack: &'a mut [f32],
    /// The first key of each block whose `q_u` is kept; −1 of none.
    pub asked_blocks: &'a mut [i32],
    /// Whether a token's `v_u` is not finite throughout.
    pub odd: &'a mut [i32],
    /// Scratch of the code that says who teaches whom.
    pub code: &'a mut [i32],
    /// Whether some token's is not.
    pub has_odd_values: bool,
    /// Whether some weight is no number.
    pub has_odd_weights: bool,
}
