//! What the processor can do at most, measured in the same run as what it did.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

use regard::{EngineKind, Isa, Pool, Threads};
use regard_engine::any::{self, Visit};
use regard_engine::{Engine, Op};
use regard_simd::{F32, Lanes};

/// Sums that run side by side: more than the latency of a multiply-add times the units that do them, and few enough to
/// leave registers for the factors.
const CHAINS: usize = 12;

/// Multiply-adds of each chain in a turn: about 50 µs.
const STEPS: usize = 20_000;

/// Turns, of which the fastest counts: what is sought is what the processor can do, not what it did beside others.
const TURNS: usize = 60;

/// 10⁹ f32 multiplications and additions a second on `isa`, over all threads of the pool.
pub(super) fn fma_gflops(pool: &Pool, isa: Isa) -> f64 {
    let best = Mutex::new(vec![f64::INFINITY; pool.count()]);
    pool.run(&|worker| {
        // A plan was made for the set, so the engine is there; without it there is no rate.
        let seconds = any::with(EngineKind::SimdF32, isa, Turns).unwrap_or(f64::INFINITY);
        if let Ok(mut best) = best.lock() {
            best[worker] = seconds;
        }
    });
    let flops = (2 * CHAINS * STEPS * isa.f32_lanes() as usize) as f64;
    let rates = best.into_inner().unwrap_or_default();
    rates.into_iter().map(|seconds| flops / seconds / 1e9).sum()
}

/// The fastest of the turns, in seconds.
struct Turns;

impl Visit for Turns {
    type Output = f64;

    fn visit<E: Engine>(self, engine: E) -> f64 {
        (0..TURNS).fold(f64::INFINITY, |best, turn| {
            let start = Instant::now();
            black_box(engine.enter(Chains { lanes: engine.lanes(), seed: black_box(turn as f32) }));
            best.min(start.elapsed().as_secs_f64())
        })
    }
}

/// Chains of multiply-adds on numbers that stay near 1.
struct Chains<L> {
    lanes: L,
    seed: f32,
}

impl<L: Lanes> Op for Chains<L> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let Self { lanes, seed } = self;
        let (factor, term) = (F32::splat(lanes, 0.999_9 + seed * 1e-9), F32::splat(lanes, 1e-4));
        let mut sums = [F32::splat(lanes, 1.0); CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = sum.mul_add(factor, term);
            }
        }
        let mut all = sums[0];
        for sum in &sums[1..] {
            all = all + *sum;
        }
        all.sum()
    }
}
