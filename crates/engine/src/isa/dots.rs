//! Products of words of bytes or of halves, by the instructions that the processor has for them.

use core::marker::PhantomData;

use regard_simd::{Lanes, Simd};

use super::Door;
use crate::engine::Op;

/// Lanes of words.
pub type Words<D> = <<D as Lanes>::Simd as Simd>::u32s;

/// Lanes of sums.
pub type Sums<D> = <<D as Lanes>::Simd as Simd>::i32s;

/// What multiplies words. Whichever of a set does, sums are the same.
pub trait Dot<D: Door>: Copy {
    /// `Σ_i a.i · b.i + c` in each lane. Where [`Door::HAS_BYTES`], words of a are four bytes of 0 to 255 and words of b four of
    /// −128 to 127; elsewhere both are two halves of −32768 to 32767. What an i32 does not hold wraps around.
    fn dot(self, lanes: D, a: Words<D>, b: Words<D>, c: Sums<D>) -> Sums<D>;
}

/// Work that multiplies words.
pub trait DotOp<D: Door> {
    /// What the work gives.
    type Output;

    /// Does it, with products by `dot`. As [`Op::run`], implementations are `#[inline(always)]`.
    fn run<P: Dot<D>>(self, dot: P) -> Self::Output;
}

/// Work with what multiplies its words.
pub(super) struct With<D, O, P> {
    op: O,
    dot: P,
    lanes: PhantomData<D>,
}

impl<D: Door, O: DotOp<D>, P: Dot<D>> With<D, O, P> {
    pub const fn new(op: O, dot: P) -> Self {
        Self { op, dot, lanes: PhantomData }
    }
}

impl<D: Door, O: DotOp<D>, P: Dot<D>> Op for With<D, O, P> {
    type Output = O::Output;

    #[inline(always)]
    fn run(self) -> O::Output {
        self.op.run(self.dot)
    }
}

/// Halves, with what all sets have.
#[derive(Clone, Copy)]
pub(super) struct Halves;

impl<D: Door> Dot<D> for Halves {
    #[inline(always)]
    fn dot(self, lanes: D, a: Words<D>, b: Words<D>, c: Sums<D>) -> Sums<D> {
        const { assert!(!D::HAS_BYTES, "a set that multiplies bytes has its own products") };
        let simd = lanes.simd();
        let (low, sign) = (simd.splat_u32s(0xffff), simd.splat_u32s(0x8000));
        let mut sum = c;
        for begin in [0, 16] {
            let half = |words| {
                let half = simd.and_u32s(simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(begin)), low);
                // The sign bit taken for a number and given back twice over.
                simd.sub_u32s(simd.xor_u32s(half, sign), sign)
            };
            sum = simd.add_i32s(sum, simd.transmute_i32s_u32s(simd.mul_u32s(half(a), half(b))));
        }
        sum
    }
}

/// Tests of what several sets have.
#[cfg(all(test, feature = "std"))]
pub(super) mod tests {
    use super::*;

    const LEN: usize = 64;

    /// Words and sums, multiplied.
    #[derive(Clone, Copy)]
    struct Multiply<'a, D> {
        lanes: D,
        a: &'a [u32; LEN],
        b: &'a [u32; LEN],
        c: &'a [i32; LEN],
    }

    /// What comes of them.
    #[derive(Debug, PartialEq)]
    struct Found {
        sums: [i32; LEN],
        /// The even bytes of a as halves, and the odd ones.
        halves: [[u32; LEN]; 2],
    }

    impl<D: Door> DotOp<D> for Multiply<'_, D> {
        type Output = Found;

        #[inline(always)]
        fn run<P: Dot<D>>(self, dot: P) -> Found {
            let Self { lanes, a, b, c } = self;
            let mut found = Found { sums: *c, halves: [[0; LEN]; 2] };
            let (a, b) = (D::Simd::as_simd_u32s(a).0, D::Simd::as_simd_u32s(b).0);
            for ((sum, &a), &b) in D::Simd::as_mut_simd_i32s(&mut found.sums).0.iter_mut().zip(a).zip(b) {
                *sum = dot.dot(lanes, a, b, *sum);
            }
            let [even, odd] = found.halves.each_mut().map(|halves| D::Simd::as_mut_simd_u32s(halves).0);
            for ((even, odd), &a) in even.iter_mut().zip(odd).zip(a) {
                [*even, *odd] = lanes.halves_of_bytes(a);
            }
            found
        }
    }

    /// Holds products against their sums one by one, on lanes that have an instruction for them and on lanes that do without.
    pub fn products_are_exact<D: Door>(lanes: &[D]) {
        let mut word = 1u32;
        let mut words = || {
            [(); LEN].map(|()| {
                word = word.wrapping_mul(0x9e37_79b1).rotate_left(7) ^ 0x80ff_7f00;
                word
            })
        };
        let of_bytes = |a: u32, b: u32| {
            let bytes = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
            bytes.map(|(a, b)| i32::from(a) * i32::from(b as i8)).sum::<i32>()
        };
        let of_halves = |a: u32, b: u32| {
            let product = |begin| i32::from((a >> begin) as i16) * i32::from((b >> begin) as i16);
            product(0).wrapping_add(product(16))
        };
        let half = |word: u32, byte: usize| u32::from(i16::from(word.to_le_bytes()[byte] as i8) as u16);
        for _ in 0..1000 {
            let (a, b, c) = (words(), words(), words().map(|word| word as i32));
            let product = |i: usize| if D::HAS_BYTES { of_bytes(a[i], b[i]) } else { of_halves(a[i], b[i]) };
            let expected = Found {
                sums: core::array::from_fn(|i| c[i].wrapping_add(product(i))),
                halves: [0, 1].map(|byte| a.map(|word| half(word, byte) | half(word, byte + 2) << 16)),
            };
            for &lanes in lanes {
                let found = lanes.call_dots(Multiply { lanes, a: &a, b: &b, c: &c });
                assert_eq!(found, expected, "{:?}", D::ISA);
            }
        }
    }
}
