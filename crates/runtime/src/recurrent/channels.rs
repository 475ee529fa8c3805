//! Decays of channels: factors of the rows of queries and keys, in blocks of rows.
//!
//! A product of query i and key j is Σ_c q_i[c] k_j[c] exp(G_i[c] − G_j[c]). It is not a product of two matrices whose rows are decayed
//! from the chunk's first row on: the keys' factors would be exponentials of positive numbers. Between two blocks the decays up to
//! the queries' block are the keys' factors and the others the queries'; inside a block each pair has its own. All are sums of
//! decays over the rows that lie between, never differences.
//!
//! Source: Yang et al., *Gated Linear Attention Transformers*, arXiv 2312.06635, section 4: two levels of blocks.

use regard_engine::Engine;
use regard_engine::isa::Door;
use regard_engine::product::{Before, Matrix, Sizes};
use regard_simd::{F32, exp, load_f32, vectors, vectors_mut};

use super::chunk::{FORGETS, Rule};
use super::kept;
use super::memory::{BLOCK, Layout, Memory};
use super::rows::{decay, decay_more, scale};

/// Sums up log decays, whose rows `read` writes, over the rows of each block.
#[inline(always)]
pub(super) fn sums<L: Door>(
    lanes: L,
    layout: &Layout,
    memory: &mut Memory<'_>,
    rows: usize,
    read: impl Fn(usize, &mut [f32]),
) {
    let dims = layout.dims;
    let Memory { channel_logs, sums: [up_to, after, whole], .. } = memory;
    let least = F32::splat(lanes, FORGETS as f32);
    for (row, to) in channel_logs.chunks_exact_mut(dims).take(rows).enumerate() {
        read(row, to);
        for log in vectors_mut(lanes, to) {
            *log = F32::from_raw(lanes, *log).max(least).raw();
        }
    }
    let block = BLOCK * dims;
    for first in (0..rows).step_by(BLOCK) {
        let logs = &channel_logs[first * dims..][..block];
        let (up_to, after) = (&mut up_to[first * dims..][..block], &mut after[first * dims..][..block]);
        let whole = &mut whole[first / BLOCK * dims..][..dims];
        for channel in (0..dims).step_by(L::WIDTH) {
            let mut sum = F32::splat(lanes, 0.0);
            for at in (channel..block).step_by(dims) {
                sum = sum + load_f32(lanes, &logs[at..]);
                vectors_mut(lanes, &mut up_to[at..at + L::WIDTH])[0] = sum.raw();
            }
            vectors_mut(lanes, &mut whole[channel..channel + L::WIDTH])[0] = sum.raw();
            // From the last row back: what each is decayed by after its own.
            let mut sum = F32::splat(lanes, 0.0);
            for at in (channel..block).step_by(dims).rev() {
                vectors_mut(lanes, &mut after[at..at + L::WIDTH])[0] = sum.raw();
                sum = sum + load_f32(lanes, &logs[at..]);
            }
        }
    }
}

/// Makes weights of all queries and keys of a chunk up to each query, and what is erased.
#[inline(always)]
pub(super) fn pairs<E: Engine>(engine: E, layout: &Layout, memory: &mut Memory<'_>, rows: usize, rule: Rule) {
    let Layout { chunk, dims, .. } = *layout;
    let lanes = engine.lanes();
    for first in (0..rows).step_by(BLOCK) {
        let Memory {
            q, k, weights, erased, decayed, sums, keep: [between, _], right: [pairs, ..], left, ..
        } = &mut *memory;
        let [queries, keys, erasing] = decayed;
        let [up_to, after, whole] = sums;
        if first > 0 {
            let here = first * dims..(first + BLOCK) * dims;
            decay_all(lanes, dims, (&q[here.clone()], &up_to[here.clone()]), &mut queries[..BLOCK * dims]);
            if rule.delta {
                decay_all(lanes, dims, (&k[here.clone()], &up_to[here]), &mut erasing[..BLOCK * dims]);
            }
            // Decays of the blocks between, from the nearest back.
            between.fill(0.0);
            for block in (0..first / BLOCK).rev() {
                for row in block * BLOCK..(block + 1) * BLOCK {
                    let at = row * dims..(row + 1) * dims;
                    decay_more(lanes, &k[at.clone()], [&after[at.clone()], between], &mut keys[at]);
                }
                add_to(lanes, between, &whole[block * dims..][..dims]);
            }
            let sizes = Sizes { rows: BLOCK, depth: dims, columns: first };
            let keys = Matrix::turned(keys, dims).precise(rule.delta);
            let keys = engine.right(keys, [dims, first], pairs);
            let mut of = |rows: &[f32], to: &mut [f32], precise: bool| {
                let to = (&mut to[first * chunk..], chunk);
                let keys = if precise { keys } else { keys.rounded() };
                let operands = (Matrix::rows(rows, dims).precise(precise), keys);
                engine.multiply(sizes, operands, to, Before::Replaced, left);
            };
            of(queries, weights, false);
            if rule.delta {
                of(erasing, erased, true);
            }
        }
        diagonal(lanes, layout, memory, first, rule.delta);
        let Memory { weights, erased, factors: [.., betas], .. } = &mut *memory;
        for row in first..first + BLOCK {
            let columns = first + BLOCK;
            scale(lanes, &mut weights[row * chunk..][..columns], rule.scale);
            if rule.delta {
                scale(lanes, &mut erased[row * chunk..][..columns], -betas[row]);
            }
        }
    }
}

/// Rows decayed, each by logs of its own.
#[inline(always)]
fn decay_all<L: Door>(lanes: L, dims: usize, (from, logs): (&[f32], &[f32]), to: &mut [f32]) {
    let rows = from.chunks_exact(dims).zip(logs.chunks_exact(dims)).zip(to.chunks_exact_mut(dims));
    for ((from, logs), to) in rows {
        decay(lanes, from, logs, to);
    }
}

#[inline(always)]
fn add_to<L: Door>(lanes: L, to: &mut [f32], from: &[f32]) {
    for (to, &from) in vectors_mut(lanes, to).iter_mut().zip(vectors(lanes, from)) {
        *to = (F32::from_raw(lanes, *to) + F32::from_raw(lanes, from)).raw();
    }
}

/// Pairs inside a block: each with its own decays, summed up from its key's row on.
#[inline(always)]
fn diagonal<L: Door>(lanes: L, layout: &Layout, memory: &mut Memory<'_>, first: usize, delta: bool) {
    let Layout { chunk, dims, .. } = *layout;
    let Memory { q, k, weights, erased, channel_logs, .. } = memory;
    for column in 0..BLOCK {
        let key = &k[(first + column) * dims..][..dims];
        for row in 0..BLOCK {
            let at = (first + row) * chunk + first + column;
            if row < column {
                weights[at] = 0.0;
            }
            if delta && row <= column {
                erased[at] = 0.0;
            }
        }
        let zero = F32::splat(lanes, 0.0);
        let mut sums = [[zero; BLOCK]; 2];
        for channel in (0..dims).step_by(L::WIDTH) {
            let at = |row: usize| (first + row) * dims + channel;
            let key = load_f32(lanes, &key[channel..]);
            let mut decay = zero;
            for row in column..BLOCK {
                let mut factor = key;
                if row > column {
                    decay = decay + load_f32(lanes, &channel_logs[at(row)..]);
                    factor = key * exp(decay);
                }
                sums[0][row] = load_f32(lanes, &q[at(row)..]).mul_add(factor, sums[0][row]);
                if delta && row > column {
                    sums[1][row] = load_f32(lanes, &k[at(row)..]).mul_add(factor, sums[1][row]);
                }
            }
        }
        for (row, (weight, erasing)) in sums[0].iter().zip(&sums[1]).enumerate().skip(column) {
            let at = (first + row) * chunk + first + column;
            weights[at] = weight.sum();
            if delta && row > column {
                erased[at] = erasing.sum();
            }
        }
    }
}

/// Leaves rows as they read the state: queries and erasing keys, decayed from the chunk's first row on.
#[inline(always)]
pub(super) fn reading<L: Door>(lanes: L, layout: &Layout, memory: &mut Memory<'_>, rows: usize, delta: bool) {
    let dims = layout.dims;
    let Memory { q, k, decayed: [queries, _, erasing], sums: [up_to, _, whole], keep: [before, _], .. } =
        memory;
    before.fill(0.0);
    for first in (0..rows).step_by(BLOCK) {
        for row in first..first + BLOCK {
            let at = row * dims..(row + 1) * dims;
            decay_more(lanes, &q[at.clone()], [&up_to[at.clone()], before], &mut queries[at.clone()]);
            if delta {
                decay_more(lanes, &k[at.clone()], [&up_to[at.clone()], before], &mut erasing[at]);
            }
        }
        add_to(lanes, before, &whole[first / BLOCK * dims..][..dims]);
    }
}

/// Leaves keys as they are written to the state, decayed to the chunk's last row, and what is left of the state's rows.
#[inline(always)]
pub(super) fn writing<L: Door>(lanes: L, layout: &Layout, memory: &mut Memory<'_>, rows: usize) {
    let dims = layout.dims;
    let Memory { k, decayed: [_, keys, _], sums: [_, after, whole], keep, .. } = memory;
    let later = &mut *keep[0];
    later.fill(0.0);
    for first in (0..rows).step_by(BLOCK).rev() {
        for row in first..first + BLOCK {
            let at = row * dims..(row + 1) * dims;
            decay_more(lanes, &k[at.clone()], [&after[at.clone()], later], &mut keys[at]);
        }
        add_to(lanes, later, &whole[first / BLOCK * dims..][..dims]);
    }
    kept::of_rows(lanes, keep);
}
