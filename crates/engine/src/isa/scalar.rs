//! No SIMD: one lane. Every machine has it, and it is the form that is easiest to follow.

use half::{bf16, f16};
use regard_ir::machine::Isa;
use regard_simd::Lanes;

use super::Door;
use crate::engine::Op;

/// One lane.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

impl Lanes for Scalar {
    type Simd = pulp::Scalar;

    #[inline(always)]
    fn simd(self) -> pulp::Scalar {
        pulp::Scalar
    }

    #[inline(always)]
    fn floor(self, x: f32) -> f32 {
        regard_ir::exact::unary(regard_ir::expr::Unary::Floor, x)
    }

    #[inline(always)]
    fn to_i32(self, x: f32) -> i32 {
        x as i32
    }

    #[inline(always)]
    fn to_f32(self, x: i32) -> f32 {
        x as f32
    }

    #[inline(always)]
    fn pow2_integral(self, n: f32) -> f32 {
        f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23)
    }

    #[inline(always)]
    fn load_f16(self, bits: &[u16]) -> f32 {
        f16::from_bits(bits[0]).to_f32()
    }

    #[inline(always)]
    fn load_bf16(self, bits: &[u16]) -> f32 {
        bf16::from_bits(bits[0]).to_f32()
    }

    #[inline(always)]
    fn store_f16(self, x: f32, bits: &mut [u16]) {
        bits[0] = f16::from_f32(x).to_bits();
    }
}

impl Door for Scalar {
    const ISA: Isa = Isa::Scalar;
    /// 4 × 3 sums, 3 row values and a broadcast: 16 registers.
    const TILE: usize = 4;

    // A function of its own, as behind the doors of the other sets: what it is called from is compiled much faster.
    #[inline(never)]
    fn enter<O: Op>(self, op: O) -> O::Output {
        op.run()
    }

    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        self.enter(op)
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    #[test]
    fn products_are_exact() {
        super::super::dots::tests::products_are_exact(&[Scalar]);
    }
}
