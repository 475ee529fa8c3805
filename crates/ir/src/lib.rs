//! The data that every part of regard shares, and nothing else.
//!
//! An attention variant, a machine, a problem and a plan are plain values here. Who parses, plans, generates or
//! runs them lives in other crates, so that the two sides (compiling and running) meet only in data. All of it is
//! `no_std`; owned specs and expressions ask for the feature `alloc`.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod bounds;
pub mod cache;
pub mod exact;
pub mod expr;
pub mod identity;
pub mod inputs;
pub mod interval;
#[cfg(feature = "alloc")]
pub mod lanes;
pub mod machine;
pub mod operands;
pub mod plan;
pub mod problem;
pub mod rates;
pub mod reach;
pub mod rows;
#[cfg(feature = "alloc")]
pub mod spec;
#[cfg(feature = "alloc")]
pub mod text;
pub mod tiles;
pub mod variant;
pub mod work;
