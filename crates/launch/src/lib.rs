//! From a checked call to the runtime: the one crate in which its loops are compiled.
//!
//! They are large, once for each engine and storage type. A generic function would compile them again in every crate that
//! calls it, and in each of its tests; here [`Element`]'s functions are ordinary ones of each storage type, and whatever calls
//! them is compiled in seconds.
#![forbid(unsafe_code)]

mod calls;
mod code;

use core::fmt;

use half::{bf16, f16};
use regard_engine::any::{self, Unavailable, Visit};
use regard_engine::element;
use regard_ir::plan::Plan;
use regard_runtime::flash;

pub use calls::{Append, Decode, Extend, Finish, Left, Prefill, Run};
pub use code::{Source, VariantCode};

/// A call that did not happen, or whose outputs mean nothing.
#[derive(Debug)]
pub enum LaunchError {
    /// The processor lacks the instructions.
    Unavailable(Unavailable),
    /// As the runtime says.
    Runtime(flash::RunError),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::Unavailable(error) => error.fmt(f),
            LaunchError::Runtime(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LaunchError {}

/// A storage type of q, k, v and o: `f32`, `f16` or `bf16` (of the crate `half`).
pub trait Element: element::Element + private::Sealed {
    /// Runs a scheduled call on tensors.
    ///
    /// # Errors
    /// As [`flash::run`].
    #[doc(hidden)]
    fn run(call: Run<'_, Self>) -> Result<(), LaunchError>;

    /// Appends tokens to a cache.
    ///
    /// # Errors
    /// As [`regard_runtime::split::append`].
    #[doc(hidden)]
    fn append(call: Append<'_, Self>) -> Result<(), LaunchError>;

    /// Appends tokens with lookahead keys to a cache and attends them.
    ///
    /// # Errors
    /// As [`flash::extend_lookahead`].
    #[doc(hidden)]
    fn extend(call: Extend<'_, Self>) -> Result<(), LaunchError>;

    /// Attends a few queries to caches.
    ///
    /// # Errors
    /// As [`regard_runtime::split::run`].
    #[doc(hidden)]
    fn decode(call: Decode<'_, Self>) -> Result<(), LaunchError>;

    /// Runs a scheduled call on caches.
    ///
    /// # Errors
    /// As [`flash::run_cached`].
    #[doc(hidden)]
    fn prefill(call: Prefill<'_, Self>) -> Result<(), LaunchError>;

    /// Makes outputs of merged parts.
    ///
    /// # Errors
    /// As [`flash::finish`].
    #[doc(hidden)]
    fn finish(call: Finish<'_, Self>) -> Result<(), LaunchError>;
}

mod private {
    /// No other crate may implement it: kernels exist for the three types alone.
    pub trait Sealed {}
}

/// Makes a call on the engine of its plan.
fn on<V: Visit<Output = Result<(), flash::RunError>>>(plan: &Plan, call: V) -> Result<(), LaunchError> {
    any::with(plan.engine, plan.isa, call).map_err(LaunchError::Unavailable)?.map_err(LaunchError::Runtime)
}

macro_rules! elements {
    ($($type:ty),+) => {$(
        impl private::Sealed for $type {}

        impl Element for $type {
            fn run(call: Run<'_, Self>) -> Result<(), LaunchError> {
                on(call.parts.plan, call)
            }

            fn append(call: Append<'_, Self>) -> Result<(), LaunchError> {
                on(call.of.1, call)
            }

            fn extend(call: Extend<'_, Self>) -> Result<(), LaunchError> {
                on(call.parts.plan, call)
            }

            fn decode(call: Decode<'_, Self>) -> Result<(), LaunchError> {
                on(call.parts.plan, call)
            }

            fn prefill(call: Prefill<'_, Self>) -> Result<(), LaunchError> {
                on(call.parts.plan, call)
            }

            fn finish(call: Finish<'_, Self>) -> Result<(), LaunchError> {
                on(call.of.1, call)
            }
        }
    )+};
}

elements!(f32, f16, bf16);
