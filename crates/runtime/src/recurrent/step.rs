//! Few tokens, one after the other: the state stays where it is, and each token reads and writes it once. A delta rule reads it once
//! before, when it comes into the nearest cache that holds the state of a head.

use regard_engine::Engine;
use regard_engine::element::Element;
use regard_engine::grid::Claim;

use super::chunk::Decays;
use super::memory::Memory;
use super::part::{Part, Span};
use super::rows::dot;

/// Rows of the state of a head, and its sum of features: those that a caller keeps, or where none are kept a worker's own.
enum Rows<'x, 'c, T> {
    Kept(&'x mut Claim<'c, T>, usize),
    Own(&'x mut [f32], usize),
}

impl<T> Rows<'_, '_, T> {
    /// Row `c`: channels of the part alone, or more.
    #[inline(always)]
    fn row(&mut self, c: usize) -> &mut [f32] {
        match self {
            Rows::Kept(claim, head) => claim.state(*head, c).unwrap_or_default(),
            Rows::Own(rows, width) => &mut rows[c * *width..][..*width],
        }
    }
}

/// What a token does to a state.
struct Token<'m> {
    query: &'m [f32],
    key: &'m [f32],
    /// What the state's rows are multiplied by, where they decay.
    keep: Option<&'m [f32]>,
    /// How strongly a delta rule writes.
    beta: Option<f32>,
}

impl<E: Engine, T: Element> Part<'_, '_, E, T> {
    /// Some tokens, one after the other: on the states that are the caller's, or on a worker's own.
    #[inline(always)]
    pub(super) fn one_by_one(
        &self,
        claim: &mut Claim<'_, T>,
        memory: &mut Memory<'_>,
        tokens: Span,
        is_kept: bool,
    ) {
        let layout = self.shared.layout;
        for token in tokens.first..tokens.first + tokens.count {
            let span = Span { first: token, count: 1 };
            self.features(0, memory, span);
            self.features(1, memory, span);
            for (at, head) in self.heads.clone().enumerate() {
                self.values(memory, (0, head), span);
                self.strengths(memory, head, span);
                let decays = self.decays(memory, head, span);
                if decays == Decays::Channels {
                    super::channels::keep(self.shared.engine.lanes(), layout, memory);
                }
                let divisor = self.sum_features(claim, memory, (at, head, token), (decays, is_kept));
                let Memory { q, k, values, o, keep, factors: [.., betas], states, .. } = &mut *memory;
                let own = &mut states[at * layout.dims * layout.width..];
                let mut rows = match is_kept {
                    true => Rows::Kept(claim, head),
                    false => Rows::Own(own, layout.width),
                };
                let (value, o) = (&mut values[..self.channels.len()], &mut o[..self.channels.len()]);
                let of = Token {
                    query: &q[..layout.dim],
                    key: &k[..layout.dim],
                    keep: (decays != Decays::None).then_some(&**keep),
                    beta: self.rule.delta.then(|| betas[0]),
                };
                if self.restarts(token) {
                    for c in 0..layout.dim {
                        rows.row(c).fill(0.0);
                    }
                }
                of.write(&mut rows, value, o);
                let factor = divisor.map_or(self.rule.scale, |divisor| 1.0 / divisor);
                for o in o {
                    *o *= factor;
                }
                self.write(claim, memory, head, span);
            }
        }
    }

    /// Adds the features of a token's key to their sum, and gives what its output is divided by, where it is.
    #[inline(always)]
    fn sum_features(
        &self,
        claim: &mut Claim<'_, T>,
        memory: &mut Memory<'_>,
        (at, head, token): (usize, usize, usize),
        (decays, is_kept): (Decays, bool),
    ) -> Option<f32> {
        let eps = self.rule.normalize_eps?;
        let layout = self.shared.layout;
        let Memory { q, k, keep, norms, .. } = memory;
        let norm = &mut norms[at * layout.dims..][..layout.dims];
        if let Some(kept) = claim.norm(head).filter(|_| is_kept) {
            norm.fill(0.0);
            norm[..kept.len()].copy_from_slice(kept);
        }
        if self.restarts(token) {
            norm.fill(0.0);
        }
        for ((norm, key), keep) in norm.iter_mut().zip(&**k).zip(&**keep) {
            *norm = if decays == Decays::None { *norm + key } else { *norm * keep + key };
        }
        if let Some(kept) = claim.norm(head).filter(|_| is_kept) {
            kept.copy_from_slice(&norm[..kept.len()]);
        }
        Some(dot(self.shared.engine.lanes(), &q[..layout.dims], norm) + eps)
    }
}

impl Token<'_> {
    /// Decays the state, writes to it and reads it.
    #[inline(always)]
    fn write<T>(&self, rows: &mut Rows<'_, '_, T>, value: &mut [f32], o: &mut [f32]) {
        let keep = |c: usize| self.keep.map_or(1.0, |keep| keep[c]);
        if let Some(beta) = self.beta {
            o.fill(0.0);
            for (c, key) in self.key.iter().enumerate() {
                let factor = key * keep(c);
                for (o, s) in o.iter_mut().zip(&*rows.row(c)) {
                    *o += factor * s;
                }
            }
            for (value, recalled) in value.iter_mut().zip(&*o) {
                *value = beta * (*value - recalled);
            }
        }
        o.fill(0.0);
        for (c, (key, query)) in self.key.iter().zip(self.query).enumerate() {
            let (row, keep) = (rows.row(c), keep(c));
            for ((s, value), o) in row.iter_mut().zip(&*value).zip(&mut *o) {
                *s = keep * *s + key * value;
                *o += query * *s;
            }
        }
    }
}
