//! What is timed to know a machine by: loops that a processor's limits are read from, and steps of engines on their own.
//!
//! Each runs on an instruction set that is named when it runs, by ordinary functions, which are compiled here. Who takes the time, how
//! often, and what is made of it, is the caller's.
#![forbid(unsafe_code)]

pub mod multiply_adds;
pub mod softmax;
pub mod streams;
pub mod traffic;
pub mod trial;
