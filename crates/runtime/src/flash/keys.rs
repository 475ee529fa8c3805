//! Keys and values on their way into packed blocks.

use core::ops::Range;

use regard_engine::element::Element;
use regard_engine::{Engine, Shape, pack};
use regard_ir::interval::{Liveness, Region, Span};
use regard_ir::problem::Problem;
use regard_ir::tiles;
use regard_ir::variant::Variant;

use super::Inputs;
use crate::rows::{Change, Changed};
use crate::summary::Summaries;

/// What is packed.
pub(super) struct Keys<'a, T> {
    pub variant: &'a Variant<'a>,
    pub problem: &'a Problem<'a>,
    pub inputs: Inputs<'a, T>,
    pub ranges: &'a Summaries<'a>,
    /// How rows of k change on their way.
    pub change: Option<Change<'a>>,
}

impl<T: Element> Keys<'_, T> {
    /// Whether some query may see some of the keys at positions `keys` of a sequence and key head.
    pub fn are_seen(&self, [sequence, kv_head]: [u32; 2], keys: Range<u32>) -> bool {
        let of = self.problem.sequence(sequence);
        if of.queries == 0 || keys.is_empty() {
            return false;
        }
        let k = Span { lo: keys.start as i32, hi: keys.end as i32 - 1 };
        let region = Region { k, ..of.region(sequence, &self.variant.heads, kv_head) };
        tiles::liveness(self.variant.allow, &region, self.ranges) != Liveness::Dead
    }

    /// Packs a block, or its first keys, unit by unit.
    #[inline(always)]
    pub fn pack_block<E: Engine>(
        &self,
        engine: E,
        shape: &Shape,
        block: [u32; 2],
        keys: Range<u32>,
        scratch: &mut [f32],
        to: &mut [f32],
    ) {
        let firsts = keys.clone().step_by(E::unit_keys(shape));
        for (first, to) in firsts.zip(to.chunks_exact_mut(E::packed_len(shape))) {
            let end = keys.end.min(first + E::unit_keys(shape) as u32);
            self.pack(engine, shape, block, first..end, scratch, to);
        }
    }

    /// Packs the keys of a unit, at positions `keys` of a sequence and key head, and their values.
    #[inline(always)]
    pub fn pack<E: Engine>(
        &self,
        engine: E,
        shape: &Shape,
        [sequence, kv_head]: [u32; 2],
        keys: Range<u32>,
        scratch: &mut [f32],
        to: &mut [f32],
    ) {
        let of = self.problem.sequence(sequence);
        let (batch, head) = (of.batch as usize, kv_head as usize);
        let heads = &self.variant.heads;
        let value_head = (kv_head / (heads.kv / heads.value)) as usize;
        let first = (of.first_key + (keys.start - of.held.begin)) as usize;
        let key = |i: usize| self.inputs.k.row(batch, head, first + i);
        let value = |i: usize| self.inputs.v.row(batch, value_head, first + i);
        let count = keys.len();
        match self.change {
            None => engine.pack(shape, &pack::AsStored(key), value, count, scratch, to),
            Some(change) => {
                let token = |i| change.tokens.key(batch, first + i);
                let rows = Changed::new(change, |i| (head, key(i)), token);
                engine.pack(shape, &rows, value, count, scratch, to);
            }
        }
    }
}
