//! The operands of a step, as tiles of what is packed.

use regard_ir::plan::Pieces;

use super::layout::{ROWS, Sizes};
use super::product::{Operand, Spans};
use super::unit::SIDE;

impl Sizes {
    /// Steps of depth of scores.
    #[inline(always)]
    pub fn score_steps(&self) -> usize {
        self.row / SIDE
    }

    /// Multiplications of tiles that a group of keys takes: for its scores, and for its part of the outputs.
    #[inline(always)]
    pub fn products(&self, pieces: Pieces) -> [usize; 2] {
        let [scores, outputs] = pieces.products();
        [4 * self.score_steps() * scores as usize, 4 * (self.value_width / ROWS) * outputs as usize]
    }

    /// The keys of a group of a packed block.
    #[inline(always)]
    pub fn keys_of<'a>(&self, packed: &'a [u32], group: usize) -> Operand<'a> {
        let spans = Spans { row: SIDE, tile: SIDE * self.row, step: SIDE * SIDE, piece: self.key_piece() };
        Operand::new(&packed[group * self.unit()..], spans, self.score_steps(), self.scores)
    }

    /// A row tile's queries.
    #[inline(always)]
    pub fn queries_of<'a>(&self, query: &'a [u32]) -> Operand<'a> {
        let spans = Spans { row: SIDE, tile: SIDE * self.row, step: SIDE * SIDE, piece: self.query_piece() };
        Operand::new(query, spans, self.score_steps(), self.scores)
    }

    /// Some channels of the values of so many groups, from one of them on.
    #[inline(always)]
    pub fn values_of<'a>(&self, packed: &'a [u32], group: usize, panel: usize, groups: usize) -> Operand<'a> {
        let first = group * self.unit() + self.keys() + panel * ROWS * SIDE;
        let spans = Spans { row: SIDE, tile: SIDE * SIDE, step: self.unit(), piece: self.value_piece() };
        Operand::new(&packed[first..], spans, groups, self.values)
    }

    /// The weights of so many groups.
    #[inline(always)]
    pub fn weights_of<'a>(&self, weights: &'a [u32], groups: usize) -> Operand<'a> {
        let spans = Spans { row: SIDE, tile: SIDE * SIDE, step: 2 * SIDE * SIDE, piece: self.weight_piece() };
        Operand::new(weights, spans, groups, self.weights)
    }
}
