//! A plan for one problem, and the memory that it runs in.

use regard_ir::identity::Identity;
use regard_ir::interval::Span;
use regard_ir::problem::Problem;
use regard_runtime::flash::{self, WorkspaceLen};
use regard_runtime::schedule::OwnedSchedule;

/// A kernel's plan for one problem: its tasks, and how much memory they need.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub(crate) identity: Identity,
    pub(crate) problem: Problem,
    pub(crate) tasks: OwnedSchedule,
    pub(crate) threads: usize,
    pub(crate) workspace: WorkspaceLen,
}

impl Schedule {
    /// The problem that it is for.
    pub fn problem(&self) -> &Problem {
        &self.problem
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
    pub fn new(schedule: &Schedule) -> Self {
        let mut workspace = Self::default();
        workspace.grow(schedule);
        workspace
    }

    /// Makes room for a further schedule; does nothing where there is room.
    pub fn grow(&mut self, schedule: &Schedule) {
        let WorkspaceLen { floats, spans } = schedule.workspace;
        self.floats.resize(floats.max(self.floats.len()), 0.0);
        self.spans.resize(spans.max(self.spans.len()), Span::point(0));
    }

    pub(crate) fn view(&mut self) -> flash::Workspace<'_> {
        flash::Workspace { floats: &mut self.floats, spans: &mut self.spans }
    }
}
