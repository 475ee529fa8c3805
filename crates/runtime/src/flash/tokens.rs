//! What rows of q and k need to know of their tokens before they are packed: rotary angles, and norms over all heads.
//!
//! One table holds a row for each key and each query, filled once a call by all workers: rows are packed for many
//! passes, and an angle's sine costs more than a turn.

use pulp::bytemuck;
use regard_engine::element::Element;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::problem::Problem;
use regard_ir::rows::{Frequencies, NormKind, Position, QkNorm};
use regard_ir::variant::{Source, Variant};

use super::Inputs;
use crate::code::Fault;

/// Rows that a worker fills at a time, and the most turns that are made of a start without a sine of its own: each
/// adds a rounding of an f64.
pub(super) const CHUNK: usize = 64;

/// Floats of a cache line, which rows of the table start at.
const LINE: usize = 16;

/// Sizes of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenLayout {
    /// Rotary pairs.
    half: usize,
    /// Whether a norm over all heads is kept.
    norms: bool,
    /// Sequences that have rows of their own.
    sequences: usize,
    keys: usize,
    queries: usize,
}

impl TokenLayout {
    pub fn new(variant: &Variant<'_>, problem: &Problem) -> Self {
        let half = variant.position.map_or(0, |position| position.dim as usize / 2);
        let norms = variant.qk_norm.is_some_and(|norm| norm.all_heads);
        let own = norms || variant.position.is_some_and(|position| position.ids.is_some());
        Self {
            half,
            norms,
            sequences: if own { problem.batch as usize } else { 1 },
            keys: problem.keys as usize,
            queries: problem.queries as usize,
        }
    }

    /// Floats of a row: the pairs' cosines, their sines, the norm.
    pub fn stride(&self) -> usize {
        (2 * self.half + usize::from(self.norms)).next_multiple_of(LINE)
    }

    /// Floats of the frequencies, as f64 in memory of f32.
    pub fn frequencies_len(&self) -> usize {
        (2 * self.half).next_multiple_of(LINE)
    }

    /// Floats of the table, in whole chunks; saturates.
    pub fn table_len(&self) -> usize {
        let rows = self.sequences.saturating_mul(self.keys.saturating_add(self.queries));
        rows.checked_next_multiple_of(CHUNK).unwrap_or(usize::MAX).saturating_mul(self.stride())
    }

    /// The sequence, and the key or else the query, of a row.
    fn place(&self, row: usize) -> (usize, Result<usize, usize>) {
        let per_sequence = self.keys + self.queries;
        let (sequence, token) = (row / per_sequence, row % per_sequence);
        (sequence, token.checked_sub(self.keys).map_or(Ok(token), Err))
    }

    fn rows(&self) -> usize {
        self.sequences * (self.keys + self.queries)
    }
}

/// The filled table.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    pub layout: TokenLayout,
    pub table: &'a [f32],
}

/// What is known of one token.
#[derive(Clone, Copy)]
pub(super) struct Token<'a> {
    /// Cosine of each pair's angle.
    pub cos: &'a [f32],
    /// Its sine.
    pub sin: &'a [f32],
    /// What a norm over all heads divides by, inverted.
    pub norm: f32,
}

impl<'a> Tokens<'a> {
    #[inline(always)]
    pub fn key(&self, sequence: usize, key: usize) -> Token<'a> {
        self.token(sequence, key)
    }

    #[inline(always)]
    pub fn query(&self, sequence: usize, query: usize) -> Token<'a> {
        self.token(sequence, self.layout.keys + query)
    }

    #[inline(always)]
    fn token(&self, sequence: usize, token: usize) -> Token<'a> {
        let TokenLayout { half, norms, sequences, keys, queries } = self.layout;
        let row = if sequences > 1 { sequence * (keys + queries) } else { 0 } + token;
        let row = &self.table[row * self.layout.stride()..][..self.layout.stride()];
        let (cos, rest) = row.split_at(half);
        Token { cos, sin: &rest[..half], norm: if norms { rest[half] } else { 1.0 } }
    }
}

/// Writes the angle of each rotary pair from one position to the next.
pub(super) fn frequencies(position: &Position, captured: &Captured<'_>, memory: &mut [f32]) {
    let half = position.dim as usize / 2;
    let to: &mut [f64] = bytemuck::cast_slice_mut(&mut memory[..2 * half]);
    for (t, to) in to.iter_mut().enumerate() {
        *to = match position.frequencies {
            Frequencies::Theta { .. } => position.frequency(t as u32).unwrap_or(0.0),
            Frequencies::Input(input) => {
                captured.floats(input).and_then(|given| given.get(t)).map_or(0.0, |&x| x.into())
            }
        };
    }
}

/// What a worker needs to fill rows of the table.
pub(super) struct Fill<'a, T> {
    pub layout: TokenLayout,
    pub variant: &'a Variant<'a>,
    pub problem: &'a Problem,
    pub inputs: &'a Inputs<'a, T>,
    pub captured: &'a Captured<'a>,
    pub fault: &'a Fault,
    /// As [`frequencies`] wrote them.
    pub frequencies: &'a [f32],
}

impl<T: Element> Fill<'_, T> {
    /// Fills chunk number `chunk` of the table.
    #[inline(always)]
    pub fn chunk(&self, chunk: usize, to: &mut [f32]) {
        let first = chunk * CHUNK;
        let count = CHUNK.min(self.layout.rows().saturating_sub(first));
        if let Some(position) = &self.variant.position {
            self.angles(position, first, count, to);
        }
        if let Some(norm) = self.variant.qk_norm.filter(|norm| norm.all_heads) {
            for (row, to) in (first..first + count).zip(to.chunks_exact_mut(self.layout.stride())) {
                to[2 * self.layout.half] = self.norm(&norm, row);
            }
        }
    }

    #[inline(always)]
    fn angles(&self, position: &Position, first: usize, count: usize, to: &mut [f32]) {
        let TokenLayout { half, .. } = self.layout;
        let mut positions = [0i32; CHUNK];
        for (i, at) in positions[..count].iter_mut().enumerate() {
            *at = self.position(position, first + i);
        }
        let frequencies: &[f64] = bytemuck::cast_slice(&self.frequencies[..2 * half]);
        let factor = position.factor();
        for (t, &frequency) in frequencies.iter().enumerate() {
            let (step_sin, step_cos) = libm::sincos(frequency);
            let (mut sin, mut cos) = (0.0, 1.0);
            let mut before = None;
            for (&at, to) in positions[..count].iter().zip(to.chunks_exact_mut(self.layout.stride())) {
                if before.is_some() && before == at.checked_sub(1) {
                    (sin, cos) = (sin * step_cos + cos * step_sin, cos * step_cos - sin * step_sin);
                } else {
                    (sin, cos) = libm::sincos(at as f64 * frequency);
                }
                before = Some(at);
                (to[t], to[half + t]) = ((factor * cos) as f32, (factor * sin) as f32);
            }
        }
    }

    /// The position that a row is turned by.
    fn position(&self, position: &Position, row: usize) -> i32 {
        let (sequence, token) = self.layout.place(row);
        let at = match token {
            Ok(key) => key as i32,
            Err(query) => self.problem.q_offset + query as i32,
        };
        let reads = token.is_ok() || self.variant.source == Source::SelfAttention;
        let Some(ids) = position.ids.filter(|_| reads) else { return at };
        let offset = self.captured.offset(ids as usize, &[sequence as i32, at]);
        match (offset, self.captured.data(ids as usize)) {
            (Some(offset), InputData::I32(ids)) => ids[offset],
            _ => {
                self.fault.report(ids);
                0
            }
        }
    }

    /// The inverse of the norm over all heads of a row's token, as its rows are when they are normed.
    #[inline(always)]
    fn norm(&self, norm: &QkNorm, row: usize) -> f32 {
        let (sequence, token) = self.layout.place(row);
        let heads = &self.variant.heads;
        let (heads, rows, token) = match token {
            Ok(key) => (heads.kv, &self.inputs.k, key),
            Err(query) => (heads.query, &self.inputs.q, query),
        };
        // A turn keeps lengths, but for the factor that turned channels are multiplied by.
        let turned = self.variant.position.filter(|_| norm.after_rope);
        let mut squares = 0.0;
        for head in 0..heads {
            let row = rows.row(sequence, head as usize, token);
            for (channel, x) in row.iter().enumerate() {
                let x = x.to_f32() as f64;
                squares += x * x;
                if let Some(position) = turned
                    && (position.offset as usize..(position.offset + position.dim) as usize)
                        .contains(&channel)
                {
                    squares += x * x * (position.factor() * position.factor() - 1.0);
                }
            }
        }
        inverse(norm, squares, heads as usize * self.variant.heads.dim as usize)
    }
}

/// The inverse of a norm, of the sum of squares of so many channels.
#[inline(always)]
pub(super) fn inverse(norm: &QkNorm, squares: f64, channels: usize) -> f32 {
    let inside = match norm.kind {
        NormKind::Rms => squares / channels as f64 + norm.eps,
        NormKind::L2 => squares + norm.eps,
    };
    (1.0 / libm::sqrt(inside)) as f32
}
