//! What `regard bench` prints.

use std::io::Write;

use regard_oracle::compare::Report;
use serde::Serialize;

use crate::failure::Failure;
use crate::timing::{Seconds, Timing};

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    #[serde(flatten)]
    timing: Timing,
    /// Timed runs.
    runs: u32,
    /// What bounds the rate: multiply-adds.
    limit: &'static str,
    /// The most that the machine does of it, in 10⁹ operations a second, measured in this run.
    peak: f64,
    /// The kernel's share of that.
    peak_fraction: f64,
    /// The largest error against the oracle, and its bound.
    error: f64,
    bound: f64,
    passed: bool,
    /// How many times as long the plain way takes: the median of the ratios of runs in turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    against_baseline: Option<f64>,
}

/// A comparison with the baseline.
pub(super) struct Against {
    /// Its time by the kernel's.
    pub(super) ratio: f64,
    /// How far its output is from the kernel's, by the largest element.
    pub(super) error: f64,
}

impl Line {
    pub(super) fn new(
        timing: Timing,
        runs: u32,
        peak: f64,
        report: &Report,
        against: Option<Against>,
    ) -> Self {
        // Both are within the bound of the truth, or one of them is wrong.
        let agrees = against.as_ref().is_none_or(|against| against.error <= 4.0 * report.output.bound);
        Self {
            peak_fraction: if peak > 0.0 { timing.gflops / peak } else { 0.0 },
            timing,
            runs,
            limit: "fma",
            peak,
            error: report.output.error,
            bound: report.output.bound,
            passed: report.passed() && agrees,
            against_baseline: against.map(|against| against.ratio),
        }
    }
}

/// The lines of one call.
pub(super) struct Lines<'a> {
    out: &'a mut dyn Write,
    json: bool,
    failed: usize,
    all: usize,
}

impl<'a> Lines<'a> {
    /// # Errors
    /// If the output cannot be written.
    pub(super) fn new(out: &'a mut dyn Write, json: bool) -> Result<Self, Failure> {
        if !json {
            writeln!(
                out,
                "{:<16} {:<9} {:<7} {:<5} {:<14} {:>10} {:>23}  {:>8} {:>6}  {:>8}  error",
                "spec",
                "kernel",
                "isa",
                "dtype",
                "batch x q x k",
                "median",
                "spread",
                "GFLOP/s",
                "peak",
                "baseline"
            )?;
        }
        Ok(Self { out, json, failed: 0, all: 0 })
    }

    /// # Errors
    /// If the output cannot be written.
    pub(super) fn line(&mut self, line: &Line) -> Result<(), Failure> {
        self.all += 1;
        self.failed += usize::from(!line.passed);
        if self.json {
            writeln!(self.out, "{}", serde_json::to_string(line)?)?;
            return Ok(());
        }
        let Timing { spec, kernel, isa, dtype, batch, q, k, median_s, min_s, max_s, gflops, .. } =
            &line.timing;
        let size = format!("{batch}x{q}x{k}");
        let spread = format!("{} to {}", Seconds(*min_s), Seconds(*max_s));
        let baseline = line.against_baseline.map_or("".to_owned(), |ratio| format!("{ratio:.2}x"));
        let check = if line.passed { "ok" } else { "FAILED" };
        writeln!(
            self.out,
            "{spec:<16} {kernel:<9} {isa:<7} {dtype:<5} {size:<14} {:>10} {spread:>23}  {gflops:>8.1} {:>4.0} %  {baseline:>8}  {:.1e} of {:.1e} {check}",
            Seconds(*median_s),
            100.0 * line.peak_fraction,
            line.error,
            line.bound,
        )?;
        Ok(())
    }

    /// # Errors
    /// If some line failed.
    pub(super) fn end(self) -> Result<(), Failure> {
        if self.failed > 0 { Err(Failure::Failed { n: self.failed, of: self.all }) } else { Ok(()) }
    }
}
