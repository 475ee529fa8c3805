//! Turns a spec and a machine into a plan, and says why.
//!
//! Planning is pure: text and values in, values out, no file, no clock and no look at the host. Every number of a
//! [`Plan`](regard_ir::plan::Plan) follows from inequalities over the machine's caches and the engine's register tile;
//! the [`PlanReport`] holds them as data, with the candidates that they rejected, so that a person can judge and a test
//! can evaluate them again.
#![forbid(unsafe_code)]

mod blocks;
mod candidate;
pub mod cost;
mod decode;
mod estimate;
pub mod inequality;
mod latent;
pub mod pieces;
mod plan;
pub mod profile;
mod pseudo;
mod recurrence;
pub mod report;

pub use plan::{PlanError, plan};
pub use profile::{Profile, ProfileError};
pub use report::PlanReport;
