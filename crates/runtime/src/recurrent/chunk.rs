//! One chunk of tokens: what its queries read of each other's tokens, of the state, and what its tokens write to the state.
//!
//! With G the sums of log decays from the chunk's first row on, rows i and j, and S the state that enters the chunk:
//!
//! * weights P = (Q Kᵀ) ∘ exp(G_i − G_j) where j ≤ i, else 0;
//! * of a delta rule, A = β (K Kᵀ) ∘ exp(G_i − G_j) where j < i, and V − exp(G) K S in the place of V: what is written, W, solves
//!   (I + A) W = β V. Of an addition W is V;
//! * O = exp(G) Q S + P W, and S becomes exp(G_last) S + (exp(G_last − G) K)ᵀ W.
//!
//! What becomes of the state is asked for with the digits of floats, whatever an engine rounds its operands to: its bound is narrower
//! than that of outputs, and it is handed on.
//!
//! Decays of channels are factors of the rows of Q and K; see [`super::channels`]. Nothing is the exponential of a positive number.
//!
//! Sources: Dao and Gu, *Transformers are SSMs*, arXiv 2405.21060; Yang et al., *Parallelizing Linear Transformers with the Delta
//! Rule*, arXiv 2406.06484; *Gated Delta Networks*, arXiv 2412.06464.

use regard_engine::Engine;
use regard_engine::isa::Door;
use regard_engine::product::{self, Before, Matrix, Right, Sizes};
use regard_simd::{F32, Simd, exp, vectors, vectors_mut};

use super::cell;
use super::kept;
use super::memory::{BLOCK, Layout, Memory};
use super::rows::{add, add_rows, dot, scale, sum};

/// The smallest log of a decay that is told from others: its exponential is 0.
pub(super) const FORGETS: f64 = -1000.0;

/// What a head's decays are in one chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Decays {
    /// None.
    None,
    /// One of each token, as [`scalar`] left them.
    Tokens,
    /// One of each token and channel, as [`super::channels::pairs`] and [`super::channels::rows`] left them.
    Channels,
}

/// How rows of a chunk are written and read.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pub delta: bool,
    /// Whether keys that are written are as they were given: bf16 holds them, where they are.
    pub has_given_keys: bool,
    /// What is added to the divisor of outputs, where they are divided.
    pub normalize_eps: Option<f32>,
    /// What products of queries are multiplied by.
    pub scale: f32,
}

/// Products of all queries and keys of a chunk up to each query, and of its keys with each other where they are erased. `ask` is called
/// from time to time.
#[inline(always)]
pub(super) fn products<E: Engine>(
    engine: E,
    layout: &Layout,
    memory: &mut Memory<'_>,
    (rows, delta): (usize, bool),
    ask: &mut impl FnMut(),
) {
    let Layout { chunk, dims, .. } = *layout;
    let [pairs, ..] = &mut memory.right;
    let keys = engine.right(Matrix::turned(memory.k, dims).precise(delta), [dims, rows], pairs);
    for first in (0..rows).step_by(BLOCK) {
        ask();
        let sizes = Sizes { rows: BLOCK, depth: dims, columns: first + BLOCK };
        let mut of = |rows: &[f32], to: &mut [f32], precise: bool| {
            let left = Matrix::rows(&rows[first * dims..], dims).precise(precise);
            let to = (&mut to[first * chunk..], chunk);
            let keys = if precise { keys } else { keys.rounded() };
            engine.multiply(sizes, (left, keys), to, Before::Replaced, memory.left);
        };
        of(memory.q, memory.scores, false);
        if delta {
            of(memory.k, memory.overlaps, true);
        }
    }
}

/// Sums up log decays of tokens, and makes factors of them: of what a query reads of the state, and of what is left of a write
/// after the last row.
#[inline(always)]
pub(super) fn scalar<L: Door>(lanes: L, memory: &mut Memory<'_>, rows: usize, logs: impl Fn(usize) -> f32) {
    let mut sum = 0.0;
    for (row, to) in memory.logs[..rows].iter_mut().enumerate() {
        let log = f64::from(logs(row));
        sum += if log < FORGETS { FORGETS } else { log };
        *to = sum;
    }
    let [read, rest, _] = &mut memory.factors;
    for ((&log, read), rest) in memory.logs[..rows].iter().zip(&mut **read).zip(&mut **rest) {
        (*read, *rest) = (log as f32, (sum - log) as f32);
    }
    exps(lanes, &mut read[..rows]);
    exps(lanes, &mut rest[..rows]);
    kept::of_all(lanes, sum as f32, &mut memory.keep);
}

/// Makes weights of products, and what is erased: decayed where there are decays, and zero where a key is later than its query.
/// `betas` are of the chunk's rows; those past the last token are zero.
#[inline(always)]
pub(super) fn weigh<L: Door>(
    lanes: L,
    layout: &Layout,
    memory: &mut Memory<'_>,
    rows: usize,
    (decays, rule): (Decays, Rule),
) {
    let Layout { chunk, .. } = *layout;
    let [.., betas] = &memory.factors;
    for row in 0..rows {
        let columns = (row / BLOCK + 1) * BLOCK;
        let at = row * chunk..row * chunk + columns;
        // What a product is multiplied by, where no output is yet.
        let factors = &mut memory.o[..columns];
        if decays == Decays::Tokens {
            let own = memory.logs[row];
            for (to, log) in factors.iter_mut().zip(&memory.logs[..=row]) {
                *to = (own - log) as f32;
            }
            factors[row + 1..].fill(0.0);
            exps(lanes, factors);
        }
        if rule.delta {
            let erased = &mut memory.erased[at.clone()];
            weigh_row(lanes, (decays, factors), &memory.overlaps[at.clone()], -betas[row], erased);
            erased[row..].fill(0.0);
        }
        let weights = &mut memory.weights[at.clone()];
        weigh_row(lanes, (decays, factors), &memory.scores[at], rule.scale, weights);
        weights[row + 1..].fill(0.0);
    }
}

/// `to = product · factor`, and where tokens decay times the factors of their pairs.
#[inline(always)]
fn weigh_row<L: Door>(
    lanes: L,
    (decays, factors): (Decays, &[f32]),
    products: &[f32],
    factor: f32,
    to: &mut [f32],
) {
    let factor = F32::splat(lanes, factor);
    let pairs = vectors(lanes, factors).iter().zip(vectors(lanes, products));
    for (to, (&own, &product)) in vectors_mut(lanes, to).iter_mut().zip(pairs) {
        let scaled = F32::from_raw(lanes, product) * factor;
        *to = match decays {
            Decays::Tokens => (F32::from_raw(lanes, own) * scaled).raw(),
            _ => scaled.raw(),
        };
    }
}

/// Makes factors of logs.
#[inline(always)]
fn exps<L: Door>(lanes: L, logs: &mut [f32]) {
    for x in vectors_mut(lanes, logs) {
        *x = exp(F32::from_raw(lanes, *x)).raw();
    }
}

/// What a head does with a chunk: outputs are left in `memory.o`, and the state is that after the last row. `ask` is called from time to
/// time.
#[inline(always)]
pub(super) fn step<E: Engine>(
    engine: E,
    layout: &Layout,
    memory: &mut Memory<'_>,
    (rows, head, width): (usize, usize, usize),
    (decays, rule): (Decays, Rule),
    ask: &mut impl FnMut(),
) {
    let Layout { chunk, dims, width: stride, .. } = *layout;
    let lanes = engine.lanes();
    if layout.adds {
        cell::enter(lanes, layout, memory, head);
    }
    let Memory {
        q,
        k,
        weights,
        erased,
        values,
        o,
        decayed,
        factors,
        states,
        entering,
        right,
        left: room,
        ..
    } = &mut *memory;
    let ([_, state_room, values_room], [entering, norm]) = (right, entering);
    let state = if layout.adds { &**entering } else { &states[head * dims * stride..][..dims * stride] };
    let values = &mut values[head * chunk * stride..][..chunk * stride];
    let [read_queries, _, erasing_keys] = decayed;
    let [read, _, betas] = factors;
    let by_channel = decays == Decays::Channels;
    let queries = if by_channel { &**read_queries } else { &**q };
    let all = Sizes { rows, depth: dims, columns: width };
    let state = engine.right(Matrix::rows(state, stride).precise(rule.delta), [dims, width], state_room);
    if rule.delta {
        let erasing = if by_channel { &**erasing_keys } else { &**k };
        let operands = (Matrix::rows(erasing, dims).precise(true), state);
        engine.multiply(all, operands, (o, stride), Before::Replaced, room);
        for row in 0..rows {
            let (value, recalled) = (&mut values[row * stride..][..width], &o[row * stride..][..width]);
            let decay = if decays == Decays::Tokens { -read[row] } else { -1.0 };
            add(lanes, recalled, decay, value);
            scale(lanes, value, betas[row]);
        }
        solve(lanes, (erased, chunk), (values, stride), [rows, width]);
    }
    ask();
    let operands = (Matrix::rows(queries, dims), state.rounded());
    engine.multiply(all, operands, (o, stride), Before::Replaced, room);
    // What a row of the state's product is multiplied by.
    if decays == Decays::Tokens {
        read[..rows].iter_mut().for_each(|factor| *factor *= rule.scale);
    } else {
        read[..rows].fill(rule.scale);
    }
    let written = engine.right(Matrix::rows(values, stride), [rows, width], values_room);
    for first in (0..rows).step_by(BLOCK) {
        ask();
        let sizes = Sizes { rows: BLOCK, depth: first + BLOCK, columns: width };
        let left = Matrix::rows(&weights[first * chunk..], chunk);
        let to = (&mut o[first * stride..], stride);
        engine.multiply(sizes, (left, written), to, Before::Times(&read[first..]), room);
    }
    if let Some(eps) = rule.normalize_eps {
        for row in 0..rows {
            let own = dot(lanes, &queries[row * dims..][..dims], norm) * read[row];
            let columns = (row / BLOCK + 1) * BLOCK;
            let divisor = own + sum(lanes, &weights[row * chunk..][..columns]) + eps;
            scale(lanes, &mut o[row * stride..][..width], 1.0 / divisor);
        }
    }
    ask();
    leave(engine, layout, memory, (rows, head, width), (decays, rule));
}

/// Leaves what a chunk writes to the state of a head of the part, and to its sum of features.
#[inline(always)]
pub(super) fn leave<E: Engine>(
    engine: E,
    layout: &Layout,
    memory: &mut Memory<'_>,
    (rows, head, width): (usize, usize, usize),
    (decays, rule): (Decays, Rule),
) {
    let Layout { chunk, width: stride, .. } = *layout;
    let lanes = engine.lanes();
    if rule.normalize_eps.is_some() {
        sum_features(lanes, layout, memory, (rows, head), decays);
    }
    let Memory { values, factors: [_, rest, _], .. } = &mut *memory;
    let values = &mut values[head * chunk * stride..][..chunk * stride];
    if decays == Decays::Tokens {
        for row in 0..rows {
            scale(lanes, &mut values[row * stride..][..width], rest[row]);
        }
    }
    write(engine, layout, memory, (rows, head, width), (decays, rule));
    if layout.adds && decays != Decays::None {
        cell::keep(lanes, layout, memory, head);
    }
}

/// Adds features of a chunk's keys to the sum of their cell, of a head of the part, which decays before.
#[inline(always)]
fn sum_features<L: Door>(
    lanes: L,
    layout: &Layout,
    memory: &mut Memory<'_>,
    (rows, head): (usize, usize),
    decays: Decays,
) {
    let dims = layout.dims;
    let Memory { k, decayed: [_, written, _], factors: [_, rest, _], keep, added: [_, norms], .. } = memory;
    let keys = if decays == Decays::Channels { &**written } else { &**k };
    let rest = if decays == Decays::Tokens { Some(&**rest) } else { None };
    let keep = if decays == Decays::None { None } else { Some([&*keep[0], &*keep[1]]) };
    add_rows(lanes, &keys[..rows * dims], rest, keep, &mut norms[head * dims..][..dims]);
}

/// Adds what a chunk writes to the state of a head of the part, or to what its cell has added, which decays before.
#[inline(always)]
fn write<E: Engine>(
    engine: E,
    layout: &Layout,
    memory: &mut Memory<'_>,
    (rows, head, width): (usize, usize, usize),
    (decays, rule): (Decays, Rule),
) {
    let Layout { dims, chunk, width: stride, adds, .. } = *layout;
    let Memory { k, decayed, values, keep, states, added: [added, _], right, left: room, .. } = memory;
    let ([_, written, _], [.., values_room]) = (decayed, right);
    let keys = if decays == Decays::Channels { &**written } else { &**k };
    let values = &values[head * chunk * stride..][..chunk * stride];
    let to = if adds { added } else { states };
    let to = &mut to[head * dims * stride..][..dims * stride];
    let sizes = Sizes { rows: dims, depth: rows, columns: width };
    // Given values are bf16 already, where they are.
    let values = Matrix::rows(values, stride).precise(rule.delta || decays == Decays::Tokens);
    let values = engine.right(values, [rows, width], values_room);
    let keys = Matrix::turned(keys, dims).precise(!rule.has_given_keys || decays == Decays::Channels);
    let before = if decays == Decays::None { Before::Kept } else { Before::TimesBoth([keep[0], keep[1]]) };
    engine.multiply(sizes, (keys, values), (to, stride), before, room);
}

/// Solves (I + A) W = V row by row for the rows of W, in the place of V; `erased` is −A.
#[inline(always)]
fn solve<L: Door>(
    lanes: L,
    (erased, chunk): (&[f32], usize),
    (values, stride): (&mut [f32], usize),
    [rows, width]: [usize; 2],
) {
    for first in (0..rows).step_by(BLOCK) {
        let (solved, rest) = values.split_at_mut(first * stride);
        if first > 0 {
            let sizes = Sizes { rows: BLOCK, depth: first, columns: width };
            let left = Matrix::rows(&erased[first * chunk..], chunk);
            product::multiply(lanes, sizes, left, Right::rows(solved, stride), (rest, stride), Before::Kept);
        }
        let own = &erased[first * chunk + first..];
        let mut column = 0;
        while column < width {
            let values = &mut rest[column..];
            column += L::WIDTH
                * match (width - column) / L::WIDTH {
                    4.. if L::TILE >= 8 => diagonal::<L, 4>(lanes, (own, chunk), (values, stride)),
                    2.. => diagonal::<L, 2>(lanes, (own, chunk), (values, stride)),
                    _ => diagonal::<L, 1>(lanes, (own, chunk), (values, stride)),
                };
        }
    }
}

/// Solves a block on the diagonal for `V` vectors of its rows, and says how many they are.
#[inline(always)]
fn diagonal<L: Door, const V: usize>(
    lanes: L,
    (erased, chunk): (&[f32], usize),
    (values, stride): (&mut [f32], usize),
) -> usize {
    lanes.call(Diagonal::<L, V> { lanes, erased, chunk, values, stride });
    V
}

/// Rows of a block that are solved together, in registers.
const TOGETHER: usize = 4;

/// A block on the diagonal, of `V` vectors of each row: a function of its own, so that its sums keep every register.
struct Diagonal<'a, L, const V: usize> {
    lanes: L,
    erased: &'a [f32],
    chunk: usize,
    values: &'a mut [f32],
    stride: usize,
}

impl<L: Door, const V: usize> regard_engine::Op for Diagonal<'_, L, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, erased, chunk, values, stride } = self;
        let simd = lanes.simd();
        let width = V * L::WIDTH;
        for first in (0..BLOCK).step_by(TOGETHER) {
            let (solved, rest) = values.split_at_mut(first * stride);
            let mut of_rows = [erased; TOGETHER];
            for (i, row) in of_rows.iter_mut().enumerate() {
                *row = &erased[(first + i) * chunk..][..first + TOGETHER];
            }
            let erased = of_rows;
            let mut sums = [[simd.splat_f32s(0.0); V]; TOGETHER];
            for (sums, row) in sums.iter_mut().zip(rest.chunks(stride)) {
                sums.copy_from_slice(vectors(lanes, &row[..width]));
            }
            for (at, row) in solved.chunks(stride).enumerate() {
                let row = vectors(lanes, &row[..width]);
                for (sums, erased) in sums.iter_mut().zip(&erased) {
                    let factor = simd.splat_f32s(erased[at]);
                    for (sum, &solved) in sums.iter_mut().zip(row) {
                        *sum = simd.mul_add_e_f32s(factor, solved, *sum);
                    }
                }
            }
            for i in 0..TOGETHER {
                let own = sums[i];
                for j in i + 1..TOGETHER {
                    let factor = simd.splat_f32s(erased[j][first + i]);
                    for (sum, &solved) in sums[j].iter_mut().zip(&own) {
                        *sum = simd.mul_add_e_f32s(factor, solved, *sum);
                    }
                }
            }
            for (sums, row) in sums.iter().zip(rest.chunks_mut(stride)) {
                vectors_mut(lanes, &mut row[..width]).copy_from_slice(sums);
            }
        }
    }
}
