//! Rows of keys and values on their way into the pages of a cache, sixteen numbers at a time.
//!
//! A prompt of thousands of tokens is written number by number otherwise: each has its own place in a word of its own line
//! of memory, and its own rounding. Lanes of keys are tokens, so sixteen tokens that fill a panel are turned, eight channels at a
//! time, and whole words are written; lanes of values are channels, as they come. Tokens that do not fill a panel, as the one
//! of a decoding step, are rounded as vectors, and then put where they belong one by one. The bits are those of
//! [`cached::write_key`](crate::cached::write_key) and [`cached::write_value`](crate::cached::write_value).

pub(crate) mod numbers;

use regard_ir::cache::{Block, Codec, PanelLines};
use regard_simd::TRANSPOSE;

use self::numbers::{Bytes, Floats, Halves, Nibbles, Pairs, Scales, Stored, peak, sixteen, step_of};
use crate::cached::LANES;
use crate::engine::Op;
use crate::isa::Door;

/// One row of a panel: a word for each lane.
type Step = [u32; LANES];

/// Tokens that rows are written of at most, at a time.
pub const TOKENS: usize = LANES;

/// Numbers from one row to the next, where rows have so many channels.
pub const fn stride(channels: usize) -> usize {
    channels.next_multiple_of(LANES)
}

/// Rows of consecutive tokens of a page, which lie in one panel of [`TOKENS`].
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// The rows, [`stride`] apart, with finite numbers behind their channels.
    pub rows: &'a [f32],
    /// Which token of the page the first is.
    pub first: usize,
    /// How many there are.
    pub count: usize,
}

/// Writes keys to their block.
///
/// # Panics
/// If the tokens are not in one panel, or rows or block are shorter.
#[inline(always)]
pub fn write_keys<D: Door>(lanes: D, block: &Block, rows: Rows<'_>, to: &mut [u32]) {
    lanes.call(Keys { lanes, block, rows, to });
}

/// Writes values to their block, in pages of so many tokens.
///
/// # Panics
/// If the tokens are not in the page, or rows or block are shorter.
#[inline(always)]
pub fn write_values<D: Door>(lanes: D, block: &Block, tokens: usize, rows: Rows<'_>, to: &mut [u32]) {
    lanes.call(Values { lanes, block, tokens, rows, to });
}

/// Writes the bits of tokens whose values, the first `channels` of their keys' rows, are not all finite as a codec stores them.
///
/// # Panics
/// If there are fewer bits than tokens, or rows are shorter.
#[inline(always)]
pub fn write_odd(codec: Codec, (keys, channels): (&Block, usize), rows: Rows<'_>, to: &mut [u32]) {
    for i in 0..rows.count {
        let token = rows.first + i;
        put_odd(token, peak(&rows.row(keys, i)[..channels]) < numbers::limit(codec), to);
    }
}

/// Writes the bit of a token.
#[inline(always)]
fn put_odd(token: usize, is_finite: bool, to: &mut [u32]) {
    let bit = 1 << (token % u32::BITS as usize);
    let word = &mut to[token / u32::BITS as usize];
    *word = if is_finite { *word & !bit } else { *word | bit };
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn row(&self, block: &Block, i: usize) -> &'a [f32] {
        let stride = stride(block.channels);
        &self.rows[i * stride..][..stride]
    }
}

/// Channels that share a scale, or all of them.
#[inline(always)]
fn group_of(block: &Block) -> usize {
    if block.groups > 1 { regard_ir::cache::GROUP as usize } else { block.channels.max(1) }
}

/// Calls a method with the type that stands for its block's codec, and how many numbers its words have.
macro_rules! with_codec {
    ($self:ident.$method:ident()) => {
        match $self.block.codec {
            Codec::F32 => $self.$method::<Floats, 1>(),
            Codec::F16 => $self.$method::<Halves, 2>(),
            Codec::Bf16 => $self.$method::<Pairs, 2>(),
            Codec::Int8 => $self.$method::<Bytes, 4>(),
            Codec::Int4 => $self.$method::<Nibbles, 8>(),
        }
    };
}

struct Keys<'a, D> {
    lanes: D,
    block: &'a Block,
    rows: Rows<'a>,
    to: &'a mut [u32],
}

impl<D: Door> Op for Keys<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        with_codec!(self.write())
    }
}

impl<D: Door> Keys<'_, D> {
    #[inline(always)]
    fn write<S: Stored<N>, const N: usize>(self) {
        let Self { lanes, block, rows, to } = self;
        let (panel, lane) = (rows.first / LANES, rows.first % LANES);
        assert!(lane + rows.count <= LANES, "tokens of one panel");
        let mut begin = 0;
        for group in 0..block.groups.max(1) {
            let end = block.channels.min(begin + group_of(block));
            let mut by = [1.0; LANES];
            if block.groups > 0 {
                let mut scales = [0.0; LANES];
                for (i, to) in scales[..rows.count].iter_mut().enumerate() {
                    *to = step_of(S::CODEC, &rows.row(block, i)[begin..end]);
                }
                let scales = Scales::new(lanes, S::CODEC, &scales);
                let at = (panel * block.groups + group) * LANES + lane;
                (0..rows.count).for_each(|i| scales.put(i, block, to, at + i));
                by = scales.inverses;
            }
            let steps =
                &mut Panel { steps: to[..block.words()].as_chunks_mut().0, lines: block.lines(panel) };
            if rows.count == LANES {
                turned::<D, S, N>(lanes, block, rows, (begin, end), &by, steps);
            } else {
                for (i, &by) in by[..rows.count].iter().enumerate() {
                    let row = rows.row(block, i);
                    one::<D, S, N>(lanes, row, (begin, end), &[by; LANES], lane + i, steps);
                }
            }
            begin = end;
        }
    }
}

/// The steps of a panel of keys.
struct Panel<'a> {
    /// Of its block.
    steps: &'a mut [Step],
    lines: PanelLines,
}

impl Panel<'_> {
    /// That of some channels.
    #[inline(always)]
    fn step(&mut self, number: usize) -> &mut Step {
        &mut self.steps[self.lines.at(number)]
    }
}

/// Writes some channels of a whole panel of keys.
#[inline(always)]
fn turned<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    block: &Block,
    rows: Rows<'_>,
    (begin, end): (usize, usize),
    by: &[f32; LANES],
    steps: &mut Panel<'_>,
) {
    let mut tile = [[0.0; LANES]; TRANSPOSE];
    for first in (begin..end).step_by(TRANSPOSE) {
        for half in 0..LANES / TRANSPOSE {
            let row = |i: usize| &rows.row(block, half * TRANSPOSE + i)[first..];
            let from = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
            lanes.transpose(from, &mut tile.as_flattened_mut()[half * TRANSPOSE..], LANES);
        }
        let (tiles, _) = tile.as_chunks::<N>();
        for (i, channels) in tiles.iter().enumerate() {
            let first = first + i * N;
            if first + N <= end {
                let mut step = [0; LANES];
                for (n, x) in channels.iter().enumerate() {
                    S::put(lanes, x, by, n, &mut step);
                }
                *steps.step(first / N) = step;
            } else if first < end {
                for (n, x) in channels[..end - first].iter().enumerate() {
                    S::put(lanes, x, by, n, steps.step(first / N));
                }
            }
        }
    }
}

/// Writes some channels of one key.
#[inline(always)]
fn one<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    row: &[f32],
    (begin, end): (usize, usize),
    by: &[f32; LANES],
    lane: usize,
    steps: &mut Panel<'_>,
) {
    for first in (begin..end).step_by(LANES) {
        // As if they were numbers of sixteen lanes.
        let mut numbers = [0; LANES];
        S::put(lanes, sixteen(row, first), by, 0, &mut numbers);
        for at in (first..end.min(first + LANES)).step_by(N) {
            S::gather(&numbers, at - first, N.min(end - at), lane, steps.step(at / N));
        }
    }
}

struct Values<'a, D> {
    lanes: D,
    block: &'a Block,
    tokens: usize,
    rows: Rows<'a>,
    to: &'a mut [u32],
}

impl<D: Door> Op for Values<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        with_codec!(self.write())
    }
}

impl<D: Door> Values<'_, D> {
    #[inline(always)]
    fn write<S: Stored<N>, const N: usize>(self) {
        let Self { lanes, block, tokens, rows, to } = self;
        assert!(rows.first + rows.count <= tokens, "tokens of the page");
        for i in 0..rows.count {
            let token = rows.first + i;
            let row = rows.row(block, i);
            let is_finite = if block.groups == 0 {
                channels::<D, S, N>(lanes, (block, token), row, (0, block.channels), 1.0, to);
                peak(&row[..block.channels]) < numbers::limit(S::CODEC)
            } else {
                Self::scaled::<S, N>(lanes, (block, tokens, token), row, to)
            };
            put_odd(token, is_finite, &mut to[block.scaled_words(tokens)..]);
        }
    }

    /// Writes a value by groups, and says whether all are finite.
    #[inline(always)]
    fn scaled<S: Stored<N>, const N: usize>(
        lanes: D,
        at: (&Block, usize, usize),
        row: &[f32],
        to: &mut [u32],
    ) -> bool {
        let (block, tokens, token) = at;
        let len = group_of(block);
        let of = |group: usize| (group * len, block.channels.min((group + 1) * len));
        let mut is_finite = true;
        for first in (0..block.groups).step_by(LANES) {
            let groups = LANES.min(block.groups - first);
            let mut scales = [0.0; LANES];
            for (i, to) in scales[..groups].iter_mut().enumerate() {
                let (begin, end) = of(first + i);
                *to = step_of(S::CODEC, &row[begin..end]);
                is_finite &= peak(&row[begin..end]) < numbers::limit(S::CODEC);
            }
            let scales = Scales::new(lanes, S::CODEC, &scales);
            for i in 0..groups {
                scales.put(i, block, to, (first + i) * tokens + token);
                channels::<D, S, N>(lanes, (block, token), row, of(first + i), scales.inverses[i], to);
            }
        }
        is_finite
    }
}

/// Writes some channels of one value, from the first of a panel on.
#[inline(always)]
fn channels<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    (block, token): (&Block, usize),
    row: &[f32],
    (begin, end): (usize, usize),
    by: f32,
    to: &mut [u32],
) {
    let steps: &mut [Step] = to[..block.words()].as_chunks_mut().0;
    let by = [by; LANES];
    for first in (begin..end).step_by(LANES) {
        let step = &mut steps[block.lines(first / LANES).at(token / N)];
        let before = *step;
        S::put(lanes, sixteen(row, first), &by, token % N, step);
        if end - first < LANES {
            S::keep(token % N, end - first, &before, step);
        }
    }
}
