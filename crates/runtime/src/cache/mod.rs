//! Cached keys and values: where the pages of a sequence lie, and who has which page.

mod blocks;
mod learned;
mod pages;
#[cfg(feature = "alloc")]
mod store;

use core::fmt;
use core::ops::Range;

use regard_engine::cached::{self, LANES};
use regard_ir::cache::PageShape;
use regard_simd::{Lanes, TRANSPOSE};

pub(crate) use self::blocks::Blocks;
#[cfg(feature = "alloc")]
pub use self::learned::Lessons;
pub use self::learned::{LESSON, Learned, LearnedMut, LearnedShape, WAITING};
pub(crate) use self::pages::Page;
pub use self::pages::Pages;
#[cfg(feature = "alloc")]
pub use self::store::{Capacity, SequenceId, Store, StoreError};

/// Which row of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOf {
    /// The key of a key head.
    Key(usize),
    /// The value of a value head.
    Value(usize),
    /// What the lookahead key of a head asks of later tokens.
    Asks(usize),
}

impl RowOf {
    /// Whether pages have such a row, of so many elements.
    ///
    /// # Errors
    /// If there is no such head, or its rows are longer or shorter.
    #[cfg(feature = "alloc")]
    pub fn check(self, shape: &PageShape, found: usize) -> Result<(), StoreError> {
        let (head, heads, expected) = match self {
            RowOf::Key(head) => (head, shape.key_head_count(), shape.keys.channels),
            RowOf::Value(head) => (head, shape.value_head_count(), shape.values.channels),
            RowOf::Asks(head) => {
                (head, if shape.asks { shape.key_head_count() } else { 0 }, shape.keys.channels)
            }
        };
        if head >= heads {
            return Err(StoreError::Head { row: self, heads });
        }
        if found != expected {
            return Err(StoreError::Width { row: self, expected, found });
        }
        Ok(())
    }
}

impl fmt::Display for RowOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowOf::Key(head) => write!(f, "key of head {head}"),
            RowOf::Value(head) => write!(f, "value of head {head}"),
            RowOf::Asks(head) => write!(f, "row of what the key of head {head} asks"),
        }
    }
}

/// A sequence's cached keys and values.
#[derive(Clone, Copy, Debug)]
pub struct CachedSequence<'a> {
    /// The memory of its pages, and maybe of others.
    pub memory: &'a [u32],
    /// Where they lie.
    pub pages: Pages<'a>,
    /// Its tokens.
    pub len: u32,
    /// The most tokens that it ever had.
    pub written: u32,
}

/// Clears all that a page, which is whole, holds of tokens from number `first` on.
pub fn clear(shape: &PageShape, page: &mut [u32], first: usize) {
    for head in 0..shape.key_head_count() {
        let block = &mut page[shape.keys_at(head)];
        cached::clear_keys(&shape.keys, shape.tokens, first, block);
    }
    for head in 0..shape.value_head_count() {
        let block = &mut page[shape.values_at(head)];
        if shape.shared {
            cached::clear_odd(shape.tokens, first, block);
        } else {
            cached::clear_values(&shape.values, shape.tokens, first, block);
        }
    }
}

/// The caches of a call's sequences.
pub trait Caches: Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// That of a sequence.
    ///
    /// # Panics
    /// If there is no such sequence.
    fn get(&self, sequence: usize) -> CachedSequence<'_>;

    /// What it has beside its pages, where keys are lookahead keys.
    ///
    /// # Panics
    /// If there is no such sequence.
    fn learned(&self, _sequence: usize) -> Option<Learned<'_>> {
        None
    }
}

/// Caches whose tokens are several positions each, with a row for each of these: as if they were tokens.
pub(crate) struct InPositions<'a> {
    /// The caches.
    pub caches: &'a dyn Caches,
    /// Positions of a token.
    pub per_token: u32,
}

impl Caches for InPositions<'_> {
    fn count(&self) -> usize {
        self.caches.count()
    }

    fn get(&self, sequence: usize) -> CachedSequence<'_> {
        self.caches.get(sequence).in_positions(self.per_token)
    }

    fn learned(&self, sequence: usize) -> Option<Learned<'_>> {
        self.caches.learned(sequence)
    }
}

/// A sequence's cache, to be written.
#[derive(Debug)]
pub struct CachedSequenceMut<'a> {
    /// The memory of its pages, and maybe of others.
    pub memory: &'a mut [u32],
    /// Where they lie; there is a page for each token that is written.
    pub pages: Pages<'a>,
    /// What it has beside its pages, where keys are lookahead keys.
    pub learned: Option<LearnedMut<'a>>,
}

impl<'a> CachedSequence<'a> {
    /// The same where each of a token's positions is taken for a token.
    pub const fn in_positions(self, per_token: u32) -> Self {
        let [len, written] = [self.len.saturating_mul(per_token), self.written.saturating_mul(per_token)];
        Self { len, written, ..self }
    }

    /// A page of the sequence.
    ///
    /// # Panics
    /// If it lies nowhere.
    #[inline(always)]
    pub(crate) fn page(&self, shape: &PageShape, page: usize) -> Page<'a> {
        Page { memory: self.memory, place: self.pages.place(page, shape.len()) }
    }

    /// What a key head reads of its pages.
    #[inline(always)]
    pub(crate) fn blocks(&self, shape: &PageShape, head: usize) -> Blocks<'a> {
        Blocks::new(*self, shape, head)
    }

    /// Reads the key of a token and key head, or its value and value head, widened.
    ///
    /// # Panics
    /// If there is no such token or row, or it is shorter than `to`; see [`RowOf::check`].
    pub fn read_into(&self, shape: &PageShape, token: usize, row: RowOf, to: &mut [f32]) {
        let (page, at) = (self.page(shape, token / shape.tokens), token % shape.tokens);
        match row {
            RowOf::Value(head) if !shape.shared => {
                let block = page.part(shape.values_at(head));
                cached::read_value(&shape.values, shape.tokens, at, block, to);
            }
            // Values that are the first channels of keys have the same heads.
            RowOf::Key(head) | RowOf::Value(head) | RowOf::Asks(head) => {
                let part = match row {
                    RowOf::Asks(_) => {
                        assert!(shape.asks, "keys that ask of later tokens");
                        shape.asks_at(head)
                    }
                    RowOf::Key(_) | RowOf::Value(_) => shape.keys_at(head),
                };
                cached::read_key(&shape.keys, at, page.part(part), to);
            }
        }
    }

    /// Turns up to sixteen channels of a key head's keys, in the panel of sixteen tokens that a token begins, to rows of tokens that are
    /// so far apart; zeros fill up a multiple of channels.
    ///
    /// # Panics
    /// If there are no such tokens or channels, or `to` is shorter.
    #[inline(always)]
    pub(crate) fn turn_keys<L: Lanes>(
        &self,
        lanes: L,
        shape: &PageShape,
        (head, token): (usize, usize),
        (channels, multiple): (Range<usize>, usize),
        to: &mut [f32],
        stride: usize,
    ) {
        let words = self.page(shape, token / shape.tokens).part(shape.keys_at(head));
        let written = channels.len().next_multiple_of(multiple);
        let mut columns = [[0.0; LANES]; LANES];
        cached::widen_keys(lanes, &shape.keys, words, token % shape.tokens / LANES, channels, &mut columns);
        cached::turn_rows(lanes, &columns[..written], to, stride);
    }

    /// Reads the keys that a key head has at some tokens, row by row.
    ///
    /// # Panics
    /// If there are no such tokens, or `to` has another length.
    #[inline(always)]
    pub(crate) fn read_keys<L: Lanes>(
        &self,
        lanes: L,
        shape: &PageShape,
        head: usize,
        tokens: Range<usize>,
        to: &mut [f32],
    ) {
        let width = shape.keys.channels;
        for first in (tokens.start / LANES * LANES..tokens.end).step_by(LANES) {
            let here = tokens.start.max(first)..tokens.end.min(first + LANES);
            for channel in (0..width).step_by(LANES) {
                let channels = channel..width.min(channel + LANES);
                let mut rows = [[0.0; LANES]; LANES];
                let panel = (head, first);
                let to_rows = rows.as_flattened_mut();
                self.turn_keys(lanes, shape, panel, (channels.clone(), TRANSPOSE), to_rows, LANES);
                for token in here.clone() {
                    let to = &mut to[(token - tokens.start) * width..][channels.clone()];
                    to.copy_from_slice(&rows[token - first][..to.len()]);
                }
            }
        }
    }

    /// The same of the values of a value head.
    ///
    /// # Panics
    /// As [`Self::read_keys`].
    #[inline(always)]
    pub(crate) fn read_values<L: Lanes>(
        &self,
        lanes: L,
        shape: &PageShape,
        head: usize,
        tokens: Range<usize>,
        to: &mut [f32],
    ) {
        for (token, to) in tokens.zip(to.chunks_exact_mut(shape.values.channels.max(1))) {
            let words = self.page(shape, token / shape.tokens).part(shape.values_at(head));
            let at = (shape.tokens, token % shape.tokens);
            cached::widen_value(lanes, &shape.values, words, at, to);
        }
    }

    /// One channel of the value of a token and value head, widened.
    ///
    /// # Panics
    /// If there is no such token, head or channel.
    pub fn value(&self, shape: &PageShape, head: usize, token: usize, channel: usize) -> f32 {
        let (page, at) = (self.page(shape, token / shape.tokens), token % shape.tokens);
        if shape.shared {
            return cached::read_key_channel(&shape.keys, at, channel, page.part(shape.keys_at(head)));
        }
        let block = page.part(shape.values_at(head));
        cached::read_value_channel(&shape.values, shape.tokens, at, channel, block)
    }

    /// Whether all pages that tokens lie in are inside the memory.
    pub fn is_whole(&self, shape: &PageShape) -> bool {
        let pages = (self.len as usize).div_ceil(shape.tokens);
        self.pages.are_inside(shape, pages, self.memory.len())
    }
}

impl CachedSequenceMut<'_> {
    /// A page of the sequence, to be read.
    ///
    /// # Panics
    /// If it lies nowhere.
    #[inline(always)]
    pub(crate) fn stored(&self, shape: &PageShape, page: usize) -> Page<'_> {
        Page { memory: self.memory, place: self.pages.place(page, shape.len()) }
    }

    /// A part of a page of the sequence, such as [`PageShape::keys_at`] and its like say.
    ///
    /// # Panics
    /// If it lies nowhere or outside the memory.
    #[inline(always)]
    pub(crate) fn part(&mut self, shape: &PageShape, page: usize, part: Range<usize>) -> &mut [u32] {
        &mut self.memory[self.pages.place(page, shape.len()).part(part)]
    }
}
