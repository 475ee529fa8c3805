//! Queries on cached keys and values: how fast, beside how fast a cache can be read.

use std::io::Write;
use std::ops::Range;

use regard::{Kernel, Machine, Pool, Queries, Spec, Threads, machine};
use regard_engine::detect;
use regard_ir::bounds;
use regard_ir::cache::PageFormat;
use regard_ir::expr::Var;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::problem::{Phase, Problem, Sequence};
use regard_ir::spec::{Cache, CacheLayout};
use regard_ir::variant::{Mechanism, Variant};
use regard_ir::work::{self, Work};
use regard_oracle::eval::{Scope, Value, eval};

use super::lines::{Judged, Line, Lines};
use super::{compile, header, runs};
use crate::args::BenchArgs;
use crate::cached::{self, Contents, Filled};
use crate::execute::{Outcome, operands, timed};
use crate::failure::Failure;
use crate::memory;
use crate::peaks::{Limit, Reader};
use crate::progress::{self, Progress};
use crate::run::pool;
use crate::source;
use crate::tensors::signature::{Bound, Layout};
use crate::tensors::stored::Stored;
use crate::timing::{MAX_LOOKS, Timing, live_pairs, median};
use crate::verify::judge::{self, Judge};
use crate::verify::problem::{self, Size};

/// Where kernels run.
pub(super) struct Place {
    pub(super) cpu: String,
    pub(super) machine: Machine,
    pub(super) pool: Pool,
}

/// Times calls on a cache for each spec, checks what was timed, and prints a line for it.
///
/// # Errors
/// As [`bench`](super::bench()), and if the library has no such cache.
pub(super) fn bench(args: &BenchArgs, of: (Phase, Size), out: &mut dyn Write) -> Result<(), Failure> {
    let specs = args.specs.iter().map(|name| stored(args, source::spec(name)?));
    let specs = specs.collect::<Result<Vec<_>, _>>()?;
    specs.iter().try_for_each(cached::refuse_states)?;
    let kernels = specs.iter().map(|spec| compile(args, spec, args.kernel)).collect::<Result<Vec<_>, _>>()?;
    let Some(isa) = kernels.first().map(|kernel| kernel.plan().isa) else { return Ok(()) };
    let place =
        Place { cpu: detect::processor(), machine: machine::host(), pool: pool(args.choice.threads)? };
    if !args.json {
        header::machine(out, &place.cpu, &place.machine, &place.pool, isa)?;
        writeln!(
            out,
            "peak: the most that is read between runs, of as many bytes as the cache has, in huge pages, GB/s; share: of that\n\
             model: the median by the time that the planner's cost model predicts"
        )?;
        if let Some(shared) = shared(args) {
            writeln!(out, "tokens that all sequences begin with, stored and counted once: {shared}")?;
        }
        writeln!(out)?;
    }
    let mut lines = Lines::new(out, args)?;
    let progress = Progress::new("specs", kernels.len() as u64);
    for kernel in &kernels {
        let line = measure(args, kernel, of, &place)?;
        progress::set_aside(|| lines.line(&line))?;
        progress.advance();
    }
    drop(progress);
    lines.end()
}

/// How many tokens the sequences have in common, if any.
fn shared(args: &BenchArgs) -> Option<usize> {
    args.shared.filter(|&shared| shared > 0)
}

/// The spec, with keys and values cached as the flags say.
pub(super) fn stored(args: &BenchArgs, spec: Spec) -> Result<Spec, Failure> {
    let mut cache = args.cache.map_or(spec.cache, |format| Cache { k: format, v: format, ..spec.cache });
    if let Some(shared) = shared(args) {
        if cache.layout == CacheLayout::Ring {
            return Err(Failure::SharedLayout { spec: spec.name, layout: cache.layout, shared });
        }
        cache.layout = CacheLayout::Paged;
    }
    Ok(Spec { cache, ..spec })
}

fn measure(
    args: &BenchArgs,
    kernel: &Kernel,
    (phase, size): (Phase, Size),
    place: &Place,
) -> Result<Line, Failure> {
    let (pool, plan) = (&place.pool, kernel.plan());
    let problem = cached::problem(kernel.spec(), phase, size)?;
    let mut bound = problem::tensors(kernel.spec(), plan.dtype, &problem.view(), Layout::Packed)?;
    let shared = shared(args).unwrap_or(0);
    cached::share(&mut bound, kernel.spec(), size.keys, shared);
    let captured = bound.captured();
    let (_, kv) = operands(kernel, &bound)?;
    let rows = |tokens: Range<usize>| kv.tokens(tokens);
    let own = |sequence: usize| rows(sequence * size.keys + shared..(sequence + 1) * size.keys);
    let contents = Contents { shared: rows(0..shared), own, captured: &captured };
    let mut filled = Filled::new(kernel, &problem.view(), contents, pool.count())?;
    let reader = Reader::new(pool, plan.isa, filled.cache.bytes())?;
    let mut call = Call { kernel, pool, bound: &bound, captured: &captured, filled: &mut filled };
    let first = call.run(1)?;
    let runs = runs(args, &first.seconds);
    let (outcome, peak) = in_turn(&reader, runs, first, |count| call.run(count))?;
    drop((reader, filled));
    let judged = judge(kernel, &bound, &captured, pool, &outcome)?;
    let predicted = predicted(kernel, (&bound, shared), &captured, pool)?;
    let work = work(kernel, &bound, &captured, shared)?;
    let seconds = work.bytes() / (peak * 1e9);
    let timing = Timing {
        cache: Some(format(&plan.cache)),
        shared: Some(self::shared(args)),
        ..Timing::of(kernel, &bound, &outcome, pool.count(), work)
    };
    let limit = Limit { name: "read", peak, seconds };
    Ok(Line::new(timing, runs, &place.cpu, limit, judged, None).predicted(predicted))
}

/// Parts of the runs, between which it is measured how fast memory is read, at most.
const PARTS: u32 = 8;

/// Runs of a part at least: what is read between parts drives a cache out, and the first runs after it find it slowly.
const RUNS_OF_PART: u32 = 4;

/// Runs after a first one, and what was read at most meanwhile, in 10⁹ bytes a second. Memory gives some machines twice as much in one
/// minute as in the next, so each part of the runs is held against what is read just before and after it; of what could have been read
/// in the median run of a part, the peak is the median, by the median run of all.
fn in_turn(
    reader: &Reader<'_>,
    runs: u32,
    first: Outcome,
    mut run: impl FnMut(u32) -> Result<Outcome, Failure>,
) -> Result<(Outcome, f64), Failure> {
    let parts = (runs / RUNS_OF_PART).clamp(1, PARTS);
    let (mut seconds, mut readable) = (memory::reserved("the times", runs.into())?, Vec::new());
    let (mut outcome, mut before) = (first, reader.now());
    for part in 0..parts {
        outcome = run(runs / parts + u32::from(part < runs % parts))?;
        let after = reader.now();
        outcome.seconds.sort_by(f64::total_cmp);
        readable.push((before + after) / 2.0 * median(&outcome.seconds));
        seconds.extend_from_slice(&outcome.seconds);
        before = after;
    }
    seconds.sort_by(f64::total_cmp);
    readable.sort_by(f64::total_cmp);
    let peak = median(&readable) / median(&seconds);
    Ok((Outcome { seconds, ..outcome }, peak))
}

/// The time that is predicted; the model knows nothing of tokens that sequences share.
fn predicted(
    kernel: &Kernel,
    (bound, shared): (&Bound<'_>, usize),
    captured: &[InputData<'_>],
    pool: &Pool,
) -> Result<Option<f64>, Failure> {
    if shared > 0 {
        return Ok(None);
    }
    let predicted = kernel
        .predict_call(&bound.problem(), captured, pool.count())
        .map_err(|error| Failure::Schedule { spec: kernel.spec().name.clone(), error })?;
    Ok(predicted.map(|predicted| predicted.seconds))
}

/// Calls on a cache, all alike.
struct Call<'a> {
    kernel: &'a Kernel,
    pool: &'a Pool,
    bound: &'a Bound<'a>,
    captured: &'a [InputData<'a>],
    filled: &'a mut Filled,
}

impl Call<'_> {
    fn run(&mut self, repeat: u32) -> Result<Outcome, Failure> {
        let Self { kernel, pool, bound, captured, filled } = self;
        let gate = bound.gate.as_ref().map(Stored::rows).transpose()?;
        let (q, _) = operands(kernel, bound)?;
        let queries = Queries { q, captured, gate };
        let outcome =
            timed(kernel, bound, Some(repeat), |outputs, _| filled.decode(kernel, pool, queries, outputs))?;
        // Lookahead keys stay in the cache.
        Ok(Outcome { u: None, ..outcome })
    }
}

/// Holds outputs against the oracle: by their bound where the cache keeps all digits of keys and values, else by what
/// rounding them may cost.
pub(super) fn judge(
    kernel: &Kernel,
    bound: &Bound<'_>,
    captured: &[InputData<'_>],
    pool: &Pool,
    outcome: &Outcome,
) -> Result<Judged, Failure> {
    let (operands, positions) = (judge::operands(bound)?, judge::positions(kernel, bound)?);
    let judge = Judge::new(kernel, bound, (&operands, captured), &positions, pool)?;
    let rounded = bounds::kept(&kernel.plan().cache, kernel.plan().dtype);
    let Some(allowed) = rounded else { return Ok((&judge.against_oracle(outcome)?).into()) };
    let [error, bound] = judge.rms_against_oracle(outcome, allowed)?;
    Ok(Judged { error, bound, passed: error <= bound })
}

/// How keys and values are stored.
pub(super) fn format(PageFormat { k, v, .. }: &PageFormat) -> String {
    if k == v { k.name().to_owned() } else { format!("k {}, v {}", k.name(), v.name()) }
}

/// What calls cost: as any calls, but keys and values are read as the cache has them, the `shared` tokens that all sequences
/// begin with once.
fn work(
    kernel: &Kernel,
    bound: &Bound<'_>,
    captured: &[InputData<'_>],
    shared: usize,
) -> Result<Work, Failure> {
    let (variant, plan) = (kernel.variant(), kernel.plan());
    let (positions, per_token) = (judge::positions(kernel, bound)?, variant.per_token());
    let (problem, shared) = (positions.view(), shared * per_token as usize);
    let heads = &variant.heads;
    let work = Work::new(&variant, &problem, plan.dtype, live_pairs(&variant, bound));
    let live = work::live_keys(&variant, &problem) as f64;
    let row = |width: u32| f64::from(width) * plan.dtype.size_bytes() as f64;
    let uncached =
        live * (f64::from(heads.kv) * row(heads.dim) + f64::from(heads.value) * row(heads.value_dim));
    let [keys, values] = match Captured::bind(variant.inputs, captured, heads, variant.source, &problem) {
        Ok(captured) if told_apart(kernel.spec()) => {
            let seen = seen(&variant, (&problem, shared as u32), &captured, MAX_LOOKS);
            seen.map(|positions| positions / f64::from(per_token))
        }
        _ => {
            let of_each = f64::from(problem.batch.max(1));
            let one = Problem::prefill(variant.source, 1, problem.queries as usize, problem.keys as usize)?;
            let again = (of_each - 1.0) * work::live_keys(&variant, &one.partial(0..shared)?) as f64;
            [heads.kv, heads.value].map(|n| f64::from(n) * (live - again))
        }
    };
    let PageFormat { k, v, mixed, .. } = plan.cache;
    let stored = |rows: f64, heads: u32| {
        let of_each = f64::from(heads.max(1));
        if mixed { rows / of_each * f64::from(heads_of(&variant)) } else { rows }
    };
    let (keys, values) = (stored(keys, heads.kv), stored(values, heads.value));
    // Tokens that teach lookahead keys came with earlier calls; keys that learned are read.
    let (teachers, learned) = match variant.mechanism {
        Mechanism::Lookahead(_) => {
            (3.0 * live * f64::from(heads.kv) * row(heads.dim), 4.0 * keys * f64::from(heads.dim))
        }
        _ => (0.0, 0.0),
    };
    let cached = keys * k.row_bytes(heads.dim) as f64 + values * v.row_bytes(heads.value_dim) as f64;
    Ok(Work { read_bytes: work.read_bytes - uncached - teachers + cached + learned, ..work })
}

/// Rows that a cache of mixed rows has of a token.
fn heads_of(variant: &Variant<'_>) -> u32 {
    variant.heads.query.saturating_mul(variant.per_token())
}

/// Whether what is seen depends on more than positions.
fn told_apart(spec: &Spec) -> bool {
    let reads = |var| spec.allow.tree().reads(var);
    reads(Var::H) || reads(Var::G) || source::read_by_mask(spec).next().is_some()
}

/// Rows of keys and of values, over all their heads and sequences, that some query may see, those of the `shared` first tokens
/// once: looked at one by one, in large problems at equal distances.
fn seen(
    variant: &Variant<'_>,
    (problem, shared): (&Problem<'_>, u32),
    captured: &Captured<'_>,
    looks: u64,
) -> [f64; 2] {
    let heads = &variant.heads;
    let step = problem.pairs(heads).div_ceil(looks.max(1)).max(1);
    let (mut keys, mut values, mut looked_at, mut all) = (0u64, 0u64, 0u64, 0u64);
    let own = (0..problem.batch).map(|b| (b..b + 1, shared..problem.sequence(b).keys));
    for (sequences, rows) in [(0..problem.batch, 0..shared)].into_iter().chain(own) {
        all += rows.len() as u64;
        for k in rows.skip(step as usize / 2).step_by(step as usize) {
            looked_at += 1;
            let sees = |g: u32| {
                sequences.clone().any(|b| {
                    let of = problem.sequence(b);
                    (0..of.queries).any(|i| allowed(variant, captured, (b, &of), (g, i, k)))
                })
            };
            for value in 0..heads.value {
                let shared = heads.kv / heads.value;
                let seen = (value * shared..(value + 1) * shared).filter(|&g| sees(g)).count() as u64;
                keys += seen;
                values += seen.min(1);
            }
        }
    }
    [keys, values].map(|rows| rows as f64 * all as f64 / looked_at.max(1) as f64)
}

/// Whether some query head of key head `g` sees key `k` from query `i` of a sequence.
fn allowed(
    variant: &Variant<'_>,
    captured: &Captured<'_>,
    (b, of): (u32, &Sequence),
    (g, i, k): (u32, u32, u32),
) -> bool {
    let group = variant.heads.group();
    (g * group..(g + 1) * group).any(|h| {
        let scope = Scope {
            b: b as i32,
            h: h as i32,
            g: g as i32,
            q: of.q_offset + i as i32,
            k: k as i32,
            nq: of.queries as i32,
            nk: of.keys as i32,
            ..Scope::default()
        };
        eval(variant.allow, &scope, captured) == Ok(Value::Bool(true))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of keys and values that are seen in a cache of two sequences of 100 keys.
    fn rows(heads: &str, mask: &str, queries: usize, looks: u64) -> [f64; 2] {
        rows_of(heads, mask, (queries, 0), looks)
    }

    /// As [`rows`], with so many tokens in common.
    fn rows_of(heads: &str, mask: &str, (queries, shared): (usize, u32), looks: u64) -> [f64; 2] {
        let text =
            format!("heads = {{ {heads}, dim = 4 }}\ninputs = {{ doc = 'i32[b, k]' }}\nmask = '{mask}'");
        let spec = regard::parse(&text, "t.toml", &regard::NoFiles).unwrap_or_else(|e| panic!("{e}")).spec;
        let size = Size { batch: 2, queries, keys: 100 };
        let problem = cached::problem(&spec, Phase::Few, size).unwrap();
        // Document 0 ends in the first sequence at its 60th key, in the second at its 90th.
        let doc: Vec<i32> = (0..200).map(|at| i32::from(at % 100 >= 60 + 30 * (at / 100))).collect();
        let (variant, data) = (spec.variant(), [InputData::I32(&doc)]);
        let captured =
            Captured::bind(variant.inputs, &data, &variant.heads, variant.source, &problem.view()).unwrap();
        seen(&variant, (&problem.view(), shared), &captured, looks)
    }

    #[test]
    fn rows_that_are_shared_are_counted_once() {
        let heads = "query = 8, kv = 4, value = 2";
        // The first sequence sees keys from 60 on, the second from 90 on; of the first 70 tokens 60 to 69 are seen by one.
        let shared = rows_of(heads, "causal & same(doc)", (1, 70), MAX_LOOKS);
        assert_eq!(shared, [4.0 * (10.0 + 30.0 + 10.0), 2.0 * (10.0 + 30.0 + 10.0)]);
        assert_eq!(rows_of(heads, "causal & h < 99", (1, 100), MAX_LOOKS), [4.0 * 100.0, 2.0 * 100.0]);
    }

    #[test]
    fn rows_that_some_query_sees_are_counted() {
        let heads = "query = 8, kv = 4, value = 2";
        assert_eq!(rows(heads, "causal & same(doc)", 1, MAX_LOOKS), [4.0 * 50.0, 2.0 * 50.0]);
        // The first of three queries of the second sequence sees no further than they do.
        assert_eq!(rows(heads, "causal & window(8)", 3, MAX_LOOKS), [4.0 * 20.0, 2.0 * 20.0]);
        // Query heads 0 and 1 have the first key head alone; both key heads of the first value head are needed by none else.
        assert_eq!(rows(heads, "causal & h < 1", 1, MAX_LOOKS), [200.0, 200.0]);
        assert_eq!(rows(heads, "causal & g > 0", 1, MAX_LOOKS), [600.0, 400.0]);
        // Of 200 keys each fourth.
        let some = rows(heads, "causal & same(doc)", 1, 400)[0];
        assert!((some / 200.0 - 1.0).abs() < 0.2, "{some}");
    }
}
