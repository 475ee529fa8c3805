//! The instructions of x86-64 that multiply bf16 pairs.

use core::arch::x86_64::{
    __m512, __m512bh, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_reduce_add_ps,
    _mm512_set1_ps,
};
use core::hint::black_box;

use crate::amx_bf16::hardware::Amx;
use crate::amx_bf16::unit::{SIDE, Source, Tiles, Unit};
use crate::isa::avx512::Avx512Bf16;

/// Sums that run side by side: more than the latency of an instruction times the units that do it.
const CHAINS: usize = 12;

/// Multiplications and additions of one dot instruction: two for each of 32 products.
const DOT_OPERATIONS: usize = 64;

/// Multiplications and additions of one tile instruction: two for each product of 16 × 16 × 32.
const TILE_OPERATIONS: usize = 2 * SIDE * SIDE * 2 * SIDE;

/// Tiles that sum side by side.
const SUMS: usize = 4;

/// Sets of four operand tiles that take turns: 16 KiB, in every first-level cache.
const SETS: usize = 4;

/// A tile whose rows are lines of the cache: a row across two of them takes several times as long to load.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Tile([u32; SIDE * SIDE]);

/// Dots pairs of bf16 in vectors for `steps` turns, and says how many operations that were; `None` where the processor
/// has no such instruction.
pub fn dots(steps: usize) -> Option<usize> {
    Avx512Bf16::detect()?;
    // SAFETY: an `Avx512Bf16` is made only by `detect`, which saw AVX512-BF16 beside all of V4.
    black_box(unsafe { dot_chains(black_box(1.0), steps) });
    Some(steps * CHAINS * DOT_OPERATIONS)
}

/// Multiplies tiles of bf16 pairs for `steps` turns, and says how many operations that were; `None` where the processor
/// has no tiles, or the system does not let us use them.
pub fn tiles(steps: usize) -> Option<usize> {
    Amx::detect().map(|unit| tile_products(unit, steps))
}

/// Chains of dots onto sums that start at `start`.
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_chains(start: f32, steps: usize) -> f32 {
    let pairs = |x: f32| -> __m512bh { _mm512_cvtne2ps_pbh(_mm512_set1_ps(x), _mm512_set1_ps(-x)) };
    let (a, b) = (pairs(black_box(0.75)), pairs(black_box(0.5)));
    let mut sums: [__m512; CHAINS] = [_mm512_set1_ps(start); CHAINS];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, a, b);
        }
    }
    let mut all = sums[0];
    for sum in &sums[1..] {
        all = _mm512_add_ps(all, *sum);
    }
    _mm512_reduce_add_ps(all)
}

/// Products of two tiles by two onto four, as a kernel makes them: of numbers like those of real data, loaded from the
/// first-level cache.
fn tile_products<U: Unit>(unit: U, steps: usize) -> usize {
    let mut random = Random(1);
    // Random numbers take as long as multiplications: each tile has those of the first, from another one on.
    let words: [u32; SIDE * SIDE] = core::array::from_fn(|_| random.pair());
    let operands: [Tile; 4 * SETS] =
        core::array::from_fn(|i| Tile(core::array::from_fn(|at| words[(at + i * (SIDE + 1)) % words.len()])));
    let operands = black_box(operands);
    let mut sums = Tile([0; SIDE * SIDE]);
    let _configured = unit.configure();
    let mut tiles = unit.tiles();
    tiles.zero::<0>();
    tiles.zero::<1>();
    tiles.zero::<2>();
    tiles.zero::<3>();
    for step in 0..steps {
        let [a, b, c, d] = core::array::from_fn(|i| &operands[step % SETS * 4 + i].0);
        tiles.load::<4>(Source::new(a, SIDE));
        tiles.load::<6>(Source::new(b, SIDE));
        tiles.dot::<0, 4, 6>();
        tiles.load::<7>(Source::new(c, SIDE));
        tiles.dot::<1, 4, 7>();
        tiles.load::<5>(Source::new(d, SIDE));
        tiles.dot::<2, 5, 6>();
        tiles.dot::<3, 5, 7>();
    }
    tiles.store::<0>(&mut sums.0, SIDE);
    black_box(sums.0);
    steps * SUMS * TILE_OPERATIONS
}

/// Numbers that are nearly N(0, 1): sums of four uniform ones. Source of the generator: Knuth, *MMIX*.
struct Random(u64);

impl Random {
    /// Two of them, cut to bf16, in a word.
    fn pair(&mut self) -> u32 {
        self.normal().to_bits() >> 16 | self.normal().to_bits() & 0xffff_0000
    }

    fn normal(&mut self) -> f32 {
        /// The root of 3: what makes the variance of four uniform numbers 1.
        const SCALE: f32 = 1.732_050_8;
        let mut sum = 0.0;
        for _ in 0..4 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sum += (self.0 >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        }
        SCALE * sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amx_bf16::emulated::Emulated;

    #[test]
    fn operands_are_like_real_data() {
        let mut random = Random(1);
        let numbers: [f32; 4096] = core::array::from_fn(|_| random.normal());
        let mean = numbers.iter().sum::<f32>() / 4096.0;
        let variance = numbers.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / 4096.0;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.1, "{mean} {variance}");
    }

    #[test]
    fn operations_are_counted_by_the_turn() {
        assert_eq!(tile_products(Emulated, 3), 3 * 4 * 16_384);
        assert!(dots(3).is_none_or(|operations| operations == 3 * 12 * 64));
    }
}
