//! What is called, and with what.

use regard_engine::Engine;
use regard_engine::any::Visit;
use regard_engine::threads::Threads;
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::variant::Variant;
use regard_runtime::cache::{CachedSequenceMut, Caches};
use regard_runtime::code::AnyCode;
use regard_runtime::flash::{self, Ending, Inputs, Outputs, Parts, Target, Workspace};
use regard_runtime::recurrent::CachedStates;
use regard_runtime::split::{self, Queries, Tokens};
use regard_runtime::view::ViewMut;

use crate::code::VariantCode;

/// A scheduled call on tensors.
pub struct Run<'a> {
    /// Variant, plan, problem and schedule.
    pub parts: Parts<'a>,
    /// The variant's mask and modifier.
    pub code: &'a VariantCode,
    /// Tensors.
    pub inputs: Inputs<'a>,
    /// Where results go.
    pub target: Target<'a>,
    /// What a mechanism leaves behind, if it is wanted.
    pub left: Left<'a>,
    /// Who does it.
    pub threads: &'a dyn Threads,
    /// What it is done in.
    pub workspace: Workspace<'a>,
}

/// What a mechanism leaves behind its last token.
pub enum Left<'a> {
    /// Nothing that is wanted.
    Nothing,
    /// Lookahead keys.
    Keys(ViewMut<'a>),
    /// States, which are read first.
    States(CachedStates<'a>),
}

impl Visit for Run<'_> {
    type Output = Result<(), flash::RunError>;

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let Self { parts, code, inputs, target, left, threads, workspace } = self;
        match (target, left) {
            (Target::Whole(outputs), Left::States(states)) => {
                flash::run_recurrence(engine, parts, code.on(), inputs, (outputs, states), threads, workspace)
            }
            (Target::Whole(outputs), Left::Keys(u)) => {
                flash::run_lookahead(engine, parts, code.on(), inputs, (outputs, u), threads, workspace)
            }
            (target, _) => flash::run(engine, parts, code.on(), inputs, target, threads, workspace),
        }
    }
}

/// Tokens on their way into a cache.
pub struct Append<'a> {
    /// Variant, plan and a problem whose keys are the tokens.
    pub of: (&'a Variant<'a>, &'a Plan, &'a Problem<'a>),
    /// The variant's mask and modifier, which say who teaches lookahead keys.
    pub code: &'a VariantCode,
    /// Their keys and values.
    pub tokens: Tokens<'a>,
    /// Where they go.
    pub cache: CachedSequenceMut<'a>,
    /// Who does what of it can be shared out.
    pub threads: &'a dyn Threads,
    /// What it is done in.
    pub floats: &'a mut [f32],
}

impl Visit for Append<'_> {
    type Output = Result<(), flash::RunError>;

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let Self { of, code, tokens, cache, threads, floats } = self;
        split::append(engine, of, code.on(), tokens, cache, threads, floats)
    }
}

/// Tokens with lookahead keys on their way into a cache, and their queries.
pub struct Extend<'a> {
    /// Variant, plan, problem and schedule.
    pub parts: Parts<'a>,
    /// The variant's mask and modifier, and who teaches whom.
    pub code: &'a VariantCode,
    /// Tensors.
    pub inputs: Inputs<'a>,
    /// Where the tokens go.
    pub cache: CachedSequenceMut<'a>,
    /// What they are appended in.
    pub floats: &'a mut [f32],
    /// Where results go.
    pub outputs: Outputs<'a>,
    /// Who does it.
    pub threads: &'a dyn Threads,
    /// What it is done in.
    pub workspace: Workspace<'a>,
}

impl Visit for Extend<'_> {
    type Output = Result<(), flash::RunError>;

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let Self { parts, code, inputs, cache, floats, outputs, threads, workspace } = self;
        let (tensors, cache) = ((inputs, outputs), (cache, floats));
        flash::extend_lookahead(engine, parts, code.on(), tensors, cache, threads, workspace)
    }
}

/// A few queries of each sequence on caches.
pub struct Decode<'a> {
    /// Variant, plan, problem and caches.
    pub parts: split::Parts<'a>,
    /// The variant's mask and modifier.
    pub code: &'a VariantCode,
    /// Tensors.
    pub queries: Queries<'a>,
    /// Where results go.
    pub outputs: Outputs<'a>,
    /// Who does it.
    pub threads: &'a dyn Threads,
    /// What it is done in.
    pub workspace: Workspace<'a>,
}

impl Visit for Decode<'_> {
    type Output = Result<(), flash::RunError>;

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let Self { parts, code, queries, outputs, threads, workspace } = self;
        split::run(engine, parts, code.on(), queries, outputs, threads, workspace)
    }
}

/// A scheduled call on caches.
pub struct Prefill<'a> {
    /// Variant, plan, problem and schedule.
    pub parts: Parts<'a>,
    /// The variant's mask and modifier.
    pub code: &'a VariantCode,
    /// One for each sequence.
    pub caches: &'a dyn Caches,
    /// Tensors.
    pub queries: Queries<'a>,
    /// Where results go.
    pub outputs: Outputs<'a>,
    /// Who does it.
    pub threads: &'a dyn Threads,
    /// What it is done in.
    pub workspace: Workspace<'a>,
}

impl Visit for Prefill<'_> {
    type Output = Result<(), flash::RunError>;

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let Self { parts, code, caches, queries, outputs, threads, workspace } = self;
        flash::run_cached(engine, parts, code.on(), (caches, queries), outputs, threads, workspace)
    }
}

/// Merged parts, of which outputs are made.
pub struct Finish<'a> {
    /// Variant, plan and problem.
    pub of: (&'a Variant<'a>, &'a Plan, &'a Problem<'a>),
    /// Sums over all keys.
    pub part: flash::Part<'a>,
    /// What finishes them.
    pub ending: Ending<'a>,
    /// Where results go.
    pub outputs: Outputs<'a>,
    /// Who does it.
    pub threads: &'a dyn Threads,
    /// What it is done in.
    pub workspace: Workspace<'a>,
}

impl Visit for Finish<'_> {
    type Output = Result<(), flash::RunError>;

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let Self { of, part, ending, outputs, threads, workspace } = self;
        flash::finish(engine, of, part, ending, outputs, threads, workspace.floats)
    }
}
