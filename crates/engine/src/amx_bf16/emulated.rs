//! The matrix unit in safe Rust, as the manual defines it: what stands in where a processor has none.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, TDPBF16PS.

use super::unit::{SIDE, Source, Tiles, Unit, reach};

/// An emulated unit.
#[derive(Clone, Copy, Debug)]
pub struct Emulated;

/// Its tiles, in memory.
pub struct EmulatedTiles {
    tiles: [[[u32; SIDE]; SIDE]; 8],
}

/// Nothing to undo.
struct Nothing;

impl Drop for Nothing {
    fn drop(&mut self) {}
}

impl Unit for Emulated {
    type Tiles = EmulatedTiles;

    fn configure(self) -> impl Drop {
        Nothing
    }

    fn tiles(self) -> EmulatedTiles {
        // What a step must not rely on: NaN wherever it forgets to write first.
        EmulatedTiles { tiles: [[[f32::NAN.to_bits(); SIDE]; SIDE]; 8] }
    }
}

/// The unit takes numbers below the smallest normal one for zero, and gives zero for them. A choice of two numbers, so that loops of it
/// become vectors.
#[inline(always)]
fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0f32.copysign(x) } else { x }
}

/// The first and the second halves of a tile's words as floats: apart, so that loops over a row become vectors.
fn halves(tile: &[[u32; SIDE]; SIDE]) -> [[[f32; SIDE]; SIDE]; 2] {
    let first = |word: u32| flush(f32::from_bits(word << 16));
    let second = |word: u32| flush(f32::from_bits(word & 0xffff_0000));
    [tile.map(|row| row.map(first)), tile.map(|row| row.map(second))]
}

/// Adds the products of a number and a row. The product of two bf16 has at most 16 bits, so it is exact and the sum rounds once.
#[inline(always)]
fn add(sums: &mut [f32; SIDE], a: f32, row: &[f32; SIDE]) {
    for (sum, b) in sums.iter_mut().zip(row) {
        *sum = flush(flush(a * b) + *sum);
    }
}

impl Tiles for EmulatedTiles {
    fn zero<const T: usize>(&mut self) {
        self.tiles[T] = [[0; SIDE]; SIDE];
    }

    fn load<const T: usize>(&mut self, from: Source<'_>) {
        self.tiles[T] = from.rows().map(|row| *row);
    }

    fn stream<const T: usize>(&mut self, from: Source<'_>) {
        self.load::<T>(from);
    }

    fn store<const T: usize>(&mut self, to: &mut [u32], stride: usize) {
        let to = &mut to[..reach(stride)];
        for (row, to) in self.tiles[T].iter().zip(to.chunks_mut(stride)) {
            to[..SIDE].copy_from_slice(row);
        }
    }

    fn dot<const C: usize, const A: usize, const B: usize>(&mut self) {
        let ([a_first, a_second], [b_first, b_second]) = (halves(&self.tiles[A]), halves(&self.tiles[B]));
        for ((row, a_first), a_second) in self.tiles[C].iter_mut().zip(&a_first).zip(&a_second) {
            // Sums of first and of second halves, each fused and in order, joined at the end.
            let [mut first, mut second] = [[0.0; SIDE]; 2];
            for k in 0..SIDE {
                add(&mut first, a_first[k], &b_first[k]);
                add(&mut second, a_second[k], &b_second[k]);
            }
            for (c, (first, second)) in row.iter_mut().zip(first.into_iter().zip(second)) {
                *c = flush(flush(f32::from_bits(*c)) + flush(first + second)).to_bits();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(first: f32, second: f32) -> u32 {
        first.to_bits() >> 16 | second.to_bits() & 0xffff_0000
    }

    #[test]
    fn a_dot_adds_products_of_pairs() {
        let mut tiles = Emulated.tiles();
        // a[m] = (m, 1) at k = 0 and (0, 2) at k = 1; b[k][n] = (n, 10) and (5, n).
        let mut a = [0; 256];
        let mut b = [0; 256];
        for i in 0..SIDE {
            a[i * SIDE] = word(i as f32, 1.0);
            a[i * SIDE + 1] = word(0.0, 2.0);
            b[i] = word(i as f32, 10.0);
            b[SIDE + i] = word(5.0, i as f32);
        }
        tiles.load::<4>(Source::new(&a, SIDE));
        tiles.load::<6>(Source::new(&b, SIDE));
        tiles.zero::<0>();
        tiles.dot::<0, 4, 6>();
        tiles.dot::<0, 4, 6>();
        let mut c = [0; 16 * 20];
        tiles.store::<0>(&mut c, 20);
        for m in 0..SIDE {
            for n in 0..SIDE {
                let expected = 2.0 * (m as f32 * n as f32 + 10.0 + 2.0 * n as f32);
                assert_eq!(f32::from_bits(c[m * 20 + n]), expected, "row {m}, column {n}");
            }
        }
    }

    #[test]
    fn numbers_below_the_smallest_normal_one_are_zero() {
        let mut tiles = Emulated.tiles();
        let tiny = f32::from_bits(0x0040_0000);
        tiles.load::<4>(Source::new(&[word(tiny, 1.0e-30); 256], SIDE));
        tiles.load::<6>(Source::new(&[word(1.0e30, 1.0e-30); 256], SIDE));
        tiles.zero::<0>();
        tiles.dot::<0, 4, 6>();
        let mut c = [1; 256];
        tiles.store::<0>(&mut c, SIDE);
        assert_eq!(c, [0; 256]);
    }
}
