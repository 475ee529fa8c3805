//! Bytes that move between registers and a level of memory.
//!
//! A buffer that a level holds is gone through again and again, forwards. Reading combines eight vectors at a time into
//! eight registers with an exclusive or, which every processor does at least as often as it loads: on Zen 3 that is two
//! vectors a cycle from L1, all there is.
//!
//! Reading and writing is `x = a · x + b` in place, as a recurrent state is updated. With `a` = −1 it gives the first
//! numbers back on every other pass, so that they stay what they were: N(0, 1), never zeros or a handful of values. Within
//! L1 it is not all that there is: of the vector a cycle that Zen 3 stores, it reaches two thirds (docs/measuring.md).

use std::hint::black_box;

use regard_engine::any::{self, Unavailable, Visit};
use regard_engine::{Engine, Op};
use regard_ir::machine::Isa;
use regard_ir::plan::EngineKind;
use regard_simd::{F32, Lanes, Simd, vectors, vectors_mut};

/// Vectors that a step of the reading loop takes.
const UNROLLED: usize = 8;

/// Bytes of a step with the widest vectors there are: what is gone through is whole multiples.
pub const STEP_BYTES: usize = UNROLLED * 64;

/// What is done with each vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loop {
    /// It is read.
    Read,
    /// It is read and written.
    ReadWrite,
}

/// Goes through numbers so many times.
///
/// # Errors
/// If the processor lacks the set.
pub fn turn(isa: Isa, floats: &mut [f32], passes: usize, what: Loop) -> Result<(), Unavailable> {
    any::with(EngineKind::SimdF32, isa, Turn { floats, passes, what })
}

struct Turn<'a> {
    floats: &'a mut [f32],
    passes: usize,
    what: Loop,
}

impl Visit for Turn<'_> {
    type Output = ();

    fn visit<E: Engine>(self, engine: E) {
        let Self { floats, passes, what } = self;
        let lanes = engine.lanes();
        match what {
            Loop::Read => {
                black_box(engine.enter(Read { lanes, floats, passes }));
            }
            Loop::ReadWrite => {
                let [factor, term] = black_box([-1.0, 1.0]);
                engine.enter(ReadWrite { lanes, floats, passes, factor, term });
            }
        }
    }
}

/// Every vector, combined.
struct Read<'a, L> {
    lanes: L,
    floats: &'a [f32],
    passes: usize,
}

impl<L: Lanes> Op for Read<'_, L> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let Self { lanes, floats, passes } = self;
        let simd = lanes.simd();
        let mut sums = [simd.splat_f32s(0.0); UNROLLED];
        for _ in 0..passes {
            for step in vectors(lanes, floats).chunks_exact(UNROLLED) {
                for (sum, &x) in sums.iter_mut().zip(step) {
                    *sum = simd.xor_f32s(*sum, x);
                }
            }
        }
        let all = sums.into_iter().reduce(|a, b| simd.xor_f32s(a, b));
        all.map_or(0.0, |all| F32::from_raw(lanes, all).sum())
    }
}

/// Every vector through `factor · x + term`, in place.
struct ReadWrite<'a, L> {
    lanes: L,
    floats: &'a mut [f32],
    passes: usize,
    factor: f32,
    term: f32,
}

impl<L: Lanes> Op for ReadWrite<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, floats, passes, factor, term } = self;
        let (factor, term) = (F32::splat(lanes, factor), F32::splat(lanes, term));
        for _ in 0..passes {
            for x in vectors_mut(lanes, floats) {
                *x = F32::from_raw(lanes, *x).mul_add(factor, term).raw();
            }
        }
    }
}
