//! Which of a machine's peaks bounds a problem.
//!
//! Two things take their time at least, and may do so side by side: the operations, at the multiply-add rate, and the
//! bytes. The longer one bounds the problem.
//!
//! Bytes move at rates of the level that holds all of the problem's data, where repeated runs find them. Every byte that
//! is written goes with one that is read, at the rate of reading and writing: the in-place loop that measures it does
//! the same, and a cache fetches a line before it changes a part of it. What is read beyond that moves at the rate of
//! reading. So the peak of a problem's traffic lies between the two rates as its own mixture does, and `read` or
//! `readwrite` says which of them takes more of the time. (The plainer rule, the longer of what is read by the rate of
//! reading and all bytes by the rate of reading and writing, would not do: on a machine whose second rate is the lower,
//! one written byte would make `readwrite` of everything.)
//!
//! Peaks are those of the fastest turn: a share of more than 1 would be a mistake, of the model or of the measurement.

use regard::EngineKind;
use regard_ir::work::Work;

use super::Peaks;

/// What bounds a problem.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limit {
    /// "fma", "dot", "tile", "read" or "readwrite".
    pub(crate) name: &'static str,
    /// The most that the machine does of it: 10⁹ operations a second for the first three, else 10⁹ bytes a second.
    pub(crate) peak: f64,
    /// The time that it takes at least.
    pub(crate) seconds: f64,
}

impl Limit {
    /// Of a problem of so much work by an engine.
    pub(crate) fn new(work: &Work, peaks: &Peaks, engine: EngineKind) -> Self {
        let (products, traffic) = (Self::of_operations(work, peaks, engine), Self::of_traffic(work, peaks));
        if traffic.seconds > products.seconds { traffic } else { products }
    }

    /// Of the operations alone.
    pub(crate) fn of_operations(work: &Work, peaks: &Peaks, engine: EngineKind) -> Self {
        let (name, peak) = peaks.products(engine);
        Self { name, peak, seconds: work.flops / (peak * 1e9) }
    }

    /// Of the bytes alone.
    pub(crate) fn of_traffic(work: &Work, peaks: &Peaks) -> Self {
        let level = peaks.level(work.bytes());
        let paired = 2.0 * work.written_bytes / (level.read_write.max * 1e9);
        let alone = (work.read_bytes - work.written_bytes).max(0.0) / (level.read.max * 1e9);
        let seconds = paired + alone;
        Self {
            name: if paired > alone { "readwrite" } else { "read" },
            peak: if seconds > 0.0 { work.bytes() / seconds / 1e9 } else { 0.0 },
            seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peaks::{Level, Spread};

    /// 200 GFLOP/s; memory alone, 20 GB/s of reads, 16 GB/s of reads and writes.
    fn limit(flops: f64, read_bytes: f64, written_bytes: f64) -> Limit {
        let spread = |max| Spread { min: 1.0, median: 2.0, max };
        let memory = Level {
            name: "memory",
            bytes: 1,
            capacity_bytes: u64::MAX,
            read: spread(20.0),
            read_write: spread(16.0),
        };
        limit_by(EngineKind::SimdF32, Work { flops, read_bytes, written_bytes }, memory)
    }

    fn limit_by(engine: EngineKind, work: Work, memory: Level) -> Limit {
        let peaks = Peaks {
            fma_gflops: 200.0,
            fma_one_gflops: 100.0,
            dot_gflops: Some(400.0),
            tile_gflops: None,
            levels: vec![memory],
        };
        Limit::new(&work, &peaks, engine)
    }

    #[test]
    fn an_engine_is_held_against_its_own_unit() {
        let spread = Spread { min: 1.0, median: 1.0, max: 1e3 };
        let limit = |engine| {
            let memory = Level {
                name: "memory",
                bytes: 1,
                capacity_bytes: u64::MAX,
                read: spread,
                read_write: spread,
            };
            let Limit { name, peak, seconds } =
                limit_by(engine, Work { flops: 200e9, read_bytes: 1.0, written_bytes: 0.0 }, memory);
            (name, peak, seconds)
        };
        assert_eq!(limit(EngineKind::SimdF32), ("fma", 200.0, 1.0));
        assert_eq!(limit(EngineKind::DotBf16), ("dot", 400.0, 0.5));
        // Emulated.
        assert_eq!(limit(EngineKind::AmxBf16), ("fma", 200.0, 1.0));
    }

    #[test]
    fn many_operations_for_a_byte_are_bound_by_multiply_adds() {
        assert_eq!(limit(200e9, 3e9, 1e9), Limit { name: "fma", peak: 200.0, seconds: 1.0 });
    }

    #[test]
    fn a_decode_is_bound_by_reads_though_it_writes_a_little() {
        let Limit { name, peak, seconds } = limit(4e9, 20e9, 1e6);
        assert_eq!(name, "read");
        assert!((1.0..1.001).contains(&seconds) && (19.9..20.1).contains(&peak), "{peak} {seconds}");
    }

    #[test]
    fn a_state_that_is_updated_is_bound_by_reads_and_writes() {
        assert_eq!(limit(4e9, 8e9, 8e9), Limit { name: "readwrite", peak: 16.0, seconds: 1.0 });
    }

    #[test]
    fn three_reads_for_a_write_lie_between() {
        // 2 GB in pairs in 1/8 s, 2 GB of reads alone in 1/10 s.
        let Limit { name, peak, seconds } = limit(0.0, 3e9, 1e9);
        assert_eq!(name, "readwrite");
        assert!((seconds - 0.225).abs() < 1e-12 && (peak - 4.0 / 0.225).abs() < 1e-9, "{peak} {seconds}");
    }

    #[test]
    fn a_byte_that_is_only_written_costs_its_line_too() {
        assert_eq!(limit(0.0, 0.0, 8e9), Limit { name: "readwrite", peak: 8.0, seconds: 1.0 });
    }

    #[test]
    fn no_work_takes_no_time() {
        assert_eq!(limit(0.0, 0.0, 0.0), Limit { name: "fma", peak: 200.0, seconds: 0.0 });
    }
}
