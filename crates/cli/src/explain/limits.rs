//! What a machine can do at most, and which of it a call runs into first.

use regard_ir::work::Work;
use serde::Serialize;

/// The rates that bound a call.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Rates {
    /// 10⁹ multiplications and additions a second.
    pub(super) gflops: f64,
    /// The innermost memory that holds what the call moves.
    pub(super) level: &'static str,
    /// 10⁹ bytes a second that it is read at.
    pub(super) gbs: f64,
}

/// The least time that a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Bound {
    #[serde(flatten)]
    pub(super) rates: Rates,
    /// Seconds of the operations at their rate.
    pub(super) flops_s: f64,
    /// Seconds of the bytes at theirs.
    pub(super) bytes_s: f64,
    /// Whichever takes longer.
    pub(super) limit: Limit,
    /// How long that is.
    pub(super) at_least_s: f64,
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Limit {
    /// Multiply-adds.
    Fma,
    /// Bytes.
    Read,
}

impl Bound {
    /// Of a call by the rates of a machine, which are above 0.
    pub(super) fn new(work: &Work, rates: Rates) -> Self {
        let (flops_s, bytes_s) = (work.flops / rates.gflops / 1e9, work.bytes() / rates.gbs / 1e9);
        let limit = if flops_s > bytes_s { Limit::Fma } else { Limit::Read };
        Self { rates, flops_s, bytes_s, limit, at_least_s: flops_s.max(bytes_s) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_the_two_is_the_limit() {
        let rates = Rates { gflops: 100.0, level: "L2", gbs: 50.0 };
        let bound = |flops, read_bytes| Bound::new(&Work { flops, read_bytes, written_bytes: 1e9 }, rates);
        let Bound { flops_s, bytes_s, limit, at_least_s, .. } = bound(400e9, 49e9);
        assert_eq!((flops_s, bytes_s, limit, at_least_s), (4.0, 1.0, Limit::Fma, 4.0));
        let Bound { limit, at_least_s, .. } = bound(1e9, 99e9);
        assert_eq!((limit, at_least_s), (Limit::Read, 2.0));
    }
}
