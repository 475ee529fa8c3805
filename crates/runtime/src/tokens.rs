//! What rows of q and k need to know of their tokens before they are packed: rotary angles, and norms over all heads.
//!
//! One table holds a row for each key and each query, filled once a call by all workers: rows are packed for many
//! passes, and an angle's sine costs more than a turn. Of pseudo-heads, whose tokens are several positions, there is a row for each
//! token and one for each further position: a row for each position would be many times as much as stays in a cache.

use pulp::bytemuck;
use regard_engine::grid::Lots;
use regard_engine::threads::Threads;
use regard_engine::{Engine, Op};
use regard_ir::inputs::{Captured, InputData};
use regard_ir::problem::Problem;
use regard_ir::rows::{Frequencies, NormKind, Position, QkNorm};
use regard_ir::variant::{Source, Variant};

use crate::code::Fault;
use crate::view::View;

/// Rows that a worker fills at a time.
pub(crate) const CHUNK: usize = 64;

/// Positions whose angles are turned from the same one, on a grid of absolute positions, so that an angle's bits are those of
/// its position alone. Each turn adds a rounding of an f64, and more of them take fewer sines.
const GRID: i32 = 16;

/// Floats of a cache line, which rows of the table start at.
const LINE: usize = 16;

/// Sizes of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenLayout {
    /// Rotary pairs.
    half: usize,
    /// Whether a norm over all heads is kept.
    norms: bool,
    /// Whether each sequence has rows of its own; where sequences are packed, their rows are apart anyway.
    own: bool,
    /// Sequences along the tensors' first axis that have rows of their own.
    batch: usize,
    /// Keys along the tensors' token axis.
    keys: usize,
    /// Queries along it.
    queries: usize,
    /// Positions that share a row: those of a token, where heads are mixed into pseudo-heads.
    per_row: usize,
}

impl TokenLayout {
    pub fn new(variant: &Variant<'_>, problem: &Problem<'_>) -> Self {
        let half = variant.position.map_or(0, |position| position.dim as usize / 2);
        let norms = variant.qk_norm.is_some_and(|norm| norm.all_heads);
        let by_input = variant.position.is_some_and(|position| position.ids.is_some());
        let own = norms || by_input;
        let per_row = if by_input { 1 } else { variant.per_token().max(1) as usize };
        let [batch, queries, keys] = problem.extents().map(|n| n as usize);
        let [queries, keys] = [queries, keys].map(|n| n.div_ceil(per_row));
        Self { half, norms, own, batch: if own { batch } else { 1 }, keys, queries, per_row }
    }

    /// Of queries alone, whose keys are cached.
    pub fn of_queries(variant: &Variant<'_>, problem: &Problem<'_>) -> Self {
        Self { keys: 0, ..Self::new(variant, problem) }
    }

    /// Of keys alone.
    pub fn of_keys(variant: &Variant<'_>, problem: &Problem<'_>) -> Self {
        Self { queries: 0, ..Self::new(variant, problem) }
    }

    /// Of so many rows, each of which is found as that of a query.
    pub fn of_rows(variant: &Variant<'_>, rows: usize) -> Self {
        let half = variant.position.map_or(0, |position| position.dim as usize / 2);
        Self { half, norms: false, own: false, batch: 1, keys: 0, queries: rows, per_row: 1 }
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
        let rows = self.batch.saturating_mul(self.keys.saturating_add(self.queries));
        let rows = rows.saturating_add(self.steps());
        rows.checked_next_multiple_of(CHUNK).unwrap_or(usize::MAX).saturating_mul(self.stride())
    }

    /// Rows for what is turned further than the first position of its row: none where each position has a row.
    const fn steps(&self) -> usize {
        if self.per_row > 1 { self.per_row } else { 0 }
    }

    /// The row of a key, or else of a query, from where it lies in its tensor, and its position after the row's first.
    #[inline(always)]
    fn row(&self, batch: usize, token: Token) -> (usize, usize) {
        let batch = if self.own { batch } else { 0 };
        let (before, at) = match token {
            Token::Key(key) => (batch * self.keys, key),
            Token::Query(query) => (self.batch * self.keys + batch * self.queries, query),
        };
        // Most variants have a row for each, which should take no division.
        if self.per_row == 1 { (before + at, 0) } else { (before + at / self.per_row, at % self.per_row) }
    }

    /// Where the first token of a row lies in its tensor, or which step the row is of.
    fn token(&self, row: usize) -> (usize, Token) {
        match row.checked_sub(self.batch * self.keys) {
            None => (row / self.keys, Token::Key(row % self.keys * self.per_row)),
            Some(row) => (row / self.queries, Token::Query(row % self.queries * self.per_row)),
        }
    }

    /// Rows of tokens.
    fn rows(&self) -> usize {
        self.batch * (self.keys + self.queries)
    }
}

/// A token, by its place along the token axis of its tensor.
#[derive(Clone, Copy)]
enum Token {
    Key(usize),
    Query(usize),
}

/// The filled table.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'a> {
    pub layout: TokenLayout,
    pub table: &'a [f32],
}

/// What is known of one token.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    /// Cosine of each pair's angle.
    pub cos: &'a [f32],
    /// Its sine.
    pub sin: &'a [f32],
    /// Cosine and sine of each pair's angle that is added to that.
    pub further: Option<[&'a [f32]; 2]>,
    /// What a norm over all heads divides by, inverted.
    pub norm: f32,
}

impl<'a> Tokens<'a> {
    /// Of a key, by its place in k.
    #[inline(always)]
    pub fn key(&self, batch: usize, key: usize) -> Known<'a> {
        self.known(batch, Token::Key(key))
    }

    /// Of a query, by its place in q.
    #[inline(always)]
    pub fn query(&self, batch: usize, query: usize) -> Known<'a> {
        self.known(batch, Token::Query(query))
    }

    #[inline(always)]
    fn known(&self, batch: usize, token: Token) -> Known<'a> {
        let norms = self.layout.norms;
        let (row, step) = self.layout.row(batch, token);
        let [cos, sin, rest] = self.at(row);
        let further = (step > 0).then(|| {
            let [cos, sin, _] = self.at(self.layout.rows() + step);
            [cos, sin]
        });
        Known { cos, sin, further, norm: if norms { rest[0] } else { 1.0 } }
    }

    /// A row of the table: cosines, sines, and what follows them.
    #[inline(always)]
    fn at(&self, row: usize) -> [&'a [f32]; 3] {
        let (half, stride) = (self.layout.half, self.layout.stride());
        let (cos, rest) = self.table[row * stride..][..stride].split_at(half);
        let (sin, rest) = rest.split_at(half);
        [cos, sin, rest]
    }
}

/// Writes the angle of each rotary pair from one position to the next.
pub(crate) fn frequencies(position: &Position, captured: &Captured<'_>, memory: &mut [f32]) {
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

/// The rows whose norms are taken.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Absent where there are none, or no norm.
    pub q: Option<View<'a>>,
    /// Absent too where they are cached, and were normed when they were appended.
    pub k: Option<View<'a>>,
}

/// Fills the table with all workers.
pub(crate) fn fill<'a, E: Engine>(
    engine: E,
    fill: Fill<'_>,
    table: &'a mut [f32],
    threads: &dyn Threads,
) -> Tokens<'a> {
    if !table.is_empty() {
        let lots = Lots::new(&mut *table, CHUNK * fill.layout.stride());
        threads.run(&|_| engine.enter(FillTokens { fill: &fill, lots: &lots }));
    }
    Tokens { layout: fill.layout, table }
}

/// What a worker needs to fill rows of the table.
pub(crate) struct Fill<'a> {
    pub layout: TokenLayout,
    pub variant: &'a Variant<'a>,
    pub problem: &'a Problem<'a>,
    pub rows: Rows<'a>,
    pub captured: &'a Captured<'a>,
    pub fault: &'a Fault,
    /// As [`frequencies`] wrote them.
    pub frequencies: &'a [f32],
}

impl Fill<'_> {
    /// Fills chunk number `chunk` of the table.
    #[inline(always)]
    pub fn chunk(&self, chunk: usize, to: &mut [f32]) {
        let first = chunk * CHUNK;
        let count = CHUNK.min((self.layout.rows() + self.layout.steps()).saturating_sub(first));
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
        let mut positions = [0i32; CHUNK];
        for (i, at) in positions[..count].iter_mut().enumerate() {
            *at = self.position(position, first + i);
        }
        // What is turned further has the position's factor already.
        let rows = self.layout.rows().saturating_sub(first).min(count);
        let (rows, steps) = positions[..count].split_at(rows);
        let (to, to_steps) = to.split_at_mut(rows.len() * self.layout.stride());
        angles(&self.layout, position.factor(), self.frequencies, rows, to);
        angles(&self.layout, 1.0, self.frequencies, steps, to_steps);
    }

    /// The position that a row is turned by.
    fn position(&self, position: &Position, row: usize) -> i32 {
        if let Some(step) = row.checked_sub(self.layout.rows()) {
            return step as i32;
        }
        let (batch, token) = self.layout.token(row);
        let sequence = self.sequence(batch, token);
        let of = self.problem.sequence(sequence);
        // An input of positions is as long as the tensors are: it has none of tokens that came before them.
        let before = self.variant.tokens_before(&of);
        let (at, is_key) = match token {
            Token::Key(key) => (of.held.begin as i32 + (key - of.first_key as usize) as i32, true),
            Token::Query(query) => (of.q_offset - before + (query - of.first_query as usize) as i32, false),
        };
        let at = if position.ids.is_some() { at } else { at + before };
        given(position, self.variant.source, (self.captured, self.fault), (sequence, at, is_key))
    }

    /// The sequence of a token that lies at `batch` in its tensor.
    fn sequence(&self, batch: usize, token: Token) -> u32 {
        let Some(packed) = &self.problem.packed else { return batch as u32 };
        let (starts, row) = match token {
            Token::Key(key) => (packed.cu_k(), key),
            Token::Query(query) => (packed.cu_q(), query),
        };
        // The last sequence that begins at or before the row; those before it that begin there too are empty.
        starts.partition_point(|&start| start as usize <= row) as u32 - 1
    }

    /// The inverse of the norm over all heads of a row's token, as its rows are when they are normed.
    #[inline(always)]
    fn norm(&self, norm: &QkNorm, row: usize) -> f32 {
        let (batch, token) = self.layout.token(row);
        let heads = &self.variant.heads;
        let (heads, rows, token) = match (token, &self.rows) {
            (Token::Key(key), Rows { k: Some(k), .. }) => (heads.kv, k, key),
            (Token::Query(query), Rows { q: Some(q), .. }) => (heads.query, q, query),
            // Nothing reads the norm of a cached key.
            _ => return 1.0,
        };
        // A turn keeps lengths, but for the factor that turned channels are multiplied by.
        let turned = self.variant.position.filter(|_| norm.after_rope);
        let mut squares = 0.0;
        for head in 0..heads {
            let row = rows.row(batch, head as usize, token);
            for channel in 0..row.len() {
                let x = row.to_f32(channel) as f64;
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

/// Writes the rows of a table for some positions: their angles' cosines and sines, times a factor.
#[inline(always)]
pub(crate) fn angles(
    layout: &TokenLayout,
    factor: f64,
    frequencies: &[f32],
    positions: &[i32],
    to: &mut [f32],
) {
    let half = layout.half;
    let frequencies: &[f64] = bytemuck::cast_slice(&frequencies[..2 * half]);
    for (t, &frequency) in frequencies.iter().enumerate() {
        let mut turn = Turn::new(frequency);
        for (&at, to) in positions.iter().zip(to.chunks_exact_mut(layout.stride())) {
            let (sin, cos) = turn.to(at);
            (to[t], to[half + t]) = ((factor * cos) as f32, (factor * sin) as f32);
        }
    }
}

/// The position that a row of a sequence is turned by, of a key or of a query, which is at `at`: another where an input gives it.
pub(crate) fn given(
    position: &Position,
    source: Source,
    (captured, fault): (&Captured<'_>, &Fault),
    (sequence, at, is_key): (u32, i32, bool),
) -> i32 {
    let reads = is_key || source == Source::SelfAttention;
    let Some(ids) = position.ids.filter(|_| reads) else { return at };
    let offset = captured.offset(ids as usize, &[sequence as i32, at]);
    match (offset, captured.data(ids as usize)) {
        (Some(offset), InputData::I32(ids)) => ids[offset],
        _ => {
            fault.report(ids);
            0
        }
    }
}

/// The angle of one rotary pair, turned from position to position.
struct Turn {
    frequency: f64,
    /// Sine and cosine of the angle between neighbours; a single token may need none.
    step: Option<(f64, f64)>,
    /// Where it is, and sine and cosine there.
    at: Option<i32>,
    sin: f64,
    cos: f64,
}

impl Turn {
    fn new(frequency: f64) -> Self {
        Self { frequency, step: None, at: None, sin: 0.0, cos: 1.0 }
    }

    /// Sine and cosine at a position.
    #[inline(always)]
    fn to(&mut self, position: i32) -> (f64, f64) {
        let start = position - position.rem_euclid(GRID);
        let mut at = match self.at {
            Some(at) if (start..=position).contains(&at) => at,
            _ => {
                (self.sin, self.cos) = libm::sincos(start as f64 * self.frequency);
                start
            }
        };
        if at < position {
            let (step_sin, step_cos) = *self.step.get_or_insert_with(|| libm::sincos(self.frequency));
            while at < position {
                let (sin, cos) = (self.sin, self.cos);
                (self.sin, self.cos) = (sin * step_cos + cos * step_sin, cos * step_cos - sin * step_sin);
                at += 1;
            }
        }
        self.at = Some(position);
        (self.sin, self.cos)
    }
}

/// One worker's share of the table of tokens, inside the engine's instruction set.
pub(crate) struct FillTokens<'a> {
    pub fill: &'a Fill<'a>,
    pub lots: &'a Lots<'a, f32>,
}

impl Op for FillTokens<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        while let Some((chunk, rows)) = self.lots.take() {
            self.fill.chunk(chunk, rows);
        }
    }
}

/// The inverse of a norm, of the sum of squares of so many channels.
#[inline(always)]
pub(crate) fn inverse(norm: &QkNorm, squares: f64, channels: usize) -> f32 {
    let inside = match norm.kind {
        NormKind::Rms => squares / channels as f64 + norm.eps,
        NormKind::L2 => squares + norm.eps,
    };
    (1.0 / libm::sqrt(inside)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_angle_is_that_of_its_position_alone() {
        for frequency in [1.0, 0.7, 1e-3, 1e-6] {
            let alone = |at: i32| Turn::new(frequency).to(at);
            let mut one_by_one = Turn::new(frequency);
            for at in -40..1000 {
                let (sin, cos) = alone(at);
                assert_eq!(one_by_one.to(at), (sin, cos), "{at} times {frequency}");
                let (exact_sin, exact_cos) = libm::sincos(f64::from(at) * frequency);
                // Of angles up to 1,000 the product is as inexact.
                assert!((sin - exact_sin).abs() < 1e-12 && (cos - exact_cos).abs() < 1e-12, "{at}");
            }
            let mut jumping = Turn::new(frequency);
            for at in [5, 3, 3, 15, 16, 40, 33, -1, i32::MAX, i32::MIN, 0] {
                assert_eq!(jumping.to(at), alone(at), "{at} times {frequency}");
            }
        }
    }
}
