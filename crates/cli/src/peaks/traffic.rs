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
use std::sync::Mutex;

use regard::{EngineKind, Isa, Pool, Threads};
use regard_engine::any::{self, Visit};
use regard_engine::{Engine, Op};
use regard_oracle::random;
use regard_simd::{F32, Lanes, Simd, vectors, vectors_mut};

use super::{Spread, turns, with_vectors};
use crate::memory::{self, OutOfMemory};

/// Vectors that a step of the reading loop takes.
const UNROLLED: usize = 8;

/// Bytes of a step with the widest vectors there are: buffers are whole multiples.
const STEP_BYTES: u64 = (UNROLLED * 64) as u64;

/// Where buffers start: at least a line of a cache, so that no load touches two, and more than what L1 is read from. AMD's
/// L1 finds a line by a hash of its address, which is the same for two neighbouring pages at a multiple of 64 MiB: they
/// drive each other out, and a buffer that lay across one was read at the rate of L2.
const ALIGN_BYTES: usize = 64 << 10;

/// The least that a thread reads in a turn: 40 µs from L1, many of which fall between what else the system does.
pub(super) const TURN_BYTES: u64 = 8 << 20;

/// Numbers that are drawn; they are repeated to fill a buffer, which is no matter to a cache.
pub(super) const DRAWN: usize = 1 << 14;

/// What is done with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loop {
    /// Each vector is read.
    Read,
    /// Each vector is read and written.
    ReadWrite,
}

/// As many of `bytes` as buffers can have, and at least a step.
pub(super) fn whole_bytes(bytes: u64) -> u64 {
    (bytes / STEP_BYTES).max(1) * STEP_BYTES
}

/// What a pool reads and writes in place at most, in 10⁹ bytes a second, of `bytes` that its threads share out; both ways count.
///
/// # Errors
/// If there is no memory for as many.
pub(crate) fn read_write_gbs(pool: &Pool, isa: Isa, bytes: usize) -> Result<f64, OutOfMemory> {
    let share = whole_bytes((bytes / pool.count()) as u64);
    let buffers = Buffers::filled(pool, share)?;
    Ok(buffers.rate(pool, with_vectors(isa), share, Loop::ReadWrite).max)
}

/// A buffer for each thread of a pool.
pub(super) struct Buffers(Vec<Mutex<Vec<f32>>>);

impl Buffers {
    /// Buffers of `bytes` with N(0, 1) in them, each written first by the thread that will read it, so that the system
    /// puts it near.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn filled(pool: &Pool, bytes: u64) -> Result<Self, OutOfMemory> {
        let len = bytes as u128 / 4 + (ALIGN_BYTES / 4) as u128;
        let buffers = (0..pool.count()).map(|_| memory::reserved("what peaks are measured on", len));
        let buffers = buffers.map(|buffer| buffer.map(Mutex::new)).collect::<Result<Vec<_>, _>>()?;
        let drawn: Vec<f32> = random::normal(0).take(DRAWN).collect();
        pool.run(&|worker| {
            let Ok(mut buffer) = buffers[worker].lock() else { return };
            while buffer.len() < len as usize {
                let rest = (len as usize - buffer.len()).min(DRAWN);
                buffer.extend_from_slice(&drawn[..rest]);
            }
        });
        Ok(Self(buffers))
    }

    /// 10⁹ bytes that move a second where every thread goes through the first `bytes` of its buffer.
    pub(super) fn rate(&self, pool: &Pool, isa: Isa, bytes: u64, what: Loop) -> Spread {
        let passes = TURN_BYTES.div_ceil(bytes) as usize;
        let ways = if what == Loop::Read { 1.0 } else { 2.0 };
        let moved = ways * (passes as u64 * bytes) as f64;
        turns::rates(pool, moved, |worker| {
            let Ok(mut buffer) = self.0[worker].lock() else { return };
            let start = buffer.as_ptr().align_offset(ALIGN_BYTES);
            let floats = &mut buffer[start..][..bytes as usize / 4];
            // The caller took a set that is there.
            let _ = any::with(EngineKind::SimdF32, isa, Turn { floats, passes, what });
        })
    }
}

/// One thread's turn.
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
