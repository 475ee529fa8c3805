//! Pseudo-heads: what a cache keeps of a token, by what it costs to decode.
//!
//! The rows of all pseudo-heads are several times the bytes of what they are mixed from, which has to be mixed in every call that
//! reads it. The time of either form at one length stands for all: both grow with what is read.

use regard_ir::machine::Machine;
use regard_ir::plan::{Plan, SplitOverview};
use regard_ir::reach::Reach;
use regard_ir::variant::{Heads, Pseudo, PseudoForm, Variant};

use crate::cost::CachedCase;
use crate::inequality::{Inequality, Limit, Unit, factor, term};
use crate::report::{Choice, Reason};

/// Cached tokens of the call that stands for all, as far as its query sees so many.
const TOKENS: u32 = 4096;

/// Whether rows are mixed before they are cached, and why; `plan` makes the plan of either form.
pub(crate) fn choose(
    (variant, pseudo): (&Variant<'_>, &Pseudo),
    machine: &Machine,
    plan: impl Fn(bool) -> Plan,
) -> (bool, Choice) {
    let [expanded, compact] = [true, false].map(&plan);
    let tokens = seen(&expanded, pseudo.heads);
    let [of_expanded, of_compact] = [&expanded, &compact].map(|plan| {
        let call = call(plan, (variant, pseudo), tokens);
        let seconds = CachedCase { plan, variant, machine, call: &call }.predict().map(|it| it.seconds);
        (call.read_bytes / u64::from(tokens.max(1)), seconds)
    });
    let is_faster =
        matches!((of_expanded.1, of_compact.1), (Some(expanded), Some(compact)) if expanded < compact);
    let is_mixed = match pseudo.form {
        PseudoForm::Auto => is_faster,
        PseudoForm::Expanded => true,
        PseudoForm::Compact => false,
    };
    let (taken, other) = if is_mixed { (of_expanded, of_compact) } else { (of_compact, of_expanded) };
    let of_token = |(_, seconds): (u64, Option<f64>)| {
        seconds.map(|seconds| (seconds * 1e9 / f64::from(tokens.max(1))).round() as u64)
    };
    let bound = |taken: u64, other: u64| Inequality {
        terms: vec![term("to decode with them", &[factor(tokens.into(), "tokens"), factor(taken, "ns")])],
        limit: Limit {
            what: if is_mixed { "mixing what is read" } else { "reading rows that are mixed" },
            value: u64::from(tokens).saturating_mul(other),
            numerator: 1,
            denominator: 1,
        },
        unit: Unit::Nanoseconds,
    };
    let bounds = of_token(taken).zip(of_token(other)).map(|(taken, other)| bound(taken, other));
    let choice = Choice {
        name: "cached_rows",
        value: if is_mixed { pseudo.heads.into() } else { 1 },
        reason: Reason::CachedRows {
            mixed: is_mixed,
            asked: pseudo.form != PseudoForm::Auto,
            token_bytes: taken.0,
            otherwise_bytes: other.0,
        },
        bounds: bounds.into_iter().collect(),
        rejected: Vec::new(),
    };
    (is_mixed, choice)
}

/// Tokens that the query of the call sees.
fn seen(plan: &Plan, per_token: u32) -> u32 {
    let reach = plan.reach.map_or(u32::MAX, |Reach { first, back }| first.saturating_add(back));
    reach.div_ceil(per_token.max(1)).clamp(1, TOKENS)
}

/// What one query does with so many tokens that it sees.
fn call(plan: &Plan, (variant, pseudo): (&Variant<'_>, &Pseudo), tokens: u32) -> SplitOverview {
    let given = variant.heads;
    let stored = if plan.cache.mixed { pseudo.heads(given) } else { given };
    let Heads { dim, value_dim, .. } = given;
    let positions = u64::from(tokens) * u64::from(pseudo.heads);
    let rows_of_token = u64::from(plan.cache.rows_of_token(variant));
    let row = |heads: u32, bytes: u64| u64::from(tokens) * rows_of_token * u64::from(heads) * bytes;
    let (k, v) = (plan.cache.k.row_bytes(dim), plan.cache.v.row_bytes(value_dim));
    let query_rows = u64::from(given.query) * u64::from(pseudo.heads);
    SplitOverview {
        sequences: 1,
        rows: pseudo.heads,
        live_cells: 1,
        cells: 1,
        chunks: 1,
        passes: 1,
        // Of rows that are not mixed, all heads take one pass.
        keys: positions * if plan.cache.mixed { u64::from(given.query) } else { 1 },
        pairs: positions * query_rows,
        masked_pairs: 0,
        learners: 0,
        read_bytes: row(stored.kv, k).saturating_add(row(stored.value, v)),
        threads: 1,
        imbalance: 0.0,
    }
}
