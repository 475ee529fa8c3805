//! A spec planned for a machine, which need not be the one at hand.

use regard_ir::inputs::{Captured, InputData};
use regard_ir::interval::{Span, Unknown};
use regard_ir::machine::Machine;
use regard_ir::plan::{Plan, ScheduleOverview};
use regard_ir::problem::{OwnedProblem, Problem};
use regard_ir::spec::Spec;
use regard_ir::variant::Variant;
use regard_planner::cost::{Case, Prediction, Sharing};
use regard_planner::{PlanReport, plan};
use regard_runtime::head::Head;
use regard_runtime::schedule::{OwnedSchedule, Task, Work};
use regard_runtime::summary::Summaries;

use crate::code::Source;
use crate::error::{CompileError, ScheduleError};
use crate::kernel::Options;

/// A plan and its reasons: what can be known of a kernel without the processor that it is for.
#[derive(Clone, Debug)]
pub struct Planned {
    spec: Spec,
    plan: Plan,
    report: PlanReport,
    /// Where a kernel is to take its code from.
    source: Option<Source>,
}

/// A problem cut into tasks, not bound to a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Tasks {
    pub(crate) problem: OwnedProblem,
    pub(crate) tasks: OwnedSchedule,
    pub(crate) threads: usize,
}

impl Planned {
    /// Plans `spec` for `machine`, with some choices taken.
    ///
    /// # Errors
    /// If it cannot be planned, or a choice cannot be had there.
    pub fn new(spec: &Spec, machine: &Machine, options: Options) -> Result<Self, CompileError> {
        let machine = match options.isa {
            None => *machine,
            Some(asked) => {
                machine.with_ceiling(asked).ok_or(CompileError::Ceiling { asked, machine: machine.isa })?
            }
        };
        let dtype = options.dtype.unwrap_or(spec.dtype);
        let (plan, report) = plan(spec, &machine, dtype, options.engine).map_err(CompileError::Plan)?;
        Ok(Self { spec: spec.clone(), plan, report, source: options.kernel })
    }

    /// The spec.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The variant as kernels and the oracle see it.
    pub fn variant(&self) -> Variant<'_> {
        self.spec.variant().expect("the planner accepts the softmax family alone")
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Why the plan is as it is.
    pub fn report(&self) -> &PlanReport {
        &self.report
    }

    /// The same plan, for a kernel whose code comes from `source`.
    pub fn from_source(self, source: Source) -> Self {
        Self { source: Some(source), ..self }
    }

    pub(crate) fn source(&self) -> Option<Source> {
        self.source
    }

    /// Cuts a problem into tasks for `threads` workers.
    ///
    /// `captured` are the tensors that the spec declares, in that order. Without them a mask that reads them is taken to
    /// be able to do anything that their types allow.
    ///
    /// # Errors
    /// If a captured tensor does not fit its declaration, or there are more sequences than one call can hold.
    pub fn tasks(
        &self,
        problem: &Problem<'_>,
        captured: Option<&[InputData<'_>]>,
        threads: usize,
    ) -> Result<Tasks, ScheduleError> {
        let threads = threads.max(1);
        let tasks = self.with_work(problem, captured, threads, |work| {
            OwnedSchedule::new(work).map_err(ScheduleError::Cut)
        })?;
        Ok(Tasks { problem: problem.into(), tasks, threads })
    }

    /// What a person wants to know of tasks: how many, live share, tiles, balance. Takes longer than to make them.
    ///
    /// # Errors
    /// As [`Planned::tasks`].
    pub fn overview(
        &self,
        tasks: &Tasks,
        captured: Option<&[InputData<'_>]>,
    ) -> Result<ScheduleOverview, ScheduleError> {
        let Tasks { problem, tasks, threads, .. } = tasks;
        self.with_work(&problem.view(), captured, *threads, |work| Ok(tasks.view().overview(work)))
    }

    /// The time that tasks will take on the machine that the plan is for, by its rates: measured ones where `regard calibrate`
    /// or a profile has them, else estimates. Takes as long as [`Planned::overview`], whose result it reads.
    ///
    /// # Errors
    /// As [`Planned::tasks`].
    pub fn predict(
        &self,
        tasks: &Tasks,
        captured: Option<&[InputData<'_>]>,
        overview: &ScheduleOverview,
    ) -> Result<Option<Prediction>, ScheduleError> {
        let Tasks { problem, tasks, threads } = tasks;
        let block = self.plan.prefill.query_block;
        let passes = |task: &Task| u64::from((task.query_end - task.query_begin).div_ceil(block));
        let sharing = Sharing {
            threads: overview.threads,
            imbalance: overview.imbalance,
            passes: Some(tasks.view().tasks.iter().map(passes).sum()),
        };
        self.with_work(&problem.view(), captured, *threads, |work| {
            let Work { plan, variant, problem, inputs, .. } = *work;
            Ok(Case { plan, variant, machine: &self.report.machine, problem, inputs }.predict(&sharing))
        })
    }

    /// Calls `look` with key head `kv_head` of `sequence`, or with `None` where the problem has no such.
    ///
    /// `captured` as in [`Planned::tasks`].
    ///
    /// # Errors
    /// If a captured tensor does not fit its declaration.
    pub fn with_head<R>(
        &self,
        problem: &Problem<'_>,
        captured: Option<&[InputData<'_>]>,
        (sequence, kv_head): (u32, u32),
        look: impl FnOnce(Option<Head<'_>>) -> R,
    ) -> Result<R, ScheduleError> {
        self.with_work(problem, captured, 1, |work| Ok(look(Head::new(work, sequence, kv_head))))
    }

    /// The captured tensors of a problem, checked.
    pub(crate) fn bind<'a>(
        &'a self,
        problem: &Problem<'a>,
        captured: &'a [InputData<'a>],
    ) -> Result<Captured<'a>, ScheduleError> {
        let Variant { inputs, heads, source, .. } = self.variant();
        Captured::bind(inputs, captured, &heads, source, problem).map_err(ScheduleError::Captured)
    }

    fn with_work<R>(
        &self,
        problem: &Problem<'_>,
        captured: Option<&[InputData<'_>]>,
        threads: usize,
        f: impl FnOnce(&Work<'_>) -> Result<R, ScheduleError>,
    ) -> Result<R, ScheduleError> {
        let variant = self.variant();
        let (plan, threads) = (&self.plan, threads as u32);
        let Some(captured) = captured else {
            let inputs = &Unknown(variant.inputs);
            return f(&Work { plan, variant: &variant, problem, inputs, threads });
        };
        let captured = self.bind(problem, captured)?;
        let mut spans = vec![Span::point(0); Summaries::len(variant.allow, captured.lens())];
        let inputs = &Summaries::build(variant.allow, captured, &mut spans);
        f(&Work { plan, variant: &variant, problem, inputs, threads })
    }
}
