//! A spec compiled for a machine.

use regard_engine::Engine;
use regard_engine::any::{self, Unavailable, Visit};
use regard_engine::element::Element;
use regard_engine::threads::Threads;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::interval::Span;
use regard_ir::machine::{Isa, Machine};
use regard_ir::plan::{Dtype, EngineKind, Plan, ScheduleOverview};
use regard_ir::problem::Problem;
use regard_ir::spec::Spec;
use regard_ir::variant::Variant;
use regard_planner::{PlanReport, plan};
use regard_runtime::flash::{self, Inputs, Outputs, Parts, WorkspaceLen};
use regard_runtime::interpreter::LaneProgram;
use regard_runtime::schedule::{OwnedSchedule, Work};
use regard_runtime::summary::Summaries;

use crate::error::{CompileError, RunError, ScheduleError};
use crate::schedule::{Schedule, Workspace};

/// What a caller may want otherwise than the planner would choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Storage type of q, k, v and o; the spec's where absent.
    pub dtype: Option<Dtype>,
    /// The most capable instruction set to use; the machine's where absent.
    pub isa: Option<Isa>,
    /// The engine to use; the fastest where absent.
    pub engine: Option<EngineKind>,
}

/// Where a kernel's variant code comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A lane program, compiled from the spec just now.
    Loaded,
}

impl Source {
    /// As it is written on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Source::Loaded => "loaded",
        }
    }
}

/// An attention variant, planned for a machine and ready to run.
#[derive(Clone, Debug)]
pub struct Kernel {
    spec: Spec,
    plan: Plan,
    report: PlanReport,
    program: LaneProgram,
}

impl Kernel {
    /// Plans `spec` for `machine`, in the spec's storage type.
    ///
    /// # Errors
    /// If it cannot be planned, or this processor lacks the instructions that the plan uses.
    pub fn compile(spec: &Spec, machine: &Machine) -> Result<Self, CompileError> {
        Self::compile_with(spec, machine, Options::default())
    }

    /// As [`Kernel::compile`], with some choices taken.
    ///
    /// # Errors
    /// As `compile`, and if a choice cannot be had.
    pub fn compile_with(spec: &Spec, machine: &Machine, options: Options) -> Result<Self, CompileError> {
        let machine = match options.isa {
            None => *machine,
            Some(asked) => {
                machine.with_ceiling(asked).ok_or(CompileError::Ceiling { asked, machine: machine.isa })?
            }
        };
        let dtype = options.dtype.unwrap_or(spec.dtype);
        let (plan, report) = plan(spec, &machine, dtype, options.engine).map_err(CompileError::Plan)?;
        if !any::available(plan.engine, plan.isa) {
            return Err(CompileError::Unavailable(Unavailable { engine: plan.engine, isa: plan.isa }));
        }
        let program = LaneProgram::new(&variant(spec));
        Ok(Self { spec: spec.clone(), plan, report, program })
    }

    /// The spec.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The variant as kernels and the oracle see it.
    pub fn variant(&self) -> Variant<'_> {
        variant(&self.spec)
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Why the plan is as it is.
    pub fn report(&self) -> &PlanReport {
        &self.report
    }

    /// Where the variant's code comes from.
    pub fn source(&self) -> Source {
        Source::Loaded
    }

    /// Cuts a problem into tasks for `threads` workers.
    ///
    /// `captured` are the tensors that the spec declares, in that order: where a mask reads them, they say which tiles
    /// are live.
    ///
    /// # Errors
    /// If a captured tensor does not fit its declaration, or there are more sequences than one call can hold.
    pub fn schedule(
        &self,
        problem: &Problem,
        captured: &[InputData<'_>],
        threads: usize,
    ) -> Result<Schedule, ScheduleError> {
        let threads = threads.max(1);
        self.with_work(problem, captured, threads, |work, captured| {
            let tasks = OwnedSchedule::new(work).map_err(ScheduleError::Cut)?;
            let workspace = self.workspace(captured, threads);
            Ok(Schedule { identity: self.plan.identity, problem: *problem, tasks, threads, workspace })
        })
    }

    /// What a person wants to know of a schedule: tasks, live share, tiles, balance. Takes longer than to make it.
    ///
    /// # Errors
    /// As [`Kernel::schedule`].
    pub fn overview(
        &self,
        schedule: &Schedule,
        captured: &[InputData<'_>],
    ) -> Result<ScheduleOverview, ScheduleError> {
        self.with_work(&schedule.problem, captured, schedule.threads, |work, _| {
            Ok(schedule.tasks.view().overview(work))
        })
    }

    fn with_work<R>(
        &self,
        problem: &Problem,
        captured: &[InputData<'_>],
        threads: usize,
        f: impl FnOnce(&Work<'_>, &Captured<'_>) -> Result<R, ScheduleError>,
    ) -> Result<R, ScheduleError> {
        let variant = self.variant();
        let captured = Captured::bind(variant.inputs, captured, &variant.heads, variant.source, problem)
            .map_err(ScheduleError::Captured)?;
        let mut spans = vec![Span::point(0); Summaries::len(variant.allow, &captured)];
        let inputs = Summaries::build(variant.allow, captured, &mut spans);
        let threads = threads as u32;
        f(&Work { plan: &self.plan, variant: &variant, problem, inputs: &inputs, threads }, &captured)
    }

    fn workspace(&self, captured: &Captured<'_>, threads: usize) -> WorkspaceLen {
        struct Size<'a> {
            kernel: &'a Kernel,
            captured: &'a Captured<'a>,
            threads: usize,
        }
        impl Visit for Size<'_> {
            type Output = WorkspaceLen;
            fn visit<E: Engine>(self, engine: E) -> WorkspaceLen {
                let Kernel { plan, program, .. } = self.kernel;
                flash::workspace(
                    engine,
                    &self.kernel.variant(),
                    &plan.prefill,
                    program,
                    self.captured,
                    self.threads,
                )
            }
        }
        let size = Size { kernel: self, captured, threads };
        // `compile_with` saw that the engine is there.
        any::with(self.plan.engine, self.plan.isa, size).unwrap_or(WorkspaceLen { floats: 0, spans: 0 })
    }

    /// Runs the kernel over a scheduled problem.
    ///
    /// Nothing is allocated. The same bits come out whatever the count of `threads`, which is at most the schedule's.
    ///
    /// # Errors
    /// If a tensor does not fit spec, plan or problem, the workspace is too small, or a mask or modifier indexes a
    /// captured tensor outside its axes.
    pub fn run<T: Element>(
        &self,
        schedule: &Schedule,
        threads: &dyn Threads,
        inputs: Inputs<'_, T>,
        outputs: Outputs<'_, T>,
        workspace: &mut Workspace,
    ) -> Result<(), RunError> {
        if schedule.identity != self.plan.identity {
            return Err(RunError::Identity { expected: self.plan.identity, found: schedule.identity });
        }
        if T::DTYPE != self.plan.dtype {
            return Err(RunError::Dtype { expected: self.plan.dtype, found: T::DTYPE });
        }
        if threads.count() > schedule.threads {
            return Err(RunError::Threads { scheduled: schedule.threads, found: threads.count() });
        }
        let run = Run { kernel: self, schedule, threads, inputs, outputs, workspace: workspace.view() };
        any::with(self.plan.engine, self.plan.isa, run)
            .map_err(RunError::Unavailable)?
            .map_err(RunError::Runtime)
    }
}

struct Run<'a, T> {
    kernel: &'a Kernel,
    schedule: &'a Schedule,
    threads: &'a dyn Threads,
    inputs: Inputs<'a, T>,
    outputs: Outputs<'a, T>,
    workspace: flash::Workspace<'a>,
}

impl<T: Element> Visit for Run<'_, T> {
    type Output = Result<(), flash::RunError>;

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let Self { kernel, schedule, threads, inputs, outputs, workspace } = self;
        let parts = Parts {
            variant: &kernel.variant(),
            blocks: &kernel.plan.prefill,
            problem: &schedule.problem,
            schedule: schedule.tasks.view(),
        };
        flash::run(engine, parts, &kernel.program, inputs, outputs, threads, workspace)
    }
}

/// The variant of a spec that the planner accepted, which refuses what is not of the softmax family.
fn variant(spec: &Spec) -> Variant<'_> {
    spec.variant().expect("the planner accepts the softmax family alone")
}
