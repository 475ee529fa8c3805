//! AVX-512 (F, BW, CD, DQ, VL), with and without its products of bf16 pairs: 16 lanes, 32 registers. Products of bytes are
//! by AVX512-VNNI where the processor has it.

use core::arch::x86_64::{
    __cpuid_count, __m256i, __m512bh, __m512i, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _MM_HINT_T1,
    _mm512_dpbf16_ps, _mm512_dpbusd_epi32,
};
use core::mem::transmute;

use pulp::x86::V4;
use pulp::{bytemuck, f32x16, i32x16, u32x16};
use regard_ir::machine::Isa;
use regard_simd::{Lanes, Prefetch, TRANSPOSE};

use super::dots::{Dot, DotOp, With};
use super::probe::{self, Probe};
use super::{BIAS, Door, avx2};
use crate::engine::Op;

/// Proof that the processor has `pulp`'s level V4, and AVX512-BF16 where `BF16` says so.
#[derive(Clone, Copy, Debug)]
pub struct Level<const BF16: bool> {
    v4: V4,
    /// Whether the processor has AVX512-VNNI too.
    vnni: bool,
    /// Which cache long runs of lines are asked into.
    prefetch: Prefetch,
}

/// Proof that the processor has `pulp`'s level V4.
pub type Avx512 = Level<false>;

/// Proof that the processor has `pulp`'s level V4 and AVX512-BF16.
pub type Avx512Bf16 = Level<true>;

impl Avx512 {
    /// The token, on a processor that has the set.
    pub fn detect() -> Option<Self> {
        Some(Self { v4: V4::try_new()?, vnni: has_vnni(), prefetch: probe::prefetch() })
    }
}

impl Avx512Bf16 {
    /// The token, on a processor that has the set.
    pub fn detect() -> Option<Self> {
        /// Bit of CPUID leaf 7, subleaf 1's EAX: AVX512-BF16.
        const BF16: u32 = 1 << 5;
        static PROBE: Probe = Probe::new();
        let v4 = V4::try_new()?;
        // A processor of level V4 has leaf 7; subleaf 0's EAX is the largest subleaf.
        let ask = || __cpuid_count(7, 0).eax >= 1 && __cpuid_count(7, 1).eax & BF16 != 0;
        PROBE.get(ask).then(|| Self { v4, vnni: has_vnni(), prefetch: probe::prefetch() })
    }
}

/// Whether the processor, which is of level V4, has AVX512-VNNI.
fn has_vnni() -> bool {
    /// Bit of CPUID leaf 7, subleaf 0's ECX: AVX512-VNNI.
    const VNNI: u32 = 1 << 11;
    static PROBE: Probe = Probe::new();
    PROBE.get(|| __cpuid_count(7, 0).ecx & VNNI != 0)
}

impl<const BF16: bool> Level<BF16> {
    /// [`Door::sums`] for both: halves of two vectors lie side by side, then quarters and pairs, so that each is added in the order in
    /// which it would be alone.
    #[inline(always)]
    fn sums_of_eight(self, [a, b, c, d, e, f, g, h]: [f32x16; 8]) -> [f32; 8] {
        /// Where the sum of each vector is at the end.
        const PLACES: [u32; 16] = [0, 4, 8, 12, 2, 6, 10, 14, 0, 4, 8, 12, 2, 6, 10, 14];
        let simd = self.v4.avx512f;
        let add = |a, b| simd._mm512_add_ps(a, b);
        let halves = |a, b| {
            let (a, b) = (bytemuck::cast(a), bytemuck::cast(b));
            add(
                simd._mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
                simd._mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
            )
        };
        let quarters = |a, b| {
            add(
                simd._mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
                simd._mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
            )
        };
        let first = bytemuck::cast(quarters(halves(a, b), halves(c, d)));
        let last = bytemuck::cast(quarters(halves(e, f), halves(g, h)));
        let (lower, upper) = (simd._mm512_unpacklo_pd(first, last), simd._mm512_unpackhi_pd(first, last));
        let pairs = add(bytemuck::cast(lower), bytemuck::cast(upper));
        let sums = add(pairs, simd._mm512_permute_ps::<0b10_11_00_01>(pairs));
        let [sums, _]: [[f32; 8]; 2] =
            bytemuck::cast(simd._mm512_permutexvar_ps(bytemuck::cast(PLACES), sums));
        sums
    }

    /// [`Door::call_dots`] for both.
    #[inline(always)]
    fn call_for_dots<O: DotOp<Self>>(self, op: O) -> O::Output
    where
        Self: Door + Lanes<Simd = V4>,
    {
        if self.vnni {
            // SAFETY: as for `enter`; and `vnni` is what CPUID says.
            unsafe { door_vnni(With::new(op, Vnni)) }
        } else {
            self.call(With::new(op, Widened))
        }
    }
}

/// Products of bytes by AVX512-VNNI; made only where CPUID says that the processor has it.
#[derive(Clone, Copy)]
struct Vnni;

impl<const BF16: bool> Dot<Level<BF16>> for Vnni
where
    Level<BF16>: Door + Lanes<Simd = V4>,
{
    #[inline(always)]
    fn dot(self, _: Level<BF16>, a: u32x16, b: u32x16, c: i32x16) -> i32x16 {
        let (a, b, c) = (bytemuck::cast(a), bytemuck::cast(b), bytemuck::cast(c));
        // SAFETY: a `Vnni` says that the processor has AVX512-VNNI.
        bytemuck::cast(unsafe { _mm512_dpbusd_epi32(c, a, b) })
    }
}

/// Products of bytes as of 16 bits each, those in even places and those in odd ones.
#[derive(Clone, Copy)]
struct Widened;

impl<const BF16: bool> Dot<Level<BF16>> for Widened
where
    Level<BF16>: Door + Lanes<Simd = V4>,
{
    #[inline(always)]
    fn dot(self, lanes: Level<BF16>, a: u32x16, b: u32x16, c: i32x16) -> i32x16 {
        let (a, b, c): (__m512i, __m512i, __m512i) =
            (bytemuck::cast(a), bytemuck::cast(b), bytemuck::cast(c));
        let (avx512f, avx512bw) = (lanes.v4.avx512f, lanes.v4.avx512bw);
        let low = avx512f._mm512_set1_epi32(0x00ff_00ff);
        let even_a = avx512f._mm512_and_si512(a, low);
        let odd_a = avx512bw._mm512_srli_epi16::<8>(a);
        let even_b = avx512bw._mm512_srai_epi16::<8>(avx512bw._mm512_slli_epi16::<8>(b));
        let odd_b = avx512bw._mm512_srai_epi16::<8>(b);
        let even = avx512bw._mm512_madd_epi16(even_a, even_b);
        let odd = avx512bw._mm512_madd_epi16(odd_a, odd_b);
        bytemuck::cast(avx512f._mm512_add_epi32(avx512f._mm512_add_epi32(c, even), odd))
    }
}

#[inline(always)]
fn half_words(bits: &[u16]) -> __m256i {
    let mut words = [0; 16];
    words.copy_from_slice(&bits[..16]);
    bytemuck::cast(words)
}

impl<const BF16: bool> Lanes for Level<BF16> {
    type Simd = V4;

    #[inline(always)]
    fn simd(self) -> V4 {
        self.v4
    }

    #[inline(always)]
    fn prefetches(self) -> Prefetch {
        self.prefetch
    }

    #[inline(always)]
    fn with_prefetches(self, prefetch: Prefetch) -> Self {
        Self { prefetch, ..self }
    }

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        avx2::prefetch::<_MM_HINT_T0, T>(at);
    }

    #[inline(always)]
    fn prefetch_far<T>(self, at: *const T) {
        avx2::prefetch::<_MM_HINT_T1, T>(at);
    }

    #[inline(always)]
    fn floor(self, x: f32x16) -> f32x16 {
        // Immediate: no scaling (bits 7:4), no exception for inexact results (bit 3), round down (bits 1:0).
        bytemuck::cast(self.v4.avx512f._mm512_roundscale_ps::<0b1001>(bytemuck::cast(x)))
    }

    #[inline(always)]
    fn exp2_by<const N: usize>(self, fraction: &[f32; N], x: f32x16) -> f32x16 {
        let (avx512f, x) = (self.v4.avx512f, bytemuck::cast(x));
        // What rounding down leaves, 0 of an infinite number; immediate as that of `floor`. `scalef` rounds down by itself.
        let rest = self.v4.avx512dq._mm512_reduce_ps::<0b1001>(x);
        let mut power = avx512f._mm512_set1_ps(fraction[N - 1]);
        for &coefficient in fraction[..N - 1].iter().rev() {
            power = avx512f._mm512_fmadd_ps(power, rest, avx512f._mm512_set1_ps(coefficient));
        }
        bytemuck::cast(avx512f._mm512_scalef_ps(power, x))
    }

    // The instructions give their second operand where one is NaN.

    #[inline(always)]
    fn max(self, a: f32x16, b: f32x16) -> f32x16 {
        bytemuck::cast(self.v4.avx512f._mm512_max_ps(bytemuck::cast(b), bytemuck::cast(a)))
    }

    #[inline(always)]
    fn min(self, a: f32x16, b: f32x16) -> f32x16 {
        bytemuck::cast(self.v4.avx512f._mm512_min_ps(bytemuck::cast(b), bytemuck::cast(a)))
    }

    #[inline(always)]
    fn to_i32(self, x: f32x16) -> i32x16 {
        // The conversion gives i32::MIN for NaN and for everything outside; the two other cases are mended.
        let avx512f = self.v4.avx512f;
        let x = bytemuck::cast(x);
        let truncated = avx512f._mm512_cvttps_epi32(x);
        let above = avx512f._mm512_cmp_ps_mask::<{ core::arch::x86_64::_CMP_GE_OQ }>(
            x,
            avx512f._mm512_set1_ps(2_147_483_648.0),
        );
        let is_number = avx512f._mm512_cmp_ps_mask::<{ core::arch::x86_64::_CMP_ORD_Q }>(x, x);
        let saturated = avx512f._mm512_mask_mov_epi32(truncated, above, avx512f._mm512_set1_epi32(i32::MAX));
        bytemuck::cast(avx512f._mm512_maskz_mov_epi32(is_number, saturated))
    }

    #[inline(always)]
    fn to_f32(self, x: i32x16) -> f32x16 {
        bytemuck::cast(self.v4.avx512f._mm512_cvtepi32_ps(bytemuck::cast(x)))
    }

    #[inline(always)]
    fn pow2_integral(self, n: f32x16) -> f32x16 {
        let avx512f = self.v4.avx512f;
        let biased = avx512f._mm512_add_ps(bytemuck::cast(n), avx512f._mm512_set1_ps(BIAS));
        bytemuck::cast(avx512f._mm512_slli_epi32::<23>(bytemuck::cast(biased)))
    }

    #[inline(always)]
    fn load_f16(self, bits: &[u16]) -> f32x16 {
        bytemuck::cast(self.v4.avx512f._mm512_cvtph_ps(half_words(bits)))
    }

    #[inline(always)]
    fn load_bf16(self, bits: &[u16]) -> f32x16 {
        let avx512f = self.v4.avx512f;
        bytemuck::cast(avx512f._mm512_slli_epi32::<16>(avx512f._mm512_cvtepu16_epi32(half_words(bits))))
    }

    #[inline(always)]
    fn store_f16(self, x: f32x16, bits: &mut [u16]) {
        let words = self.v4.avx512f._mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(bytemuck::cast(x));
        bits[..16].copy_from_slice(&bytemuck::cast::<__m256i, [u16; 16]>(words));
    }

    #[inline(always)]
    fn transpose(self, from: [&[f32]; TRANSPOSE], to: &mut [f32], stride: usize) {
        avx2::transpose(*self.v4, from, to, stride);
    }
}

impl Door for Avx512 {
    const ISA: Isa = Isa::Avx512;
    /// 8 × 3 sums, 3 row vectors; broadcasts are memory operands: 27 of 32 registers.
    const TILE: usize = 8;
    const HAS_BYTES: bool = true;

    #[inline(always)]
    fn sums(self, vectors: [f32x16; 8]) -> [f32; 8] {
        self.sums_of_eight(vectors)
    }

    #[inline(always)]
    fn call_dots<O: DotOp<Self>>(self, op: O) -> O::Output {
        self.call_for_dots(op)
    }

    #[inline(always)]
    fn enter<O: Op>(self, op: O) -> O::Output {
        // SAFETY: an `Avx512` is made only by `detect`, which saw every feature of V4.
        unsafe { door(op) }
    }

    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        // SAFETY: as for `enter`.
        unsafe { door_of_its_own(op) }
    }
}

impl Door for Avx512Bf16 {
    const ISA: Isa = Isa::Avx512Bf16;
    const TILE: usize = Avx512::TILE;
    const HAS_BYTES: bool = true;

    #[inline(always)]
    fn dot_bf16(self, a: f32x16, b: f32x16, c: f32x16) -> f32x16 {
        // SAFETY: 64 bytes of any bits are words of two bf16.
        let a = unsafe { transmute::<f32x16, __m512bh>(a) };
        // SAFETY: as for `a`.
        let b = unsafe { transmute::<f32x16, __m512bh>(b) };
        // SAFETY: an `Avx512Bf16` is made only by `detect`, which saw AVX512-BF16 beside V4.
        bytemuck::cast(unsafe { _mm512_dpbf16_ps(bytemuck::cast(c), a, b) })
    }

    #[inline(always)]
    fn halves_together(self, words: &[u32; 16]) -> [u32; 16] {
        /// Bytes of two words each, four times over: the lower halves, then the upper ones.
        const ORDER: [[u8; 16]; 4] = [[0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]; 4];
        let words: __m512i = bytemuck::cast(*words);
        bytemuck::cast(self.v4.avx512bw._mm512_shuffle_epi8(words, bytemuck::cast(ORDER)))
    }

    #[inline(always)]
    fn sums(self, vectors: [f32x16; 8]) -> [f32; 8] {
        self.sums_of_eight(vectors)
    }

    #[inline(always)]
    fn call_dots<O: DotOp<Self>>(self, op: O) -> O::Output {
        self.call_for_dots(op)
    }

    #[inline(always)]
    fn enter<O: Op>(self, op: O) -> O::Output {
        // SAFETY: an `Avx512Bf16` is made only by `detect`, which saw every feature of V4 and AVX512-BF16.
        unsafe { door_bf16(op) }
    }

    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        // SAFETY: as for `enter`.
        unsafe { door_bf16_of_its_own(op) }
    }
}

/// Enables all that V4 names, so that every call of `pulp` is inlined.
#[target_feature(
    enable = "sse,sse2,fxsr,sse3,ssse3,sse4.1,sse4.2,popcnt,avx,avx2,bmi1,bmi2,fma,lzcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl"
)]
fn door<O: Op>(op: O) -> O::Output {
    op.run()
}

/// As `door`, never inlined.
#[inline(never)]
#[target_feature(
    enable = "sse,sse2,fxsr,sse3,ssse3,sse4.1,sse4.2,popcnt,avx,avx2,bmi1,bmi2,fma,lzcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl"
)]
fn door_of_its_own<O: Op>(op: O) -> O::Output {
    op.run()
}

/// As `door`, with AVX512-BF16.
#[target_feature(
    enable = "sse,sse2,fxsr,sse3,ssse3,sse4.1,sse4.2,popcnt,avx,avx2,bmi1,bmi2,fma,lzcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16"
)]
fn door_bf16<O: Op>(op: O) -> O::Output {
    op.run()
}

/// As `door_bf16`, never inlined.
#[inline(never)]
#[target_feature(
    enable = "sse,sse2,fxsr,sse3,ssse3,sse4.1,sse4.2,popcnt,avx,avx2,bmi1,bmi2,fma,lzcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16"
)]
fn door_bf16_of_its_own<O: Op>(op: O) -> O::Output {
    op.run()
}

/// As `door`, with AVX512-VNNI, never inlined.
#[inline(never)]
#[target_feature(
    enable = "sse,sse2,fxsr,sse3,ssse3,sse4.1,sse4.2,popcnt,avx,avx2,bmi1,bmi2,fma,lzcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni"
)]
fn door_vnni<O: Op>(op: O) -> O::Output {
    op.run()
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use std::eprintln;

    use super::*;

    #[test]
    fn products_are_the_same_with_other_instructions() {
        let Some(lanes) = Avx512::detect() else { return eprintln!("skipped avx512: not on this CPU") };
        super::super::dots::tests::products_are_exact(&[lanes, Avx512 { vnni: false, ..lanes }]);
        if let Some(lanes) = Avx512Bf16::detect() {
            super::super::dots::tests::products_are_exact(&[lanes, Avx512Bf16 { vnni: false, ..lanes }]);
        }
    }
}
