//! Lengths of queries and keys: how large their scores can be at most, without a look at one.

use regard_simd::{F32, Lanes, halves_bf16, vectors};

/// The greatest length so far of rows that are words of two bf16 each: their first piece, where they have several.
#[derive(Clone, Copy, Default)]
pub(super) struct Longest {
    /// The bits of its square: of floats that are not negative, above all of which is NaN.
    square: u32,
}

/// How much longer a row may be than its first piece, and a sum of products than the sum of squares that was rounded.
const MARGIN: f32 = 1.02;

impl Longest {
    /// Sees a row. Gives whether its square is finite.
    #[inline(always)]
    pub fn see_row<L: Lanes>(&mut self, lanes: L, words: &[f32]) -> bool {
        let mut squares = F32::splat(lanes, 0.0);
        for &words in vectors(lanes, words) {
            let (first, second) = halves_bf16(F32::from_raw(lanes, words));
            squares = second.mul_add(second, first.mul_add(first, squares));
        }
        let square = squares.sum();
        self.square = self.square.max(square.to_bits());
        square.is_finite()
    }

    /// The length that no row passes; infinite or NaN where a row is.
    #[inline(always)]
    pub fn length<L: Lanes>(self, lanes: L) -> f32 {
        (F32::splat(lanes, f32::from_bits(self.square)).sqrt() * F32::splat(lanes, MARGIN)).lane(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::scalar::Scalar;

    fn length(rows: &[[u32; 2]]) -> f32 {
        let mut longest = Longest::default();
        for row in rows {
            longest.see_row(Scalar, &row.map(f32::from_bits));
        }
        longest.length(Scalar)
    }

    /// Two channels.
    fn word(first: f32, second: f32) -> u32 {
        first.to_bits() >> 16 | second.to_bits() & 0xffff_0000
    }

    #[test]
    fn the_longest_row_decides() {
        let short = [word(1.0, 1.0), word(1.0, 1.0)];
        let long = [word(3.0, 0.0), word(0.0, -4.0)];
        for rows in [[short, long], [long, short]] {
            let found = length(&rows);
            assert!((5.0..5.2).contains(&found), "{found}");
        }
        assert_eq!(length(&[]), 0.0);
    }

    #[test]
    fn no_bound_holds_for_what_is_not_finite() {
        let plain = [word(1.0, 1.0), word(1.0, 1.0)];
        for odd in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
            let odd = [word(1.0, odd), word(1.0, 1.0)];
            for rows in [[plain, odd], [odd, plain]] {
                assert!(!length(&rows).is_finite());
            }
        }
    }
}
