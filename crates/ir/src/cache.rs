//! How keys and values lie in a cache: one format for all phases, engines and layouts.
//!
//! A cache is made of pages of some tokens each, and a page of a block of keys for each key head and one of values for each
//! value head. A block is made of panels of [`LANES`] words, so that lanes are keys in scores and channels in outputs and no
//! product needs a horizontal step. A word of 32 bits holds as many numbers as its codec says: consecutive channels of a
//! key, consecutive tokens of a value.
//!
//! * keys: a panel for each 16 tokens, of `[channels / numbers, rounded up][16 tokens]` words;
//! * values: a panel for each 16 channels, rounded up, of `[tokens / numbers, rounded up][16 channels]` words;
//! * scales, where the codec has them, behind either: one for each group of channels and token, `[tokens / 16][groups][16]` for
//!   keys and `[groups][tokens]` for values;
//! * a bit for each token, whether its values are all finite: behind the values.
//!
//! Panels lie in pairs, line by line in turns, so that a tile of two panels reads memory as it lies; a last one without a partner
//! has its lines one after the other.
//!
//! Of latents, keys and values are one row a token: a page has a block of keys, and of values their bits alone. Of lookahead keys a
//! page has, behind each block of keys, one like it of what these ask of later tokens. Of pseudo-heads a page has the rows that they
//! are mixed from or, where rows are mixed before they are stored, those of all positions of its tokens.
//!
//! A page that several sequences may have, or that is in a file, is its blocks one after the other. Where a sequence has a run of
//! pages of its own in memory, the blocks of a head lie together instead, one of each of 16 pages of the run, before those of the
//! next head begin: so a head reads its keys of these pages from one piece of memory, and its values.

use core::ops::Range;

use crate::plan::Dtype;
use crate::variant::{Heads, Mechanism, Variant};

/// The version of the layout that this module describes: what a file of pages must be of.
pub const VERSION: u32 = 2;

/// Words of a panel's row: keys of a panel of keys, channels of one of values.
pub const LANES: u32 = 16;

/// The fewest tokens of a page, and what their number is a multiple of.
pub const PAGE_STEP: u32 = LANES;

/// The most tokens of a page.
pub const MAX_PAGE: u32 = 1024;

/// How a cached number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Codec {
    /// binary32.
    F32,
    /// binary16; the two numbers of a word's place lie 16 lanes apart, so that a row of lanes is contiguous.
    F16,
    /// bfloat16, the first number in the lower half of its word.
    Bf16,
    /// 8 bits, symmetric, with an f32 scale for each token and head. Bytes are numbers and 128, the first in the lowest.
    Int8,
    /// 4 bits, symmetric, with an f16 scale for each token and group of [`GROUP`] channels. Half bytes are numbers and 8; of the
    /// eight of a word the first four are the lower halves of its bytes, the others the upper ones.
    Int4,
}

/// Channels that share a scale of [`Codec::Int4`]; the last group of a row may have fewer.
pub const GROUP: u32 = 32;

impl Codec {
    /// Every codec.
    pub const ALL: [Codec; 5] = [Codec::F32, Codec::F16, Codec::Bf16, Codec::Int8, Codec::Int4];

    /// As it is written in specs.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::F32 => "f32",
            Codec::F16 => "f16",
            Codec::Bf16 => "bf16",
            Codec::Int8 => "int8",
            Codec::Int4 => "int4",
        }
    }

    /// The codec that stores a type as it is.
    pub const fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Codec::F32,
            Dtype::F16 => Codec::F16,
            Dtype::Bf16 => Codec::Bf16,
        }
    }

    /// Numbers of a word.
    #[inline]
    pub const fn numbers(self) -> u32 {
        match self {
            Codec::F32 => 1,
            Codec::F16 | Codec::Bf16 => 2,
            Codec::Int8 => 4,
            Codec::Int4 => 8,
        }
    }

    /// Scales of a row of so many channels.
    pub const fn scales(self, channels: u32) -> u32 {
        match self {
            Codec::F32 | Codec::F16 | Codec::Bf16 => 0,
            Codec::Int8 => 1,
            Codec::Int4 => channels.div_ceil(GROUP),
        }
    }

    /// Bytes of a scale, where there are any.
    #[inline]
    pub const fn scale_bytes(self) -> u32 {
        match self {
            Codec::F32 | Codec::F16 | Codec::Bf16 => 0,
            Codec::Int8 => 4,
            Codec::Int4 => 2,
        }
    }

    /// Bytes of a row of so many channels with its scales, as far as they are of that row alone: without what fills up words and
    /// panels.
    pub const fn row_bytes(self, channels: u32) -> u64 {
        let bits = channels as u64 * (u32::BITS / self.numbers()) as u64;
        bits.div_ceil(8) + self.scales(channels) as u64 * self.scale_bytes() as u64
    }
}

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PageFormat {
    /// Tokens of a page, a multiple of [`PAGE_STEP`].
    pub tokens: u32,
    /// How keys are stored.
    pub k: Codec,
    /// How values are stored.
    pub v: Codec,
    /// Whether heads are mixed into pseudo-heads before they are stored, where they are mixed: a token is as many positions.
    pub mixed: bool,
}

/// Sizes of a page's parts, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageShape {
    /// Tokens of a page; positions, of which a token is several, where rows are mixed before they are stored.
    pub tokens: usize,
    /// A block of keys.
    pub keys: Block,
    /// A block of values.
    pub values: Block,
    /// Key heads of each value head.
    key_heads: usize,
    /// Value heads.
    value_heads: usize,
    /// Whether values are the first channels of keys, and no block of their own.
    pub shared: bool,
    /// Whether behind each block of keys there is one of what they ask of later tokens.
    pub asks: bool,
}

/// The keys of one key head, or the values of one value head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// How numbers are stored.
    pub codec: Codec,
    /// Channels of a row.
    pub channels: usize,
    /// Panels of [`LANES`] tokens or channels.
    pub panels: usize,
    /// Lines of a panel, each of [`LANES`] words.
    pub depth: usize,
    /// Whether panels lie in pairs, line by line in turns, or each as a whole.
    pub paired: bool,
    /// Groups of channels that have a scale of their own.
    pub groups: usize,
}

/// Where the lines of a panel lie in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelLines {
    /// The first line.
    pub first: usize,
    /// From one to the next.
    pub step: usize,
}

impl PanelLines {
    /// Line number `line` of the panel, counted over the block.
    #[inline]
    pub const fn at(&self, line: usize) -> usize {
        self.first + line * self.step
    }
}

impl Block {
    /// Words of the numbers.
    #[inline]
    pub const fn words(&self) -> usize {
        self.panels * self.depth * LANES as usize
    }

    /// How many of the panels from one on, which begins a pair if panels lie in pairs, have lines that take turns.
    #[inline]
    pub const fn in_turns(&self, panel: usize) -> usize {
        if self.paired && panel + 1 < self.panels { 2 } else { 1 }
    }

    /// Where the lines of a panel lie.
    #[inline]
    pub const fn lines(&self, panel: usize) -> PanelLines {
        let begin = if self.paired { panel & !1 } else { panel };
        PanelLines { first: begin * self.depth + (panel - begin), step: self.in_turns(begin) }
    }

    /// Words of the numbers and their scales, in pages of so many tokens.
    #[inline]
    pub const fn scaled_words(&self, tokens: usize) -> usize {
        self.words() + self.groups * tokens * self.codec.scale_bytes() as usize / size_of::<u32>()
    }
}

impl PageFormat {
    /// Its parts, for a variant: of latents one row a token, the latent and then the rotary key, of which values are the first
    /// channels.
    pub fn shape(&self, variant: &Variant<'_>) -> PageShape {
        let shared = matches!(variant.mechanism, Mechanism::Latent(_));
        // Values that are the first channels of keys are stored as these are.
        let v = if shared { self.k } else { self.v };
        let asks = matches!(variant.mechanism, Mechanism::Lookahead(_));
        let (format, heads) = match variant.pseudo() {
            Some(pseudo) if self.mixed => (self.in_positions(pseudo.heads), pseudo.heads(variant.heads)),
            _ => (*self, variant.cached_heads()),
        };
        PageShape { shared, asks, ..PageFormat { v, ..format }.of_heads(&heads) }
    }

    /// The same where each of a token's positions is taken for a token, of rows that are mixed already.
    pub const fn in_positions(self, per_token: u32) -> Self {
        Self { tokens: self.tokens.saturating_mul(per_token), mixed: false, ..self }
    }

    /// How many positions of a variant are stored for a token.
    pub const fn rows_of_token(&self, variant: &Variant<'_>) -> u32 {
        if self.mixed { variant.per_token() } else { 1 }
    }

    /// Its parts, for keys and values of so many heads.
    pub fn of_heads(&self, heads: &Heads) -> PageShape {
        let (tokens, lanes) = (self.tokens as usize, LANES as usize);
        let keys = Block {
            codec: self.k,
            channels: heads.dim as usize,
            panels: tokens / lanes,
            depth: heads.dim.div_ceil(self.k.numbers()) as usize,
            paired: true,
            groups: self.k.scales(heads.dim) as usize,
        };
        let values = Block {
            codec: self.v,
            channels: heads.value_dim as usize,
            panels: (heads.value_dim as usize).div_ceil(lanes),
            depth: tokens.div_ceil(self.v.numbers() as usize),
            paired: true,
            groups: self.v.scales(heads.value_dim) as usize,
        };
        let (key_heads, value_heads) = ((heads.kv / heads.value) as usize, heads.value as usize);
        PageShape { tokens, keys, values, key_heads, value_heads, shared: false, asks: false }
    }
}

impl PageShape {
    /// Words of a block of keys with its scales, whole lines of a cache.
    #[inline]
    pub const fn keys_len(&self) -> usize {
        self.keys.scaled_words(self.tokens).next_multiple_of(LANES as usize)
    }

    /// Words of a block of values with its scales and bits, whole lines of a cache.
    #[inline]
    pub const fn values_len(&self) -> usize {
        let bits = self.tokens.div_ceil(u32::BITS as usize);
        let numbers = if self.shared { 0 } else { self.values.scaled_words(self.tokens) };
        (numbers + bits).next_multiple_of(LANES as usize)
    }

    /// Words of a block of values with its scales and bits, wherever it lies.
    pub const fn value_block_len(&self) -> usize {
        Self { shared: false, ..*self }.values_len()
    }

    /// Where the bits of tokens whose values are not all finite begin in what a page has of values.
    pub const fn odd_at(&self) -> usize {
        if self.shared { 0 } else { self.values.scaled_words(self.tokens) }
    }

    /// Words of what a page has of a key head.
    #[inline]
    const fn key_head_len(&self) -> usize {
        if self.asks { 2 * self.keys_len() } else { self.keys_len() }
    }

    /// Words of a value head and its key heads.
    #[inline]
    const fn head_len(&self) -> usize {
        self.values_len() + self.key_heads * self.key_head_len()
    }

    /// Words of a page.
    #[inline]
    pub const fn len(&self) -> usize {
        self.value_heads * self.head_len()
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Key heads of all value heads.
    pub const fn key_head_count(&self) -> usize {
        self.key_heads * self.value_heads
    }

    /// Value heads.
    pub const fn value_head_count(&self) -> usize {
        self.value_heads
    }

    /// Which words of a page are the keys of a key head.
    #[inline]
    pub const fn keys_at(&self, head: usize) -> Range<usize> {
        let begin = head / self.key_heads * self.head_len() + head % self.key_heads * self.key_head_len();
        begin..begin + self.keys_len()
    }

    /// Which are what the keys of a key head ask of later tokens, in a block like theirs, where there is one.
    #[inline]
    pub const fn asks_at(&self, head: usize) -> Range<usize> {
        let begin = self.keys_at(head).end;
        begin..begin + self.keys_len()
    }

    /// Which are the values of a value head: those behind the keys of its key heads.
    #[inline]
    pub const fn values_at(&self, head: usize) -> Range<usize> {
        let begin = head * self.head_len() + self.key_heads * self.key_head_len();
        begin..begin + self.values_len()
    }

    /// All of these, each once: together they are the page.
    pub fn parts(&self) -> impl Iterator<Item = Range<usize>> {
        let of_keys = |head| [Some(self.keys_at(head)), self.asks.then(|| self.asks_at(head))];
        let keys = (0..self.key_head_count()).flat_map(of_keys).flatten();
        keys.chain((0..self.value_heads).map(|head| self.values_at(head)))
    }

    /// The value head that a key head reads.
    pub const fn value_head(&self, key_head: usize) -> usize {
        key_head / self.key_heads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_numbers_and_their_scales() {
        let bytes = |channels| Codec::ALL.map(|codec| codec.row_bytes(channels));
        assert_eq!(bytes(128), [512, 256, 256, 128 + 4, 64 + 4 * 2]);
        assert_eq!(bytes(77), [308, 154, 154, 77 + 4, 39 + 3 * 2]);
    }

    #[test]
    fn two_panels_take_turns_and_the_last_has_no_partner() {
        let block = Block { codec: Codec::F32, channels: 3, panels: 5, depth: 3, paired: true, groups: 0 };
        let lines = |panel| [0, 1, 2].map(|line| block.lines(panel).at(line));
        assert_eq!([0, 1].map(lines), [[0, 2, 4], [1, 3, 5]]);
        assert_eq!([2, 3].map(lines), [[6, 8, 10], [7, 9, 11]]);
        assert_eq!(lines(4), [12, 13, 14]);
        let whole = Block { paired: false, ..block };
        assert_eq!(whole.lines(1), PanelLines { first: 3, step: 1 });
        assert_eq!(block.words(), 5 * 3 * 16);
    }

    #[test]
    fn the_parts_of_a_page_are_behind_each_other() {
        let format = PageFormat { tokens: 48, k: Codec::Int8, v: Codec::F16, mixed: false };
        let plain = format.of_heads(&Heads { query: 6, kv: 6, value: 3, dim: 20, value_dim: 40 });
        for (shared, asks) in [(false, false), (false, true), (true, false)] {
            let shape = PageShape { shared, asks, ..plain };
            let [mut starts, mut ends] = [[0; 15]; 2];
            let count = shape.parts().count();
            for (i, part) in shape.parts().enumerate() {
                assert_eq!([part.start, part.end].map(|at| at % LANES as usize), [0; 2]);
                (starts[i], ends[i]) = (part.start, part.end);
            }
            let (starts, ends) = (&mut starts[..count], &mut ends[..count]);
            starts.sort_unstable();
            ends.sort_unstable();
            assert_eq!((starts[0], &starts[1..], ends[count - 1]), (0, &ends[..count - 1], shape.len()));
        }
    }
}
