//! The softmax family as the language defines it, one query row at a time.

use core::fmt;

use regard_ir::expr::Tree;
use regard_ir::inputs::Captured;
use regard_ir::plan::Dtype;
use regard_ir::problem::Problem;
use regard_ir::variant::{Sink, Variant, Weights};

use crate::eval::{IndexError, Scope, Value, eval};
use crate::tensor::Tensor4;

/// What a problem computes on.
#[derive(Clone, Copy, Debug)]
pub struct Tensors<'a> {
    /// Queries, `[batch, query heads, queries, dim]`.
    pub q: Tensor4<'a>,
    /// Keys, `[batch, key heads, keys, dim]`.
    pub k: Tensor4<'a>,
    /// Values, `[batch, value heads, keys, value_dim]`.
    pub v: Tensor4<'a>,
    /// What masks and modifiers read, bound to the same problem.
    pub captured: Captured<'a>,
    /// A logit for each query head where the sink is learned; not looked at otherwise.
    pub sink: &'a [f32],
}

/// One query row of one head.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The output, `value_dim` long.
    pub o: Vec<f64>,
    /// ln of the weights' sum under softmax, −inf where there is none; absent for weights that are not divided.
    pub lse: Option<f64>,
    /// The largest finite |score| of an allowed key, before or after the modifier; 0 where there is none.
    pub max_score: f64,
}

/// A tensor that does not fit the variant and the problem.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    /// Another shape.
    Shape {
        /// Which tensor.
        name: &'static str,
        /// Its shape.
        found: [usize; 4],
        /// What heads and lengths make of it.
        expected: [usize; 4],
    },
    /// Another storage type.
    Dtype {
        /// Which tensor.
        name: &'static str,
        /// Its type.
        found: Dtype,
        /// The type that it should have: that of `q`, or f32 for an lse.
        expected: Dtype,
    },
    /// Another number of captured inputs than the variant declares.
    Captured {
        /// How many are bound.
        found: usize,
        /// How many are declared.
        expected: usize,
    },
    /// Another number of sink logits than query heads.
    Sink {
        /// How many there are.
        found: usize,
        /// The number of query heads.
        expected: usize,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Shape { name, found, expected } => {
                write!(f, "`{name}` has shape {found:?}, the variant and the problem make it {expected:?}")
            }
            Mismatch::Dtype { name, found, expected } => {
                write!(f, "`{name}` is {}, expected {}", found.name(), expected.name())
            }
            Mismatch::Captured { found, expected } => {
                write!(f, "{found} captured inputs are bound, the variant declares {expected}")
            }
            Mismatch::Sink { found, expected } => {
                write!(f, "`sink` has {found} logits, there are {expected} query heads")
            }
        }
    }
}

impl std::error::Error for Mismatch {}

/// A variant on a problem's tensors, ready to be evaluated row by row.
#[derive(Clone, Copy, Debug)]
pub struct Oracle<'a> {
    variant: Variant<'a>,
    problem: Problem,
    tensors: Tensors<'a>,
}

impl<'a> Oracle<'a> {
    /// Checks the tensors against the variant and the problem.
    ///
    /// # Errors
    /// If a shape, a storage type, the number of captured inputs or of sink logits does not fit.
    pub fn new(variant: Variant<'a>, problem: Problem, tensors: Tensors<'a>) -> Result<Self, Mismatch> {
        let heads = &variant.heads;
        let size = |n: u32| n as usize;
        let (batch, queries, keys) = (size(problem.batch), size(problem.queries), size(problem.keys));
        let expected = [
            ("q", tensors.q, [batch, size(heads.query), queries, size(heads.dim)]),
            ("k", tensors.k, [batch, size(heads.kv), keys, size(heads.dim)]),
            ("v", tensors.v, [batch, size(heads.value), keys, size(heads.value_dim)]),
        ];
        for (name, tensor, expected) in expected {
            if tensor.shape() != expected {
                return Err(Mismatch::Shape { name, found: tensor.shape(), expected });
            }
            if tensor.dtype() != tensors.q.dtype() {
                return Err(Mismatch::Dtype { name, found: tensor.dtype(), expected: tensors.q.dtype() });
            }
        }
        if tensors.captured.count() != variant.inputs.len() {
            let (found, expected) = (tensors.captured.count(), variant.inputs.len());
            return Err(Mismatch::Captured { found, expected });
        }
        let learned = matches!(variant.weights, Weights::Softmax { sink: Sink::Learned { .. } });
        if learned && tensors.sink.len() != size(heads.query) {
            return Err(Mismatch::Sink { found: tensors.sink.len(), expected: size(heads.query) });
        }
        Ok(Self { variant, problem, tensors })
    }

    /// The variant.
    pub const fn variant(&self) -> &Variant<'a> {
        &self.variant
    }

    /// The problem.
    pub const fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The storage type of q, k and v.
    pub const fn dtype(&self) -> Dtype {
        self.tensors.q.dtype()
    }

    /// Whether rows have the log of their weights' sum.
    pub const fn has_lse(&self) -> bool {
        matches!(self.variant.weights, Weights::Softmax { .. })
    }

    /// Row `i` of query head `h` of sequence `b`, by the definition.
    ///
    /// The modifier is evaluated only where the mask allows the key, so a masked key has no effect, whatever it
    /// holds and whatever the modifier would read for it.
    ///
    /// # Errors
    /// If the mask or the modifier reads a captured input outside one of its axes.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, b: usize, h: usize, i: usize) -> Result<Row, IndexError> {
        let Self { variant, problem, tensors } = self;
        let heads = &variant.heads;
        let g = h / heads.group() as usize;
        let query = tensors.q.row(b, h, i);

        let mut scores = Vec::new();
        let mut max_score = 0.0;
        for j in 0..problem.keys as usize {
            let mut scope = Scope {
                b: b as i32,
                h: h as i32,
                g: g as i32,
                q: problem.q_offset + i as i32,
                k: j as i32,
                nq: problem.queries as i32,
                nk: problem.keys as i32,
                s: 0.0,
                x: 0.0,
            };
            if !self.bool(variant.allow, &scope)? {
                continue;
            }
            scope.s = variant.scale * dot(&query, &tensors.k.row(b, g, j));
            let score = self.float(variant.modify, &scope)?;
            for finite in [scope.s, score].into_iter().filter(|s| s.is_finite()) {
                max_score = finite.abs().max(max_score);
            }
            scores.push((j, score));
        }

        let (weights, divisor, lse) = self.weights(h, scores);
        let mut o = vec![0.0; heads.value_dim as usize];
        let value_head = g / (heads.kv / heads.value) as usize;
        for (j, weight) in weights {
            for (o, v) in o.iter_mut().zip(tensors.v.row(b, value_head, j)) {
                *o += weight * v;
            }
        }
        o.iter_mut().for_each(|o| *o /= divisor);
        Ok(Row { o, lse, max_score })
    }

    /// The weight of each key, what their sum of values is divided by, and the log of the weights' sum.
    ///
    /// The largest logit m is taken out of numerator and denominator, which leaves their ratio as it is.
    fn weights(&self, h: usize, mut keys: Vec<(usize, f64)>) -> (Vec<(usize, f64)>, f64, Option<f64>) {
        let sink = match self.variant.weights {
            Weights::Softmax { sink: Sink::None } => f64::NEG_INFINITY,
            Weights::Softmax { sink: Sink::One } => 0.0,
            Weights::Softmax { sink: Sink::Learned { .. } } => self.tensors.sink[h].into(),
            Weights::Sigmoid => {
                keys.iter_mut().for_each(|(_, w)| *w = 1.0 / (1.0 + (-*w).exp()));
                return (keys, 1.0, None);
            }
            Weights::Relu => {
                keys.iter_mut().filter(|(_, w)| *w < 0.0).for_each(|(_, w)| *w = 0.0);
                return (keys, 1.0, None);
            }
        };
        let max_key = keys.iter().fold(f64::NEG_INFINITY, |m, &(_, s)| max_or_nan(m, s));
        if max_key == f64::NEG_INFINITY {
            return (Vec::new(), 1.0, Some(sink));
        }
        let m = max_or_nan(max_key, sink);
        keys.iter_mut().for_each(|(_, s)| *s = (*s - m).exp());
        let sum = keys.iter().map(|(_, w)| w).sum::<f64>() + (sink - m).exp();
        (keys, sum, Some(m + sum.ln()))
    }

    fn bool(&self, tree: Tree<'_>, scope: &Scope) -> Result<bool, IndexError> {
        match eval(tree, scope, &self.tensors.captured)? {
            Value::Bool(value) => Ok(value),
            other => unreachable!("a mask is a bool, not {other:?}"),
        }
    }

    fn float(&self, tree: Tree<'_>, scope: &Scope) -> Result<f64, IndexError> {
        match eval(tree, scope, &self.tensors.captured)? {
            Value::Float(value) => Ok(value),
            other => unreachable!("a score is a float, not {other:?}"),
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn max_or_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || a >= b { a } else { b }
}
