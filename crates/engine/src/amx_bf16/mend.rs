//! Scores of split operands that are not finite.
//!
//! An infinite channel has one piece, whose products with the other operand's lesser pieces are NaN or of any sign, where
//! the formula says infinity of one. Such scores are computed again, of channels put together from their pieces.

use core::ops::Range;

use super::layout::{ROWS, Sizes};
use super::unit::SIDE;
use crate::engine::GROUP;

/// Mends the scores of a part, `[keys][ROWS]`, whose queries or keys were not all finite.
pub(super) fn mend(sizes: &Sizes, query: &[u32], packed: &[u32], part: Range<usize>, scores: &mut [f32]) {
    let odd_rows = query[sizes.odd_queries()];
    let mut groups = part.start / GROUP..part.end.div_ceil(GROUP);
    if odd_rows == 0 && groups.all(|group| packed[group * sizes.unit() + sizes.odd_keys()] == 0) {
        return;
    }
    for (key, scores) in part.zip(scores.chunks_exact_mut(ROWS)) {
        let unit = &packed[key / GROUP * sizes.unit()..][..sizes.unit()];
        let odd_key = unit[sizes.odd_keys()] >> (key % GROUP) & 1 != 0;
        if !odd_key && odd_rows == 0 {
            continue;
        }
        for (row, score) in scores.iter_mut().enumerate() {
            if odd_key || odd_rows >> row & 1 != 0 {
                *score = again(sizes, query, row, unit, key % GROUP);
            }
        }
    }
}

/// The score of one row and one key of a unit.
#[cold]
fn again(sizes: &Sizes, query: &[u32], row: usize, unit: &[u32], key: usize) -> f32 {
    let channel = |words: &[u32], piece: usize, at: usize, half: usize| {
        let joined = (0..sizes.scores).map(|i| words[i * piece + at] << (16 * (1 - half)) & 0xffff_0000);
        joined.map(f32::from_bits).sum::<f32>()
    };
    let mut score = 0.0;
    for word in 0..sizes.row {
        for half in 0..2 {
            let at = (row / SIDE * sizes.row + word) * SIDE + row % SIDE;
            let q = channel(query, sizes.query_piece(), at, half);
            score += q * channel(unit, sizes.key_piece(), sizes.key(key, word), half);
        }
    }
    score
}
