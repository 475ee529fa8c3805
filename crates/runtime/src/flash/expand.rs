//! Keys and values of a head made of latents, some tokens at a time, used, and dropped.
//!
//! Latents lie in pages as cached keys do, with tokens along the lanes; a head's matrices are the rows that are broadcast. What
//! comes out has a row for each channel, which is turned to a row for each token.

use core::ops::Range;

use regard_engine::cached::{self, LANES, Lane, Target, Words};
use regard_engine::element::Element;
use regard_engine::isa::Door;
use regard_engine::pack::Rows;
use regard_ir::cache::{Block, Codec, PageShape};
use regard_ir::variant::Latent;
use regard_simd::{Lanes, TRANSPOSE};

use crate::cache::CachedSequence;
use crate::carve::{self, Carve};
use crate::view::View;

/// Channels of a latent whose products are one chain of sums.
const CHAIN: usize = 64;

/// What makes keys and values of latents.
#[derive(Clone, Copy)]
pub(crate) struct Expansion<'a, T> {
    pub latent: Latent,
    /// Makes keys, `[1][query head][nope_dim]` rows of `rank`.
    pub w_uk: View<'a, T>,
    /// Makes values, `[1][query head][value_dim]` rows of `rank`.
    pub w_uv: View<'a, T>,
    /// Whether bf16 is multiplied in pairs.
    pub pairs: bool,
}

/// Sizes of what an expansion works in, for units of so many keys.
struct Sizes {
    /// Tokens, in whole panels: a unit may begin and end within one.
    tokens: usize,
    /// Rows of both matrices.
    rows: usize,
    rank: usize,
    nope: usize,
    rope: usize,
    value: usize,
}

impl Sizes {
    fn new(latent: &Latent, unit: usize) -> Self {
        let [rank, nope, rope, value] =
            [latent.rank, latent.nope_dim, latent.rope_dim, latent.value_dim].map(|n| n as usize);
        Self { tokens: tokens(unit), rows: nope + value, rank, nope, rope, value }
    }

    /// Elements of a row of keys, which are turned eight channels at a time.
    fn key_stride(&self) -> usize {
        self.nope + self.rope.next_multiple_of(TRANSPOSE) + TRANSPOSE
    }

    fn value_stride(&self) -> usize {
        self.value.next_multiple_of(TRANSPOSE)
    }

    /// In the order of [`Memory`]'s fields.
    fn pieces(&self) -> [usize; 6] {
        [
            self.rows * self.rank.next_multiple_of(2),
            self.tokens * self.rank.next_multiple_of(2),
            self.tokens * self.rope,
            self.rows * self.tokens,
            // Also a row of a matrix on its way.
            (self.tokens * self.key_stride()).max(self.rank),
            self.tokens * self.value_stride(),
        ]
    }
}

/// Elements that keys and values of so many tokens are made in.
pub(super) fn len(latent: &Latent, unit: usize) -> usize {
    carve::len(Sizes::new(latent, unit).pieces())
}

/// Tokens of a unit in whole panels, where it may begin and end within one.
fn tokens(unit: usize) -> usize {
    (unit + LANES).next_multiple_of(LANES)
}

/// Elements that rows of so many channels are read in, of so many tokens.
pub(super) fn rows_len(channels: usize, unit: usize) -> usize {
    carve::len(row_pieces(channels, unit))
}

fn row_pieces(channels: usize, unit: usize) -> [usize; 2] {
    [LANES * channels, tokens(unit) * channels.next_multiple_of(TRANSPOSE)]
}

/// Reads the keys of a head at some positions, and as values their first `value_dim` channels.
#[inline(always)]
pub(super) fn read_rows<'m, D: Door>(
    lanes: D,
    (cache, page): (&CachedSequence<'_>, &PageShape),
    (head, value_dim): (usize, usize),
    range: Range<u32>,
    unit: usize,
    memory: &'m mut [f32],
) -> [Made<'m>; 2] {
    let channels = page.keys.channels;
    let mut pieces = Carve::new(memory, row_pieces(channels, unit));
    let (panel, rows) = (pieces.next(), pieces.next());
    let panel: &mut [Lane] = panel.as_chunks_mut().0;
    let stride = channels.next_multiple_of(TRANSPOSE);
    let first = range.start as usize / LANES;
    for at in first..(range.end as usize).div_ceil(LANES) {
        let position = at * LANES;
        let words = &cache.page(page, position / page.tokens)[page.keys_at(head)..][..page.keys_len()];
        let of = position % page.tokens / LANES;
        cached::widen_keys(lanes, &page.keys, words, of, 0..channels, panel);
        cached::turn_rows(lanes, panel, &mut rows[(at - first) * LANES * stride..], stride);
    }
    let first = range.start as usize % LANES;
    [channels, value_dim].map(|width| Made { rows, stride, first, width })
}

struct Memory<'a> {
    /// The matrices of a head, packed.
    matrices: &'a mut [f32],
    /// Latents of the tokens, `[panels][channels][16]`.
    latents: &'a mut [f32],
    /// Their rotary keys, likewise.
    rotary: &'a mut [f32],
    /// Channels of keys and then of values, `[channels][tokens]`.
    made: &'a mut [f32],
    keys: &'a mut [f32],
    values: &'a mut [f32],
}

/// Rows that were made, in f32.
pub(super) struct Made<'a> {
    rows: &'a [f32],
    stride: usize,
    /// The first.
    first: usize,
    width: usize,
}

impl<'t> Rows<'t> for Made<'_> {
    #[inline(always)]
    fn row<'a, L: Lanes>(&self, _: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        scratch[..self.width].copy_from_slice(&self.rows[(self.first + i) * self.stride..][..self.width]);
        scratch
    }
}

impl<T: Element> Expansion<'_, T> {
    /// Makes the keys and values of a head at some positions, whose matrices are kept in `memory` until another's are wanted.
    #[inline(always)]
    pub(super) fn make<'m, D: Door>(
        &self,
        lanes: D,
        (cache, page): (&CachedSequence<'_>, &PageShape),
        head: u32,
        range: Range<u32>,
        unit: usize,
        (memory, expanded): (&'m mut [f32], &mut Option<u32>),
    ) -> [Made<'m>; 2] {
        let sizes = Sizes::new(&self.latent, unit);
        let mut pieces = Carve::new(memory, sizes.pieces());
        let memory = Memory {
            matrices: pieces.next(),
            latents: pieces.next(),
            rotary: pieces.next(),
            made: pieces.next(),
            keys: pieces.next(),
            values: pieces.next(),
        };
        let Sizes { rank, nope, rope, value, .. } = sizes;
        let pairs = self.pairs && page.keys.codec == Codec::Bf16;
        // The latents alone, as floats or as pairs of bf16.
        let block = Block {
            codec: if pairs { Codec::Bf16 } else { Codec::F32 },
            channels: rank,
            words: 0,
            groups: 0,
        };
        if *expanded != Some(head) {
            self.pack(lanes, &block, head, memory.matrices, memory.keys);
            *expanded = Some(head);
        }
        let (first, end) = (range.start as usize / LANES, (range.end as usize).div_ceil(LANES));
        let panels = end - first;
        let depth = rank.div_ceil(block.codec.numbers() as usize);
        let latents: &mut [Lane] = memory.latents.as_chunks_mut().0;
        let rotary: &mut [Lane] = memory.rotary.as_chunks_mut().0;
        for panel in 0..panels {
            let at = (first + panel) * LANES;
            let words = &cache.page(page, at / page.tokens)[page.keys_at(0)..][..page.keys_len()];
            let of = at % page.tokens / LANES;
            let to = &mut latents[panel * depth..][..depth];
            if pairs {
                cached::copy_keys(&page.keys, words, of, to);
            } else {
                cached::widen_keys(lanes, &page.keys, words, of, 0..rank, to);
            }
            let rotary = &mut rotary[panel * rope..][..rope];
            cached::widen_keys(lanes, &page.keys, words, of, rank..rank + rope, rotary);
        }
        let tokens = panels * LANES;
        let block = Block { words: panels * depth * LANES, ..block };
        let words = Words {
            block: &block,
            tokens,
            pairs,
            words: pulp::bytemuck::cast_slice(&*memory.latents),
            ahead: &[],
        };
        let matrices = (&*memory.matrices, sizes.rows);
        let target = Target { to: &mut *memory.made, stride: tokens };
        cached::scores(lanes, words, matrices, (CHAIN, tokens), target);

        let (key_stride, value_stride) = (sizes.key_stride(), sizes.value_stride());
        let (made_keys, made_values) = memory.made.split_at(nope * tokens);
        for panel in 0..panels {
            let at = panel * LANES;
            turn(lanes, &made_keys[at..], (nope, tokens), &mut memory.keys[at * key_stride..], key_stride);
            let rotary = &rotary[panel * rope..][..rope];
            // What is turned past the last channel of the others is overwritten, and what is past these is never read.
            cached::turn_rows(lanes, rotary, &mut memory.keys[at * key_stride + nope..], key_stride);
            let to = &mut memory.values[at * value_stride..];
            turn(lanes, &made_values[at..], (value, tokens), to, value_stride);
        }
        let first = range.start as usize % LANES;
        [
            Made { rows: memory.keys, stride: key_stride, first, width: nope + rope },
            Made { rows: memory.values, stride: value_stride, first, width: value },
        ]
    }

    /// Packs the matrices of a head, one row after the other.
    #[inline(always)]
    fn pack<D: Door>(&self, lanes: D, block: &Block, head: u32, to: &mut [f32], row: &mut [f32]) {
        let rank = self.latent.rank as usize;
        let packed = cached::packed_row(block);
        let mut to = to.chunks_exact_mut(packed);
        for matrix in [&self.w_uk, &self.w_uv] {
            for at in 0..matrix.counts()[2] {
                T::widen_into(lanes, matrix.row(0, head as usize, at), &mut row[..rank]);
                let to = to.next().expect("there is room for all rows");
                cached::pack_query(lanes, (block, self.pairs), &row[..rank], to);
            }
        }
    }
}

/// Turns sixteen tokens of channels that are `from_stride` apart to rows that are `stride` apart.
#[inline(always)]
fn turn<D: Door>(
    lanes: D,
    from: &[f32],
    (channels, from_stride): (usize, usize),
    to: &mut [f32],
    stride: usize,
) {
    static ZEROS: [f32; TRANSPOSE] = [0.0; TRANSPOSE];
    for first in (0..channels).step_by(TRANSPOSE) {
        for half in (0..LANES).step_by(TRANSPOSE) {
            let row = |i: usize| match first + i < channels {
                true => &from[(first + i) * from_stride + half..],
                false => &ZEROS[..],
            };
            let rows = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
            lanes.transpose(rows, &mut to[half * stride + first..], stride);
        }
    }
}
