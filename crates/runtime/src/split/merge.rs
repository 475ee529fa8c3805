//! Cells of a row, added up in their order.

use regard_engine::isa::Door;
use regard_engine::pack::MAX_DIM;
use regard_ir::problem::{Packed, Problem};
use regard_ir::variant::Heads;

use super::memory::{STATS, Slot};
use crate::flash::part::add_row;

/// Adds the slots of a key head's cells up into the first.
#[inline(always)]
pub(super) fn add_up<D: Door>(_: D, slot: &Slot, cells: &mut [f32]) {
    let (first, others) = cells.split_at_mut(slot.len().min(cells.len()));
    for other in others.chunks_exact(slot.len()) {
        let (rows, stats) = slot.split(first);
        for (r, (to, to_stats)) in rows.chunks_exact_mut(slot.width).zip(stats).enumerate() {
            add_row((to, to_stats), slot.row(other, r));
        }
    }
}

/// The sums of rows that see no key.
static ZEROS: [f32; MAX_DIM] = [0.0; MAX_DIM];

/// The sums of all rows of a call, in the first slot of each sequence and key head.
#[derive(Clone, Copy)]
pub(crate) struct Cells<'a> {
    pub(super) slot: Slot,
    pub(super) heads: &'a Heads,
    pub(super) problem: &'a Problem<'a>,
    pub(super) starts: &'a [u32],
    pub(super) sums: &'a [f32],
}

impl<'a> Cells<'a> {
    /// The sums of a row, by its place in the tensors, and what is beside them.
    pub fn row(&self, [batch, head, query]: [usize; 3]) -> (&'a [f32], [f32; STATS]) {
        let sequence = match &self.problem.packed {
            None => batch,
            Some(packed) => Packed::cu_q(packed).partition_point(|&start| start as usize <= query) - 1,
        };
        let of = self.problem.sequence(sequence as u32);
        let group = self.heads.group() as usize;
        let at = sequence * self.heads.kv as usize + head / group;
        if self.starts[at] == self.starts[at + 1] {
            return (&ZEROS[..self.slot.width], [0.0, f32::NEG_INFINITY]);
        }
        let slot = &self.sums[self.starts[at] as usize * self.slot.len()..][..self.slot.len()];
        self.slot.row(slot, head % group * of.queries as usize + query - of.first_query as usize)
    }
}
