//! Lookahead keys in a pass: what queries find at a page's keys, and in what the tokens that wait teach these.
//!
//! A query at position p finds keys as the tokens before the last lesson left them, b = p rounded down to whole lessons, and what
//! the tokens from b to p teach them: ⟨q, u⟩ + Σⱼ wⱼ · ⟨q, vⱼ⟩. So its bits depend on its position alone, whichever tokens came in one
//! call and whichever wait. Lessons themselves add token after token.

use core::ops::Range;

use regard_engine::cached::{self, Ahead, LANES};
use regard_engine::element::Elements;
use regard_engine::isa::Door;
use regard_ir::cache::PageShape;
use regard_ir::interval::Liveness;
use regard_simd::{F32, Lanes, load_f32, vectors, vectors_mut};

use super::Parts;
use crate::cache::{LESSON, Learned, LearnedShape, WAITING};
use crate::carve::{self, Carve};
use crate::flash::RunError;
use crate::lines;

/// Sizes of what a pass has beside, in numbers.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Numbers from one row of queries, values or keys to the next.
    stride: usize,
    /// Tokens of a page.
    tokens: usize,
    sizes: [usize; 4],
}

/// What a pass has beside.
pub(super) struct Memory<'a> {
    /// The queries, scaled, `[row][stride]`.
    pub queries: &'a mut [f32],
    /// What they find in the tokens that wait, `[row][WAITING]`.
    pub finds: &'a mut [f32],
    /// What queries find at lookahead keys, `[row][chunk]`.
    pub found: &'a mut [f32],
    /// Keys of a page after more lessons than they have had.
    ahead: &'a mut [f32],
}

impl Layout {
    /// Of passes of so many rows, over chunks of so many keys.
    pub fn new(page: &PageShape, rows: usize, chunk: usize) -> Self {
        let (stride, tokens) = (page.keys.channels.next_multiple_of(LANES), page.tokens);
        let sizes = [rows * stride, rows * WAITING, rows * chunk, tokens * stride];
        Self { stride, tokens, sizes }
    }

    /// Numbers of one worker's memory.
    pub fn len(&self) -> usize {
        carve::len(self.sizes)
    }

    /// Carves it.
    pub fn carve<'a>(&self, memory: &'a mut [f32]) -> Memory<'a> {
        let mut pieces = Carve::new(memory, self.sizes);
        Memory { queries: pieces.next(), finds: pieces.next(), found: pieces.next(), ahead: pieces.next() }
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
            finds[token] = cached::inner_product(lanes, query, value);
        }
    }

    /// What queries, so many rows from position `first` on, find at keys: rows of a chunk from `at` on. They are those of a page, or of
    /// several where [`Finding::is_of_runs`] says so.
    #[inline(always)]
    pub fn find<D: Door>(
        &self,
        lanes: D,
        (learned, head): (&Learned<'_>, usize),
        keys: Taught<'_>,
        (first, rows): (u32, usize),
        (at, chunk): (usize, usize),
        memory: &mut Memory<'_>,
    ) {
        let (stored, weights_of) = (keys.keys, |page| learned.weights(head, keys.first + page * self.tokens));
        let mut had = 0;
        for row in 0..rows {
            let own = own_tokens(first + row as u32, learned.taught);
            if keys.teachers.any() && own.start > had {
                let rows = &mut memory.ahead[..stored.len()];
                if had == 0 {
                    rows.copy_from_slice(stored);
                }
                let weighed =
                    Weighed { weights: weights_of(0), taught: learned.taught, teachers: keys.teachers };
                learn(lanes, rows, (self.stride, self.tokens), learned.values(head), weighed, had..own.start);
                had = own.start;
            }
            let learned_keys = if had == 0 { stored } else { &memory.ahead[..stored.len()] };
            let query = &memory.queries[row * self.stride..][..self.stride];
            let found = &mut memory.found[row * chunk + at..][..keys.count.next_multiple_of(LANES)];
            // The rows are near when the next query finds them.
            let ahead = (row == 0).then_some(keys.ahead);
            cached::inner_products(lanes, query, learned_keys, ahead, &mut found[..keys.count]);
            for (page, found) in found.chunks_mut(self.tokens).enumerate() {
                let (weights, next) = (weights_of(page), weights_of(page + 1));
                for token in own.clone().filter(|&token| keys.teachers.has(token)) {
                    let find = F32::splat(lanes, memory.finds[row * WAITING + token]);
                    let at = row_of(learned.taught, token) * self.tokens;
                    if row == 0 && !next.is_empty() {
                        lines::ask(lanes, Elements::F32(&next[at..][..self.tokens]));
                    }
                    let weights = vectors(lanes, &weights[at..][..found.len()]);
                    add(lanes, vectors_mut(lanes, found), weights, find);
                }
            }
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
        let Learned { shape, keys, weights, waiting, taught } = learned;
        let fits = shape == LearnedShape { room: shape.room, ..LearnedShape::new(&page, 0) }
            && shape.room.is_multiple_of(page.tokens)
            && shape.room >= of.keys as usize
            && [keys.len(), weights.len(), waiting.len()]
                == [shape.keys_len(), shape.weights_len(), shape.waiting_len()]
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

/// Which of the tokens that wait a query at a position finds apart from the keys: those since the last lesson before it.
fn own_tokens(position: u32, taught: u32) -> Range<usize> {
    let begin = (position - position % LESSON as u32).max(taught);
    (begin - taught) as usize..(position + 1 - taught) as usize
}

/// The row of a page's weights that is of a token, by its number among those that wait.
fn row_of(taught: u32, token: usize) -> usize {
    LearnedShape::weights_row(taught as usize + token)
}

/// Which of the tokens that wait may teach some key of a page; others have no weights there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Teachers(u32);

impl Teachers {
    /// Those of the tokens that wait, so many, of which a mask says so: asked about a range of them, by number.
    pub fn new(count: usize, liveness: impl Fn(Range<usize>) -> Liveness) -> Self {
        match liveness(0..count) {
            Liveness::Dead => Self(0),
            Liveness::Full => Self(((1u64 << count) - 1) as u32),
            Liveness::Partial => {
                let lives = |&token: &usize| liveness(token..token + 1) != Liveness::Dead;
                Self((0..count).filter(lives).fold(0, |all, token| all | 1 << token))
            }
        }
    }

    const fn any(self) -> bool {
        self.0 != 0
    }

    const fn has(self, token: usize) -> bool {
        self.0 >> token & 1 != 0
    }
}

/// What a chunk's queries find lookahead keys by.
pub(super) struct Finding<'a> {
    pub learned: Learned<'a>,
    /// Position of the first query, and how many there are.
    pub queries: (u32, usize),
    /// Which tokens that wait teach the keys of every page, where that is the same for all.
    pub teachers: Option<Teachers>,
}

impl Finding<'_> {
    /// How many tokens wait.
    pub fn waiting(&self) -> usize {
        self.queries.0 as usize + self.queries.1 - self.learned.taught as usize
    }

    /// Whether keys of several pages are found at once: by one query, as others find keys of a page while they are near, where the same
    /// tokens teach all, and not with lessons that are yet to be learned.
    pub fn is_of_runs(&self) -> bool {
        let (position, count) = self.queries;
        count == 1 && self.teachers.is_some() && own_tokens(position, self.learned.taught).start == 0
    }
}

/// The keys at which queries find something.
#[derive(Clone, Copy)]
pub(crate) struct Taught<'a> {
    /// Position of the first key.
    pub first: usize,
    /// How many there are.
    pub count: usize,
    /// Their rows, as the last lesson left them.
    pub keys: &'a [f32],
    pub teachers: Teachers,
    /// What is read after them.
    pub ahead: Ahead<'a>,
}

/// What tokens that wait weigh for a page's keys.
#[derive(Clone, Copy)]
pub(crate) struct Weighed<'a> {
    /// Rows of a page's tokens.
    pub weights: &'a [f32],
    /// How many tokens the keys have learned from: the position of the first that waits.
    pub taught: u32,
    pub teachers: Teachers,
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

/// Adds what tokens teach to keys, rows `stride` apart, token after token.
#[inline(always)]
pub(crate) fn learn<L: Lanes>(
    lanes: L,
    keys: &mut [f32],
    (stride, page): (usize, usize),
    values: &[f32],
    Weighed { weights, taught, teachers }: Weighed<'_>,
    tokens: Range<usize>,
) {
    // Of each token that teaches, where its value begins, and its weights.
    let (mut taken, mut count) = ([(0, 0); WAITING], 0);
    for token in tokens.filter(|&token| teachers.has(token)) {
        taken[count] = (token * stride, row_of(taught, token) * page);
        count += 1;
    }
    let taken = &taken[..count];
    let mut lessons = [(0, [0.0; 4]); WAITING];
    let mut fours = keys.chunks_exact_mut(4 * stride);
    let mut key = 0;
    for rows in &mut fours {
        let mut all = true;
        for (lesson, &(value, at)) in lessons.iter_mut().zip(taken) {
            let four = &weights[at + key..][..4];
            *lesson = (value, [four[0], four[1], four[2], four[3]]);
            all &= four.iter().all(|&weight| weight != 0.0);
        }
        if all {
            learn_four(lanes, rows, stride, values, &lessons[..count]);
        } else {
            for (at, row) in rows.chunks_exact_mut(stride).enumerate() {
                learn_one(lanes, row, values, &lessons[..count], at);
            }
        }
        key += 4;
    }
    for row in fours.into_remainder().chunks_exact_mut(stride) {
        for (lesson, &(value, at)) in lessons.iter_mut().zip(taken) {
            *lesson = (value, [weights[at + key]; 4]);
        }
        learn_one(lanes, row, values, &lessons[..count], 0);
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

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    /// Which tokens of so many teach, where those from a number on do.
    fn teachers(count: usize, from: usize) -> Vec<bool> {
        let teachers = Teachers::new(count, |tokens| match (tokens.start >= from, tokens.end > from) {
            (true, true) => Liveness::Full,
            (false, true) => Liveness::Partial,
            _ => Liveness::Dead,
        });
        assert_eq!(teachers.any(), from < count);
        (0..count).map(|token| teachers.has(token)).collect()
    }

    #[test]
    fn tokens_are_told_apart_where_some_of_them_teach() {
        for count in [1, 7, WAITING] {
            for from in 0..=count {
                let expected: Vec<_> = (0..count).map(|token| token >= from).collect();
                assert_eq!(teachers(count, from), expected);
            }
        }
    }
}
