//! A plan for one problem, and the memory that it runs in.

use std::collections::TryReserveError;

use regard_ir::identity::Identity;
use regard_ir::interval::Span;
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::variant::Variant;
use regard_runtime::flash::{self, PartLen, WorkspaceLen};

use crate::error::RunError;
use crate::planned::Tasks;

/// A kernel's plan for one problem: its tasks, and how much memory they need.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub(crate) identity: Identity,
    pub(crate) tasks: Tasks,
    pub(crate) workspace: WorkspaceLen,
    pub(crate) part: PartLen,
}

impl Schedule {
    /// The problem that it is for.
    pub fn problem(&self) -> Problem<'_> {
        self.tasks.problem.view()
    }

    /// The same in positions, of which a token may be several.
    pub(crate) fn positions(&self) -> Problem<'_> {
        self.tasks.positions.view()
    }

    /// What a run over the problem in positions consists of.
    pub(crate) fn parts<'a>(
        &'a self,
        variant: &'a Variant<'a>,
        plan: &'a Plan,
        problem: &'a Problem<'a>,
    ) -> flash::Parts<'a> {
        let (schedule, absorbed) = (self.tasks.tasks.view(), self.tasks.absorbed.view());
        flash::Parts { variant, plan, problem, schedule, absorbed }
    }

    /// Bytes of workspace that a run needs.
    pub fn workspace_bytes(&self) -> usize {
        self.workspace.bytes()
    }
}

/// Memory that runs work in, allocated once and used by any number of them.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    floats: Vec<f32>,
    spans: Vec<Span>,
}

impl Workspace {
    /// Memory for a schedule.
    ///
    /// # Panics
    /// If the system does not give it; [`Workspace::try_grow`] says so instead.
    pub fn new(schedule: &Schedule) -> Self {
        let mut workspace = Self::default();
        workspace.grow(schedule);
        workspace
    }

    /// Makes room for a further schedule; does nothing where there is room.
    ///
    /// # Panics
    /// If the system does not give it; [`Workspace::try_grow`] says so instead.
    pub fn grow(&mut self, schedule: &Schedule) {
        self.try_grow(schedule).expect("the system has memory for the workspace");
    }

    /// As [`Workspace::grow`], for schedules of any size.
    ///
    /// # Errors
    /// If the system does not give the memory.
    pub fn try_grow(&mut self, schedule: &Schedule) -> Result<(), TryReserveError> {
        let WorkspaceLen { floats, spans } = schedule.workspace;
        self.floats.try_reserve_exact(floats.saturating_sub(self.floats.len()))?;
        self.spans.try_reserve_exact(spans.saturating_sub(self.spans.len()))?;
        self.floats.resize(floats.max(self.floats.len()), 0.0);
        self.spans.resize(spans.max(self.spans.len()), Span::point(0));
        Ok(())
    }

    pub(crate) fn view(&mut self) -> flash::Workspace<'_> {
        flash::Workspace { floats: &mut self.floats, spans: &mut self.spans }
    }
}

/// Sums of a problem over some of its keys, owned: what calls over disjoint keys are merged in.
///
/// ```
/// use regard::{Ending, Inputs, Kernel, Outputs, Part, Problem, Solo, View, ViewMut, Workspace, machine};
///
/// let spec = regard::parse("heads = { query = 2, dim = 8 }\nmask = 'causal'", "mine.toml", &regard::NoFiles)?.spec;
/// let kernel = Kernel::compile(&spec, &machine::host())?;
/// let whole = Problem::prefill(spec.source, 1, 3, 100)?;          // 3 queries, the last of 100 positions
/// let schedule = kernel.schedule(&whole, &[], 1)?;
/// let (mut sum, mut workspace) = (Part::new(&schedule)?, Workspace::new(&schedule));
///
/// let q = vec![0.1f32; 2 * 3 * 8];
/// for keys in [0..40, 40..100] {                                   // here one after the other; elsewhere, on two machines
///     let schedule = kernel.schedule(&whole.partial(keys.clone())?, &[], 1)?;
///     let mut part = Part::new(&schedule)?;
///     let (k, v) = (vec![0.2f32; 2 * keys.len() * 8], vec![0.3f32; 2 * keys.len() * 8]);
///     let inputs = Inputs::new(
///         View::contiguous(&q, [1, 2, 3], 8)?,
///         View::contiguous(&k, [1, 2, keys.len()], 8)?,
///         View::contiguous(&v, [1, 2, keys.len()], 8)?,
///     );
///     kernel.run_part(&schedule, &Solo, inputs, &mut part, &mut workspace)?;
///     sum.merge(&part)?;
/// }
///
/// let mut o = vec![0.0f32; 2 * 3 * 8];
/// let outputs = Outputs { o: ViewMut::contiguous(&mut o, [1, 2, 3], 8)?, lse: None };
/// kernel.finish(&schedule, &Solo, &sum, Ending { captured: &[], gate: None }, outputs, &mut workspace)?;
/// assert!(o.iter().all(|x| (x - 0.3).abs() < 1e-6));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    sums: Vec<f32>,
    stats: Vec<f32>,
}

impl Part {
    /// A part over no keys, as long as those of a schedule; also where it has all keys.
    ///
    /// # Errors
    /// If the system does not give the memory.
    pub fn new(schedule: &Schedule) -> Result<Self, TryReserveError> {
        let PartLen { sums, stats } = schedule.part;
        let mut part = Self { sums: Vec::new(), stats: Vec::new() };
        part.sums.try_reserve_exact(sums)?;
        part.stats.try_reserve_exact(stats)?;
        part.sums.resize(sums, 0.0);
        part.stats.extend([0.0, f32::NEG_INFINITY].into_iter().cycle().take(stats));
        Ok(part)
    }

    /// A part whose numbers came from elsewhere, as of another process; see [`Part::numbers`]. What does not fit is told
    /// when it is used.
    pub fn from_numbers(sums: Vec<f32>, stats: Vec<f32>) -> Self {
        Self { sums, stats }
    }

    /// The numbers that a part is: `[sequence][query head][query]` rows of `value_dim` sums, and for each row the sum of
    /// its weights and its reference, an integer in log2 units that is −inf where no key was seen.
    pub fn numbers(&self) -> (&[f32], &[f32]) {
        (&self.sums, &self.stats)
    }

    /// Adds a part over other keys of the same problem. One over no keys changes no bit.
    ///
    /// # Errors
    /// If it is of another problem's length.
    pub fn merge(&mut self, other: &Part) -> Result<(), RunError> {
        flash::merge(self.view_mut(), other.view()).map_err(RunError::Runtime)
    }

    pub(crate) fn view(&self) -> flash::Part<'_> {
        flash::Part { sums: &self.sums, stats: &self.stats }
    }

    pub(crate) fn view_mut(&mut self) -> flash::PartMut<'_> {
        flash::PartMut { sums: &mut self.sums, stats: &mut self.stats }
    }
}
