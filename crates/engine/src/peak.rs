//! Products of bf16 pairs without memory: what a kernel on 16-bit storage could do at most.
//!
//! The rate of f32 multiply-adds is measured through the lanes of an engine. These two have no lanes: one instruction
//! multiplies pairs and adds them to f32 sums, in vectors or in tiles. Operands are not zeros: a unit that multiplies
//! zeros draws less power and runs at a higher clock.

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{
    __m512, __m512bh, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_reduce_add_ps,
    _mm512_set1_ps,
};
use core::hint::black_box;

#[cfg(target_arch = "x86_64")]
use crate::amx_bf16::hardware::Amx;
use crate::amx_bf16::unit::{SIDE, Tiles, Unit};

/// Sums that run side by side: more than the latency of an instruction times the units that do it.
const CHAINS: usize = 12;

/// Multiplications and additions of one dot instruction: two for each of 32 products.
const DOT_OPERATIONS: usize = 64;

/// Multiplications and additions of one tile instruction: two for each product of 16 × 16 × 32.
const TILE_OPERATIONS: usize = 2 * SIDE * SIDE * 2 * SIDE;

/// Tiles that sum side by side.
const SUMS: usize = 4;

/// Two bf16 of 1 + 2⁻⁷ in a word.
const PAIR: u32 = 0x3f81_3f81;

/// Dots pairs of bf16 in vectors for `steps` turns, and says how many operations that were; `None` where the processor
/// has no such instruction.
#[cfg(target_arch = "x86_64")]
pub fn dots(steps: usize) -> Option<usize> {
    // Without `std` there is nobody to ask, and nothing is measured.
    if !has_dots() {
        return None;
    }
    // SAFETY: `has_dots` saw avx512f and avx512bf16 just now.
    black_box(unsafe { dot_chains(black_box(1.0), steps) });
    Some(steps * CHAINS * DOT_OPERATIONS)
}

/// Dots pairs of bf16; nothing is measured on this target.
#[cfg(not(target_arch = "x86_64"))]
pub fn dots(_: usize) -> Option<usize> {
    None
}

/// Multiplies tiles of bf16 pairs for `steps` turns, and says how many operations that were; `None` where the processor
/// has no tiles, or the system does not let us use them.
#[cfg(target_arch = "x86_64")]
pub fn tiles(steps: usize) -> Option<usize> {
    Amx::detect().map(|unit| tile_products(unit, steps))
}

/// Multiplies tiles of bf16 pairs; nothing is measured on this target.
#[cfg(not(target_arch = "x86_64"))]
pub fn tiles(_: usize) -> Option<usize> {
    None
}

#[cfg(all(target_arch = "x86_64", feature = "std"))]
fn has_dots() -> bool {
    std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512bf16")
}

#[cfg(all(target_arch = "x86_64", not(feature = "std")))]
fn has_dots() -> bool {
    false
}

/// Chains of dots onto sums that start at `start`.
#[cfg(target_arch = "x86_64")]
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

/// Products of two tiles by two onto four, all resident.
fn tile_products<U: Unit>(unit: U, steps: usize) -> usize {
    let operands = black_box([PAIR; SIDE * SIDE]);
    let mut sums = [0; SIDE * SIDE];
    let _configured = unit.configure();
    let mut tiles = unit.tiles();
    tiles.zero::<0>();
    tiles.zero::<1>();
    tiles.zero::<2>();
    tiles.zero::<3>();
    tiles.load::<4>(&operands, SIDE);
    tiles.load::<5>(&operands, SIDE);
    tiles.load::<6>(&operands, SIDE);
    tiles.load::<7>(&operands, SIDE);
    for _ in 0..steps {
        tiles.dot::<0, 4, 6>();
        tiles.dot::<1, 4, 7>();
        tiles.dot::<2, 5, 6>();
        tiles.dot::<3, 5, 7>();
    }
    tiles.store::<0>(&mut sums, SIDE);
    black_box(sums);
    steps * SUMS * TILE_OPERATIONS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amx_bf16::emulated::Emulated;

    #[test]
    fn operations_are_counted_by_the_turn() {
        assert_eq!(tile_products(Emulated, 3), 3 * 4 * 16_384);
        assert!(dots(3).is_none_or(|operations| operations == 3 * 12 * 64));
    }
}
