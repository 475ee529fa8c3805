//! Multiply-adds without memory.

use std::hint::black_box;

use regard_engine::any::{self, Unavailable, Visit};
use regard_engine::{Engine, Op};
use regard_ir::machine::Isa;
use regard_ir::plan::EngineKind;
use regard_simd::{F32, Lanes};

/// Sums that run side by side: more than the latency of a multiply-add times the units that do them, and few enough to
/// leave registers for the factors.
const CHAINS: usize = 12;

/// Multiply-adds of each chain in a turn: about 50 µs.
const STEPS: usize = 25_000;

/// Multiplications and additions of a turn on `isa`.
pub fn flops(isa: Isa) -> usize {
    2 * CHAINS * STEPS * isa.f32_lanes() as usize
}

/// Does a turn.
///
/// # Errors
/// If the processor lacks the set.
pub fn turn(isa: Isa) -> Result<(), Unavailable> {
    any::with(EngineKind::SimdF32, isa, Turn)
}

struct Turn;

impl Visit for Turn {
    type Output = ();

    fn visit<E: Engine>(self, engine: E) {
        black_box(engine.enter(Chains { lanes: engine.lanes(), factor: black_box(0.999_9) }));
    }
}

/// Chains of multiply-adds on numbers that stay near 1.
struct Chains<L> {
    lanes: L,
    factor: f32,
}

impl<L: Lanes> Op for Chains<L> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let Self { lanes, factor } = self;
        let (factor, term) = (F32::splat(lanes, factor), F32::splat(lanes, 1e-4));
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
