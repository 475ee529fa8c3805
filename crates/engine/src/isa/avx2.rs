//! AVX2 with FMA and F16C: 8 lanes, 16 registers. Products of halves are by AVX-VNNI where the processor has it.

use core::arch::asm;
use core::arch::x86_64::{
    __cpuid_count, __m128i, __m256, __m256i, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _MM_HINT_T1,
    _mm_prefetch, _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_dpwssd_avx_epi32, _mm256_setzero_ps,
};

use pulp::core_arch::x86::F16c;
use pulp::x86::V3;
use pulp::{bytemuck, f32x8, i32x8, u32x8};
use regard_ir::machine::Isa;
use regard_simd::{Lanes, Prefetch, TRANSPOSE};

use super::dots::{Dot, DotOp, With};
use super::probe::{self, Probe};
use super::{BIAS, Door};
use crate::engine::Op;
use crate::pack::PANEL;
use crate::panel::tile::Floats;
use crate::product::{self, Rows};

/// Proof that the processor has `pulp`'s level V3 and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2 {
    v3: V3,
    _f16c: F16c,
    /// Whether the processor has AVX-VNNI too.
    vnni: bool,
    /// Which cache long runs of lines are asked into.
    prefetch: Prefetch,
}

impl Avx2 {
    /// The token, on a processor that has the set.
    pub fn detect() -> Option<Self> {
        Some(Self {
            v3: V3::try_new()?,
            _f16c: F16c::try_new()?,
            vnni: has_vnni(),
            prefetch: probe::prefetch(),
        })
    }
}

/// Whether the processor, which is of level V3, has AVX-VNNI.
fn has_vnni() -> bool {
    /// Bit of CPUID leaf 7, subleaf 1's EAX: AVX-VNNI.
    const VNNI: u32 = 1 << 4;
    static PROBE: Probe = Probe::new();
    // A processor of level V3 has leaf 7; subleaf 0's EAX is the largest subleaf.
    PROBE.get(|| __cpuid_count(7, 0).eax >= 1 && __cpuid_count(7, 1).eax & VNNI != 0)
}

#[inline(always)]
fn vector(x: f32x8) -> __m256 {
    bytemuck::cast(x)
}

#[inline(always)]
fn lanes(x: __m256) -> f32x8 {
    bytemuck::cast(x)
}

#[inline(always)]
fn half_words(bits: &[u16]) -> __m128i {
    let mut words = [0; 8];
    words.copy_from_slice(&bits[..8]);
    bytemuck::cast(words)
}

/// 8 × 8 floats turned, as rows of vectors: unpack pairs, shuffle quads, then swap the 128-bit halves.
#[inline(always)]
pub(super) fn transpose(v3: V3, from: [&[f32]; TRANSPOSE], to: &mut [f32], stride: usize) {
    let avx = v3.avx;
    let row = |i: usize| -> __m256 {
        let mut floats = [0.0; TRANSPOSE];
        floats.copy_from_slice(&from[i][..TRANSPOSE]);
        bytemuck::cast(floats)
    };
    let pairs = |a, b| (avx._mm256_unpacklo_ps(a, b), avx._mm256_unpackhi_ps(a, b));
    let (p0, p1) = pairs(row(0), row(1));
    let (p2, p3) = pairs(row(2), row(3));
    let (p4, p5) = pairs(row(4), row(5));
    let (p6, p7) = pairs(row(6), row(7));
    let quads =
        |a, b| (avx._mm256_shuffle_ps::<0b01_00_01_00>(a, b), avx._mm256_shuffle_ps::<0b11_10_11_10>(a, b));
    let (q0, q1) = quads(p0, p2);
    let (q2, q3) = quads(p1, p3);
    let (q4, q5) = quads(p4, p6);
    let (q6, q7) = quads(p5, p7);
    let low = |a, b| avx._mm256_permute2f128_ps::<0x20>(a, b);
    let high = |a, b| avx._mm256_permute2f128_ps::<0x31>(a, b);
    let turned = [
        low(q0, q4),
        low(q1, q5),
        low(q2, q6),
        low(q3, q7),
        high(q0, q4),
        high(q1, q5),
        high(q2, q6),
        high(q3, q7),
    ];
    for (j, column) in turned.into_iter().enumerate() {
        to[j * stride..][..TRANSPOSE].copy_from_slice(&bytemuck::cast::<_, [f32; TRANSPOSE]>(column));
    }
}

impl Lanes for Avx2 {
    type Simd = V3;

    #[inline(always)]
    fn simd(self) -> V3 {
        self.v3
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
        prefetch::<_MM_HINT_T0, T>(at);
    }

    #[inline(always)]
    fn prefetch_far<T>(self, at: *const T) {
        prefetch::<_MM_HINT_T1, T>(at);
    }

    #[inline(always)]
    fn floor(self, x: f32x8) -> f32x8 {
        lanes(self.v3.avx._mm256_floor_ps(vector(x)))
    }

    // The instructions give their second operand where one is NaN.

    #[inline(always)]
    fn max(self, a: f32x8, b: f32x8) -> f32x8 {
        lanes(self.v3.avx._mm256_max_ps(vector(b), vector(a)))
    }

    #[inline(always)]
    fn min(self, a: f32x8, b: f32x8) -> f32x8 {
        lanes(self.v3.avx._mm256_min_ps(vector(b), vector(a)))
    }

    #[inline(always)]
    fn to_i32(self, x: f32x8) -> i32x8 {
        // The conversion gives i32::MIN for NaN and for everything outside; the two other cases are mended.
        let (avx, avx2) = (self.v3.avx, self.v3.avx2);
        let truncated = avx._mm256_cvttps_epi32(vector(x));
        let above = avx._mm256_cmp_ps::<{ core::arch::x86_64::_CMP_GE_OQ }>(
            vector(x),
            avx._mm256_set1_ps(2_147_483_648.0),
        );
        let is_number = avx._mm256_cmp_ps::<{ core::arch::x86_64::_CMP_ORD_Q }>(vector(x), vector(x));
        // i32::MIN with all bits flipped is i32::MAX.
        let saturated = avx2._mm256_xor_si256(truncated, bytemuck::cast::<__m256, __m256i>(above));
        bytemuck::cast(avx2._mm256_and_si256(saturated, bytemuck::cast::<__m256, __m256i>(is_number)))
    }

    #[inline(always)]
    fn to_f32(self, x: i32x8) -> f32x8 {
        lanes(self.v3.avx._mm256_cvtepi32_ps(bytemuck::cast(x)))
    }

    #[inline(always)]
    fn pow2_integral(self, n: f32x8) -> f32x8 {
        let avx = self.v3.avx;
        let biased = avx._mm256_add_ps(vector(n), avx._mm256_set1_ps(BIAS));
        bytemuck::cast(self.v3.avx2._mm256_slli_epi32::<23>(bytemuck::cast(biased)))
    }

    #[inline(always)]
    fn load_f16(self, bits: &[u16]) -> f32x8 {
        // SAFETY: an `Avx2` is made only by `detect`, which saw F16C.
        lanes(unsafe { _mm256_cvtph_ps(half_words(bits)) })
    }

    #[inline(always)]
    fn load_bf16(self, bits: &[u16]) -> f32x8 {
        let avx2 = self.v3.avx2;
        bytemuck::cast(avx2._mm256_slli_epi32::<16>(avx2._mm256_cvtepu16_epi32(half_words(bits))))
    }

    #[inline(always)]
    fn store_f16(self, x: f32x8, bits: &mut [u16]) {
        // SAFETY: an `Avx2` is made only by `detect`, which saw F16C.
        let words = unsafe { _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(vector(x)) };
        bits[..8].copy_from_slice(&bytemuck::cast::<__m128i, [u16; 8]>(words));
    }

    #[inline(always)]
    fn transpose(self, from: [&[f32]; TRANSPOSE], to: &mut [f32], stride: usize) {
        transpose(self.v3, from, to, stride);
    }
}

impl Door for Avx2 {
    const ISA: Isa = Isa::Avx2;
    /// 4 × 3 sums, 3 row vectors and a broadcast: 16 registers.
    const TILE: usize = 4;

    #[inline(always)]
    fn half_tile<const FIRST: usize>(self, a: &[[f32; PANEL]], b: &[[f32x8; 3]]) -> [[f32x8; 3]; PANEL / 2] {
        // SAFETY: an `Avx2` is made only by `detect`, which saw AVX2 and FMA.
        let sums = unsafe { half_tile::<FIRST>(a, b) };
        core::array::from_fn(|i| core::array::from_fn(|v| lanes(sums[3 * i + v])))
    }

    #[inline(always)]
    fn strided_tile<const R: usize, const V: usize>(
        self,
        sums: [[f32x8; V]; R],
        a: Rows<'_>,
        b: Rows<'_>,
    ) -> [[f32x8; V]; R] {
        let tile = match (R, V) {
            (4, 3) => four_by_three,
            (6, 2) => six_by_two,
            _ => return product::sum::<Self, Floats, V, R>(self, sums, a, b),
        };
        let sums = core::array::from_fn(|i| vector(sums[i / V][i % V]));
        // SAFETY: an `Avx2` is made only by `detect`, which saw AVX2 and FMA.
        let sums = unsafe { tile(sums, a, b) };
        core::array::from_fn(|i| core::array::from_fn(|v| lanes(sums[i * V + v])))
    }

    #[inline(always)]
    fn halves_of_bytes(self, words: u32x8) -> [u32x8; 2] {
        let (avx2, words) = (self.v3.avx2, bytemuck::cast(words));
        let even = avx2._mm256_srai_epi16::<8>(avx2._mm256_slli_epi16::<8>(words));
        [even, avx2._mm256_srai_epi16::<8>(words)].map(bytemuck::cast)
    }

    #[inline(always)]
    fn call_dots<O: DotOp<Self>>(self, op: O) -> O::Output {
        if self.vnni {
            // SAFETY: as for `enter`; and `vnni` is what CPUID says.
            unsafe { door_vnni(With::new(op, Vnni)) }
        } else {
            self.call(With::new(op, MultiplyAdd))
        }
    }

    #[inline(always)]
    fn enter<O: Op>(self, op: O) -> O::Output {
        // SAFETY: an `Avx2` is made only by `detect`, which saw every feature of V3, and F16C.
        unsafe { door(op) }
    }

    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        // SAFETY: as for `enter`.
        unsafe { door_of_its_own(op) }
    }
}

/// Products of halves by AVX-VNNI; made only where CPUID says that the processor has it.
#[derive(Clone, Copy)]
struct Vnni;

impl Dot<Avx2> for Vnni {
    #[inline(always)]
    fn dot(self, _: Avx2, a: u32x8, b: u32x8, c: i32x8) -> i32x8 {
        let (a, b, c) = (bytemuck::cast(a), bytemuck::cast(b), bytemuck::cast(c));
        // SAFETY: a `Vnni` says that the processor has AVX-VNNI.
        bytemuck::cast(unsafe { _mm256_dpwssd_avx_epi32(c, a, b) })
    }
}

/// Products of halves by AVX2.
#[derive(Clone, Copy)]
struct MultiplyAdd;

impl Dot<Avx2> for MultiplyAdd {
    #[inline(always)]
    fn dot(self, lanes: Avx2, a: u32x8, b: u32x8, c: i32x8) -> i32x8 {
        let avx2 = lanes.v3.avx2;
        let products = avx2._mm256_madd_epi16(bytemuck::cast(a), bytemuck::cast(b));
        bytemuck::cast(avx2._mm256_add_epi32(bytemuck::cast(c), products))
    }
}

/// Asks for a line of memory.
#[inline(always)]
pub(super) fn prefetch<const HINT: i32, T>(at: *const T) {
    // SAFETY: a prefetch reads nothing that the program can see and faults nowhere; every x86-64 processor has it.
    unsafe { _mm_prefetch::<HINT>(at.cast()) }
}

/// Enables all that V3 names, so that every call of `pulp` is inlined.
#[target_feature(enable = "sse,sse2,fxsr,sse3,ssse3,sse4.1,sse4.2,popcnt,avx,avx2,bmi1,bmi2,fma,lzcnt,f16c")]
fn door<O: Op>(op: O) -> O::Output {
    op.run()
}

/// As `door`, never inlined.
#[inline(never)]
#[target_feature(enable = "sse,sse2,fxsr,sse3,ssse3,sse4.1,sse4.2,popcnt,avx,avx2,bmi1,bmi2,fma,lzcnt,f16c")]
fn door_of_its_own<O: Op>(op: O) -> O::Output {
    op.run()
}

/// As `door`, with AVX-VNNI, never inlined.
#[inline(never)]
#[target_feature(
    enable = "sse,sse2,fxsr,sse3,ssse3,sse4.1,sse4.2,popcnt,avx,avx2,bmi1,bmi2,fma,lzcnt,f16c,avxvnni"
)]
fn door_vnni<O: Op>(op: O) -> O::Output {
    op.run()
}

/// Sums of a row of a tile: the float at an address, broadcast, by some vectors.
macro_rules! sums {
    ($($address:literal),+ => $($sum:literal += $vector:literal),+) => {
        concat!(
            "vbroadcastss {x}, [", $($address),+, "]\n",
            $("vfmadd231ps {s", $sum, "}, {x}, {b", $vector, "}\n"),+
        )
    };
}

/// One row of the register tile's operands: 3 vectors, each by 4 broadcast floats.
macro_rules! row {
    ($row:literal) => {
        concat!(
            row!(load "b0", $row, "0"),
            row!(load "b1", $row, "32"),
            row!(load "b2", $row, "64"),
            sums!("{a} + ", $row, " * {a_row}" => "0" += "0", "1" += "1", "2" += "2"),
            sums!("{a} + ", $row, " * {a_row} + 4" => "3" += "0", "4" += "1", "5" += "2"),
            sums!("{a} + ", $row, " * {a_row} + 8" => "6" += "0", "7" += "1", "8" += "2"),
            sums!("{a} + ", $row, " * {a_row} + 12" => "9" += "0", "10" += "1", "11" += "2"),
        )
    };
    (load $to:literal, $row:literal, $at:literal) => {
        concat!("vmovups {", $to, "}, [{b} + ", $row, " * {b_row} + ", $at, "]\n")
    };
}

/// Sums of a tile: with two or three vectors and a broadcast they take all 16 registers, or all but one.
type Sums = [__m256; 12];

/// A tile's assembly, which adds to its sums.
macro_rules! tile {
    ($sums:ident, $($part:tt)*) => {
        asm!(
            $($part)*
            b0 = out(ymm_reg) _,
            b1 = out(ymm_reg) _,
            x = out(ymm_reg) _,
            s0 = inout(ymm_reg) $sums[0],
            s1 = inout(ymm_reg) $sums[1],
            s2 = inout(ymm_reg) $sums[2],
            s3 = inout(ymm_reg) $sums[3],
            s4 = inout(ymm_reg) $sums[4],
            s5 = inout(ymm_reg) $sums[5],
            s6 = inout(ymm_reg) $sums[6],
            s7 = inout(ymm_reg) $sums[7],
            s8 = inout(ymm_reg) $sums[8],
            s9 = inout(ymm_reg) $sums[9],
            s10 = inout(ymm_reg) $sums[10],
            s11 = inout(ymm_reg) $sums[11],
            options(nostack, readonly),
        )
    };
}

/// Rows of a turn: with fewer the loop's own instructions count, and 16 were seen to be slower than one.
const UNROLLED: usize = 4;

/// The register tile of 4 × 3 sums, in assembly: it needs all 16 registers, and compiled code spills and moves them
/// about. Attention of 8 heads, width 128, 1,024 tokens on one thread of a Zen 3: 82 GFLOP/s so, 41 when compiled.
///
/// A turn of 4 rows is no faster than one of a single row where a core is alone, and a tenth where another thread has half of its
/// instructions (docs/measuring.md, *Cores that are shared*).
#[inline]
#[target_feature(enable = "avx2,fma")]
fn half_tile<const FIRST: usize>(a: &[[f32; PANEL]], b: &[[f32x8; 3]]) -> Sums {
    const { assert!(PANEL / 2 == 4, "a tile has 4 × 3 sums") };
    const { assert!(FIRST + PANEL / 2 <= PANEL, "a tile's rows lie within a panel") };
    const { assert!(UNROLLED == 4, "a turn of the first loop below takes 4 rows") };
    assert_eq!(a.len(), b.len(), "a and b are equally deep");
    let mut sums = [_mm256_setzero_ps(); 12];
    // SAFETY: both loops together take `a.len()` rows (asserted above): 4 floats of each row of `a`, from `FIRST` on, which are inside
    // the row, and the 3 vectors of each row of `b`, of as many rows. Pointers may end past a slice, where nothing is read. Loads ask
    // for no alignment, nothing is written to memory, and every register that changes is declared.
    unsafe {
        tile!(
            sums,
            "test {turns}, {turns}",
            "jz 3f",
            "2:",
            row!("0"),
            row!("1"),
            row!("2"),
            row!("3"),
            "add {a}, {unrolled} * {a_row}",
            "add {b}, {unrolled} * {b_row}",
            "dec {turns}",
            "jnz 2b",
            "3:",
            "test {rest}, {rest}",
            "jz 5f",
            "4:",
            row!("0"),
            "add {a}, {a_row}",
            "add {b}, {b_row}",
            "dec {rest}",
            "jnz 4b",
            "5:",
            a = inout(reg) a.as_ptr().cast::<f32>().wrapping_add(FIRST) => _,
            b = inout(reg) b.as_ptr() => _,
            turns = inout(reg) a.len() / UNROLLED => _,
            rest = inout(reg) a.len() % UNROLLED => _,
            unrolled = const UNROLLED,
            a_row = const size_of::<[f32; PANEL]>(),
            b_row = const size_of::<[f32x8; 3]>(),
            b2 = out(ymm_reg) _,
        );
    }
    sums
}

/// Where a tile of operands that lie wherever begins, and how far it goes with each step, in bytes.
struct Walk {
    depth: usize,
    a: *const f32,
    apart: usize,
    a_step: usize,
    b: *const f32,
    b_step: usize,
}

impl Walk {
    /// Of a tile of `R` rows by so many vectors.
    #[inline(always)]
    fn new<const R: usize>(a: Rows<'_>, b: Rows<'_>, vectors: usize) -> Self {
        let ([depth, a_each], [b_depth, b_each]) = (a.sizes(), b.sizes());
        assert!(depth == b_depth && a_each == R && b_each == 8 * vectors, "operands are those of a tile");
        let ((a, [a_step, apart]), (b, [b_step, b_apart])) = (a.place(), b.place());
        assert_eq!(b_apart, 1, "vectors lie as they are");
        let [apart, a_step, b_step] = [apart, a_step, b_step].map(|count| count * size_of::<f32>());
        Self { depth, a, apart, a_step, b, b_step }
    }
}

/// The loop of a tile of operands that lie wherever: what a step does, and registers beside those of [`tile`]. `{fourth}` is where row
/// number 3 is.
macro_rules! walk {
    ($sums:ident, $a:ident, $b:ident, $rows:literal x $vectors:literal, [$($step:expr),+ $(,)?] $($more:tt)*) => {{
        let Walk { depth, a, apart, a_step, b, b_step } = Walk::new::<$rows>($a, $b, $vectors);
        // SAFETY: the loop takes `depth` steps, of each as many floats of `a` and vectors of `b` as it has rows and vectors, which `Rows`
        // says may be read (asserted by `Walk::new`). Pointers may end past a slice, where nothing is read. Loads ask for no alignment,
        // nothing is written to memory, and every register that changes is declared.
        unsafe {
            tile!(
                $sums,
                "test {depth}, {depth}",
                "jz 3f",
                "2:",
                $($step,)+
                "add {a}, {a_step}",
                "add {fourth}, {a_step}",
                "add {b}, {b_step}",
                "dec {depth}",
                "jnz 2b",
                "3:",
                depth = inout(reg) depth => _,
                a = inout(reg) a => _,
                fourth = inout(reg) a.wrapping_byte_add(3 * apart) => _,
                b = inout(reg) b => _,
                apart = in(reg) apart,
                a_step = in(reg) a_step,
                b_step = in(reg) b_step,
                $($more)*
            );
        }
        $sums
    }};
}

/// The tile of 4 × 3 sums of operands that lie wherever. Compiled, a sum goes through memory at each step, which takes twice as long as
/// its multiply-adds.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn four_by_three(mut sums: Sums, a: Rows<'_>, b: Rows<'_>) -> Sums {
    walk!(
        sums, a, b, 4 x 3,
        [
            "vmovups {b0}, [{b}]",
            "vmovups {b1}, [{b} + 32]",
            "vmovups {b2}, [{b} + 64]",
            sums!("{a}" => "0" += "0", "1" += "1", "2" += "2"),
            sums!("{a} + {apart}" => "3" += "0", "4" += "1", "5" += "2"),
            sums!("{a} + 2 * {apart}" => "6" += "0", "7" += "1", "8" += "2"),
            sums!("{fourth}" => "9" += "0", "10" += "1", "11" += "2"),
        ]
        b2 = out(ymm_reg) _,
    )
}

/// The tile of 6 × 2 sums of operands that lie wherever.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn six_by_two(mut sums: Sums, a: Rows<'_>, b: Rows<'_>) -> Sums {
    walk!(
        sums, a, b, 6 x 2,
        [
            "vmovups {b0}, [{b}]",
            "vmovups {b1}, [{b} + 32]",
            sums!("{a}" => "0" += "0", "1" += "1"),
            sums!("{a} + {apart}" => "2" += "0", "3" += "1"),
            sums!("{a} + 2 * {apart}" => "4" += "0", "5" += "1"),
            sums!("{fourth}" => "6" += "0", "7" += "1"),
            sums!("{fourth} + {apart}" => "8" += "0", "9" += "1"),
            sums!("{fourth} + 2 * {apart}" => "10" += "0", "11" += "1"),
        ]
    )
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use std::eprintln;

    use super::*;

    #[test]
    fn products_are_the_same_with_other_instructions() {
        let Some(lanes) = Avx2::detect() else { return eprintln!("skipped avx2: not on this CPU") };
        super::super::dots::tests::products_are_exact(&[lanes, Avx2 { vnni: false, ..lanes }]);
    }
}
