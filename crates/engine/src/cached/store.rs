//! Writing rows of keys and values to a page, and reading them back.

use pulp::bytemuck;
use regard_ir::cache::{Block, Codec};

use super::{GROUP, LANES};
use super::load::{Bytes, Floats, Halves, Nibbles, Pairs, Step, Stored, largest};
use super::with_codec;

/// Writes the key of token `token` of a page to its block of keys.
pub fn write_key(block: &Block, tokens: usize, token: usize, row: &[f32], to: &mut [u32]) {
    let (numbers, scales) = to.split_at_mut(block.words);
    let scale_at = |group: usize| (token / LANES * block.groups + group) * LANES + token % LANES;
    let scales = &mut bytemuck::cast_slice_mut(scales)[..block.groups * tokens];
    with_codec!(block.codec, write_key_of[](block, token, row, (scales, &scale_at), numbers));
}

/// Writes the value of token `token` of a page to its block of values.
pub fn write_value(block: &Block, tokens: usize, token: usize, row: &[f32], to: &mut [u32]) {
    let (numbers, rest) = to.split_at_mut(block.words);
    let (scales, odd) = rest.split_at_mut(block.groups * tokens);
    let bit = 1 << (token % u32::BITS as usize);
    let word = &mut odd[token / u32::BITS as usize];
    *word = if row.iter().all(|x| x.is_finite()) { *word & !bit } else { *word | bit };
    let scale_at = |group: usize| group * tokens + token;
    let scales = bytemuck::cast_slice_mut(scales);
    with_codec!(block.codec, write_value_of[](tokens, token, row, (scales, &scale_at), numbers));
}

/// Reads the key of token `token` of a page.
pub fn read_key(block: &Block, token: usize, from: &[u32], row: &mut [f32]) {
    let (numbers, scales) = from.split_at(block.words);
    let scale_at = |group: usize| (token / LANES * block.groups + group) * LANES + token % LANES;
    with_codec!(block.codec, read_key_of[](block, token, row, numbers));
    unscale(block.codec, bytemuck::cast_slice(scales), scale_at, row);
}

/// Reads the value of token `token` of a page.
pub fn read_value(block: &Block, tokens: usize, token: usize, from: &[u32], row: &mut [f32]) {
    let (numbers, scales) = from.split_at(block.words);
    with_codec!(block.codec, read_value_of[](tokens, token, row, numbers));
    unscale(block.codec, bytemuck::cast_slice(scales), |group| group * tokens + token, row);
}

/// Whether the values of a token are not all finite.
pub fn is_odd(block: &Block, tokens: usize, token: usize, from: &[u32]) -> bool {
    let odd = &from[block.words + block.groups * tokens..];
    odd[token / u32::BITS as usize] >> (token % u32::BITS as usize) & 1 != 0
}

/// Copies a block of values with zeros in place of what is not finite. `None` where all is, and nothing is copied.
pub fn sanitise<'a>(block: &Block, tokens: usize, from: &[u32], to: &'a mut [u32]) -> Option<&'a [u32]> {
    let odd = &from[block.words + block.groups * tokens..][..tokens.div_ceil(u32::BITS as usize)];
    if odd.iter().all(|&word| word == 0) {
        return None;
    }
    to.copy_from_slice(from);
    let (numbers, scales) = to.split_at_mut(block.words);
    for token in (0..tokens).filter(|&token| is_odd(block, tokens, token, from)) {
        with_codec!(block.codec, mend[](block, tokens, token, numbers));
        for group in 0..block.groups {
            let scale = &mut scales[group * tokens + token];
            if !f32::from_bits(*scale).is_finite() {
                *scale = 0;
            }
        }
    }
    Some(to)
}

/// Puts zeros in place of the numbers of a token that are not finite.
fn mend<S: Stored<N>, const N: usize>(block: &Block, tokens: usize, token: usize, numbers: &mut [u32]) {
    let steps = bytemuck::cast_slice_mut::<u32, Step>(numbers);
    for channel in 0..block.channels {
        let step = &mut steps[channel / LANES * (tokens / N) + token / N];
        if !S::get(step, channel % LANES, token % N).is_finite() {
            S::set(step, channel % LANES, token % N, 0.0);
        }
    }
}

/// Channels that share a scale.
const fn group_of(codec: Codec) -> usize {
    match codec {
        Codec::Int4 => GROUP,
        _ => usize::MAX,
    }
}

/// The largest number that a codec stores before its scale; `None` where it has none.
const fn largest_of(codec: Codec) -> Option<f32> {
    match codec {
        Codec::F32 | Codec::F16 | Codec::Bf16 => None,
        Codec::Int8 => Some(largest::<8>()),
        Codec::Int4 => Some(largest::<4>()),
    }
}

/// A place for each scale of a row.
type ScalesMut<'a, 'f> = (&'a mut [f32], &'f dyn Fn(usize) -> usize);

/// Finds the scale of a group, stores it, and gives what its numbers are multiplied by.
fn scaled<const N: usize>(group: &[f32], at: usize, (scales, scale_at): &mut ScalesMut<'_, '_>) -> f32 {
    let Some(most) = (match N {
        4 => largest_of(Codec::Int8),
        8 => largest_of(Codec::Int4),
        _ => None,
    }) else {
        return 1.0;
    };
    // Not `f32::max`, which would lose a NaN.
    let peak = group.iter().fold(0.0f32, |peak, x| if x.abs() <= peak { peak } else { x.abs() });
    let mut scale = peak / most;
    if N == 8 {
        // Kept as f16 would keep it: half the bytes would hold it.
        scale = half::f16::from_f32(scale).to_f32();
    }
    scales[scale_at(at)] = scale;
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}

fn write_key_of<S: Stored<N>, const N: usize>(
    block: &Block,
    token: usize,
    row: &[f32],
    mut scales: ScalesMut<'_, '_>,
    numbers: &mut [u32],
) {
    let depth = block.channels.div_ceil(N);
    let panel = &mut bytemuck::cast_slice_mut::<u32, Step>(numbers)[token / LANES * depth..][..depth];
    let group = group_of(block.codec).min(row.len().max(1));
    for (g, row) in row.chunks(group).enumerate() {
        let inverse = scaled::<N>(row, g, &mut scales);
        for (c, x) in row.iter().enumerate() {
            let c = g * group + c;
            S::set(&mut panel[c / N], token % LANES, c % N, x * inverse);
        }
    }
}

fn write_value_of<S: Stored<N>, const N: usize>(
    tokens: usize,
    token: usize,
    row: &[f32],
    mut scales: ScalesMut<'_, '_>,
    numbers: &mut [u32],
) {
    let depth = tokens / N;
    let steps = bytemuck::cast_slice_mut::<u32, Step>(numbers);
    let group = if N == 8 { GROUP } else { row.len().max(1) };
    for (g, row) in row.chunks(group).enumerate() {
        let inverse = scaled::<N>(row, g, &mut scales);
        for (c, x) in row.iter().enumerate() {
            let c = g * group + c;
            S::set(&mut steps[c / LANES * depth + token / N], c % LANES, token % N, x * inverse);
        }
    }
}

fn read_key_of<S: Stored<N>, const N: usize>(block: &Block, token: usize, row: &mut [f32], numbers: &[u32]) {
    let depth = block.channels.div_ceil(N);
    let panel = &bytemuck::cast_slice::<u32, Step>(numbers)[token / LANES * depth..][..depth];
    for (c, x) in row.iter_mut().enumerate() {
        *x = S::get(&panel[c / N], token % LANES, c % N);
    }
}

fn read_value_of<S: Stored<N>, const N: usize>(
    tokens: usize,
    token: usize,
    row: &mut [f32],
    numbers: &[u32],
) {
    let depth = tokens / N;
    let steps = bytemuck::cast_slice::<u32, Step>(numbers);
    for (c, x) in row.iter_mut().enumerate() {
        *x = S::get(&steps[c / LANES * depth + token / N], c % LANES, token % N);
    }
}

fn unscale(codec: Codec, scales: &[f32], scale_at: impl Fn(usize) -> usize, row: &mut [f32]) {
    if largest_of(codec).is_none() {
        return;
    }
    let group = group_of(codec).min(row.len().max(1));
    for (g, row) in row.chunks_mut(group).enumerate() {
        row.iter_mut().for_each(|x| *x *= scales[scale_at(g)]);
    }
}
