//! Rows of q and k on their way into panels: normed and turned, each once a pass.

use regard_engine::isa::Door;
use regard_engine::pack::Rows;
use regard_ir::inputs::Captured;
use regard_ir::rows::{Position, QkNorm, RopeLayout};
use regard_ir::variant::{Mechanism, Turned, Variant};
use regard_simd::Lanes;

use crate::tokens::{Known, Tokens, inverse};
use crate::view::View;

/// How the rows of q, or those of k, change: what does not depend on the row.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    position: Option<&'a Position>,
    norm: Option<&'a QkNorm>,
    /// The norm's factors, where there are learned ones.
    learned: Option<&'a [f32]>,
    side: Side,
    tokens: Tokens<'a>,
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
        Some(Self { position, norm, learned, side, tokens })
    }

    /// Changes the row of a head and token that lies there.
    #[inline(always)]
    pub fn apply(&self, [batch, head, token]: [usize; 3], row: &mut [f32]) {
        let token = self.known([batch, token]);
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

    /// The same of all rows, the first of which lies there and the others after it, so far apart: norms of several rows are taken
    /// together, as each waits long for its root.
    #[inline(always)]
    pub fn apply_all(&self, [batch, head, token]: [usize; 3], dim: usize, rows: &mut [f32], stride: usize) {
        const TOGETHER: usize = 16;
        let alone = self.norm.filter(|norm| !norm.after_rope && !norm.all_heads);
        for (at, rows) in rows.chunks_mut(TOGETHER * stride).enumerate() {
            let token = token + at * TOGETHER;
            // One row waits for one root, not for those of rows that are not there.
            let Some(norm) = alone.filter(|_| rows.len() > stride) else {
                for (row, to) in rows.chunks_exact_mut(stride).enumerate() {
                    self.apply([batch, head, token + row], &mut to[..dim]);
                }
                continue;
            };
            let mut sums = [0.0; TOGETHER];
            for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(stride)) {
                *sum = squares(&row[..dim]);
            }
            let factors = sums.map(|sum| inverse(norm, sum, dim));
            for (row, (to, factor)) in rows.chunks_exact_mut(stride).zip(factors).enumerate() {
                let to = &mut to[..dim];
                self.multiply(factor, 0, to);
                if let Some(position) = self.position {
                    turn(position, self.known([batch, token + row]), to);
                }
            }
        }
    }

    #[inline(always)]
    fn known(&self, [batch, token]: [usize; 2]) -> Known<'a> {
        match self.side {
            Side::Query => self.tokens.query(batch, token),
            Side::Key => self.tokens.key(batch, token),
        }
    }

    #[inline(always)]
    fn normalise(&self, norm: &QkNorm, head: usize, token: Known<'_>, row: &mut [f32]) {
        let factor = if norm.all_heads { token.norm } else { inverse(norm, squares(row), row.len()) };
        self.multiply(factor, if norm.all_heads { head * row.len() } else { 0 }, row);
    }

    /// Multiplies a row by a norm's factor, and by the learned ones from `first` on.
    #[inline(always)]
    fn multiply(&self, factor: f32, first: usize, row: &mut [f32]) {
        match self.learned {
            None => row.iter_mut().for_each(|x| *x *= factor),
            Some(learned) => {
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
        // All eight at each step: written one after the other they would not become vectors.
        let x = x.map(f64::from);
        sums = core::array::from_fn(|i| sums[i] + x[i] * x[i]);
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
    let angles = token.cos.iter().zip(token.sin).map(|(&cos, &sin)| (cos, sin));
    match token.further {
        None => turn_by(position.layout, angles, row),
        Some([cos, sin]) => {
            let further = angles.zip(cos.iter().zip(sin)).map(|((cos, sin), (further_cos, further_sin))| {
                (cos * further_cos - sin * further_sin, sin * further_cos + cos * further_sin)
            });
            turn_by(position.layout, further, row);
        }
    }
}

#[inline(always)]
fn turn_by(layout: RopeLayout, angles: impl Iterator<Item = (f32, f32)>, row: &mut [f32]) {
    match layout {
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

/// Rows of queries or of keys, wherever they lie.
#[derive(Clone, Copy)]
pub(crate) enum Tensor<'a> {
    /// In one tensor.
    One(View<'a>),
    /// In two, the channels of the second behind those of the first.
    Two([View<'a>; 2]),
    /// In one of floats that was made of others.
    Made(View<'a>),
}

impl<'a> Tensor<'a> {
    /// Elements of a row.
    pub const fn width(&self) -> usize {
        match self {
            Tensor::One(view) | Tensor::Made(view) => view.width(),
            Tensor::Two([first, second]) => first.width() + second.width(),
        }
    }

    /// The one tensor of rows in their storage type; none of others.
    pub const fn one(&self) -> Option<View<'a>> {
        match self {
            Tensor::One(view) => Some(*view),
            Tensor::Two(_) | Tensor::Made(_) => None,
        }
    }

    /// Writes a row, widened, to `to`, which is as long.
    #[inline(always)]
    pub fn read<L: Lanes>(&self, lanes: L, [batch, head, token]: [usize; 3], to: &mut [f32]) {
        match self {
            Tensor::One(view) | Tensor::Made(view) => view.row(batch, head, token).widen_into(lanes, to),
            Tensor::Two([first, second]) => {
                let (left, right) = to.split_at_mut(first.width());
                first.row(batch, head, token).widen_into(lanes, left);
                second.row(batch, head, token).widen_into(lanes, right);
            }
        }
    }
}

/// Rows on their way, changed where they change; `at` finds one.
pub(crate) struct Changed<'a, A> {
    pub change: Option<Change<'a>>,
    pub tensor: Tensor<'a>,
    pub at: A,
}

impl<'t, A: Fn(usize) -> [usize; 3]> Rows<'t> for Changed<'_, A> {
    #[inline(always)]
    fn row<'a, L: Door>(&self, lanes: L, i: usize, scratch: &'a mut [f32]) -> &'a [f32]
    where
        't: 'a,
    {
        let at = (self.at)(i);
        let row = &mut scratch[..self.tensor.width()];
        self.tensor.read(lanes, at, row);
        if let Some(change) = &self.change {
            change.apply(at, row);
        }
        scratch
    }
}

/// Whether rope turns the rows of a side.
pub(crate) fn turns(variant: &Variant<'_>, side: Side) -> bool {
    match (variant.mechanism, side) {
        (Mechanism::Lookahead(lookahead), Side::Query) => lookahead.turns(Turned::QC),
        (Mechanism::Lookahead(lookahead), Side::Key) => lookahead.turns(Turned::KC),
        _ => true,
    }
}
