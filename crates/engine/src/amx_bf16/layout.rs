//! How operands of matrix tiles lie in memory: the format of a cache for them.
//!
//! A unit is 32 keys of a key head with their values, in words of two bf16 each. Keys are rows of channels, padded to a
//! whole number of tiles, tile by tile: the row-major operand of the scores, each tile one after the other in memory. Values are
//! turned, `[channel][key]`: the row-major operand of the outputs. Operands of several pieces have one such part for each.

use pulp::bytemuck;

use super::unit::SIDE;
use crate::engine::{GROUP, LINE, Shape};

/// Rows of a row tile: two tiles.
pub(super) const ROWS: usize = 2 * SIDE;

/// Channels of a tile of queries and keys.
pub(super) const DEPTH: usize = 2 * SIDE;

/// Keys whose scores, weights and outputs are three steps of the pipeline.
pub(super) const PART: usize = 2 * GROUP;

/// Sizes of a unit and of a step's scratch, in words.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Words of a row of channels.
    pub row: usize,
    /// Channels of a value, padded.
    pub value_width: usize,
    /// Pieces of queries and keys, of weights, of values.
    pub scores: usize,
    pub weights: usize,
    pub values: usize,
    /// The order of products of weights and values.
    pub order: usize,
}

impl Sizes {
    #[inline(always)]
    pub fn new(shape: &Shape) -> Self {
        let pieces = shape.pieces;
        Self {
            row: shape.dim.next_multiple_of(DEPTH) / 2,
            value_width: shape.value_dim.next_multiple_of(ROWS),
            scores: pieces.scores.into(),
            weights: pieces.weights.into(),
            values: pieces.values.into(),
            order: pieces.order.into(),
        }
    }

    /// Of one piece of a row tile's queries.
    pub fn query_piece(&self) -> usize {
        ROWS * self.row
    }

    /// Where the word is that tells of which rows of a tile the queries were not all finite.
    pub fn odd_queries(&self) -> usize {
        self.scores * self.query_piece()
    }

    /// Where the greatest length of a row tile's queries is.
    pub fn longest_query(&self) -> usize {
        self.odd_queries() + 1
    }

    /// Of a row tile's queries.
    pub fn queries(&self) -> usize {
        (self.longest_query() + 1).next_multiple_of(SIDE)
    }

    /// Of one piece of a unit's keys.
    pub fn key_piece(&self) -> usize {
        GROUP * self.row
    }

    /// Where in a piece of keys a word of a key of the unit is: tiles of 16 keys by 16 words.
    #[inline(always)]
    pub fn key(&self, key: usize, word: usize) -> usize {
        key / SIDE * SIDE * self.row + word / SIDE * SIDE * SIDE + key % SIDE * SIDE + word % SIDE
    }

    /// Of one piece of a unit's values.
    pub fn value_piece(&self) -> usize {
        self.value_width * GROUP / 2
    }

    /// Where a unit's values begin.
    pub fn keys(&self) -> usize {
        self.scores * self.key_piece()
    }

    /// Where the word is that tells of which keys of a unit the values were not all finite.
    pub fn odd_values(&self) -> usize {
        self.keys() + self.values * self.value_piece()
    }

    /// Where the word is that tells of which keys of a unit the channels were not all finite.
    pub fn odd_keys(&self) -> usize {
        self.odd_values() + 1
    }

    /// Where the greatest length of a unit's keys is.
    pub fn longest_key(&self) -> usize {
        self.odd_keys() + 1
    }

    /// Of a unit, in whole lines of cache.
    pub fn unit(&self) -> usize {
        (self.longest_key() + 1).next_multiple_of(LINE)
    }

    /// Of one piece of a part's weights.
    pub fn weight_piece(&self) -> usize {
        PART / 2 * ROWS
    }

    /// Where in a piece of weights the pair of keys number `pair` and a row of the tile are: tiles of 16 pairs by 16 rows.
    #[inline(always)]
    pub fn weight(pair: usize, row: usize) -> usize {
        (pair / SIDE * 2 + row / SIDE) * SIDE * SIDE + pair % SIDE * SIDE + row % SIDE
    }
}

/// A step's scratch.
pub(super) struct Scratch<'a> {
    /// Scores of two parts, `[PART][ROWS]` each.
    pub scores: [&'a mut [f32]; 2],
    /// Weights of two parts.
    pub weights: [&'a mut [u32]; 2],
}

/// Words of the scores of a part.
const SCORES: usize = PART * ROWS;

impl Sizes {
    pub fn scratch(&self) -> usize {
        2 * SCORES + 2 * self.weights * self.weight_piece()
    }

    #[inline(always)]
    pub fn split<'a>(&self, scratch: &'a mut [f32]) -> Scratch<'a> {
        let (a, rest) = scratch.split_at_mut(SCORES);
        let (b, rest) = rest.split_at_mut(SCORES);
        let weights = self.weights * self.weight_piece();
        let (c, d) = bytemuck::cast_slice_mut::<f32, u32>(&mut rest[..2 * weights]).split_at_mut(weights);
        Scratch { scores: [a, b], weights: [c, d] }
    }

    /// The weights of the first part of a step.
    pub fn first_weights<'a>(&self, scratch: &'a [f32]) -> &'a [u32] {
        bytemuck::cast_slice(&scratch[2 * SCORES..][..self.weights * self.weight_piece()])
    }
}
