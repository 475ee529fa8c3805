//! Keys and values packed once a run, before all passes.
//!
//! Where a sequence has several query blocks, each would pack the same keys again; where products are fast that costs
//! more than they do. A unit is as many keys of one key head, with their values, as the engine packs at once. Units of a
//! head lie one after the other, block by block, so that a key block is a slice. Units that no query sees stay as they
//! are.

use regard_engine::{Engine, Shape};
use regard_ir::plan::Plan;
use regard_ir::problem::{Packed, Problem, Sequence};
use regard_ir::variant::Variant;

/// Where units lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    /// Elements of a unit; 0 where nothing is packed ahead.
    pub len: usize,
    /// Keys of a unit.
    pub keys: usize,
    /// Whether some sequence has several query blocks, which would each pack the same keys.
    pub repeats: bool,
    /// Key heads.
    heads: usize,
    /// Units of each head.
    per_head: usize,
    /// Units of each head and sequence, where sequences are not packed.
    per_sequence: usize,
    key_block: usize,
}

impl Units {
    /// Of a problem with so many key heads.
    pub fn new<E: Engine>(variant: &Variant<'_>, problem: &Problem<'_>, plan: &Plan, shape: &Shape) -> Self {
        let heads = variant.heads.kv as usize;
        let [batch, _, all_keys] = problem.extents().map(|n| n as usize);
        // Blocks of no keys are refused later.
        let keys = E::unit_keys(shape).max(1);
        // A sequence has at most one unit that is not full at either end.
        let per_sequence = all_keys / keys + 2;
        let per_head = match &problem.packed {
            None => batch.saturating_mul(per_sequence),
            Some(_) => per_sequence.saturating_add(problem.batch as usize * 2),
        };
        let units = Self {
            len: E::packed_len(shape),
            keys,
            repeats: (0..problem.batch).any(|i| problem.sequence(i).queries > plan.prefill.query_block),
            heads,
            per_head,
            per_sequence,
            key_block: shape.key_block,
        };
        let fits = || units.table_len().saturating_mul(size_of::<f32>()) as u64 <= plan.pack_ahead_bytes;
        // Virtual tokens are many: where a task can keep the few blocks that its passes see, all are never in memory.
        let keeps = variant.pseudo().is_some() && plan.kept_blocks().is_some();
        if units.repeats && fits() && !keeps { units } else { Self { len: 0, ..units } }
    }

    /// Elements of all units; saturates.
    pub fn table_len(&self) -> usize {
        self.heads.saturating_mul(self.per_head).saturating_mul(self.len)
    }

    /// The first unit of a sequence, counted in each head.
    fn first(&self, sequence: usize, of: &Sequence, packed: bool) -> usize {
        if packed { of.first_key as usize / self.keys + 2 * sequence } else { sequence * self.per_sequence }
    }

    /// Units of a sequence's first block, which may begin within the grid of blocks.
    fn of_first_block(&self, of: &Sequence) -> usize {
        let begin = of.held.begin as usize;
        let end = (of.held.end as usize).min((begin / self.key_block + 1) * self.key_block);
        end.saturating_sub(begin).div_ceil(self.keys)
    }

    /// Where the units of the block begin whose first key is at `first`.
    #[inline(always)]
    pub fn block(&self, problem: &Problem<'_>, sequence: u32, head: u32, first: u32) -> usize {
        let of = problem.sequence(sequence);
        let blocks = first as usize / self.key_block - of.held.begin as usize / self.key_block;
        let before = match blocks {
            0 => 0,
            blocks => self.of_first_block(&of) + (blocks - 1) * (self.key_block / self.keys),
        };
        let unit = self.first(sequence as usize, &of, problem.packed.is_some()) + before;
        (head as usize * self.per_head + unit) * self.len
    }

    /// Head, sequence and keys of unit number `unit` of the table; `None` where it has none.
    pub fn keys(&self, problem: &Problem<'_>, unit: usize) -> Option<(u32, u32, core::ops::Range<u32>)> {
        let (head, unit) = (unit / self.per_head, unit % self.per_head);
        let sequence = self.sequence(problem, unit)?;
        let of = problem.sequence(sequence as u32);
        let unit = unit.checked_sub(self.first(sequence, &of, problem.packed.is_some()))?;
        let (begin, end) = (of.held.begin as usize, of.held.end as usize);
        let (first, limit) = match unit.checked_sub(self.of_first_block(&of)) {
            None => (begin + unit * self.keys, (begin / self.key_block + 1) * self.key_block),
            Some(unit) => ((begin / self.key_block + 1) * self.key_block + unit * self.keys, end),
        };
        let end = end.min(limit).min(first + self.keys);
        (first < end).then_some((head as u32, sequence as u32, first as u32..end as u32))
    }

    /// The sequence of a unit, counted in its head.
    fn sequence(&self, problem: &Problem<'_>, unit: usize) -> Option<usize> {
        let Some(packed) = &problem.packed else { return Some(unit / self.per_sequence) };
        let starts = Packed::cu_k(packed);
        let (mut low, mut high) = (0, problem.batch as usize);
        // The last sequence whose first unit is at or before this one.
        while low + 1 < high {
            let middle = low.midpoint(high);
            if starts[middle] as usize / self.keys + 2 * middle <= unit {
                low = middle
            } else {
                high = middle
            }
        }
        (low < high).then_some(low)
    }
}
