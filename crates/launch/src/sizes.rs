//! How much memory calls take.

use regard_engine::Engine;
use regard_engine::any::{self, Unavailable, Visit};
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::variant::Variant;
use regard_runtime::code::AnyCode;
use regard_runtime::flash::{self, WorkspaceLen};
use regard_runtime::split;

use crate::code::VariantCode;

/// What the memory of a call depends on.
#[derive(Clone, Copy)]
pub struct Sizes<'a> {
    /// Variant, plan and problem.
    pub of: (&'a Variant<'a>, &'a Plan, &'a Problem<'a>),
    /// The variant's mask and modifier.
    pub code: &'a VariantCode,
    /// Who does it, at most.
    pub threads: usize,
}

/// A kind of call.
enum Call {
    Run,
    Step { cells: usize },
    Append,
}

impl Sizes<'_> {
    /// That of a run of the problem.
    ///
    /// # Errors
    /// If the processor lacks the instructions.
    pub fn run(self) -> Result<WorkspaceLen, Unavailable> {
        self.of(Call::Run)
    }

    /// That of a few queries of each sequence on caches which have so many cells of a sequence at most; of a recurrence that of a run.
    ///
    /// # Errors
    /// If the processor lacks the instructions.
    pub fn step(self, cells: usize) -> Result<WorkspaceLen, Unavailable> {
        self.of(Call::Step { cells })
    }

    /// Floats that tokens are appended in, of a sequence as long as that of the problem.
    ///
    /// # Errors
    /// If the processor lacks the instructions.
    pub fn append(self) -> Result<usize, Unavailable> {
        self.of(Call::Append).map(|len| len.floats)
    }

    fn of(self, call: Call) -> Result<WorkspaceLen, Unavailable> {
        let (_, plan, _) = self.of;
        any::with(plan.engine, plan.isa, Sized { sizes: self, call })
    }
}

/// A call whose engine is looked up.
struct Sized<'a> {
    sizes: Sizes<'a>,
    call: Call,
}

impl Visit for Sized<'_> {
    type Output = WorkspaceLen;

    fn visit<E: Engine>(self, engine: E) -> WorkspaceLen {
        let Self { sizes: Sizes { of: (variant, plan, problem), code, threads }, call } = self;
        let code = code.on();
        match call {
            Call::Step { cells } if variant.recurrence().is_none() => {
                split::workspace(engine, (variant, plan), code, problem, cells, threads)
            }
            Call::Run | Call::Step { .. } => flash::workspace(engine, variant, plan, code, problem, threads),
            Call::Append => {
                let floats = split::append_len(engine, (variant, plan), code, problem, threads);
                WorkspaceLen { floats, spans: 0 }
            }
        }
    }
}
