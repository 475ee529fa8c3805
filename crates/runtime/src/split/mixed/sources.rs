//! Cached rows of some tokens, of all heads: read, turned, and mixed.
//!
//! They lie as the panels of a product do whose channels are heads: a line of lanes of each source, one after the other. So sums
//! over heads are made as scores are, with the factors for queries, and what comes out has the lines of a page's block.

use core::ops::Range;

use pulp::bytemuck;
use regard_engine::cached::{self, LANES, Lane, Target, Words};
use regard_engine::isa::Door;
use regard_ir::cache::{Block, Codec, PageShape};
use regard_ir::rows::{Position, QkNorm, RopeLayout};
use regard_simd::{F32, Lanes, load_f32, vectors, vectors_mut};

use crate::cache::{CachedSequence, Page};
use crate::mix::{CHAIN, Mixes, Which};
use crate::tokens::inverse;

/// Writes the factors of keys or of values as rows of sources, `[head][pseudo-head][source]`.
pub(super) fn turn_factors(mixes: &Mixes<'_>, which: Which, to: &mut [f32]) {
    let factors = mixes.factors(which);
    let sources = mixes.sources(which);
    let targets = factors.len().checked_div(sources).unwrap_or(0);
    for (target, to) in to.chunks_exact_mut(sources.max(1)).enumerate() {
        for (source, to) in to.iter_mut().enumerate() {
            *to = factors[source * targets + target];
        }
    }
}

/// What cached values must be below, so that no sum over so many of them leaves the finite numbers.
pub(super) fn limit(factors: &[f32], sources: usize) -> f32 {
    let mut most = 1.0f32;
    for factors in factors.chunks_exact(sources.max(1)) {
        let sum: f32 = factors.iter().map(|factor| factor.abs()).sum();
        if !sum.is_finite() {
            return 0.0;
        }
        most = most.max(sum);
    }
    f32::MAX / 2.0 / most
}

/// Some tokens of a page.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    pub cache: &'a CachedSequence<'a>,
    pub page: &'a PageShape,
    /// Position of the first.
    pub first: usize,
    /// How many the sequence has.
    pub count: usize,
}

impl<'a> Tokens<'a> {
    /// The same in whole lines of lanes.
    pub const fn span(&self) -> usize {
        self.count.next_multiple_of(LANES)
    }

    /// The page that they lie in, and where.
    fn place(&self) -> (Page<'a>, usize) {
        (self.cache.page(self.page, self.first / self.page.tokens), self.first % self.page.tokens)
    }

    /// Reads keys, `[line of tokens][channel][source][token]`.
    #[inline(always)]
    pub fn read_keys<L: Lanes>(&self, lanes: L, to: &mut [f32]) {
        let page = self.page;
        let (words, at) = self.place();
        let (sources, dim) = (page.key_head_count(), page.keys.channels);
        let mut widened = [[0.0; LANES]; LANES];
        for (line, to) in to.chunks_exact_mut(dim * sources * LANES).take(self.span() / LANES).enumerate() {
            let line = at / LANES + line;
            for (first, to) in (0..dim).step_by(LANES).zip(to.chunks_mut(LANES * sources * LANES)) {
                let channels = first..dim.min(first + LANES);
                for source in 0..sources {
                    let keys = words.part(page.keys_at(source));
                    let rows = to.chunks_exact_mut(sources * LANES);
                    if page.keys.codec == Codec::F32 {
                        scatter(lines_of(&page.keys, keys, (line, channels.clone())), source, rows);
                        continue;
                    }
                    let widened = &mut widened[..channels.len()];
                    cached::widen_keys(lanes, &page.keys, keys, line, channels.clone(), widened);
                    scatter(widened.iter(), source, rows);
                }
            }
        }
    }

    /// Reads values, `[panel of channels][token][source][channel]`; those of tokens that are not there are zero.
    #[inline(always)]
    pub fn read_values<L: Lanes>(&self, lanes: L, to: &mut [f32]) {
        let page = self.page;
        let (words, at) = self.place();
        let sources = page.value_head_count();
        let panels = page.values.channels.div_ceil(LANES);
        let mut widened = [[0.0; LANES]; LANES];
        let lines = to.chunks_exact_mut(self.span() * sources * LANES);
        for (panel, to) in lines.take(panels).enumerate() {
            for (first, to) in (0..self.span()).step_by(LANES).zip(to.chunks_mut(LANES * sources * LANES)) {
                let there = LANES.min(self.count - first);
                let tokens = at + first..at + first + there;
                for source in 0..sources {
                    let values = words.part(page.values_at(source));
                    let rows = to.chunks_exact_mut(sources * LANES);
                    if page.values.codec == Codec::F32 && there == LANES {
                        scatter(lines_of(&page.values, values, (panel, tokens.clone())), source, rows);
                        continue;
                    }
                    let of = (page.tokens, panel);
                    cached::widen_values(lanes, &page.values, values, of, tokens.clone(), &mut widened);
                    widened[there..].fill([0.0; LANES]);
                    scatter(widened.iter(), source, rows);
                }
            }
        }
    }

    /// Which tokens have a value, of those that were read, that is not below a limit: a bit for each, whose values become zero.
    #[inline(always)]
    pub fn set_aside<L: Lanes>(&self, lanes: L, limit: f32, read: &mut [f32]) -> u64 {
        let sources = self.page.value_head_count();
        let line = sources * LANES;
        let read = &mut read[..self.page.values.channels.div_ceil(LANES) * self.span() * line];
        if is_below(lanes, limit, read) {
            return 0;
        }
        let mut odd = 0;
        for (i, line) in read.chunks_exact(line).enumerate() {
            odd |= u64::from(!line.iter().all(|x| x.abs() < limit)) << (i % self.span());
        }
        for (i, line) in read.chunks_exact_mut(line).enumerate() {
            if odd >> (i % self.span()) & 1 != 0 {
                line.fill(0.0);
            }
        }
        odd
    }

    /// Writes the mixed value of a token that was set aside, with so many factors; `row` has room for a value.
    pub fn mix_value(&self, token: usize, factors: &[f32], row: &mut [f32], to: &mut [f32]) {
        let page = self.page;
        let (words, at) = self.place();
        let row = &mut row[..page.values.channels];
        to.fill(0.0);
        for (source, factor) in factors.iter().enumerate() {
            let values = words.part(page.values_at(source));
            cached::read_value(&page.values, page.tokens, at + token, values, row);
            for (to, x) in to.iter_mut().zip(&*row) {
                *to += factor * x;
            }
        }
    }
}

/// Some lines of floats of a panel.
#[inline(always)]
fn lines_of<'a>(
    block: &Block,
    words: &'a [u32],
    (panel, range): (usize, Range<usize>),
) -> impl Iterator<Item = &'a Lane> {
    let lines: &[Lane] = bytemuck::cast_slice::<u32, f32>(&words[..block.words()]).as_chunks().0;
    let of_panel = block.lines(panel);
    range.map(move |line| &lines[of_panel.at(line)])
}

/// Copies lines of floats to the place of a source in each of some rows.
#[inline(always)]
fn scatter<'a, 'b>(
    lines: impl Iterator<Item = &'a Lane>,
    source: usize,
    rows: impl Iterator<Item = &'b mut [f32]>,
) {
    for (line, to) in lines.zip(rows) {
        to[source * LANES..][..LANES].copy_from_slice(line);
    }
}

/// Which of a chunk's rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    Keys,
    Values,
}

/// Cached rows that will be read soon, asked for bit by bit while others are mixed.
pub(super) struct Ahead<'a> {
    page: &'a PageShape,
    words: Page<'a>,
    rows: Rows,
    /// Panels of a source that are read.
    panels: Range<usize>,
    /// Lines of each that are read.
    lines: Range<usize>,
    /// The next line: its source, its panel and its number.
    at: [usize; 3],
    /// Lines that are asked for at a time.
    each: usize,
}

impl<'a> Ahead<'a> {
    /// Rows of some tokens, which are asked for in so many parts.
    pub fn new(tokens: &Tokens<'a>, rows: Rows, parts: usize) -> Self {
        let page = tokens.page;
        let (words, at) = tokens.place();
        let (panels, lines) = match rows {
            Rows::Keys => (at / LANES..(at + tokens.span()) / LANES, 0..page.keys.depth),
            Rows::Values => {
                let numbers = page.values.codec.numbers() as usize;
                (0..page.values.panels, at / numbers..(at + tokens.span()) / numbers)
            }
        };
        let mut all = Self { page, words, rows, at: [0, panels.start, lines.start], panels, lines, each: 0 };
        all.each = (all.sources() * all.panels.len() * all.lines.len()).div_ceil(parts.max(1));
        all
    }

    fn sources(&self) -> usize {
        match self.rows {
            Rows::Keys => self.page.key_head_count(),
            Rows::Values => self.page.value_head_count(),
        }
    }

    /// Asks for the next part.
    #[inline(always)]
    pub fn ask<D: Door>(&mut self, lanes: D) {
        let mut left = self.each;
        while left > 0 && self.at[0] < self.sources() {
            let [source, panel, line] = self.at;
            let (block, part) = match self.rows {
                Rows::Keys => (&self.page.keys, self.page.keys_at(source)),
                Rows::Values => (&self.page.values, self.page.values_at(source)),
            };
            let (of_panel, count) = (block.lines(panel), left.min(self.lines.end - line));
            let lines: &[[u32; LANES]] = self.words.part(part)[..block.words()].as_chunks().0;
            for line in line..line + count {
                lanes.prefetch(&lines[of_panel.at(line)]);
            }
            left -= count;
            self.at = if line + count < self.lines.end {
                [source, panel, line + count]
            } else if panel + 1 < self.panels.end {
                [source, panel + 1, self.lines.start]
            } else {
                [source + 1, self.panels.start, self.lines.start]
            };
        }
    }
}

/// Whether all numbers are below a limit; none that is NaN is.
#[inline(always)]
fn is_below<L: Lanes>(lanes: L, limit: f32, numbers: &[f32]) -> bool {
    let (limit, zero, one) = (F32::splat(lanes, limit), F32::splat(lanes, 0.0), F32::splat(lanes, 1.0));
    let mut above = zero;
    for &x in vectors(lanes, numbers) {
        above = F32::from_raw(lanes, x).abs().lt(limit).select(above, one);
    }
    !zero.lt(above).any()
}

/// Makes sums over sources: `rows` of factors, and for each a row of as many `lines` as there are of each source.
#[inline(always)]
pub(super) fn mix<D: Door>(
    lanes: D,
    (read, lines): (&[f32], usize),
    (factors, sources): (&[f32], usize),
    to: &mut [f32],
) {
    let len = lines * LANES;
    let (channels, depth) = (sources, sources);
    let block = Block { codec: Codec::F32, channels, panels: lines, depth, paired: false, groups: 0 };
    let words: &[u32] = bytemuck::cast_slice(&read[..len * sources]);
    let words = Words { block: &block, tokens: len, pages: 1, pairs: false, words, ahead: None };
    let rows = factors.len() / sources.max(1);
    cached::scores(lanes, words, (factors, rows), (CHAIN, len), Target { to, stride: len });
}

/// What the angles of keys are made of.
#[derive(Clone, Copy)]
pub(super) struct Angles<'a> {
    /// From a position to the next, as f64.
    pub frequencies: &'a [f32],
    /// Cosine and sine from the first token of a chunk to each, `[pair][2][token]`, as f64.
    pub steps: &'a [f32],
}

impl Angles<'_> {
    /// Makes [`Angles::steps`], for chunks of so many tokens.
    pub fn steps(frequencies: &[f32], per_token: u32, chunk: usize, to: &mut [f32]) {
        let frequencies: &[f64] = bytemuck::cast_slice(frequencies);
        let to: &mut [f64] = bytemuck::cast_slice_mut(to);
        for (to, frequency) in to.chunks_exact_mut(2 * chunk).zip(frequencies) {
            let (cos, sin) = to.split_at_mut(chunk);
            for (token, (cos, sin)) in cos.iter_mut().zip(sin).enumerate() {
                (*sin, *cos) = libm::sincos((token * per_token as usize) as f64 * frequency);
            }
        }
    }

    /// Writes cosines and sines, `[pair][token]`, of as many tokens as chunks have from a position on.
    #[inline(always)]
    pub fn from(&self, position: &Position, first: i32, chunk: usize, [cos, sin]: [&mut [f32]; 2]) {
        let frequencies: &[f64] = bytemuck::cast_slice(self.frequencies);
        let steps: &[f64] = bytemuck::cast_slice(self.steps);
        let factor = position.factor();
        let rows = cos.chunks_exact_mut(chunk).zip(sin.chunks_exact_mut(chunk));
        for (((cos, sin), steps), frequency) in rows.zip(steps.chunks_exact(2 * chunk)).zip(frequencies) {
            let (sin_first, cos_first) = libm::sincos(first as f64 * frequency);
            let (a, b) = (factor * cos_first, factor * sin_first);
            let (step_cos, step_sin) = steps.split_at(chunk);
            for (((cos, sin), c), s) in cos.iter_mut().zip(sin).zip(step_cos).zip(step_sin) {
                *cos = (a * c - b * s) as f32;
                *sin = (b * c + a * s) as f32;
            }
        }
    }

    /// The same of one position for one token.
    pub fn at(&self, position: &Position, at: i32, chunk: usize, token: usize, [cos, sin]: [&mut [f32]; 2]) {
        let frequencies: &[f64] = bytemuck::cast_slice(self.frequencies);
        let factor = position.factor();
        for (t, frequency) in frequencies.iter().enumerate().take(position.dim as usize / 2) {
            let (s, c) = libm::sincos(at as f64 * frequency);
            (cos[t * chunk + token], sin[t * chunk + token]) = ((factor * c) as f32, (factor * s) as f32);
        }
    }
}

/// Turns keys, `[line of tokens][channel][source][token]`, by angles that are `chunk` apart from pair to pair.
#[inline(always)]
pub(super) fn turn<L: Lanes>(
    lanes: L,
    position: &Position,
    ([cos, sin], chunk): ([&[f32]; 2], usize),
    (dim, sources): (usize, usize),
    keys: &mut [f32],
) {
    let (half, row) = (position.dim as usize / 2, sources * LANES);
    for (line, keys) in keys.chunks_exact_mut(dim * row).enumerate() {
        for t in 0..half {
            let pair = match position.layout {
                RopeLayout::Half => [t, t + half],
                RopeLayout::Interleaved => [2 * t, 2 * t + 1],
            };
            let [a, b] = pair.map(|channel| (position.offset as usize + channel) * row);
            let (left, right) = keys.split_at_mut(b);
            let at = t * chunk + line * LANES;
            let (cos, sin) = (&cos[at..][..LANES], &sin[at..][..LANES]);
            let pairs = left[a..][..row].chunks_exact_mut(LANES).zip(right[..row].chunks_exact_mut(LANES));
            for (a, b) in pairs {
                for v in (0..LANES).step_by(L::WIDTH) {
                    let (cos, sin) = (load_f32(lanes, &cos[v..]), load_f32(lanes, &sin[v..]));
                    let (x, y) = (load_f32(lanes, &a[v..]), load_f32(lanes, &b[v..]));
                    vectors_mut(lanes, &mut a[v..v + L::WIDTH])[0] = (x * cos - y * sin).raw();
                    vectors_mut(lanes, &mut b[v..v + L::WIDTH])[0] = (y * cos + x * sin).raw();
                }
            }
        }
    }
}

/// Norms mixed keys, `[line of tokens][channel][token]`.
#[inline(always)]
pub(super) fn normalise(norm: &QkNorm, learned: Option<&[f32]>, dim: usize, keys: &mut [f32]) {
    for keys in keys.chunks_exact_mut(dim * LANES) {
        let keys: &mut [Lane] = keys.as_chunks_mut().0;
        let mut squares = [0.0f64; LANES];
        for channel in &*keys {
            for (sum, &x) in squares.iter_mut().zip(channel) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        let factors = squares.map(|squares| inverse(norm, squares, dim));
        for (channel, keys) in keys.iter_mut().enumerate() {
            let learned = learned.map_or(1.0, |learned| learned[channel]);
            for (x, factor) in keys.iter_mut().zip(&factors) {
                *x *= factor * learned;
            }
        }
    }
}

/// The tokens that are set aside.
pub(super) fn bits(odd: u64) -> impl Iterator<Item = usize> {
    let tokens: Range<usize> = 0..u64::BITS as usize;
    tokens.filter(move |token| odd >> token & 1 != 0)
}
