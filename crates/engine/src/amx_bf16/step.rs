//! One row tile against the live keys of a block: a pipeline of scores, weights and outputs.
//!
//! Parts of 64 keys pass through three stages. While the unit multiplies the scores of one part and the outputs of the
//! part two before it, vectors make weights of the scores of the part between.

use core::ops::Range;

use pulp::bytemuck;
use regard_simd::{F32, Lanes, pair_bf16, round_bf16, vectors, vectors_mut};

use super::layout::{DEPTH, PART, ROWS, Scratch, Sizes};
use super::mend::mend;
use super::product::{Block, Operand, Products, Work, multiplications};
use super::unit::{SIDE, Unit};
use crate::engine::{Change, Fold, GROUP, Op, Step};
use crate::isa::Door;
use crate::weigh::{Coarse, Full, Precise, Weigher};

/// A step, as a function of its own inside the door.
pub(super) struct Pipeline<'a, 'f, D, U, F> {
    pub lanes: D,
    pub unit: U,
    pub step: Step<'a>,
    pub fold: &'f mut F,
}

impl<D: Door, U: Unit, F: Fold<D>> Op for Pipeline<'_, '_, D, U, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let split = self.step.shape.pieces.weights > 1;
        match (D::WIDTH, split) {
            (16, false) => self.run_as::<{ ROWS / 16 }, Coarse>(),
            (16, true) => self.run_as::<{ ROWS / 16 }, Full>(),
            (8, false) => self.run_as::<{ ROWS / 8 }, Coarse>(),
            (8, true) => self.run_as::<{ ROWS / 8 }, Full>(),
            (4, false) => self.run_as::<{ ROWS / 4 }, Coarse>(),
            (4, true) => self.run_as::<{ ROWS / 4 }, Full>(),
            (_, false) => self.run_as::<ROWS, Coarse>(),
            (_, true) => self.run_as::<ROWS, Full>(),
        }
    }
}

/// The keys of a part, counted in the block; parts end at multiples of [`PART`].
fn parts(keys: Range<usize>) -> impl Iterator<Item = Range<usize>> + Clone {
    let first = keys.start / PART;
    (first..keys.end.div_ceil(PART))
        .map(move |part| (part * PART).max(keys.start)..((part + 1) * PART).min(keys.end))
}

impl<D: Door, U: Unit, F: Fold<D>> Pipeline<'_, '_, D, U, F> {
    #[inline(always)]
    fn run_as<const V: usize, P: Precise>(self) {
        let Self { lanes, unit, step, fold } = self;
        let Step { shape, query, packed, first_key, live_keys, scratch, output, .. } = step;
        let sizes = Sizes::new(shape);
        let (query, packed): (&[u32], &[u32]) = (bytemuck::cast_slice(query), bytemuck::cast_slice(packed));
        let output: &mut [f32] = output;
        let Scratch { mut scores, mut weights } = sizes.split(scratch);

        let mut coming = parts(first_key..first_key + live_keys);
        // What the last stage left: scores of a part, weights of the part before it.
        let mut scored: Option<Range<usize>> = None;
        let mut weighed: Option<(Range<usize>, Change)> = None;
        loop {
            let next = coming.next();
            if next.is_none() && scored.is_none() && weighed.is_none() {
                break;
            }
            // Before the next part's references move.
            if let Some((_, Change::Rescale)) = weighed {
                rescale(lanes, output, fold.factors());
            }
            // No closure: one that is not inlined would be compiled without the instructions of the lanes.
            let opened = if let Some(part) = scored {
                let (live, missing) = scores[1].split_at_mut(part.len() * ROWS);
                if sizes.scores > 1 {
                    mend(&sizes, query, packed, part.clone(), live);
                }
                let (change, weigher) = fold.open::<V, P>(lanes, part.start - first_key, live);
                let padded = part.len().next_multiple_of(GROUP);
                // Missing keys have no weight.
                let nothing = if weigher.weighs() { f32::NEG_INFINITY } else { 0.0 };
                missing[..(padded - part.len()) * ROWS].fill(nothing);
                Some((part, change, weigher))
            } else {
                None
            };
            let score_depth = sizes.row / SIDE;
            let groups = |part: &Range<usize>| part.len().div_ceil(GROUP);
            let multiplied = next
                .as_ref()
                .map_or(0, |part| groups(part) * multiplications(score_depth, sizes.scores, sizes.scores))
                + weighed.as_ref().map_or(0, |(part, _)| {
                    sizes.value_width / ROWS * multiplications(groups(part), sizes.values, sizes.weights)
                });
            let [scores_now, scores_before] = &mut scores;
            let [weights_now, weights_before] = &mut weights;
            let mut work = opened.as_ref().map(|(part, _, weigher)| Weighing {
                lanes,
                weigher: *weigher,
                scores: &scores_before[..],
                weights: &mut weights_now[..],
                sizes,
                pair: 0,
                pairs: groups(part) * GROUP / 2,
                multiplied,
                due: 0,
            });
            let mut products = Products::new(unit.tiles());
            if let Some(part) = &next {
                let blocks = bytemuck::cast_slice_mut::<f32, u32>(scores_now).chunks_exact_mut(GROUP * ROWS);
                for (group, words) in (part.start / GROUP..part.end.div_ceil(GROUP)).zip(blocks) {
                    let keys = Operand {
                        words: &packed[group * sizes.unit()..],
                        stride: sizes.row,
                        tile: SIDE * sizes.row,
                        depth: SIDE,
                        piece: sizes.key_piece(),
                        pieces: sizes.scores,
                    };
                    let queries = Operand {
                        words: query,
                        stride: SIDE,
                        tile: SIDE * sizes.row,
                        depth: SIDE * SIDE,
                        piece: sizes.query_piece(),
                        pieces: sizes.scores,
                    };
                    let block = Block { words, stride: ROWS, adds: false };
                    products.multiply(keys, queries, score_depth, block, &mut work);
                }
            }
            if let Some((part, change)) = &weighed {
                let blocks = bytemuck::cast_slice_mut::<f32, u32>(output).chunks_exact_mut(ROWS * ROWS);
                for (panel, words) in blocks.enumerate().take(sizes.value_width / ROWS) {
                    let unit = part.start / GROUP * sizes.unit() + sizes.keys();
                    let values = Operand {
                        words: &packed[unit + panel * ROWS * SIDE..],
                        stride: SIDE,
                        tile: SIDE * SIDE,
                        depth: sizes.unit(),
                        piece: sizes.value_piece(),
                        pieces: sizes.values,
                    };
                    let weights = Operand {
                        words: weights_before,
                        stride: SIDE,
                        tile: SIDE * SIDE,
                        depth: 2 * SIDE * SIDE,
                        piece: sizes.weight_piece(),
                        pieces: sizes.weights,
                    };
                    let block = Block { words, stride: ROWS, adds: *change != Change::Replace };
                    products.multiply(values, weights, groups(part), block, &mut work);
                }
            }
            products.finish();
            weighed = match (opened, work) {
                (Some((part, change, _)), Some(mut work)) => {
                    work.finish();
                    fold.close(lanes, work.weigher);
                    Some((part, change))
                }
                _ => None,
            };
            scored = next;
            scores.swap(0, 1);
            weights.swap(0, 1);
        }
    }
}

const _: () = assert!(DEPTH == 2 * SIDE && GROUP == 2 * SIDE);

/// Multiplies each row of the output, `[channels][ROWS]`, by its factor.
#[inline(always)]
fn rescale<L: Lanes>(lanes: L, output: &mut [f32], factors: &[f32]) {
    for channel in output.chunks_exact_mut(ROWS) {
        for (o, &factor) in vectors_mut(lanes, channel).iter_mut().zip(vectors(lanes, factors)) {
            *o = (F32::from_raw(lanes, *o) * F32::from_raw(lanes, factor)).raw();
        }
    }
}

/// The weights of a part, made between multiplications.
struct Weighing<'a, L: Lanes, const V: usize, P> {
    lanes: L,
    weigher: Weigher<L, V, P>,
    scores: &'a [f32],
    weights: &'a mut [u32],
    sizes: Sizes,
    /// The next pair of keys.
    pair: usize,
    /// Pairs in all.
    pairs: usize,
    /// Multiplications that the pairs are spread over.
    multiplied: usize,
    /// What is due of a pair, in so many parts as there are multiplications.
    due: usize,
}

impl<L: Lanes, const V: usize, P: Precise> Work for Option<Weighing<'_, L, V, P>> {
    #[inline(always)]
    fn advance(&mut self) {
        if let Some(work) = self {
            work.due += work.pairs;
            while work.due >= work.multiplied && work.pair < work.pairs {
                work.due -= work.multiplied;
                work.weigh();
            }
        }
    }
}

impl<L: Lanes, const V: usize, P: Precise> Weighing<'_, L, V, P> {
    /// What is left.
    #[inline(always)]
    fn finish(&mut self) {
        while self.pair < self.pairs {
            self.weigh();
        }
    }

    /// The weights of one pair of keys, as words of both.
    #[inline(always)]
    fn weigh(&mut self) {
        let Self { lanes, sizes, pair, .. } = *self;
        let keys = &self.scores[2 * pair * ROWS..][..2 * ROWS];
        let keys = vectors(lanes, keys).as_chunks::<V>().0;
        let mut first = self.weigher.weigh(lanes, keys[0]);
        let mut second = self.weigher.weigh(lanes, keys[1]);
        for piece in 0..sizes.weights {
            let words = &mut self.weights[piece * sizes.weight_piece()..][..sizes.weight_piece()];
            for v in 0..V {
                let (a, b) = (F32::from_raw(lanes, first[v]), F32::from_raw(lanes, second[v]));
                let (high_a, high_b) = (round_bf16(a), round_bf16(b));
                let at = Sizes::weight(pair, v * L::WIDTH);
                let to = bytemuck::cast_slice_mut::<u32, f32>(&mut words[at..at + L::WIDTH]);
                vectors_mut(lanes, to)[0] = pair_bf16(high_a, high_b).raw();
                (first[v], second[v]) = ((a - high_a).raw(), (b - high_b).raw());
            }
        }
        self.pair += 1;
    }
}
