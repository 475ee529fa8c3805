//! From a row of a panel's words to lanes of floats.

use pulp::bytemuck;
use regard_ir::cache::LANES;
use regard_simd::{F32, Simd, halves_bf16, vectors};

use crate::isa::Door;

/// One row of a panel: a word for each lane.
pub(super) type Step = [u32; LANES as usize];

/// How numbers are stored in a [`Step`], and how they are multiplied: a word takes `N` elements of the other operand.
pub(super) trait Stored<const N: usize>: Copy + 'static {
    /// Numbers of a word.
    const NUMBERS: usize = N;

    /// Whether there are blocks whose panels do not lie in pairs.
    const UNPAIRED: bool = false;

    /// What vector `v` of the row's lanes multiplies, in the order of the elements. `#[inline(always)]`.
    fn load<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::f32s; N];

    /// `a · b + c`, lane by lane, of elements. `#[inline(always)]`.
    #[inline(always)]
    fn mul_add<D: Door>(
        lanes: D,
        a: <D::Simd as Simd>::f32s,
        b: <D::Simd as Simd>::f32s,
        c: <D::Simd as Simd>::f32s,
    ) -> <D::Simd as Simd>::f32s {
        lanes.simd().mul_add_e_f32s(a, b, c)
    }
}

/// [`regard_ir::cache::Codec::Bf16`], multiplied in pairs: elements are words of two bf16 themselves.
#[derive(Clone, Copy)]
pub(super) struct Dots;

impl Stored<1> for Dots {
    const NUMBERS: usize = 2;

    #[inline(always)]
    fn load<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::f32s; 1] {
        [vectors(lanes, bytemuck::cast_slice(step))[v]]
    }

    #[inline(always)]
    fn mul_add<D: Door>(
        lanes: D,
        a: <D::Simd as Simd>::f32s,
        b: <D::Simd as Simd>::f32s,
        c: <D::Simd as Simd>::f32s,
    ) -> <D::Simd as Simd>::f32s {
        lanes.dot_bf16(a, b, c)
    }
}

/// [`regard_ir::cache::Codec::F32`].
#[derive(Clone, Copy)]
pub(super) struct Floats;

impl Stored<1> for Floats {
    /// Of rows that are mixed as they are read.
    const UNPAIRED: bool = true;

    #[inline(always)]
    fn load<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::f32s; 1] {
        [vectors(lanes, bytemuck::cast_slice(step))[v]]
    }
}

/// [`regard_ir::cache::Codec::F16`].
#[derive(Clone, Copy)]
pub(super) struct Halves;

impl Stored<2> for Halves {
    #[inline(always)]
    fn load<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::f32s; 2] {
        let (first, second): (&[u16], &[u16]) = bytemuck::cast_slice(step).split_at(LANES as usize);
        let at = v * D::WIDTH;
        [lanes.load_f16(&first[at..][..D::WIDTH]), lanes.load_f16(&second[at..][..D::WIDTH])]
    }
}

/// [`regard_ir::cache::Codec::Bf16`].
#[derive(Clone, Copy)]
pub(super) struct Pairs;

impl Stored<2> for Pairs {
    #[inline(always)]
    fn load<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::f32s; 2] {
        let words = F32::from_raw(lanes, vectors(lanes, bytemuck::cast_slice(step))[v]);
        let (first, second) = halves_bf16(words);
        [first.raw(), second.raw()]
    }
}
