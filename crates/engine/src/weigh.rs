//! From scores to weights, vector by vector: what engines call between their products.

use core::marker::PhantomData;

use regard_simd::{
    F32, Lanes, NEAR, Simd, exp2_coarse, exp2_fine, round_bf16, softmax_weight, softmax_weight_near,
};

/// How precise weights are.
pub trait Precise: Copy + 'static {
    /// The weight of a score that is in log2 units when it is multiplied by `log2`, against an integral reference.
    /// `#[inline(always)]`.
    fn weight<L: Lanes>(score: F32<L>, log2: F32<L>, reference: F32<L>) -> F32<L>;

    /// What a weight counts in the sum that outputs are divided by. `#[inline(always)]`.
    #[inline(always)]
    fn counted<L: Lanes>(weight: F32<L>) -> F32<L> {
        weight
    }
}

/// As precise as f32, with bits that do not depend on the reference but for its power of two.
#[derive(Clone, Copy, Debug)]
pub struct Full;

/// As precise as two pieces of bfloat16, into which they are split next.
#[derive(Clone, Copy, Debug)]
pub struct Fine;

/// As precise as 16-bit storage asks for: rounded next to bfloat16, or to two pieces of it.
#[derive(Clone, Copy, Debug)]
pub struct Coarse;

impl Precise for Full {
    #[inline(always)]
    fn weight<L: Lanes>(score: F32<L>, log2: F32<L>, reference: F32<L>) -> F32<L> {
        softmax_weight(score * log2, reference)
    }
}

impl Precise for Fine {
    #[inline(always)]
    fn weight<L: Lanes>(score: F32<L>, log2: F32<L>, reference: F32<L>) -> F32<L> {
        exp2_fine(score.mul_add(log2, -reference))
    }

    /// The two pieces, which is what values are multiplied by: of rows of few keys, whose roundings do not average out, an output
    /// then loses nothing by the weights'.
    #[inline(always)]
    fn counted<L: Lanes>(weight: F32<L>) -> F32<L> {
        let first = round_bf16(weight);
        first + round_bf16(weight - first)
    }
}

impl Precise for Coarse {
    #[inline(always)]
    fn weight<L: Lanes>(score: F32<L>, log2: F32<L>, reference: F32<L>) -> F32<L> {
        exp2_coarse(score.mul_add(log2, -reference))
    }
}

/// Makes weights of scores and adds them up, for rows of `V` vectors.
#[derive(Clone, Copy)]
pub struct Weigher<L: Lanes, const V: usize, P> {
    /// What makes log2 units of scores; `None` where scores are weights already.
    log2: Option<F32<L>>,
    /// Whether that is 1.
    in_log2: bool,
    /// What each row's weights are relative to, in log2 units, integral.
    references: [F32<L>; V],
    /// What each row's weights add up to so far.
    pub sums: [F32<L>; V],
    precision: PhantomData<P>,
}

/// A row of `V` vectors.
type Vectors<L, const V: usize> = [<<L as Lanes>::Simd as Simd>::f32s; V];

impl<L: Lanes, const V: usize, P: Precise> Weigher<L, V, P> {
    /// Of scores that are in log2 units when they are multiplied by `log2`, against integral references.
    #[inline(always)]
    pub fn softmax(lanes: L, log2: f32, references: [F32<L>; V]) -> Self {
        let sums = [F32::splat(lanes, 0.0); V];
        let in_log2 = log2 == 1.0;
        Self { log2: Some(F32::splat(lanes, log2)), in_log2, references, sums, precision: PhantomData }
    }

    /// Of scores that are weights already, and are not added up.
    #[inline(always)]
    pub fn identity(lanes: L) -> Self {
        let zeros = [F32::splat(lanes, 0.0); V];
        Self { log2: None, in_log2: false, references: zeros, sums: zeros, precision: PhantomData }
    }

    /// Whether weights differ from scores.
    #[inline(always)]
    pub fn weighs(&self) -> bool {
        self.log2.is_some()
    }

    /// The weights of one key's scores.
    #[inline(always)]
    pub fn weigh(&mut self, lanes: L, scores: Vectors<L, V>) -> Vectors<L, V> {
        let Some(log2) = self.log2 else { return scores };
        let mut weights = scores;
        for v in 0..V {
            let weight = P::weight(F32::from_raw(lanes, scores[v]), log2, self.references[v]);
            self.sums[v] = self.sums[v] + P::counted(weight);
            weights[v] = weight.raw();
        }
        weights
    }
}

impl<L: Lanes, const V: usize> Weigher<L, V, Full> {
    /// Puts the weights of some keys in place of their scores.
    #[inline(always)]
    pub fn weigh_all(&mut self, lanes: L, keys: &mut [Vectors<L, V>]) {
        let Some(log2) = self.log2 else { return };
        match (self.are_near(), self.in_log2) {
            (true, true) => self.weigh_near::<true>(lanes, log2, keys),
            (true, false) => self.weigh_near::<false>(lanes, log2, keys),
            (false, _) => {
                for key in keys {
                    *key = self.weigh(lanes, *key);
                }
            }
        }
    }

    /// Whether no reference is too far from 0 for [`softmax_weight_near`].
    #[inline(always)]
    fn are_near(&self) -> bool {
        let mut is_far = false;
        for reference in self.references {
            is_far |= reference.like(NEAR).lt(reference.abs()).any();
        }
        !is_far
    }

    #[inline(always)]
    fn weigh_near<const IN_LOG2: bool>(&mut self, lanes: L, log2: F32<L>, keys: &mut [Vectors<L, V>]) {
        let Self { references, mut sums, .. } = *self;
        let mut least = references;
        for least in &mut least {
            *least = *least - least.like(127.0);
        }
        for key in keys {
            for v in 0..V {
                let score = F32::from_raw(lanes, key[v]);
                let score = if IN_LOG2 { score } else { score * log2 };
                let weight = softmax_weight_near(score, references[v], least[v]);
                sums[v] = sums[v] + weight;
                key[v] = weight.raw();
            }
        }
        self.sums = sums;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::scalar::Scalar;

    #[test]
    fn all_keys_have_the_weights_of_each() {
        let far = 4.0 * NEAR;
        for log2 in [1.0, 1.5] {
            for reference in [-far, -3.0, 0.0, 1000.0, NEAR, far, 1e30] {
                let references = [reference, 0.0].map(|x| F32::splat(Scalar, x));
                let weigher = Weigher::<Scalar, 2, Full>::softmax(Scalar, log2, references);
                let [mut each, mut all] = [weigher; 2];
                let scores = |past: f32| [reference - past, -past].map(|s| s / log2);
                let keys = [0.0, 0.7, 100.3, 126.9, 127.1, 500.0, f32::INFINITY].map(scores);
                let expected = keys.map(|key| each.weigh(Scalar, key));
                let mut found = keys;
                all.weigh_all(Scalar, &mut found);
                assert_eq!(found, expected, "against {reference}");
                let sums = [each, all].map(|weigher| weigher.sums.map(|sum| sum.raw()));
                assert_eq!(sums[0], sums[1], "against {reference}");
            }
        }
    }
}
