//! Judges a kernel's output by the oracle and the table in [`regard_ir::bounds`].

use core::fmt;
use core::ops::Range;

use regard_ir::bounds::{self, Quantity};
use regard_ir::plan::{Dtype, Precision};
use regard_ir::variant::Mechanism;

use crate::eval::IndexError;
use crate::formula::{Oracle, Part};
use crate::mismatch::Mismatch;
use crate::sample::Sample;
use crate::tensor::Tensor4;

/// What a kernel wrote.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a> {
    /// The output, `[batch, output heads, queries, value_dim]` in the storage type of q.
    pub o: Tensor4<'a>,
    /// The log of the weights' sum, `[batch, query heads, queries, 1]` in f32, where the kernel wrote it.
    pub lse: Option<Tensor4<'a>>,
    /// The lookahead keys after the last token, `[batch, heads, keys, dim]` in f32, where the kernel wrote them.
    pub u: Option<Tensor4<'a>>,
    /// The state of a recurrence after the last token, `[sequences, value heads, dim, value_dim]` in f32, where the kernel wrote
    /// it, and the sum of features, `[sequences, value heads, 1, dim]`, where it has one.
    pub state: Option<(Tensor4<'a>, Option<Tensor4<'a>>)>,
}

/// How a kernel's output compares with the oracle.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The output rows.
    pub output: Judgement,
    /// The log of the weights' sum, where both sides have it.
    pub lse: Option<Judgement>,
    /// The lookahead keys after the last token, where both sides have them.
    pub u: Option<Judgement>,
    /// The state after the last token, where both sides have it, or the sum of features, whichever is worse.
    pub state: Option<Judgement>,
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
    /// Head: of an output, output head; of an lse, query head.
    pub h: usize,
    /// The query rows.
    pub rows: Range<usize>,
}

/// One element of a result, and what it should have been.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Element {
    /// Batch, head, query row and channel.
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
    check_outputs(oracle, outputs)?;
    let mut report = Report::empty(oracle, outputs);
    for part in 0..oracle.parts() {
        report = report.join(compare_part(oracle, outputs, sample, part)?);
    }
    Ok(report)
}

/// Compares the sampled rows of one part of the heads; [`Report::join`] adds up parts, so that a caller can spread
/// them over threads or show how far it is.
///
/// # Errors
/// As [`compare`].
///
/// # Panics
/// If there is no such part.
pub fn compare_part(
    oracle: &Oracle<'_>,
    outputs: &Outputs<'_>,
    sample: &Sample,
    part: usize,
) -> Result<Report, CompareError> {
    compared(&oracle.part(part), outputs, None, sample)
}

/// As [`compare_part`], but by what another implementation wrote, which is held to be the truth about the output.
///
/// # Errors
/// As [`compare`], `expected` being an output too.
///
/// # Panics
/// If there is no such part.
pub fn compare_part_to(
    oracle: &Oracle<'_>,
    o: Tensor4<'_>,
    expected: Tensor4<'_>,
    sample: &Sample,
    part: usize,
) -> Result<Report, CompareError> {
    compared(&oracle.part(part), &Outputs { o, lse: None, u: None, state: None }, Some(expected), sample)
}

fn compared(
    part: &Part<'_>,
    outputs: &Outputs<'_>,
    expected: Option<Tensor4<'_>>,
    sample: &Sample,
) -> Result<Report, CompareError> {
    let oracle = part.oracle();
    check_outputs(oracle, outputs)?;
    if let Some(o) = expected {
        check_outputs(oracle, &Outputs { o, lse: None, u: None, state: None })?;
    }
    let (b, query_heads, output_heads) = (part.sequence(), part.query_heads(), part.output_heads());
    let (kind, of) = (Kind::of(oracle), part.rows());
    let queries = of.queries as usize;
    // Where a row of the sequence lies in the outputs.
    let place = |h: usize, i: usize| (of.batch as usize, h, of.first_query as usize + i);
    let rows = sample.rows(b, query_heads.start, queries);
    let n_heads = output_heads.len() as u64;
    let mut report = Report {
        rows: n_heads * queries as u64,
        rows_checked: n_heads * rows.len() as u64,
        ..Report::empty(oracle, outputs)
    };
    for run_rows in rows.chunk_by(|a, b| a / bounds::ROWS == b / bounds::ROWS) {
        let mut output = vec![Errors::new(Quantity::Output); output_heads.len()];
        let mut lse = vec![Errors::new(Quantity::Lse); query_heads.len()];
        for &i in run_rows {
            let row = part.row(i)?;
            // Each output is made of all query heads of the part.
            let max_score = row.max_scores.iter().copied().fold(0.0, f64::max);
            for ((h, o), errors) in output_heads.clone().zip(row.o).zip(&mut output) {
                let (at, head, token) = place(h, i);
                let right = expected.map_or(o, |expected| expected.row(at, head, token));
                let elements = outputs.o.row(at, head, token).into_iter().zip(right).enumerate();
                errors.max_score = errors.max_score.max(max_score);
                elements.for_each(|(channel, (found, oracle))| {
                    errors.add(Element { at: [b, h, i, channel], found, oracle });
                });
            }
            if let (Some(found), Some(right)) = (outputs.lse, row.lse) {
                let heads = query_heads.clone().zip(right.into_iter().zip(row.max_scores));
                for ((h, (oracle, max_score)), errors) in heads.zip(&mut lse) {
                    errors.max_score = errors.max_score.max(max_score);
                    let (at, head, token) = place(h, i);
                    errors.add(Element { at: [b, h, i, 0], found: found.row(at, head, token)[0], oracle });
                }
            }
        }
        let start = run_rows[0] / bounds::ROWS * bounds::ROWS;
        let run = |h| Run { b, h, rows: start..(start + bounds::ROWS).min(queries) };
        for (h, errors) in output_heads.clone().zip(output) {
            report.output = report.output.worse(errors.judge(run(h), kind));
        }
        for (h, errors) in query_heads.clone().zip(lse) {
            report.lse = report.lse.map(|worst| worst.worse(errors.judge(run(h), kind)));
        }
    }
    if let Some(found) = &outputs.u {
        let u = compared_keys(part, found)?;
        report.u = report.u.into_iter().chain(u).reduce(Judgement::worse);
    }
    if let Some((state, norm)) = &outputs.state {
        report.state = compared_state(part, state, norm.as_ref());
    }
    Ok(report)
}

/// Compares the state of a part after the last token, as a whole, and the sum of features; `None` where it has none.
fn compared_state(part: &Part<'_>, state: &Tensor4<'_>, norm: Option<&Tensor4<'_>>) -> Option<Judgement> {
    let (kind, b, h) = (Kind::of(part.oracle()), part.sequence(), part.query_heads().start);
    let right = part.state()?;
    let judged = |found: &Tensor4<'_>, rows: &dyn Fn(usize) -> Vec<f64>| {
        let mut errors = Errors::new(Quantity::State);
        let n_rows = found.shape()[2];
        for c in 0..n_rows {
            for (channel, (found, oracle)) in found.row(b, h, c).into_iter().zip(rows(c)).enumerate() {
                errors.add(Element { at: [b, h, c, channel], found, oracle });
            }
        }
        errors.judge(Run { b, h, rows: 0..n_rows }, kind)
    };
    let state = judged(state, &|c| right.row(c).to_vec());
    let norm = norm.map(|norm| judged(norm, &|_| right.norm().to_vec()));
    [Some(state), norm].into_iter().flatten().reduce(Judgement::worse)
}

/// Compares the lookahead keys of a part after the last token; `None` where it has none.
fn compared_keys(part: &Part<'_>, u: &Tensor4<'_>) -> Result<Option<Judgement>, CompareError> {
    let (kind, of, b) = (Kind::of(part.oracle()), part.rows(), part.sequence());
    let mut worst: Option<Judgement> = None;
    for (h, keys) in part.query_heads().zip(part.learned()?) {
        for (run, rows) in keys.chunks(bounds::ROWS).enumerate() {
            let start = run * bounds::ROWS;
            let mut errors = Errors::new(Quantity::Learned);
            for (i, right) in (start..).zip(rows) {
                let found = u.row(of.batch as usize, h, of.first_key as usize + i);
                for (channel, (found, &oracle)) in found.into_iter().zip(right).enumerate() {
                    errors.add(Element { at: [b, h, i, channel], found, oracle });
                }
            }
            let judged = errors.judge(Run { b, h, rows: start..start + rows.len() }, kind);
            worst = worst.into_iter().chain([judged]).reduce(Judgement::worse);
        }
    }
    Ok(worst)
}

impl Report {
    /// All that was judged.
    fn judgements(&self) -> impl Iterator<Item = &Judgement> {
        let Self { output, lse, u, state, .. } = self;
        [Some(output), lse.as_ref(), u.as_ref(), state.as_ref()].into_iter().flatten()
    }

    /// Whether everything compared is within its bound.
    pub fn passed(&self) -> bool {
        self.judgements().all(Judgement::passed)
    }

    /// The error as a share of what is allowed, of the result that is worse; infinite where a result is broken.
    pub fn share(&self) -> f64 {
        self.worst().share()
    }

    /// The result that comes closest to its bound, or is furthest past it.
    pub fn worst(&self) -> &Judgement {
        self.judgements().max_by(|a, b| a.share().total_cmp(&b.share())).unwrap_or(&self.output)
    }

    /// The report over both parts.
    pub fn join(self, other: Report) -> Report {
        Report {
            output: self.output.worse(other.output),
            lse: self.lse.into_iter().chain(other.lse).reduce(Judgement::worse),
            u: self.u.into_iter().chain(other.u).reduce(Judgement::worse),
            state: self.state.into_iter().chain(other.state).reduce(Judgement::worse),
            rows_checked: self.rows_checked + other.rows_checked,
            rows: self.rows + other.rows,
        }
    }

    fn empty(oracle: &Oracle<'_>, outputs: &Outputs<'_>) -> Report {
        let nothing =
            |quantity| Errors::new(quantity).judge(Run { b: 0, h: 0, rows: 0..0 }, Kind::of(oracle));
        let has_lse = outputs.lse.is_some() && oracle.has_lse();
        Report {
            output: nothing(Quantity::Output),
            lse: has_lse.then(|| nothing(Quantity::Lse)),
            u: None,
            state: None,
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
        if let Some(u) = &self.u {
            write!(f, "; u: {u}")?;
        }
        if let Some(state) = &self.state {
            write!(f, "; state: {state}")?;
        }
        write!(f, "; {} of {} rows compared", self.rows_checked, self.rows)
    }
}

impl Judgement {
    /// Whether the error is within the bound and nothing is broken.
    pub fn passed(&self) -> bool {
        self.error <= self.bound && self.broken.is_none()
    }

    fn share(&self) -> f64 {
        if self.broken.is_some() { f64::INFINITY } else { self.error / self.bound }
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

/// What decides how near results must be.
#[derive(Clone, Copy)]
struct Kind<'a> {
    mechanism: Mechanism<'a>,
    dtype: Dtype,
    precision: Precision,
}

impl<'a> Kind<'a> {
    fn of(oracle: &Oracle<'a>) -> Self {
        let (dtype, precision) = (oracle.dtype(), oracle.precision());
        Self { mechanism: oracle.variant().mechanism, dtype, precision }
    }
}

/// What is found in one run.
#[derive(Clone)]
struct Errors {
    quantity: Quantity,
    max_error: f64,
    max_oracle: f64,
    max_score: f64,
    broken: Option<Element>,
}

impl Errors {
    fn new(quantity: Quantity) -> Self {
        Self { quantity, max_error: 0.0, max_oracle: 0.0, max_score: 0.0, broken: None }
    }

    fn add(&mut self, element: Element) {
        let Element { found, oracle, .. } = element;
        let empty_sum = self.quantity == Quantity::Lse && oracle == f64::NEG_INFINITY;
        if found.is_finite() && oracle.is_finite() {
            self.max_error = self.max_error.max((found - oracle).abs());
            self.max_oracle = self.max_oracle.max(oracle.abs());
        } else if found.is_finite() != oracle.is_finite() || empty_sum && found != oracle {
            self.broken.get_or_insert(element);
        }
    }

    fn judge(self, run: Run, Kind { mechanism, dtype, precision }: Kind<'_>) -> Judgement {
        let denominator = bounds::denominator(self.quantity, self.max_oracle);
        Judgement {
            error: if self.max_error == 0.0 { 0.0 } else { self.max_error / denominator },
            bound: bounds::bound_of(&mechanism, self.quantity, dtype, precision, self.max_score),
            run,
            broken: self.broken,
        }
    }
}

fn check_outputs(oracle: &Oracle<'_>, outputs: &Outputs<'_>) -> Result<(), CompareError> {
    let ([batch, queries, _], variant) = (oracle.problem().extents(), oracle.variant());
    let shape = |n_heads: u32, width| [batch, n_heads, queries, width].map(|n: u32| n as usize);
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
    let expected = shape(variant.output_heads(), variant.heads.value_dim);
    fits("o", &outputs.o, expected, oracle.dtype())?;
    outputs.lse.iter().try_for_each(|lse| fits("lse", lse, shape(variant.heads.query, 1), Dtype::F32))?;
    let [_, _, keys] = oracle.problem().extents();
    let learned = [batch, variant.heads.query, keys, variant.heads.dim].map(|n| n as usize);
    outputs.u.iter().try_for_each(|u| fits("u", u, learned, Dtype::F32))?;
    let heads = &variant.heads;
    let of_states =
        |rows: u32, width: u32| [oracle.problem().batch, heads.value, rows, width].map(|n| n as usize);
    outputs.state.iter().try_for_each(|(state, norm)| {
        fits("state", state, of_states(heads.dim, heads.value_dim), Dtype::F32)?;
        norm.iter().try_for_each(|norm| fits("norm", norm, of_states(1, heads.dim), Dtype::F32))
    })
}
