//! Instruction sets: for each a token that proves the processor has it, its lanes, and its door.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod scalar;

use regard_ir::machine::Isa;
use regard_simd::{Lanes, Simd};

use crate::engine::Op;
use crate::pack::PANEL;
use crate::simd_f32::tile::sum;

/// An instruction set that code can be compiled for.
pub trait Door: Lanes {
    /// Which one.
    const ISA: Isa;

    /// Rows of the broadcast operand that a register tile holds beside [`Self::VECTORS`] vectors: together they fill
    /// the register file. Divides [`PANEL`](crate::pack::PANEL).
    const TILE: usize;

    /// Vectors of a register tile's width.
    const VECTORS: usize = 3;

    /// `Σ_l a[l][FIRST + i] · b[l][v]` for half a panel's rows and 3 vectors, each sum from zero and in order of depth.
    ///
    /// A set whose registers it fills to the last may override it with assembly.
    #[inline(always)]
    fn half_tile<const FIRST: usize>(
        self,
        a: &[[f32; PANEL]],
        b: &[[<Self::Simd as Simd>::f32s; 3]],
    ) -> [[<Self::Simd as Simd>::f32s; 3]; PANEL / 2] {
        sum::<Self, 3, { PANEL / 2 }, FIRST>(self, a, b)
    }

    /// Runs `op` compiled for the set.
    fn enter<O: Op>(self, op: O) -> O::Output;

    /// The same as a function call of its own, from code inside the set: for a loop that wants every register to
    /// itself, which the compiler does not give it in the midst of a large function.
    fn call<O: Op>(self, op: O) -> O::Output;
}
