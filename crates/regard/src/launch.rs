//! From a checked call to the runtime: the one place where its loops are compiled.
//!
//! They are large, once for each engine and storage type. A generic function would compile them again in every crate
//! that calls it; [`Element::launch`] is an ordinary function of each storage type.

use half::{bf16, f16};
use regard_engine::Engine;
use regard_engine::any::{self, Visit};
use regard_engine::element;
use regard_engine::threads::Threads;
use regard_ir::problem::Problem;
use regard_runtime::cache::{CachedSequenceMut, Caches};
use regard_runtime::code::AnyCode;
use regard_runtime::flash::{self, Ending, Inputs, Outputs, Parts, Target};
use regard_runtime::split::{self, Queries, Tokens};
use regard_runtime::view::ViewMut;

use crate::error::RunError;
use crate::kernel::Kernel;
use crate::schedule::Schedule;

/// A storage type of q, k, v and o: `f32`, `f16` or `bf16` (of the crate `half`).
pub trait Element: element::Element + private::Sealed {
    /// Runs a call whose kernel, schedule and storage type fit each other.
    #[doc(hidden)]
    fn launch(launch: Launch<'_, Self>) -> Result<(), RunError>;

    /// Appends tokens to a cache of the kernel's.
    #[doc(hidden)]
    fn append(append: Append<'_, Self>) -> Result<(), RunError>;

    /// Runs a call on caches whose kernel, caches and storage type fit each other.
    #[doc(hidden)]
    fn decode(decode: Decode<'_, Self>) -> Result<(), RunError>;

    /// Runs a prefill on caches whose kernel, schedule, caches and storage type fit each other.
    #[doc(hidden)]
    fn prefill(prefill: Prefill<'_, Self>) -> Result<(), RunError>;

    /// Finishes parts whose kernel, schedule and storage type fit each other.
    #[doc(hidden)]
    fn finish(finish: Finish<'_, Self>) -> Result<(), RunError>;
}

mod private {
    /// No other crate may implement it: kernels exist for the three types alone.
    pub trait Sealed {}
}

macro_rules! elements {
    ($($type:ty),+) => {$(
        impl private::Sealed for $type {}

        impl Element for $type {
            fn launch(launch: Launch<'_, Self>) -> Result<(), RunError> {
                let plan = launch.kernel.plan();
                any::with(plan.engine, plan.isa, launch).map_err(RunError::Unavailable)?.map_err(RunError::Runtime)
            }

            fn append(append: Append<'_, Self>) -> Result<(), RunError> {
                let plan = append.kernel.plan();
                any::with(plan.engine, plan.isa, append).map_err(RunError::Unavailable)?.map_err(RunError::Runtime)
            }

            fn decode(decode: Decode<'_, Self>) -> Result<(), RunError> {
                let plan = decode.kernel.plan();
                any::with(plan.engine, plan.isa, decode).map_err(RunError::Unavailable)?.map_err(RunError::Runtime)
            }

            fn prefill(prefill: Prefill<'_, Self>) -> Result<(), RunError> {
                let plan = prefill.kernel.plan();
                any::with(plan.engine, plan.isa, prefill).map_err(RunError::Unavailable)?.map_err(RunError::Runtime)
            }

            fn finish(finish: Finish<'_, Self>) -> Result<(), RunError> {
                let plan = finish.kernel.plan();
                any::with(plan.engine, plan.isa, finish).map_err(RunError::Unavailable)?.map_err(RunError::Runtime)
            }
        }
    )+};
}

elements!(f32, f16, bf16);

/// A call whose kernel, schedule and storage type fit each other.
#[doc(hidden)]
pub struct Launch<'a, T> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) schedule: &'a Schedule,
    pub(crate) threads: &'a dyn Threads,
    pub(crate) inputs: Inputs<'a, T>,
    pub(crate) target: Target<'a, T>,
    /// Where lookahead keys go, of variants with such.
    pub(crate) u: Option<ViewMut<'a, f32>>,
    pub(crate) workspace: flash::Workspace<'a>,
}

impl<T: Element> Visit for Launch<'_, T> {
    type Output = Result<(), flash::RunError>;

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let Self { kernel, schedule, threads, inputs, target, u, workspace } = self;
        let parts = Parts {
            variant: &kernel.variant(),
            plan: kernel.plan(),
            problem: &schedule.positions(),
            schedule: schedule.tasks.tasks.view(),
            absorbed: schedule.tasks.absorbed.view(),
        };
        match (target, u) {
            (Target::Whole(outputs), Some(u)) => {
                let outputs = (outputs, u);
                flash::run_lookahead(engine, parts, kernel.code.on(), inputs, outputs, threads, workspace)
            }
            (target, _) => flash::run(engine, parts, kernel.code.on(), inputs, target, threads, workspace),
        }
    }
}

/// Tokens on their way into a cache.
#[doc(hidden)]
pub struct Append<'a, T> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) problem: Problem<'a>,
    pub(crate) tokens: Tokens<'a, T>,
    pub(crate) cache: CachedSequenceMut<'a>,
    pub(crate) floats: &'a mut [f32],
}

impl<T: Element> Visit for Append<'_, T> {
    type Output = Result<(), flash::RunError>;

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let Self { kernel, problem, tokens, cache, floats } = self;
        split::append(engine, (&kernel.variant(), kernel.plan(), &problem), tokens, cache, floats)
    }
}

/// A call on caches whose kernel, caches and storage type fit each other.
#[doc(hidden)]
pub struct Decode<'a, T> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) problem: Problem<'a>,
    pub(crate) caches: &'a dyn Caches,
    pub(crate) threads: &'a dyn Threads,
    pub(crate) queries: Queries<'a, T>,
    pub(crate) outputs: Outputs<'a, T>,
    pub(crate) workspace: flash::Workspace<'a>,
}

impl<T: Element> Visit for Decode<'_, T> {
    type Output = Result<(), flash::RunError>;

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let Self { kernel, problem, caches, threads, queries, outputs, workspace } = self;
        let parts =
            split::Parts { variant: &kernel.variant(), plan: kernel.plan(), problem: &problem, caches };
        split::run(engine, parts, kernel.code.on(), queries, outputs, threads, workspace)
    }
}

/// A prefill on caches whose kernel, schedule, caches and storage type fit each other.
#[doc(hidden)]
pub struct Prefill<'a, T> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) schedule: &'a Schedule,
    pub(crate) threads: &'a dyn Threads,
    pub(crate) caches: &'a dyn Caches,
    pub(crate) queries: Queries<'a, T>,
    pub(crate) outputs: Outputs<'a, T>,
    pub(crate) workspace: flash::Workspace<'a>,
}

impl<T: Element> Visit for Prefill<'_, T> {
    type Output = Result<(), flash::RunError>;

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let Self { kernel, schedule, threads, caches, queries, outputs, workspace } = self;
        let parts = Parts {
            variant: &kernel.variant(),
            plan: kernel.plan(),
            problem: &schedule.positions(),
            schedule: schedule.tasks.tasks.view(),
            absorbed: schedule.tasks.absorbed.view(),
        };
        flash::run_cached(engine, parts, kernel.code.on(), (caches, queries), outputs, threads, workspace)
    }
}

/// Merged parts whose kernel, schedule and storage type fit each other.
#[doc(hidden)]
pub struct Finish<'a, T> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) schedule: &'a Schedule,
    pub(crate) threads: &'a dyn Threads,
    pub(crate) part: flash::Part<'a>,
    pub(crate) ending: Ending<'a, T>,
    pub(crate) outputs: Outputs<'a, T>,
    pub(crate) workspace: flash::Workspace<'a>,
}

impl<T: Element> Visit for Finish<'_, T> {
    type Output = Result<(), flash::RunError>;

    fn visit<E: Engine>(self, engine: E) -> Self::Output {
        let Self { kernel, schedule, threads, part, ending, outputs, workspace } = self;
        let (variant, problem) = (kernel.variant(), schedule.positions());
        flash::finish(engine, (&variant, &problem), part, ending, outputs, threads, workspace.floats)
    }
}
