//! Instruction sets: for each a token that proves the processor has it, its lanes, and its door.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
mod dots;
#[cfg(target_arch = "aarch64")]
pub mod neon;
#[cfg(target_arch = "x86_64")]
pub(crate) mod probe;
pub mod scalar;

use regard_ir::machine::Isa;
use regard_simd::{F32, Lanes, Simd, halves_bf16};

use self::dots::{Halves, With};
use crate::engine::Op;
use crate::pack::PANEL;
use crate::panel::tile::{Floats, sum};
use crate::product::{self, Rows};

pub use self::dots::{Dot, DotOp};

/// An integral float from −127 to 127, added to this, has 127 more than itself in the last bits of the sum: the exponent of that power
/// of two, as floats store it.
#[cfg(target_arch = "x86_64")]
const BIAS: f32 = (1 << 23) as f32 + 127.0;

/// An instruction set that code can be compiled for.
pub trait Door: Lanes {
    /// Which one.
    const ISA: Isa;

    /// Rows of the broadcast operand that a register tile holds beside [`Self::VECTORS`] vectors: together they fill
    /// the register file. Divides [`PANEL`](crate::pack::PANEL).
    const TILE: usize;

    /// Vectors of a register tile's width.
    const VECTORS: usize = 3;

    /// Whether [`Door::call_dots`] multiplies words of four bytes, else of two halves. Where bytes take several instructions they are
    /// better widened once for all rows, and rows of numbers of two bytes not cut in two: half as many products.
    const HAS_BYTES: bool = false;

    /// `Σ_l a[l][FIRST + i] · b[l][v]` for half a panel's rows and 3 vectors, each sum from zero and in order of depth.
    ///
    /// A set whose registers it fills to the last may override it with assembly.
    #[inline(always)]
    fn half_tile<const FIRST: usize>(
        self,
        a: &[[f32; PANEL]],
        b: &[[<Self::Simd as Simd>::f32s; 3]],
    ) -> [[<Self::Simd as Simd>::f32s; 3]; PANEL / 2] {
        sum::<Self, Floats, 3, { PANEL / 2 }, FIRST>(self, a, b)
    }

    /// `sums[i][v] + Σ_l a[l][i] · b[l][v]` for `R` rows and `V` vectors of operands that lie wherever, in order of depth. The steps of
    /// both are as many, elements of a are `R` and those of b fill `V` vectors.
    ///
    /// A set whose registers some tiles fill to the last may override it with assembly.
    #[inline(always)]
    fn strided_tile<const R: usize, const V: usize>(
        self,
        sums: [[<Self::Simd as Simd>::f32s; V]; R],
        a: Rows<'_>,
        b: Rows<'_>,
    ) -> [[<Self::Simd as Simd>::f32s; V]; R] {
        product::sum::<Self, Floats, V, R>(self, sums, a, b)
    }

    /// `a.0 · b.0 + a.1 · b.1 + c` in each lane, where lanes of a and b are words of two bf16. How sums are rounded, and
    /// whether numbers below the smallest normal one count, is the set's own business.
    ///
    /// A set that has an instruction for it overrides what takes two multiplications here.
    #[inline(always)]
    fn dot_bf16(
        self,
        a: <Self::Simd as Simd>::f32s,
        b: <Self::Simd as Simd>::f32s,
        c: <Self::Simd as Simd>::f32s,
    ) -> <Self::Simd as Simd>::f32s {
        let simd = self.simd();
        let (first_a, second_a) = halves_bf16(F32::from_raw(self, a));
        let (first_b, second_b) = halves_bf16(F32::from_raw(self, b));
        let first = simd.mul_add_e_f32s(first_a.raw(), first_b.raw(), c);
        simd.mul_add_e_f32s(second_a.raw(), second_b.raw(), first)
    }

    /// The sum of each of eight vectors, with the bits of [`F32::sum`].
    ///
    /// A set may override it, to add several vectors at once.
    #[inline(always)]
    fn sums(self, vectors: [<Self::Simd as Simd>::f32s; 8]) -> [f32; 8] {
        vectors.map(|vector| self.simd().reduce_sum_f32s(vector))
    }

    /// Words (a, b) and (c, d) of two halves, side by side, as words (a, c) and (b, d).
    #[inline(always)]
    fn halves_together(self, words: &[u32; 16]) -> [u32; 16] {
        let mut to = [0; 16];
        for (to, [first, second]) in to.as_chunks_mut::<2>().0.iter_mut().zip(words.as_chunks().0) {
            *to = [first & 0xffff | second << 16, first >> 16 | second & 0xffff_0000];
        }
        to
    }

    /// Words of the even bytes and of the odd ones, which are −128 to 127, as halves.
    #[inline(always)]
    fn halves_of_bytes(self, words: <Self::Simd as Simd>::u32s) -> [<Self::Simd as Simd>::u32s; 2] {
        let simd = self.simd();
        let (low, sign) = (simd.splat_u32s(0x00ff_00ff), simd.splat_u32s(0x0080_0080));
        [words, simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(8))].map(|words| {
            let bytes = simd.and_u32s(words, low);
            // The sign bit copied to all above it.
            simd.or_u32s(bytes, simd.mul_u32s(simd.and_u32s(bytes, sign), simd.splat_u32s(0x1fe)))
        })
    }

    /// As [`Door::call`], with products of words by the processor's own instructions.
    ///
    /// A set that has some overrides it.
    #[inline(always)]
    fn call_dots<O: DotOp<Self>>(self, op: O) -> O::Output {
        self.call(With::new(op, Halves))
    }

    /// Runs `op` compiled for the set.
    fn enter<O: Op>(self, op: O) -> O::Output;

    /// The same as a function call of its own, from code inside the set: for a loop that wants every register to
    /// itself, which the compiler does not give it in the midst of a large function.
    fn call<O: Op>(self, op: O) -> O::Output;
}
