//! One key head of one sequence, tile by tile: what a schedule's numbers are made of, for people to see.

use regard_ir::interval::{Liveness, Region};
use regard_ir::problem::Sequence;
use regard_ir::tiles::{self, TileBox, Tiling};

use crate::schedule::{MAX_LOOKS, Work};

/// A key head of a sequence of some work.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    work: &'a Work<'a>,
    sequence: u32,
    kv_head: u32,
}

impl<'a> Head<'a> {
    /// `kv_head` of `sequence`, or `None` where the work has no such.
    pub fn new(work: &'a Work<'a>, sequence: u32, kv_head: u32) -> Option<Self> {
        let there = sequence < work.problem.batch && kv_head < work.variant.heads.kv;
        there.then_some(Self { work, sequence, kv_head })
    }

    /// All its queries and keys, for all query heads that share it.
    pub fn region(&self) -> Region {
        self.work.region(self.sequence, self.kv_head, self.work.problem.sequence(self.sequence).query_span())
    }

    /// Calls `visit` for boxes of one kind that together are all tiles of the plan's query block by its key block. What
    /// is not settled after some millions of looks is taken for partial, as [`Work::count_tiles`] does.
    pub fn for_each_box(&self, visit: &mut dyn FnMut(TileBox)) {
        let Work { plan, variant, inputs, .. } = *self.work;
        let tile = (plan.prefill.query_block, plan.prefill.key_block);
        let tiling = Tiling { allow: variant.allow, region: &self.region(), tile, inputs };
        let mut looks = MAX_LOOKS;
        tiles::for_each_box(&tiling, &mut looks, visit);
    }

    /// What the mask is over a region.
    pub fn liveness(&self, region: &Region) -> Liveness {
        tiles::liveness(self.work.variant.allow, region, self.work.inputs)
    }

    /// Live pairs among all pairs of query and key, from 0 to 1, as estimated to cut the work.
    pub fn live_share(&self) -> f64 {
        let Sequence { queries, held, .. } = self.work.problem.sequence(self.sequence);
        let pairs = queries as f64 * held.len() as f64;
        if pairs == 0.0 { 0.0 } else { self.work.live_pairs(self.sequence, self.kv_head) as f64 / pairs }
    }
}
