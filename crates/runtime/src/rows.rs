//! Rows of q and k on their way into panels: normed and turned, each once a pass.

use core::marker::PhantomData;

use regard_engine::element::Element;
use regard_engine::pack::Rows;
use regard_ir::inputs::Captured;
use regard_ir::rows::{Position, QkNorm, RopeLayout};
use regard_ir::variant::Variant;
use regard_simd::Lanes;

use crate::tokens::{Known, Tokens, inverse};

/// How the rows of q, or those of k, change: what does not depend on the row.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    position: Option<&'a Position>,
    norm: Option<&'a QkNorm>,
    /// The norm's factors, where there are learned ones.
    learned: Option<&'a [f32]>,
    pub tokens: Tokens<'a>,
}

/// Rows of q or of k.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Query,
    Key,
}

impl<'a> Change<'a> {
    /// `None` where rows stay as they are.
    pub fn new(
        variant: &'a Variant<'a>,
        side: Side,
        captured: &Captured<'a>,
        tokens: Tokens<'a>,
    ) -> Option<Self> {
        let (position, norm) = (variant.position.as_ref(), variant.qk_norm.as_ref());
        if position.is_none() && norm.is_none() {
            return None;
        }
        let learned = norm.and_then(|norm| norm.learned).map(|inputs| inputs[side as usize]);
        let learned = learned.and_then(|input| captured.floats(input));
        Some(Self { position, norm, learned, tokens })
    }

    /// Norms and turns a row of a head.
    #[inline(always)]
    pub fn apply(&self, head: usize, token: Known<'_>, row: &mut [f32]) {
        let first = self.norm.filter(|norm| !norm.after_rope);
        if let Some(norm) = first {
            self.normalise(norm, head, token, row);
        }
        if let Some(position) = self.position {
            turn(position, token, row);
        }
        if let Some(norm) = self.norm.filter(|norm| norm.after_rope) {
            self.normalise(norm, head, token, row);
        }
    }

    #[inline(always)]
    fn normalise(&self, norm: &QkNorm, head: usize, token: Known<'_>, row: &mut [f32]) {
        let factor = if norm.all_heads { token.norm } else { inverse(norm, squares(row), row.len()) };
        match self.learned {
            None => row.iter_mut().for_each(|x| *x *= factor),
            Some(learned) => {
                let first = if norm.all_heads { head * row.len() } else { 0 };
                for (x, learned) in row.iter_mut().zip(&learned[first..]) {
                    *x *= factor * learned;
                }
            }
        }
    }
}

/// Σ x², in f64: no row that f32 can hold overflows.
#[inline(always)]
fn squares(row: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (eights, rest) = row.as_chunks::<8>();
    for x in eights {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += x as f64 * x as f64;
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum += x as f64 * x as f64;
    }
    sums.iter().sum()
}

/// Turns the rotary channels by the token's angles.
#[inline(always)]
fn turn(position: &Position, token: Known<'_>, row: &mut [f32]) {
    let row = &mut row[position.offset as usize..][..position.dim as usize];
    let angles = token.cos.iter().zip(token.sin);
    match position.layout {
        RopeLayout::Half => {
            let (left, right) = row.split_at_mut(row.len() / 2);
            for ((a, b), (cos, sin)) in left.iter_mut().zip(right).zip(angles) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
        RopeLayout::Interleaved => {
            for ([a, b], (cos, sin)) in row.as_chunks_mut().0.iter_mut().zip(angles) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

/// Rows that change on their way: `row` finds one and says of which head, and `token` what is known of its token.
pub(crate) struct Changed<'c, T, R, K> {
    pub change: Change<'c>,
    pub row: R,
    pub token: K,
    elements: PhantomData<T>,
}

impl<'c, T, R, K> Changed<'c, T, R, K> {
    pub fn new(change: Change<'c>, row: R, token: K) -> Self {
        Self { change, row, token, elements: PhantomData }
    }
}

impl<'t, 'c, T, R, K> Rows<'t> for Changed<'c, T, R, K>
where
    T: Element,
    R: Fn(usize) -> (usize, &'t [T]),
    K: Fn(usize) -> Known<'c>,
{
    #[inline(always)]
    fn row<'a, L: Lanes>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        let (head, row) = (self.row)(i);
        T::widen_into(lanes, row, scratch);
        self.change.apply(head, (self.token)(i), scratch);
        scratch
    }
}
