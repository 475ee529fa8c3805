//! Runs cases and judges them: through `regard` as a user would, or through the runtime with blocks of one's choice.

use core::fmt;
use core::ops::Range;

use regard::{
    CompileError, Ending, Kernel, Options, Part, RunError, Schedule, Source, Threads, ViewMut, Workspace,
    machine,
};
use regard_engine::Engine;
use regard_engine::any::{self, Visit};
use regard_engine::catalog::Entry;
use regard_engine::isa::scalar::Scalar;
use regard_ir::cache::{Codec, PageFormat};
use regard_ir::interval::Unknown;
use regard_ir::operands::Rows;
use regard_ir::plan::{Blocks, Dtype, LatentCosts, LatentPlan, Plan, Precision, RecurrencePlan, Split};
use regard_ir::spec::Spec;
use regard_ir::variant::{Mechanism, Variant};
use regard_launch::{self as launch, LaunchError, VariantCode};
use regard_oracle::Known;
use regard_oracle::compare::{CompareError, Report};
use regard_oracle::sample::Sample;
use regard_planner::pieces;
use regard_runtime::code::AnyCode;
use regard_runtime::flash::{self, Parts};
use regard_runtime::interpreter::LaneProgram;
use regard_runtime::schedule::{OwnedSchedule, Share, Work};
use regard_testkit::{Case, Failure, Inputs, Outputs};

use crate::cut;
use crate::poisoned::Poisoned;
use crate::states::States;
use crate::views::{places, view, views};

/// The kernel of a spec for this machine, with an engine on an instruction set of it; with fast precision where the engine
/// has no exact one for the storage type.
///
/// Generated code is that of specs which ship, so that loaded code has its tests: others may have the mask and modifier of one that
/// does, and that both give the same bits has a test of its own.
///
/// # Panics
/// If it cannot be compiled.
pub fn compile(spec: &Spec, entry: &Entry, dtype: Dtype) -> Kernel {
    let ships = regard_kernels::find::<Scalar>(spec.identity).is_some();
    let source = if ships { None } else { Some(Source::Loaded) };
    compile_from(source, spec, entry, dtype).unwrap_or_else(|error| panic!("{}: {error}", spec.name))
}

/// The same from a source of one's choice.
///
/// # Errors
/// If it cannot be compiled, or there is none from there.
pub fn compile_from(
    source: Option<Source>,
    spec: &Spec,
    entry: &Entry,
    dtype: Dtype,
) -> Result<Kernel, CompileError> {
    let options =
        Options { dtype: Some(dtype), isa: Some(entry.isa), engine: Some(entry.engine), kernel: source };
    let precision = if entry.exact(dtype).is_some() { spec.precision } else { Precision::Fast };
    Kernel::compile_with(&Spec { precision, ..spec.clone() }, &machine::host(), options)
}

/// Whether an engine computes a spec in a storage type, with some precision.
pub fn serves(spec: &Spec, entry: &Entry, dtype: Dtype) -> bool {
    pieces::fewest(entry, &spec.variant(), dtype, Precision::Fast).is_some()
}

/// What a case is, for the message of a failing test.
pub fn describe(name: &str, entry: &Entry, case: &Case<'_>) -> String {
    let Case { variant, problem, dtype, layout, seed } = case;
    let heads = &variant.heads;
    format!(
        "{name} on {} {}, {}, {layout:?}, heads {}/{}/{} of {} and {}, batch {}, {} queries from {} over {} keys, seed {seed}",
        entry.engine.name(),
        entry.isa.name(),
        dtype.name(),
        heads.query,
        heads.kv,
        heads.value,
        heads.dim,
        heads.value_dim,
        problem.batch,
        problem.queries,
        problem.q_offset,
        problem.keys,
    )
}

/// How a kernel and the oracle disagree.
#[derive(Clone, Debug)]
pub enum Disagreement {
    /// The kernel refused what the oracle computes.
    Refused(flash::RunError),
    /// The oracle found an index outside its axis and the kernel did not.
    Accepted(CompareError),
    /// The outputs are not what they should be.
    Outputs(Failure),
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disagreement::Refused(error) => write!(f, "the kernel refuses: {error}"),
            Disagreement::Accepted(error) => write!(f, "the kernel accepts what the oracle refuses: {error}"),
            Disagreement::Outputs(failure) => failure.fmt(f),
        }
    }
}

/// Compares what a kernel of some plan did with what the oracle says: outputs within their bounds, or an index error on
/// both sides.
///
/// # Errors
/// If they disagree.
pub fn judge(
    case: &Case<'_>,
    inputs: &Inputs,
    result: Result<Outputs, flash::RunError>,
    plan: &Plan,
) -> Result<(), Disagreement> {
    Judge::new(case, inputs).judge(result, plan)
}

/// Judges what several kernels did, or one of them several times, on the same inputs: the oracle computes a row once.
#[derive(Debug)]
pub struct Judge<'a> {
    case: &'a Case<'a>,
    inputs: &'a Inputs,
    known: Known,
}

impl<'a> Judge<'a> {
    /// Of a case.
    pub fn new(case: &'a Case<'a>, inputs: &'a Inputs) -> Self {
        Self { case, inputs, known: Known::default() }
    }

    /// As [`judge`].
    ///
    /// # Errors
    /// If they disagree.
    pub fn judge(&self, result: Result<Outputs, flash::RunError>, plan: &Plan) -> Result<(), Disagreement> {
        let Case { problem, variant, seed, .. } = self.case;
        self.judge_rows(result, plan, &Sample::new(problem, &variant.heads, plan.prefill.query_block, *seed))
    }

    /// As [`judge`], of some rows.
    ///
    /// # Errors
    /// If they disagree.
    pub fn judge_rows(
        &self,
        result: Result<Outputs, flash::RunError>,
        plan: &Plan,
        sample: &Sample,
    ) -> Result<(), Disagreement> {
        let Self { case, inputs, known } = self;
        let (outputs, refused) = match result {
            Ok(outputs) => (outputs, None),
            // Written but meaningless, so anything serves to ask the oracle.
            Err(error @ flash::RunError::Index { .. }) => (zeros(case), Some(error)),
            Err(error) => return Err(Disagreement::Refused(error)),
        };
        match (case.judge_knowing(known, plan.precision(), inputs, &outputs, sample), refused) {
            (Err(Failure::Compare(CompareError::Index(_))), Some(_)) => Ok(()),
            (_, Some(error)) => Err(Disagreement::Refused(error)),
            (Err(Failure::Compare(error)), None) => Err(Disagreement::Accepted(error)),
            (Err(failure), None) => Err(Disagreement::Outputs(failure)),
            (Ok(_), None) => Ok(()),
        }
    }
}

/// How many times the effect of one rounding in each place an error may have where sums cancel: a kernel rounds with
/// each term of its sums, over dozens of keys and channels.
const ROUNDINGS: f64 = 32.0;

/// Whether an error past its bound is what f32 arithmetic does on these inputs: the oracle itself, rounding to f32, moves
/// nearly as far.
pub fn cancels(case: &Case<'_>, inputs: &Inputs, report: &Report) -> bool {
    let sample = Sample::new(&case.problem, &case.variant.heads, 1, case.seed);
    case.sensitivity(inputs, &sample).is_ok_and(|share| report.share() <= ROUNDINGS * share)
}

/// The case's outputs, all 0.
fn zeros(case: &Case<'_>) -> Outputs {
    let mut outputs = case.outputs();
    for output in [Some(&mut outputs.o), outputs.lse.as_mut()].into_iter().flatten() {
        let [batch, heads, tokens, channels] = output.shape();
        for row in 0..batch * heads * tokens {
            let (b, h, token) = (row / tokens / heads, row / tokens % heads, row % tokens);
            (0..channels).for_each(|channel| output.set([b, h, token, channel], 0.0));
        }
    }
    outputs
}

/// Runs a case as a user would: compiled, scheduled for the count of `threads`, in a workspace of its own.
///
/// # Errors
/// As [`flash::RunError`] says.
///
/// # Panics
/// If the case cannot be scheduled or is not the kernel's.
pub fn run(
    kernel: &Kernel,
    case: &Case<'_>,
    inputs: &Inputs,
    threads: &dyn Threads,
) -> Result<Outputs, flash::RunError> {
    let schedule = kernel
        .schedule(&case.problem, &inputs.captured(), threads.count())
        .unwrap_or_else(|error| panic!("{}: {error}", kernel.spec().name));
    let mut outputs = case.outputs();
    run_scheduled(kernel, &schedule, inputs, &mut outputs, threads, &mut Workspace::new(&schedule))?;
    Ok(outputs)
}

/// Runs a kernel over a schedule in a given workspace.
///
/// # Errors
/// As [`flash::RunError`] says.
///
/// # Panics
/// If kernel and schedule do not belong together.
pub fn run_scheduled(
    kernel: &Kernel,
    schedule: &Schedule,
    inputs: &Inputs,
    outputs: &mut Outputs,
    threads: &dyn Threads,
    workspace: &mut Workspace,
) -> Result<(), flash::RunError> {
    run_any(kernel, schedule, inputs, outputs, threads, workspace).map_err(|error| runtime(kernel, error))
}

/// A run of any mechanism; lookahead keys are not looked at.
fn run_any(
    kernel: &Kernel,
    schedule: &Schedule,
    inputs: &Inputs,
    outputs: &mut Outputs,
    threads: &dyn Threads,
    workspace: &mut Workspace,
) -> Result<(), RunError> {
    let captured = inputs.captured();
    let (given, places) = (views(inputs, &captured), places(outputs));
    if !inputs.of_lookahead {
        return kernel.run(schedule, threads, given, places, workspace);
    }
    let [batch, heads, tokens, dim] = inputs.operands[1].view().shape();
    let mut u = vec![f32::NAN; batch * heads * tokens * dim];
    let u = ViewMut::contiguous(&mut u, [batch, heads, tokens], dim).expect("it is as long");
    kernel.run_lookahead(schedule, threads, given, (places, u), workspace)
}

/// Runs a case part by part, over the keys between `cuts`, merges the parts in that order and finishes them.
///
/// # Errors
/// As [`flash::RunError`] says.
///
/// # Panics
/// As [`run`], and if the cuts are not among the case's keys.
pub fn run_in_parts(
    kernel: &Kernel,
    case: &Case<'_>,
    inputs: &Inputs,
    keys: &[Range<usize>],
    threads: &dyn Threads,
) -> Result<Outputs, flash::RunError> {
    let whole = kernel.schedule(&case.problem, &inputs.captured(), threads.count()).expect("a case is small");
    let mut sum = Part::new(&whole).expect("a case is small");
    for keys in keys {
        sum.merge(&part(kernel, case, inputs, keys.clone(), threads)?).expect("parts of one problem");
    }
    let mut outputs = case.outputs();
    let mut workspace = Workspace::new(&whole);
    let captured = inputs.captured();
    let ending = Ending { captured: &captured, gate: inputs.gate.as_ref().map(view) };
    let result = kernel.finish(&whole, threads, &sum, ending, places(&mut outputs), &mut workspace);
    result.map(|()| outputs).map_err(|error| runtime(kernel, error))
}

/// The sums of a case over some of its keys.
///
/// # Errors
/// As [`flash::RunError`] says.
///
/// # Panics
/// As [`run_in_parts`].
pub fn part(
    kernel: &Kernel,
    case: &Case<'_>,
    inputs: &Inputs,
    keys: Range<usize>,
    threads: &dyn Threads,
) -> Result<Part, flash::RunError> {
    let captured = inputs.captured();
    let problem = case.problem.partial(keys.clone()).expect("some of the keys");
    let schedule = kernel.schedule(&problem, &captured, threads.count()).expect("a case is small");
    let (mut part, mut workspace) =
        (Part::new(&schedule).expect("a case is small"), Workspace::new(&schedule));
    let held = Inputs {
        gate: None,
        ..inputs.map(&case.variant, |rows, tensor| match rows {
            Rows::Keys => cut(&tensor.view(), case.dtype, keys.clone()),
            Rows::Queries | Rows::Matrix(_) => tensor.clone(),
        })
    };
    let given = views(&held, &captured);
    let result = kernel.run_part(&schedule, threads, given, &mut part, &mut workspace);
    result.map(|()| part).map_err(|error| runtime(kernel, error))
}

fn runtime(kernel: &Kernel, error: RunError) -> flash::RunError {
    match error {
        RunError::Runtime(error) => error,
        other => panic!("{}: {other}", kernel.spec().name),
    }
}

/// A case on the runtime itself, without a planner: block sizes are the caller's.
#[derive(Clone, Copy, Debug)]
pub struct Direct<'a> {
    /// The case.
    pub case: &'a Case<'a>,
    /// Engine and instruction set.
    pub entry: &'a Entry,
    /// Block sizes.
    pub blocks: Blocks,
    /// As in the plan.
    pub pack_ahead_bytes: u64,
}

/// What becomes of an engine before a run: a bug put in on purpose, or nothing.
pub trait Wrap {
    /// The engine to run.
    fn wrap<E: Engine>(self, engine: E) -> impl Engine;
}

impl Direct<'_> {
    /// The plan of a run.
    pub fn plan(&self) -> Plan {
        let Self { case, entry, blocks, pack_ahead_bytes } = *self;
        let pieces = pieces::fewest(entry, &case.variant, case.dtype, Precision::Fast);
        let step = entry.tile.keys;
        let Blocks { key_block, key_cell, mask_step, .. } = blocks;
        // Blocks that an engine of short steps takes are made to fit one of longer steps.
        let divides = |a: u32, b: u32| a > 0 && b > 0 && b.is_multiple_of(a);
        let good = divides(8, mask_step) && divides(mask_step, key_block) && divides(key_block, key_cell);
        let whole = |keys: u32| if good { keys.next_multiple_of(step) } else { keys };
        let prefill = Blocks {
            key_block: whole(key_block),
            key_cell: whole(key_cell),
            mask_step: whole(mask_step),
            ..blocks
        };
        // The spec's form, or the expanded one, which costs no more than nothing.
        let costs = LatentCosts { expand_key: 0, expanded_pair: 0, absorb_query: 0, absorbed_pair: 0 };
        let latent = match case.variant.mechanism {
            Mechanism::Latent(_) => Some(LatentPlan { absorbed: prefill, costs }),
            _ => None,
        };
        Plan {
            identity: case.variant.identity,
            isa: entry.isa,
            engine: entry.engine,
            dtype: case.dtype,
            pieces: pieces.expect("every engine is precise enough for fast products"),
            prefill,
            decode: Split { key_cell: 32, key_chunk: 16, stack_rows: 16 },
            cache: PageFormat {
                tokens: 16,
                k: Codec::of(case.dtype),
                v: Codec::of(case.dtype),
                mixed: false,
            },
            latent,
            recurrence: case.variant.recurrence().map(|_| RecurrencePlan {
                chunk: blocks.query_block,
                one_by_one: blocks.mask_step.min(8),
                // Of some cases the states are more for one thread, and fewer for three.
                held_bytes: 20 << 10,
            }),
            reach: None,
            pack_ahead_bytes,
            tasks_per_thread: 3,
        }
    }

    /// Runs the case's variant as a lane program, in a workspace full of NaN.
    ///
    /// # Errors
    /// As [`flash::RunError`] says.
    ///
    /// # Panics
    /// If the engine is not available.
    pub fn run(&self, inputs: &Inputs, threads: &dyn Threads) -> Result<Outputs, flash::RunError> {
        self.run_planned(&self.plan(), inputs, threads)
    }

    /// The same by another plan.
    ///
    /// # Errors
    /// As [`flash::RunError`] says.
    ///
    /// # Panics
    /// If the engine is not available.
    pub fn run_planned(
        &self,
        plan: &Plan,
        inputs: &Inputs,
        threads: &dyn Threads,
    ) -> Result<Outputs, flash::RunError> {
        self.run_leaving(plan, inputs, launch::Left::Nothing, threads)
    }

    /// The same of a recurrence, whose states begin as they are and end as the last tokens leave them.
    ///
    /// # Errors
    /// As [`flash::RunError`] says.
    ///
    /// # Panics
    /// If the engine is not available.
    pub fn run_states(
        &self,
        inputs: &Inputs,
        states: &mut States,
        threads: &dyn Threads,
    ) -> Result<Outputs, flash::RunError> {
        self.run_leaving(&self.plan(), inputs, launch::Left::States(states.view().into()), threads)
    }

    fn run_leaving(
        &self,
        plan: &Plan,
        inputs: &Inputs,
        left: launch::Left<'_>,
        threads: &dyn Threads,
    ) -> Result<Outputs, flash::RunError> {
        let mut outputs = self.case.outputs();
        let captured = inputs.captured();
        let code = &VariantCode::Loaded(LaneProgram::new(&self.case.variant));
        self.cut(plan, threads.count(), |parts| {
            let of = (parts.variant, plan, parts.problem);
            let len = launch::Sizes { of, code, threads: threads.count() }.run();
            let mut memory = Poisoned::new(len.expect("only what is available is run"));
            let run = launch::Run {
                parts,
                code,
                inputs: views(inputs, &captured),
                target: places(&mut outputs).into(),
                left,
                threads,
                workspace: memory.view(),
            };
            launched(run.launch())
        })?;
        Ok(outputs)
    }

    /// Runs other code or an engine that is not what it should be.
    ///
    /// # Errors
    /// As [`flash::RunError`] says.
    ///
    /// # Panics
    /// If the engine is not available.
    pub fn run_as<C: AnyCode, W: Wrap>(
        &self,
        code: &C,
        wrap: W,
        inputs: &Inputs,
        threads: &dyn Threads,
    ) -> Result<Outputs, flash::RunError> {
        let captured = inputs.captured();
        let mut outputs = self.case.outputs();
        self.cut(&self.plan(), threads.count(), |parts| {
            let call = Call {
                parts,
                code,
                wrap,
                inputs: views(inputs, &captured),
                outputs: places(&mut outputs),
                threads,
            };
            any::with(self.entry.engine, self.entry.isa, call).expect("only what is available is run")
        })?;
        Ok(outputs)
    }

    /// Cuts the case into tasks and gives what a run of them consists of to `run`.
    fn cut<R>(&self, plan: &Plan, threads: usize, run: impl FnOnce(Parts<'_>) -> R) -> R {
        let case = self.case;
        let positions = case.positions();
        let problem = &positions.view();
        let cut = |variant: &Variant<'_>, of| {
            let inputs = &Unknown(case.variant.inputs);
            let work = Work { plan, variant, problem, inputs, threads: threads as u32, of };
            OwnedSchedule::new(&work).expect("a case is small")
        };
        let [schedule, absorbed] = match &case.variant.mechanism {
            Mechanism::Latent(latent) => [
                cut(&case.variant.expanded(latent), Share::Expanded),
                cut(&case.variant.absorbed(latent), Share::Absorbed),
            ],
            _ => [cut(&case.variant.scored(), Share::All), OwnedSchedule::empty(1)],
        };
        let (schedule, absorbed) = (schedule.view(), absorbed.view());
        run(Parts { variant: &case.variant, plan, problem, schedule, absorbed })
    }
}

/// The runtime's error of a launched call.
///
/// # Panics
/// If the engine is not available.
pub fn launched(result: Result<(), LaunchError>) -> Result<(), flash::RunError> {
    result.map_err(|error| match error {
        LaunchError::Runtime(error) => error,
        LaunchError::Unavailable(error) => panic!("{error}"),
    })
}

struct Call<'a, C, W> {
    parts: Parts<'a>,
    code: &'a C,
    wrap: W,
    inputs: flash::Inputs<'a>,
    outputs: flash::Outputs<'a>,
    threads: &'a dyn Threads,
}

impl<C: AnyCode, W: Wrap> Visit for Call<'_, C, W> {
    type Output = Result<(), flash::RunError>;

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let Self { parts, code, wrap, inputs, outputs, threads } = self;
        let Parts { variant, plan, problem, .. } = parts;
        let count = threads.count();
        let mut memory = Poisoned::new(flash::workspace(engine, variant, plan, code.on(), problem, count));
        let engine = wrap.wrap(engine);
        flash::run(engine, parts, code.on(), inputs, outputs.into(), threads, memory.view())
    }
}
