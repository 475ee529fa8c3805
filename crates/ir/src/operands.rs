//! The tensors at the boundary of a kernel that a mechanism computes on: their names, and what their axes are.
//!
//! Captured inputs, which expressions and learned tables read, and the gate of the outputs are beside them.

use crate::variant::{Heads, Mechanism, Variant};

/// One tensor, in the variant's storage type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// As the language calls it.
    pub name: &'static str,
    /// Heads; absent where the tensor has no such axis, and is of all heads.
    pub heads: Option<u32>,
    /// What its rows are.
    pub rows: Rows,
    /// Elements of a row.
    pub width: u32,
}

/// What the rows of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// One for each query of each sequence.
    Queries,
    /// One for each key of each sequence.
    Keys,
    /// So many, the same for all sequences: a matrix.
    Matrix(u32),
}

impl Variant<'_> {
    /// The tensors that it computes on.
    pub fn operands(&self) -> impl Iterator<Item = Operand> + Clone + use<> {
        operands(&self.heads, &self.mechanism)
    }
}

/// The tensors that a mechanism computes on, those of queries first.
pub fn operands(heads: &Heads, mechanism: &Mechanism<'_>) -> impl Iterator<Item = Operand> + Clone + use<> {
    let Heads { query, kv, value, dim, value_dim } = *heads;
    let of = |name, heads, rows, width| Some(Operand { name, heads, rows, width });
    let all = match *mechanism {
        Mechanism::Plain | Mechanism::Pseudo(_) | Mechanism::Recurrence(_) => [
            of("q", Some(query), Rows::Queries, dim),
            of("k", Some(kv), Rows::Keys, dim),
            of("v", Some(value), Rows::Keys, value_dim),
            None,
            None,
            None,
        ],
        Mechanism::Lookahead(_) => [
            of("q_c", Some(query), Rows::Queries, dim),
            of("k_c", Some(query), Rows::Keys, dim),
            of("v_c", Some(query), Rows::Keys, value_dim),
            of("q_u", Some(query), Rows::Keys, dim),
            of("k_u", Some(query), Rows::Keys, dim),
            of("v_u", Some(query), Rows::Keys, dim),
        ],
        Mechanism::Latent(latent) => [
            of("q_nope", Some(query), Rows::Queries, latent.nope_dim),
            of("q_rope", Some(query), Rows::Queries, latent.rope_dim),
            of("c_kv", None, Rows::Keys, latent.rank),
            of("k_rope", None, Rows::Keys, latent.rope_dim),
            of("w_uk", Some(query), Rows::Matrix(latent.nope_dim), latent.rank),
            of("w_uv", Some(query), Rows::Matrix(latent.value_dim), latent.rank),
        ],
    };
    all.into_iter().flatten()
}
