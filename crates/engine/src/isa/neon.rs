//! Arm Advanced SIMD: 4 lanes, 32 registers.

use core::arch::aarch64::{float32x4_t, int32x4_t, uint16x4_t};

use half::f16;
use pulp::aarch64::Neon as PulpNeon;
use pulp::{bytemuck, f32x4, i32x4};
use regard_ir::machine::Isa;
use regard_simd::Lanes;

use super::Door;
use crate::engine::Op;

/// Proof that the processor has Advanced SIMD.
#[derive(Clone, Copy, Debug)]
pub struct Neon {
    neon: PulpNeon,
}

impl Neon {
    /// The token, on a processor that has the set.
    pub fn detect() -> Option<Self> {
        Some(Self { neon: PulpNeon::try_new()? })
    }
}

#[inline(always)]
fn quad(x: f32x4) -> float32x4_t {
    bytemuck::cast(x)
}

impl Lanes for Neon {
    type Simd = PulpNeon;

    #[inline(always)]
    fn simd(self) -> PulpNeon {
        self.neon
    }

    #[inline(always)]
    fn floor(self, x: f32x4) -> f32x4 {
        bytemuck::cast(self.neon.neon.vrndmq_f32(quad(x)))
    }

    #[inline(always)]
    fn to_i32(self, x: f32x4) -> i32x4 {
        // Truncates, saturates, and gives 0 for NaN: just what is asked.
        bytemuck::cast(self.neon.neon.vcvtq_s32_f32(quad(x)))
    }

    #[inline(always)]
    fn to_f32(self, x: i32x4) -> f32x4 {
        bytemuck::cast(self.neon.neon.vcvtq_f32_s32(bytemuck::cast::<_, int32x4_t>(x)))
    }

    #[inline(always)]
    fn pow2_integral(self, n: f32x4) -> f32x4 {
        let neon = self.neon.neon;
        let biased = neon.vaddq_s32(neon.vcvtq_s32_f32(quad(n)), neon.vdupq_n_s32(127));
        bytemuck::cast(neon.vshlq_n_s32::<23>(biased))
    }

    #[inline(always)]
    fn load_f16(self, bits: &[u16]) -> f32x4 {
        // The conversion instruction is not in the baseline that `pulp` detects.
        bytemuck::cast([0, 1, 2, 3].map(|i: usize| f16::from_bits(bits[i]).to_f32()))
    }

    #[inline(always)]
    fn load_bf16(self, bits: &[u16]) -> f32x4 {
        let mut words = [0; 4];
        words.copy_from_slice(&bits[..4]);
        let words: uint16x4_t = bytemuck::cast(words);
        let neon = self.neon.neon;
        bytemuck::cast(neon.vshlq_n_u32::<16>(neon.vmovl_u16(words)))
    }

    #[inline(always)]
    fn store_f16(self, x: f32x4, bits: &mut [u16]) {
        // As for `load_f16`.
        let floats: [f32; 4] = bytemuck::cast(x);
        bits[..4].copy_from_slice(&floats.map(|x| f16::from_f32(x).to_bits()));
    }
}

impl Door for Neon {
    const ISA: Isa = Isa::Neon;
    /// 8 × 3 sums, 3 row vectors and two vectors of broadcast lanes: 29 of 32 registers.
    const TILE: usize = 8;

    #[inline(always)]
    fn enter<O: Op>(self, op: O) -> O::Output {
        // SAFETY: a `Neon` is made only by `detect`, which saw the feature.
        unsafe { door(op) }
    }

    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        // SAFETY: as for `enter`.
        unsafe { door_of_its_own(op) }
    }
}

#[target_feature(enable = "neon")]
fn door<O: Op>(op: O) -> O::Output {
    op.run()
}

/// As `door`, never inlined.
#[inline(never)]
#[target_feature(enable = "neon")]
fn door_of_its_own<O: Op>(op: O) -> O::Output {
    op.run()
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use std::eprintln;

    use super::*;

    #[test]
    fn products_are_exact() {
        let Some(lanes) = Neon::detect() else { return eprintln!("skipped neon: not on this CPU") };
        super::super::dots::tests::products_are_exact(&[lanes]);
    }
}
