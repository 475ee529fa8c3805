//! What is made of cached keys beside their products: floats, and values where keys hold them.

use core::ops::Range;

use pulp::bytemuck;
use regard_ir::cache::{Block, Codec, PanelLines};
use regard_simd::{Lanes, TRANSPOSE, vectors_mut};

use super::load::Step;
use super::store::scale;
use super::{GROUP, LANES};
use crate::isa::Door;
use crate::pages::numbers::{BYTE_BIAS, NIBBLE_BIAS, nibble};

/// Sixteen floats, one of each token of a panel.
pub type Lane = [f32; LANES];

/// A step of a panel that there is not.
const NONE: Step = [0; LANES];

/// The steps of a panel.
struct Steps<'a> {
    /// Of its block.
    steps: &'a [Step],
    lines: PanelLines,
    depth: usize,
}

impl<'a> Steps<'a> {
    #[inline(always)]
    fn new(block: &Block, words: &'a [u32], panel: usize) -> Self {
        let steps = words[..block.words()].as_chunks().0;
        Self { steps, lines: block.lines(panel), depth: block.depth }
    }

    /// Number `step` of the panel; zeros past its last.
    #[inline(always)]
    fn get(&self, step: usize) -> &'a Step {
        if step < self.depth { &self.steps[self.lines.at(step)] } else { const { &NONE } }
    }

    /// `N` steps of the panel from number `first` on, with zeros past its last.
    #[inline(always)]
    fn some<const N: usize>(&self, first: usize) -> [&'a Step; N] {
        core::array::from_fn(|i| self.get(first + i))
    }
}

/// Widens some channels of a panel of keys: sixteen tokens of each.
///
/// # Panics
/// If the block has no such panel or channels, or `to` is shorter.
#[inline(always)]
pub fn widen_keys<L: Lanes>(
    lanes: L,
    block: &Block,
    words: &[u32],
    panel: usize,
    channels: Range<usize>,
    to: &mut [Lane],
) {
    let steps = Steps::new(block, words, panel);
    let numbers = block.codec.numbers() as usize;
    let mut scales = [0.0; LANES];
    for (i, channel) in channels.enumerate() {
        let (step, n) = (steps.get(channel / numbers), channel % numbers);
        let group = if block.groups > 1 { channel / GROUP } else { 0 };
        if block.groups > 0 && (i == 0 || block.groups > 1 && channel.is_multiple_of(GROUP)) {
            scales = self::scales(lanes, block, words, panel, group);
        }
        widen_step(lanes, block.codec, (step, n), &scales, &mut to[i]);
    }
}

/// Widens the value of a token, in pages of so many.
///
/// # Panics
/// If the block has no such token, or fewer channels than `to`.
#[inline(always)]
pub fn widen_value<L: Lanes>(
    lanes: L,
    block: &Block,
    words: &[u32],
    (tokens, token): (usize, usize),
    to: &mut [f32],
) {
    let numbers = block.codec.numbers() as usize;
    let mut scales = [0.0; LANES];
    for (sixteen, to) in to.chunks_mut(LANES).enumerate() {
        if block.groups > 0 {
            let group = if block.groups > 1 { sixteen * LANES / GROUP } else { 0 };
            scales = [scale(block, words, group * tokens + token); LANES];
        }
        let step = Steps::new(block, words, sixteen).get(token / numbers);
        let mut channels = [0.0; LANES];
        widen_step(lanes, block.codec, (step, token % numbers), &scales, &mut channels);
        to.copy_from_slice(&channels[..to.len()]);
    }
}

/// Widens sixteen channels, of panel `panel`, of the values of some tokens, in pages of so many.
///
/// # Panics
/// If the block has no such panel or tokens, or `to` is shorter.
#[inline(always)]
pub fn widen_values<L: Lanes>(
    lanes: L,
    block: &Block,
    words: &[u32],
    (tokens, panel): (usize, usize),
    range: Range<usize>,
    to: &mut [Lane],
) {
    let numbers = block.codec.numbers() as usize;
    let steps = Steps::new(block, words, panel);
    let group = if block.groups > 1 { panel * LANES / GROUP } else { 0 };
    let mut scales = [0.0; LANES];
    for (i, token) in range.enumerate() {
        if block.groups > 0 {
            scales = [scale(block, words, group * tokens + token); LANES];
        }
        widen_step(lanes, block.codec, (steps.get(token / numbers), token % numbers), &scales, &mut to[i]);
    }
}

/// Widens number `n` of each lane of a step; integers are multiplied by what their lane is scaled by.
#[inline(always)]
fn widen_step<L: Lanes>(lanes: L, codec: Codec, (step, n): (&Step, usize), scales: &Lane, to: &mut Lane) {
    match codec {
        Codec::F32 => *to = step.map(f32::from_bits),
        Codec::F16 => widen_halves(lanes, step, n, to),
        Codec::Bf16 => {
            let shift = if n == 0 { 16 } else { 0 };
            *to = step.map(|word| f32::from_bits(word << shift & 0xffff_0000));
        }
        Codec::Int8 => {
            for ((to, word), scale) in to.iter_mut().zip(step).zip(scales) {
                *to = ((word >> (8 * n) & 0xff) as f32 - BYTE_BIAS) * scale;
            }
        }
        Codec::Int4 => {
            let shift = nibble(n);
            for ((to, word), scale) in to.iter_mut().zip(step).zip(scales) {
                *to = ((word >> shift & 0xf) as f32 - NIBBLE_BIAS) * scale;
            }
        }
    }
}

/// Widens number `n` of each lane of a step of binary16.
#[inline(always)]
fn widen_halves<L: Lanes>(lanes: L, step: &Step, n: usize, to: &mut Lane) {
    let halves: &[u16] = &bytemuck::cast_slice::<u32, u16>(step)[n * LANES..][..LANES];
    for (halves, to) in halves.chunks_exact(L::WIDTH).zip(vectors_mut(lanes, to)) {
        *to = lanes.load_f16(halves);
    }
}

/// The scales of a group of channels of a panel of keys.
#[inline(always)]
fn scales<L: Lanes>(lanes: L, block: &Block, words: &[u32], panel: usize, group: usize) -> Lane {
    let at = (panel * block.groups + group) * LANES;
    let scales = &words[block.words()..];
    let mut found = [0.0; LANES];
    match block.codec {
        Codec::Int4 => {
            let halves: &[u16] = &bytemuck::cast_slice::<u32, u16>(scales)[at..][..LANES];
            for (halves, to) in halves.chunks_exact(L::WIDTH).zip(vectors_mut(lanes, &mut found)) {
                *to = lanes.load_f16(halves);
            }
        }
        _ => found.copy_from_slice(bytemuck::cast_slice(&scales[at..][..LANES])),
    }
    found
}

/// Turns channels of sixteen tokens, as [`widen_keys`] makes them, to rows that are `stride` apart.
///
/// # Panics
/// If `to` has no room for sixteen rows of whole eights of channels.
#[inline(always)]
pub fn turn_rows<L: Lanes>(lanes: L, channels: &[Lane], to: &mut [f32], stride: usize) {
    static ZEROS: Lane = [0.0; LANES];
    for (eight, channels) in channels.chunks(TRANSPOSE).enumerate() {
        for half in 0..LANES / TRANSPOSE {
            let row = |i: usize| match channels.get(i) {
                Some(channel) => &channel[half * TRANSPOSE..],
                None => &ZEROS[..TRANSPOSE],
            };
            let from = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
            let at = half * TRANSPOSE * stride + eight * TRANSPOSE;
            lanes.transpose(from, &mut to[at..], stride);
        }
    }
}

/// Eight steps, each from lane `lane` on, as floats.
#[inline(always)]
fn eight<'a>(steps: &[&'a Step; TRANSPOSE], lane: usize) -> [&'a [f32]; TRANSPOSE] {
    let row = |i: usize| -> &'a [f32] { bytemuck::cast_slice(&steps[i][lane..]) };
    [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)]
}

/// Writes the first channels of a block of keys, as many as `values` have, as the block of values that they are, in pages of so
/// many tokens. Bits of what is not finite are left as they are.
///
/// # Panics
/// If a block is shorter than it must be.
#[inline(always)]
pub fn turn_keys<D: Door>(
    lanes: D,
    (keys, values): (&Block, &Block),
    tokens: usize,
    from: &[u32],
    to: &mut [u32],
) {
    let numbers = keys.codec.numbers() as usize;
    let of_panel = LANES / numbers;
    let steps: &mut [Step] = to[..values.words()].as_chunks_mut().0;
    // What is written to lies together: pages are larger than the first cache.
    for sixteen in 0..values.panels {
        let (first, to) = (sixteen * of_panel, values.lines(sixteen));
        for panel in 0..keys.panels {
            let from = Steps::new(keys, from, panel);
            let mut turned = [NONE; LANES];
            let turned = &mut turned[..of_panel];
            match keys.codec {
                Codec::F32 => turn_words(lanes, &from.some(first), turned),
                Codec::F16 => turn_halves(lanes, &from.some(first), turned),
                Codec::Bf16 => turn_pairs(lanes, &from.some(first), turned),
                Codec::Int8 => turn_bytes(&from.some(first), turned),
                Codec::Int4 => turn_nibbles(&from.some(first), turned),
            }
            for (i, turned) in turned.iter().enumerate() {
                steps[to.at(panel * of_panel + i)] = *turned;
            }
        }
    }
    for panel in 0..tokens / LANES {
        for group in 0..values.groups {
            let from_at = (panel * keys.groups + group) * LANES;
            let to_at = group * tokens + panel * LANES;
            match keys.codec {
                Codec::Int4 => {
                    let from: &[u16] = bytemuck::cast_slice(&from[keys.words()..]);
                    let to: &mut [u16] = bytemuck::cast_slice_mut(&mut to[values.words()..]);
                    to[to_at..][..LANES].copy_from_slice(&from[from_at..][..LANES]);
                }
                _ => {
                    let from = &from[keys.words() + from_at..][..LANES];
                    to[values.words() + to_at..][..LANES].copy_from_slice(from);
                }
            }
        }
    }
}

/// Sixteen steps of a word each.
#[inline(always)]
fn turn_words<D: Door>(lanes: D, steps: &[&Step; LANES], to: &mut [Step]) {
    let to: &mut [f32] = bytemuck::cast_slice_mut(to.as_flattened_mut());
    for (i, steps) in steps.as_chunks().0.iter().enumerate() {
        for j in 0..LANES / TRANSPOSE {
            let from = eight(steps, j * TRANSPOSE);
            lanes.transpose(from, &mut to[j * TRANSPOSE * LANES + i * TRANSPOSE..], LANES);
        }
    }
}

/// Eight steps of two halves, each contiguous.
#[inline(always)]
fn turn_halves<D: Door>(lanes: D, steps: &[&Step; LANES / 2], to: &mut [Step]) {
    let mut channels = [[0.0; LANES]; LANES];
    for (c, channel) in channels.iter_mut().enumerate() {
        widen_halves(lanes, steps[c / 2], c % 2, channel);
    }
    let mut rows = [[0.0; LANES]; LANES];
    turn_rows(lanes, &channels, rows.as_flattened_mut(), LANES);
    for (rows, to) in rows.as_chunks::<2>().0.iter().zip(to) {
        let halves: &mut [u16] = bytemuck::cast_slice_mut(to);
        for (row, halves) in rows.iter().zip(halves.chunks_exact_mut(LANES)) {
            for (row, halves) in
                regard_simd::vectors(lanes, row).iter().zip(halves.chunks_exact_mut(D::WIDTH))
            {
                lanes.store_f16(*row, halves);
            }
        }
    }
}

/// Eight steps of two bf16 a word.
#[inline(always)]
fn turn_pairs<D: Door>(lanes: D, steps: &[&Step; LANES / 2], to: &mut [Step]) {
    // Words of two channels, a row for each token.
    let mut rows = [[0u32; TRANSPOSE]; LANES];
    let words: &mut [f32] = bytemuck::cast_slice_mut(rows.as_flattened_mut());
    for half in 0..LANES / TRANSPOSE {
        let from = eight(steps, half * TRANSPOSE);
        lanes.transpose(from, &mut words[half * TRANSPOSE * TRANSPOSE..], TRANSPOSE);
    }
    for (pair, to) in to.iter_mut().enumerate() {
        let [first, second] = [rows[2 * pair], rows[2 * pair + 1]].map(bytemuck::cast::<_, [u16; LANES]>);
        let mut channels = [[0u16; 2]; LANES];
        for (c, to) in channels.iter_mut().enumerate() {
            *to = [first[c], second[c]];
        }
        *to = bytemuck::cast(channels);
    }
}

/// Four steps of four bytes a word.
#[inline(always)]
fn turn_bytes(steps: &[&Step; LANES / 4], to: &mut [Step]) {
    let mut channels = [[0u8; LANES]; LANES];
    for (channel, bytes) in channels.iter_mut().enumerate() {
        *bytes = steps[channel / 4].map(|word| (word >> (8 * (channel % 4))) as u8);
    }
    for (four, to) in to.iter_mut().enumerate() {
        for (to, bytes) in to.iter_mut().zip(&channels) {
            *to = u32::from_le_bytes(bytes.as_chunks().0[four]);
        }
    }
}

/// Two steps of eight half bytes a word.
#[inline(always)]
fn turn_nibbles(steps: &[&Step; LANES / 8], to: &mut [Step]) {
    let mut channels = [[0u8; LANES]; LANES];
    for (channel, bytes) in channels.iter_mut().enumerate() {
        let shift = nibble(channel % 8);
        *bytes = steps[channel / 8].map(|word| (word >> shift & 0xf) as u8);
    }
    for (eight, to) in to.iter_mut().enumerate() {
        for (to, bytes) in to.iter_mut().zip(&channels) {
            let fours = bytes.as_chunks().0;
            let [lower, upper] = [fours[2 * eight], fours[2 * eight + 1]];
            *to = u32::from_le_bytes(lower) | u32::from_le_bytes(upper) << 4;
        }
    }
}
