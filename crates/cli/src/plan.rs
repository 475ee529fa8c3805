//! `regard plan`: how a spec will run on a machine, and why so.

mod cached;

use std::io::Write;
use std::time::Instant;

use regard::machine::Calibration;
use regard::{Isa, Kernel, Options, PlanReport, Planned, Prediction, Problem, ScheduleError, Spec};
use regard_ir::plan::ScheduleOverview;
use regard_ir::problem::Phase;
use serde::Serialize;

use crate::args::PlanArgs;
use crate::calibrate;
use crate::failure::Failure;
use crate::machines;
use crate::memory::Bytes;
use crate::source;
use crate::timing::Seconds;

/// What is printed, as JSON has it.
#[derive(Serialize)]
struct Shown<'a> {
    plan: &'a PlanReport,
    problem: Problem<'static>,
    schedule: ScheduleOverview,
    /// The time that it will take, by the rates that the plan's machine has.
    predicted: Option<Prediction>,
    #[serde(flatten)]
    aside: Aside<'a>,
    plan_s: f64,
    schedule_s: f64,
}

/// What a plan is made from.
struct Made {
    planned: Planned,
    calibration: Option<Calibration>,
    threads: usize,
    plan_s: f64,
}

/// What else is said of a call, whatever it does.
#[derive(Serialize)]
struct Aside<'a> {
    /// Where the rates of the machine at hand come from; absent for another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    calibration: Option<String>,
    /// Absent where the kernel cannot be built on this processor.
    workspace_bytes: Option<usize>,
    /// Declared tensors that the mask reads and whose contents are not known.
    unknown: Vec<&'a str>,
}

/// Prints the plan, and the schedule of a prefill or what a call on a cache does.
///
/// # Errors
/// If spec, machine or flags do not make a plan, or the problem has no schedule.
pub(crate) fn plan(args: &PlanArgs, out: &mut dyn Write) -> Result<(), Failure> {
    match args.phase {
        Phase::Prefill => prefill(args, out),
        Phase::Few | Phase::Decode => cached::plan(args, out),
    }
}

fn prefill(args: &PlanArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let expects = "how many queries each sequence has";
    let queries = args.q.ok_or(Failure::NoLength { flag: "--q", phase: args.phase, expects })?;
    let spec = source::spec(&args.spec)?;
    let mut problem = Problem::prefill(spec.source, args.batch, queries, args.k.unwrap_or(queries))?;
    if let Some(q_offset) = args.offset.q_offset {
        problem = problem.with_q_offset(q_offset)?;
    }
    let made = Made::new(args, &spec)?;
    let Made { planned, threads, .. } = &made;
    let refused = |error: ScheduleError| schedule_failure(&spec, error);
    // Tensors that the mask does not read change no tile.
    let start = Instant::now();
    let tasks = planned.tasks(&problem, None, *threads).map_err(refused)?;
    let schedule_s = start.elapsed().as_secs_f64();

    let overview = planned.overview(&tasks, None).map_err(refused)?;
    let shown = Shown {
        plan: planned.report(),
        problem,
        schedule: overview,
        predicted: planned.predict(&tasks, None, &overview).map_err(refused)?,
        aside: made.aside(workspace_bytes(planned, &problem, *threads)),
        plan_s: made.plan_s,
        schedule_s,
    };
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&shown)?)?;
        return Ok(());
    }
    text(&shown, out)
}

fn schedule_failure(spec: &Spec, error: ScheduleError) -> Failure {
    Failure::Schedule { spec: spec.name.clone(), error }
}

fn text(shown: &Shown<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let Problem { phase, batch, queries, keys, q_offset, packed: _, part: _ } = shown.problem;
    writeln!(out, "{}", shown.plan)?;
    writeln!(
        out,
        "schedule of {}: {batch}x{queries}x{keys}, first query at position {q_offset}",
        phase.name()
    )?;
    match shown.plan.plan.recurrence {
        None => write!(out, "{}", shown.schedule)?,
        // Of queries and keys no pair is made.
        Some(_) => {
            let ScheduleOverview { tasks, threads, recurrence, .. } = shown.schedule;
            writeln!(out, "tasks     = {tasks} for {threads} thread{}", if threads == 1 { "" } else { "s" })?;
            recurrence.map_or(Ok(()), |shares| write!(out, "{shares}"))?
        }
    }
    if let Some(predicted) = shown.predicted {
        writeln!(out, "predicted = {}, from {} rates", Seconds(predicted.seconds), predicted.rates.name())?;
    }
    shown.aside.text(shown.plan.plan.isa, out)?;
    writeln!(out, "planned in {}, scheduled in {}", Seconds(shown.plan_s), Seconds(shown.schedule_s))?;
    Ok(())
}

impl Made {
    /// Plans `spec` as the flags say.
    fn new(args: &PlanArgs, spec: &Spec) -> Result<Self, Failure> {
        let (machine, calibration) = machines::detected(args.machine.as_deref())?;
        let options =
            Options { dtype: args.dtype, isa: args.choice.isa, engine: args.engine, ..Options::default() };
        let start = Instant::now();
        let planned = Planned::new(spec, &machine, options)
            .map_err(|error| Failure::Compile { spec: spec.name.clone(), error })?;
        let plan_s = start.elapsed().as_secs_f64();
        let threads = args.choice.threads.unwrap_or(machine.cores as usize);
        Ok(Self { planned, calibration, threads, plan_s })
    }

    fn aside(&self, workspace_bytes: Option<usize>) -> Aside<'_> {
        let spec = self.planned.spec();
        Aside {
            calibration: self.calibration.as_ref().map(calibrate::source),
            workspace_bytes,
            unknown: source::read_by_mask(spec).map(|at| spec.inputs.names[at].as_str()).collect(),
        }
    }
}

impl Aside<'_> {
    fn text(&self, isa: Isa, out: &mut dyn Write) -> Result<(), Failure> {
        match self.workspace_bytes {
            Some(bytes) => writeln!(out, "workspace = {}", Bytes(bytes as u128))?,
            None => writeln!(out, "workspace = not known here: this processor does not run {}", isa.name())?,
        }
        if !self.unknown.is_empty() {
            let names = self.unknown.join("`, `");
            writeln!(
                out,
                "note: the mask reads `{names}`, whose contents are not known here: what depends on them counts as partial"
            )?;
        }
        if let Some(calibration) = &self.calibration {
            writeln!(out, "note: {calibration}")?;
        }
        Ok(())
    }
}

/// Workspace of a run here; `None` where this processor cannot run the plan.
pub(crate) fn workspace_bytes(planned: &Planned, problem: &Problem<'_>, threads: usize) -> Option<usize> {
    Some(Kernel::build(planned.clone()).ok()?.workspace_bytes(problem, threads))
}
