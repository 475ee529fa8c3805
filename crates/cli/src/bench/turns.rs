//! A kernel and something else in turn, so that what the machine does besides falls on both.

use regard::{Pool, Threads};

use super::Subject;
use super::baseline::Baseline;
use super::lines::Beside;
use crate::execute::Outcome;
use crate::failure::Failure;
use crate::memory;
use crate::progress::Progress;
use crate::tensors::stored::StoredElements;
use crate::timing::median;

/// Runs of a kernel, and how they compare.
type Compared = (Outcome, Option<Beside>);

/// The kernel and the plain way.
pub(super) fn beside_baseline(subject: &Subject<'_>, pool: &Pool, runs: u32) -> Result<Compared, Failure> {
    let sixteen_bits = || Failure::Bug("a baseline was run beside 16-bit storage".to_owned());
    let Subject { kernel, bound } = subject;
    let floats = bound.operands.iter().map(|stored| match &stored.elements {
        StoredElements::F32(data) => Ok(&data[..]),
        _ => Err(sixteen_bits()),
    });
    let floats = floats.collect::<Result<Vec<_>, _>>()?;
    let &[q, k, v] = &floats[..] else {
        return Err(Failure::Bug("a baseline was run beside another mechanism".to_owned()));
    };
    let baseline = Baseline::new(kernel, &bound.problem(), [q, k, v], pool.count())?;
    baseline.run(pool);
    let (outcome, ratios) = alternate(subject, pool, runs, || Ok(baseline.run(pool)))?;
    let StoredElements::F32(o) = &outcome.o.elements else { return Err(sixteen_bits()) };
    let beside = Beside::Baseline { times_as_long: 1.0 / median(&ratios), error: baseline.error(o) };
    Ok((outcome, Some(beside)))
}

/// The kernel and another one.
pub(super) fn beside_kernel(
    subject: &Subject<'_>,
    other: &Subject<'_>,
    pool: &Pool,
    runs: u32,
) -> Result<Compared, Failure> {
    let theirs = || Ok(other.execution(pool, 1).run(&other.bound)?.seconds.iter().sum());
    let (outcome, ratios) = alternate(subject, pool, runs, theirs)?;
    let at = |part: f64| ratios.get((part * ratios.len() as f64) as usize).copied().unwrap_or(0.0);
    let beside = Beside::Kernel {
        spec: other.kernel.spec().name.clone(),
        kernel: other.kernel.source().name(),
        ratio: median(&ratios),
        quartiles: [at(0.25), at(0.75)],
    };
    Ok((outcome, Some(beside)))
}

/// Gives the ratios of the kernel's times to `theirs` too, sorted.
fn alternate(
    subject: &Subject<'_>,
    pool: &Pool,
    runs: u32,
    mut theirs: impl FnMut() -> Result<f64, Failure>,
) -> Result<(Outcome, Vec<f64>), Failure> {
    let execution = subject.execution(pool, 1);
    let mut seconds = memory::reserved("the times", runs as u128)?;
    let mut ratios = memory::reserved("the ratios", runs as u128)?;
    let mut outcome = execution.run(&subject.bound)?;
    let progress = Progress::new("runs in turn", runs.into());
    for _ in 0..runs {
        outcome = execution.run(&subject.bound)?;
        let theirs = theirs()?;
        ratios.extend(outcome.seconds.iter().map(|ours| ours / theirs));
        seconds.extend_from_slice(&outcome.seconds);
        progress.advance();
    }
    outcome.seconds = seconds;
    ratios.sort_by(f64::total_cmp);
    Ok((outcome, ratios))
}
