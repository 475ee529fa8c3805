//! Rows of the tensors of lookahead keys on their way into panels.

use regard_engine::element::Elements;
use regard_engine::isa::Door;
use regard_engine::pack::{AsStored, Rows};
use regard_ir::cache::PageShape;
use regard_simd::{F32, round_bf16, vectors_mut};

use crate::cache::Caches;
use crate::flash::keys::CachedRows;
use crate::rows::Change;
use crate::view::View;

/// A tensor with a row for each token, and how rows change on their way.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    pub view: View<'a>,
    pub change: Option<Change<'a>>,
}

impl<'a> Tensor<'a> {
    /// The rows of a head from a token on.
    pub fn rows(self, batch: usize, head: usize, first: usize) -> TokenRows<'a> {
        TokenRows { tensor: self, batch, head, first }
    }
}

/// Rows of one head.
#[derive(Clone, Copy)]
pub struct TokenRows<'a> {
    tensor: Tensor<'a>,
    batch: usize,
    head: usize,
    first: usize,
}

impl<'a> TokenRows<'a> {
    #[inline(always)]
    fn stored(&self, i: usize) -> Elements<'a> {
        self.tensor.view.row(self.batch, self.head, self.first + i)
    }
}

impl<'t> Rows<'t> for TokenRows<'t> {
    #[inline(always)]
    fn row<'a, L: Door>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        let row = self.stored(i);
        match &self.tensor.change {
            None => row.widen(lanes, scratch),
            Some(change) => {
                let scratch = &mut scratch[..row.len()];
                row.widen_into(lanes, scratch);
                change.apply([self.batch, self.head, self.first + i], scratch);
                scratch
            }
        }
    }

    #[inline(always)]
    fn bf16_bits(&self, i: usize) -> Option<&'t [u16]> {
        if self.tensor.change.is_some() { None } else { self.stored(i).bf16_bits() }
    }

    #[inline(always)]
    fn words<'a, L: Door>(&self, lanes: L, i: usize, dim: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        match self.tensor.change {
            None => AsStored(|i| self.stored(i)).words(lanes, i, dim, scratch),
            Some(_) => Changing(self).words(lanes, i, dim, scratch),
        }
    }
}

/// Where what keys ask of later tokens comes from.
#[derive(Clone, Copy)]
pub enum Asks<'a> {
    /// From a tensor.
    Given(Tensor<'a>),
    /// From the pages of caches.
    Cached {
        /// That of each sequence.
        caches: &'a dyn Caches,
        /// What their pages are.
        page: PageShape,
    },
}

/// Rows of one head of them.
pub enum AskRows<'a> {
    Given(TokenRows<'a>),
    Cached(CachedRows<'a>),
}

impl<'t> Rows<'t> for AskRows<'t> {
    #[inline(always)]
    fn row<'a, L: Door>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        match self {
            AskRows::Given(rows) => rows.row(lanes, i, scratch),
            AskRows::Cached(rows) => rows.row(lanes, i, scratch),
        }
    }

    #[inline(always)]
    fn bf16_bits(&self, i: usize) -> Option<&'t [u16]> {
        match self {
            AskRows::Given(rows) => rows.bf16_bits(i),
            AskRows::Cached(_) => None,
        }
    }

    #[inline(always)]
    fn words<'a, L: Door>(&self, lanes: L, i: usize, dim: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        match self {
            AskRows::Given(rows) => rows.words(lanes, i, dim, scratch),
            AskRows::Cached(rows) => rows.words(lanes, i, dim, scratch),
        }
    }
}

/// The same rows, whose words are made of their floats.
struct Changing<'r, R>(&'r R);

impl<'t, R: Rows<'t>> Rows<'t> for Changing<'_, R> {
    #[inline(always)]
    fn row<'a, L: Door>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        self.0.row(lanes, i, scratch)
    }
}

/// Rows of floats, the first channels found by one function and the rest by another.
///
/// Functions are called through a pointer, so that one kind of rows, and so one packing, is made for all of them.
pub struct Joined<'f> {
    pub first: Find<'f>,
    pub rest: Find<'f>,
    /// Whether some may be no number: it is taken as 0.
    pub cleans: bool,
}

/// Finds a row.
type Find<'f> = &'f dyn Fn(usize) -> &'f [f32];

impl<'f> Joined<'f> {
    /// Rows of which one function finds all channels.
    pub fn all(first: Find<'f>) -> Self {
        Self { first, rest: &|_| &[], cleans: false }
    }
}

impl<'f> Rows<'f> for Joined<'f> {
    #[inline(always)]
    fn row<'a, L: Door>(&self, _: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        'f: 'a,
    {
        let (first, rest) = ((self.first)(i), (self.rest)(i));
        if rest.is_empty() && !self.cleans {
            return first;
        }
        let scratch = &mut scratch[..first.len() + rest.len()];
        let (to_first, to_rest) = scratch.split_at_mut(first.len());
        to_first.copy_from_slice(first);
        to_rest.copy_from_slice(rest);
        if self.cleans {
            scratch.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = 0.0);
        }
        scratch
    }
}

/// Rows of floats as two rows end to end that are their sum: the first is the nearest in bf16.
pub struct Halves<R> {
    pub rows: R,
    /// Whether some may be no number: it is taken as 0.
    pub cleans: bool,
}

impl<'t, 'f, R: Fn(usize) -> &'f [f32]> Rows<'t> for Halves<R> {
    #[inline(always)]
    fn row<'a, L: Door>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        let row = (self.rows)(i);
        let scratch = &mut scratch[..2 * row.len()];
        let (first, rest) = scratch.split_at_mut(row.len());
        first.copy_from_slice(row);
        if self.cleans {
            first.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = 0.0);
        }
        for (first, rest) in vectors_mut(lanes, first).iter_mut().zip(vectors_mut(lanes, rest)) {
            let whole = F32::from_raw(lanes, *first);
            let nearest = round_bf16(whole);
            (*first, *rest) = (nearest.raw(), (whole - nearest).raw());
        }
        scratch
    }
}

/// The rows of another source from `first` on.
pub struct Behind<'r, R> {
    pub rows: &'r R,
    pub first: usize,
}

impl<'t, R: Rows<'t>> Rows<'t> for Behind<'_, R> {
    #[inline(always)]
    fn scratch_len(&self, width: usize) -> usize {
        self.rows.scratch_len(width)
    }

    #[inline(always)]
    fn row<'a, L: Door>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        self.rows.row(lanes, self.first + i, scratch)
    }

    #[inline(always)]
    fn bf16_bits(&self, i: usize) -> Option<&'t [u16]> {
        self.rows.bf16_bits(self.first + i)
    }

    #[inline(always)]
    fn words<'a, L: Door>(&self, lanes: L, i: usize, dim: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        self.rows.words(lanes, self.first + i, dim, scratch)
    }
}

/// Values of keys that have none.
#[derive(Clone, Copy)]
pub struct NoValues;

impl<'t> Rows<'t> for NoValues {
    #[inline(always)]
    fn row<'a, L: Door>(&self, _: L, _: usize, _: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        &[]
    }
}
