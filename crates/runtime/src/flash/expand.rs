//! Keys and values of a head made of latents, some tokens at a time, used, and dropped.
//!
//! Latents lie in pages as cached keys do, with tokens along the lanes: they are turned to rows, and multiplied by the matrices of a
//! head on the engine's own tiles.

use core::ops::Range;

use regard_engine::cached::LANES;
use regard_engine::engine::LINE;
use regard_engine::isa::Door;
use regard_engine::pack::Rows;
use regard_engine::product::{Before, Matrix, Right, Sizes as Product};
use regard_engine::{Engine, SimdF32};
use regard_ir::cache::{Codec, PageShape};
use regard_ir::plan::Dtype;
use regard_ir::variant::Latent;
use regard_simd::{Lanes, TRANSPOSE};

use crate::cache::CachedSequence;
use crate::carve::{self, Carve};
use crate::view::View;

/// What makes keys and values of latents.
#[derive(Clone, Copy)]
pub(crate) struct Expansion<'a> {
    pub latent: Latent,
    /// Makes keys, `[1][query head][nope_dim]` rows of `rank`.
    pub w_uk: View<'a>,
    /// Makes values, `[1][query head][value_dim]` rows of `rank`.
    pub w_uv: View<'a>,
}

/// Sizes of what an expansion works in, for units of so many keys. Rows are whole lines.
struct Sizes {
    /// Tokens, in whole panels: a unit may begin and end within one.
    tokens: usize,
    rank: usize,
    /// Channels of a latent, in whole lines.
    depth: usize,
    nope: usize,
    rope: usize,
    value: usize,
}

impl Sizes {
    fn new(latent: &Latent, unit: usize) -> Self {
        let [rank, nope, rope, value] =
            [latent.rank, latent.nope_dim, latent.rope_dim, latent.value_dim].map(|n| n as usize);
        Self { tokens: tokens(unit), rank, depth: rank.next_multiple_of(LINE), nope, rope, value }
    }

    /// Rows of the matrices that make keys and values, in whole lines.
    fn columns(&self) -> [usize; 2] {
        [self.nope, self.value].map(|rows| rows.next_multiple_of(LINE))
    }

    /// Elements of a row of keys: what is made, and rotary channels behind those that there are, which are turned eight at a time.
    fn key_stride(&self) -> usize {
        let turned = self.nope + self.rope.next_multiple_of(TRANSPOSE);
        turned.next_multiple_of(LINE)
    }

    /// The matrices as they are multiplied by, packed latents, and rows.
    fn pieces<M: Engine>(&self) -> [usize; 4] {
        let [keys, values] = self.columns();
        let right = |columns| M::right_len([self.depth, columns], true);
        let rows = self.tokens * (self.depth + self.key_stride() + values);
        [right(keys), right(values), M::left_len(self.depth), rows.max(self.depth * keys.max(values))]
    }
}

/// Elements that keys and values of so many tokens are made in.
pub(super) fn len<E: Engine>(latent: &Latent, unit: usize, dtype: Dtype) -> usize {
    let sizes = Sizes::new(latent, unit);
    match dtype {
        Dtype::Bf16 => carve::len(sizes.pieces::<E>()),
        Dtype::F32 | Dtype::F16 => carve::len(sizes.pieces::<SimdF32<E::Lanes>>()),
    }
}

/// Tokens of a unit in whole panels, where it may begin and end within one.
fn tokens(unit: usize) -> usize {
    (unit + LANES).next_multiple_of(LANES)
}

/// Elements that rows of so many channels are read in, of so many tokens.
pub(super) fn rows_len(channels: usize, unit: usize) -> usize {
    tokens(unit) * channels.next_multiple_of(TRANSPOSE)
}

/// Reads the keys of a head at some positions, and as values their first `value_dim` channels.
#[inline(always)]
pub(super) fn read_rows<'m, L: Lanes>(
    lanes: L,
    cached: (&CachedSequence<'_>, &PageShape),
    (head, value_dim): (usize, usize),
    range: Range<u32>,
    memory: &'m mut [f32],
) -> [Made<'m>; 2] {
    let (_, page) = cached;
    let channels = page.keys.channels;
    let stride = channels.next_multiple_of(TRANSPOSE);
    turn_keys(lanes, cached, (head, &range), (0..channels, TRANSPOSE), memory, stride);
    let first = range.start as usize % LANES;
    [channels, value_dim].map(|width| Made { rows: memory, stride, first, width })
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
    fn row<'a, L: Door>(&self, _: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        scratch[..self.width].copy_from_slice(&self.rows[(self.first + i) * self.stride..][..self.width]);
        scratch
    }
}

impl Expansion<'_> {
    /// Makes the keys and values of a head at some positions, whose matrices are kept in `memory` until another's are wanted.
    ///
    /// Tiles of an engine that rounds to bf16 multiply what is bf16 anyway; other storage is multiplied as floats.
    #[inline(always)]
    pub(super) fn make<'m, E: Engine>(
        &self,
        engine: E,
        cached: (&CachedSequence<'_>, &PageShape),
        of: (u32, Range<u32>),
        unit: usize,
        memory: (&'m mut [f32], &mut Option<u32>),
    ) -> [Made<'m>; 2] {
        match self.w_uk.dtype() {
            Dtype::Bf16 => self.multiply(engine, cached, of, unit, memory),
            Dtype::F32 | Dtype::F16 => self.multiply(SimdF32(engine.lanes()), cached, of, unit, memory),
        }
    }

    #[inline(always)]
    fn multiply<'m, M: Engine>(
        &self,
        engine: M,
        cached: (&CachedSequence<'_>, &PageShape),
        (head, range): (u32, Range<u32>),
        unit: usize,
        (memory, expanded): (&'m mut [f32], &mut Option<u32>),
    ) -> [Made<'m>; 2] {
        let sizes = Sizes::new(&self.latent, unit);
        let mut pieces = Carve::new(memory, sizes.pieces::<M>());
        let mut matrices = [pieces.next(), pieces.next()];
        // Latents are packed in the first; in the second there is a matrix on its way, and then latents, keys and values.
        let (packing, rows) = (pieces.next(), pieces.next());
        let Sizes { tokens, rank, depth, nope, rope, .. } = sizes;
        let (lanes, columns) = (engine.lanes(), sizes.columns());
        if *expanded != Some(head) {
            let matrices = [&self.w_uk, &self.w_uv].into_iter().zip(columns).zip(&mut matrices);
            for ((matrix, columns), room) in matrices {
                self.pack(engine, (matrix, head), [depth, columns], rows, room);
            }
            *expanded = Some(head);
        }

        let (latents, made) = rows.split_at_mut(tokens * depth);
        let strides = [sizes.key_stride(), columns[1]];
        let (keys, values) = made.split_at_mut(tokens * strides[0]);
        let count = turn_keys(lanes, cached, (0, &range), (0..rank, LINE), latents, depth);
        let (_, page) = cached;
        let left = Matrix::rows(latents, depth).precise(page.keys.codec != Codec::Bf16);
        let to = [(&mut *keys, strides[0]), (&mut *values, strides[1])];
        for ((room, columns), to) in matrices.iter().zip(columns).zip(to) {
            let product = Product { rows: count, depth, columns };
            engine.multiply(product, (left, Right::rows(room, columns)), to, Before::Replaced, packing);
        }
        // In the place of what is beside the others.
        let rotary = (rank..rank + rope, TRANSPOSE);
        turn_keys(lanes, cached, (0, &range), rotary, &mut keys[nope..], strides[0]);
        let first = range.start as usize % LANES;
        [
            Made { rows: keys, stride: strides[0], first, width: nope + rope },
            Made { rows: values, stride: strides[1], first, width: sizes.value },
        ]
    }

    /// Packs a matrix of a head, so deep and so wide.
    #[inline(always)]
    fn pack<M: Engine>(
        &self,
        engine: M,
        (matrix, head): (&View<'_>, u32),
        [depth, columns]: [usize; 2],
        rows: &mut [f32],
        room: &mut [f32],
    ) {
        let rows = &mut rows[..depth * columns];
        rows.fill(0.0);
        for (at, row) in rows.chunks_exact_mut(depth).take(matrix.counts()[2]).enumerate() {
            let from = matrix.row(0, head as usize, at);
            from.widen_into(engine.lanes(), &mut row[..from.len()]);
        }
        engine.right(Matrix::turned(rows, depth), [depth, columns], room);
    }
}

/// Turns some channels of the keys of a head, in the panels that positions lie in, to rows of tokens that are so far apart, and says how
/// many rows they are. Zeros fill up a multiple of channels.
#[inline(always)]
fn turn_keys<L: Lanes>(
    lanes: L,
    (cache, page): (&CachedSequence<'_>, &PageShape),
    (head, range): (usize, &Range<u32>),
    (channels, multiple): (Range<usize>, usize),
    to: &mut [f32],
    stride: usize,
) -> usize {
    let begin = range.start as usize / LANES * LANES;
    let panels = (begin..range.end as usize).step_by(LANES);
    for (token, to) in panels.clone().zip(to.chunks_mut(LANES * stride)) {
        for (first, channel) in channels.clone().step_by(LANES).enumerate() {
            let some = (channel..channels.end.min(channel + LANES), multiple);
            cache.turn_keys(lanes, page, (head, token), some, &mut to[first * LANES..], stride);
        }
    }
    panels.len() * LANES
}
