//! The loops of attention, written once over an engine and a variant.
//!
//! A call is a [`Plan`](regard_ir::plan::Plan) (numbers), a schedule (the plan for one problem) and a variant as code
//! ([`code::Code`]): a lane program of the [`interpreter`], or a generated module. Nothing here parses, plans or
//! allocates while it runs; there is no lock, and no system call but to wake and park a pool's threads.
//!
//! Without features this crate needs neither an operating system nor an allocator.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod cache;
mod called;
mod carve;
pub mod code;
mod finish;
pub mod flash;
pub mod head;
#[cfg(feature = "alloc")]
pub mod interpreter;
mod latent;
mod lines;
mod mix;
pub mod operands;
mod operations;
pub mod recurrent;
mod rows;
pub mod schedule;
mod sight;
mod softmax;
pub mod split;
pub mod straight;
pub mod summary;
mod sums;
mod tokens;
pub mod view;

pub use regard_engine as engine;
