//! Recurrences, token by token: a state that is decayed, written and read in that order.
//!
//! Sources: Katharopoulos et al., *Transformers are RNNs*, arXiv 2006.16236; Yang et al., *Gated Linear Attention
//! Transformers*, arXiv 2312.06635; Yang et al., *Gated Delta Networks*, arXiv 2412.06464: the recurrent forms.

use core::cell::{Ref, RefCell};

use regard_ir::inputs::InputData;
use regard_ir::problem::Sequence;
use regard_ir::variant::{Decay, Recurrence};

use crate::eval::Scope;
use crate::formula::{Matrix, Oracle, dot};
use crate::tensor::Tensor4;

/// What a state is before the first token.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// `[batch, value heads, dim, value_dim]` in f32; packed sequences have one each.
    pub state: Tensor4<'a>,
    /// `[batch, value heads, 1, dim]` in f32, of a variant that divides by sums of features.
    pub norm: Option<Tensor4<'a>>,
}

/// The state of one value head, which tokens write in their order.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    /// Features of keys.
    keys: Matrix,
    values: Matrix,
    running: RefCell<Running>,
}

/// A state after some tokens.
#[derive(Clone, Debug)]
pub struct Running {
    tokens: usize,
    /// `[dim, value_dim]`.
    state: Matrix,
    /// Σ of features, `dim` long.
    norm: Vec<f64>,
}

impl Running {
    /// Row `c` of the state, `value_dim` long.
    ///
    /// # Panics
    /// If there is no such key channel.
    pub fn row(&self, c: usize) -> &[f64] {
        self.state.row(c)
    }

    /// The sum of features, `dim` long.
    pub fn norm(&self) -> &[f64] {
        &self.norm
    }
}

impl Oracle<'_> {
    /// The features of a row of q or k. A feature map reads no input, so that no index of it is wrong.
    pub(crate) fn features(&self, mut row: Vec<f64>, scope: &Scope) -> Vec<f64> {
        for x in &mut row {
            *x = self.float(self.variant.modify, &Scope { x: *x, ..*scope }).unwrap_or(f64::NAN);
        }
        row
    }

    /// The key head that a value head's state is written by.
    pub(crate) const fn state_group(&self) -> usize {
        (self.variant.heads.value / self.variant.heads.kv) as usize
    }

    /// The state of a value head before the first token; `None` where the variant has none.
    pub(crate) fn writer(&self, of: &Sequence, b: usize, v: usize) -> Option<Writer> {
        self.variant.recurrence()?;
        let (heads, tokens) = (self.variant.heads, of.keys as usize);
        let g = v / self.state_group();
        let scope = Scope { b: b as i32, ..Scope::default() };
        let features = |j| self.features(self.key(of, g, j), &scope);
        let keys = Matrix::new(heads.dim, (0..tokens).map(features));
        let values = Matrix::new(heads.value_dim, (0..tokens).map(|j| self.own_value(of, v, j)));
        Some(Writer { keys, values, running: RefCell::new(self.begin(b, v)) })
    }

    /// The state of a value head before the first token of its sequence.
    fn begin(&self, b: usize, v: usize) -> Running {
        let [dim, value_dim] = [self.variant.heads.dim, self.variant.heads.value_dim];
        let state_row = |c| match &self.start {
            None => vec![0.0; value_dim as usize],
            Some(start) => start.state.row(b, v, c),
        };
        let state = Matrix::new(value_dim, (0..dim as usize).map(state_row));
        let norm = self.start.and_then(|start| start.norm).map(|norm| norm.row(b, v, 0));
        Running { tokens: 0, state, norm: norm.unwrap_or_else(|| vec![0.0; dim as usize]) }
    }

    /// An element of an input, of token `t` of a value head.
    fn of_token(&self, input: u16, index: &[usize]) -> f64 {
        let index: Vec<i32> = index.iter().map(|&i| i as i32).collect();
        let offset = self.tensors.captured.offset(input.into(), &index);
        offset.map_or(f64::NAN, |offset| self.factors(input)[offset].into())
    }

    /// The natural log of what channel `c` of a state is multiplied by before token `t` writes.
    fn log_decay(&self, decay: Decay, [b, v, t, c]: [usize; 4]) -> f64 {
        match decay {
            Decay::None => 0.0,
            Decay::Head(input) => self.of_token(input, &[v]),
            Decay::Token(input) => self.of_token(input, &[b, v, t]),
            Decay::Channel(input) => self.of_token(input, &[b, v, t, c]),
        }
    }

    /// Whether token `t` is the first of a document that is not the sequence's first.
    fn restarts(&self, recurrence: &Recurrence, b: usize, t: usize) -> bool {
        let Some(input) = recurrence.restart.filter(|_| t > 0) else { return false };
        let captured = &self.tensors.captured;
        let id = |t: usize| match captured.data(input.into()) {
            InputData::I32(ids) => {
                captured.offset(input.into(), &[b as i32, t as i32]).map(|offset| ids[offset])
            }
            other => unreachable!("checked to be i32, not {}", other.dtype().name()),
        };
        id(t) != id(t - 1)
    }
}

impl Writer {
    /// The state of a value head of a sequence as so many of the tokens have left it.
    pub(crate) fn after(
        &self,
        tokens: usize,
        oracle: &Oracle<'_>,
        recurrence: &Recurrence,
        [b, v]: [usize; 2],
    ) -> Ref<'_, Running> {
        if self.running.borrow().tokens > tokens {
            *self.running.borrow_mut() = oracle.begin(b, v);
        }
        while self.running.borrow().tokens < tokens {
            self.write(oracle, recurrence, [b, v]);
        }
        self.running.borrow()
    }

    /// The next token: S ← A S, then S ← S + k vᵀ or S ← S + β k (v − Sᵀk)ᵀ.
    fn write(&self, oracle: &Oracle<'_>, recurrence: &Recurrence, [b, v]: [usize; 2]) {
        let Running { tokens, state, norm } = &mut *self.running.borrow_mut();
        let t = *tokens;
        if oracle.restarts(recurrence, b, t) {
            state.fill(0.0);
            norm.fill(0.0);
        }
        let (key, mut written) = (self.keys.row(t), self.values.row(t).to_vec());
        for (c, norm) in norm.iter_mut().enumerate() {
            let factor = oracle.log_decay(recurrence.decay, [b, v, t, c]).exp();
            state.row_mut(c).iter_mut().for_each(|s| *s *= factor);
            *norm = factor * *norm + key[c];
        }
        if let Some(beta) = recurrence.delta {
            let beta = oracle.of_token(beta, &[b, v, t]);
            for (c, &k) in key.iter().enumerate() {
                written.iter_mut().zip(state.row(c)).for_each(|(w, s)| *w -= k * s);
            }
            written.iter_mut().for_each(|w| *w *= beta);
        }
        for (c, &k) in key.iter().enumerate() {
            state.row_mut(c).iter_mut().zip(&written).for_each(|(s, w)| *s += k * w);
        }
        *tokens += 1;
    }
}

impl Running {
    /// What a query reads of it: Sᵀ q times the scale, or divided by the product with the sum of features.
    pub(crate) fn read(&self, query: &[f64], scale: f64, normalize_eps: Option<f64>) -> Vec<f64> {
        let factor = normalize_eps.map_or(scale, |eps| 1.0 / (dot(query, &self.norm) + eps));
        let mut o = vec![0.0; self.state.row(0).len()];
        for (c, &q) in query.iter().enumerate() {
            o.iter_mut().zip(self.state.row(c)).for_each(|(o, s)| *o += q * s);
        }
        o.iter_mut().for_each(|o| *o *= factor);
        o
    }
}
