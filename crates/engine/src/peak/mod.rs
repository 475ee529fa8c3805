//! Products of bf16 pairs without memory: what a kernel on 16-bit storage could do at most.
//!
//! The rate of f32 multiply-adds is measured through the lanes of an engine. These two have no lanes: one instruction
//! multiplies pairs and adds them to f32 sums, in vectors or in tiles. Operands are not zeros: a unit that multiplies
//! zeros draws less power and runs at a higher clock.

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "x86_64")]
pub use x86::{dots, tiles};

/// Dots pairs of bf16; nothing is measured on this target.
#[cfg(not(target_arch = "x86_64"))]
pub fn dots(_: usize) -> Option<usize> {
    None
}

/// Multiplies tiles of bf16 pairs; nothing is measured on this target.
#[cfg(not(target_arch = "x86_64"))]
pub fn tiles(_: usize) -> Option<usize> {
    None
}
