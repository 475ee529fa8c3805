//! What happens to rows: to those of q and k before they meet, and to those of o after the weighted sum.

use core::ops::Range;

use regard_ir::inputs::InputData;
use regard_ir::problem::Sequence;
use regard_ir::rows::{NormKind, Position, QkNorm};
use regard_ir::variant::{Mechanism, Pseudo, Source, Turned};

use crate::eval::{IndexError, Scope};
use crate::formula::{Keys, Oracle, sigmoid};

/// Which of the three a row is of.
#[derive(Clone, Copy)]
enum Side {
    Query,
    Key,
    Value,
}

impl Oracle<'_> {
    /// Pseudo-heads, where heads are mixed into such.
    pub(crate) fn pseudo(&self) -> Option<Pseudo> {
        self.variant.pseudo()
    }

    /// Positions of a token.
    pub(crate) const fn per_token(&self) -> usize {
        self.variant.per_token() as usize
    }

    /// The query row of a scope's sequence and head, normalised and turned by the position of the scope's query.
    ///
    /// # Errors
    /// If positions come from an input and the query's is not among them.
    pub(crate) fn query(&self, scope: &Scope, of: &Sequence, i: usize) -> Result<Vec<f64>, IndexError> {
        let ids = self.ids().filter(|_| self.variant.source == Source::SelfAttention);
        let at = match ids {
            None => scope.q,
            Some((input, ids)) => {
                let len = of.keys * self.per_token() as u32;
                match u32::try_from(scope.q - self.variant.tokens_before(of)) {
                    Ok(q) if q < len => ids[self.key_row(of, q as usize)],
                    _ => return Err(IndexError { input, axis: 1, index: scope.q, len, scope: *scope }),
                }
            }
        };
        let row = [of.batch as usize, scope.h as usize, of.first_query as usize + i];
        Ok(match self.variant.mechanism {
            Mechanism::Latent(_) => {
                let [nope, rope] = [0, 1].map(|operand| self.row(operand, row));
                [nope, self.turned(rope, at)].concat()
            }
            _ => self.prepare(Side::Query, of, [scope.h as usize, i], at),
        })
    }

    /// Key row `j` of a head, normalised and turned by its position, if it was not before.
    pub(crate) fn key(&self, of: &Sequence, g: usize, j: usize) -> Vec<f64> {
        let at = self.turned_by(of, j);
        match self.keys {
            Keys::Mixed => self.given(Side::Key, of, [g, j]),
            Keys::Cached if self.pseudo().is_none() => {
                self.row(1, [of.batch as usize, g, of.first_key as usize + j])
            }
            Keys::Given | Keys::Cached => self.prepare(Side::Key, of, [g, j], at),
        }
    }

    /// Value row `j` of what a key head reads.
    pub(crate) fn value(&self, of: &Sequence, g: usize, j: usize) -> Vec<f64> {
        let heads = self.heads();
        self.given(Side::Value, of, [g / (heads.kv / heads.value) as usize, j])
    }

    /// Key row `j` of the head whose matrix makes keys: what that makes of the latent, and the rotary key.
    pub(crate) fn key_of_latent(&self, of: &Sequence, matrix: &[Vec<f64>], j: usize) -> Vec<f64> {
        let rope = self.row(3, [of.batch as usize, 0, of.first_key as usize + j]);
        let rope = if self.keys == Keys::Given { self.turned(rope, self.turned_by(of, j)) } else { rope };
        [self.made_of_latent(of, matrix, j), rope].concat()
    }

    /// What a head's matrix makes of latent `j`.
    pub(crate) fn made_of_latent(&self, of: &Sequence, matrix: &[Vec<f64>], j: usize) -> Vec<f64> {
        let latent = self.row(2, [of.batch as usize, 0, of.first_key as usize + j]);
        combine(latent.into_iter(), matrix)
    }

    /// Value row `j` of a value head.
    pub(crate) fn own_value(&self, of: &Sequence, v: usize, j: usize) -> Vec<f64> {
        self.row(2, [of.batch as usize, v, of.first_key as usize + j])
    }

    /// One row of an operand.
    fn row(&self, operand: usize, [b, h, n]: [usize; 3]) -> Vec<f64> {
        self.tensors.operands[operand].row(b, h, n)
    }

    /// A head's matrix, column by column.
    pub(crate) fn columns(&self, operand: usize, head: usize) -> Vec<Vec<f64>> {
        let [.., rows, width] = self.tensors.operands[operand].shape();
        let rows: Vec<_> = (0..rows).map(|row| self.row(operand, [0, head, row])).collect();
        (0..width).map(|column| rows.iter().map(|row| row[column]).collect()).collect()
    }

    /// A row turned by a position, where rows are.
    fn turned(&self, mut row: Vec<f64>, at: i32) -> Vec<f64> {
        if let Some(rope) = &self.rope {
            rope.turn(&mut row, at);
        }
        row
    }

    /// A row of `q_u`, `k_u` or `v_u`, turned by its token's position where it is.
    pub(crate) fn lookahead_row(&self, of: &Sequence, tensor: Turned, h: usize, j: usize) -> Vec<f64> {
        let operand = match tensor {
            Turned::QC => 0,
            Turned::KC => 1,
            Turned::QU => 3,
            Turned::KU => 4,
            Turned::VU => 5,
        };
        let row = self.row(operand, [of.batch as usize, h, of.first_key as usize + j]);
        if self.turns(tensor) { self.turned(row, self.turned_by(of, j)) } else { row }
    }

    /// The position that token `j` is turned by.
    fn turned_by(&self, of: &Sequence, j: usize) -> i32 {
        match self.ids() {
            None => self.variant.tokens_before(of) + j as i32,
            Some((_, ids)) => ids[self.key_row(of, j)],
        }
    }

    /// Where key `j` of a sequence lies among the keys of all.
    fn key_row(&self, of: &Sequence, j: usize) -> usize {
        let [_, _, keys] = self.problem.extents();
        (of.batch as usize * keys as usize + of.first_key as usize) * self.per_token() + j
    }

    /// The input that gives positions, and its elements `[batch, keys]`.
    fn ids(&self) -> Option<(usize, &[i32])> {
        let input = self.variant.position.as_ref().and_then(|&Position { ids, .. }| ids)?.into();
        match self.tensors.captured.data(input) {
            InputData::I32(ids) => Some((input, ids)),
            other => unreachable!("checked to be i32, not {}", other.dtype().name()),
        }
    }

    /// Row `i` of a head before anything happens to it; of pseudo-heads that of a virtual token, mixed.
    fn given(&self, side: Side, of: &Sequence, [head, i]: [usize; 2]) -> Vec<f64> {
        let first = if let Side::Query = side { of.first_query } else { of.first_key };
        let (operand, token) = (side as usize, first as usize + i / self.per_token());
        match self.pseudo() {
            None => self.row(operand, [of.batch as usize, head, token]),
            Some(_) if self.keys == Keys::Mixed && !matches!(side, Side::Query) => {
                self.row(operand, [of.batch as usize, head, first as usize * self.per_token() + i])
            }
            Some(pseudo) => {
                let factors = self.factors(pseudo.mix[side as usize]);
                let (p, to, n) = (pseudo.heads as usize, head, self.variant.heads.query as usize);
                let sources: Vec<Vec<f64>> = (0..self.tensors.operands[operand].shape()[1])
                    .map(|source| self.row(operand, [of.batch as usize, source, token]))
                    .collect();
                let of_head = (0..sources.len()).map(|source| factors[(source * n + to) * p + i % p]);
                combine(of_head.map(f64::from), &sources)
            }
        }
    }

    /// A row of q or k, or of what takes its place, as it enters the products.
    fn prepare(&self, side: Side, of: &Sequence, [h, i]: [usize; 2], at: i32) -> Vec<f64> {
        let norm = self.variant.qk_norm;
        let learned = norm.and_then(|norm| norm.learned).map(|learned| self.factors(learned[side as usize]));
        // What is normalised together: the token's rows of all heads, or this head's alone.
        let heads = match norm {
            Some(QkNorm { all_heads: true, .. }) => {
                0..match side {
                    Side::Query => self.variant.heads.query as usize,
                    _ => self.variant.heads.kv as usize,
                }
            }
            _ => h..h + 1,
        };
        let mut rows: Vec<Vec<f64>> = heads.clone().map(|h| self.given(side, of, [h, i])).collect();
        let (before, after) = match norm {
            Some(norm) if norm.after_rope => (None, Some(norm)),
            norm => (norm, None),
        };
        if let Some(QkNorm { kind, eps, .. }) = before {
            normalise(&mut rows, kind, eps, learned);
        }
        let kind = if let Side::Query = side { Turned::QC } else { Turned::KC };
        if let Some(rope) = self.rope.as_ref().filter(|_| self.turns(kind)) {
            rows.iter_mut().for_each(|row| rope.turn(row, at));
        }
        if let Some(QkNorm { kind, eps, .. }) = after {
            normalise(&mut rows, kind, eps, learned);
        }
        rows.swap_remove(h - heads.start)
    }

    /// The outputs of some output heads for row `i`, from the weighted sums of the query heads that make them: mixed,
    /// normalised, gated, each where the variant says so.
    pub(crate) fn outputs(
        &self,
        of: &Sequence,
        i: usize,
        output_heads: Range<usize>,
        sums: impl Iterator<Item = Vec<f64>>,
    ) -> Vec<Vec<f64>> {
        let output = &self.variant.output;
        let mut rows: Vec<Vec<f64>> = sums.collect();
        let mix = self.pseudo().map(|pseudo| pseudo.collapse).or(output.mix.map(|mix| mix.input));
        if let Some(mix) = mix {
            let factors = self.factors(mix).chunks_exact(rows.len());
            rows = factors.map(|factors| combine(factors.iter().copied().map(f64::from), &rows)).collect();
        }
        if let Some(norm) = output.norm {
            let learned = norm.learned.map(|input| self.factors(input));
            rows.iter_mut()
                .for_each(|row| normalise(core::slice::from_mut(row), NormKind::Rms, norm.eps, learned));
        }
        if let (Some(gate), Some(tensor)) = (output.gate, self.tensors.gate) {
            for (row, n) in rows.iter_mut().zip(output_heads) {
                let values = tensor.row(of.batch as usize, n, of.first_query as usize + i);
                for (c, o) in row.iter_mut().enumerate() {
                    let x = values[if gate.per_head { 0 } else { c }];
                    *o *= if gate.silu { x * sigmoid(x) } else { sigmoid(x) };
                }
            }
        }
        rows
    }
}

/// Divides rows by the norm of all their channels together, and multiplies each channel by its factor.
fn normalise(rows: &mut [Vec<f64>], kind: NormKind, eps: f64, learned: Option<&[f32]>) {
    let squares: f64 = rows.iter().flatten().map(|x| x * x).sum();
    let n = rows.iter().map(Vec::len).sum::<usize>() as f64;
    let norm = match kind {
        NormKind::Rms => (squares / n + eps).sqrt(),
        NormKind::L2 => (squares + eps).sqrt(),
    };
    rows.iter_mut().flatten().for_each(|x| *x /= norm);
    if let Some(factors) = learned {
        rows.iter_mut().flatten().zip(factors).for_each(|(x, &factor)| *x *= f64::from(factor));
    }
}

/// Σ factor · row.
fn combine(factors: impl Iterator<Item = f64>, rows: &[Vec<f64>]) -> Vec<f64> {
    let mut sum = vec![0.0; rows.first().map_or(0, Vec::len)];
    for (factor, row) in factors.zip(rows) {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += factor * x);
    }
    sum
}
