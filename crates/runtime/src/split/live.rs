//! Which cells of a call are live, and which pages of them. Lengths and captured tensors decide it: it is known before there
//! are caches.

use core::ops::Range;

use regard_ir::interval::{Liveness, Span};
use regard_ir::plan::Plan;
use regard_ir::reach::Reach;
use regard_ir::tiles;

use crate::sight::Sight;

/// Finds the live cells of a call.
pub(super) struct LiveCells<'a> {
    pub plan: &'a Plan,
    pub sight: Sight<'a>,
}

impl LiveCells<'_> {
    /// Calls `visit` with each cell of a sequence that some query may see keys of, and says how many there are.
    pub fn of(&self, sequence: usize, mut visit: impl FnMut(u32)) -> usize {
        let (plan, of) = (self.plan, self.sight.problem.sequence(sequence as u32));
        let (cell, len) = (plan.decode.key_cell, of.keys);
        // Between the first tokens and the last ones nothing is seen, if the plan is right: one look says so, where a search
        // would take longer the longer the sequence is.
        let gap = plan.reach.map_or(0..0, |Reach { first, back }| {
            let seen = i64::from(of.q_offset) - i64::from(back) + 1;
            first.div_ceil(cell)..seen.clamp(0, len.into()) as u32 / cell
        });
        let gap = if gap.is_empty() { 0..0 } else { gap.start * cell..gap.end * cell };
        let is_dead = !gap.is_empty() && self.sight.of(sequence, gap.clone()) == Liveness::Dead;
        let parts = if is_dead { [0..gap.start, gap.end..len] } else { [0..0, 0..len] };
        let mut count = 0;
        for part in parts {
            let classify = |keys: Span| self.sight.of(sequence, keys.lo as u32..keys.hi as u32 + 1);
            for (keys, _) in tiles::runs(part, cell, classify) {
                for cell in keys.start / cell..keys.end.div_ceil(cell) {
                    visit(cell);
                    count += 1;
                }
            }
        }
        count
    }
}

/// The pages, of so many tokens each, that no query sees any of the keys of in a chunk that some see keys of: a bit for each.
pub(super) fn dead_pages(
    chunk: Range<u32>,
    tokens: u32,
    liveness: Liveness,
    mut of_keys: impl FnMut(Range<u32>) -> Liveness,
) -> u64 {
    let pages = chunk.len().div_ceil(tokens as usize);
    let mut dead = 0;
    // Where all is seen, or one page is all, the chunk's liveness says it.
    if liveness == Liveness::Partial && pages > 1 {
        for (page, begin) in chunk.clone().step_by(tokens as usize).enumerate() {
            let end = (begin + tokens).min(chunk.end);
            dead |= u64::from(of_keys(begin..end) == Liveness::Dead) << page;
        }
    }
    dead
}
