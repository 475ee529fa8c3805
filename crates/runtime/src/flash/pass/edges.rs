//! Where a mask's edge crosses a row tile: which keys of a block its rows see.

use core::ops::Range;

use regard_engine::Engine;
use regard_engine::stairs::{self, Stairs};
use regard_ir::expr::Tree;
use regard_ir::interval::{Liveness, Region, Span};
use regard_ir::tiles;

use super::super::fold::Steps;
use super::{Pass, RowTile};

impl<E: Engine> Pass<'_, E> {
    /// Which keys of a block a mask lets a row tile see, as a range within the block that starts on the mask's steps, and the
    /// liveness of its steps. `None` where there are none.
    #[inline(always)]
    pub(super) fn live_steps(
        &self,
        allow: Tree<'_>,
        tile: RowTile,
        first: u32,
        count: u32,
        block: Liveness,
    ) -> Option<(Range<u32>, Steps)> {
        let (blocks, ranges) = (&self.shared.parts.plan.prefill, self.shared.ranges);
        if block == Liveness::Full {
            return Some((0..count, Steps::default()));
        }
        let region = self.region(tile.first, tile.rows);
        let classify = |keys: Span| {
            let k = Span { lo: first as i32 + keys.lo, hi: first as i32 + keys.hi };
            tiles::liveness(allow, &Region { k, ..region }, ranges)
        };
        let mut live = 0..0;
        let (mut alive, mut partial) = (0u64, 0u64);
        for (run, liveness) in tiles::runs(0..count, blocks.mask_step, classify) {
            if live.is_empty() {
                live.start = run.start;
            }
            live.end = run.end;
            let first = (run.start - live.start) / blocks.mask_step;
            let bits = ones(run.len().div_ceil(blocks.mask_step as usize)) << first;
            alive |= bits;
            if liveness == Liveness::Partial {
                partial |= bits;
            }
        }
        let dead = !alive & ones(live.len().div_ceil(blocks.mask_step as usize));
        (!live.is_empty()).then_some((live, Steps { partial, dead }))
    }

    /// Which of its live keys each vector of a full row tile sees, by a mask's steps, where some of these are partial.
    #[inline(always)]
    pub(super) fn stairs(
        &self,
        allow: Tree<'_>,
        tile: RowTile,
        first: u32,
        live: &Range<u32>,
        steps: Steps,
    ) -> Option<Stairs> {
        let RowTile { first: row, rows, width } = tile;
        if !E::HAS_STAIRS || width < E::ROWS || steps.partial == 0 {
            return None;
        }
        let (step, begin, count) =
            (self.shared.parts.plan.prefill.mask_step, first + live.start, live.end - live.start);
        let mut seen = [const { 0..0 }; stairs::VECTORS];
        for (v, seen) in seen.iter_mut().enumerate() {
            let above = v * E::ROW_STEP;
            let region = self.region(row + above, E::ROW_STEP.min(rows - above));
            let is_dead = |number: u32| {
                let (lo, hi) = (number * step, ((number + 1) * step).min(count));
                let k = Span { lo: (begin + lo) as i32, hi: (begin + hi) as i32 - 1 };
                steps.is_partial(number)
                    && tiles::liveness(allow, &Region { k, ..region }, self.shared.ranges) == Liveness::Dead
            };
            let (mut low, mut high) = (0, count.div_ceil(step));
            while low < high && is_dead(high - 1) {
                high -= 1;
            }
            while low < high && is_dead(low) {
                low += 1;
            }
            *seen = (low * step) as usize..(high * step).min(count) as usize;
        }
        Some(Stairs::over(seen))
    }
}

/// So many bits, from the lowest on; all of them at most.
const fn ones(count: usize) -> u64 {
    if count >= u64::BITS as usize { u64::MAX } else { (1 << count) - 1 }
}
