//! A variant on a few numbers.

use regard_ir::expr::Expr;
use regard_ir::identity::Identity;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::problem::{OwnedProblem, Problem};
use regard_ir::rows::{Output, Position, QkNorm};
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Mechanism, Sink, Source, Variant, Weights};
use regard_oracle::eval::IndexError;
use regard_oracle::random::CapturedBuffer;
use regard_oracle::{Elements, Mismatch, Oracle, Row, Tensor4, Tensors};

use crate::trees::plain;

pub(crate) const ONE_HEAD: Heads = Heads { query: 1, kv: 1, value: 1, dim: 1, value_dim: 1 };
pub(crate) const SOFTMAX: Weights = Weights::Softmax { sink: Sink::None };

/// A variant, scale 1, and the tensors of one sequence in f32; lengths are those of q and k.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) heads: Heads,
    pub(crate) source: Source,
    pub(crate) position: Option<Position>,
    pub(crate) qk_norm: Option<QkNorm>,
    pub(crate) modify: Expr,
    pub(crate) allow: Expr,
    pub(crate) weights: Weights,
    pub(crate) mechanism: Mechanism<'static>,
    pub(crate) output: Output,
    pub(crate) inputs: Vec<(InputShape, CapturedBuffer)>,
    pub(crate) q_offset: Option<i64>,
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    pub(crate) gate: Option<Vec<f32>>,
}

/// A query row of a head that is not mixed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HeadRow {
    pub(crate) o: Vec<f64>,
    pub(crate) lse: Option<f64>,
    pub(crate) max_score: f64,
}

impl Case {
    /// Heads of some shape without tables.
    pub(crate) fn new(heads: Heads, allow: Expr, q: &[f32], k: &[f32], v: &[f32]) -> Self {
        let (q, k, v) = (q.to_vec(), k.to_vec(), v.to_vec());
        Case {
            heads,
            source: Source::SelfAttention,
            position: None,
            qk_norm: None,
            modify: plain(),
            allow,
            weights: SOFTMAX,
            mechanism: Mechanism::Plain,
            output: Output { lse: true, ..Output::default() },
            inputs: Vec::new(),
            q_offset: None,
            q,
            k,
            v,
            gate: None,
        }
    }

    /// One head of width one; the score of key j is `q[i] * k[j]`.
    pub(crate) fn scalar(allow: Expr, q: &[f32], k: &[f32], v: &[f32]) -> Self {
        Self::new(ONE_HEAD, allow, q, k, v)
    }

    /// With an f32 input after those that there are.
    pub(crate) fn input(mut self, data: &[f32]) -> Self {
        let shape = InputShape::new(InputType::F32, &[Axis::Len(data.len() as u32)]);
        self.inputs.push((shape, CapturedBuffer::F32(data.to_vec())));
        self
    }

    /// With the i32 input `[b, k]` after those that there are.
    pub(crate) fn ids(mut self, data: &[i32]) -> Self {
        let shape = InputShape::new(InputType::I32, &[Axis::Batch, Axis::Key]);
        self.inputs.push((shape, CapturedBuffer::I32(data.to_vec())));
        self
    }

    /// Row `i` of head `h`, where heads are not mixed.
    pub(crate) fn row(&self, h: usize, i: usize) -> HeadRow {
        let Row { o, lse, max_scores } = self.part_row(h, i).unwrap();
        let [o] = <[_; 1]>::try_from(o).unwrap();
        HeadRow { o, lse: lse.map(|lse| lse[0]), max_score: max_scores[0] }
    }

    /// Row `i` of a part.
    pub(crate) fn part_row(&self, part: usize, i: usize) -> Result<Row, IndexError> {
        self.with(|oracle| oracle.unwrap().part(part).row(i))
    }

    /// Why the oracle refuses the case.
    pub(crate) fn refused(&self) -> Mismatch {
        self.with(|oracle| oracle.unwrap_err())
    }

    fn with<R>(&self, f: impl FnOnce(Result<Oracle<'_>, Mismatch>) -> R) -> R {
        let heads = &self.heads;
        let rows = |data: &[f32], n: u32, d: u32| data.len() / (n * d) as usize;
        let (nq, nk) = (rows(&self.q, heads.query, heads.dim), rows(&self.k, heads.kv, heads.dim));
        let mut problem = Problem::prefill(self.source, 1, nq, nk).unwrap();
        if let Some(q_offset) = self.q_offset {
            problem = problem.with_q_offset(q_offset).unwrap();
        }
        let (shapes, buffers): (Vec<InputShape>, Vec<&CapturedBuffer>) =
            self.inputs.iter().map(|(shape, buffer)| (*shape, buffer)).unzip();
        let data: Vec<InputData<'_>> = buffers.into_iter().map(CapturedBuffer::data).collect();
        let variant = Variant {
            identity: Identity(0),
            heads: self.heads,
            source: self.source,
            position: self.position,
            qk_norm: self.qk_norm,
            scale: 1.0,
            modify: self.modify.tree(),
            allow: self.allow.tree(),
            weights: self.weights,
            mechanism: self.mechanism,
            output: self.output,
            inputs: &shapes,
        };
        let positions = OwnedProblem::spread(&problem, variant.per_token());
        // Where it has no positions, no input here counts them.
        let positions = positions.unwrap_or_else(|_| (&problem).into());
        let tensor = |data, n: u32, len, d: u32| {
            Tensor4::dense(Elements::F32(data), [1, n as usize, len, d as usize]).unwrap()
        };
        let gate = self.gate.as_ref().map(|gate| {
            let width = (gate.len() / nq) as u32 / variant.output_heads();
            tensor(gate, variant.output_heads(), nq, width)
        });
        let tensors = Tensors {
            operands: &[
                tensor(&self.q, heads.query, nq, heads.dim),
                tensor(&self.k, heads.kv, nk, heads.dim),
                tensor(&self.v, heads.value, nk, heads.value_dim),
            ],
            captured: Captured::bind(&shapes, &data, heads, self.source, &positions.view()).unwrap(),
            gate,
        };
        f(Oracle::new(variant, problem, tensors))
    }
}

pub(crate) fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-14 * expected.abs().max(1.0), "{found} is not {expected}");
}

/// Each number close to its expectation.
pub(crate) fn all_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).for_each(|(&found, &expected)| close(found, expected));
}
