//! What the machine multiplies at most, by each kind of unit that it has.

use regard::{Isa, Pool, Threads};
use regard_engine::peak;
use regard_measure::multiply_adds;

use super::{Spread, turns, with_vectors};

/// Turns of a chain of 16-bit dots: about 50 µs.
const DOT_STEPS: usize = 12_000;

/// Turns of tile products: about 500 µs, of which making their operands is a hundredth.
const TILE_STEPS: usize = 25_000;

/// 10⁹ multiplications and additions a second over the threads of a pool, each kind in its fastest turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rates {
    /// f32 multiply-adds of the widest vectors.
    pub(crate) fma: f64,
    /// f32 multiply-adds of AVX2, where the processor has it.
    pub(crate) fma_avx2: Option<f64>,
    /// Dots of bf16 pairs in vectors, where it has them.
    pub(crate) dot_bf16: Option<f64>,
    /// Products of bf16 tiles, where it has them.
    pub(crate) tiles_bf16: Option<f64>,
}

impl Rates {
    /// Measures, in about a tenth of a second for each kind.
    pub(crate) fn measure(pool: &Pool, isa: Isa) -> Self {
        let avx2 = isa.includes(Isa::Avx2).then_some(Isa::Avx2);
        Self {
            fma: fma(pool, with_vectors(isa)).max,
            fma_avx2: avx2.map(|isa| fma(pool, isa).max),
            dot_bf16: dots(pool),
            tiles_bf16: tiles(pool),
        }
    }

    /// Those that there are, by name.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let rates = [
            ("fma", Some(self.fma)),
            ("fma_avx2", self.fma_avx2),
            ("dot_bf16", self.dot_bf16),
            ("tiles_bf16", self.tiles_bf16),
        ];
        rates.into_iter().filter_map(|(name, rate)| Some((name, rate?)))
    }
}

/// Of f32 multiply-adds on a set that is there, over all threads.
pub(super) fn fma(threads: &dyn Threads, isa: Isa) -> Spread {
    turns::rates(threads, multiply_adds::flops(isa) as f64, |_| {
        // The caller took a set that is there.
        let _ = multiply_adds::turn(isa);
    })
}

/// Of dots of bf16 pairs, over all threads; `None` where the processor has none.
pub(super) fn dots(pool: &Pool) -> Option<f64> {
    rate(pool, peak::dots, DOT_STEPS)
}

/// Of products of bf16 tiles, as [`dots`].
pub(super) fn tiles(pool: &Pool) -> Option<f64> {
    rate(pool, peak::tiles, TILE_STEPS)
}

/// The rate of something that tells how many operations it did, or that it is not there.
fn rate(pool: &Pool, work: fn(usize) -> Option<usize>, steps: usize) -> Option<f64> {
    let operations = work(1)? * steps;
    let spread = turns::rates(pool as &dyn Threads, operations as f64, |_| {
        work(steps);
    });
    Some(spread.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_has_a_rate() {
        let rates = Rates::measure(&Pool::new(1).unwrap(), regard::machine::host().isa);
        let named: Vec<_> = rates.named().collect();
        assert_eq!(named[0].0, "fma");
        assert!(named.iter().all(|(_, rate)| *rate > 0.0), "{named:?}");
    }
}
