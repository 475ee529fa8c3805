//! Sums of rows over heads: pseudo-heads on their way into panels, and outputs that several heads make.
//!
//! Of some sources several sums are made at once, so that a source is loaded once for all of them and sums stay in registers
//! while the sources pass by.

use core::cell::RefCell;
use core::ops::Range;

use regard_engine::Op;
use regard_engine::isa::Door;
use regard_engine::pack::Rows;
use regard_ir::cache::PageShape;
use regard_ir::inputs::{BindError, Captured};
use regard_ir::variant::Variant;
use regard_simd::{F32, Lanes, load_f32, vectors_mut};

use crate::cache::CachedSequence;
use crate::lines::LINE_BYTES;
use crate::rows::Change;
use crate::view::View;

/// Sums that are made at once.
pub(crate) const SUMS: usize = 4;

/// Sources that one chain of a sum runs over.
pub(crate) const CHAIN: usize = 16;

/// Vectors of a sum that are made at once: with [`SUMS`] of them, one of a source and a factor they fit 16 registers.
const VECTORS: usize = 2;

/// What sources are multiplied by, of the first source and sum on.
#[derive(Clone, Copy)]
pub(crate) struct Factors<'a> {
    pub data: &'a [f32],
    /// Elements from a source to the next.
    pub source: usize,
    /// Elements from a sum to the next.
    pub sum: usize,
}

/// Adds Σ factor · source to each of the sums, rows of `width`, over at most [`CHAIN`] sources at least as wide.
#[inline(always)]
pub(crate) fn add<L: Lanes>(
    lanes: L,
    sources: &[&[f32]],
    factors: Factors<'_>,
    sums: &mut [f32],
    width: usize,
) {
    let mut first = 0;
    for sums in sums.chunks_mut(SUMS * width.max(1)) {
        let factors = Factors { data: &factors.data[first * factors.sum..], ..factors };
        match sums.len() / width.max(1) {
            4 => add_sums::<L, 4>(lanes, sources, factors, sums, width),
            3 => add_sums::<L, 3>(lanes, sources, factors, sums, width),
            2 => add_sums::<L, 2>(lanes, sources, factors, sums, width),
            _ => add_sums::<L, 1>(lanes, sources, factors, sums, width),
        }
        first += SUMS;
    }
}

#[inline(always)]
fn add_sums<L: Lanes, const N: usize>(
    lanes: L,
    sources: &[&[f32]],
    factors: Factors<'_>,
    sums: &mut [f32],
    width: usize,
) {
    let mut of_source = [[0.0; N]; CHAIN];
    for (s, of_source) in of_source.iter_mut().enumerate().take(sources.len()) {
        for (n, factor) in of_source.iter_mut().enumerate() {
            *factor = factors.data[s * factors.source + n * factors.sum];
        }
    }
    let factors = &of_source[..sources.len()];
    let mut channel = 0;
    while channel + VECTORS * L::WIDTH <= width {
        add_vectors::<L, N, VECTORS>(lanes, sources, factors, sums, [channel, width]);
        channel += VECTORS * L::WIDTH;
    }
    while channel + L::WIDTH <= width {
        add_vectors::<L, N, 1>(lanes, sources, factors, sums, [channel, width]);
        channel += L::WIDTH;
    }
    for channel in channel..width {
        for n in 0..N {
            let mut sum = 0.0;
            for (source, factors) in sources.iter().zip(factors) {
                sum += source[channel] * factors[n];
            }
            sums[n * width + channel] += sum;
        }
    }
}

#[inline(always)]
fn add_vectors<L: Lanes, const N: usize, const V: usize>(
    lanes: L,
    sources: &[&[f32]],
    factors: &[[f32; N]],
    sums: &mut [f32],
    [channel, width]: [usize; 2],
) {
    let mut chains = [[F32::splat(lanes, 0.0); V]; N];
    for (source, factors) in sources.iter().zip(factors) {
        let source = &source[channel..channel + V * L::WIDTH];
        let mut x = [F32::splat(lanes, 0.0); V];
        for (v, x) in x.iter_mut().enumerate() {
            *x = load_f32(lanes, &source[v * L::WIDTH..]);
        }
        for (chain, &factor) in chains.iter_mut().zip(factors) {
            let factor = F32::splat(lanes, factor);
            for (chain, x) in chain.iter_mut().zip(x) {
                *chain = x.mul_add(factor, *chain);
            }
        }
    }
    for (n, chain) in chains.into_iter().enumerate() {
        let sums = &mut sums[n * width + channel..][..V * L::WIDTH];
        for (chain, sum) in chain.into_iter().zip(vectors_mut(lanes, sums)) {
            *sum = (F32::from_raw(lanes, *sum) + chain).raw();
        }
    }
}

/// How heads are mixed into pseudo-heads.
#[derive(Clone, Copy)]
pub(crate) struct Mixes<'a> {
    /// Positions of a token.
    pub per_token: usize,
    heads: usize,
    /// Of q, k and v `[source][head][pseudo-head]`.
    factors: [&'a [f32]; 3],
}

impl<'a> Mixes<'a> {
    /// `None` where heads are not mixed.
    ///
    /// # Errors
    /// If an input is not as long as the heads make it.
    pub fn new(variant: &Variant<'_>, captured: &Captured<'a>) -> Result<Option<Self>, BindError> {
        let Some(pseudo) = variant.pseudo() else { return Ok(None) };
        let [heads, kv, per_token] =
            [variant.heads.query, variant.heads.kv, pseudo.heads].map(|n| n as usize);
        let mut factors = [&[][..]; 3];
        for ((to, input), sources) in factors.iter_mut().zip(pseudo.mix).zip([heads, kv, kv]) {
            *to = floats(captured, input, sources.saturating_mul(heads).saturating_mul(per_token))?;
        }
        Ok(Some(Self { per_token, heads, factors }))
    }

    /// What sources are multiplied by, `[source][head][pseudo-head]`.
    pub fn factors(&self, which: Which) -> &'a [f32] {
        self.factors[which as usize]
    }

    /// Heads that they are mixed into.
    pub const fn heads(&self) -> usize {
        self.heads
    }

    /// Heads that are mixed.
    pub fn sources(&self, which: Which) -> usize {
        self.factors(which).len().checked_div(self.heads * self.per_token).unwrap_or(0)
    }

    /// Floats that [`MixedRows`] works in, of rows of this width from so many heads at most: those that it keeps, and what they
    /// are mixed from.
    pub fn room_len(per_token: usize, most_sources: usize, width: usize) -> usize {
        let read = (READ / width.max(1)).max(most_sources).min(most_sources.saturating_mul(MOST_READ));
        SUMS.min(per_token).saturating_add(read).saturating_mul(width)
    }
}

/// Tokens whose rows are read at once, of so many heads. One token's rows lie far apart where heads come before tokens, and
/// are slow to come one by one; those of a few tokens are runs.
fn tokens_at_once(n_sources: usize, width: usize) -> usize {
    (READ / n_sources.saturating_mul(width).max(1)).clamp(1, MOST_READ)
}

/// Floats of rows that are read at once, and their tokens at most: a small part of a second-level cache.
const READ: usize = 1 << 14;
const MOST_READ: usize = 8;

/// The elements of a captured input, which must be so many.
pub(crate) fn floats<'a>(
    captured: &Captured<'a>,
    input: u16,
    expected: usize,
) -> Result<&'a [f32], BindError> {
    let data = captured.floats(input).unwrap_or_default();
    if data.len() == expected {
        Ok(data)
    } else {
        Err(BindError::Len { input: input.into(), expected, found: data.len() })
    }
}

/// Which of the three rows are of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Query,
    Key,
    Value,
}

/// Rows of a sequence's tokens, of all heads, that are mixed.
#[derive(Clone, Copy)]
pub(crate) enum Sources<'a> {
    /// In a tensor.
    Given {
        rows: View<'a>,
        /// The sequence, along the tensor's first axis.
        batch: usize,
    },
    /// In a cache, which holds keys and values as they were given.
    Cached { cache: CachedSequence<'a>, page: PageShape },
}

/// A tensor whose heads are mixed.
#[derive(Clone, Copy)]
pub(crate) struct Mixed<'a> {
    pub mixes: Mixes<'a>,
    pub which: Which,
    pub sources: Sources<'a>,
    /// The mixed head.
    pub head: usize,
}

impl Mixed<'_> {
    /// Channels of a row.
    fn width(&self) -> usize {
        match self.sources {
            Sources::Given { rows, .. } => rows.width(),
            Sources::Cached { page, .. } if self.which == Which::Value => page.values.channels,
            Sources::Cached { page, .. } => page.keys.channels,
        }
    }

    /// Heads that are mixed.
    fn count(&self) -> usize {
        match self.sources {
            Sources::Given { rows, .. } => rows.counts()[1],
            Sources::Cached { page, .. } if self.which == Which::Value => page.value_head_count(),
            Sources::Cached { page, .. } => page.key_head_count(),
        }
    }

    /// Tokens that have rows.
    fn tokens(&self) -> usize {
        match self.sources {
            Sources::Given { rows, .. } => rows.counts()[2],
            Sources::Cached { cache, .. } => cache.len as usize,
        }
    }

    /// What a chain of sources is multiplied by, which begins with the given one, for pseudo-heads from `first` on.
    #[inline(always)]
    fn factors(&self, source: usize, first: usize) -> Factors<'_> {
        let Mixes { per_token, heads, factors } = self.mixes;
        let at = (source * heads + self.head) * per_token + first;
        Factors { data: &factors[self.which as usize][at..], source: heads * per_token, sum: 1 }
    }

    /// Reads the rows of some tokens, source by source.
    #[inline(always)]
    fn read<L: Lanes>(&self, lanes: L, tokens: Range<usize>, to: &mut [f32]) {
        let width = self.width().max(1);
        for (source, to) in to.chunks_exact_mut(tokens.len() * width).enumerate().take(self.count()) {
            match self.sources {
                Sources::Given { rows, batch } => {
                    for (token, to) in tokens.clone().zip(to.chunks_exact_mut(width)) {
                        rows.row(batch, source, token).widen_into(lanes, to);
                    }
                }
                Sources::Cached { cache, page } => match self.which {
                    Which::Value => cache.read_values(lanes, &page, source, tokens.clone(), to),
                    Which::Query | Which::Key => cache.read_keys(lanes, &page, source, tokens.clone(), to),
                },
            }
        }
    }

    /// Asks for the rows of a token of a tensor, where there is such.
    #[inline(always)]
    fn ask<L: Lanes>(&self, lanes: L, token: usize) {
        let Sources::Given { rows, batch } = self.sources else { return };
        if token < self.tokens() {
            for source in 0..self.count() {
                for x in rows.row(batch, source, token).bytes().iter().step_by(LINE_BYTES) {
                    lanes.prefetch(x);
                }
            }
        }
    }

    /// Writes the rows that pseudo-heads from `first` on have at token number `token` of `count` whose rows were read.
    #[inline(always)]
    fn mix<L: Lanes>(
        &self,
        lanes: L,
        read: &[f32],
        [token, count]: [usize; 2],
        first: usize,
        to: &mut [f32],
    ) {
        let (n_sources, width) = (self.count(), self.width());
        to.fill(0.0);
        for chain in (0..n_sources).step_by(CHAIN) {
            let sources = CHAIN.min(n_sources - chain);
            let mut found: [&[f32]; CHAIN] = [&[]; CHAIN];
            for (source, found) in (chain..).zip(&mut found[..sources]) {
                *found = &read[(source * count + token) * width..][..width];
            }
            add(lanes, &found[..sources], self.factors(chain, first), to, width);
        }
    }

    /// One channel of the row of a virtual token's value, as [`Mixed::mix`] makes it.
    pub fn channel<L: Door>(&self, lanes: L, virtual_token: usize, channel: usize) -> f32 {
        lanes.call(Channel { lanes, mixed: self, virtual_token, channel })
    }
}

/// See [`Mixed::channel`]. A function of its own: what asks for it is not compiled for the set.
struct Channel<'r, 'a, L> {
    lanes: L,
    mixed: &'r Mixed<'a>,
    virtual_token: usize,
    channel: usize,
}

impl<L: Door> Op for Channel<'_, '_, L> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let Self { lanes, mixed, virtual_token, channel } = self;
        let per_token = mixed.mixes.per_token;
        let (token, first) = (virtual_token / per_token, virtual_token % per_token);
        let begin = channel / L::WIDTH * L::WIDTH;
        let channels = begin..(begin + L::WIDTH).min(mixed.width());
        let mut sum = [0.0; MAX_WIDTH];
        let sum = &mut sum[..channels.len()];
        for chain in (0..mixed.count()).step_by(CHAIN) {
            let sources = CHAIN.min(mixed.count() - chain);
            let mut read = [[0.0; MAX_WIDTH]; CHAIN];
            for (source, read) in (chain..).zip(&mut read[..sources]) {
                for (channel, to) in channels.clone().zip(read) {
                    *to = match mixed.sources {
                        Sources::Given { rows, batch } => rows.row(batch, source, token).to_f32(channel),
                        Sources::Cached { cache, page } => cache.value(&page, source, token, channel),
                    };
                }
            }
            let found = read.each_ref().map(|read| &read[..channels.len()]);
            add(lanes, &found[..sources], mixed.factors(chain, first), sum, channels.len());
        }
        sum[channel - begin]
    }
}

/// The most lanes of a vector.
const MAX_WIDTH: usize = 16;

/// Mixed rows on their way into panels, normed and turned where they are to be.
///
/// The rows of a token are mixed together and kept until another token's are asked for.
pub(crate) struct MixedRows<'a, 'm> {
    mixed: Mixed<'a>,
    /// The virtual token of row 0: along the token axis, or of a cache by its position.
    first: usize,
    /// What happens to rows, and where what is known of their virtual tokens lies.
    change: Option<(Change<'a>, Known)>,
    kept: RefCell<Kept<'m>>,
}

struct Kept<'m> {
    /// The token, and the pseudo-head of the first row.
    of: Option<[usize; 2]>,
    rows: &'m mut [f32],
    /// Tokens whose rows were read.
    tokens: Range<usize>,
    read: &'m mut [f32],
}

/// Where what is known of the virtual tokens of rows lies.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    /// The sequence, along the tensor's first axis.
    pub batch: usize,
    /// The virtual token of row 0, along the token axis.
    pub first: usize,
}

impl<'a, 'm> MixedRows<'a, 'm> {
    /// Rows from a virtual token on; `memory` is as long as [`Mixes::room_len`] says.
    pub fn new(
        mixed: Mixed<'a>,
        first: usize,
        change: Option<(Change<'a>, Known)>,
        memory: &'m mut [f32],
    ) -> Self
where {
        let (rows, read) = memory.split_at_mut(SUMS.min(mixed.mixes.per_token) * mixed.width());
        Self { mixed, first, change, kept: RefCell::new(Kept { of: None, rows, tokens: 0..0, read }) }
    }
}

/// Mixes rows of a token from a pseudo-head on: a function of its own, for it is large, and packing reads rows in many places.
struct Keep<'r, 'a, 'm, L> {
    lanes: L,
    mixed: &'r Mixed<'a>,
    /// The token, and the pseudo-head of the first row.
    at: [usize; 2],
    kept: &'r mut Kept<'m>,
}

impl<L: Door> Op for Keep<'_, '_, '_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, mixed, at: [token, first], kept } = self;
        let (per_token, width) = (mixed.mixes.per_token, mixed.width());
        if !kept.tokens.contains(&token) {
            let most = tokens_at_once(mixed.count(), width);
            kept.tokens = token..mixed.tokens().min(token + most);
            mixed.read(lanes, kept.tokens.clone(), kept.read);
        }
        let to = &mut kept.rows[..SUMS.min(per_token - first) * width];
        let at = [token - kept.tokens.start, kept.tokens.len()];
        if first == 0 {
            // It is read when those are mixed that were read before.
            mixed.ask(lanes, token + kept.tokens.len());
        }
        mixed.mix(lanes, kept.read, at, first, to);
        kept.of = Some([token, first]);
    }
}

impl<'t> Rows<'t> for MixedRows<'_, '_> {
    #[inline(always)]
    fn row<'a, L: Door>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        let Mixed { mixes: Mixes { per_token, .. }, head, .. } = self.mixed;
        let (at, width) = (self.first + i, self.mixed.width());
        let (token, pseudo_head) = (at / per_token, at % per_token);
        let first = pseudo_head / SUMS * SUMS;
        let mut kept = self.kept.borrow_mut();
        let kept = &mut *kept;
        if kept.of != Some([token, first]) {
            lanes.call(Keep { lanes, mixed: &self.mixed, at: [token, first], kept });
        }
        let scratch = &mut scratch[..width];
        scratch.copy_from_slice(&kept.rows[(pseudo_head - first) * width..][..width]);
        if let Some((change, Known { batch, first })) = &self.change {
            change.apply([*batch, head, first + i], scratch);
        }
        scratch
    }
}

/// Outputs that are sums over heads, or over their pseudo-heads.
#[derive(Clone, Copy)]
pub(crate) struct Combination<'a> {
    /// Output heads.
    pub heads: usize,
    /// Positions of a token.
    pub per_token: usize,
    /// `[output heads, query heads · per_token]`
    pub factors: &'a [f32],
}

impl<'a> Combination<'a> {
    /// What a variant makes of its heads' sums; `None` where each head is an output.
    ///
    /// # Errors
    /// If an input is not as long as the heads make it.
    pub fn new(variant: &Variant<'_>, captured: &Captured<'a>) -> Result<Option<Self>, BindError> {
        let (heads, per_token, input) = match (variant.pseudo(), variant.output.mix) {
            (Some(pseudo), _) => (variant.heads.query, pseudo.heads, pseudo.collapse),
            (_, Some(mix)) => (mix.heads, 1, mix.input),
            (_, None) => return Ok(None),
        };
        let [heads, query_heads, per_token] = [heads, variant.heads.query, per_token].map(|n| n as usize);
        let expected = heads.saturating_mul(query_heads).saturating_mul(per_token);
        Ok(Some(Self { heads, per_token, factors: floats(captured, input, expected)? }))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use regard_engine::isa::scalar::Scalar;

    use super::*;

    #[test]
    fn there_is_room_for_what_is_read_at_once() {
        for most in [1, 2, 7, 16, 31, 100, 500] {
            for width in [1, 8, 64, 128, 500] {
                let read = |n: usize| tokens_at_once(n, width) * n * width;
                let room = Mixes::room_len(1, most, width) - width;
                assert!((1..=most).all(|n| read(n) <= room), "{most} heads of {width}");
            }
        }
    }

    #[test]
    fn sums_of_any_number_and_width_are_over_all_sources() {
        for (sources, sums, width) in [(1, 1, 1), (3, 4, 5), (16, 5, 8), (2, 7, 3), (0, 2, 4)] {
            let rows: Vec<Vec<f32>> =
                (0..sources).map(|s| (0..width).map(|c| (s * 7 + c) as f32).collect()).collect();
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let data: Vec<f32> = (0..sources * sums).map(|i| i as f32 / 4.0).collect();
            let mut found = vec![1.0; sums * width];
            let factors = Factors { data: &data, source: sums, sum: 1 };
            add(Scalar, &rows, factors, &mut found, width);
            for (at, found) in found.into_iter().enumerate() {
                let of = |s: usize| rows[s][at % width] * data[s * sums + at / width];
                assert_eq!(found, 1.0 + (0..sources).map(of).sum::<f32>());
            }
        }
    }
}
