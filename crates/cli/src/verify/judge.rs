//! What a kernel wrote, held against the oracle and against another implementation, head by head over all threads.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use regard::{Kernel, Pool, Threads};
use regard_ir::bounds::{self, Quantity};
use regard_ir::inputs::{Captured, InputData};
use regard_oracle::compare::{CompareError, Element, Judgement, Outputs, Report, Run, compare, compare_head};
use regard_oracle::eval::IndexError;
use regard_oracle::sample::Sample;
use regard_oracle::{Oracle, Tensor4, Tensors};

use crate::execute::Outcome;
use crate::failure::Failure;
use crate::memory;
use crate::progress::Progress;
use crate::tensors::signature::{Bound, Stored};

/// What the rows of a large problem are drawn from.
const SAMPLE_SEED: u64 = 1;

/// The truth about one problem.
pub(crate) struct Judge<'a> {
    oracle: Oracle<'a>,
    sample: Sample,
    pool: &'a Pool,
}

impl<'a> Judge<'a> {
    /// The truth about what `kernel` computes on `bound`, whose declared inputs are `captured`.
    ///
    /// # Errors
    /// If the tensors do not fit, which what is bound rules out.
    pub(crate) fn new(
        kernel: &'a Kernel,
        bound: &'a Bound<'_>,
        captured: &'a [InputData<'a>],
        pool: &'a Pool,
    ) -> Result<Self, Failure> {
        let (variant, problem) = (kernel.variant(), bound.problem);
        let captured = Captured::bind(variant.inputs, captured, &variant.heads, variant.source, &problem)
            .map_err(|error| Failure::Bug(error.to_string()))?;
        let tensors =
            Tensors { q: view(&bound.q)?, k: view(&bound.k)?, v: view(&bound.v)?, captured, sink: &[] };
        let oracle =
            Oracle::new(variant, problem, tensors).map_err(|error| Failure::Bug(error.to_string()))?;
        let query_block = kernel.plan().prefill.query_block;
        Ok(Self { oracle, sample: Sample::new(&problem, &variant.heads, query_block, SAMPLE_SEED), pool })
    }

    /// How near the kernel is to the oracle.
    ///
    /// # Errors
    /// If there is no memory for a report of each head.
    pub(crate) fn against_oracle(&self, outcome: &Outcome) -> Result<Report, Failure> {
        let outputs = Outputs { o: view(&outcome.o)?, lse: outcome.lse.as_ref().map(view).transpose()? };
        let fail = |error: CompareError| Failure::Bug(error.to_string());
        let reports = self.each_head(|b, h| compare_head(&self.oracle, &outputs, &self.sample, b, h))?;
        let joined = reports.into_iter().reduce(|a, b| Ok(a?.join(b?)));
        // Without sequences or queries there is no head to look at, and this is quick.
        joined.unwrap_or_else(|| compare(&self.oracle, &outputs, &self.sample)).map_err(fail)
    }

    /// How near the kernel is to another implementation, by the measure and bound that it is held to the oracle by.
    ///
    /// # Errors
    /// If there is no memory for a judgement of each head.
    pub(crate) fn against_expected(
        &self,
        outcome: &Outcome,
        expected: &Stored<'_>,
    ) -> Result<Judgement, Failure> {
        let (found, expected) = (view(&outcome.o)?, view(expected)?);
        let mut worst = self.judgement(Difference::default(), Run { b: 0, h: 0, rows: 0..0 });
        for head in self.each_head(|b, h| self.head_against(&found, &expected, b, h))? {
            for judgement in head.map_err(|error| Failure::Bug(error.to_string()))? {
                let broken = worst.broken.or(judgement.broken);
                if judgement.error / judgement.bound > worst.error / worst.bound {
                    worst = judgement;
                }
                worst.broken = broken;
            }
        }
        Ok(worst)
    }

    fn head_against(
        &self,
        found: &Tensor4<'_>,
        expected: &Tensor4<'_>,
        b: usize,
        h: usize,
    ) -> Result<Vec<Judgement>, IndexError> {
        let rows = self.sample.rows(b, h);
        let runs = rows.chunk_by(|a, b| a / bounds::ROWS == b / bounds::ROWS);
        let judged = runs.map(|run_rows| {
            let mut difference = Difference::default();
            for &i in run_rows {
                difference.max_score = difference.max_score.max(self.oracle.row(b, h, i)?.max_score);
                let pairs = found.row(b, h, i).into_iter().zip(expected.row(b, h, i));
                for (channel, (found, expected)) in pairs.enumerate() {
                    difference.add(Element { at: [b, h, i, channel], found, oracle: expected });
                }
            }
            let start = run_rows[0] / bounds::ROWS * bounds::ROWS;
            let end = (start + bounds::ROWS).min(found.shape()[2]);
            Ok(self.judgement(difference, Run { b, h, rows: start..end }))
        });
        judged.collect()
    }

    fn judgement(&self, difference: Difference, run: Run) -> Judgement {
        let Difference { max_error, max_expected, max_score, broken } = difference;
        let denominator = bounds::denominator(Quantity::Output, max_expected);
        Judgement {
            error: if max_error == 0.0 { 0.0 } else { max_error / denominator },
            bound: bounds::exact(Quantity::Output, self.oracle.dtype(), max_score),
            run,
            broken,
        }
    }

    /// Calls `f` for each head of each sequence that has queries, on all threads; results are in order.
    fn each_head<R: Send + Sync>(&self, f: impl Fn(usize, usize) -> R + Sync) -> Result<Vec<R>, Failure> {
        let (problem, n_heads) = (self.oracle.problem(), self.oracle.variant().heads.query as usize);
        if problem.queries == 0 {
            return Ok(Vec::new());
        }
        let n = problem.batch as usize * n_heads;
        let mut results = memory::reserved("the comparison of each head", n as u128)?;
        results.resize_with(n, OnceLock::new);
        let progress = Progress::new("heads compared", n as u64);
        let next = AtomicUsize::new(0);
        self.pool.run(&|_| {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(result) = results.get(at) else { return };
                result.get_or_init(|| f(at / n_heads, at % n_heads));
                progress.advance();
            }
        });
        Ok(results.into_iter().filter_map(OnceLock::into_inner).collect())
    }
}

/// How far two outputs are apart in a run of rows.
#[derive(Default)]
struct Difference {
    max_error: f64,
    max_expected: f64,
    max_score: f64,
    /// The first element that is finite on one side alone.
    broken: Option<Element>,
}

impl Difference {
    fn add(&mut self, element: Element) {
        let Element { found, oracle: expected, .. } = element;
        if found.is_finite() && expected.is_finite() {
            self.max_error = self.max_error.max((found - expected).abs());
            self.max_expected = self.max_expected.max(expected.abs());
        } else if found.is_finite() != expected.is_finite() {
            self.broken.get_or_insert(element);
        }
    }
}

fn view<'s>(stored: &'s Stored<'_>) -> Result<Tensor4<'s>, Failure> {
    stored.view().map_err(|error| Failure::Bug(error.to_string()))
}
