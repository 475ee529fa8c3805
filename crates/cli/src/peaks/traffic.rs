//! Bytes that move between registers and a level of memory, which holds a buffer that threads go through again and again.

use std::sync::Mutex;

use regard::{Isa, Pool, Threads};
use regard_measure::traffic::{self, Loop};
use regard_oracle::random;

use super::{Spread, turns, with_vectors};
use crate::memory::{self, OutOfMemory};

/// Where buffers start: at least a line of a cache, so that no load touches two, and more than what L1 is read from. AMD's
/// L1 finds a line by a hash of its address, which is the same for two neighbouring pages at a multiple of 64 MiB: they
/// drive each other out, and a buffer that lay across one was read at the rate of L2.
const ALIGN_BYTES: usize = 64 << 10;

/// The least that a thread reads in a turn: 40 µs from L1, many of which fall between what else the system does.
pub(super) const TURN_BYTES: u64 = 8 << 20;

/// Numbers that are drawn; they are repeated to fill a buffer, which is no matter to a cache.
pub(super) const DRAWN: usize = 1 << 14;

/// As many of `bytes` as buffers can have, and at least a step.
pub(super) fn whole_bytes(bytes: u64) -> u64 {
    let step = traffic::STEP_BYTES as u64;
    (bytes / step).max(1) * step
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
            let _ = traffic::turn(isa, floats, passes, what);
        })
    }
}
