//! Instruction sets: for each a token that proves the processor has it, its lanes, and its door.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "aarch64")]
pub mod neon;
#[cfg(target_arch = "x86_64")]
pub(crate) mod probe;
pub mod scalar;

use regard_ir::machine::Isa;
use regard_simd::{F32, Lanes, Simd, halves_bf16};

use crate::engine::Op;
use crate::pack::PANEL;
use crate::panel::tile::{Floats, sum};

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

    /// `Σ_i a.i · b.i + c` in each lane, where words of a are four bytes of 0 to 255 and words of b four of −128 to 127.
    #[inline(always)]
    fn dot_bytes(
        self,
        a: <Self::Simd as Simd>::u32s,
        b: <Self::Simd as Simd>::u32s,
        c: <Self::Simd as Simd>::i32s,
    ) -> <Self::Simd as Simd>::i32s {
        let simd = self.simd();
        let (low, sign) = (simd.splat_u32s(0xff), simd.splat_u32s(0x80));
        let mut sum = c;
        for i in 0..4 {
            let byte = |words| simd.and_u32s(simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(8 * i)), low);
            // The sign bit taken for a number and given back twice over.
            let b = simd.sub_u32s(simd.xor_u32s(byte(b), sign), sign);
            let product = simd.transmute_i32s_u32s(simd.mul_u32s(byte(a), b));
            sum = simd.add_i32s(sum, product);
        }
        sum
    }

    /// As [`Door::call`], for a loop of [`Door::dot_bytes`], with the instructions that the processor has for it.
    fn call_bytes<O: Op>(self, op: O) -> O::Output {
        self.call(op)
    }

    /// Runs `op` compiled for the set.
    fn enter<O: Op>(self, op: O) -> O::Output;

    /// The same as a function call of its own, from code inside the set: for a loop that wants every register to
    /// itself, which the compiler does not give it in the midst of a large function.
    fn call<O: Op>(self, op: O) -> O::Output;
}

/// Tests of what several instruction sets have.
#[cfg(all(test, feature = "std"))]
mod tests {
    use pulp::Simd;

    use super::Door;

    /// Holds products of bytes against their sums one by one, on lanes that have an instruction for them and on lanes that do
    /// without.
    pub(super) fn products_of_bytes<D: Door>(lanes: [D; 2]) {
        const LEN: usize = 64;
        let mut word = 1u32;
        let mut words = || {
            [(); LEN].map(|()| {
                word = word.wrapping_mul(0x9e37_79b1).rotate_left(7) ^ 0x80ff_7f00;
                word
            })
        };
        for _ in 0..1000 {
            let (a, b, c) = (words(), words(), words().map(|word| word as i32 >> 8));
            let products = |a: u32, b: u32| {
                let bytes = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
                bytes.map(|(a, b)| i32::from(a) * i32::from(b as i8)).sum::<i32>()
            };
            let expected: [i32; LEN] = core::array::from_fn(|i| c[i] + products(a[i], b[i]));
            let vectors = |words| D::Simd::as_simd_u32s(words).0;
            for lanes in lanes {
                let mut found = c;
                let sums = D::Simd::as_mut_simd_i32s(&mut found).0;
                for ((sum, &a), &b) in sums.iter_mut().zip(vectors(&a)).zip(vectors(&b)) {
                    *sum = lanes.dot_bytes(a, b, *sum);
                }
                assert_eq!(found, expected, "{:?}", D::ISA);
            }
        }
    }
}
