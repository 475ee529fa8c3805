//! Which of a machine's peaks bounds a problem.
//!
//! Two things take their time at least, and may do so side by side: the operations, at the multiply-add rate, and the
//! bytes. The longer one bounds the problem.
//!
//! Bytes move at rates of the level that holds all of the problem's data, where repeated runs find them. Every byte that
//! is written goes with one that is read, at the rate of reading and writing: the in-place loop that measures it does
//! the same, and a cache fetches a line before it changes a part of it. What is read beyond that moves at the rate of
//! reading. So the peak of a problem's traffic lies between the two rates as its own mixture does, and `read` or
//! `readwrite` says which of them takes more of the time. (To divide all bytes by the rate of reading and writing, and
//! what is read by the rate of reading, and to take the longer, would not do: as reading is the faster, one written byte
//! would make `readwrite` of everything.)

use regard_ir::work::Work;

use super::Peaks;

/// What bounds a problem.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limit {
    /// "fma", "read" or "readwrite".
    pub(crate) name: &'static str,
    /// The most that the machine does of it: 10⁹ operations a second for `fma`, else 10⁹ bytes a second.
    pub(crate) peak: f64,
    /// The time that it takes at least.
    pub(crate) seconds: f64,
}

impl Limit {
    /// Of a problem of so much work.
    pub(crate) fn new(work: &Work, peaks: &Peaks) -> Self {
        let (fma, traffic) = (Self::of_operations(work, peaks), Self::of_traffic(work, peaks));
        if traffic.seconds > fma.seconds { traffic } else { fma }
    }

    /// Of the operations alone.
    pub(crate) fn of_operations(work: &Work, peaks: &Peaks) -> Self {
        Self { name: "fma", peak: peaks.fma_gflops, seconds: work.flops / (peaks.fma_gflops * 1e9) }
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
