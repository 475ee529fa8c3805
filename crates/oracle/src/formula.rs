//! The softmax family as the language defines it, one query row at a time.

use core::ops::Range;

use regard_ir::expr::Tree;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::plan::{Dtype, Precision};
use regard_ir::problem::{Problem, Sequence};
use regard_ir::variant::{Heads, Mechanism, Sink, Variant, Weights};

use crate::eval::{IndexError, Scope, Value, eval};
use crate::known::Known;
use crate::lookahead::{Learner, silu};
use crate::mismatch::{self, Mismatch};
use crate::recurrence::{Running, Start, Writer};
use crate::rope::Rope;
use crate::tensor::Tensor4;

/// What a problem computes on.
#[derive(Clone, Copy, Debug)]
pub struct Tensors<'a> {
    /// The variant's operands, in the order of [`Variant::operands`]: `[batch, heads, rows, width]`, with 1 in the place of an
    /// axis that an operand does not have. Rows are tokens, whatever these are mixed into.
    pub operands: &'a [Tensor4<'a>],
    /// What expressions and learned tables read, bound to the same problem; of pseudo-heads to the problem in virtual
    /// tokens.
    pub captured: Captured<'a>,
    /// The gate of the outputs, `[batch, output heads, queries, value_dim]` or, where it is per head, `[…, 1]`, in the
    /// type of q or in f32; for variants that have one.
    pub gate: Option<Tensor4<'a>>,
}

/// What keys and values are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keys {
    /// As the formula is given them.
    #[default]
    Given,
    /// As a cache holds them: keys are normalised and turned, unless they are yet to be mixed into pseudo-heads.
    Cached,
    /// As a cache of pseudo-heads holds their rows: `[batch, query heads, virtual tokens, width]`, mixed, and keys normalised and
    /// turned.
    Mixed,
}

/// A variant on a problem's tensors, ready to be evaluated part by part.
#[derive(Clone, Debug)]
pub struct Oracle<'a> {
    pub(crate) variant: Variant<'a>,
    pub(crate) problem: Problem<'a>,
    pub(crate) tensors: Tensors<'a>,
    pub(crate) rope: Option<Rope>,
    rounds: bool,
    pub(crate) keys: Keys,
    pub(crate) start: Option<Start<'a>>,
    precision: Precision,
    known: Option<&'a Known>,
}

/// The query heads of a sequence that make outputs together, with their keys and values prepared: a single one, or all
/// where the outputs are mixed. Of a recurrence, a value head.
#[derive(Clone, Debug)]
pub struct Part<'o> {
    oracle: &'o Oracle<'o>,
    /// Which of the oracle's parts it is.
    index: usize,
    b: usize,
    /// The sequence's lengths, and where its rows lie.
    of: Sequence,
    query_heads: Range<usize>,
    /// Of each key head that the query heads read.
    memories: Vec<Memory>,
    first_key_head: usize,
    /// The lookahead keys of each query head, where the variant has them.
    learners: Vec<Learner>,
    /// The state of a recurrence.
    writer: Option<Writer>,
}

/// The keys of one head, normalised and turned, and their values.
#[derive(Clone, Debug)]
struct Memory {
    keys: Matrix,
    values: Matrix,
}

/// One query row of the heads of a part.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The output of each output head, `value_dim` long.
    pub o: Vec<Vec<f64>>,
    /// ln of the weights' sum of each query head under softmax, −inf where there is none; absent for weights that are
    /// not divided.
    pub lse: Option<Vec<f64>>,
    /// The largest finite |score| of an allowed key of each query head, before or after the modifier, or of what it is made of;
    /// 0 where there is none.
    pub max_scores: Vec<f64>,
}

impl<'a> Oracle<'a> {
    /// Checks the tensors against the variant and the problem, which counts tokens.
    ///
    /// # Errors
    /// If a shape, a storage type, the captured inputs or the presence of a gate does not fit.
    pub fn new(variant: Variant<'a>, problem: Problem<'a>, tensors: Tensors<'a>) -> Result<Self, Mismatch> {
        Self::on(Keys::Given, variant, problem, tensors)
    }

    /// The same formula, where keys and values are what a cache holds.
    ///
    /// # Errors
    /// As [`Oracle::new`].
    pub fn on(
        keys: Keys,
        variant: Variant<'a>,
        problem: Problem<'a>,
        tensors: Tensors<'a>,
    ) -> Result<Self, Mismatch> {
        mismatch::check((&variant, keys), &problem, &tensors)?;
        let rope = variant.position.map(|position| Rope::new(position, &tensors.captured));
        let (rounds, precision) = (false, Precision::Exact);
        Ok(Self { variant, problem, tensors, rope, rounds, keys, start: None, precision, known: None })
    }

    /// The same formula with each score, weight and weighted sum rounded to binary32, which is the least that f32
    /// arithmetic does: it tells a wrong result from one that cancels too far to be computed in f32.
    pub fn rounding(self) -> Self {
        Self { rounds: true, known: None, ..self }
    }

    /// The same formula, whose rows are kept in `known` and taken from there: it is of this oracle alone, and of others that are
    /// the same but for their precision.
    pub fn knowing(self, known: &'a Known) -> Self {
        Self { known: Some(known).filter(|_| !self.rounds), ..self }
    }

    /// The same formula, for kernels of this precision: it says which bounds hold.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The same formula, where states are these before the first token; else they are zero.
    pub fn starting(self, start: Start<'a>) -> Self {
        Self { start: Some(start), ..self }
    }

    fn round(&self, x: f64) -> f64 {
        if self.rounds { x as f32 as f64 } else { x }
    }

    /// The variant.
    pub const fn variant(&self) -> &Variant<'a> {
        &self.variant
    }

    /// The problem.
    pub const fn problem(&self) -> &Problem<'a> {
        &self.problem
    }

    /// The storage type of q, k and v.
    pub const fn dtype(&self) -> Dtype {
        self.tensors.operands[0].dtype()
    }

    /// How precise kernels are to be.
    pub const fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether rows have the log of their weights' sum.
    pub fn has_lse(&self) -> bool {
        let has_sums = self.pseudo().is_none() && self.variant.recurrence().is_none();
        has_sums && matches!(self.variant.weights, Weights::Softmax { .. })
    }

    /// How many parts there are: one for each query head of each sequence, of a recurrence each value head, or for each sequence
    /// where heads are mixed.
    pub fn parts(&self) -> usize {
        let heads = if self.mixes() { 1 } else { self.variant.sum_heads() };
        self.problem.batch as usize * heads as usize
    }

    /// Whether an output is made of all heads.
    fn mixes(&self) -> bool {
        self.variant.output.mix.is_some() || self.pseudo().is_some()
    }

    /// How much memory a part takes; saturates.
    pub fn part_bytes(&self) -> u128 {
        let heads = &self.heads();
        let key_heads = if self.mixes() { heads.kv } else { 1 };
        let channels = u128::from(heads.dim) + u128::from(heads.value_dim);
        [channels, self.problem.keys.into(), self.per_token() as u128, size_of::<f64>() as u128]
            .into_iter()
            .fold(key_heads.into(), u128::saturating_mul)
    }

    /// Prepares the part of an index: sequence by sequence, and head by head where heads are not mixed.
    ///
    /// # Panics
    /// If there is no such part.
    pub fn part(&self, index: usize) -> Part<'_> {
        let (heads, n_heads) = (&self.heads(), self.variant.sum_heads() as usize);
        let (b, query_heads) = match self.mixes() {
            true => (index, 0..n_heads),
            false => (index / n_heads, index % n_heads..index % n_heads + 1),
        };
        let group = heads.group() as usize;
        let first_key_head = query_heads.start / group;
        let key_heads = first_key_head..(query_heads.end - 1) / group + 1;
        let of = self.problem.sequence(b as u32);
        if let Some(writer) = self.writer(&of, b, query_heads.start) {
            let (memories, learners, writer) = (vec![], vec![], Some(writer));
            return Part {
                oracle: self,
                index,
                b,
                of,
                query_heads,
                memories,
                first_key_head,
                learners,
                writer,
            };
        }
        let memories = key_heads.map(|g| self.memory(b, g)).collect();
        let learners = query_heads.clone().filter_map(|h| self.learner(&of, h)).collect();
        Part { oracle: self, index, b, of, query_heads, memories, first_key_head, learners, writer: None }
    }

    fn memory(&self, b: usize, g: usize) -> Memory {
        let of = self.problem.sequence(b as u32);
        let (heads, keys) = (&self.heads(), 0..of.keys as usize * self.per_token());
        if let Mechanism::Latent(_) = self.variant.mechanism {
            let [for_keys, for_values] = [4, 5].map(|operand| self.columns(operand, g));
            return Memory {
                keys: Matrix::new(heads.dim, keys.clone().map(|j| self.key_of_latent(&of, &for_keys, j))),
                values: Matrix::new(heads.value_dim, keys.map(|j| self.made_of_latent(&of, &for_values, j))),
            };
        }
        Memory {
            keys: Matrix::new(heads.dim, keys.clone().map(|j| self.key(&of, g, j))),
            values: Matrix::new(heads.value_dim, keys.map(|j| self.value(&of, g, j))),
        }
    }

    /// The heads as the formula has them: of latents and of pseudo-heads, a key and a value head for each query head.
    pub(crate) fn heads(&self) -> Heads {
        let heads = self.variant.heads;
        match self.variant.mechanism {
            Mechanism::Latent(_) => Heads { kv: heads.query, value: heads.query, ..heads },
            Mechanism::Pseudo(pseudo) => pseudo.heads(heads),
            Mechanism::Plain | Mechanism::Lookahead(_) | Mechanism::Recurrence(_) => heads,
        }
    }

    /// The elements of a captured input that a table reads, which are f32.
    pub(crate) fn factors(&self, input: u16) -> &'a [f32] {
        match self.tensors.captured.data(input.into()) {
            InputData::F32(data) => data,
            other => unreachable!("checked to be f32, not {}", other.dtype().name()),
        }
    }
}

impl<'o> Part<'o> {
    /// What it is a part of.
    pub const fn oracle(&self) -> &'o Oracle<'o> {
        self.oracle
    }

    /// Its sequence.
    pub const fn sequence(&self) -> usize {
        self.b
    }

    /// Its sequence's lengths, and where its rows lie.
    pub const fn rows(&self) -> &Sequence {
        &self.of
    }

    /// Its query heads.
    pub fn query_heads(&self) -> Range<usize> {
        self.query_heads.clone()
    }

    /// Its output heads.
    pub fn output_heads(&self) -> Range<usize> {
        match self.oracle.mixes() {
            true => 0..self.oracle.variant.output_heads() as usize,
            false => self.query_heads(),
        }
    }

    /// Query row `i` of its heads, by the definition.
    ///
    /// The modifier is evaluated only where the mask allows the key, so a masked key has no effect, whatever it
    /// holds and whatever the modifier would read for it.
    ///
    /// # Errors
    /// If the mask or the modifier reads a captured input outside one of its axes, or the query's position is one that
    /// the input of positions does not have.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, i: usize) -> Result<Row, IndexError> {
        match self.oracle.known {
            None => self.compute(i),
            Some(known) => known.row([self.index, i], || self.compute(i)),
        }
    }

    fn compute(&self, i: usize) -> Result<Row, IndexError> {
        let per_token = self.oracle.per_token();
        let rows =
            self.query_heads().flat_map(|h| (i * per_token..(i + 1) * per_token).map(move |row| (h, row)));
        let sums = rows.map(|(h, row)| self.sum(h, row)).collect::<Result<Vec<_>, _>>()?;
        let max_score = |sums: &[Sum]| sums.iter().map(|sum| sum.max_score).fold(0.0, f64::max);
        Ok(Row {
            lse: sums.iter().map(|sum| sum.lse.filter(|_| self.oracle.has_lse())).collect(),
            max_scores: sums.chunks(per_token).map(max_score).collect(),
            o: self.oracle.outputs(&self.of, i, self.output_heads(), sums.into_iter().map(|sum| sum.o)),
        })
    }

    /// The lookahead keys of each of its query heads after the last token, `[key]` rows of `dim`; none where the variant has
    /// none.
    ///
    /// # Errors
    /// If the expression that says who teaches whom reads a captured input outside one of its axes.
    pub fn learned(&self) -> Result<Vec<Vec<Vec<f64>>>, IndexError> {
        let rows = |(h, learner): (usize, &Learner)| {
            let last = Scope { q: self.of.keys as i32 - 1, ..self.scope(h, 0) };
            let keys = learner.at(self.oracle, &last)?;
            Ok((0..keys.rows()).map(|key| keys.row(key).to_vec()).collect())
        };
        self.query_heads().zip(&self.learners).map(rows).collect()
    }

    /// The state after the last token; `None` where the variant has none.
    pub fn state(&self) -> Option<Running> {
        let (writer, recurrence) = (self.writer.as_ref()?, self.oracle.variant.recurrence()?);
        let of = [self.b, self.query_heads.start];
        Some(writer.after(self.of.keys as usize, self.oracle, &recurrence, of).clone())
    }

    /// What expressions read at query row `i` of a head, before there is a key; of pseudo-heads, `i` is a virtual token.
    fn scope(&self, h: usize, i: usize) -> Scope {
        let per_token = self.oracle.per_token() as i32;
        Scope {
            b: self.b as i32,
            h: h as i32,
            g: (h / self.oracle.variant.scored().heads.group() as usize) as i32,
            q: self.of.q_offset * per_token + i as i32,
            k: 0,
            nq: self.of.queries as i32 * per_token,
            nk: self.of.keys as i32 * per_token,
            s: 0.0,
            x: 0.0,
        }
    }

    /// The weighted sum of one query head.
    fn sum(&self, h: usize, i: usize) -> Result<Sum, IndexError> {
        let Oracle { variant, .. } = self.oracle;
        if let (Some(writer), Some(recurrence)) = (&self.writer, variant.recurrence()) {
            let scope = self.scope(h, i);
            let of_head = Scope { h: (h / self.oracle.state_group()) as i32, ..scope };
            let query = self.oracle.query(&of_head, &self.of, i)?;
            let query = self.oracle.features(query, &scope);
            let tokens = if recurrence.causal { i + 1 } else { self.of.keys as usize };
            let running = writer.after(tokens, self.oracle, &recurrence, [self.b, h]);
            let mut o = running.read(&query, variant.scale, recurrence.normalize_eps);
            o.iter_mut().for_each(|o| *o = self.oracle.round(*o));
            return Ok(Sum { o, lse: None, max_score: 0.0 });
        }
        let memory = h / self.oracle.heads().group() as usize;
        let Memory { keys, values } = &self.memories[memory - self.first_key_head];
        let mut scope = self.scope(h, i);
        let query = self.oracle.query(&scope, &self.of, i)?;
        let learner = self.learners.get(h - self.query_heads.start);
        let learned = learner.map(|learner| learner.at(self.oracle, &scope)).transpose()?;

        let mut scores = Vec::new();
        let mut max_score = 0.0;
        for j in 0..scope.nk as usize {
            scope.k = j as i32;
            if !self.oracle.bool(variant.allow, &scope)? {
                continue;
            }
            scope.s = self.oracle.round(variant.scale * dot(&query, keys.row(j)));
            let mut parts = [scope.s, 0.0];
            if let Some(learned) = &learned {
                parts[1] = self.oracle.round(variant.scale * dot(&query, learned.row(j)));
                scope.s = self.oracle.round(scope.s - silu(parts[1]));
            }
            let score = self.oracle.round(self.oracle.float(variant.modify, &scope)?);
            for finite in parts.into_iter().chain([scope.s, score]).filter(|s| s.is_finite()) {
                max_score = finite.abs().max(max_score);
            }
            scores.push((j, score));
        }

        let (weights, divisor, lse) = self.oracle.weights(h, scores);
        let mut o = vec![0.0; variant.heads.value_dim as usize];
        for (j, weight) in weights.into_iter().map(|(j, weight)| (j, self.oracle.round(weight))) {
            for (o, v) in o.iter_mut().zip(values.row(j)) {
                *o += weight * v;
            }
        }
        o.iter_mut().for_each(|o| *o = self.oracle.round(*o / divisor));
        Ok(Sum { o, lse, max_score })
    }
}

/// The weighted sum of one row of a query head, before the tables of the output.
struct Sum {
    o: Vec<f64>,
    lse: Option<f64>,
    max_score: f64,
}

impl Oracle<'_> {
    /// The weight of each key, what their sum of values is divided by, and the log of the weights' sum.
    ///
    /// The largest logit m is taken out of numerator and denominator, which leaves their ratio as it is.
    fn weights(&self, h: usize, mut keys: Vec<(usize, f64)>) -> (Vec<(usize, f64)>, f64, Option<f64>) {
        let sink = match self.variant.weights {
            Weights::Softmax { sink: Sink::None } => f64::NEG_INFINITY,
            Weights::Softmax { sink: Sink::One } => 0.0,
            Weights::Softmax { sink: Sink::Learned { input } } => self.factors(input)[h].into(),
            Weights::Sigmoid => {
                keys.iter_mut().for_each(|(_, w)| *w = sigmoid(*w));
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

    pub(crate) fn bool(&self, tree: Tree<'_>, scope: &Scope) -> Result<bool, IndexError> {
        match eval(tree, scope, &self.tensors.captured)? {
            Value::Bool(value) => Ok(value),
            other => unreachable!("a mask is a bool, not {other:?}"),
        }
    }

    pub(crate) fn float(&self, tree: Tree<'_>, scope: &Scope) -> Result<f64, IndexError> {
        match eval(tree, scope, &self.tensors.captured)? {
            Value::Float(value) => Ok(value),
            other => unreachable!("a score is a float, not {other:?}"),
        }
    }
}

/// Rows of one width, end to end.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    data: Vec<f64>,
    width: usize,
}

impl Matrix {
    pub(crate) fn new(width: u32, rows: impl Iterator<Item = Vec<f64>>) -> Self {
        let mut data = Vec::with_capacity(rows.size_hint().0 * width as usize);
        rows.for_each(|row| data.extend_from_slice(&row));
        Self { data, width: width as usize }
    }

    pub(crate) fn rows(&self) -> usize {
        self.data.len() / self.width
    }

    pub(crate) fn row(&self, row: usize) -> &[f64] {
        &self.data[row * self.width..][..self.width]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.data[row * self.width..][..self.width]
    }

    pub(crate) fn fill(&mut self, x: f64) {
        self.data.fill(x);
    }
}

pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// In several sums, as the next product need not wait for the last.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (chunks, rest) = (a.chunks_exact(sums.len()), b.chunks_exact(sums.len()));
    let last: f64 = chunks.remainder().iter().zip(rest.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in chunks.zip(rest) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f64>() + last
}

fn max_or_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || a >= b { a } else { b }
}
