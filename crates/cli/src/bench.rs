//! `regard bench`: how fast kernels are, beside what the machine can do and what the plain way takes.

mod baseline;
mod header;
mod lines;

use std::io::Write;

use regard::{Kernel, Machine, Options, Pool, Spec, Threads, machine};

use crate::args::BenchArgs;
use crate::execute::{Execution, Outcome};
use crate::failure::Failure;
use crate::host;
use crate::memory;
use crate::peaks::Peaks;
use crate::progress::{self, Progress};
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

/// Where kernels run, and what it can do.
struct Place {
    cpu: String,
    machine: Machine,
    pool: Pool,
    peaks: Peaks,
}

/// Measures the machine, then times each spec, checks what was timed, and prints a line for it.
///
/// # Errors
/// If spec, flags or memory do not allow it, and if a result is past its bound.
pub(crate) fn bench(args: &BenchArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let specs = args.specs.iter().map(|name| source::spec(name)).collect::<Result<Vec<_>, _>>()?;
    let kernels = specs.iter().map(|spec| compile(args, spec)).collect::<Result<Vec<_>, _>>()?;
    // All were made for the same machine and flags, and so run on the same set.
    let Some(isa) = kernels.first().map(|kernel| kernel.plan().isa) else { return Ok(()) };
    let (machine, pool) = (machine::host(), pool(args.choice.threads)?);
    let peaks = Peaks::measure(&pool, &machine, isa)?;
    let place = Place { cpu: host::processor(), machine, pool, peaks };
    if !args.json {
        header::write(out, &place, isa)?;
    }
    let mut lines = Lines::new(out, args)?;
    let progress = Progress::new("specs", kernels.len() as u64);
    for kernel in &kernels {
        let line = measure(args, kernel, &place)?;
        progress::set_aside(|| lines.line(&line))?;
        progress.advance();
    }
    drop(progress);
    lines.end()
}

fn compile(args: &BenchArgs, spec: &Spec) -> Result<Kernel, Failure> {
    let options =
        Options { dtype: args.dtype, isa: args.choice.isa, engine: args.engine, kernel: args.kernel };
    let kernel = Kernel::compile_with(spec, &machine::host(), options)
        .map_err(|error| Failure::Compile { spec: spec.name.clone(), error })?;
    match baseline::exists(&kernel) {
        Err(none) if args.baseline => Err(Failure::Baseline { spec: spec.name.clone(), none }),
        _ => Ok(kernel),
    }
}

fn measure(args: &BenchArgs, kernel: &Kernel, place: &Place) -> Result<Line, Failure> {
    let pool = &place.pool;
    let size = Size { batch: args.batch, queries: args.q, keys: args.k.unwrap_or(args.q) };
    let bound = problem::random(kernel.spec(), kernel.plan().dtype, size, Layout::Bhnd)?;
    let execution = |repeat| Execution { kernel, pool, repeat: Some(repeat) };

    let first = execution(1).run(&bound)?;
    let one = first.seconds.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let runs = args.repeat.unwrap_or(((SECONDS / one) as u32).clamp(*RUNS.start(), *RUNS.end()));
    let (outcome, against) = match args.baseline {
        false => (execution(runs).run(&bound)?, None),
        true => alternate(kernel, &bound, pool, runs)?,
    };
    let captured = bound.captured();
    let report = Judge::new(kernel, &bound, &captured, pool)?.against_oracle(&outcome)?;
    let timing = Timing::new(kernel, &bound, &outcome, pool.count());
    Ok(Line::new(timing, runs, place, &report, against))
}

/// Kernel and baseline in turn, so that what else the machine does falls on both.
fn alternate(
    kernel: &Kernel,
    bound: &Bound<'_>,
    pool: &Pool,
    runs: u32,
) -> Result<(Outcome, Option<Against>), Failure> {
    let sixteen_bits = || Failure::Bug("a baseline was run beside 16-bit storage".to_owned());
    let (StoredElements::F32(q), StoredElements::F32(k), StoredElements::F32(v)) =
        (&bound.q.elements, &bound.k.elements, &bound.v.elements)
    else {
        return Err(sixteen_bits());
    };
    let baseline = Baseline::new(kernel, &bound.problem(), [q, k, v], pool.count())?;
    let execution = Execution { kernel, pool, repeat: Some(1) };
    let mut seconds = memory::reserved("the times", runs as u128)?;
    let mut ratios = memory::reserved("the ratios", runs as u128)?;
    baseline.run(pool);
    let mut outcome = execution.run(bound)?;
    let progress = Progress::new("runs in turn", runs.into());
    for _ in 0..runs {
        let ours = execution.run(bound)?;
        let theirs = baseline.run(pool);
        ratios.extend(ours.seconds.iter().map(|ours| theirs / ours));
        seconds.extend_from_slice(&ours.seconds);
        outcome = ours;
        progress.advance();
    }
    outcome.seconds = seconds;
    ratios.sort_by(f64::total_cmp);
    let StoredElements::F32(o) = &outcome.o.elements else { return Err(sixteen_bits()) };
    let against = Against { ratio: median(&ratios), error: baseline.error(o) };
    Ok((outcome, Some(against)))
}
