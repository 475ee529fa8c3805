//! A workspace full of what no run must read.

use regard_engine::Engine;
use regard_engine::any::{self, Visit};
use regard_ir::interval::Span;
use regard_runtime::code::AnyCode;
use regard_runtime::flash::{self, Parts};

/// A workspace full of what no run must read.
#[derive(Clone, Debug)]
pub struct Poisoned {
    floats: Vec<f32>,
    spans: Vec<Span>,
}

impl Poisoned {
    /// As large as a run needs it.
    ///
    /// # Panics
    /// If the engine is not available.
    pub fn new<C: AnyCode>(parts: Parts<'_>, code: &C, threads: usize) -> Self {
        let size = Size { parts, code, threads };
        let len = any::with(parts.plan.engine, parts.plan.isa, size).expect("only what is available is run");
        Self { floats: vec![f32::NAN; len.floats], spans: vec![Span { lo: 7, hi: -7 }; len.spans] }
    }

    /// The memory.
    pub fn view(&mut self) -> flash::Workspace<'_> {
        flash::Workspace { floats: &mut self.floats, spans: &mut self.spans }
    }
}

struct Size<'a, C> {
    parts: Parts<'a>,
    code: &'a C,
    threads: usize,
}

impl<C: AnyCode> Visit for Size<'_, C> {
    type Output = flash::WorkspaceLen;

    fn visit<E: Engine>(self, engine: E) -> flash::WorkspaceLen {
        let Parts { variant, plan, problem, .. } = self.parts;
        flash::workspace(engine, variant, plan, self.code.on(), problem, self.threads)
    }
}
