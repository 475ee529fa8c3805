//! `regard plan`: how a spec will run on a machine, and why so.

use std::io::Write;
use std::time::Instant;

use regard::{Kernel, Options, PlanReport, Planned, Prediction, Problem};
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
    /// Where the rates of the machine at hand come from; absent for another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    calibration: Option<String>,
    /// Absent where the kernel cannot be built on this processor.
    workspace_bytes: Option<usize>,
    /// Declared tensors that the mask reads and whose contents the schedule does not know.
    unknown: Vec<&'a str>,
    plan_s: f64,
    schedule_s: f64,
}

/// Prints plan and schedule.
///
/// # Errors
/// If spec, machine or flags do not make a plan, or the problem has no schedule.
pub(crate) fn plan(args: &PlanArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if args.phase != Phase::Prefill {
        return Err(Failure::Phase(args.phase));
    }
    let spec = source::spec(&args.spec)?;
    let (machine, calibration) = machines::detected(args.machine.as_deref())?;
    let mut problem = Problem::prefill(spec.source, args.batch, args.q, args.k.unwrap_or(args.q))?;
    if let Some(q_offset) = args.offset.q_offset {
        problem = problem.with_q_offset(q_offset)?;
    }
    let options =
        Options { dtype: args.dtype, isa: args.choice.isa, engine: args.engine, ..Options::default() };
    let compile = |error| Failure::Compile { spec: spec.name.clone(), error };
    let schedule = |error| Failure::Schedule { spec: spec.name.clone(), error };

    let start = Instant::now();
    let planned = Planned::new(&spec, &machine, options).map_err(compile)?;
    let plan_s = start.elapsed().as_secs_f64();
    let unknown = source::read_by_mask(&spec).map(|at| spec.inputs.names[at].as_str()).collect();
    // Tensors that the mask does not read change no tile.
    let threads = args.choice.threads.unwrap_or(machine.cores as usize);
    let start = Instant::now();
    let tasks = planned.tasks(&problem, None, threads).map_err(schedule)?;
    let schedule_s = start.elapsed().as_secs_f64();

    let overview = planned.overview(&tasks, None).map_err(schedule)?;
    let shown = Shown {
        plan: planned.report(),
        problem,
        schedule: overview,
        predicted: planned.predict(&tasks, None, &overview).map_err(schedule)?,
        calibration: calibration.as_ref().map(calibrate::source),
        workspace_bytes: workspace_bytes(&planned, &problem, threads),
        unknown,
        plan_s,
        schedule_s,
    };
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&shown)?)?;
        return Ok(());
    }
    text(&shown, out)
}

fn text(shown: &Shown<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let Problem { phase, batch, queries, keys, q_offset, packed: _, part: _ } = shown.problem;
    writeln!(out, "{}", shown.plan)?;
    writeln!(
        out,
        "schedule of {}: {batch}x{queries}x{keys}, first query at position {q_offset}",
        phase.name()
    )?;
    write!(out, "{}", shown.schedule)?;
    if let Some(predicted) = shown.predicted {
        writeln!(out, "predicted = {}, from {} rates", Seconds(predicted.seconds), predicted.rates.name())?;
    }
    match shown.workspace_bytes {
        Some(bytes) => writeln!(out, "workspace = {}", Bytes(bytes as u128))?,
        None => writeln!(
            out,
            "workspace = not known here: this processor does not run {}",
            shown.plan.plan.isa.name()
        )?,
    }
    if !shown.unknown.is_empty() {
        let names = shown.unknown.join("`, `");
        writeln!(
            out,
            "note: the mask reads `{names}`, whose contents are not known here: what depends on them counts as partial"
        )?;
    }
    if let Some(calibration) = &shown.calibration {
        writeln!(out, "note: {calibration}")?;
    }
    writeln!(out, "planned in {}, scheduled in {}", Seconds(shown.plan_s), Seconds(shown.schedule_s))?;
    Ok(())
}

/// Workspace of a run here; `None` where this processor cannot run the plan.
pub(crate) fn workspace_bytes(planned: &Planned, problem: &Problem<'_>, threads: usize) -> Option<usize> {
    Some(Kernel::build(planned.clone()).ok()?.workspace_bytes(problem, threads))
}
