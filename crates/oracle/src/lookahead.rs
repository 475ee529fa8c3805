//! Lookahead keys, token by token: what CASTLE defines, before anything is rearranged.
//!
//! Source: *Causal Attention with Lookahead Keys*, arXiv 2509.07301, the recursive form.

use core::cell::{Ref, RefCell};

use regard_ir::problem::Sequence;
use regard_ir::variant::{Mechanism, Turned};

use crate::eval::{IndexError, Scope};
use crate::formula::{Matrix, Oracle, dot, sigmoid};

/// The lookahead keys of one head, which tokens teach in their order.
#[derive(Clone, Debug)]
pub(crate) struct Learner {
    /// What keys ask of later tokens.
    queries: Matrix,
    /// What tokens are asked by.
    keys: Matrix,
    /// What they teach.
    values: Matrix,
    learned: RefCell<Learned>,
}

/// Lookahead keys after some tokens.
#[derive(Clone, Debug)]
struct Learned {
    tokens: usize,
    keys: Matrix,
}

impl Oracle<'_> {
    /// The lookahead keys of a head before the first token; `None` where the variant has none.
    pub(crate) fn learner(&self, of: &Sequence, h: usize) -> Option<Learner> {
        let Mechanism::Lookahead(_) = self.variant.mechanism else { return None };
        let dim = self.variant.heads.dim;
        let tensors = [Turned::QU, Turned::KU, Turned::VU];
        let [queries, keys, values] = tensors.map(|tensor| {
            Matrix::new(dim, (0..of.keys as usize).map(|j| self.lookahead_row(of, tensor, h, j)))
        });
        let untaught = Matrix::new(dim, (0..of.keys).map(|_| vec![0.0; dim as usize]));
        let learned = RefCell::new(Learned { tokens: 0, keys: untaught });
        Some(Learner { queries, keys, values, learned })
    }

    /// Whether rope turns a tensor.
    pub(crate) fn turns(&self, tensor: Turned) -> bool {
        match self.variant.mechanism {
            Mechanism::Lookahead(lookahead) => lookahead.turns(tensor),
            _ => true,
        }
    }
}

impl Learner {
    /// The lookahead keys at a query's position: as all tokens up to it have left them.
    ///
    /// # Errors
    /// If the expression that says who teaches whom reads a captured input outside one of its axes.
    pub(crate) fn at(&self, oracle: &Oracle<'_>, query: &Scope) -> Result<Ref<'_, Matrix>, IndexError> {
        let tokens = (i64::from(query.q) + 1).clamp(0, self.keys.rows() as i64) as usize;
        if self.learned.borrow().tokens > tokens {
            let mut learned = self.learned.borrow_mut();
            learned.keys.fill(0.0);
            learned.tokens = 0;
        }
        while self.learned.borrow().tokens < tokens {
            self.teach(oracle, query)?;
        }
        Ok(Ref::map(self.learned.borrow(), |learned| &learned.keys))
    }

    /// The next token teaches the keys before it: u += sigmoid(scale · ⟨q_u, k_u⟩) · v_u.
    fn teach(&self, oracle: &Oracle<'_>, of: &Scope) -> Result<(), IndexError> {
        let Mechanism::Lookahead(lookahead) = oracle.variant.mechanism else { return Ok(()) };
        let Learned { tokens, keys } = &mut *self.learned.borrow_mut();
        let token = *tokens;
        for key in 0..token {
            let pair = Scope { q: token as i32, k: key as i32, ..*of };
            if oracle.bool(lookahead.allow, &pair)? {
                let score = oracle.variant.scale * dot(self.queries.row(key), self.keys.row(token));
                let weight = sigmoid(score);
                for (u, v) in keys.row_mut(key).iter_mut().zip(self.values.row(token)) {
                    *u += weight * v;
                }
            }
        }
        *tokens += 1;
        Ok(())
    }
}

/// x · sigmoid(x)
pub(crate) fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}
