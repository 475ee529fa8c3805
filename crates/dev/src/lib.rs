//! Demonstrations, measurements and pages that drive the command regard, as a user would, and read its JSON.
#![forbid(unsafe_code)]

pub mod bench;
mod command;
pub mod demo;
mod error;
pub mod gallery;
pub mod model;

pub use command::{Profile, Regard};
pub use error::Error;
