//! Writing rows of keys and values to a page, and reading them back, number by number.
//!
//! [`pages`](crate::pages) writes the same rows many at a time; what it writes is held against this.

use half::{bf16, f16};
use pulp::bytemuck;
use regard_ir::cache::{Block, Codec};

use super::load::Step;
use super::{GROUP, LANES};
use crate::pages::numbers::{BYTE_BIAS, NIBBLE_BIAS, limit, nibble, rounded, scale_of, step_of};

/// Where in a block a token's numbers and scales are: for each channel the step, lane and number, for each group the scale.
#[derive(Clone, Copy)]
enum Place {
    /// Of a key.
    Key { token: usize },
    /// Of a value, in pages of so many tokens.
    Value { token: usize, tokens: usize },
}

impl Place {
    /// The step, lane and number of a channel.
    fn number(self, block: &Block, channel: usize) -> (usize, usize, usize) {
        let numbers = block.codec.numbers() as usize;
        match self {
            Place::Key { token } => {
                let lines = block.lines(token / LANES);
                (lines.at(channel / numbers), token % LANES, channel % numbers)
            }
            Place::Value { token, .. } => {
                let lines = block.lines(channel / LANES);
                (lines.at(token / numbers), channel % LANES, token % numbers)
            }
        }
    }

    /// The scale of a group of channels.
    fn scale(self, block: &Block, group: usize) -> usize {
        match self {
            Place::Key { token } => (token / LANES * block.groups + group) * LANES + token % LANES,
            Place::Value { token, tokens } => group * tokens + token,
        }
    }
}

/// Writes the key of token `token` of a page to its block of keys.
pub fn write_key(block: &Block, token: usize, row: &[f32], to: &mut [u32]) {
    write(block, Place::Key { token }, row, to);
}

/// Writes the value of token `token` of a page to its block of values.
pub fn write_value(block: &Block, tokens: usize, token: usize, row: &[f32], to: &mut [u32]) {
    write(block, Place::Value { token, tokens }, row, to);
    let bit = 1 << (token % u32::BITS as usize);
    let word = &mut to[block.scaled_words(tokens) + token / u32::BITS as usize];
    let limit = limit(block.codec);
    *word = if row.iter().all(|x| x.abs() < limit) { *word & !bit } else { *word | bit };
}

/// Reads the key of token `token` of a page.
pub fn read_key(block: &Block, token: usize, from: &[u32], row: &mut [f32]) {
    read(block, Place::Key { token }, from, row);
}

/// Reads the value of token `token` of a page.
pub fn read_value(block: &Block, tokens: usize, token: usize, from: &[u32], row: &mut [f32]) {
    read(block, Place::Value { token, tokens }, from, row);
}

/// Reads one channel of the value of token `token` of a page.
pub fn read_value_channel(block: &Block, tokens: usize, token: usize, channel: usize, from: &[u32]) -> f32 {
    read_channel(block, Place::Value { token, tokens }, channel, from)
}

/// Reads one channel of the key of token `token` of a page.
pub fn read_key_channel(block: &Block, token: usize, channel: usize, from: &[u32]) -> f32 {
    read_channel(block, Place::Key { token }, channel, from)
}

fn read_channel(block: &Block, place: Place, channel: usize, from: &[u32]) -> f32 {
    let (step, lane, n) = place.number(block, channel);
    let steps: &[Step] = from[..block.words()].as_chunks().0;
    let number = get(block.codec, &steps[step], lane, n);
    match block.groups {
        0 => number,
        _ => number * scale(block, from, place.scale(block, channel / group_of(block))),
    }
}

/// Clears the keys of all tokens of a page from number `first` on.
pub fn clear_keys(block: &Block, tokens: usize, first: usize, to: &mut [u32]) {
    for panel in first / LANES..tokens / LANES {
        let lanes = first.saturating_sub(panel * LANES)..LANES;
        for line in 0..block.depth {
            let step = &mut steps_mut(block, to)[block.lines(panel).at(line)];
            if block.codec == Codec::F16 {
                for halves in bytemuck::cast_slice_mut::<u32, u16>(step).chunks_exact_mut(LANES) {
                    halves[lanes.clone()].fill(0);
                }
            } else {
                step[lanes.clone()].fill(0);
            }
        }
        for group in 0..block.groups {
            for lane in lanes.clone() {
                set_scale(block, to, (panel * block.groups + group) * LANES + lane, 0.0);
            }
        }
    }
}

/// Clears the values of all tokens of a page from number `first` on.
pub fn clear_values(block: &Block, tokens: usize, first: usize, to: &mut [u32]) {
    let numbers = block.codec.numbers() as usize;
    for panel in 0..block.panels {
        let (lines, steps) = (block.lines(panel), steps_mut(block, to));
        for line in first.div_ceil(numbers)..block.depth {
            steps[lines.at(line)].fill(0);
        }
        if !first.is_multiple_of(numbers) {
            let step = &mut steps[lines.at(first / numbers)];
            for lane in 0..LANES {
                (first % numbers..numbers).for_each(|n| erase(block.codec, step, lane, n));
            }
        }
    }
    for group in 0..block.groups {
        (first..tokens).for_each(|token| set_scale(block, to, group * tokens + token, 0.0));
    }
    clear_odd(tokens, first, &mut to[block.scaled_words(tokens)..]);
}

/// Clears the bits of all tokens of a page from number `first` on.
pub fn clear_odd(tokens: usize, first: usize, to: &mut [u32]) {
    for token in first..tokens {
        to[token / u32::BITS as usize] &= !(1 << (token % u32::BITS as usize));
    }
}

/// Zeroes the bits of a number.
fn erase(codec: Codec, step: &mut Step, lane: usize, n: usize) {
    match codec {
        Codec::F32 => step[lane] = 0,
        Codec::F16 => bytemuck::cast_slice_mut::<u32, u16>(step)[n * LANES + lane] = 0,
        Codec::Bf16 => step[lane] &= !(0xffff << (16 * n)),
        Codec::Int8 => step[lane] &= !(0xff << (8 * n)),
        Codec::Int4 => step[lane] &= !(0xf << nibble(n)),
    }
}

/// Whether the values of a token are not all finite.
pub fn is_odd(block: &Block, tokens: usize, token: usize, from: &[u32]) -> bool {
    is_odd_at(block.scaled_words(tokens), token, from)
}

/// The same, by bits that begin at word `at`.
pub fn is_odd_at(at: usize, token: usize, from: &[u32]) -> bool {
    from[at + token / u32::BITS as usize] >> (token % u32::BITS as usize) & 1 != 0
}

/// Whether the values of some of so many tokens are not all finite, by bits that begin at word `at`.
pub fn has_odd(at: usize, tokens: usize, from: &[u32]) -> bool {
    from[at..][..tokens.div_ceil(u32::BITS as usize)].iter().any(|&word| word != 0)
}

/// Copies a block of values with zeros in place of what is not finite.
pub fn sanitise<'a>(block: &Block, tokens: usize, from: &[u32], to: &'a mut [u32]) -> &'a [u32] {
    to.copy_from_slice(from);
    mend(block, tokens, to);
    to
}

/// Puts zeros in place of what is not finite of a block of values, by its bits.
pub fn mend(block: &Block, tokens: usize, to: &mut [u32]) {
    for token in 0..tokens {
        if !is_odd(block, tokens, token, to) {
            continue;
        }
        let place = Place::Value { token, tokens };
        for group in 0..block.groups {
            if !scale(block, to, place.scale(block, group)).is_finite() {
                set_scale(block, to, place.scale(block, group), 0.0);
            }
        }
        for channel in 0..block.channels {
            let (step, lane, n) = place.number(block, channel);
            let step = &mut steps_mut(block, to)[step];
            if !get(block.codec, step, lane, n).is_finite() {
                set(block.codec, step, lane, n, 0.0);
            }
        }
    }
}

/// Copies as many of the first channels of a block of floats that are keys as `values` have, with zeros in place of what is not finite,
/// and says how they lie.
pub fn mend_keys(keys: &Block, values: &Block, from: &[u32], to: &mut [u32]) -> Block {
    let numbers = keys.codec.numbers() as usize;
    let block = Block { channels: values.channels, depth: values.channels.div_ceil(numbers), ..*keys };
    let from: &[Step] = from[..keys.words()].as_chunks().0;
    for panel in 0..block.panels {
        for line in 0..block.depth {
            let step = &mut steps_mut(&block, to)[block.lines(panel).at(line)];
            *step = from[keys.lines(panel).at(line)];
            for (lane, n) in (0..LANES).flat_map(|lane| (0..numbers).map(move |n| (lane, n))) {
                if !get(block.codec, step, lane, n).is_finite() {
                    set(block.codec, step, lane, n, 0.0);
                }
            }
        }
    }
    block
}

fn write(block: &Block, place: Place, row: &[f32], to: &mut [u32]) {
    for (group, row) in row.chunks(group_of(block)).enumerate() {
        let mut inverse = None;
        if block.groups > 0 {
            let (scale, by) = scale_of(block.codec, step_of(block.codec, row));
            set_scale(block, to, place.scale(block, group), scale);
            inverse = Some(by);
        }
        for (c, &x) in row.iter().enumerate() {
            let (step, lane, n) = place.number(block, group * group_of(block) + c);
            let x = inverse.map_or(x, |inverse| x * inverse);
            set(block.codec, &mut steps_mut(block, to)[step], lane, n, x);
        }
    }
}

fn read(block: &Block, place: Place, from: &[u32], row: &mut [f32]) {
    let steps: &[Step] = from[..block.words()].as_chunks().0;
    for (group, row) in row.chunks_mut(group_of(block)).enumerate() {
        let scale = if block.groups > 0 { scale(block, from, place.scale(block, group)) } else { 1.0 };
        for (c, x) in row.iter_mut().enumerate() {
            let (step, lane, n) = place.number(block, group * group_of(block) + c);
            *x = get(block.codec, &steps[step], lane, n) * scale;
        }
    }
}

/// Channels that share a scale.
fn group_of(block: &Block) -> usize {
    if block.groups > 1 { GROUP } else { block.channels.max(1) }
}

fn steps_mut<'a>(block: &Block, to: &'a mut [u32]) -> &'a mut [Step] {
    to[..block.words()].as_chunks_mut().0
}

pub(super) fn scale(block: &Block, from: &[u32], at: usize) -> f32 {
    match block.codec {
        Codec::Int4 => f16::from_bits(bytemuck::cast_slice::<u32, u16>(&from[block.words()..])[at]).to_f32(),
        _ => f32::from_bits(from[block.words() + at]),
    }
}

fn set_scale(block: &Block, to: &mut [u32], at: usize, scale: f32) {
    match block.codec {
        Codec::Int4 => {
            bytemuck::cast_slice_mut::<u32, u16>(&mut to[block.words()..])[at] =
                f16::from_f32(scale).to_bits();
        }
        _ => to[block.words() + at] = scale.to_bits(),
    }
}

/// Number `n` of a lane.
fn get(codec: Codec, step: &Step, lane: usize, n: usize) -> f32 {
    let word = step[lane];
    match codec {
        Codec::F32 => f32::from_bits(word),
        Codec::F16 => f16::from_bits(bytemuck::cast_slice::<u32, u16>(step)[n * LANES + lane]).to_f32(),
        Codec::Bf16 => f32::from_bits(word << (16 * (1 - n)) & 0xffff_0000),
        Codec::Int8 => (word >> (8 * n) & 0xff) as f32 - BYTE_BIAS,
        Codec::Int4 => (word >> nibble(n) & 0xf) as f32 - NIBBLE_BIAS,
    }
}

/// Stores a number; those of codecs with scales are rounded.
fn set(codec: Codec, step: &mut Step, lane: usize, n: usize, x: f32) {
    let put = |word: &mut u32, shift: usize, mask: u32, bits: u32| {
        *word = *word & !(mask << shift) | (bits & mask) << shift;
    };
    match codec {
        Codec::F32 => step[lane] = x.to_bits(),
        Codec::F16 => {
            bytemuck::cast_slice_mut::<u32, u16>(step)[n * LANES + lane] = f16::from_f32(x).to_bits();
        }
        Codec::Bf16 => put(&mut step[lane], 16 * n, 0xffff, bf16::from_f32(x).to_bits().into()),
        Codec::Int8 => put(&mut step[lane], 8 * n, 0xff, rounded(x, codec, BYTE_BIAS)),
        Codec::Int4 => put(&mut step[lane], nibble(n), 0xf, rounded(x, codec, NIBBLE_BIAS)),
    }
}
