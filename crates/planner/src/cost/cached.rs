//! What a call on caches will take: keys and values read, beside the products and the softmax of its rows with them.
//!
//! A pass reads its pages from end to end and asks for the next ones early, so that reading goes on beside arithmetic: the
//! longer of both counts. What is read is found in the smallest cache that holds all of it with as much again, where a call
//! like the last one left it. Cached floats are multiplied on f32 lanes, or as pairs of bf16 where the plan's engine has
//! these; matrix tiles have no part in it, and for integers, which have products of their own, f32 lanes stand. Of pseudo-heads
//! the rows of all heads are mixed of what is read, on f32 lanes, unless they were before they were cached.
//!
//! Left out are what a call does whatever it reads (queries packed, sums merged, outputs written), that a row tile of one row
//! loads a key for one product, how long a value of few bits takes to be widened, and that cores share the memory's bandwidth.

use regard_engine::catalog::{self, Entry};
use regard_ir::cache::Codec;
use regard_ir::machine::Machine;
use regard_ir::plan::{EngineKind, Plan, SplitOverview};
use regard_ir::rates::Origin;
use regard_ir::variant::{Mechanism, Variant};
use serde::Serialize;

use super::{SOFTMAX_OPERATIONS, WAKE_S, weight};
use crate::estimate::Known;

/// A call on caches, and the plan that it is to run by.
#[derive(Clone, Copy)]
pub struct CachedCase<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The variant that it was made for.
    pub variant: &'a Variant<'a>,
    /// The machine that it is to run on.
    pub machine: &'a Machine,
    /// What the call does.
    pub call: &'a SplitOverview,
}

/// The time of a call on caches, and what it is made of. The parts are of the busiest thread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CachedPrediction {
    /// All of it: the longer of reading and arithmetic, and waking.
    pub seconds: f64,
    /// Keys and values read.
    pub reading_s: f64,
    /// Products of queries and keys, and of weights and values; of pseudo-heads those that mix them too, where they are read.
    pub products_s: f64,
    /// Scores made into weights, modifier and mask included.
    pub softmax_s: f64,
    /// Threads woken, as often as a call has work for all of them.
    pub waking_s: f64,
    /// What takes longer.
    pub bound: CachedBound,
    /// Where the rates come from.
    pub rates: Origin,
}

/// What a call on caches takes its time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CachedBound {
    /// Keys and values are read.
    Reads,
    /// They are multiplied and weighed.
    Arithmetic,
}

impl CachedBound {
    /// As it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            CachedBound::Reads => "reads",
            CachedBound::Arithmetic => "arithmetic",
        }
    }
}

impl CachedPrediction {
    /// Products and softmax.
    pub const fn arithmetic_s(&self) -> f64 {
        self.products_s + self.softmax_s
    }
}

impl CachedCase<'_> {
    /// The time that the call will take.
    ///
    /// More work is never predicted to take less time, and a faster machine never to take more. `None` where no engine of
    /// this build computes it.
    pub fn predict(&self) -> Option<CachedPrediction> {
        let Self { plan, variant, machine, call } = *self;
        let is_mixed = variant.pseudo().is_some() && !plan.cache.mixed;
        let [keys, values] = [entry(plan, plan.cache.k, is_mixed)?, entry(plan, plan.cache.v, is_mixed)?];
        let known = Known::of(machine, [keys, values]);
        // More threads than cores take turns.
        let share = (1.0 + call.imbalance.max(0.0)) / f64::from(call.threads.max(1));
        let busiest = share.max(1.0 / f64::from(machine.cores.max(1))).min(1.0);
        let per_thread = |amount: f64, giga: f64| busiest * amount / (giga * 1e9);
        let (bytes, pairs) = (call.read_bytes as f64, call.pairs as f64);
        // Products that each channel of the mixed rows of all heads takes.
        let heads = variant.heads;
        let mixing =
            if is_mixed { call.keys as f64 * f64::from(heads.query) * f64::from(heads.kv) } else { 0.0 };
        let operations = |tree| weight(tree) / SOFTMAX_OPERATIONS;
        let weighed =
            pairs * (1.0 + operations(variant.modify)) + call.masked_pairs as f64 * operations(variant.allow);
        let (dim, value_dim) = (f64::from(variant.heads.dim), f64::from(variant.heads.value_dim));
        let [of_keys, of_values] = [known.engine(keys), known.engine(values)];
        let reading_s = per_thread(bytes, known.read_gbs(bytes));
        // Lookahead keys meet each query once more.
        let met = if let Mechanism::Lookahead(_) = variant.mechanism { 2.0 * pairs } else { pairs };
        let products_s = per_thread(met * dim, of_keys.products)
            + per_thread(pairs * value_dim, of_values.products)
            + per_thread(mixing * dim, known.mixing(keys))
            + per_thread(mixing * value_dim, known.mixing(values));
        let softmax_s = per_thread(weighed + (met - pairs), of_values.softmax);
        let waking_s = if call.threads > 1 { wakes(call) * WAKE_S } else { 0.0 };
        let arithmetic_s = products_s + softmax_s;
        let bound = if reading_s >= arithmetic_s { CachedBound::Reads } else { CachedBound::Arithmetic };
        let seconds = reading_s.max(arithmetic_s) + waking_s;
        Some(CachedPrediction {
            seconds,
            reading_s,
            products_s,
            softmax_s,
            waking_s,
            bound,
            rates: known.origin,
        })
    }
}

/// How often a call wakes its threads: for its passes, for its outputs, and where some sequence has several cells to merge these.
fn wakes(call: &SplitOverview) -> f64 {
    if call.live_cells > u64::from(call.sequences) { 3.0 } else { 2.0 }
}

/// Whose rates stand for products with what a codec stored; what is mixed of it is floats.
fn entry(plan: &Plan, codec: Codec, is_mixed: bool) -> Option<&'static Entry> {
    let engine = match (plan.engine, codec) {
        (EngineKind::DotBf16, Codec::Bf16) if !is_mixed => EngineKind::DotBf16,
        _ => EngineKind::SimdF32,
    };
    let is_exact = |entry: &&Entry| engine != EngineKind::DotBf16 || entry.isa == plan.isa;
    catalog::runnable(plan.isa).find(|entry| entry.engine == engine && is_exact(entry))
}
