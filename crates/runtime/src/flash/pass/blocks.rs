//! The packed key blocks of a pass: made by it, or by a pass before it.

use core::ops::Range;

use regard_engine::Engine;
use regard_engine::grid::{Found, Making, Task, Visit};

use super::super::memory::{BLOCK_NAME, Memory};
use super::{Pass, RowTile, Shared};
use crate::schedule::head_number;

/// A packed key block.
#[derive(Clone, Copy)]
pub(super) enum Packed<'a> {
    /// Of those that are kept for all.
    Shared(&'a [f32]),
    /// Of the worker's own, from such an element on.
    Own(usize),
}

/// Comes to the packed blocks of a task's head, where they are kept for all and there is a place for them.
pub(super) fn visit<'a, E: Engine>(shared: &'a Shared<'_, E>, task: &Task) -> Option<Visit<'a>> {
    shared.shelf.as_ref()?.visit(head_number(task, shared.parts.variant.heads.kv))
}

impl<E: Engine> Pass<'_, E> {
    /// The packed key block that begins with a key: packed here, unless it was before.
    #[inline(always)]
    pub(super) fn packed_block(&self, first: u32, memory: &mut Memory<'_>) -> Packed<'_> {
        let number = self.number(first);
        if let Some(visit) = self.visit {
            loop {
                match visit.block(number as usize) {
                    Found::Made(block) => return Packed::Shared(block),
                    Found::Missing(making) => return Packed::Shared(self.make(number, making, memory)),
                    Found::Elsewhere if self.make_next(number, visit, memory) => {}
                    Found::Elsewhere => break,
                }
            }
        }
        let (name, kept) = (self.name(first), self.shared.layout.kept(first));
        let place = self.shared.layout.packed(kept);
        if memory.blocks[kept] != name {
            let packed = core::mem::take(&mut memory.packed);
            self.pack(number, memory, &mut packed[place.clone()]);
            memory.packed = packed;
            memory.blocks[kept] = name;
        }
        Packed::Own(place.start)
    }

    /// While another packs a block, packs the first of those after it that this pass sees and nobody has packed. Says whether there
    /// was one.
    #[inline(always)]
    fn make_next(&self, number: u32, visit: &Visit<'_>, memory: &mut Memory<'_>) -> bool {
        let mut number = number + 1;
        while !self.keys(number).is_empty() {
            let is_wanted = visit.made(number as usize).is_none() && !self.is_dead(self.keys(number), &None);
            if is_wanted && let Found::Missing(making) = visit.block(number as usize) {
                self.make(number, making, memory);
                return true;
            }
            number += 1;
        }
        false
    }

    #[inline(always)]
    fn make<'v>(&self, number: u32, mut making: Making<'v>, memory: &mut Memory<'_>) -> &'v [f32] {
        self.pack(number, memory, making.room());
        making.made()
    }

    #[inline(always)]
    fn pack(&self, number: u32, memory: &mut Memory<'_>, to: &mut [f32]) {
        let Shared { engine, layout, keys, .. } = self.shared;
        let of = [self.block.sequence, self.block.kv_head];
        keys.pack_block(*engine, &layout.shape, of, self.keys(number), memory.scratch(), to);
    }

    /// Asks for a row tile's share of the rows of the block that begins with a key, unless it is packed: all tiles ask for all of
    /// them, so that nobody waits for them who packs them next. What is packed lies in a row, which processors follow by themselves.
    #[inline(always)]
    pub(super) fn ask_block(&self, first: u32, tile: RowTile, memory: &Memory<'_>) {
        let Shared { engine, keys, layout, .. } = self.shared;
        let number = self.number(first);
        let is_own = memory.blocks[layout.kept(first)] == self.name(first);
        if is_own || self.visit.is_some_and(|visit| visit.made(number as usize).is_some()) {
            return;
        }
        let (tile, tiles) = (tile.first / layout.tile.rows, self.rows().div_ceil(layout.tile.rows));
        let all = self.keys(number);
        let begin = |tile: usize| all.start + (all.len() * tile / tiles) as u32;
        keys.ask(engine.lanes(), [self.block.sequence, self.block.kv_head], begin(tile)..begin(tile + 1));
    }

    /// The number of a block among those of its head: they lie on a grid of absolute positions.
    fn number(&self, first: u32) -> u32 {
        let key_block = self.shared.parts.plan.prefill.key_block;
        first / key_block - self.block.of.held.begin / key_block
    }

    /// The keys of block number `number`, whatever this pass sees of it: the next one may see more. None past the last.
    fn keys(&self, number: u32) -> Range<u32> {
        let (key_block, held) = (self.shared.parts.plan.prefill.key_block, self.block.of.held);
        let begin = (held.begin / key_block + number) * key_block;
        begin.max(held.begin)..(begin + key_block).min(held.end)
    }

    /// What a worker knows a block of its own by.
    fn name(&self, first: u32) -> [i32; BLOCK_NAME] {
        [self.block.sequence, self.block.kv_head, first].map(|n| n as i32)
    }
}
