//! What this machine does at most: multiply-adds, and bytes from each level of memory, measured when they are asked for.
//!
//! A rate that is looked up belongs to another machine, another clock or other neighbours; so figures of a kernel stand
//! beside peaks of the same minute. All threads of a pool work at once, each on a buffer of its own. How each figure is
//! measured and what it was on known machines: docs/measuring.md.

mod limit;
mod rates;
mod streams;
mod traffic;
mod turns;

use regard::{EngineKind, Isa, Machine, Pool, Threads};
use regard_engine::any;
use regard_engine::threads::Solo;
use regard_measure::traffic::Loop;

use crate::host;
use crate::memory::OutOfMemory;
use crate::progress::Progress;
pub(crate) use limit::Limit;
pub(crate) use rates::Rates;
pub(crate) use streams::{Reader, read_gbs};
use traffic::Buffers;
pub(crate) use traffic::read_write_gbs;

/// What a pool on a machine does at most, on one instruction set.
#[derive(Clone, Debug)]
pub(crate) struct Peaks {
    /// 10⁹ f32 multiplications and additions a second, over all threads.
    pub(crate) fma_gflops: f64,
    /// The same of one thread while the others wait.
    pub(crate) fma_one_gflops: f64,
    /// The same of bf16 pairs on vectors, over all threads, where the processor has an instruction for it.
    pub(crate) dot_gflops: Option<f64>,
    /// The same of bf16 matrix tiles.
    pub(crate) tile_gflops: Option<f64>,
    /// Caches from inner to outer, then memory.
    pub(crate) levels: Vec<Level>,
}

/// What one level of memory gives to all threads at once.
#[derive(Clone, Debug)]
pub(crate) struct Level {
    /// "L1d", "L2", "L3" or "memory".
    pub(crate) name: &'static str,
    /// Bytes of one thread's buffer.
    pub(crate) bytes: u64,
    /// Bytes that the level holds for all threads together; the most that there is for memory.
    pub(crate) capacity_bytes: u64,
    /// 10⁹ bytes read a second.
    pub(crate) read: Spread,
    /// 10⁹ bytes read and written a second where each vector is read and written back.
    pub(crate) read_write: Spread,
}

/// A rate over turns that each do the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// Of the slowest turn.
    pub(crate) min: f64,
    /// In the middle.
    pub(crate) median: f64,
    /// Of the fastest turn: what the machine can do.
    pub(crate) max: f64,
}

impl Peaks {
    /// Measures, in about half a second, with the vectors of `isa` or of the widest set below it.
    ///
    /// # Errors
    /// If there is no memory for the buffers.
    pub(crate) fn measure(pool: &Pool, machine: &Machine, isa: Isa) -> Result<Peaks, OutOfMemory> {
        let isa = with_vectors(isa);
        let sizes = sizes(machine, pool.count(), host::free_memory_bytes());
        let progress = Progress::new("peaks measured", 2 + 2 * sizes.len() as u64);
        let done = |spread| {
            progress.advance();
            spread
        };
        let fma_one_gflops = done(rates::fma(&Solo, isa)).max;
        let fma_gflops = done(rates::fma(pool, isa)).max;
        let largest = sizes.iter().map(|size| size.bytes).max().unwrap_or(0);
        let buffers = Buffers::filled(pool, largest)?;
        let levels = sizes.into_iter().map(|Size { name, bytes, capacity_bytes }| Level {
            name,
            bytes,
            capacity_bytes,
            read: done(buffers.rate(pool, isa, bytes, Loop::Read)),
            read_write: done(buffers.rate(pool, isa, bytes, Loop::ReadWrite)),
        });
        let levels = levels.collect();
        let (dot_gflops, tile_gflops) = (rates::dots(pool), rates::tiles(pool));
        Ok(Peaks { fma_gflops, fma_one_gflops, dot_gflops, tile_gflops, levels })
    }

    /// The unit that an engine multiplies with, and what all threads do with it; of an emulated one what the vectors do.
    pub(crate) fn products(&self, engine: EngineKind) -> (&'static str, f64) {
        match (engine, self.dot_gflops, self.tile_gflops) {
            (EngineKind::DotBf16, Some(dot), _) => ("dot", dot),
            (EngineKind::AmxBf16, _, Some(tile)) => ("tile", tile),
            _ => ("fma", self.fma_gflops),
        }
    }

    /// The innermost level that holds a working set, spread over the threads; memory where no cache does.
    pub(crate) fn level(&self, working_set_bytes: f64) -> &Level {
        let [inner @ .., memory] = &self.levels[..] else { unreachable!("memory is always measured") };
        inner.iter().find(|level| working_set_bytes <= level.capacity_bytes as f64).unwrap_or(memory)
    }
}

/// The widest set that `isa` includes and for which there are vectors; tiles have none of their own.
fn with_vectors(isa: Isa) -> Isa {
    let there = |set: &Isa| isa.includes(*set) && any::available(EngineKind::SimdF32, *set);
    Isa::ALL.into_iter().rev().find(there).unwrap_or(Isa::Scalar)
}

/// A level before it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    name: &'static str,
    bytes: u64,
    capacity_bytes: u64,
}

/// Memory is at least this much larger than the last cache, so that next to nothing of it is still there when its turn
/// comes again.
const BEYOND_CACHES: u64 = 4;

/// The least of memory that is read, over all threads: the last cache may be one that the system does not tell of.
const MEMORY_BYTES: u64 = 128 << 20;

/// The share of free memory that is taken at most.
const OF_FREE: u64 = 4;

/// What each thread's buffer holds at each level: half of the cache, or of its share of it.
///
/// L3 is read from buffers of four times L2, so that L2 keeps next to nothing of them; where half of L3 has no room for
/// such buffers of twice L2 for each thread, it adds nothing to the L2s, and is left out.
fn sizes(machine: &Machine, threads: usize, free_bytes: Option<u64>) -> Vec<Size> {
    let threads = threads.max(1) as u64;
    let cores = threads.min(machine.cores.max(1).into());
    let [l1d, l2, l3] = [machine.l1d_bytes, machine.l2_bytes, machine.l3_bytes].map(u64::from);
    let mut sizes = Vec::new();
    for (name, cache) in [("L1d", l1d), ("L2", l2)] {
        if cache > 0 {
            sizes.push(Size { name, bytes: cache / 2, capacity_bytes: cache * cores });
        }
    }
    let inner = l1d.max(l2);
    let share = l3 / 2 / threads;
    if share >= 2 * inner {
        sizes.push(Size { name: "L3", bytes: share.min(4 * inner), capacity_bytes: l3 });
    }
    let wanted = (BEYOND_CACHES * l3.max(inner * cores)).max(MEMORY_BYTES);
    let memory = free_bytes.map_or(wanted, |free| wanted.min(free / OF_FREE));
    sizes.push(Size { name: "memory", bytes: memory / threads, capacity_bytes: u64::MAX });
    for size in &mut sizes {
        size.bytes = traffic::whole_bytes(size.bytes);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use regard_ir::rates::Rates;

    use super::*;

    const ZEN3: Machine = Machine {
        isa: Isa::Avx2,
        cores: 2,
        l1d_bytes: 32 << 10,
        l2_bytes: 512 << 10,
        l3_bytes: 32 << 20,
        rates: Rates::NONE,
    };

    fn buffers(machine: &Machine, threads: usize, free_bytes: Option<u64>) -> Vec<(&'static str, u64)> {
        sizes(machine, threads, free_bytes).iter().map(|size| (size.name, size.bytes)).collect()
    }

    #[test]
    fn a_buffer_fits_its_level_and_none_within() {
        assert_eq!(
            buffers(&ZEN3, 2, None),
            [("L1d", 16 << 10), ("L2", 256 << 10), ("L3", 2 << 20), ("memory", 64 << 20)]
        );
    }

    #[test]
    fn an_l3_that_adds_nothing_to_the_l2s_is_left_out() {
        let desktop = Machine { cores: 24, l2_bytes: 2 << 20, l3_bytes: 36 << 20, ..ZEN3 };
        let names: Vec<_> = buffers(&desktop, 24, None).iter().map(|&(name, _)| name).collect();
        assert_eq!(names, ["L1d", "L2", "memory"]);
    }

    #[test]
    fn memory_takes_a_quarter_of_what_is_free_at_most() {
        assert_eq!(buffers(&ZEN3, 2, Some(64 << 20))[3], ("memory", 8 << 20));
        let no_caches = Machine { l2_bytes: 0, l3_bytes: 0, ..ZEN3 };
        assert_eq!(buffers(&no_caches, 1, None), [("L1d", 16 << 10), ("memory", 128 << 20)]);
        assert_eq!(buffers(&no_caches, 1, Some(1))[1], ("memory", 512));
    }

    #[test]
    fn a_measurement_has_every_level_and_rates_in_order() {
        let small = Machine { l2_bytes: 64 << 10, l3_bytes: 1 << 20, ..ZEN3 };
        let peaks = Peaks::measure(&Pool::new(2).unwrap(), &small, Isa::Scalar).unwrap();
        assert!(peaks.fma_gflops > 0.0 && peaks.fma_one_gflops > 0.0, "{peaks:?}");
        let names: Vec<_> = peaks.levels.iter().map(|level| level.name).collect();
        assert_eq!(names, ["L1d", "L2", "L3", "memory"]);
        for Spread { min, median, max } in
            peaks.levels.iter().flat_map(|level| [level.read, level.read_write])
        {
            assert!(0.0 < min && min <= median && median <= max && max.is_finite(), "{peaks:?}");
        }
    }

    #[test]
    fn a_working_set_is_held_by_the_first_level_with_room() {
        let spread = Spread { min: 1.0, median: 1.0, max: 1.0 };
        let level = |Size { name, bytes, capacity_bytes }| Level {
            name,
            bytes,
            capacity_bytes,
            read: spread,
            read_write: spread,
        };
        let levels = sizes(&ZEN3, 2, None).into_iter().map(level).collect();
        let peaks =
            Peaks { fma_gflops: 1.0, fma_one_gflops: 1.0, dot_gflops: None, tile_gflops: None, levels };
        let held = |bytes: u64| peaks.level(bytes as f64).name;
        assert_eq!([held(0), held(64 << 10), held((64 << 10) + 1)], ["L1d", "L1d", "L2"]);
        assert_eq!([held(1 << 20), held(32 << 20), held(1 << 40)], ["L2", "L3", "memory"]);
    }
}
