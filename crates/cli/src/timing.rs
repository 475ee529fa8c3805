//! What ran and how fast.

use std::fmt;

use regard::{EngineKind, Kernel};
use regard_ir::expr::Var;
use regard_ir::inputs::Captured;
use regard_ir::problem::{OwnedProblem, Problem, Sequence};
use regard_ir::variant::Variant;
use regard_ir::work::Work;
use regard_oracle::eval::{Scope, Value, eval};
use serde::Serialize;

use crate::execute::Outcome;
use crate::tensors::signature::{Bound, Layout};

/// What ran, on what, in what time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Timing {
    /// The spec's name.
    pub(crate) spec: String,
    /// Where the variant's code comes from.
    pub(crate) kernel: &'static str,
    /// The engine.
    pub(crate) engine: EngineKind,
    /// Its instruction set.
    pub(crate) isa: &'static str,
    /// Storage of q, k, v and o.
    pub(crate) dtype: &'static str,
    /// How keys and values are cached, where they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<String>,
    /// There, how many tokens all sequences begin with, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shared: Option<Option<usize>>,
    /// What the call does.
    pub(crate) phase: &'static str,
    /// Queries of each sequence.
    pub(crate) q: u32,
    /// Keys of each sequence.
    pub(crate) k: u32,
    /// Sequences.
    pub(crate) batch: u32,
    /// Threads that shared the work.
    pub(crate) threads: usize,
    /// Order of the axes.
    pub(crate) layout: &'static str,
    /// The median of the runs' times.
    pub(crate) median_s: f64,
    /// The shortest.
    pub(crate) min_s: f64,
    /// The longest.
    pub(crate) max_s: f64,
    /// 10⁹ operations a second at the median: a multiplication and an addition for each channel of q and v, for each
    /// pair that the mask allows, for each head.
    pub(crate) gflops: f64,
    /// 10⁹ bytes a second at the median, of those that must move at least once.
    pub(crate) gbs: f64,
    /// What the rates are of.
    #[serde(skip)]
    pub(crate) work: Work,
}

impl Timing {
    /// Sums up a kernel's runs, of which there is at least one.
    pub(crate) fn new(kernel: &Kernel, bound: &Bound<'_>, outcome: &Outcome, threads: usize) -> Self {
        let variant = kernel.variant();
        let dtype = kernel.plan().dtype;
        let pairs = live_pairs(&variant, bound);
        let work = match positions(&variant, &bound.problem()) {
            Some(problem) => Work::new(&variant, &problem.view(), dtype, pairs),
            None => Work::new(&variant, &bound.problem(), dtype, pairs),
        };
        Self::of(kernel, bound, outcome, threads, work)
    }

    /// As `new`, of runs that do so much work.
    pub(crate) fn of(
        kernel: &Kernel,
        bound: &Bound<'_>,
        outcome: &Outcome,
        threads: usize,
        work: Work,
    ) -> Self {
        let mut seconds = outcome.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        let median_s = median(&seconds);
        let plan = kernel.plan();
        let Problem { phase, batch, queries: q, keys: k, .. } = bound.problem();
        let rate = |amount: f64| if median_s > 0.0 { amount / median_s / 1e9 } else { 0.0 };
        Self {
            spec: kernel.spec().name.clone(),
            kernel: kernel.source().name(),
            engine: plan.engine,
            isa: plan.isa.name(),
            dtype: plan.dtype.name(),
            cache: None,
            shared: None,
            phase: phase.name(),
            q,
            k,
            batch,
            threads,
            layout: bound.layout.name(),
            median_s,
            min_s: seconds.first().copied().unwrap_or(0.0),
            max_s: seconds.last().copied().unwrap_or(0.0),
            gflops: rate(work.flops),
            gbs: rate(work.bytes()),
            work,
        }
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spec, kernel, engine, isa, dtype, q, k, batch, threads, layout, gflops, .. } = self;
        let plural = if *threads == 1 { "" } else { "s" };
        write!(
            f,
            "{spec}: {kernel} kernel, {} on {isa}, {dtype}, {threads} thread{plural}, {layout}, ",
            engine.name()
        )?;
        if *layout == Layout::Packed.name() {
            write!(f, "{batch} sequences of up to {q}x{k}")?;
        } else {
            write!(f, "{batch}x{q}x{k}")?;
        }
        write!(f, ": {}, {gflops:.1} GFLOP/s", Seconds(self.median_s))
    }
}

/// A time in the unit that suits it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seconds(pub(crate) f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (factor, unit) = match self.0 {
            s if s < 1e-3 => (1e6, "us"),
            s if s < 1.0 => (1e3, "ms"),
            _ => (1.0, "s"),
        };
        f.pad(&format!("{:.1} {unit}", self.0 * factor))
    }
}

/// The median of sorted numbers; 0 of none.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    match sorted.get(n / 2) {
        None => 0.0,
        Some(&upper) if n % 2 == 1 => upper,
        Some(&upper) => (sorted[n / 2 - 1] + upper) / 2.0,
    }
}

/// Pairs that are looked at one by one, at least a row.
pub(crate) const MAX_LOOKS: u64 = 1 << 22;

/// The pairs that the mask allows, over all heads: counted, in large problems over rows at equal distances.
pub(crate) fn live_pairs(variant: &Variant<'_>, bound: &Bound<'_>) -> f64 {
    let data = bound.captured();
    // Where there are no positions, or no inputs for them, no kernel has run, so there is no time to rate.
    let Some(positions) = positions(variant, &bound.problem()) else { return 0.0 };
    let (variant, problem) = (&variant.scored(), &positions.view());
    match Captured::bind(variant.inputs, &data, &variant.heads, variant.source, problem) {
        Ok(captured) => counted(variant, problem, &captured, MAX_LOOKS),
        Err(_) => 0.0,
    }
}

/// A problem in positions, of which a token may be several; `None` where they pass 32 bits.
fn positions(variant: &Variant<'_>, problem: &Problem<'_>) -> Option<OwnedProblem> {
    OwnedProblem::spread(problem, variant.per_token()).ok()
}

fn counted(variant: &Variant<'_>, problem: &Problem<'_>, captured: &Captured<'_>, looks: u64) -> f64 {
    let reads = |var| variant.allow.reads(var);
    let n_heads = variant.heads.query;
    // Heads of which the mask knows nothing are all like the first.
    let told_apart = if reads(Var::H) || reads(Var::G) { n_heads } else { n_heads.min(1) };
    let alike = n_heads / told_apart.max(1);
    let pairs = problem.pairs(&variant.heads) / u64::from(alike.max(1));
    // At least a row is looked at, however long.
    let n_rows = problem.all_queries().saturating_mul(told_apart.into());
    let step = pairs.div_ceil(looks.max(1)).min(n_rows).max(1) as usize;
    let rows = (0..problem.batch).flat_map(|b| {
        let of = problem.sequence(b);
        (0..told_apart).flat_map(move |h| (0..of.queries).map(move |i| (b, h, i, of)))
    });
    let mut allowed = 0u64;
    let mut looked_at = 0u64;
    let mut all = 0u64;
    for (nth, (b, h, i, Sequence { queries, keys, q_offset, .. })) in rows.enumerate() {
        all += u64::from(keys);
        if nth % step != step / 2 {
            continue;
        }
        looked_at += u64::from(keys);
        for k in 0..keys {
            let scope = Scope {
                b: b as i32,
                h: h as i32,
                g: (h / variant.heads.group()) as i32,
                q: q_offset + i as i32,
                k: k as i32,
                nq: queries as i32,
                nk: keys as i32,
                ..Scope::default()
            };
            allowed += u64::from(eval(variant.allow, &scope, captured) == Ok(Value::Bool(true)));
        }
    }
    f64::from(alike) * allowed as f64 * (all as f64 / looked_at.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }

    #[test]
    fn times_are_told_in_their_unit() {
        let told = |s| Seconds(s).to_string();
        assert_eq!([told(2.5e-5), told(0.0125), told(61.0)], ["25.0 us", "12.5 ms", "61.0 s"]);
    }

    #[test]
    fn allowed_pairs_are_counted() {
        let spec = regard::shipped("causal").unwrap().spec;
        let variant = spec.variant();
        let counted = |queries, keys, looks| {
            let problem = Problem::prefill(spec.source, 2, queries, keys).unwrap();
            counted(&variant, &problem, &Captured::NONE, looks)
        };
        // Query i of 3 over 5 keys sees 3 + i of them; 8 heads, 2 sequences.
        assert_eq!(counted(3, 5, MAX_LOOKS), 2.0 * 8.0 * (3.0 + 4.0 + 5.0));
        // Of 100 rows every twentieth, the tenth first.
        let (some, all) = (counted(100, 100, 1000), counted(100, 100, MAX_LOOKS));
        assert_eq!(all, 2.0 * 8.0 * 5050.0);
        assert!((some / all - 1.0).abs() < 0.02, "{some} of {all}");
        // Two rows, of which one is longer than what is to be looked at.
        assert_eq!(counted(1, 100, 10), 2.0 * 8.0 * 100.0);
        assert_eq!(counted(0, 7, MAX_LOOKS) + counted(7, 0, MAX_LOOKS), 0.0);
    }
}
