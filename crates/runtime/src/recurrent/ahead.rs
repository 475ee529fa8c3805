//! Rows of the next chunk, which are asked for while this one is computed: else each chunk would begin with waiting for memory.

use core::ops::Range;

use regard_engine::isa::Door;

use crate::lines::ask;
use crate::view::View;

/// Rows of some tensors' heads, to be asked for a few at a time.
pub(super) struct Ahead<'a> {
    /// Queries, keys and values.
    pub tensors: [View<'a>; 3],
    /// Its sequence and its head, and where its first token lies, in each.
    pub places: [[usize; 3]; 3],
    /// Value heads, from the first on.
    pub heads: usize,
    /// Tokens that are still to be asked for.
    pub tokens: Range<usize>,
}

impl Ahead<'_> {
    /// Asks for the rows of some more tokens.
    #[inline(always)]
    pub fn ask<L: Door>(&mut self, lanes: L, tokens: usize) {
        let end = self.tokens.end.min(self.tokens.start.saturating_add(tokens));
        for (i, (tensor, [sequence, head, first])) in self.tensors.iter().zip(self.places).enumerate() {
            for head in head..head + if i == 2 { self.heads } else { 1 } {
                let at = [sequence, head, first + self.tokens.start];
                if let Some(block) = tensor.block(at, end - self.tokens.start) {
                    ask(lanes, block);
                    continue;
                }
                for token in self.tokens.start..end {
                    ask(lanes, tensor.row(sequence, head, first + token));
                }
            }
        }
        self.tokens.start = end;
    }
}
