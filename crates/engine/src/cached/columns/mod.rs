//! Outputs where values are the first channels of keys: lanes are rows, and channels are broadcast from the keys as they lie.
//!
//! A panel of keys has a line of words for each channel, or for each two, and a key in each lane. Values have a line for each key, or for
//! each two, so keys must be turned before lanes can be channels. Where rows fill whole vectors they need not be: a tile is some
//! channels by some vectors of rows. Floats are read where they are, and shorter ones are widened once for all rows; of bf16 that is
//! multiplied in pairs two keys must share a word, which takes one shuffle a line. Sums are those of the other product, number by number
//! and in the same order.

mod floats;
mod pairs;

use regard_ir::cache::{Block, Codec};
use regard_simd::{Simd, TRANSPOSE, rows_apart, vectors, vectors_mut};

use self::floats::FloatChannels;
use self::pairs::PairChannels;
use super::floats::operand;
use super::load::{Floats, Halves, Pairs, Step, Stored};
use super::tile::Operand;
use super::{Before, LANES, Weights, Words};
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

/// Whether [`columns`] takes such keys.
pub const fn has_columns(keys: &Block) -> bool {
    match keys.codec {
        Codec::F32 | Codec::F16 | Codec::Bf16 => true,
        Codec::Int8 | Codec::Int4 => false,
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
    let (moved, scratch) = scratch.split_at_mut(CHANNELS * weights.chain);
    match words.block.codec {
        Codec::F32 => {
            let channels = FloatChannels::<Floats, 1>::new(moved, lies_in_pairs(&words, &weights));
            add(lanes, channels, words, weights, scratch, before, to);
        }
        Codec::F16 => {
            add(lanes, FloatChannels::<Halves, 2>::new(moved, false), words, weights, scratch, before, to);
        }
        Codec::Bf16 if words.pairs => {
            add(lanes, PairChannels::new(moved), words, weights, scratch, before, to);
        }
        Codec::Bf16 => {
            add(lanes, FloatChannels::<Pairs, 2>::new(moved, false), words, weights, scratch, before, to);
        }
        codec @ (Codec::Int8 | Codec::Int4) => unreachable!("keys in {codec:?} are turned"),
    }
}

/// Whether no panel that is read is without a partner.
const fn lies_in_pairs(words: &Words<'_>, weights: &Weights<'_>) -> bool {
    let block = words.block;
    block.paired
        && block.panels.is_multiple_of(2)
        && (weights.chain.is_multiple_of(2 * LANES) || weights.count <= weights.chain)
}

/// How the lines of some channels are taken.
trait Channels<D: Door> {
    /// Elements of weights, which have one or two keys.
    type Element: Stored<1>;

    /// Channels of a line.
    const OF_LINE: usize;

    /// Adds the products of some channels.
    fn take(&mut self, lanes: D, group: Group<'_>, to: &mut [f32]);
}

/// [`CHANNELS`] channels of the keys of a chain.
#[derive(Clone, Copy)]
struct Group<'a> {
    /// The lines of a page.
    steps: &'a [Step],
    block: &'a Block,
    /// The first panel.
    panel: usize,
    /// The first line of each.
    line: usize,
    /// Keys that there are.
    keys: usize,
    /// `[key][row]`, or words of two keys.
    weights: &'a [f32],
    rows: usize,
    before: Before<'a>,
}

impl Group<'_> {
    /// Whether a page has all lines of some channels.
    fn is_whole(&self, line: usize, of_line: usize) -> bool {
        line + CHANNELS / of_line <= self.block.depth
    }
}

/// See [`columns`].
#[inline(always)]
fn add<D: Door, C: Channels<D>>(
    lanes: D,
    mut channels: C,
    words: Words<'_>,
    weights: Weights<'_>,
    scratch: &mut [f32],
    before: Before<'_>,
    Columns { to, rows }: Columns<'_>,
) {
    let (block, steps, of_panel) = (words.block, words.steps(), CHANNELS / C::OF_LINE);
    let mut ahead = words.ahead.map_or(&[][..], |ahead| ahead.lines());
    let (turned, pairs) = scratch.split_at_mut(rows * weights.chain / C::Element::NUMBERS);
    for first in (0..weights.count).step_by(weights.chain) {
        let keys = first..weights.count.min(first + weights.chain);
        let lines = keys.len().div_ceil(LANES) * of_panel;
        let a = operand::<C::Element, 1>(&weights, keys.clone(), pairs);
        turn_weights(lanes, &a, rows, turned);
        let before = if first == 0 { before } else { Before::Kept };
        for (number, to) in to.chunks_mut(CHANNELS * rows).enumerate() {
            let asked;
            (asked, ahead) = ahead.split_at(lines.min(ahead.len()));
            asked.iter().for_each(|line| lanes.prefetch_far(line));
            let (panel, line) = (first / LANES, number * of_panel);
            let weights = &turned[..a.depth * rows];
            let group = Group { steps, block, panel, line, keys: keys.len(), weights, rows, before };
            channels.take(lanes, group, to);
        }
    }
    ahead.iter().for_each(|line| lanes.prefetch_far(line));
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

/// Writes the sums of a tile to some vectors of its rows, as many channels as there are.
#[inline(always)]
fn write<D: Door, const C: usize, const V: usize>(
    lanes: D,
    sums: &[[<D::Simd as Simd>::f32s; V]; C],
    (first, rows): (usize, usize),
    before: Before<'_>,
    to: &mut [f32],
) {
    let (simd, columns) = (lanes.simd(), first..first + V * D::WIDTH);
    // A loop for each case, so that they are unrolled and sums stay where they are.
    let mut channels = to.chunks_exact_mut(rows);
    match before {
        Before::Nothing => {
            for sums in sums {
                let Some(to) = channels.next() else { break };
                vectors_mut(lanes, &mut to[columns.clone()]).copy_from_slice(sums);
            }
        }
        Before::Kept => {
            for sums in sums {
                let Some(to) = channels.next() else { break };
                for (to, &sum) in vectors_mut(lanes, &mut to[columns.clone()]).iter_mut().zip(sums) {
                    *to = simd.add_f32s(*to, sum);
                }
            }
        }
        Before::Scaled(factors) => {
            let factors = vectors(lanes, &factors[columns.clone()]);
            for sums in sums {
                let Some(to) = channels.next() else { break };
                let all = vectors_mut(lanes, &mut to[columns.clone()]).iter_mut().zip(sums);
                for ((to, &sum), &factor) in all.zip(factors) {
                    *to = simd.add_f32s(simd.mul_f32s(*to, factor), sum);
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
