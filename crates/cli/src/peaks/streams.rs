//! How fast bytes are read that lie as those of a cache of keys and values do.
//!
//! Generation reads its cache from end to end for each token, out of huge pages, and knows what comes next. What a machine
//! gives to such a reader depends on how many places are read in turn and on how far ahead lines are asked for, and on each
//! machine differently: a loop that asks for nothing reaches three quarters of it on one, all of it on another. So every
//! way is tried, over as many bytes as the cache has, and the fastest turn of all is the peak.

use std::sync::Mutex;

use regard::{Isa, Pool, Threads as _};
use regard_map::Words;
use regard_measure::streams::{self, Way};
use regard_oracle::random;

use super::traffic::{DRAWN, TURN_BYTES};
use super::{turns, with_vectors};
use crate::memory::{self, OutOfMemory};
use crate::progress::Progress;

/// Places that a thread reads in turn, each through its own part of the thread's bytes.
const STREAMS: [usize; 3] = [1, 2, streams::MOST];

/// How far ahead of each place lines are asked for.
const AHEAD_BYTES: [usize; 5] = [0, 1 << 10, 2 << 10, 4 << 10, 8 << 10];

/// What all threads of a pool read at most, in 10⁹ bytes a second, of `bytes` in huge pages that they share out.
///
/// # Errors
/// If there is no memory for as many bytes.
pub(crate) fn read_gbs(pool: &Pool, isa: Isa, bytes: usize) -> Result<f64, OutOfMemory> {
    Ok(Reader::new(pool, isa, bytes)?.most())
}

/// Bytes in huge pages that the threads of a pool share out, to be read again and again.
pub(crate) struct Reader<'a> {
    pool: &'a Pool,
    isa: Isa,
    words: Words,
    /// Words of a thread.
    share: usize,
}

impl<'a> Reader<'a> {
    /// Of so many bytes.
    ///
    /// # Errors
    /// If there is no memory for as many.
    pub(crate) fn new(pool: &'a Pool, isa: Isa, bytes: usize) -> Result<Self, OutOfMemory> {
        let share =
            (bytes / size_of::<u32>() / pool.count()).next_multiple_of(streams::ROUND).max(streams::ROUND);
        Ok(Self { pool, isa: with_vectors(isa), words: filled(pool, share)?, share })
    }

    /// The most that is read, in 10⁹ bytes a second: in each way until turns agree.
    fn most(&self) -> f64 {
        let progress = Progress::new("ways of reading tried", ways().count() as u64);
        let rates = ways().map(|way| {
            let rate = self.fastest(way);
            progress.advance();
            rate
        });
        rates.fold(0.0, f64::max)
    }

    /// The most that is read at this time: in each way once, and in the fastest of them until turns agree.
    pub(crate) fn now(&self) -> f64 {
        let once =
            ways().map(|way| (self.rate(way, |amount, work| turns::once(self.pool, amount, work)), way));
        let fastest = once.max_by(|(a, _), (b, _)| a.total_cmp(b));
        fastest.map_or(0.0, |(rate, way)| rate.max(self.fastest(way)))
    }

    /// The fastest of turns of one way, as many as it takes until some agree.
    fn fastest(&self, way: Way) -> f64 {
        self.rate(way, |amount, work| turns::rates(self.pool, amount, work).max)
    }

    /// A rate of turns of one way, each of so many bytes of each thread.
    fn rate(&self, way: Way, of: impl FnOnce(f64, &(dyn Fn(usize) + Sync)) -> f64) -> f64 {
        let each = self.share * size_of::<u32>();
        let passes = TURN_BYTES.div_ceil(each as u64) as usize;
        of((passes * each) as f64, &|worker| {
            let words = &self.words.as_slice()[worker * self.share..][..self.share];
            // The caller took a set that is there.
            let _ = streams::turn(self.isa, words, passes, way);
        })
    }
}

/// Every way.
fn ways() -> impl Iterator<Item = Way> {
    let of = |streams| AHEAD_BYTES.into_iter().map(move |ahead_bytes| Way { streams, ahead_bytes });
    STREAMS.into_iter().flat_map(of)
}

/// N(0, 1) for each thread, as many words, each written first by the thread that will read them.
fn filled(pool: &Pool, share: usize) -> Result<Words, OutOfMemory> {
    let what = "what the read bandwidth is measured on";
    let len = share as u128 * pool.count() as u128;
    memory::ask(what, len * size_of::<u32>() as u128)?;
    let fail = |_| OutOfMemory { what, bytes: len * size_of::<u32>() as u128 };
    // What was there to be had fits `usize`.
    let mut words = Words::new(len as usize).map_err(fail)?;
    let drawn: Vec<u32> = random::normal(0).take(DRAWN).map(f32::to_bits).collect();
    let shares: Vec<_> = words.as_mut_slice().chunks_exact_mut(share).map(Mutex::new).collect();
    pool.run(&|worker| {
        let Ok(mut share) = shares[worker].lock() else { return };
        share.chunks_mut(DRAWN).for_each(|part| part.copy_from_slice(&drawn[..part.len()]));
    });
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_bytes_has_a_rate() {
        let pool = Pool::new(2).unwrap();
        for (isa, bytes) in [(Isa::Scalar, 1), (regard::machine::host().isa, 1 << 20)] {
            let rate = read_gbs(&pool, isa, bytes).unwrap();
            let now = Reader::new(&pool, isa, bytes).unwrap().now();
            assert!([rate, now].iter().all(|rate| *rate > 0.0 && rate.is_finite()), "{rate} {now}");
        }
        assert!(read_gbs(&pool, Isa::Scalar, usize::MAX / 2).is_err());
    }
}
