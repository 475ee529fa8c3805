//! Products with cached floats.

use core::marker::PhantomData;
use core::ops::Range;

use regard_ir::cache::{Block, Codec};
use regard_simd::Prefetch;

use super::ahead::{Ask, IntoFirst, IntoSecond, Next, Pace, Stream};
use super::load::{Dots, Floats, Halves, Pairs, Stored};
use super::single::AddSingle;
use super::tile::{Operand, Panels, Tile, Write};
use super::{Before, LANES, Part, RowTile, Target, Tiles, Weights, Words, are_alone, in_tiles, packed_row};
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
    (chain, count): (usize, usize),
    target: Target<'_>,
) {
    let one = words.block;
    // Panels of pages that lie one after the other are those of one block, unless a page ends with one that has no partner.
    let at_once = if one.paired && !one.panels.is_multiple_of(2) { 1 } else { words.pages };
    for first in (0..words.pages).step_by(at_once) {
        let before = first * words.tokens;
        let block = Block { panels: at_once * one.panels, ..*one };
        let words = Words { block: &block, pages: 1, ..words.part(first, at_once) };
        let count = (count - before).min(block.panels * LANES);
        let target = Target { to: &mut target.to[before..], ..target };
        with_codec!(words, scores_of[D](lanes, words, queries, (chain, count), target));
    }
}

#[inline(always)]
fn scores_of<D: Door, S: Stored<N>, const N: usize>(
    lanes: D,
    words: Words<'_>,
    (queries, rows): (&[f32], usize),
    (chain, count): (usize, usize),
    target: Target<'_>,
) {
    let a = Operand { numbers: queries, stride: packed_row(words.block), rows, depth: words.block.depth };
    let (chain, panels) = (chain.div_ceil(S::NUMBERS), count.div_ceil(LANES));
    Product::<S, N> { a, chain, words, panels, stored: PhantomData }.add(lanes, Before::Nothing, target);
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
    let a = operand::<S, N>(&weights, 0..weights.count, scratch);
    let (chain, panels) = (weights.chain.div_ceil(S::NUMBERS), words.block.panels);
    Product::<S, N> { a, chain, words, panels, stored: PhantomData }.add(lanes, before, target);
}

/// Weights of some keys as they are multiplied: where they lie, or in words of two made in `scratch`.
#[inline(always)]
pub(super) fn operand<'a, S: Stored<N>, const N: usize>(
    weights: &Weights<'a>,
    keys: Range<usize>,
    scratch: &'a mut [f32],
) -> Operand<'a> {
    let &Weights { numbers, stride, rows, .. } = weights;
    let (numbers, depth) = (&numbers[keys.start..], keys.len().div_ceil(S::NUMBERS));
    if S::NUMBERS == N {
        return Operand { numbers, stride, rows, depth };
    }
    for r in 0..rows {
        let to = &mut scratch[r * depth..][..depth];
        let from = &numbers[r * stride..][..2 * depth];
        for (to, [first, second]) in to.iter_mut().zip(from.as_chunks().0) {
            *to = pair(*first, *second);
        }
    }
    Operand { numbers: scratch, stride: depth, rows, depth }
}

/// A product of some rows with the panels of a block, or of blocks of pages that each have a part of the depth.
pub(super) struct Product<'a, S, const N: usize> {
    /// Rows of all of the depth.
    a: Operand<'a>,
    /// Lines of a panel whose products are one chain of sums; the last chain of a page may be shorter.
    pub chain: usize,
    pub words: Words<'a>,
    /// How many panels of each page are read.
    pub panels: usize,
    stored: PhantomData<S>,
}

impl<'a, S: Stored<N>, const N: usize> Product<'a, S, N> {
    /// Adds it to outputs.
    #[inline(always)]
    fn add<D: Door>(&self, lanes: D, before: Before<'_>, target: Target<'_>) {
        match (self.a.rows, LANES / D::WIDTH) {
            (1, 1) => self.add_single::<D, 2>(lanes, before, target),
            (1, 2) => self.add_single::<D, 4>(lanes, before, target),
            _ => self.add_many(lanes, before, target),
        }
    }

    /// The same of one row, in vectors of which `V` are two lines.
    #[inline(always)]
    fn add_single<D: Door, const V: usize>(&self, lanes: D, before: Before<'_>, target: Target<'_>) {
        let stream = self.stream(lanes, (1, false));
        let product = self;
        match lanes.prefetches() {
            Prefetch::IntoFirst => {
                let kind = PhantomData::<IntoFirst>;
                lanes.call(AddSingle::<D, S, _, N, V> { lanes, product, before, target, stream, kind });
            }
            _ => {
                let kind = PhantomData::<IntoSecond>;
                lanes.call(AddSingle::<D, S, _, N, V> { lanes, product, before, target, stream, kind });
            }
        }
    }

    #[inline(always)]
    fn add_many<D: Door>(&self, lanes: D, before: Before<'_>, target: Target<'_>) {
        // As many pairs as a tile has vectors for.
        let pairs = if are_alone::<D>() { 1 } else { N };
        let mut stream = self.stream(lanes, (pairs, are_alone::<D>()));
        for page in 0..self.words.pages {
            let (words, a) = self.page(page);
            let before = if page == 0 { before } else { Before::Kept };
            let mut first = 0;
            while first < self.panels {
                let side = words.side(first, self.panels, pairs);
                // Each chain starts from zero and is added to those before it.
                for begin in (0..a.depth).step_by(self.chain) {
                    let depth = self.chain.min(a.depth - begin);
                    let before = if begin == 0 { before } else { Before::Kept };
                    let a = Operand { numbers: &a.numbers[begin * N..], depth, ..a };
                    let tiles = FloatTiles { a, panels: side.from(begin), stored: self.stored };
                    let part = Part { rows: a.rows, side, depth, before };
                    let to = &mut target.to[first * LANES..];
                    in_tiles(lanes, &part, Target { to, ..target }, &tiles, &mut stream);
                }
                first += side.count;
            }
        }
    }

    /// The words of a page, and the rows that they are multiplied with.
    #[inline(always)]
    pub fn page(&self, number: usize) -> (Words<'a>, Operand<'a>) {
        let Self { a, words, .. } = *self;
        if words.pages == 1 {
            return (words, a);
        }
        let before = number * words.block.depth;
        let depth = words.block.depth.min(a.depth - before);
        (words.part(number, 1), Operand { numbers: &a.numbers[before * N..], depth, ..a })
    }

    /// Where tiles ask that go over so many pairs of panels at a time, whole or a panel alone.
    #[inline(always)]
    fn stream<D: Door>(&self, lanes: D, tiles: (usize, bool)) -> Option<Stream<'a>> {
        let (_, a) = self.page(0);
        let pace =
            Pace::new((self.words.block, self.panels), tiles, self.chain.min(a.depth), N * self.a.rows);
        self.words.stream(lanes, self.panels, pace)
    }
}

struct FloatTiles<'a, S, const N: usize> {
    a: Operand<'a>,
    panels: Panels<'a>,
    stored: PhantomData<S>,
}

impl<D: Door, S: Stored<N>, const N: usize> Tiles<D> for FloatTiles<'_, S, N> {
    const ROWS: usize = if D::TILE > 4 { 8 } else { 4 };

    const VECTORS: [usize; 4] = if D::TILE > 4 { [4, 4, 4, 2] } else { [2; 4] };

    const UNPAIRED: bool = S::UNPAIRED;

    #[inline(always)]
    fn tile<A: Ask, const R: usize, const U: usize, const W: usize>(
        &self,
        lanes: D,
        (tile, first): (RowTile, usize),
        next: Option<Next>,
        write: Write<'_>,
    ) {
        let &Self { ref a, panels, .. } = self;
        let (a, kind) = (a.tile(tile), PhantomData);
        lanes.call(Tile::<D, S, A, N, R, U, W> { lanes, a, panels, first, next, write, kind });
    }
}
