//! What `verify` prints: a table for people, or a JSON object for each line.

use std::io::Write;

use regard::Spec;
use regard_oracle::compare::{Judgement, Run};
use serde::Serialize;

use crate::failure::Failure;
use crate::timing::{Seconds, Timing};

/// The heads of the table's columns.
const COLUMNS: [&str; 11] =
    ["kernel", "engine", "isa", "dtype", "batch x q x k", "compared", "error", "bound", "rows", "time", ""];

/// One comparison.
#[derive(Serialize)]
pub(super) struct Comparison<'a> {
    #[serde(flatten)]
    timing: &'a Timing,
    /// `o`, `lse` or `u`.
    output: &'static str,
    /// `oracle` or `expected`.
    against: &'static str,
    /// The error of the run of rows that is nearest to its bound, or furthest past it.
    error: f64,
    /// What is allowed there.
    bound: f64,
    rows_checked: u64,
    rows: u64,
    ok: bool,
    #[serde(skip)]
    judgement: &'a Judgement,
}

impl<'a> Comparison<'a> {
    /// A judgement over `[checked, all]` rows.
    pub(super) fn new(
        timing: &'a Timing,
        output: &'static str,
        against: &'static str,
        judgement: &'a Judgement,
        [rows_checked, rows]: [u64; 2],
    ) -> Self {
        let Judgement { error, bound, .. } = *judgement;
        Self { timing, output, against, error, bound, rows_checked, rows, ok: judgement.passed(), judgement }
    }
}

/// Whether two kernels of one plan wrote the same bits.
#[derive(Serialize)]
pub(super) struct Bits<'a> {
    /// Of the one that is compared.
    #[serde(flatten)]
    pub(super) timing: &'a Timing,
    /// Where the other's code comes from.
    pub(super) against: &'static str,
    /// Elements of o and lse with other bits.
    pub(super) differing: usize,
    /// All elements of o and lse.
    pub(super) elements: usize,
    pub(super) ok: bool,
}

/// What is not compared, and why.
#[derive(Serialize)]
struct Skipped<'a> {
    spec: &'a str,
    skipped: &'a str,
    reason: &'a str,
}

/// Prints comparisons and counts those that failed.
pub(super) struct Lines<'a> {
    out: &'a mut dyn Write,
    json: bool,
    heading: Option<String>,
    n: usize,
    n_failed: usize,
}

impl<'a> Lines<'a> {
    /// Lines to `out`.
    pub(super) fn new(out: &'a mut dyn Write, json: bool) -> Self {
        Self { out, json, heading: None, n: 0, n_failed: 0 }
    }

    /// Begins a spec; its heading waits for the first line, so that a spec that cannot be compared has none.
    pub(super) fn spec(&mut self, spec: &Spec) {
        let separator = if spec.summary.is_empty() { "" } else { ": " };
        self.heading = Some(format!("{}{separator}{}", spec.name, spec.summary));
    }

    /// One comparison.
    pub(super) fn comparison(&mut self, comparison: &Comparison<'_>) -> Result<(), Failure> {
        self.count(comparison.ok)?;
        if self.json {
            return self.object(comparison);
        }
        let Comparison { timing, output, against, error, bound, rows_checked, rows, ok, judgement } =
            comparison;
        let rows =
            if rows_checked == rows { format!("all {rows}") } else { format!("{rows_checked}/{rows}") };
        let compared = format!("{output}, {against}");
        self.row(timing, [compared, format!("{error:.1e}"), format!("{bound:.1e}"), rows], *ok)?;
        if !ok {
            let Run { b, h, rows } = &judgement.run;
            write!(self.out, "    worst at batch {b}, head {h}, rows {}..{}", rows.start, rows.end)?;
            if let Some(broken) = &judgement.broken {
                let [b, h, i, channel] = broken.at;
                let (found, right) = (broken.found, broken.oracle);
                write!(self.out, "; {found} at [{b}, {h}, {i}, {channel}] where {against} has {right}")?;
            }
            writeln!(self.out)?;
        }
        self.out.flush()?;
        Ok(())
    }

    /// One comparison of bits.
    pub(super) fn bits(&mut self, bits: &Bits<'_>) -> Result<(), Failure> {
        self.count(bits.ok)?;
        if self.json {
            return self.object(bits);
        }
        let Bits { timing, against, differing, elements, ok } = bits;
        let cell = |text: &str| text.to_owned();
        let found = if *ok { "same" } else { "other" };
        self.row(timing, [format!("bits, {against}"), cell(found), cell("same"), cell("all")], *ok)?;
        if !ok {
            writeln!(self.out, "    {differing} of {elements} elements of o and lse have other bits")?;
        }
        self.out.flush()?;
        Ok(())
    }

    /// An instruction set that is not compared.
    pub(super) fn skipped(&mut self, spec: &Spec, what: &str, reason: &str) -> Result<(), Failure> {
        self.not_compared("skipped ", Skipped { spec: &spec.name, skipped: what, reason })
    }

    /// A source of kernels that has none of the spec; `name` is what the spec is called on the command line.
    pub(super) fn no_code(&mut self, spec: &Spec, source: &str, name: &str) -> Result<(), Failure> {
        let reason = format!("not in this build; `cargo xtask verify {name}` makes it and compares it");
        self.not_compared("", Skipped { spec: &spec.name, skipped: source, reason: &reason })
    }

    fn not_compared(&mut self, verb: &str, what: Skipped<'_>) -> Result<(), Failure> {
        if self.json {
            return self.object(&what);
        }
        writeln!(self.out, "{verb}{}: {}", what.skipped, what.reason)?;
        Ok(())
    }

    /// The verdict.
    ///
    /// # Errors
    /// If some comparison failed.
    pub(super) fn end(self) -> Result<(), Failure> {
        match self.n_failed {
            0 => Ok(()),
            n => Err(Failure::Failed { n, of: self.n }),
        }
    }

    /// Counts a comparison; the first of a spec is told below a heading.
    fn count(&mut self, ok: bool) -> Result<(), Failure> {
        if let Some(heading) = self.heading.take().filter(|_| !self.json) {
            let gap = if self.n > 0 { "\n" } else { "" };
            writeln!(self.out, "{gap}{heading}")?;
            self.columns(COLUMNS.map(str::to_owned))?;
        }
        self.n += 1;
        self.n_failed += usize::from(!ok);
        Ok(())
    }

    /// A comparison of what a kernel did.
    fn row(&mut self, timing: &Timing, compared: [String; 4], ok: bool) -> Result<(), Failure> {
        let [compared, error, bound, rows] = compared;
        self.columns([
            timing.kernel.to_owned(),
            timing.engine.name().to_owned(),
            timing.isa.to_owned(),
            timing.dtype.to_owned(),
            format!("{}x{}x{}", timing.batch, timing.q, timing.k),
            compared,
            error,
            bound,
            rows,
            Seconds(timing.median_s).to_string(),
            if ok { "ok" } else { "FAILED" }.to_owned(),
        ])
    }

    fn columns(&mut self, cells: [String; 11]) -> Result<(), Failure> {
        let [kernel, engine, isa, dtype, size, compared, error, bound, rows, time, verdict] = cells;
        let line = format!(
            "  {kernel:<9}  {engine:<8}  {isa:<7}  {dtype:<5}  {size:<15}  {compared:<13}  {error:<7}  {bound:<7}  {rows:<13}  {time:<8}  {verdict}"
        );
        writeln!(self.out, "{}", line.trim_end())?;
        Ok(())
    }

    fn object(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        writeln!(self.out, "{}", serde_json::to_string(object)?)?;
        Ok(())
    }
}
