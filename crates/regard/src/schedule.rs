//! A plan for one problem, and the memory that it runs in.

use std::collections::TryReserveError;

use regard_ir::identity::Identity;
use regard_ir::interval::Span;
use regard_ir::problem::Problem;
use regard_runtime::flash::{self, WorkspaceLen};

use crate::planned::Tasks;

/// A kernel's plan for one problem: its tasks, and how much memory they need.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub(crate) identity: Identity,
    pub(crate) tasks: Tasks,
    pub(crate) workspace: WorkspaceLen,
}

impl Schedule {
    /// The problem that it is for.
    pub fn problem(&self) -> Problem<'_> {
        self.tasks.problem.view()
    }

    /// Pairs of query and key that the mask allows, over all query heads and sequences, as estimated for the cut.
    pub fn live_pairs(&self) -> u64 {
        self.tasks.live_pairs()
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
