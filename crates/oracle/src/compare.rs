//! Judges a kernel's output by the oracle and the table in [`regard_ir::bounds`].

use core::fmt;
use core::ops::Range;

use regard_ir::bounds::{self, Quantity};
use regard_ir::plan::Dtype;

use crate::eval::IndexError;
use crate::formula::{Mismatch, Oracle};
use crate::sample::Sample;
use crate::tensor::Tensor4;

/// What a kernel wrote.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a> {
    /// The output, `[batch, query heads, queries, value_dim]` in the storage type of q.
    pub o: Tensor4<'a>,
    /// The log of the weights' sum, `[batch, query heads, queries, 1]` in f32, where the kernel wrote it.
    pub lse: Option<Tensor4<'a>>,
}

/// How a kernel's output compares with the oracle.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The output rows.
    pub output: Judgement,
    /// The log of the weights' sum, where both sides have it.
    pub lse: Option<Judgement>,
    /// Rows that were compared, over all heads and sequences.
    pub rows_checked: u64,
    /// Rows that there are.
    pub rows: u64,
}

/// How one result compares: the run of query rows that comes closest to its bound, or is furthest past it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// max |x − oracle| / max |oracle| over the compared rows of that run.
    pub error: f64,
    /// What is allowed in that run.
    pub bound: f64,
    /// Where that run is.
    pub run: Run,
    /// The first element that is finite on one side alone, or is not the −inf of an empty sum.
    pub broken: Option<Element>,
}

/// [`bounds::ROWS`] query rows of one head, or the last few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Batch index.
    pub b: usize,
    /// Query head.
    pub h: usize,
    /// The query rows.
    pub rows: Range<usize>,
}

/// One element of a result, and what it should have been.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Element {
    /// Batch, query head, query row and channel.
    pub at: [usize; 4],
    /// What the kernel wrote.
    pub found: f64,
    /// What the oracle says.
    pub oracle: f64,
}

/// A comparison that could not be made.
#[derive(Clone, Debug, PartialEq)]
pub enum CompareError {
    /// An output does not fit the problem.
    Output(Mismatch),
    /// The spec reads a captured input outside one of its axes.
    Index(IndexError),
}

impl From<IndexError> for CompareError {
    fn from(error: IndexError) -> Self {
        CompareError::Index(error)
    }
}

impl fmt::Display for CompareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompareError::Output(error) => error.fmt(f),
            CompareError::Index(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CompareError {}

/// Compares the sampled rows of every head.
///
/// # Errors
/// If an output's shape or type does not fit, or an expression reads a captured input outside one of its axes.
pub fn compare(oracle: &Oracle<'_>, outputs: &Outputs<'_>, sample: &Sample) -> Result<Report, CompareError> {
    let (batch, heads) = (oracle.problem().batch as usize, oracle.variant().heads.query as usize);
    let mut report = Report::empty(oracle, outputs);
    for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
        report = report.join(compare_head(oracle, outputs, sample, b, h)?);
    }
    Ok(report)
}

/// Compares the sampled rows of one head; [`Report::join`] adds up heads, so that a caller can spread them over
/// threads or show how far it is.
///
/// # Errors
/// As [`compare`].
///
/// # Panics
/// If there is no such head.
pub fn compare_head(
    oracle: &Oracle<'_>,
    outputs: &Outputs<'_>,
    sample: &Sample,
    b: usize,
    h: usize,
) -> Result<Report, CompareError> {
    check_outputs(oracle, outputs)?;
    let mut report = Report::empty(oracle, outputs);
    report.rows = oracle.problem().queries.into();
    let rows = sample.rows(b, h);
    report.rows_checked = rows.len() as u64;
    for run_rows in rows.chunk_by(|a, b| a / bounds::ROWS == b / bounds::ROWS) {
        let start = run_rows[0] / bounds::ROWS * bounds::ROWS;
        let end = (start + bounds::ROWS).min(oracle.problem().queries as usize);
        let run = Run { b, h, rows: start..end };
        let mut output = Errors::new(Quantity::Output);
        let mut lse = Errors::new(Quantity::Lse);
        let mut max_score = 0f64;
        for &i in run_rows {
            let row = oracle.row(b, h, i)?;
            max_score = max_score.max(row.max_score);
            for (channel, (found, oracle)) in outputs.o.row(b, h, i).into_iter().zip(row.o).enumerate() {
                output.add(Element { at: [b, h, i, channel], found, oracle });
            }
            if let (Some(found), Some(oracle)) = (outputs.lse, row.lse) {
                lse.add(Element { at: [b, h, i, 0], found: found.row(b, h, i)[0], oracle });
            }
        }
        report.output = report.output.worse(output.judge(&run, oracle.dtype(), max_score));
        report.lse = report.lse.map(|worst| worst.worse(lse.judge(&run, oracle.dtype(), max_score)));
    }
    Ok(report)
}

impl Report {
    /// Whether everything compared is within its bound.
    pub fn passed(&self) -> bool {
        self.output.passed() && self.lse.as_ref().is_none_or(Judgement::passed)
    }

    /// The report over both parts.
    pub fn join(self, other: Report) -> Report {
        Report {
            output: self.output.worse(other.output),
            lse: match (self.lse, other.lse) {
                (Some(a), Some(b)) => Some(a.worse(b)),
                (a, b) => a.or(b),
            },
            rows_checked: self.rows_checked + other.rows_checked,
            rows: self.rows + other.rows,
        }
    }

    fn empty(oracle: &Oracle<'_>, outputs: &Outputs<'_>) -> Report {
        let nothing =
            |quantity| Errors::new(quantity).judge(&Run { b: 0, h: 0, rows: 0..0 }, oracle.dtype(), 0.0);
        let has_lse = outputs.lse.is_some() && oracle.has_lse();
        Report {
            output: nothing(Quantity::Output),
            lse: has_lse.then(|| nothing(Quantity::Lse)),
            rows_checked: 0,
            rows: 0,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "o: {}", self.output)?;
        if let Some(lse) = &self.lse {
            write!(f, "; lse: {lse}")?;
        }
        write!(f, "; {} of {} rows compared", self.rows_checked, self.rows)
    }
}

impl Judgement {
    /// Whether the error is within the bound and nothing is broken.
    pub fn passed(&self) -> bool {
        self.error <= self.bound && self.broken.is_none()
    }

    fn worse(self, other: Judgement) -> Judgement {
        let broken = self.broken.or(other.broken);
        let worst = if other.error / other.bound > self.error / self.bound { other } else { self };
        Judgement { broken, ..worst }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { error, bound, run: Run { b, h, rows }, broken } = self;
        let verdict = if error <= bound { "within" } else { "past" };
        write!(f, "error {error:.1e}, {verdict} {bound:.1e}")?;
        if !rows.is_empty() {
            write!(f, " (b {b}, h {h}, rows {}..{})", rows.start, rows.end)?;
        }
        if let Some(Element { at, found, oracle }) = broken {
            write!(f, ", and {found} at {at:?} where the oracle has {oracle}")?;
        }
        Ok(())
    }
}

/// What is found in one run.
struct Errors {
    quantity: Quantity,
    max_error: f64,
    max_oracle: f64,
    broken: Option<Element>,
}

impl Errors {
    fn new(quantity: Quantity) -> Self {
        Self { quantity, max_error: 0.0, max_oracle: 0.0, broken: None }
    }

    fn add(&mut self, element: Element) {
        let Element { found, oracle, .. } = element;
        if found.is_finite() && oracle.is_finite() {
            self.max_error = self.max_error.max((found - oracle).abs());
            self.max_oracle = self.max_oracle.max(oracle.abs());
        } else if found.is_finite() != oracle.is_finite() || oracle == f64::NEG_INFINITY && found != oracle {
            self.broken.get_or_insert(element);
        }
    }

    fn judge(self, run: &Run, dtype: Dtype, max_score: f64) -> Judgement {
        let denominator = bounds::denominator(self.quantity, self.max_oracle);
        Judgement {
            error: if self.max_error == 0.0 { 0.0 } else { self.max_error / denominator },
            bound: bounds::exact(self.quantity, dtype, max_score),
            run: run.clone(),
            broken: self.broken,
        }
    }
}

fn check_outputs(oracle: &Oracle<'_>, outputs: &Outputs<'_>) -> Result<(), CompareError> {
    let (problem, heads) = (oracle.problem(), &oracle.variant().heads);
    let shape = |width: u32| [problem.batch, heads.query, problem.queries, width].map(|n| n as usize);
    let fits = |name, tensor: &Tensor4<'_>, expected, dtype| {
        let found = tensor.shape();
        if found != expected {
            return Err(CompareError::Output(Mismatch::Shape { name, found, expected }));
        }
        if tensor.dtype() != dtype {
            return Err(CompareError::Output(Mismatch::Dtype {
                name,
                found: tensor.dtype(),
                expected: dtype,
            }));
        }
        Ok(())
    };
    fits("o", &outputs.o, shape(heads.value_dim), oracle.dtype())?;
    outputs.lse.iter().try_for_each(|lse| fits("lse", lse, shape(1), Dtype::F32))
}
