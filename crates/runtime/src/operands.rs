//! The tensors that a call computes on, by mechanism.

use regard_ir::operands::{Operand, Rows, operands};
use regard_ir::plan::Dtype;
use regard_ir::problem::Problem;
use regard_ir::variant::Variant;

use crate::flash::{RunError, is_stored};
use crate::rows::Tensor;
use crate::view::View;

/// Queries, and what else a call on cached keys takes.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant)] // They are views, and nothing is allocated in a run.
pub enum QueryRows<'a> {
    /// `q`, or `q_c` of a variant with lookahead keys, `[sequence][query head][query]` rows of `dim`.
    Plain(View<'a>),
    /// Those of a variant with latents.
    Latent(LatentQueries<'a>),
}

/// Queries of a variant with latents, and the matrices that make keys and values of these.
#[derive(Clone, Copy, Debug)]
pub struct LatentQueries<'a> {
    /// Queries without position, `[sequence][query head][query]` rows of `nope_dim`.
    pub q_nope: View<'a>,
    /// Their rotary part, `[sequence][query head][query]` rows of `rope_dim`.
    pub q_rope: View<'a>,
    /// What makes keys, `[1][query head][nope_dim]` rows of `rank`.
    pub w_uk: View<'a>,
    /// What makes values, `[1][query head][value_dim]` rows of `rank`.
    pub w_uv: View<'a>,
}

/// Keys and values.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant)] // They are views, and nothing is allocated in a run.
pub enum KeyRows<'a> {
    /// Rows of heads.
    Plain {
        /// Keys, `[sequence][key head][key]` rows of `dim`.
        k: View<'a>,
        /// Values, `[sequence][value head][key]` rows of `value_dim`.
        v: View<'a>,
    },
    /// One latent a token.
    Latent {
        /// Latents, `[sequence][1][key]` rows of `rank`.
        c_kv: View<'a>,
        /// Rotary keys, which all heads share: `[sequence][1][key]` rows of `rope_dim`.
        k_rope: View<'a>,
    },
    /// Rows of heads, and by what later tokens teach keys.
    Lookahead(LookaheadKeys<'a>),
}

/// Keys and values of a variant with lookahead keys, `[sequence][head][token]` rows each.
#[derive(Clone, Copy, Debug)]
pub struct LookaheadKeys<'a> {
    /// Keys as they are, of `dim`.
    pub k_c: View<'a>,
    /// Values, of `value_dim`.
    pub v_c: View<'a>,
    /// What keys ask of later tokens, of `dim`.
    pub q_u: View<'a>,
    /// What tokens are asked by, of `dim`.
    pub k_u: View<'a>,
    /// What they teach, of `dim`.
    pub v_u: View<'a>,
}

impl<'a> LookaheadKeys<'a> {
    /// The same of other rows of each tensor.
    fn map(&self, rows: impl Fn(&View<'a>) -> View<'a>) -> Self {
        let Self { k_c, v_c, q_u, k_u, v_u } = self;
        Self { k_c: rows(k_c), v_c: rows(v_c), q_u: rows(q_u), k_u: rows(k_u), v_u: rows(v_u) }
    }
}

impl<'a> From<View<'a>> for QueryRows<'a> {
    fn from(q: View<'a>) -> Self {
        QueryRows::Plain(q)
    }
}

impl<'a> KeyRows<'a> {
    /// The same rows of some tokens alone.
    ///
    /// # Panics
    /// If there are not so many tokens.
    pub fn tokens(&self, range: core::ops::Range<usize>) -> Self {
        match self {
            KeyRows::Plain { k, v } => KeyRows::Plain { k: k.tokens(range.clone()), v: v.tokens(range) },
            KeyRows::Latent { c_kv, k_rope } => {
                KeyRows::Latent { c_kv: c_kv.tokens(range.clone()), k_rope: k_rope.tokens(range) }
            }
            KeyRows::Lookahead(keys) => KeyRows::Lookahead(keys.map(|rows| rows.tokens(range.clone()))),
        }
    }

    /// The rows of one sequence.
    ///
    /// # Panics
    /// If there is no such sequence.
    pub fn sequence(&self, sequence: usize) -> Self {
        match self {
            KeyRows::Plain { k, v } => KeyRows::Plain { k: k.sequence(sequence), v: v.sequence(sequence) },
            KeyRows::Latent { c_kv, k_rope } => {
                KeyRows::Latent { c_kv: c_kv.sequence(sequence), k_rope: k_rope.sequence(sequence) }
            }
            KeyRows::Lookahead(keys) => KeyRows::Lookahead(keys.map(|rows| rows.sequence(sequence))),
        }
    }

    /// How many tokens each of its tensors has; `None` where they differ.
    pub fn tokens_of_each(&self) -> Option<usize> {
        let tokens = |view: &View<'a>| view.counts()[2];
        let [_, first] = self.counts();
        let are_same = match self {
            KeyRows::Plain { k, v } => tokens(k) == tokens(v),
            KeyRows::Latent { c_kv, k_rope } => tokens(c_kv) == tokens(k_rope),
            KeyRows::Lookahead(LookaheadKeys { k_c, v_c, q_u, k_u, v_u }) => {
                [k_c, v_c, q_u, k_u, v_u].into_iter().all(|view| tokens(view) == first)
            }
        };
        are_same.then_some(first)
    }

    /// How many sequences and tokens there are.
    pub const fn counts(&self) -> [usize; 2] {
        let [sequences, _, tokens] = match self {
            KeyRows::Plain { k: view, .. }
            | KeyRows::Latent { c_kv: view, .. }
            | KeyRows::Lookahead(LookaheadKeys { k_c: view, .. }) => view.counts(),
        };
        [sequences, tokens]
    }

    /// The rows that keys are stored as, and those of values where they are others.
    pub(crate) const fn tensors(&self) -> (Tensor<'a>, Option<Tensor<'a>>) {
        match *self {
            KeyRows::Plain { k, v } => (Tensor::One(k), Some(Tensor::One(v))),
            KeyRows::Latent { c_kv, k_rope } => (Tensor::Two([c_kv, k_rope]), None),
            KeyRows::Lookahead(LookaheadKeys { k_c, v_c, .. }) => (Tensor::One(k_c), Some(Tensor::One(v_c))),
        }
    }
}

impl<'a> QueryRows<'a> {
    /// The same rows of some queries alone.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn tokens(&self, range: core::ops::Range<usize>) -> Self {
        match *self {
            QueryRows::Plain(q) => QueryRows::Plain(q.tokens(range)),
            QueryRows::Latent(LatentQueries { q_nope, q_rope, w_uk, w_uv }) => {
                let (q_nope, q_rope) = (q_nope.tokens(range.clone()), q_rope.tokens(range));
                QueryRows::Latent(LatentQueries { q_nope, q_rope, w_uk, w_uv })
            }
        }
    }
}

impl<'a> QueryRows<'a> {
    /// How many sequences, heads and queries there are.
    pub const fn counts(&self) -> [usize; 3] {
        match self {
            QueryRows::Plain(q) => q.counts(),
            QueryRows::Latent(LatentQueries { q_nope, .. }) => q_nope.counts(),
        }
    }
}

/// Whether queries, and keys and values where there are some, are those of a variant and problem, and stored as a plan says.
pub(crate) fn check(
    (variant, dtype): (&Variant<'_>, Dtype),
    problem: &Problem<'_>,
    q: Option<&QueryRows<'_>>,
    kv: Option<&KeyRows<'_>>,
) -> Result<(), RunError> {
    let [batch, queries, keys] = problem.extents().map(|n| n as usize);
    // Problems count positions, tensors tokens.
    let [queries, keys] = [queries, keys].map(|n| n / variant.per_token() as usize);
    for operand in operands(&variant.heads, &variant.mechanism) {
        let Operand { name, heads, rows, width } = operand;
        let (batch, rows, view) = match rows {
            Rows::Queries => (batch, queries, q.map(|q| q.named(name))),
            Rows::Matrix(rows) => (1, rows as usize, q.map(|q| q.named(name))),
            Rows::Keys => (batch, keys, kv.map(|kv| kv.named(name))),
        };
        // What lies in a cache is not given.
        let Some(view) = view else { continue };
        let expected = [batch, heads.unwrap_or(1) as usize, rows, width as usize];
        let found = view.map_or([0; 4], |view| {
            let [batch, heads, rows] = view.counts();
            [batch, heads, rows, view.width()]
        });
        if found != expected {
            return Err(RunError::Shape { tensor: name, found, expected });
        }
        if let Some(view) = view {
            is_stored(name, view.dtype(), &[dtype])?;
        }
    }
    Ok(())
}

impl<'a> QueryRows<'a> {
    fn named(&self, name: &str) -> Option<View<'a>> {
        match (self, name) {
            (QueryRows::Plain(q), "q" | "q_c") => Some(*q),
            (QueryRows::Latent(LatentQueries { q_nope, .. }), "q_nope") => Some(*q_nope),
            (QueryRows::Latent(LatentQueries { q_rope, .. }), "q_rope") => Some(*q_rope),
            (QueryRows::Latent(LatentQueries { w_uk, .. }), "w_uk") => Some(*w_uk),
            (QueryRows::Latent(LatentQueries { w_uv, .. }), "w_uv") => Some(*w_uv),
            _ => None,
        }
    }
}

impl<'a> KeyRows<'a> {
    fn named(&self, name: &str) -> Option<View<'a>> {
        match (self, name) {
            (KeyRows::Plain { k, .. }, "k") => Some(*k),
            (KeyRows::Plain { v, .. }, "v") => Some(*v),
            (KeyRows::Latent { c_kv, .. }, "c_kv") => Some(*c_kv),
            (KeyRows::Latent { k_rope, .. }, "k_rope") => Some(*k_rope),
            (KeyRows::Lookahead(keys), "k_c") => Some(keys.k_c),
            (KeyRows::Lookahead(keys), "v_c") => Some(keys.v_c),
            (KeyRows::Lookahead(keys), "q_u") => Some(keys.q_u),
            (KeyRows::Lookahead(keys), "k_u") => Some(keys.k_u),
            (KeyRows::Lookahead(keys), "v_u") => Some(keys.v_u),
            _ => None,
        }
    }
}
