//! Products of 2 × 2 tiles, one block after the other, with other work between the multiplications.
//!
//! The unit multiplies while vectors work, but the processor looks only a few tile instructions ahead: what is to
//! overlap must stand side by side. Sums of a block are stored, one tile at a time, when the next block's first operands
//! are on their way.

use super::unit::{SIDE, Tiles};

/// Work that is done in small portions.
pub(super) trait Work {
    /// Does the portion that goes with one multiplication of tiles. `#[inline(always)]`.
    fn advance(&mut self);
}

/// Where the tiles of an operand lie: two side by side, each in so many steps of depth and pieces.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub words: &'a [u32],
    /// Words between rows of a tile.
    pub stride: usize,
    /// Words between the two tiles.
    pub tile: usize,
    /// Words between steps of depth.
    pub depth: usize,
    /// Words between pieces.
    pub piece: usize,
    /// How many pieces there are.
    pub pieces: usize,
}

impl<'a> Operand<'a> {
    #[inline(always)]
    fn at(&self, tile: usize, depth: usize, piece: usize) -> &'a [u32] {
        &self.words[tile * self.tile + depth * self.depth + piece * self.piece..]
    }
}

/// Sums of a block, 32 rows of 32 words that are `stride` apart.
pub(super) struct Block<'c> {
    pub words: &'c mut [u32],
    pub stride: usize,
    /// Whether products are added to what is there.
    pub adds: bool,
}

impl Block<'_> {
    /// Where tile `T` of the four begins.
    const fn tile<const T: usize>(&self) -> usize {
        T / 2 * SIDE * self.stride + T % 2 * SIDE
    }
}

/// Multiplications of tiles that blocks of this depth take.
pub(super) const fn multiplications(depth: usize, a: usize, b: usize) -> usize {
    let (most, mut i, mut pairs) = (if a > b { a } else { b }, 0, 0);
    while i < a {
        pairs += if most - i < b { most - i } else { b };
        i += 1;
    }
    4 * depth * pairs
}

/// Blocks on their way through the unit.
pub(super) struct Products<'c, T> {
    tiles: T,
    /// The block whose sums are still in tiles 0 to 3, without words where there is none: an `Option` would be moved in and out
    /// between multiplications, by halves that loads then wait for.
    pending: Block<'c>,
}

impl<'c, T: Tiles> Products<'c, T> {
    #[inline(always)]
    pub fn new(tiles: T) -> Self {
        Self { tiles, pending: Block { words: &mut [], stride: 0, adds: false } }
    }

    /// Computes a block, at least one step deep; its sums are in memory after the next block, or [`Products::finish`].
    #[inline(always)]
    pub fn multiply<W: Work>(
        &mut self,
        a: Operand<'_>,
        b: Operand<'_>,
        depth: usize,
        block: Block<'c>,
        work: &mut W,
    ) {
        self.four::<true, W>((a, 0), (b, 0), 0, &block, work);
        let most = a.pieces.max(b.pieces);
        for step in 0..depth {
            for i in 0..a.pieces {
                for j in 0..b.pieces.min(most - i) {
                    if step + i + j > 0 {
                        self.four::<false, W>((a, i), (b, j), step, &block, work);
                    }
                }
            }
        }
        self.pending = block;
    }

    /// Multiplies two tiles by two, of a piece of each operand. The `FIRST` four of a block begin its sums, after those before them
    /// were stored, each while the unit is at work.
    #[inline(always)]
    fn four<const FIRST: bool, W: Work>(
        &mut self,
        (a, i): (Operand<'_>, usize),
        (b, j): (Operand<'_>, usize),
        step: usize,
        block: &Block<'c>,
        work: &mut W,
    ) {
        self.tiles.stream::<4>(a.at(0, step, i), a.stride);
        self.tiles.load::<6>(b.at(0, step, j), b.stride);
        self.begin::<FIRST, 0>(block);
        self.tiles.dot::<0, 4, 6>();
        work.advance();
        self.tiles.load::<7>(b.at(1, step, j), b.stride);
        self.begin::<FIRST, 1>(block);
        self.tiles.dot::<1, 4, 7>();
        work.advance();
        self.tiles.stream::<5>(a.at(1, step, i), a.stride);
        self.begin::<FIRST, 2>(block);
        self.tiles.dot::<2, 5, 6>();
        work.advance();
        self.begin::<FIRST, 3>(block);
        self.tiles.dot::<3, 5, 7>();
        work.advance();
    }

    /// Stores the last block's sums.
    #[inline(always)]
    pub fn finish(mut self) {
        self.store::<0>();
        self.store::<1>();
        self.store::<2>();
        self.store::<3>();
    }

    /// Before a block's first multiplication into tile `C`: what it holds is stored, and what is added to is loaded.
    #[inline(always)]
    fn begin<const FIRST: bool, const C: usize>(&mut self, block: &Block<'c>) {
        if const { !FIRST } {
            return;
        }
        self.store::<C>();
        if block.adds {
            self.tiles.load::<C>(&block.words[block.tile::<C>()..], block.stride);
        } else {
            self.tiles.zero::<C>();
        }
    }

    #[inline(always)]
    fn store<const C: usize>(&mut self) {
        if !self.pending.words.is_empty() {
            let at = self.pending.tile::<C>();
            self.tiles.store::<C>(&mut self.pending.words[at..], self.pending.stride);
        }
    }
}
