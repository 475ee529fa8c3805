//! Lookahead keys in a pass: what the tokens that wait teach a page's keys, and what queries find there.
//!
//! A query at position p finds keys as the tokens before the last lesson left them, b = p rounded down to whole lessons, and what
//! the tokens from b to p teach them: ⟨q, u⟩ + Σⱼ wⱼ · ⟨q, vⱼ⟩. So its bits depend on its position alone, whichever tokens came in one
//! call and whichever wait. Lessons themselves add token after token.

use core::ops::Range;

use regard_engine::cached::{self, LANES, Target, Words};
use regard_engine::isa::Door;
use regard_engine::pack;
use regard_ir::cache::{Codec, PageShape};
use regard_ir::interval::Liveness;
use regard_ir::plan::{EngineKind, Plan};
use regard_ir::variant::Variant;
use regard_simd::{F32, Lanes, load_f32, sigmoid, vectors, vectors_mut};

use super::{Parts, cell};
use crate::cache::{LESSON, Learned, LearnedShape, WAITING};
use crate::carve::{self, Carve};
use crate::code::{Code, Place};
use crate::flash::RunError;

/// Sizes of what a pass has beside, in numbers.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Numbers from one row of queries, values or keys to the next.
    stride: usize,
    /// Tokens of a page.
    tokens: usize,
    sizes: [usize; 6],
}

/// What a pass has beside.
pub(super) struct Memory<'a> {
    /// The queries, scaled, `[row][stride]`.
    pub queries: &'a mut [f32],
    /// What they find in the tokens that wait, `[row][WAITING]`.
    pub finds: &'a mut [f32],
    /// What these weigh in what they teach the keys of a page, `[token][key]`.
    weights: &'a mut [f32],
    /// What queries find at lookahead keys, `[row][chunk]`.
    pub found: &'a mut [f32],
    /// Keys of a page after more lessons than they have had.
    ahead: &'a mut [f32],
    /// Scratch of the code that says who teaches whom.
    code: &'a mut [i32],
}

impl Layout {
    /// Of passes of so many rows, over chunks of so many keys, with so much scratch for code.
    pub fn new(page: &PageShape, rows: usize, chunk: usize, code: usize) -> Self {
        let (stride, tokens) = (page.keys.channels.next_multiple_of(LANES), page.tokens);
        let sizes = [rows * stride, rows * WAITING, WAITING * tokens, rows * chunk, tokens * stride, code];
        Self { stride, tokens, sizes }
    }

    /// Numbers of one worker's memory.
    pub fn len(&self) -> usize {
        carve::len(self.sizes)
    }

    /// Carves it.
    pub fn carve<'a>(&self, memory: &'a mut [f32]) -> Memory<'a> {
        let mut pieces = Carve::new(memory, self.sizes);
        Memory {
            queries: pieces.next(),
            finds: pieces.next(),
            weights: pieces.next(),
            found: pieces.next(),
            ahead: pieces.next(),
            code: pieces.next_as(),
        }
    }

    /// Writes a query, a row times a factor, at a position, and what it finds in the tokens that wait.
    #[inline(always)]
    pub fn pack<D: Door>(
        &self,
        lanes: D,
        (learned, head): (&Learned<'_>, usize),
        (i, position): (usize, u32),
        (row, factor): (&[f32], f32),
        memory: &mut Memory<'_>,
    ) {
        let query = &mut memory.queries[i * self.stride..][..self.stride];
        let (channels, rest) = query.split_at_mut(row.len());
        for (to, x) in channels.iter_mut().zip(row) {
            *to = x * factor;
        }
        rest.fill(0.0);
        let finds = &mut memory.finds[i * WAITING..][..WAITING];
        let values = learned.values(head).chunks_exact(self.stride);
        for token in own_tokens(position, learned.taught) {
            let value = values.clone().nth(token).unwrap_or_default();
            finds[token] = product(lanes, query, value);
        }
    }
}

/// Whether each sequence has lookahead keys of the right shape, from which its queries' tokens and the last ones before them are
/// still apart.
pub(super) fn check(parts: &Parts<'_>) -> Result<(), RunError> {
    let Parts { variant, plan, problem, caches } = parts;
    let page = plan.cache.shape(variant);
    for sequence in 0..caches.count() {
        let of = problem.sequence(sequence as u32);
        let Some(learned) = caches.learned(sequence) else { return Err(RunError::Caches) };
        let Learned { shape, keys, waiting, taught } = learned;
        let fits = shape == LearnedShape { room: shape.room, ..LearnedShape::new(&page, 0) }
            && shape.room.is_multiple_of(page.tokens)
            && shape.room >= of.keys as usize
            && (keys.len(), waiting.len()) == (shape.keys_len(), shape.waiting_len())
            && (of.keys.saturating_sub(taught) as usize) <= WAITING;
        if !fits || of.q_offset as i64 + of.queries as i64 > of.keys as i64 {
            return Err(RunError::Caches);
        }
        if of.queries > 0 && i64::from(of.q_offset) < i64::from(taught) {
            return Err(RunError::Taught { sequence, first: of.q_offset, taught });
        }
    }
    Ok(())
}

/// How what keys ask meets tokens.
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// Whether bf16 is multiplied in pairs.
    pub pairs: bool,
    /// Channels of a chain of sums.
    chain: usize,
    scale: f32,
    /// Whether rows of `k_u` stay as they are, since a factor would round them, so that products are scaled instead.
    keeps_rows: bool,
}

impl Product {
    pub fn new(variant: &Variant<'_>, plan: &Plan, page: &PageShape) -> Self {
        let pairs = plan.engine == EngineKind::DotBf16;
        let keeps_rows = pairs && page.keys.codec == Codec::Bf16;
        let (chain, scale) = (plan.prefill.channel_chain as usize, variant.scale as f32);
        Self { pairs, chain, scale, keeps_rows }
    }

    /// What rows of `k_u` are multiplied by before they are packed.
    pub const fn factor(&self) -> f32 {
        if self.keeps_rows { 1.0 } else { self.scale }
    }
}

/// Which of the tokens that wait a query at a position finds apart from the keys: those since the last lesson before it.
fn own_tokens(position: u32, taught: u32) -> Range<usize> {
    let begin = (position - position % LESSON as u32).max(taught);
    (begin - taught) as usize..(position + 1 - taught) as usize
}

/// The keys of a page on which tokens and queries meet.
#[derive(Clone, Copy)]
pub(crate) struct Taught<'a> {
    /// Position of the first key.
    pub first: usize,
    /// How many there are.
    pub count: usize,
    /// Their rows, as the last lesson left them.
    pub keys: &'a [f32],
    /// What they ask of later tokens.
    pub asks: &'a [u32],
    /// Which of them learn from the tokens that wait.
    pub liveness: Liveness,
    /// What is read after them.
    pub ahead: &'a [u32],
}

/// What tokens and keys of a head meet with.
#[derive(Clone, Copy)]
pub(crate) struct Class<'a, D: Door> {
    pub lanes: D,
    /// A page.
    pub shape: &'a PageShape,
    pub product: Product,
    /// Who teaches whom.
    pub code: &'a dyn Code<D>,
    /// Where the tokens and keys are, apart from both.
    pub place: Place<'a>,
    /// Key head.
    pub head: usize,
    pub learned: Learned<'a>,
}

impl<D: Door> Class<'_, D> {
    /// What the first tokens that wait weigh in what they teach the keys of a page: rows of a page's tokens.
    #[inline(always)]
    pub fn weigh(&self, keys: Taught<'_>, tokens: usize, weights: &mut [f32], scratch: &mut [i32]) {
        let Self { lanes, shape, product, learned, head, .. } = *self;
        let Product { pairs, chain, scale, keeps_rows } = product;
        let stride = shape.tokens;
        let ahead = pulp::bytemuck::cast_slice(keys.keys);
        let words = Words { block: &shape.keys, tokens: stride, pairs, words: keys.asks, ahead };
        let target = Target { to: &mut *weights, stride };
        cached::scores(lanes, words, (learned.askers(head), tokens), (chain, keys.count), target);
        let (zero, never) = (F32::splat(lanes, 0.0), F32::splat(lanes, f32::NEG_INFINITY));
        let whole = keys.count.next_multiple_of(LANES);
        for (token, weights) in weights.chunks_exact_mut(stride).enumerate().take(tokens) {
            let scores = &mut weights[..whole];
            if keeps_rows {
                pack::scale(lanes, scores, scale);
            }
            if keys.liveness == Liveness::Full {
                for score in vectors_mut(lanes, scores) {
                    *score = sigmoid(F32::from_raw(lanes, *score)).raw();
                }
                continue;
            }
            let position = [(learned.taught as usize + token) as i32; LANES];
            let place = Place { q: &position[..D::WIDTH], first_key: keys.first as i32, ..self.place };
            cell::apply(lanes, self.code, place, scores, (keys.count, true), scratch);
            for score in vectors_mut(lanes, scores) {
                let x = F32::from_raw(lanes, *score);
                *score = x.eq(never).select(zero, sigmoid(x)).raw();
            }
        }
    }

    /// What queries, so many rows from position `first` on, find at the keys of a page: rows of a chunk from `at` on.
    #[inline(always)]
    pub fn find(
        &self,
        layout: &Layout,
        keys: Taught<'_>,
        (first, rows): (u32, usize),
        (at, chunk): (usize, usize),
        memory: &mut Memory<'_>,
    ) {
        let Self { lanes, learned, head, .. } = *self;
        let is_taught = keys.liveness != Liveness::Dead;
        let last = first as usize + rows - 1;
        if is_taught {
            let tokens = last + 1 - learned.taught as usize;
            self.weigh(keys, tokens, memory.weights, memory.code);
        }
        let stored = keys.keys;
        let mut lines = keys.ahead.chunks(layout.stride);
        let mut had = 0;
        for row in 0..rows {
            let own = own_tokens(first + row as u32, learned.taught);
            if is_taught && own.start > had {
                let rows = &mut memory.ahead[..stored.len()];
                if had == 0 {
                    rows.copy_from_slice(stored);
                }
                learn(
                    lanes,
                    rows,
                    (layout.stride, layout.tokens),
                    learned.values(head),
                    memory.weights,
                    had..own.start,
                );
                had = own.start;
            }
            let learned_keys = if had == 0 { stored } else { &memory.ahead[..stored.len()] };
            let query = &memory.queries[row * layout.stride..][..layout.stride];
            let found = &mut memory.found[row * chunk + at..][..keys.count.next_multiple_of(LANES)];
            let mut fours = learned_keys.chunks_exact(4 * layout.stride);
            let (whole, rest) = found[..keys.count].as_chunks_mut();
            for (found, keys) in whole.iter_mut().zip(&mut fours) {
                for line in lines.by_ref().take(4).flat_map(|row| row.as_chunks::<LANES>().0) {
                    lanes.prefetch(line);
                }
                *found = products(lanes, query, keys);
            }
            for (found, key) in rest.iter_mut().zip(fours.remainder().chunks_exact(layout.stride)) {
                *found = product(lanes, query, key);
            }
            if !is_taught {
                continue;
            }
            for token in own {
                let find = F32::splat(lanes, memory.finds[row * WAITING + token]);
                let weights = vectors(lanes, &memory.weights[token * layout.tokens..][..found.len()]);
                add(lanes, vectors_mut(lanes, found), weights, find);
            }
        }
    }
}

/// Adds weights times a number, of those that are not 0.
#[inline(always)]
fn add<L: Lanes>(
    lanes: L,
    found: &mut [<L::Simd as pulp::Simd>::f32s],
    weights: &[<L::Simd as pulp::Simd>::f32s],
    find: F32<L>,
) {
    let zero = F32::splat(lanes, 0.0);
    for (found, &weight) in found.iter_mut().zip(weights) {
        let weight = F32::from_raw(lanes, weight);
        let more = weight.mul_add(find, F32::from_raw(lanes, *found));
        *found = weight.eq(zero).select(F32::from_raw(lanes, *found), more).raw();
    }
}

/// Adds what tokens teach to keys, rows `stride` apart, token after token: weights are rows of a page's tokens.
#[inline(always)]
pub(crate) fn learn<L: Lanes>(
    lanes: L,
    keys: &mut [f32],
    (stride, page): (usize, usize),
    values: &[f32],
    weights: &[f32],
    tokens: Range<usize>,
) {
    let mut fours = keys.chunks_exact_mut(4 * stride);
    let mut key = 0;
    for rows in &mut fours {
        let mut lessons = [(0, [0.0; 4]); WAITING];
        let mut all = true;
        for (lesson, token) in lessons.iter_mut().zip(tokens.clone()) {
            let four = &weights[token * page + key..][..4];
            *lesson = (token * stride, [four[0], four[1], four[2], four[3]]);
            all &= four.iter().all(|&weight| weight != 0.0);
        }
        if all {
            learn_four(lanes, rows, stride, values, &lessons[..tokens.len()]);
        } else {
            for (at, row) in rows.chunks_exact_mut(stride).enumerate() {
                learn_one(lanes, row, values, &lessons[..tokens.len()], at);
            }
        }
        key += 4;
    }
    for row in fours.into_remainder().chunks_exact_mut(stride) {
        let mut lessons = [(0, [0.0; 4]); WAITING];
        for (lesson, token) in lessons.iter_mut().zip(tokens.clone()) {
            *lesson = (token * stride, [weights[token * page + key]; 4]);
        }
        learn_one(lanes, row, values, &lessons[..tokens.len()], 0);
        key += 1;
    }
}

/// Where a token's value is, and what it weighs for each of four keys.
type LessonOfFour = (usize, [f32; 4]);

/// Adds values to four rows: each is loaded once for all of them, and sums stay in registers.
#[inline(always)]
fn learn_four<L: Lanes>(lanes: L, rows: &mut [f32], stride: usize, values: &[f32], lessons: &[LessonOfFour]) {
    let (first, last) = rows.split_at_mut(2 * stride);
    let (first, last) = (first.split_at_mut(stride), last.split_at_mut(stride));
    let mut rows = [first.0, first.1, last.0, last.1].map(|row| vectors_mut(lanes, row));
    let mut at = 0;
    while at + 2 <= stride / L::WIDTH {
        learn_vectors::<L, 2>(lanes, &mut rows, at, values, lessons);
        at += 2;
    }
    if at < stride / L::WIDTH {
        learn_vectors::<L, 1>(lanes, &mut rows, at, values, lessons);
    }
}

/// The same of some vectors of each row.
#[inline(always)]
fn learn_vectors<L: Lanes, const N: usize>(
    lanes: L,
    rows: &mut [&mut [<L::Simd as pulp::Simd>::f32s]; 4],
    at: usize,
    values: &[f32],
    lessons: &[LessonOfFour],
) {
    let mut sums = [[F32::splat(lanes, 0.0); N]; 4];
    for (sums, row) in sums.iter_mut().zip(&*rows) {
        for (sum, &x) in sums.iter_mut().zip(&row[at..at + N]) {
            *sum = F32::from_raw(lanes, x);
        }
    }
    for &(value, weights) in lessons {
        let value = &values[value + at * L::WIDTH..][..N * L::WIDTH];
        for (i, value) in value.chunks_exact(L::WIDTH).enumerate() {
            let value = load_f32(lanes, value);
            for (sums, weight) in sums.iter_mut().zip(weights) {
                sums[i] = F32::splat(lanes, weight).mul_add(value, sums[i]);
            }
        }
    }
    for (sums, row) in sums.iter().zip(rows) {
        for (sum, x) in sums.iter().zip(&mut row[at..at + N]) {
            *x = sum.raw();
        }
    }
}

/// The same of one row, of four the one that is number `of`: values that weigh nothing may hold anything.
#[inline(always)]
fn learn_one<L: Lanes>(lanes: L, row: &mut [f32], values: &[f32], lessons: &[LessonOfFour], of: usize) {
    for (at, x) in vectors_mut(lanes, row).iter_mut().enumerate() {
        let mut sum = F32::from_raw(lanes, *x);
        for &(value, weights) in lessons {
            if weights[of] != 0.0 {
                let value = load_f32(lanes, &values[value + at * L::WIDTH..]);
                sum = F32::splat(lanes, weights[of]).mul_add(value, sum);
            }
        }
        *x = sum.raw();
    }
}

/// Σ a · b of a row and each of four that follow one another, of whole vectors.
#[inline(always)]
fn products<L: Lanes>(lanes: L, a: &[f32], rows: &[f32]) -> [f32; 4] {
    let (first, last) = rows.split_at(2 * a.len());
    let (first, last) = (first.split_at(a.len()), last.split_at(a.len()));
    let rows = [first.0, first.1, last.0, last.1].map(|row| vectors(lanes, row));
    let mut sums = [F32::splat(lanes, 0.0); 4];
    for (at, &a) in vectors(lanes, a).iter().enumerate() {
        let a = F32::from_raw(lanes, a);
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum = a.mul_add(F32::from_raw(lanes, row[at]), *sum);
        }
    }
    let [a, b, c, d] = sums;
    [a.sum(), b.sum(), c.sum(), d.sum()]
}

/// Σ a · b of rows of whole vectors.
#[inline(always)]
fn product<L: Lanes>(lanes: L, a: &[f32], b: &[f32]) -> f32 {
    let mut sums = F32::splat(lanes, 0.0);
    for (&a, &b) in vectors(lanes, a).iter().zip(vectors(lanes, b)) {
        sums = F32::from_raw(lanes, a).mul_add(F32::from_raw(lanes, b), sums);
    }
    sums.sum()
}
