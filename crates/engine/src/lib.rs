//! How tiles are computed on each instruction set, and what the processor can run.
//!
//! An [`Engine`] multiplies packed operands into score and value tiles; the skeletons of `regard-runtime` are written
//! once over it. Adding an engine is a module that implements the trait and a row in [`catalog`]. This crate is a home
//! of `unsafe`: the doors into instruction sets ([`isa`]), the hand-out of disjoint output rows ([`grid`]), the tiles of a matrix
//! unit ([`amx_bf16`]) and the thread pool.
#![no_std]

#[cfg(feature = "std")]
extern crate std;

pub mod amx_bf16;
pub mod any;
pub mod cached;
pub mod catalog;
#[cfg(feature = "dense")]
pub mod dense;
#[cfg(feature = "std")]
pub mod detect;
pub mod dot_bf16;
pub mod element;
pub mod engine;
pub mod grid;
pub mod isa;
pub mod pack;
pub mod pages;
mod pairs;
mod panel;
pub mod peak;
#[cfg(feature = "threads")]
pub mod pool;
pub mod product;
pub mod simd_f32;
mod split;
pub mod stairs;
pub mod threads;
pub mod weigh;

pub use engine::{Change, Engine, Fold, Op, Rescale, Shape, Step};
pub use simd_f32::SimdF32;
pub use stairs::Stairs;
