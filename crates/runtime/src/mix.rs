//! Sums of rows over heads: pseudo-heads on their way into panels, and outputs that several heads make.
//!
//! Of some sources several sums are made at once, so that a source is loaded once for all of them and sums stay in registers
//! while the sources pass by.

use core::cell::RefCell;

use regard_engine::element::Element;
use regard_engine::pack::Rows;
use regard_ir::inputs::{BindError, Captured};
use regard_ir::variant::Variant;
use regard_simd::{F32, Lanes, vectors_mut};

use crate::rows::{Change, Side};
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
pub(crate) fn add<L: Lanes, T: Element>(
    lanes: L,
    sources: &[&[T]],
    factors: Factors<'_>,
    sums: &mut [f32],
    width: usize,
) {
    let mut first = 0;
    for sums in sums.chunks_mut(SUMS * width.max(1)) {
        let factors = Factors { data: &factors.data[first * factors.sum..], ..factors };
        match sums.len() / width.max(1) {
            4 => add_sums::<L, T, 4>(lanes, sources, factors, sums, width),
            3 => add_sums::<L, T, 3>(lanes, sources, factors, sums, width),
            2 => add_sums::<L, T, 2>(lanes, sources, factors, sums, width),
            _ => add_sums::<L, T, 1>(lanes, sources, factors, sums, width),
        }
        first += SUMS;
    }
}

#[inline(always)]
fn add_sums<L: Lanes, T: Element, const N: usize>(
    lanes: L,
    sources: &[&[T]],
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
        add_vectors::<L, T, N, VECTORS>(lanes, sources, factors, sums, [channel, width]);
        channel += VECTORS * L::WIDTH;
    }
    while channel + L::WIDTH <= width {
        add_vectors::<L, T, N, 1>(lanes, sources, factors, sums, [channel, width]);
        channel += L::WIDTH;
    }
    for channel in channel..width {
        for n in 0..N {
            let mut sum = 0.0;
            for (source, factors) in sources.iter().zip(factors) {
                sum += source[channel].to_f32() * factors[n];
            }
            sums[n * width + channel] += sum;
        }
    }
}

#[inline(always)]
fn add_vectors<L: Lanes, T: Element, const N: usize, const V: usize>(
    lanes: L,
    sources: &[&[T]],
    factors: &[[f32; N]],
    sums: &mut [f32],
    [channel, width]: [usize; 2],
) {
    let mut chains = [[F32::splat(lanes, 0.0); V]; N];
    for (source, factors) in sources.iter().zip(factors) {
        let source = &source[channel..channel + V * L::WIDTH];
        let mut x = [F32::splat(lanes, 0.0); V];
        for (v, x) in x.iter_mut().enumerate() {
            *x = T::load(lanes, &source[v * L::WIDTH..]);
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

    /// Floats of what [`MixedRows`] keeps, of rows of this width.
    pub const fn kept_len(per_token: usize, width: usize) -> usize {
        let sums = if per_token < SUMS { per_token } else { SUMS };
        sums.saturating_mul(width)
    }
}

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

/// A tensor whose heads are mixed: its rows, those of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Mixed<'a, T> {
    pub mixes: Mixes<'a>,
    /// Which of q, k and v it is, 0 to 2.
    pub which: usize,
    pub rows: View<'a, T>,
    /// The sequence, along the tensor's first axis.
    pub batch: usize,
    /// The mixed head.
    pub head: usize,
}

impl<T: Element> Mixed<'_, T> {
    /// Writes some channels of the rows that pseudo-heads from `first` on have at a token.
    #[inline(always)]
    pub fn write<L: Lanes>(
        &self,
        lanes: L,
        [token, first]: [usize; 2],
        channels: core::ops::Range<usize>,
        to: &mut [f32],
    ) {
        let Mixes { per_token, heads, factors } = self.mixes;
        let [_, sources, _] = self.rows.counts();
        to.fill(0.0);
        for chain in (0..sources).step_by(CHAIN) {
            let count = CHAIN.min(sources - chain);
            let mut found: [&[T]; CHAIN] = [&[]; CHAIN];
            for (source, found) in (chain..).zip(&mut found[..count]) {
                *found = &self.rows.row(self.batch, source, token)[channels.clone()];
            }
            let at = (chain * heads + self.head) * per_token + first;
            let factors = Factors { data: &factors[self.which][at..], source: heads * per_token, sum: 1 };
            add(lanes, &found[..count], factors, to, channels.len());
        }
    }

    /// One channel of the row of a virtual token, as [`Mixed::write`] makes it.
    pub fn channel<L: Lanes>(&self, lanes: L, virtual_token: usize, channel: usize) -> f32 {
        let mut around = [0.0; MAX_WIDTH];
        let first = channel / L::WIDTH * L::WIDTH;
        let channels = first..(first + L::WIDTH).min(self.rows.width());
        let around = &mut around[..channels.len()];
        let per_token = self.mixes.per_token;
        self.write(lanes, [virtual_token / per_token, virtual_token % per_token], channels, around);
        around[channel - first]
    }
}

/// The most lanes of a vector.
const MAX_WIDTH: usize = 16;

/// Mixed rows on their way into panels, normed and turned where they are to be.
///
/// The rows of a token are mixed together and kept until another token's are asked for.
pub(crate) struct MixedRows<'a, 'm, T> {
    mixed: Mixed<'a, T>,
    /// The virtual token of row 0, along the token axis.
    first: usize,
    change: Option<(Change<'a>, Side)>,
    kept: RefCell<Kept<'m>>,
}

struct Kept<'m> {
    /// The token, and the pseudo-head of the first row.
    of: Option<[usize; 2]>,
    rows: &'m mut [f32],
}

impl<'a, 'm, T> MixedRows<'a, 'm, T> {
    /// Rows from a virtual token on; `memory` is as long as [`Mixes::kept_len`] says.
    pub fn new(
        mixed: Mixed<'a, T>,
        first: usize,
        change: Option<(Change<'a>, Side)>,
        memory: &'m mut [f32],
    ) -> Self {
        Self { mixed, first, change, kept: RefCell::new(Kept { of: None, rows: memory }) }
    }
}

impl<'t, T: Element> Rows<'t> for MixedRows<'_, '_, T> {
    #[inline(always)]
    fn row<'a, L: Lanes>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        let Mixed { mixes: Mixes { per_token, .. }, batch, head, rows, .. } = self.mixed;
        let (at, width) = (self.first + i, rows.width());
        let (token, pseudo_head) = (at / per_token, at % per_token);
        let first = pseudo_head / SUMS * SUMS;
        let mut kept = self.kept.borrow_mut();
        let kept = &mut *kept;
        if kept.of != Some([token, first]) {
            let to = &mut kept.rows[..SUMS.min(per_token - first) * width];
            self.mixed.write(lanes, [token, first], 0..width, to);
            kept.of = Some([token, first]);
        }
        let scratch = &mut scratch[..width];
        scratch.copy_from_slice(&kept.rows[(pseudo_head - first) * width..][..width]);
        if let Some((change, side)) = &self.change {
            let known = match side {
                Side::Query => change.tokens.query(batch, at),
                Side::Key => change.tokens.key(batch, at),
            };
            change.apply(head, known, scratch);
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

    use regard_engine::isa::Scalar;

    use super::*;

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
