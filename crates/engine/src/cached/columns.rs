//! Outputs where values are the first channels of keys: lanes are rows, and channels are broadcast from the keys as they lie.
//!
//! A panel of keys has a line of words for each channel, or for each two, and a key in each lane. Values have a line for each key, or for
//! each two, so keys must be turned before lanes can be channels. Where rows fill whole vectors they need not be: a tile is some
//! channels by some vectors of rows. Of bf16 two keys must share a word, which takes one shuffle a line. Sums are those of the other
//! product, number by number and in the same order.

use core::marker::PhantomData;

use pulp::bytemuck;
use regard_ir::cache::{Block, Codec};
use regard_simd::{Simd, TRANSPOSE, rows_apart, vectors, vectors_mut};

use super::floats::operand;
use super::load::{Dots, Floats, Step, Stored};
use super::tile::Operand;
use super::{Before, LANES, Weights, Words};
use crate::engine::Op;
use crate::isa::Door;

/// Rows whose products take about as long as it takes to turn the keys.
const TURNED_ROWS: usize = 4;

/// Channels whose lines are taken at once.
const CHANNELS: usize = LANES;

/// Sums of weighted values as columns, `[channel][row]`.
pub struct Columns<'a> {
    /// Those of each channel.
    pub to: &'a mut [f32],
    /// Rows, in whole vectors.
    pub rows: usize,
}

/// Whether [`columns`] takes such keys; `pairs` is whether bf16 is multiplied in pairs.
pub const fn has_columns(keys: &Block, pairs: bool) -> bool {
    match keys.codec {
        Codec::F32 => true,
        Codec::Bf16 => pairs,
        Codec::F16 | Codec::Int8 | Codec::Int4 => false,
    }
}

/// So many rows in whole vectors of so many lanes, if [`columns`] are better than turning the keys.
pub const fn column_rows(rows: usize, lanes: usize) -> Option<usize> {
    let whole = rows.next_multiple_of(lanes);
    if whole - rows <= TURNED_ROWS { Some(whole) } else { None }
}

/// Numbers of memory that [`columns`] works in, for so many rows in whole vectors and chains of so many keys, whole panels.
pub const fn columns_scratch_len(rows: usize, chain: usize) -> usize {
    (rows + CHANNELS) * chain + TRANSPOSE
}

/// `to[c][r] (+)= Σ_k weights[r][k] · key[k][c]` over the keys of a page and as many of their first channels as there are columns. What
/// multiplies the columns so far is as long as they are.
///
/// `scratch` is as long as [`columns_scratch_len`] says.
#[inline(always)]
pub fn columns<D: Door>(
    lanes: D,
    words: Words<'_>,
    weights: Weights<'_>,
    scratch: &mut [f32],
    before: Before<'_>,
    to: Columns<'_>,
) {
    match words.block.codec {
        Codec::F32 => columns_of::<D, Floats, 1>(lanes, words, weights, scratch, before, to),
        Codec::Bf16 if words.pairs => columns_of::<D, Dots, 2>(lanes, words, weights, scratch, before, to),
        codec => unreachable!("keys in {codec:?} are turned"),
    }
}

/// Words of `N` numbers each.
#[inline(always)]
fn columns_of<D: Door, S: Stored<1>, const N: usize>(
    lanes: D,
    words: Words<'_>,
    weights: Weights<'_>,
    scratch: &mut [f32],
    before: Before<'_>,
    Columns { to, rows }: Columns<'_>,
) {
    let (block, steps, of_panel) = (words.block, words.steps(), CHANNELS / N);
    // Whether no panel that is read is without a partner.
    let in_pairs = block.paired
        && block.panels.is_multiple_of(2)
        && (weights.chain.is_multiple_of(2 * LANES) || weights.count <= weights.chain);
    let mut ahead = words.ahead.map_or(&[][..], |ahead| ahead.lines());
    let (moved, scratch) = scratch.split_at_mut(CHANNELS * weights.chain);
    let moved: &mut [Step] = bytemuck::cast_slice_mut(moved).as_chunks_mut().0;
    let (mut now, mut next) = moved.split_at_mut(moved.len() / N);
    let (turned, pairs) = scratch.split_at_mut(rows * weights.chain / N);
    for first in (0..weights.count).step_by(weights.chain) {
        let keys = first..weights.count.min(first + weights.chain);
        let lines = keys.len().div_ceil(LANES) * of_panel;
        let a = operand::<S, 1>(&weights, keys, pairs);
        turn_weights(lanes, &a, rows, turned);
        let before = if first == 0 { before } else { Before::Kept };
        let first = first / LANES;
        let weights = &turned[..a.depth * rows];
        let mut is_moved = false;
        for (number, to) in to.chunks_mut(CHANNELS * rows).enumerate() {
            let asked;
            (asked, ahead) = ahead.split_at(lines.min(ahead.len()));
            asked.iter().for_each(|line| lanes.prefetch_far(line));
            let begin = number * of_panel;
            // Floats are read where they are, but for the last few channels of keys.
            let is_whole = |begin: usize| begin + of_panel <= block.depth;
            if N == 1 && in_pairs && is_whole(begin) {
                let steps = &steps[first * block.depth + 2 * begin..];
                let all = Lines::<S, N, 2> {
                    steps,
                    apart: block.depth,
                    weights,
                    rows,
                    before,
                    stored: PhantomData,
                };
                all.take(lanes, None, to);
                continue;
            }
            if !is_moved {
                let moving = Moving::<N> { steps, block, first, begin };
                for line in 0..lines {
                    if begin + line % of_panel < block.depth {
                        moving.line(lanes, line, now);
                    }
                }
            }
            let all =
                Lines::<S, N, 1> { steps: now, apart: of_panel, weights, rows, before, stored: PhantomData };
            is_moved = N > 1 && is_whole(begin + of_panel);
            if is_moved {
                let moving = Moving { steps, block, first, begin: begin + of_panel };
                for line in a.depth..lines {
                    moving.line(lanes, line, next);
                }
                // As many as there are keys to take them with.
                all.take(lanes, Some((moving, &mut next[..a.depth])), to);
                core::mem::swap(&mut now, &mut next);
            } else {
                all.take(lanes, None, to);
            }
        }
    }
    ahead.iter().for_each(|line| lanes.prefetch_far(line));
}

/// Lines on their way to where those of [`CHANNELS`] channels lie together, of two channels as [`Door::halves_together`] makes them.
#[derive(Clone, Copy)]
struct Moving<'a, const N: usize> {
    /// Those of a block.
    steps: &'a [Step],
    block: &'a Block,
    /// The first panel.
    first: usize,
    /// The first line of each.
    begin: usize,
}

impl<const N: usize> Moving<'_, N> {
    /// Moves a line, counted over the panels one after the other.
    #[inline(always)]
    fn line<D: Door>(&self, lanes: D, line: usize, to: &mut [Step]) {
        let of_panel = CHANNELS / N;
        let panel = self.block.lines(self.first + line / of_panel);
        let from = &self.steps[panel.at(self.begin + line % of_panel)];
        to[line] = if N == 1 { *from } else { lanes.halves_together(from) };
    }
}

/// Writes weights as `[key][row]`, or words of two keys, with zeros for rows past the last.
#[inline(always)]
fn turn_weights<D: Door>(lanes: D, a: &Operand<'_>, rows: usize, to: &mut [f32]) {
    static ZEROS: [f32; TRANSPOSE] = [0.0; TRANSPOSE];
    for key in (0..a.depth).step_by(TRANSPOSE) {
        for first in (0..rows).step_by(TRANSPOSE) {
            if first + TRANSPOSE > rows {
                // Of vectors of less than eight lanes.
                for key in key..a.depth.min(key + TRANSPOSE) {
                    for row in first..rows {
                        to[key * rows + row] =
                            if row < a.rows { a.numbers[row * a.stride + key] } else { 0.0 };
                    }
                }
                continue;
            }
            let row = |i: usize| match first + i < a.rows {
                true => &a.numbers[(first + i) * a.stride + key..][..TRANSPOSE],
                false => &ZEROS,
            };
            let from = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
            lanes.transpose(from, &mut to[key * rows + first..], rows);
        }
    }
}

/// The lines of some channels in all panels of a chain, of which `T` take turns, and the weights of its keys.
#[derive(Clone, Copy)]
struct Lines<'a, S, const N: usize, const T: usize> {
    /// From the first channel on.
    steps: &'a [Step],
    /// Lines of a panel.
    apart: usize,
    /// `[key][row]`, or words of two keys.
    weights: &'a [f32],
    rows: usize,
    before: Before<'a>,
    stored: PhantomData<S>,
}

impl<S: Stored<1>, const N: usize, const T: usize> Lines<'_, S, N, T> {
    /// Takes the channels through all rows, in tiles of 8 or 16 sums. Of the lines that are to be moved it moves one for each key, or
    /// for each two.
    #[inline(always)]
    fn take<D: Door>(self, lanes: D, mut moving: Option<(Moving<'_, N>, &mut [Step])>, to: &mut [f32]) {
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
        moving: &mut Option<(Moving<'_, N>, &mut [Step])>,
        to: &mut [f32],
    ) {
        for (number, to) in to.chunks_mut(C * self.rows).enumerate() {
            let lines = Self { steps: &self.steps[number * C / N * T..], ..self };
            let first = first * D::WIDTH;
            match moving.take() {
                Some((moving, moved)) => {
                    let moving = Some(moving);
                    lanes.call(Tile::<D, S, N, T, C, V, true> { lanes, lines, first, moving, moved, to });
                }
                None => {
                    lanes.call(Tile::<D, S, N, T, C, V, false> {
                        lanes,
                        lines,
                        first,
                        moving: None,
                        moved: &mut [],
                        to,
                    });
                }
            }
        }
    }
}

/// `C` channels by `V` vectors of rows, of which `first` is the first row. It runs as a function of its own, so that its sums keep every
/// register.
struct Tile<'a, D, S, const N: usize, const T: usize, const C: usize, const V: usize, const MOVES: bool> {
    lanes: D,
    lines: Lines<'a, S, N, T>,
    first: usize,
    moving: Option<Moving<'a, N>>,
    /// Where lines are moved to.
    moved: &'a mut [Step],
    to: &'a mut [f32],
}

impl<D: Door, S: Stored<1>, const N: usize, const T: usize, const C: usize, const V: usize, const MOVES: bool>
    Op for Tile<'_, D, S, N, T, C, V, MOVES>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, lines, first, moving, moved, to } = self;
        let Lines { steps, apart, weights, rows, before, .. } = lines;
        let steps: &[[Step; T]] = steps.as_chunks().0;
        let simd = lanes.simd();
        let columns = first..first + V * D::WIDTH;
        let mut sums = [[simd.splat_f32s(0.0); V]; C];
        assert!(!MOVES || moved.len() >= weights.len() / rows, "as many lines as keys are moved");
        // One loop, or sums would go through memory between two.
        for (key, weights) in weights.chunks_exact(rows).enumerate() {
            if MOVES && let Some(moving) = &moving {
                moving.line(lanes, key, moved);
            }
            let weights = vectors(lanes, &weights[columns.clone()]);
            let panel = key / (LANES / N);
            let lines = &steps[panel / T * apart..][..C / N];
            for (c, sums) in sums.iter_mut().enumerate() {
                let number =
                    simd.splat_f32s(f32::from_bits(lines[c / N][panel % T][(key * N + c % N) % LANES]));
                for (sum, &weight) in sums.iter_mut().zip(weights) {
                    *sum = S::mul_add(lanes, weight, number, *sum);
                }
            }
        }
        // A loop for each case, so that they are unrolled and sums stay where they are.
        let mut channels = to.chunks_exact_mut(rows);
        match before {
            Before::Nothing => {
                for sums in &sums {
                    let Some(to) = channels.next() else { break };
                    vectors_mut(lanes, &mut to[columns.clone()]).copy_from_slice(sums);
                }
            }
            Before::Kept => {
                for sums in &sums {
                    let Some(to) = channels.next() else { break };
                    for (to, &sum) in vectors_mut(lanes, &mut to[columns.clone()]).iter_mut().zip(sums) {
                        *to = simd.add_f32s(*to, sum);
                    }
                }
            }
            Before::Scaled(factors) => {
                let factors = vectors(lanes, &factors[columns.clone()]);
                for sums in &sums {
                    let Some(to) = channels.next() else { break };
                    let all = vectors_mut(lanes, &mut to[columns.clone()]).iter_mut().zip(sums);
                    for ((to, &sum), &factor) in all.zip(factors) {
                        *to = simd.add_f32s(simd.mul_f32s(*to, factor), sum);
                    }
                }
            }
        }
    }
}

/// Writes columns of so many rows as the first channels of rows that are `stride` apart, as many as there are of these, and zeros
/// behind them.
#[inline(always)]
pub fn turn_columns<D: Door>(lanes: D, (from, rows): (&[f32], usize), to: &mut [f32], stride: usize) {
    let channels = from.len() / rows;
    let count = to.len() / stride;
    to.chunks_exact_mut(stride).for_each(|row| row[channels..].fill(0.0));
    for channel in (0..channels).step_by(TRANSPOSE) {
        for first in (0..count).step_by(TRANSPOSE) {
            if channel + TRANSPOSE <= channels && first + TRANSPOSE <= count {
                let from = rows_apart(&from[channel * rows + first..], rows);
                lanes.transpose(from, &mut to[first * stride + channel..], stride);
                continue;
            }
            for c in channel..channels.min(channel + TRANSPOSE) {
                for r in first..count.min(first + TRANSPOSE) {
                    to[r * stride + c] = from[c * rows + r];
                }
            }
        }
    }
}
