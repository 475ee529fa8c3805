//! Where packed keys and values are kept for the query blocks that come after.
//!
//! Where a sequence has several query blocks, each would pack the same keys again; where products are fast that costs
//! more than they do. So a head's blocks are packed once, each by the pass that needs it first, and lie in a place that all
//! of the head's tasks read. Heads are worked on in turn, and there are about as many places as threads: what is packed is
//! read again while caches still hold it. Blocks that no query sees are not packed.

use regard_engine::grid::Shelf;
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::variant::Variant;

use crate::schedule;

/// How large places are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// Elements of a packed block.
    pub block: usize,
    /// Whether some sequence has several query blocks, which would each pack the same keys.
    pub repeats: bool,
    /// Blocks of a place: those of the longest sequence.
    per_place: usize,
    /// The most places that there is memory for, or anyone to use; none where nothing is kept.
    most: usize,
}

impl Places {
    /// Of packed blocks of so many elements.
    pub fn new(variant: &Variant<'_>, problem: &Problem<'_>, plan: &Plan, block: usize) -> Self {
        let key_block = plan.prefill.key_block.max(1);
        let (mut repeats, mut per_place) = (false, 0);
        for of in (0..problem.batch).map(|i| problem.sequence(i)) {
            repeats |= of.queries > plan.prefill.query_block;
            let blocks = of.held.end.div_ceil(key_block).saturating_sub(of.held.begin / key_block);
            per_place = per_place.max(blocks as usize);
        }
        let heads = (problem.batch as usize).saturating_mul(variant.heads.kv as usize);
        let bytes = per_place.saturating_mul(block).saturating_mul(size_of::<f32>()).max(1) as u64;
        let fit = usize::try_from(plan.pack_ahead_bytes / bytes).unwrap_or(usize::MAX);
        let most = if repeats && !schedule::keep_their_own(variant, plan) { fit.min(heads) } else { 0 };
        Self { block, repeats, per_place, most }
    }

    /// Whether there are any.
    pub const fn are_some(&self) -> bool {
        self.most > 0
    }

    /// Places for so many threads.
    fn count(&self, threads: usize) -> usize {
        schedule::heads_at_once(threads).min(self.most)
    }

    /// Elements of all blocks; saturates.
    pub fn len(&self, threads: usize) -> usize {
        self.count(threads).saturating_mul(self.per_place).saturating_mul(self.block)
    }

    /// Elements of their marks; saturates.
    pub fn marks_len(&self, threads: usize) -> usize {
        Shelf::marks_len(self.count(threads), self.per_place)
    }

    /// The shelf for so many threads, in memory of these lengths; `None` where nothing is kept.
    pub fn shelf<'a>(
        &self,
        threads: usize,
        memory: &'a mut [f32],
        marks: &'a mut [u32],
    ) -> Option<Shelf<'a>> {
        let sizes = [self.count(threads), self.per_place, self.block];
        self.are_some().then(|| Shelf::new(memory, marks, sizes))
    }
}
