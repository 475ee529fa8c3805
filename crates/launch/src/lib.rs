//! From a checked call to the runtime: the one crate in which its loops are compiled.
//!
//! They are large, once for each engine. A generic function would compile them again in every crate that calls it, and in each of its
//! tests; here calls are ordinary functions, and whatever makes them is compiled in seconds.
#![forbid(unsafe_code)]

mod calls;
mod code;
mod sizes;

use core::fmt;

use regard_engine::any::{self, Unavailable, Visit};
use regard_ir::plan::Plan;
use regard_runtime::flash;

pub use calls::{Append, Decode, Extend, Finish, Left, Prefill, Run};
pub use code::{Source, VariantCode};
pub use sizes::Sizes;

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

/// Makes a call on the engine of a plan.
fn on<V: Visit<Output = Result<(), flash::RunError>>>(plan: &Plan, call: V) -> Result<(), LaunchError> {
    any::with(plan.engine, plan.isa, call).map_err(LaunchError::Unavailable)?.map_err(LaunchError::Runtime)
}

/// Gives each call a function that makes it on the engine of its plan: an ordinary one, which is compiled here.
macro_rules! launches {
    ($($call:ident($self:ident: $plan:expr)),+) => {$(
        impl $call<'_> {
            /// Makes the call.
            ///
            /// # Errors
            /// If the processor lacks the instructions, and as the runtime says.
            pub fn launch($self) -> Result<(), LaunchError> {
                on($plan, $self)
            }
        }
    )+};
}

launches!(
    Run(self: self.parts.plan),
    Append(self: self.of.1),
    Extend(self: self.parts.plan),
    Decode(self: self.parts.plan),
    Prefill(self: self.parts.plan),
    Finish(self: self.of.1)
);
