//! Products with cached floats.

use core::marker::PhantomData;
use core::ops::Range;

use regard_ir::cache::Codec;

use super::ahead::{Cursor, NEAR};
use super::load::{Dots, Floats, Halves, Pairs, Stored};
use super::tile::{Operand, Tile, Write};
use super::{
    Before, FEW, LANES, Over, Part, RowTile, Shape, Target, Tiles, Weights, Words, cursor, first_shape,
    in_tiles, packed_row,
};
use crate::isa::Door;

/// Calls a function with the type that stands for a codec, and how many elements its words take.
macro_rules! with_codec {
    ($words:expr, $function:ident[$param:ident]($($argument:expr),*)) => {
        match ($words.block.codec, $words.pairs) {
            (Codec::F32, _) => $function::<$param, Floats, 1>($($argument),*),
            (Codec::F16, _) => $function::<$param, Halves, 2>($($argument),*),
            (Codec::Bf16, false) => $function::<$param, Pairs, 2>($($argument),*),
            (Codec::Bf16, true) => $function::<$param, Dots, 1>($($argument),*),
            (Codec::Int8 | Codec::Int4, _) => unreachable!("integers have products of their own"),
        }
    };
}

/// Packs a query: as it is, or as words of two bf16.
#[inline(always)]
pub(super) fn pack_query(pairs: bool, row: &[f32], to: &mut [f32]) {
    let (there, missing) = to.split_at_mut(row.len());
    there.copy_from_slice(row);
    missing.fill(0.0);
    if pairs {
        for i in 0..to.len() / 2 {
            to[i] = pair(to[2 * i], to[2 * i + 1]);
        }
    }
}

/// A word of two numbers, each rounded to the nearest bf16, halves away from zero.
#[inline(always)]
fn pair(first: f32, second: f32) -> f32 {
    let round = |x: f32| x.to_bits().wrapping_add(0x8000);
    f32::from_bits(round(first) >> 16 | round(second) & 0xffff_0000)
}

/// See [`super::scores`].
#[inline(always)]
pub(super) fn scores<D: Door>(
    lanes: D,
    words: Words<'_>,
    queries: (&[f32], usize),
    keys: (usize, usize),
    target: Target<'_>,
) {
    with_codec!(words, scores_of[D](lanes, words, queries, keys, target))
}

#[inline(always)]
fn scores_of<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    words: Words<'_>,
    (queries, rows): (&[f32], usize),
    (chain, count): (usize, usize),
    target: Target<'_>,
) {
    let block = words.block;
    let (panel, panels) = (block.channels.div_ceil(S::NUMBERS), count.div_ceil(LANES));
    let chain = chain.div_ceil(S::NUMBERS);
    let a = Operand { numbers: queries, stride: packed_row(block), rows, depth: panel, chain };
    let part = Part { rows, panels, before: Before::Nothing };
    FloatTiles::<S, N>::new(a, words, panel).take_all(lanes, &part, target);
}

/// See [`super::outputs`].
#[inline(always)]
pub(super) fn outputs<D: Door>(
    lanes: D,
    words: Words<'_>,
    weights: Weights<'_>,
    scratch: &mut [f32],
    before: Before<'_>,
    target: Target<'_>,
) {
    with_codec!(words, outputs_of[D](lanes, words, weights, scratch, before, target))
}

#[inline(always)]
fn outputs_of<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    words: Words<'_>,
    weights: Weights<'_>,
    scratch: &mut [f32],
    before: Before<'_>,
    target: Target<'_>,
) {
    let (panel, panels) = (words.tokens / S::NUMBERS, words.block.channels.div_ceil(LANES));
    let a = operand::<S, N>(&weights, 0..weights.count, scratch);
    let part = Part { rows: weights.rows, panels, before };
    FloatTiles::<S, N>::new(a, words, panel).take_all(lanes, &part, target);
}

/// Weights of some keys as they are multiplied: where they lie, or in words of two made in `scratch`.
#[inline(always)]
pub(super) fn operand<'a, S: Stored<N>, const N: usize>(
    weights: &Weights<'a>,
    keys: Range<usize>,
    scratch: &'a mut [f32],
) -> Operand<'a> {
    let &Weights { numbers, stride, rows, chain, .. } = weights;
    let (numbers, depth) = (&numbers[keys.start..], keys.len().div_ceil(S::NUMBERS));
    let chain = chain / S::NUMBERS;
    if S::NUMBERS == N {
        return Operand { numbers, stride, rows, depth, chain };
    }
    for r in 0..rows {
        let to = &mut scratch[r * depth..][..depth];
        let from = &numbers[r * stride..][..2 * depth];
        for (to, [first, second]) in to.iter_mut().zip(from.as_chunks().0) {
            *to = pair(*first, *second);
        }
    }
    Operand { numbers: scratch, stride: depth, rows, depth, chain }
}

struct FloatTiles<'a, S, const N: usize> {
    a: Operand<'a>,
    words: Words<'a>,
    /// Lines of a panel.
    panel: usize,
    stored: PhantomData<S>,
}

impl<'a, S: Stored<N>, const N: usize> FloatTiles<'a, S, N> {
    fn new(a: Operand<'a>, words: Words<'a>, panel: usize) -> Self {
        Self { a, words, panel, stored: PhantomData }
    }

    /// Takes all of it.
    #[inline(always)]
    fn take_all<D: Door>(&self, lanes: D, part: &Part<'_>, target: Target<'_>) {
        let part = (part, first_shape::<D, _>(self, part));
        let mut cursor = cursor::<D, _>(self, part, (&self.words, self.panel));
        in_tiles(lanes, part, target, self, &mut cursor);
    }

    /// Takes tiles of one shape.
    #[inline(always)]
    fn tiles<D: Door, const R: usize, const U: usize, const C: usize>(
        &self,
        lanes: D,
        tile: RowTile,
        over: Over,
        cursor: Option<&mut Cursor<'_>>,
        write: Write<'_>,
    ) {
        let &Self { ref a, words, panel, stored } = self;
        let (a, panels) = (a.tile(tile), words.steps());
        lanes.call(Tile::<D, S, N, R, U, C> { lanes, a, panels, panel, over, cursor, write, stored });
    }
}

impl<D: Door, S: Stored<N>, const N: usize> Tiles<D> for FloatTiles<'_, S, N> {
    const ROWS: usize = if D::TILE > 4 { 8 } else { 4 };

    fn shape(&self, rows: usize, alone: bool) -> Shape {
        let (sums, panel) = (if D::TILE > 4 { 16 } else { 8 }, (LANES / D::WIDTH).min(4));
        let fits = |vectors: usize, chains: usize| rows * vectors * chains <= sums;
        let Operand { depth, chain, .. } = self.a;
        // Runs of lines side by side: so many that a tile reads about as many lines as it asks ahead. If it is the only one it reads
        // them as they lie, two chains of a panel before the next panel and, where there are enough sums to go on with while others
        // wait, one run at a time: memory gives most then.
        let runs = if 2 * chain.min(depth) >= NEAR { 2 } else { 4 };
        let pairs = alone && rows <= FEW && depth.is_multiple_of(2 * chain) && fits(panel, 2);
        let (panels, chains) = match (pairs, alone && rows > FEW) {
            (true, _) => (if depth == 2 * chain { runs / 2 } else { 1 }, 2),
            (false, true) => (1, 1),
            (false, false) => (runs, 1),
        };
        let mut vectors = (panels * panel).min(4);
        while !fits(vectors, chains) {
            vectors /= 2;
        }
        Shape { vectors, chains }
    }

    fn chains(&self) -> usize {
        self.a.chains()
    }

    fn depth(&self) -> usize {
        self.a.chain.min(self.a.depth)
    }

    #[inline(always)]
    fn take(
        &self,
        lanes: D,
        (tile, Shape { vectors, chains }): (RowTile, Shape),
        over: Over,
        cursor: Option<&mut Cursor<'_>>,
        write: Write<'_>,
    ) {
        match (tile.width, vectors, chains) {
            (1, 1, 2) => self.tiles::<D, 1, 1, 2>(lanes, tile, over, cursor, write),
            (2, 1, 2) => self.tiles::<D, 2, 1, 2>(lanes, tile, over, cursor, write),
            (4, 1, 2) => self.tiles::<D, 4, 1, 2>(lanes, tile, over, cursor, write),
            (1, 2, 2) => self.tiles::<D, 1, 2, 2>(lanes, tile, over, cursor, write),
            (2, 4, 2) => self.tiles::<D, 2, 4, 2>(lanes, tile, over, cursor, write),
            (2, 2, 2) => self.tiles::<D, 2, 2, 2>(lanes, tile, over, cursor, write),
            (4, 2, 2) => self.tiles::<D, 4, 2, 2>(lanes, tile, over, cursor, write),
            (1, 4, 2) => self.tiles::<D, 1, 4, 2>(lanes, tile, over, cursor, write),
            (1, 4, 1) => self.tiles::<D, 1, 4, 1>(lanes, tile, over, cursor, write),
            (2, 4, 1) => self.tiles::<D, 2, 4, 1>(lanes, tile, over, cursor, write),
            (4, 4, 1) => self.tiles::<D, 4, 4, 1>(lanes, tile, over, cursor, write),
            (1, 2, 1) => self.tiles::<D, 1, 2, 1>(lanes, tile, over, cursor, write),
            (2, 2, 1) => self.tiles::<D, 2, 2, 1>(lanes, tile, over, cursor, write),
            (4, 2, 1) => self.tiles::<D, 4, 2, 1>(lanes, tile, over, cursor, write),
            (8, 2, 1) => self.tiles::<D, 8, 2, 1>(lanes, tile, over, cursor, write),
            (1, 1, 1) => self.tiles::<D, 1, 1, 1>(lanes, tile, over, cursor, write),
            (2, 1, 1) => self.tiles::<D, 2, 1, 1>(lanes, tile, over, cursor, write),
            (4, 1, 1) => self.tiles::<D, 4, 1, 1>(lanes, tile, over, cursor, write),
            (8, 1, 1) => self.tiles::<D, 8, 1, 1>(lanes, tile, over, cursor, write),
            (rows, vectors, chains) => {
                panic!("a tile of {rows} rows by {vectors} vectors by {chains} chains")
            }
        }
    }
}
