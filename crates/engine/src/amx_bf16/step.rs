//! One row tile against the live keys of a block: a pipeline of scores, weights and outputs.
//!
//! Parts of 64 keys pass through three stages. While the unit multiplies the scores of one part and the outputs of the
//! part two before it, vectors make weights of the scores of the part between.

use core::ops::Range;

use pulp::bytemuck;
use regard_ir::plan::Pieces;
use regard_simd::{F32, Lanes, pair_bf16, round_bf16, vectors, vectors_mut};

use super::layout::{DEPTH, PART, ROWS, Scratch, Sizes};
use super::mend::mend;
use super::product::{Factors, Products, Sums, Work};
use super::unit::{SIDE, Unit};
use crate::engine::{Change, Fold, GROUP, Op, Step};
use crate::isa::Door;
use crate::weigh::{Coarse, Fine, Full, Precise, Weigher};

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
        match D::WIDTH {
            16 => self.run_rows::<{ ROWS / 16 }>(),
            8 => self.run_rows::<{ ROWS / 8 }>(),
            4 => self.run_rows::<{ ROWS / 4 }>(),
            _ => self.run_rows::<ROWS>(),
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
    fn run_rows<const V: usize>(self) {
        let pieces = self.step.shape.pieces;
        match (pieces.weights, pieces.order) {
            _ if pieces == Pieces::WHOLE => self.run_as::<V, Coarse, true>(),
            (_, ..=2) => self.run_as::<V, Coarse, false>(),
            (..=2, _) => self.run_as::<V, Fine, false>(),
            _ => self.run_as::<V, Full, false>(),
        }
    }

    /// `WHOLE` says that no operand is split, as a constant, so that there are no loops over pieces.
    #[inline(always)]
    fn run_as<const V: usize, P: Precise, const WHOLE: bool>(self) {
        let Self { lanes, unit, step, fold } = self;
        let Step { shape, query, packed, first_key, live_keys, scratch, output, .. } = step;
        let mut sizes = Sizes::new(shape);
        if WHOLE {
            sizes = Sizes { scores: 1, weights: 1, values: 1, order: 1, ..sizes };
        }
        let (query, packed): (&[u32], &[u32]) = (bytemuck::cast_slice(query), bytemuck::cast_slice(packed));
        let output: &mut [f32] = output;
        let Scratch { mut scores, mut weights } = sizes.split(scratch);

        let [score_products, output_products] = sizes.products(shape.pieces);
        let panels = sizes.value_width / ROWS;
        let longest_query = f32::from_bits(query[sizes.longest_query()]);
        let mut products = Products::new(unit.tiles());
        // Whether the last panel of the outputs is still in tiles.
        let mut is_carried = false;
        let mut coming = parts(first_key..first_key + live_keys);
        // What the last stage left: scores of a part, weights of the part before it.
        let mut scored: Option<Range<usize>> = None;
        let mut weighed: Option<(Range<usize>, Change)> = None;
        loop {
            let next = coming.next();
            if next.is_none() && scored.is_none() && weighed.is_none() {
                break;
            }
            let rescales = matches!(weighed, Some((_, Change::Rescale)));
            if is_carried && (rescales || next.is_none()) {
                products.store(&mut blocks(output)[panels - 1]);
                is_carried = false;
            }
            // Before the next part's references move.
            if rescales {
                rescale(lanes, output, fold.factors());
            }
            // No closure: one that is not inlined would be compiled without the instructions of the lanes.
            let opened = if let Some(part) = scored {
                let (live, missing) = scores[1].split_at_mut(part.len() * ROWS);
                if sizes.scores > 1 {
                    mend(&sizes, query, packed, part.clone(), live);
                }
                let lengths = (part.start / GROUP..part.end.div_ceil(GROUP))
                    .map(|group| packed[group * sizes.unit() + sizes.longest_key()]);
                // Bits of floats that are not negative; those of NaN are above all of them.
                let most = longest_query * f32::from_bits(lengths.max().unwrap_or(0));
                let (change, weigher) = fold.open::<V, P>(lanes, part.start - first_key, live, most);
                let padded = part.len().next_multiple_of(GROUP);
                // Missing keys have no weight.
                let nothing = if weigher.weighs() { f32::NEG_INFINITY } else { 0.0 };
                missing[..(padded - part.len()) * ROWS].fill(nothing);
                Some((part, change, weigher))
            } else {
                None
            };
            let groups = |part: &Range<usize>| part.len().div_ceil(GROUP);
            let multiplied = next.as_ref().map_or(0, |part| groups(part) * score_products)
                + weighed.as_ref().map_or(0, |(part, _)| groups(part) * output_products);
            let [scores_now, scores_before] = &mut scores;
            let [weights_now, weights_before] = &mut weights;
            let (pairs, weigher) = match &opened {
                Some((part, _, weigher)) => (groups(part) * GROUP / 2, *weigher),
                None => (0, Weigher::identity(lanes)),
            };
            let mut work = Weighing {
                lanes,
                weigher,
                scores: scores_before.as_chunks().0,
                weights: &mut weights_now[..],
                sizes,
                pair: 0,
                pairs,
                portions: (multiplied / 2).max(1),
                due: 0,
            };
            let (scores_now, output_panels) = (blocks(scores_now), blocks(output));
            let (first_group, score_blocks) =
                next.as_ref().map_or((0, 0), |part| (part.start / GROUP, groups(part)));
            for block in 0..score_blocks {
                let last = match block.checked_sub(1) {
                    Some(last) => Some(&mut scores_now[last]),
                    None if is_carried => Some(&mut output_panels[panels - 1]),
                    None => None,
                };
                let (a, b) = (sizes.keys_of(packed, first_group + block), sizes.queries_of(query));
                products.multiply(Factors { a, b, order: sizes.scores, to: None }, last, &mut work);
            }
            let scores_now = &mut scores_now[..score_blocks];
            is_carried = weighed.is_some() && panels > 0;
            if let Some((part, change)) = &weighed {
                for panel in 0..panels {
                    let (before, rest) = output_panels.split_at_mut(panel);
                    let last = before.last_mut().or(scores_now.last_mut());
                    let a = sizes.values_of(packed, part.start / GROUP, panel, groups(part));
                    let b = sizes.weights_of(weights_before, groups(part));
                    let to = (*change != Change::Replace).then_some(&rest[0]);
                    products.multiply(Factors { a, b, order: sizes.order, to }, last, &mut work);
                }
            }
            if let (Some(last), false) = (scores_now.last_mut(), is_carried) {
                products.store(last);
            }
            weighed = opened.map(|(part, change, _)| (part, change));
            if weighed.is_some() {
                work.finish();
                fold.close(lanes, work.weigher);
            }
            scored = next;
            scores.swap(0, 1);
            weights.swap(0, 1);
        }
        if is_carried {
            products.store(&mut blocks(output)[panels - 1]);
        }
    }
}

/// Scores or outputs as blocks of sums.
#[inline(always)]
fn blocks(sums: &mut [f32]) -> &mut [Sums] {
    bytemuck::cast_slice_mut::<f32, u32>(sums).as_chunks_mut().0
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
    /// Those of two keys, pair by pair.
    scores: &'a [[f32; 2 * ROWS]],
    weights: &'a mut [u32],
    sizes: Sizes,
    /// The next pair of keys.
    pair: usize,
    /// Pairs in all.
    pairs: usize,
    /// Portions in which the pairs are shared out evenly.
    portions: usize,
    /// How much of a pair is due, in parts of which a pair has `portions`.
    due: usize,
}

impl<L: Lanes, const V: usize, P: Precise> Work for Weighing<'_, L, V, P> {
    #[inline(always)]
    fn advance(&mut self) {
        self.due += self.pairs;
        while self.due >= self.portions && self.pair < self.pairs {
            self.due -= self.portions;
            self.weigh();
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
        let keys = vectors(lanes, &self.scores[pair]).as_chunks::<V>().0;
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
