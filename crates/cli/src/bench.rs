//! `regard bench`: how fast kernels are, beside what the machine can do and what the plain way takes.

mod baseline;
mod lines;
mod peak;

use std::io::Write;

use regard::{Kernel, Options, Pool, Spec, Threads, machine};

use crate::args::BenchArgs;
use crate::execute::{Execution, Outcome};
use crate::failure::Failure;
use crate::memory;
use crate::run::pool;
use crate::source;
use crate::tensors::signature::{Bound, Layout, StoredElements};
use crate::timing::{Timing, median};
use crate::verify::judge::Judge;
use crate::verify::problem::{self, Size};
use baseline::Baseline;
pub(crate) use baseline::NoBaseline;
use lines::{Against, Line, Lines};

/// Seconds that the runs of one spec are meant to take together.
const SECONDS: f64 = 1.0;

/// Runs that are timed at least and at most.
const RUNS: std::ops::RangeInclusive<u32> = 5..=1000;

/// Times each spec, checks what was timed, and prints a line for it.
///
/// # Errors
/// If spec, flags or memory do not allow it, and if a result is past its bound.
pub(crate) fn bench(args: &BenchArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let specs = args.specs.iter().map(|name| source::spec(name)).collect::<Result<Vec<_>, _>>()?;
    let pool = pool(args.choice.threads)?;
    let mut lines = Lines::new(out, args.json)?;
    for spec in &specs {
        lines.line(&measure(args, spec, &pool)?)?;
    }
    lines.end()
}

fn measure(args: &BenchArgs, spec: &Spec, pool: &Pool) -> Result<Line, Failure> {
    let options =
        Options { dtype: args.dtype, isa: args.choice.isa, engine: args.engine, kernel: args.kernel };
    let kernel = Kernel::compile_with(spec, &machine::host(), options)
        .map_err(|error| Failure::Compile { spec: spec.name.clone(), error })?;
    let size = Size { batch: args.batch, queries: args.q, keys: args.k.unwrap_or(args.q) };
    let bound = problem::random(spec, kernel.plan().dtype, size, Layout::Bhnd)?;
    let execution = |repeat| Execution { kernel: &kernel, pool, layout: Layout::Bhnd, repeat: Some(repeat) };

    let first = execution(1).run(&bound)?;
    let one = first.seconds.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let runs = args.repeat.unwrap_or(((SECONDS / one) as u32).clamp(*RUNS.start(), *RUNS.end()));
    let peak = peak::fma_gflops(pool, kernel.plan().isa);
    let (outcome, against) = match args.baseline {
        false => (execution(runs).run(&bound)?, None),
        true => alternate(&kernel, &bound, pool, runs)?,
    };
    let captured = bound.captured();
    let report = Judge::new(&kernel, &bound, &captured, pool)?.against_oracle(&outcome)?;
    let timing = Timing::new(&kernel, &bound, &outcome, pool.count(), Layout::Bhnd);
    Ok(Line::new(timing, runs, peak, &report, against))
}

/// Kernel and baseline in turn, so that what else the machine does falls on both.
fn alternate(
    kernel: &Kernel,
    bound: &Bound<'_>,
    pool: &Pool,
    runs: u32,
) -> Result<(Outcome, Option<Against>), Failure> {
    let baseline = match Baseline::new(kernel, bound, pool.count())? {
        Ok(baseline) => baseline,
        Err(none) => return Err(Failure::Baseline { spec: kernel.spec().name.clone(), none }),
    };
    let execution = Execution { kernel, pool, layout: Layout::Bhnd, repeat: Some(1) };
    let mut seconds = memory::reserved("the times", runs as u128)?;
    let mut ratios = memory::reserved("the ratios", runs as u128)?;
    baseline.run(pool);
    let mut outcome = execution.run(bound)?;
    for _ in 0..runs {
        let ours = execution.run(bound)?;
        let theirs = baseline.run(pool);
        ratios.extend(ours.seconds.iter().map(|ours| theirs / ours));
        seconds.extend_from_slice(&ours.seconds);
        outcome = ours;
    }
    outcome.seconds = seconds;
    ratios.sort_by(f64::total_cmp);
    let error = match &outcome.o.elements {
        StoredElements::F32(o) => baseline.error(o),
        _ => return Err(Failure::Bug("a baseline was run beside 16-bit storage".to_owned())),
    };
    Ok((outcome, Some(Against { ratio: median(&ratios), error })))
}
