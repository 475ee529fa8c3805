//! What bounds a call on this machine.

use regard::EngineKind;
use regard_ir::work::Work;
use serde::Serialize;

use crate::peaks::{Limit, Peaks};

/// The least time that a call takes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Bound {
    /// 10⁹ multiplications and additions a second of the engine's unit, over all threads.
    pub(super) products_gflops: f64,
    /// The innermost memory that holds what the call moves.
    pub(super) level: &'static str,
    /// 10⁹ bytes a second that it is read at.
    pub(super) read_gbs: f64,
    /// 10⁹ bytes a second that it is read and written at, both counted.
    pub(super) read_write_gbs: f64,
    /// Seconds of the operations.
    pub(super) operations_s: f64,
    /// Seconds of the bytes.
    pub(super) bytes_s: f64,
    /// Which of both takes longer: "fma", "dot" or "tile" by the unit, or what most of the bytes' time goes to, "read" or "readwrite".
    pub(super) limit: &'static str,
    /// How long it takes.
    pub(super) at_least_s: f64,
}

impl Bound {
    /// Of a call by the peaks of a machine.
    pub(super) fn new(work: &Work, peaks: &Peaks, engine: EngineKind) -> Self {
        let level = peaks.level(work.bytes());
        let Limit { name, seconds, .. } = Limit::new(work, peaks, engine);
        Self {
            products_gflops: peaks.products(engine).1,
            level: level.name,
            read_gbs: level.read.max,
            read_write_gbs: level.read_write.max,
            operations_s: Limit::of_operations(work, peaks, engine).seconds,
            bytes_s: Limit::of_traffic(work, peaks).seconds,
            limit: name,
            at_least_s: seconds,
        }
    }
}
