//! `regard bench`: how fast kernels are, beside what the machine can do and what the plain way takes.

mod baseline;
mod cached;
mod generate;
mod header;
mod lines;
mod turns;

use std::io::Write;

use regard::ir::problem::Phase;
use regard::{Kernel, Machine, Options, Pool, Source, Spec, Threads, machine};
use regard_engine::detect;

use crate::args::{BenchArgs, BenchPhase};
use crate::execute::Execution;
use crate::failure::Failure;
use crate::peaks::{Limit, Peaks};
use crate::progress::{self, Progress};
use crate::run::pool;
use crate::source;
use crate::tensors::signature::{Bound, Layout};
use crate::timing::Timing;
use crate::verify::judge::{self, Judge};
use crate::verify::problem::{self, Size};
pub(crate) use baseline::NoBaseline;
use lines::{Line, Lines};
use turns::{beside_baseline, beside_kernel};

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

/// A kernel on tensors of the size that was asked for.
struct Subject<'a> {
    kernel: &'a Kernel,
    bound: Bound<'static>,
}

/// Measures the machine, then times each spec, checks what was timed, and prints a line for it.
///
/// # Errors
/// If spec, flags or memory do not allow it, and if a result is past its bound.
pub(crate) fn bench(args: &BenchArgs, out: &mut dyn Write) -> Result<(), Failure> {
    refuse_others(args)?;
    let size = match args.phase {
        BenchPhase::Call(Phase::Prefill) => size(args, Phase::Prefill)?,
        BenchPhase::Call(phase) => return cached::bench(args, (phase, size(args, phase)?), out),
        BenchPhase::Generate => return generate::bench(args, out),
    };
    let specs = args.specs.iter().map(|name| source::spec(name)).collect::<Result<Vec<_>, _>>()?;
    let kernels = specs.iter().map(|spec| compile(args, spec, args.kernel)).collect::<Result<Vec<_>, _>>()?;
    let other = args.against.as_deref().map(|name| compile(args, &source::spec(name)?, None)).transpose()?;
    // All were made for the same machine and flags, and so run on the same set.
    let Some(isa) = kernels.first().map(|kernel| kernel.plan().isa) else { return Ok(()) };
    let other = other.as_ref().map(|kernel| Subject::new(size, kernel)).transpose()?;
    let (machine, pool) = (machine::host(), pool(args.choice.threads)?);
    let peaks = Peaks::measure(&pool, &machine, isa)?;
    let place = Place { cpu: detect::processor(), machine, pool, peaks };
    if !args.json {
        header::write(out, &place, isa)?;
    }
    let mut lines = Lines::new(out, args)?;
    let progress = Progress::new("specs", kernels.len() as u64);
    for kernel in &kernels {
        let line = measure(args, &Subject::new(size, kernel)?, other.as_ref(), &place)?;
        progress::set_aside(|| lines.line(&line))?;
        progress.advance();
    }
    drop(progress);
    lines.end()
}

/// Queries of each sequence in a prefill that nobody gave a number of.
const PREFILL: usize = 1024;

/// Keys of each sequence in a cache that nobody gave a number of.
const CACHED: usize = 4096;

/// Whether no flag is given that says nothing to the phase.
fn refuse_others(args: &BenchArgs) -> Result<(), Failure> {
    const PREFILL: BenchPhase = BenchPhase::Call(Phase::Prefill);
    let (is_prefill, is_generate) = (args.phase == PREFILL, args.phase == BenchPhase::Generate);
    let flags = [
        ("--cache", args.cache.is_some() && is_prefill, "decode, few and generate"),
        ("--shared", args.shared.is_some() && (is_prefill || is_generate), "decode and few"),
        ("--baseline", args.baseline && !is_prefill, "prefill"),
        ("--against", args.against.is_some() && !is_prefill, "prefill"),
        ("--q", args.q.is_some() && is_generate, "prefill, few and decode"),
        ("--batch", args.batch != 1 && is_generate, "prefill, few and decode"),
        ("--repeat", args.repeat.is_some() && is_generate, "prefill, few and decode"),
    ];
    match flags.into_iter().find(|&(_, is_refused, _)| is_refused) {
        Some((flag, _, of)) => Err(Failure::OfAnotherPhase { flag, phase: args.phase.name(), of }),
        None => Ok(()),
    }
}

/// The size that is asked for, of what its phase takes.
fn size(args: &BenchArgs, phase: Phase) -> Result<Size, Failure> {
    let &BenchArgs { q, k, batch, .. } = args;
    let (queries, keys) = match phase {
        Phase::Prefill => (q.unwrap_or(PREFILL), k.or(q).unwrap_or(PREFILL)),
        Phase::Few | Phase::Decode => (crate::cached::queries(phase, q)?, k.unwrap_or(CACHED)),
    };
    match args.shared {
        Some(shared) if shared > keys => Err(Failure::SharedPastKeys { shared, keys }),
        _ => Ok(Size { batch, queries, keys }),
    }
}

/// Runs that take about [`SECONDS`] together, where one takes so long, unless somebody said how many.
fn runs(args: &BenchArgs, seconds: &[f64]) -> u32 {
    let one = seconds.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    args.repeat.unwrap_or(((SECONDS / one) as u32).clamp(*RUNS.start(), *RUNS.end()))
}

fn compile(args: &BenchArgs, spec: &Spec, source: Option<Source>) -> Result<Kernel, Failure> {
    let options = Options { dtype: args.dtype, isa: args.choice.isa, engine: args.engine, kernel: source };
    let kernel = Kernel::compile_with(spec, &machine::host(), options)
        .map_err(|error| Failure::Compile { spec: spec.name.clone(), error })?;
    match baseline::exists(&kernel) {
        Err(none) if args.baseline => Err(Failure::Baseline { spec: spec.name.clone(), none }),
        _ => Ok(kernel),
    }
}

impl<'a> Subject<'a> {
    fn new(size: Size, kernel: &'a Kernel) -> Result<Self, Failure> {
        let bound = problem::random(kernel.spec(), kernel.plan().dtype, size, Layout::Bhnd)?;
        Ok(Self { kernel, bound })
    }

    fn execution<'p>(&'p self, pool: &'p Pool, repeat: u32) -> Execution<'p> {
        Execution { kernel: self.kernel, pool, repeat: Some(repeat) }
    }
}

fn measure(
    args: &BenchArgs,
    subject: &Subject<'_>,
    other: Option<&Subject<'_>>,
    place: &Place,
) -> Result<Line, Failure> {
    let (Subject { kernel, bound }, pool) = (subject, &place.pool);
    let first = subject.execution(pool, 1).run(bound)?;
    let runs = runs(args, &first.seconds);
    let (outcome, beside) = match other {
        _ if args.baseline => beside_baseline(subject, pool, runs)?,
        Some(other) => beside_kernel(subject, other, pool, runs)?,
        None => (subject.execution(pool, runs).run(bound)?, None),
    };
    let captured = bound.captured();
    let (operands, positions) = (judge::operands(bound)?, judge::positions(kernel, bound)?);
    let of = (&operands[..], &captured[..]);
    let report = Judge::new(kernel, bound, of, &positions, pool)?.against_oracle(&outcome)?;
    let timing = Timing::new(kernel, bound, &outcome, pool.count());
    let schedule_failure = |error| Failure::Schedule { spec: kernel.spec().name.clone(), error };
    let schedule = kernel.schedule(&bound.problem(), &captured, pool.count()).map_err(schedule_failure)?;
    let predicted = kernel.predict(&schedule, &captured).map_err(schedule_failure)?;
    let limit = Limit::new(&timing.work, &place.peaks, timing.engine);
    let line = Line::new(timing, runs, &place.cpu, limit, (&report).into(), beside);
    Ok(line.predicted(predicted.map(|predicted| predicted.seconds)))
}
