//! Channels of floats, which are read where they are, or widened.

use core::marker::PhantomData;

use pulp::bytemuck;
use regard_simd::{Simd, vectors_mut};

use super::super::load::{Floats, Stored};
use super::super::{Before, LANES};
use super::{CHANNELS, Channels, Group, write};
use crate::engine::Op;
use crate::isa::Door;
use crate::product::Rows;

/// Keys of a pair of panels, whose numbers of a channel lie together.
const PAIR: usize = 2 * LANES;

/// Channels of floats that are stored as `S`, `N` of a line.
pub(super) struct FloatChannels<'a, S, const N: usize> {
    /// Where they are widened to.
    moved: &'a mut [f32],
    /// Whether they can be read where they are.
    in_place: bool,
    stored: PhantomData<S>,
}

impl<'a, S: Stored<N>, const N: usize> FloatChannels<'a, S, N> {
    /// `moved` has as many floats as the channels of a chain of keys; `in_place` is whether they are floats in pairs of panels.
    #[inline(always)]
    pub fn new(moved: &'a mut [f32], in_place: bool) -> Self {
        Self { moved, in_place, stored: PhantomData }
    }

    /// Widens channels, each of so many keys in whole panels.
    #[inline(always)]
    fn widen<D: Door>(&mut self, lanes: D, group: &Group<'_>, keys: usize) {
        let Group { steps, block, panel, line, .. } = *group;
        for number in 0..keys / LANES {
            let from = block.lines(panel + number);
            for i in 0..(block.depth - line).min(CHANNELS / N) {
                let step = &steps[from.at(line + i)];
                for v in 0..LANES / D::WIDTH {
                    let numbers = S::load(lanes, step, v);
                    for (n, &numbers) in numbers.iter().enumerate() {
                        let to = &mut self.moved[(i * N + n) * keys + number * LANES..][..LANES];
                        vectors_mut(lanes, to)[v] = numbers;
                    }
                }
            }
        }
    }
}

impl<D: Door, S: Stored<N>, const N: usize> Channels<D> for FloatChannels<'_, S, N> {
    type Element = Floats;

    const OF_LINE: usize = N;

    #[inline(always)]
    fn take(&mut self, lanes: D, group: Group<'_>, to: &mut [f32]) {
        let Group { steps, block, panel, line, keys, weights, rows, before } = group;
        // But for the last few channels of keys.
        let (numbers, run, apart) = if self.in_place && group.is_whole(line, N) {
            let from = panel * block.depth + 2 * line;
            (bytemuck::cast_slice(&steps[from..]), PAIR, PAIR * block.depth)
        } else {
            let whole = keys.next_multiple_of(LANES);
            self.widen(lanes, &group, whole);
            (&*self.moved, whole, 0)
        };
        Lines { numbers, run, apart, keys, weights, rows, before }.take(lanes, to);
    }
}

/// The numbers of some channels for the keys of a chain, and the weights of these.
#[derive(Clone, Copy)]
struct Lines<'a> {
    /// From the first channel on.
    numbers: &'a [f32],
    /// Keys whose numbers of a channel lie together, after which come those of the next channel.
    run: usize,
    /// Numbers from those of so many keys to those of the next.
    apart: usize,
    keys: usize,
    /// `[key][row]`.
    weights: &'a [f32],
    rows: usize,
    before: Before<'a>,
}

impl Lines<'_> {
    /// Takes the channels through all rows, in tiles of 8 to 16 sums.
    #[inline(always)]
    fn take<D: Door>(self, lanes: D, to: &mut [f32]) {
        let vectors = self.rows / D::WIDTH;
        let mut first = 0;
        while first < vectors {
            let count = if vectors - first > 1 { 2 } else { 1 };
            match (count, D::TILE > 4) {
                (1, true) => self.strip::<D, 16, 1>(lanes, (first, 0), to),
                (1, false) => self.strip::<D, 8, 1>(lanes, (first, 0), to),
                (_, true) => self.strip::<D, 8, 2>(lanes, (first, 0), to),
                (_, false) => {
                    // Six by two fill 16 registers, and leave four channels.
                    let (most, rest) = to.split_at_mut(to.len().min(12 * self.rows));
                    self.strip::<D, 6, 2>(lanes, (first, 0), most);
                    self.strip::<D, 4, 2>(lanes, (first, 12), rest);
                }
            }
            first += count;
        }
    }

    /// `V` vectors of rows from one on, `C` channels at a time from one on.
    #[inline(always)]
    fn strip<D: Door, const C: usize, const V: usize>(
        self,
        lanes: D,
        (first, channel): (usize, usize),
        to: &mut [f32],
    ) {
        for (number, to) in to.chunks_mut(C * self.rows).enumerate() {
            let lines = Self { numbers: &self.numbers[(channel + number * C) * self.run..], ..self };
            lanes.call(Tile::<D, C, V> { lanes, lines, first: first * D::WIDTH, to });
        }
    }
}

/// `C` channels by `V` vectors of rows, of which `first` is the first row. It runs as a function of its own, so that its sums keep every
/// register.
struct Tile<'a, D, const C: usize, const V: usize> {
    lanes: D,
    lines: Lines<'a>,
    first: usize,
    to: &'a mut [f32],
}

impl<D: Door, const C: usize, const V: usize> Op for Tile<'_, D, C, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, lines, first, to } = self;
        let Lines { numbers, run, apart, keys, weights, rows, before } = lines;
        let mut sums = [[lanes.simd().splat_f32s(0.0); V]; C];
        let weights = Rows::new(weights, [first, rows, 1], [keys, V * D::WIDTH]);
        // No range with steps, which would divide.
        let (mut begin, mut from) = (0, 0);
        while begin < keys {
            let count = run.min(keys - begin);
            let numbers = Rows::new(numbers, [from, 1, run], [count, C]);
            sums = lanes.strided_tile(sums, numbers, weights.part([begin, count], [0, V * D::WIDTH]));
            (begin, from) = (begin + run, from + apart);
        }
        write(lanes, &sums, (first, rows), before, to);
    }
}
