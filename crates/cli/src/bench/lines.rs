//! What `regard bench` prints.

use std::io::Write;

use regard::ir::problem::Phase;
use regard_oracle::compare::Report;
use serde::Serialize;

use crate::args::{BenchArgs, BenchPhase};
use crate::failure::Failure;
use crate::peaks::Limit;
use crate::timing::{Seconds, Timing};

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    #[serde(flatten)]
    timing: Timing,
    /// What bounds the problem on this machine.
    limit: &'static str,
    /// The most that the machine does of it, in 10⁹ operations or bytes a second.
    peak: f64,
    /// The kernel's share of that.
    peak_fraction: f64,
    /// The processor's name.
    cpu: String,
    /// The time that the plan's cost model gave, by this machine's rates.
    predicted_s: Option<f64>,
    /// Timed runs.
    runs: u32,
    /// The largest error against the oracle, and its bound.
    error: f64,
    bound: f64,
    passed: bool,
    #[serde(flatten)]
    beside: Option<Beside>,
}

/// A comparison with what ran in turn with the kernel.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Beside {
    /// The plain way.
    Baseline {
        /// How many times as long it takes: the median of the ratios of runs in turn.
        #[serde(rename = "against_baseline")]
        times_as_long: f64,
        /// How far its output is from the kernel's, by the largest element.
        #[serde(skip)]
        error: f64,
    },
    /// Another kernel.
    Kernel {
        /// Its spec and where its code comes from.
        #[serde(rename = "against")]
        spec: String,
        #[serde(rename = "against_kernel")]
        kernel: &'static str,
        /// This kernel's time by the other's: the median of the ratios of runs in turn.
        #[serde(rename = "against_ratio")]
        ratio: f64,
        /// What a quarter and three quarters of the ratios are below.
        #[serde(rename = "against_quartiles")]
        quartiles: [f64; 2],
    },
}

/// How near the kernel is to the truth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    /// The error of the result that comes closest to its bound, or is furthest past it: outputs, lse or states.
    pub(super) error: f64,
    /// What is allowed.
    pub(super) bound: f64,
    /// Whether all that was compared is within its bound.
    pub(super) passed: bool,
}

impl From<&Report> for Judged {
    fn from(report: &Report) -> Self {
        let worst = report.worst();
        Self { error: worst.error, bound: worst.bound, passed: report.passed() }
    }
}

impl Line {
    pub(super) fn new(
        timing: Timing,
        runs: u32,
        cpu: &str,
        limit: Limit,
        judged: Judged,
        beside: Option<Beside>,
    ) -> Self {
        let Judged { error, bound, passed } = judged;
        let agrees = match beside {
            // Both are within the bound of the truth, or one of them is wrong.
            Some(Beside::Baseline { error, .. }) => error <= 4.0 * bound,
            _ => true,
        };
        let Limit { name, peak, seconds } = limit;
        Self {
            limit: name,
            peak,
            peak_fraction: if timing.median_s > 0.0 { seconds / timing.median_s } else { 0.0 },
            cpu: cpu.to_owned(),
            predicted_s: None,
            timing,
            runs,
            error,
            bound,
            passed: passed && agrees,
            beside,
        }
    }

    /// With the time that was predicted.
    pub(super) fn predicted(self, seconds: Option<f64>) -> Self {
        Self { predicted_s: seconds, ..self }
    }

    /// A row of the table.
    fn text(&self) -> String {
        let Timing { spec, kernel, dtype, cache, batch, q, k, median_s, min_s, max_s, gflops, gbs, .. } =
            &self.timing;
        let size = format!("{batch}x{q}x{k}");
        let (median, spread) = (Seconds(*median_s).to_string(), spread(*min_s, *max_s));
        let (gbs, limit) =
            (format!("{gbs:.1}"), format!("{:>3.0} % {}", 100.0 * self.peak_fraction, self.limit));
        let error = match self.passed {
            true => format!("{:.1e} ok", self.error),
            false => format!("{:.1e} FAILED, at most {:.1e}", self.error, self.bound),
        };
        if let Some(cache) = cache {
            let peak = format!("{:.1}", self.peak);
            let share = format!("{:.0} %", 100.0 * self.peak_fraction);
            let model = self.predicted_s.map(|seconds| format!("{:.2}", median_s / seconds));
            let model = model.as_deref().unwrap_or("-");
            let rates = [&gbs, &peak, &*share, model];
            return cached_row([spec, *kernel, *dtype, cache], [&size, &median, &spread], rates, &error);
        }
        let gflops = format!("{gflops:.1}");
        let cells = [spec, *kernel, *dtype, &size, &median, &spread, &gflops, &gbs, &limit, &error];
        let beside = match (&self.beside, self.predicted_s) {
            (Some(Beside::Baseline { times_as_long, .. }), _) => format!("{times_as_long:.2}x"),
            (Some(Beside::Kernel { ratio, .. }), _) => format!("{ratio:.3}"),
            (None, Some(predicted_s)) => format!("{:.2}", median_s / predicted_s),
            (None, None) => String::new(),
        };
        row(cells, &beside)
    }
}

/// What is above the table's columns.
const HEADS: [&str; 10] =
    ["spec", "kernel", "dtype", "b x q x k", "median", "min to max", "GFLOP/s", "GB/s", "of limit", "error"];

/// Cells in their columns; what the time is compared with has one before the error.
fn row(cells: [&str; 10], beside: &str) -> String {
    let [spec, kernel, dtype, size, median, spread, gflops, gbs, limit, error] = cells;
    let times = format!("{size:<11} {median:>8} {spread:>17}");
    let rates = format!("{gflops:>7} {gbs:>6} {limit:<14} {beside:>8}");
    format!("{spec:<14} {kernel:<9} {dtype:<5} {times} {rates} {error}")
}

/// What is above the columns where keys and values are cached.
fn cached_heads() -> String {
    let times = ["b x q x k", "median", "min to max"];
    cached_row(["spec", "kernel", "dtype", "cache"], times, ["GB/s", "peak", "share", "model"], "error")
}

/// Cells in their columns, where keys and values are cached.
fn cached_row(what: [&str; 4], times: [&str; 3], rates: [&str; 4], error: &str) -> String {
    let [spec, kernel, dtype, cache] = what;
    let [size, median, spread] = times;
    let [gbs, peak, share, model] = rates;
    let times = format!("{size:<11} {median:>8} {spread:>17}");
    let rates = format!("{gbs:>6} {peak:>6} {share:>5} {model:>5}");
    format!("{spec:<14} {kernel:<9} {dtype:<5} {cache:<14} {times} {rates} {error}")
}

/// Two times, and their unit once where it is one.
fn spread(min_s: f64, max_s: f64) -> String {
    let (min, max) = (Seconds(min_s).to_string(), Seconds(max_s).to_string());
    match (min.split_once(' '), max.split_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number} to {max}"),
        _ => format!("{min} to {max}"),
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
    pub(super) fn new(out: &'a mut dyn Write, args: &BenchArgs) -> Result<Self, Failure> {
        let lines = Self { out, json: args.json, failed: 0, all: 0 };
        if !lines.json && args.phase != BenchPhase::Call(Phase::Prefill) {
            writeln!(lines.out, "{}", cached_heads())?;
        } else if !lines.json {
            let beside = match &args.against {
                _ if args.baseline => "baseline",
                Some(_) => "against",
                None => "by model",
            };
            writeln!(lines.out, "{}", row(HEADS, beside))?;
        }
        Ok(lines)
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
        writeln!(self.out, "{}", line.text())?;
        Ok(())
    }

    /// # Errors
    /// If some line failed.
    pub(super) fn end(self) -> Result<(), Failure> {
        if self.failed > 0 { Err(Failure::Failed { n: self.failed, of: self.all }) } else { Ok(()) }
    }
}
