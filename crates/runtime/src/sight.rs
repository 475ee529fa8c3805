//! What the queries of a sequence see of its keys.

use core::ops::Range;

use regard_ir::interval::{InputRanges, Liveness, Region, Span};
use regard_ir::problem::Problem;
use regard_ir::tiles;
use regard_ir::variant::Variant;

use crate::cache::Caches;
use crate::flash::RunError;

/// The queries of a call.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub variant: &'a Variant<'a>,
    pub problem: &'a Problem<'a>,
    pub ranges: &'a dyn InputRanges,
}

impl Sight<'_> {
    /// Whether no query of a sequence sees any of the keys at some positions, or all see all, over all heads.
    pub fn of(&self, sequence: usize, keys: Range<u32>) -> Liveness {
        let of = self.problem.sequence(sequence as u32);
        if of.queries == 0 {
            return Liveness::Dead;
        }
        let heads = &self.variant.heads;
        let last = of.region(sequence as u32, heads, heads.kv - 1);
        let region = Region {
            h: Span { lo: 0, hi: last.h.hi },
            g: Span { lo: 0, hi: last.g.hi },
            k: Span { lo: keys.start as i32, hi: keys.end as i32 - 1 },
            ..last
        };
        tiles::liveness(self.variant.allow, &region, self.ranges)
    }

    /// The same over the query heads of one key head.
    pub fn of_head(&self, sequence: u32, head: u32, keys: Range<u32>) -> Liveness {
        let all = self.problem.sequence(sequence).region(sequence, &self.variant.heads, head);
        let k = Span { lo: keys.start as i32, hi: keys.end as i32 - 1 };
        tiles::liveness(self.variant.allow, &Region { k, ..all }, self.ranges)
    }

    /// Refuses caches that have written over keys which a query sees; pages are of so many tokens, and these of so many positions
    /// each: of one where rows of virtual tokens are cached.
    pub fn check_lost(&self, caches: &dyn Caches, (tokens, positions): (u32, u32)) -> Result<(), RunError> {
        for sequence in 0..caches.count() {
            let cache = caches.get(sequence);
            let lost = cache.pages.lost(cache.written, tokens);
            let lost = lost.start..lost.end.min(cache.len);
            let lost = lost.start * positions..lost.end * positions;
            if !lost.is_empty() && self.of(sequence, lost.clone()) != Liveness::Dead {
                let per_token = self.variant.per_token();
                let (first, last) = (lost.start / per_token, (lost.end - 1) / per_token);
                return Err(RunError::Lost { sequence, first, last });
            }
        }
        Ok(())
    }
}
