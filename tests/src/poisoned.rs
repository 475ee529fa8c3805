//! A workspace full of what no run must read.

use regard_ir::interval::Span;
use regard_runtime::flash::{Workspace, WorkspaceLen};

/// A workspace full of what no run must read.
#[derive(Clone, Debug)]
pub struct Poisoned {
    floats: Vec<f32>,
    spans: Vec<Span>,
}

impl Poisoned {
    /// As large as a run needs it.
    pub fn new(len: WorkspaceLen) -> Self {
        Self { floats: vec![f32::NAN; len.floats], spans: vec![Span { lo: 7, hi: -7 }; len.spans] }
    }

    /// The memory.
    pub fn view(&mut self) -> Workspace<'_> {
        Workspace { floats: &mut self.floats, spans: &mut self.spans }
    }
}
