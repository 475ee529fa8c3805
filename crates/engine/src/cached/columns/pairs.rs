//! Channels of bf16 that is multiplied in pairs: an element has two keys.

use core::mem;

use pulp::bytemuck;
use regard_ir::cache::Block;
use regard_simd::{Simd, vectors};

use super::super::load::{Dots, Step, Stored};
use super::super::{Before, LANES};
use super::{CHANNELS, Channels, Group, write};
use crate::engine::Op;
use crate::isa::Door;

/// Channels of a line, and keys of a word.
const PAIR: usize = 2;

/// Lines of [`CHANNELS`] channels of a panel.
const LINES: usize = CHANNELS / PAIR;

/// Lines that are moved to where those of [`CHANNELS`] channels lie together, as [`Door::halves_together`] makes them.
pub(super) struct PairChannels<'a> {
    now: &'a mut [Step],
    next: &'a mut [Step],
    /// The panel and the line from which on those of `now` are.
    holds: Option<(usize, usize)>,
}

impl<'a> PairChannels<'a> {
    /// `moved` has as many floats as the channels of a chain of keys.
    #[inline(always)]
    pub fn new(moved: &'a mut [f32]) -> Self {
        let moved: &mut [Step] = bytemuck::cast_slice_mut(moved).as_chunks_mut().0;
        let (now, next) = moved.split_at_mut(moved.len() / PAIR);
        Self { now, next, holds: None }
    }
}

impl<D: Door> Channels<D> for PairChannels<'_> {
    type Element = Dots;

    const OF_LINE: usize = PAIR;

    #[inline(always)]
    fn take(&mut self, lanes: D, group: Group<'_>, to: &mut [f32]) {
        let Group { block, panel, line, weights, rows, before, .. } = group;
        let (lines, depth) = (group.keys.div_ceil(LANES) * LINES, group.keys.div_ceil(PAIR));
        if self.holds.take() != Some((panel, line)) {
            let moving = Moving { steps: group.steps, block, panel, line };
            for number in 0..lines {
                if line + number % LINES < block.depth {
                    moving.line(lanes, number, self.now);
                }
            }
        }
        let now = Lines { steps: self.now, weights, rows, before };
        let then = line + LINES;
        if !group.is_whole(then, PAIR) {
            return now.take(lanes, None, to);
        }
        let moving = Moving { steps: group.steps, block, panel, line: then };
        for number in depth..lines {
            moving.line(lanes, number, self.next);
        }
        // As many as there are elements to take them with.
        now.take(lanes, Some((moving, &mut self.next[..depth])), to);
        mem::swap(&mut self.now, &mut self.next);
        self.holds = Some((panel, then));
    }
}

/// Lines on their way to where those of [`CHANNELS`] channels lie together.
#[derive(Clone, Copy)]
struct Moving<'a> {
    /// Those of a page.
    steps: &'a [Step],
    block: &'a Block,
    /// The first panel.
    panel: usize,
    /// The first line of each.
    line: usize,
}

impl Moving<'_> {
    /// Moves a line, counted over the panels one after the other.
    #[inline(always)]
    fn line<D: Door>(&self, lanes: D, number: usize, to: &mut [Step]) {
        let panel = self.block.lines(self.panel + number / LINES);
        to[number] = lanes.halves_together(&self.steps[panel.at(self.line + number % LINES)]);
    }
}

/// The lines of some channels in all panels of a chain, and the weights of its keys.
#[derive(Clone, Copy)]
struct Lines<'a> {
    /// From the first channel on.
    steps: &'a [Step],
    /// `[pair of keys][row]`.
    weights: &'a [f32],
    rows: usize,
    before: Before<'a>,
}

impl Lines<'_> {
    /// Takes the channels through all rows, in tiles of 8 or 16 sums. Of the lines that are to be moved it moves one for each element.
    #[inline(always)]
    fn take<D: Door>(self, lanes: D, mut moving: Option<(Moving<'_>, &mut [Step])>, to: &mut [f32]) {
        let vectors = self.rows / D::WIDTH;
        let mut first = 0;
        while first < vectors {
            let count = if vectors - first > 1 { 2 } else { 1 };
            match (count, D::TILE > 4) {
                (1, true) => self.strip::<D, 16, 1>(lanes, first, &mut moving, to),
                (1, false) => self.strip::<D, 8, 1>(lanes, first, &mut moving, to),
                (_, true) => self.strip::<D, 8, 2>(lanes, first, &mut moving, to),
                (_, false) => self.strip::<D, 4, 2>(lanes, first, &mut moving, to),
            }
            first += count;
        }
    }

    /// `V` vectors of rows, `C` channels at a time.
    #[inline(always)]
    fn strip<D: Door, const C: usize, const V: usize>(
        self,
        lanes: D,
        first: usize,
        moving: &mut Option<(Moving<'_>, &mut [Step])>,
        to: &mut [f32],
    ) {
        for (number, to) in to.chunks_mut(C * self.rows).enumerate() {
            let lines = Self { steps: &self.steps[number * C / PAIR..], ..self };
            let first = first * D::WIDTH;
            match moving.take() {
                Some((moving, moved)) => {
                    let moving = Some(moving);
                    lanes.call(Tile::<D, C, V, true> { lanes, lines, first, moving, moved, to });
                }
                None => {
                    let (moving, moved) = (None, &mut [][..]);
                    lanes.call(Tile::<D, C, V, false> { lanes, lines, first, moving, moved, to });
                }
            }
        }
    }
}

/// `C` channels by `V` vectors of rows, of which `first` is the first row. It runs as a function of its own, so that its sums keep every
/// register.
struct Tile<'a, D, const C: usize, const V: usize, const MOVES: bool> {
    lanes: D,
    lines: Lines<'a>,
    first: usize,
    moving: Option<Moving<'a>>,
    /// Where lines are moved to.
    moved: &'a mut [Step],
    to: &'a mut [f32],
}

impl<D: Door, const C: usize, const V: usize, const MOVES: bool> Op for Tile<'_, D, C, V, MOVES> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, lines, first, moving, moved, to } = self;
        let Lines { steps, weights, rows, before } = lines;
        let simd = lanes.simd();
        let columns = first..first + V * D::WIDTH;
        let mut sums = [[simd.splat_f32s(0.0); V]; C];
        assert!(!MOVES || moved.len() >= weights.len() / rows, "as many lines as elements are moved");
        // One loop, or sums would go through memory between two.
        for (element, weights) in weights.chunks_exact(rows).enumerate() {
            if MOVES && let Some(moving) = &moving {
                moving.line(lanes, element, moved);
            }
            let weights = vectors(lanes, &weights[columns.clone()]);
            let lines = &steps[element / LINES * LINES..][..C / PAIR];
            for (c, sums) in sums.iter_mut().enumerate() {
                let word = lines[c / PAIR][(element * PAIR + c % PAIR) % LANES];
                let number = simd.splat_f32s(f32::from_bits(word));
                for (sum, &weight) in sums.iter_mut().zip(weights) {
                    *sum = Dots::mul_add(lanes, weight, number, *sum);
                }
            }
        }
        write(lanes, &sums, (first, rows), before, to);
    }
}
