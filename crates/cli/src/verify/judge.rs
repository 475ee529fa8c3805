//! What a kernel wrote, held against the oracle and against another implementation, part by part over all threads.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use regard::{Kernel, Pool, Threads};
use regard_ir::bounds;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::problem::OwnedProblem;
use regard_oracle::compare::{
    CompareError, Judgement, Outputs, Report, compare, compare_part, compare_part_to,
};
use regard_oracle::sample::Sample;
use regard_oracle::{Oracle, Start, Tensor4, Tensors};

use crate::execute::Outcome;
use crate::failure::Failure;
use crate::memory;
use crate::progress::Progress;
use crate::tensors::signature::Bound;
use crate::tensors::stored::{Stored, StoredStates};

/// What the rows of a large problem are drawn from.
const SAMPLE_SEED: u64 = 1;

/// The truth about one problem.
pub(crate) struct Judge<'a> {
    oracle: Oracle<'a>,
    sample: Sample,
    pool: &'a Pool,
}

/// The problem that tensors are bound to, in positions, of which a token may be several.
///
/// # Errors
/// If there are none of 32 bits.
pub(crate) fn positions(kernel: &Kernel, bound: &Bound<'_>) -> Result<OwnedProblem, Failure> {
    let fail = |error| Failure::Schedule { spec: kernel.spec().name.clone(), error };
    kernel.planned().positions(&bound.problem()).map_err(fail)
}

impl<'a> Judge<'a> {
    /// The truth about what `kernel` computes on `bound`, whose operands and captured inputs are given as they are viewed, and
    /// whose problem is `positions` as [`positions`] says.
    ///
    /// # Errors
    /// If there is no memory for the keys and values that the threads work on, or the tensors do not fit, which what
    /// is bound rules out.
    pub(crate) fn new(
        kernel: &'a Kernel,
        bound: &'a Bound<'_>,
        (operands, captured): (&'a [Tensor4<'a>], &'a [InputData<'a>]),
        positions: &'a OwnedProblem,
        pool: &'a Pool,
    ) -> Result<Self, Failure> {
        let (variant, problem) = (kernel.variant(), bound.problem());
        let captured =
            Captured::bind(variant.inputs, captured, &variant.heads, variant.source, &positions.view())
                .map_err(|error| Failure::Bug(error.to_string()))?;
        let gate = bound.gate.as_ref().map(view).transpose()?;
        let tensors = Tensors { operands, captured, gate };
        let oracle = Oracle::new(variant, problem, tensors)
            .map_err(|error| Failure::Bug(error.to_string()))?
            .with_precision(kernel.spec().precision);
        let oracle = match &bound.start {
            Some(StoredStates { state, norm }) => {
                oracle.starting(Start { state: view(state)?, norm: norm.as_ref().map(view).transpose()? })
            }
            None => oracle,
        };
        let at_once = oracle.parts().min(pool.count()) as u128;
        memory::ask("the oracle's keys and values", oracle.part_bytes().saturating_mul(at_once))?;
        let query_block = kernel.plan().prefill.query_block;
        Ok(Self { oracle, sample: Sample::new(&problem, &variant.heads, query_block, SAMPLE_SEED), pool })
    }

    /// How near the kernel is to the oracle.
    ///
    /// # Errors
    /// If there is no memory for a report of each part.
    pub(crate) fn against_oracle(&self, outcome: &Outcome) -> Result<Report, Failure> {
        let lse = outcome.lse.as_ref().map(view).transpose()?;
        let u = outcome.u.as_ref().map(view).transpose()?;
        let state = match &outcome.states {
            Some(StoredStates { state, norm }) => Some((view(state)?, norm.as_ref().map(view).transpose()?)),
            None => None,
        };
        let outputs = Outputs { o: view(&outcome.o)?, lse, u, state };
        let compared =
            self.each_part(|part| compare_part(&self.oracle, &outputs, &self.sample, part), Report::join);
        match compared? {
            Some(report) => Ok(report),
            // Without sequences or queries there is nothing to look at, and this is quick.
            None => compare(&self.oracle, &outputs, &self.sample).map_err(bug),
        }
    }

    /// How near the kernel is to another implementation, by the measure and bound that it is held to the oracle by.
    ///
    /// # Errors
    /// If there is no memory for a report of each part.
    pub(crate) fn against_expected(
        &self,
        outcome: &Outcome,
        expected: &Stored<'_>,
    ) -> Result<Judgement, Failure> {
        let (o, expected) = (view(&outcome.o)?, view(expected)?);
        let compare_part = |part| compare_part_to(&self.oracle, o, expected, &self.sample, part);
        let report = match self.each_part(compare_part, Report::join)? {
            Some(report) => report,
            None => compare(&self.oracle, &Outputs { o, lse: None, u: None, state: None }, &self.sample)
                .map_err(bug)?,
        };
        Ok(report.output)
    }

    /// How near the kernel is to the oracle where keys and values were rounded on their way: of each head the rms of what is
    /// wrong by that of what is right, and `bound` as larger scores widen it. Of the head that is the worst by its bound.
    ///
    /// # Errors
    /// As [`Judge::against_oracle`].
    pub(crate) fn rms_against_oracle(&self, outcome: &Outcome, bound: f64) -> Result<[f64; 2], Failure> {
        let o = view(&outcome.o)?;
        let worse = |a: [f64; 2], b: [f64; 2]| if a[0] / a[1] >= b[0] / b[1] { a } else { b };
        let judged = self.each_part(
            |part| {
                let part = self.oracle.part(part);
                let (of, heads) = (part.rows(), part.output_heads());
                let mut sums = vec![[0.0; 2]; heads.len()];
                let mut max_score = bounds::SCORES;
                for i in 0..of.queries as usize {
                    let row = part.row(i)?;
                    max_score = row.max_scores.iter().copied().fold(max_score, f64::max);
                    for ((head, right), [wrong, all]) in heads.clone().zip(row.o).zip(&mut sums) {
                        let found = o.row(of.batch as usize, head, of.first_query as usize + i);
                        for (found, right) in found.into_iter().zip(right) {
                            *wrong += (found - right).powi(2);
                            *all += right.powi(2);
                        }
                    }
                }
                let error = |[wrong, all]: [f64; 2]| match (wrong / all).sqrt() {
                    // Nothing is to be seen, and nothing is given.
                    _ if wrong == 0.0 => 0.0,
                    error if error.is_finite() => error,
                    _ => f64::INFINITY,
                };
                let bound = bound * max_score / bounds::SCORES;
                Ok(sums.into_iter().map(|sums| [error(sums), bound]).fold([0.0, bound], worse))
            },
            worse,
        )?;
        Ok(judged.unwrap_or([0.0, bound]))
    }

    /// Joins what is found of all parts, which all threads share, if there are queries and sequences.
    fn each_part<R: Send + Sync>(
        &self,
        compare_part: impl Fn(usize) -> Result<R, CompareError> + Sync,
        join: impl Fn(R, R) -> R,
    ) -> Result<Option<R>, Failure> {
        if self.oracle.problem().queries == 0 {
            return Ok(None);
        }
        let n = self.oracle.parts();
        let mut results = memory::reserved("the comparison of each head", n as u128)?;
        results.resize_with(n, OnceLock::new);
        let progress = Progress::new("heads compared", n as u64);
        let next = AtomicUsize::new(0);
        self.pool.run(&|_| {
            loop {
                let part = next.fetch_add(1, Ordering::Relaxed);
                let Some(result) = results.get(part) else { return };
                result.get_or_init(|| compare_part(part));
                progress.advance();
            }
        });
        let reports = results.into_iter().filter_map(OnceLock::into_inner);
        reports.reduce(|a, b| Ok(join(a?, b?))).transpose().map_err(bug)
    }
}

/// The operands of a problem, as the oracle takes them.
///
/// # Errors
/// If one is not as long as its shape says, which what is bound rules out.
pub(crate) fn operands<'s>(bound: &'s Bound<'_>) -> Result<Vec<Tensor4<'s>>, Failure> {
    bound.operands.iter().map(view).collect()
}

fn bug(error: CompareError) -> Failure {
    Failure::Bug(error.to_string())
}

fn view<'s>(stored: &'s Stored<'_>) -> Result<Tensor4<'s>, Failure> {
    stored.view().map_err(|error| Failure::Bug(error.to_string()))
}
