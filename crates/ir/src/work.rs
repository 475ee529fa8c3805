//! What a problem costs whoever computes it: the operations, and the bytes that must move at least once.
//!
//! A model to measure kernels by, not what a kernel does: operands are read once, o is written once, whatever is
//! read again comes from caches.

use crate::inputs;
use crate::interval::{Region, Span, Unknown};
use crate::operands::{Operand, Rows};
use crate::plan::Dtype;
use crate::problem::{Problem, Sequence};
use crate::rows::Gate;
use crate::tiles;
use crate::variant::{InputType, Variant};

/// Past this many keys, live keys are counted by blocks.
const KEYS_COUNTED_ONE_BY_ONE: u32 = 1 << 16;

/// Operations and bytes of one problem.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Work {
    /// Multiplications and additions: 2 · (dim + value_dim) for each live pair of each query head. Of a recurrence, 2 · dim ·
    /// value_dim of each state for each key that is written and each query that is read, and as many for each key of a delta rule.
    pub flops: f64,
    /// Bytes of queries, of the keys and values that some query may see, of matrices, of the gate, of the captured inputs and of
    /// states.
    pub read_bytes: f64,
    /// Bytes of o, of lse where it is an output, and of states.
    pub written_bytes: f64,
}

impl Work {
    /// Of a problem in positions whose mask leaves `live_pairs` pairs of query and key, over all query heads of all sequences.
    /// What it takes to mix heads into pseudo-heads, and these into outputs, is not counted.
    pub fn new(variant: &Variant<'_>, problem: &Problem<'_>, dtype: Dtype, live_pairs: f64) -> Self {
        let heads = &variant.heads;
        let element = dtype.size_bytes() as f64;
        let (dim, value_dim) = (heads.dim as f64, heads.value_dim as f64);
        let queries = problem.all_queries() as f64 / variant.per_token() as f64;
        let (rows, outputs) = (queries * heads.query as f64, queries * variant.output_heads() as f64);
        let keys = live_keys(variant, problem) as f64;
        let operands: f64 = variant
            .operands()
            .map(|Operand { heads, rows, width, .. }| {
                let rows = match rows {
                    Rows::Queries => queries,
                    Rows::Keys => keys,
                    Rows::Matrix(rows) => rows as f64,
                };
                rows * heads.unwrap_or(1) as f64 * width as f64
            })
            .sum();
        let shapes = variant.inputs;
        let captured: f64 = shapes
            .iter()
            .zip(inputs::lens(shapes, heads, variant.source, problem))
            .map(|(shape, len)| len as f64 * if shape.dtype == InputType::Bool { 1.0 } else { 4.0 })
            .sum();
        let gate = match variant.output.gate {
            None => 0.0,
            Some(Gate { per_head: true, .. }) => 1.0,
            Some(_) => value_dim,
        };
        let lse = if variant.output.lse { 4.0 * rows } else { 0.0 };
        let (flops, states) = match variant.recurrence() {
            None => (2.0 * (dim + value_dim) * live_pairs, 0.0),
            Some(recurrence) => {
                let updates = if recurrence.delta.is_some() { 2.0 } else { 1.0 };
                let tokens = queries + updates * problem.all_keys() as f64;
                (2.0 * dim * value_dim * heads.value as f64 * tokens, state_bytes(variant, problem.batch))
            }
        };
        Self {
            flops,
            read_bytes: element * (operands + outputs * gate) + captured + states,
            written_bytes: outputs * element * value_dim + lse + states,
        }
    }

    /// All bytes that move.
    pub fn bytes(&self) -> f64 {
        self.read_bytes + self.written_bytes
    }
}

/// Bytes of the states of so many sequences, with their sums of features; none of a variant without.
pub fn state_bytes(variant: &Variant<'_>, sequences: u32) -> f64 {
    let Some(recurrence) = variant.recurrence() else { return 0.0 };
    let heads = &variant.heads;
    let norm = if recurrence.normalize_eps.is_some() { 1 } else { 0 };
    sequences as f64 * heads.value as f64 * heads.dim as f64 * (heads.value_dim + norm) as f64 * 4.0
}

/// Keys of all sequences of a problem in positions that some query may see, as far as these tell: tokens, of which each has
/// some such position.
pub fn live_keys(variant: &Variant<'_>, problem: &Problem<'_>) -> u64 {
    match problem.packed {
        None => problem.batch as u64 * live_keys_of(variant, problem.batch, &problem.sequence(0)),
        Some(_) => {
            (0..problem.batch).map(|i| live_keys_of(variant, problem.batch, &problem.sequence(i))).sum()
        }
    }
}

fn live_keys_of(variant: &Variant<'_>, batch: u32, sequence: &Sequence) -> u64 {
    let Sequence { queries, keys, .. } = *sequence;
    let up_to = |n: u32| Span { lo: 0, hi: n as i32 - 1 };
    let region = Region {
        b: up_to(batch),
        h: up_to(variant.heads.query),
        g: up_to(variant.scored().heads.kv),
        q: sequence.query_span(),
        k: Span::ALL,
        nq: queries as i32,
        nk: keys as i32,
    };
    let unknown = Unknown(variant.inputs);
    let classify = |k| tiles::liveness(variant.allow, &Region { k, ..region }, &unknown);
    let block = sequence.held.len().div_ceil(KEYS_COUNTED_ONE_BY_ONE).max(1);
    let positions: u64 = tiles::runs(sequence.held.begin..sequence.held.end, block, classify)
        .map(|(run, _)| run.len() as u64)
        .sum();
    positions.div_ceil(variant.per_token().into())
}
