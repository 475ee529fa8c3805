//! Cells of a row, added up in their order.

use regard_engine::isa::Door;
use regard_engine::pack::MAX_DIM;
use regard_ir::problem::{Packed, Problem};
use regard_ir::variant::Heads;

use super::memory::{STATS, Slot};
use super::stacks::{Place, Stacks};
use crate::flash::part::add_row;

/// The sums of rows that see no key.
static ZEROS: [f32; MAX_DIM] = [0.0; MAX_DIM];

/// The sums of all rows of a call.
#[derive(Clone, Copy)]
pub(crate) struct Cells<'a> {
    pub(super) slot: Slot,
    pub(super) heads: &'a Heads,
    pub(super) problem: &'a Problem<'a>,
    pub(super) stacks: Stacks<'a>,
    /// A slot for each live cell of each sequence and key head, in passes.
    pub(super) sums: &'a [f32],
    /// A slot for each sequence and key head: what several cells were added up to.
    pub(super) results: &'a [f32],
}

impl<'a> Cells<'a> {
    /// Adds up what the cells of a sequence and key head left, where they are several.
    #[inline(always)]
    pub(super) fn add_up<D: Door>(&self, _: D, [sequence, head]: [usize; 2], result: &mut [f32]) {
        if self.stacks.count(sequence) < 2 {
            return;
        }
        let (rows, stats) = self.slot.split(result);
        for (cell, place) in self.stacks.places(sequence, head).enumerate() {
            for (row, (to, to_stats)) in rows.chunks_exact_mut(self.slot.width).zip(&mut *stats).enumerate() {
                let (from, from_stats) = self.at(place, row);
                if cell == 0 {
                    to.copy_from_slice(from);
                    *to_stats = from_stats;
                } else {
                    add_row((to, to_stats), (from, from_stats));
                }
            }
        }
    }

    /// The sums of a row over one cell, and what is beside them.
    fn at(&self, Place { slots: [begin, end], slot }: Place, row: usize) -> (&'a [f32], [f32; STATS]) {
        let [begin, end] = [begin as usize, end as usize];
        let slots = &self.sums[begin * self.slot.len()..end * self.slot.len()];
        self.slot.of(end - begin).row(slots, slot * self.slot.rows + row)
    }

    /// The sums of a row, by its place in the tensors, and what is beside them.
    pub fn row(&self, [batch, head, query]: [usize; 3]) -> (&'a [f32], [f32; STATS]) {
        let sequence = match &self.problem.packed {
            None => batch,
            Some(packed) => Packed::cu_q(packed).partition_point(|&start| start as usize <= query) - 1,
        };
        let of = self.problem.sequence(sequence as u32);
        let group = self.heads.group() as usize;
        let row = head % group * of.queries as usize + query - of.first_query as usize;
        match self.stacks.count(sequence) {
            0 => (&ZEROS[..self.slot.width], [0.0, f32::NEG_INFINITY]),
            1 => {
                let place = self.stacks.places(sequence, head / group).next();
                self.at(place.expect("the sequence has a live cell"), row)
            }
            _ => {
                let number = sequence * self.heads.kv as usize + head / group;
                self.slot.row(&self.results[number * self.slot.len()..][..self.slot.len()], row)
            }
        }
    }
}
