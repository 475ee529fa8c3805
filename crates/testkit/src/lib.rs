//! Inputs, bounds and poisoned buffers for the tests of regard.
//!
//! A [`Case`] is a variant on one problem: it makes seeded inputs that lie between NaNs, outputs that lie between
//! canaries, and judges what a kernel wrote by the oracle. A kernel that reads or writes a place that is not its
//! own gives a NaN or kills a canary.
#![forbid(unsafe_code)]

mod case;
mod nudge;
mod place;
mod poison;

pub use case::{Case, Failure, Inputs, Outputs};
pub use place::Layout;
pub use poison::{ElementsMut, Input, Output, PoisonError};
