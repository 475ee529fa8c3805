//! Products of 2 × 2 tiles, one block after the other, with other work between the multiplications.
//!
//! The unit multiplies while vectors work, but the processor looks only a few tile instructions ahead: what is to
//! overlap must stand side by side. Sums of a block are stored, one tile at a time, when the next block's first operands
//! are on their way. There is little room between two multiplications, so that where tiles lie is checked once for a whole operand.

use super::layout::ROWS;
use super::unit::{SIDE, Source, Tiles};

/// Work that is done in small portions.
pub(super) trait Work {
    /// Does the portion that goes with two multiplications of tiles. `#[inline(always)]`.
    fn advance(&mut self);
}

/// How many words lie between tiles of an operand.
#[derive(Clone, Copy)]
pub(super) struct Spans {
    /// Between rows of a tile.
    pub row: usize,
    /// Between the two tiles that are side by side.
    pub tile: usize,
    /// Between steps of depth.
    pub step: usize,
    /// Between pieces.
    pub piece: usize,
}

/// An operand: two tiles side by side, each in so many steps of depth and pieces.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    first: Source<'a>,
    spans: Spans,
    steps: usize,
    pieces: usize,
}

impl<'a> Operand<'a> {
    /// Of words that begin with its first tile.
    ///
    /// # Panics
    /// If there is no step or no piece, or the words end within its last tile.
    #[inline(always)]
    pub fn new(words: &'a [u32], spans: Spans, steps: usize, pieces: usize) -> Self {
        assert!(steps > 0 && pieces > 0, "an operand of {steps} steps and {pieces} pieces");
        let last_step = (steps - 1).saturating_mul(spans.step);
        let last_piece = (pieces - 1).saturating_mul(spans.piece);
        let last = spans.tile.saturating_add(last_step).saturating_add(last_piece);
        let _ = Source::new(&words[last..], spans.row);
        Self { first: Source::new(words, spans.row), spans, steps, pieces }
    }
}

/// One step and one piece of an operand: two tiles.
struct Piece<'a> {
    of: Operand<'a>,
    step: usize,
    piece: usize,
    /// Whether the unit's tiles hold it already.
    is_held: bool,
}

impl<'a> Piece<'a> {
    #[inline(always)]
    fn at<const TILE: usize>(&self) -> Source<'a> {
        const { assert!(TILE < 2) };
        let Operand { first, spans, steps, pieces } = self.of;
        debug_assert!(self.step < steps && self.piece < pieces, "a tile of the operand");
        // SAFETY: all distances are at most those to the last tile, which `new` found inside of the words: steps and pieces are
        // those of `Products::step`.
        unsafe { first.ahead(TILE * spans.tile + self.step * spans.step + self.piece * spans.piece) }
    }
}

/// Sums of a block, rows of [`ROWS`] words.
pub(super) type Sums = [u32; ROWS * ROWS];

/// What is multiplied.
pub(super) struct Factors<'a> {
    pub a: Operand<'a>,
    pub b: Operand<'a>,
    /// Products of pieces whose numbers add up to less than this are computed.
    pub order: usize,
    /// What products are added to; `None` for zero.
    pub to: Option<&'a Sums>,
}

/// Where tile `T` of the four begins.
const fn tile<const T: usize>() -> usize {
    T / 2 * SIDE * ROWS + T % 2 * SIDE
}

/// Blocks on their way through the unit: tiles 0 to 3 hold the sums of the last one.
pub(super) struct Products<T> {
    tiles: T,
}

impl<T: Tiles> Products<T> {
    #[inline(always)]
    pub fn new(tiles: T) -> Self {
        Self { tiles }
    }

    /// Computes a block, whose sums stay in tiles until the next one begins, or [`Products::store`]. Those of the block before go
    /// to `last`, if they are still there.
    ///
    /// # Panics
    /// If the operands are not equally deep.
    #[inline(always)]
    pub fn multiply<W: Work>(&mut self, factors: Factors<'_>, mut last: Option<&mut Sums>, work: &mut W) {
        let Factors { a, b, .. } = factors;
        assert!(a.steps == b.steps, "operands of {} and {} steps", a.steps, b.steps);
        self.step::<true, W>(&factors, 0, &mut last, work);
        for step in 1..a.steps {
            self.step::<false, W>(&factors, step, &mut last, work);
        }
    }

    /// One step of depth, the first of which begins the block's sums: products of all pieces, in an order in which the next one
    /// mostly has an operand of the last.
    #[inline(always)]
    fn step<const FIRST: bool, W: Work>(
        &mut self,
        factors: &Factors<'_>,
        step: usize,
        last: &mut Option<&mut Sums>,
        work: &mut W,
    ) {
        let Factors { a, b, order, to } = *factors;
        let mut held = b.pieces;
        for i in 0..a.pieces.min(order) {
            let count = b.pieces.min(order - i);
            for n in 0..count {
                let j = if i % 2 == 0 { count - 1 - n } else { n };
                let a = Piece { of: a, piece: i, step, is_held: n > 0 };
                let b = Piece { of: b, piece: j, step, is_held: j == held };
                held = j;
                if FIRST && i == 0 && n == 0 {
                    self.four::<true, W>(a, b, (to, last), work);
                } else {
                    self.four::<false, W>(a, b, (to, last), work);
                }
            }
        }
    }

    /// Multiplies two tiles by two. The `FIRST` four of a block begin its sums, after those before them were stored, each while the
    /// unit is at work.
    #[inline(always)]
    fn four<const FIRST: bool, W: Work>(
        &mut self,
        a: Piece<'_>,
        b: Piece<'_>,
        (to, last): (Option<&Sums>, &mut Option<&mut Sums>),
        work: &mut W,
    ) {
        if !a.is_held {
            self.tiles.stream::<4>(a.at::<0>());
        }
        if !b.is_held {
            self.tiles.load::<6>(b.at::<0>());
        }
        self.begin::<FIRST, 0>(to, last);
        self.tiles.dot::<0, 4, 6>();
        if !b.is_held {
            self.tiles.load::<7>(b.at::<1>());
        }
        self.begin::<FIRST, 1>(to, last);
        self.tiles.dot::<1, 4, 7>();
        work.advance();
        if !a.is_held {
            self.tiles.stream::<5>(a.at::<1>());
        }
        self.begin::<FIRST, 2>(to, last);
        self.tiles.dot::<2, 5, 6>();
        self.begin::<FIRST, 3>(to, last);
        self.tiles.dot::<3, 5, 7>();
        work.advance();
    }

    /// Stores the sums of the last block.
    #[inline(always)]
    pub fn store(&mut self, last: &mut Sums) {
        self.store_tile::<0>(last);
        self.store_tile::<1>(last);
        self.store_tile::<2>(last);
        self.store_tile::<3>(last);
    }

    /// Before a block's first multiplication into tile `C`: what it holds is stored, and what is added to is loaded.
    #[inline(always)]
    fn begin<const FIRST: bool, const C: usize>(&mut self, to: Option<&Sums>, last: &mut Option<&mut Sums>) {
        if const { !FIRST } {
            return;
        }
        if let Some(last) = last {
            self.store_tile::<C>(last);
        }
        match to {
            Some(sums) => self.tiles.load::<C>(Source::new(&sums[tile::<C>()..], ROWS)),
            None => self.tiles.zero::<C>(),
        }
    }

    #[inline(always)]
    fn store_tile<const C: usize>(&mut self, sums: &mut Sums) {
        self.tiles.store::<C>(&mut sums[tile::<C>()..], ROWS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 2 tiles that lie one after the other, in 3 steps.
    fn operand(words: usize, step: usize) -> Operand<'static> {
        static WORDS: [u32; 6 * 256] = [0; 6 * 256];
        Operand::new(&WORDS[..words], Spans { row: SIDE, tile: SIDE * SIDE, step, piece: 0 }, 3, 1)
    }

    #[test]
    fn an_operand_may_end_with_its_words() {
        operand(6 * 256, 512);
    }

    #[test]
    #[should_panic(expected = "a tile of rows 16 words apart")]
    fn an_operand_does_not_pass_its_words() {
        operand(6 * 256 - 1, 512);
    }

    #[test]
    #[should_panic(expected = "out of range for slice")]
    fn distances_do_not_wrap() {
        operand(6 * 256, usize::MAX / 2 + 1);
    }

    #[test]
    #[should_panic(expected = "a tile of rows")]
    fn strides_do_not_wrap() {
        let _ = Source::new(&[0; 256], usize::MAX / 15 + 1);
    }
}
