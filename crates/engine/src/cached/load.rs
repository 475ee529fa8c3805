//! From a row of a panel's words to lanes of floats.

use half::{bf16, f16};
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

    /// Number `n` of a lane.
    fn get(step: &Step, lane: usize, n: usize) -> f32;

    /// Stores a number; codecs with scales store it rounded.
    fn set(step: &mut Step, lane: usize, n: usize, x: f32);
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

    #[inline(always)]
    fn get(step: &Step, lane: usize, n: usize) -> f32 {
        Pairs::get(step, lane, n)
    }

    #[inline(always)]
    fn set(step: &mut Step, lane: usize, n: usize, x: f32) {
        Pairs::set(step, lane, n, x);
    }
}

/// [`regard_ir::cache::Codec::F32`].
#[derive(Clone, Copy)]
pub(super) struct Floats;

impl Stored<1> for Floats {
    #[inline(always)]
    fn load<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::f32s; 1] {
        [vectors(lanes, bytemuck::cast_slice(step))[v]]
    }

    #[inline(always)]
    fn get(step: &Step, lane: usize, _: usize) -> f32 {
        f32::from_bits(step[lane])
    }

    #[inline(always)]
    fn set(step: &mut Step, lane: usize, _: usize, x: f32) {
        step[lane] = x.to_bits();
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

    #[inline(always)]
    fn get(step: &Step, lane: usize, n: usize) -> f32 {
        let halves: &[u16; 2 * LANES as usize] = bytemuck::cast_ref(step);
        f16::from_bits(halves[n * LANES as usize + lane]).to_f32()
    }

    #[inline(always)]
    fn set(step: &mut Step, lane: usize, n: usize, x: f32) {
        let halves: &mut [u16; 2 * LANES as usize] = bytemuck::cast_mut(step);
        halves[n * LANES as usize + lane] = f16::from_f32(x).to_bits();
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

    #[inline(always)]
    fn get(step: &Step, lane: usize, n: usize) -> f32 {
        f32::from_bits(step[lane] << (16 * (1 - n)) & 0xffff_0000)
    }

    #[inline(always)]
    fn set(step: &mut Step, lane: usize, n: usize, x: f32) {
        let (word, shift) = (&mut step[lane], 16 * n);
        *word = *word & !(0xffff << shift) | u32::from(bf16::from_f32(x).to_bits()) << shift;
    }
}

/// [`regard_ir::cache::Codec::Int8`], without its scale.
#[derive(Clone, Copy)]
pub(super) struct Bytes;

impl Stored<4> for Bytes {
    #[inline(always)]
    fn load<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::f32s; 4] {
        let words = words(lanes, step, v);
        [
            number::<D, 8, 0>(lanes, words),
            number::<D, 8, 1>(lanes, words),
            number::<D, 8, 2>(lanes, words),
            number::<D, 8, 3>(lanes, words),
        ]
    }

    #[inline(always)]
    fn get(step: &Step, lane: usize, n: usize) -> f32 {
        number_of::<8>(step[lane], n)
    }

    #[inline(always)]
    fn set(step: &mut Step, lane: usize, n: usize, x: f32) {
        put::<8>(&mut step[lane], n, x);
    }
}

/// [`regard_ir::cache::Codec::Int4`], without its scales.
#[derive(Clone, Copy)]
pub(super) struct Nibbles;

impl Stored<8> for Nibbles {
    #[inline(always)]
    fn load<D: Door>(lanes: D, step: &Step, v: usize) -> [<D::Simd as Simd>::f32s; 8] {
        let words = words(lanes, step, v);
        [
            number::<D, 4, 0>(lanes, words),
            number::<D, 4, 1>(lanes, words),
            number::<D, 4, 2>(lanes, words),
            number::<D, 4, 3>(lanes, words),
            number::<D, 4, 4>(lanes, words),
            number::<D, 4, 5>(lanes, words),
            number::<D, 4, 6>(lanes, words),
            number::<D, 4, 7>(lanes, words),
        ]
    }

    #[inline(always)]
    fn get(step: &Step, lane: usize, n: usize) -> f32 {
        number_of::<4>(step[lane], n)
    }

    #[inline(always)]
    fn set(step: &mut Step, lane: usize, n: usize, x: f32) {
        put::<4>(&mut step[lane], n, x);
    }
}

#[inline(always)]
fn words<D: Door>(lanes: D, step: &Step, v: usize) -> <D::Simd as Simd>::u32s {
    lanes.simd().transmute_u32s_f32s(vectors(lanes, bytemuck::cast_slice(step))[v])
}

/// 2²³ as bits: an integer below 2²³ in the lower bits makes a float that is larger by just that.
const UNIT: u32 = 0x4b00_0000;

/// What is added to numbers of so many bits, so that none is negative.
const fn bias<const BITS: u32>() -> u32 {
    1 << (BITS - 1)
}

/// The largest number of so many bits; its negative is the smallest that is stored.
pub(super) const fn largest<const BITS: u32>() -> f32 {
    (bias::<BITS>() - 1) as f32
}

/// Number `N` of each word.
#[inline(always)]
fn number<D: Door, const BITS: u32, const N: u32>(
    lanes: D,
    words: <D::Simd as Simd>::u32s,
) -> <D::Simd as Simd>::f32s {
    let simd = lanes.simd();
    let low = if N == 0 { words } else { simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(BITS * N)) };
    let bits = simd.and_u32s(low, simd.splat_u32s((1 << BITS) - 1));
    let float = simd.transmute_f32s_u32s(simd.or_u32s(bits, simd.splat_u32s(UNIT)));
    simd.sub_f32s(float, simd.splat_f32s(f32::from_bits(UNIT + bias::<BITS>())))
}

fn number_of<const BITS: u32>(word: u32, n: usize) -> f32 {
    let bits = word >> (BITS * n as u32) & ((1 << BITS) - 1);
    bits as f32 - bias::<BITS>() as f32
}

fn put<const BITS: u32>(word: &mut u32, n: usize, x: f32) {
    let most = largest::<BITS>();
    // Adding and taking away this rounds to the nearest integer, ties to even. NaN becomes the smallest number.
    const ROUND: f32 = 1.5 * (1 << 23) as f32;
    let number = (x.clamp(-most, most) + ROUND - ROUND) as i32;
    let (shift, mask) = (BITS * n as u32, (1u32 << BITS) - 1);
    let bits = number.wrapping_add(bias::<BITS>() as i32) as u32 & mask;
    *word = *word & !(mask << shift) | bits << shift;
}
