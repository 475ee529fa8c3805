//! A sequence that grows from nothing, token by token, as when a model generates: whether steps get slower, and memory grows, as
//! it gets long; and of a recurrence, whose states stay as large as they are, how near steps come to what the machine can do.

mod held;

use std::hint::black_box;
use std::io::Write;
use std::ops::Range;
use std::time::Instant;

use regard::ir::problem::Phase;
use regard::{
    CacheLimits, Dtype, EngineKind, Inputs, Isa, Kernel, KeyRows, Outputs, QueryRows, RunError, Spec,
    Threads, View, machine,
};
use regard_engine::detect;
use regard_engine::engine::LINE;
use regard_ir::inputs::InputData;
use regard_ir::variant::{Axis, Source};
use regard_ir::work;
use regard_oracle::random::CapturedBuffer;
use serde::Serialize;

use super::cached::{Place, format, stored};
use super::{CACHED, compile, header};
use crate::args::{BenchArgs, BenchPhase};
use crate::cached::{self, Part, has_states};
use crate::execute::{operands, run_failure};
use crate::failure::Failure;
use crate::host;
use crate::memory::{self, Bytes};
use crate::peaks;
use crate::progress::{self, Progress};
use crate::run::pool;
use crate::source;
use crate::tensors::signature::{Bound, Layout};
use crate::tensors::stored::Stored;
use crate::timing::{Seconds, median};
use crate::verify::problem::{self, Size};

/// Rows of q, k and v that are drawn; a longer sequence takes them again in turn, so that memory is that of the cache. So long
/// a sequence is held against the oracle.
const DRAWN: usize = 4096;

/// Steps of a median at most, and the steps from which on it is that many.
const WINDOW: usize = 10_000;

/// Of fewer steps, a window is such a part.
const PART: usize = 10;

/// Bytes of a line of a cache.
const LINE_BYTES: usize = LINE * size_of::<f32>();

/// Parts of a progress bar.
const PROGRESS: usize = 100;

/// Where the order of packed tokens of one sequence is that of calls on a cache.
const LAYOUT: Layout = Layout::Packed;

/// The steps that medians are of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Windows {
    early: Range<usize>,
    late: Range<usize>,
}

impl Windows {
    /// Of a sequence of so many tokens: the second ten thousand and the last, of short ones the second tenth and the last; `None`
    /// where a tenth is nothing.
    fn new(tokens: usize) -> Option<Self> {
        let len = (tokens / PART).min(WINDOW);
        (len > 0).then(|| Self { early: len..2 * len, late: tokens - len..tokens })
    }
}

/// What came of one spec.
#[derive(Clone, Debug, Serialize)]
struct Grown {
    spec: String,
    /// Where the variant's code comes from.
    kernel: &'static str,
    engine: EngineKind,
    isa: &'static str,
    dtype: &'static str,
    /// How keys and values are cached.
    cache: String,
    cache_layout: &'static str,
    phase: &'static str,
    /// Tokens at the end.
    k: usize,
    threads: usize,
    /// Steps of each median.
    window: usize,
    /// The step that the first begins with; the other is of the last steps.
    early_from: usize,
    /// Median times of a step.
    early_s: f64,
    late_s: f64,
    /// Mean time of the last steps: some steps do more than others.
    late_mean_s: f64,
    /// The second median by the first.
    ratio: f64,
    /// What a step of the last does, "read" or, of states, "readwrite", of so many bytes; 10⁹ bytes a second of it at most, of as
    /// many; and how much of that the second median is.
    limit: &'static str,
    step_bytes: u64,
    peak: f64,
    share: f64,
    /// Bytes that the cache has room for.
    cache_bytes: usize,
    /// How much more memory the process has at the end than at the end of the first window, where the system tells.
    grown_bytes: Option<i64>,
    cpu: String,
    /// The last step's error and bound, of a recurrence those of all steps, and whether it is within; absent of sequences that are
    /// not held against the oracle.
    error: Option<f64>,
    bound: Option<f64>,
    passed: Option<bool>,
}

/// Grows a sequence for each spec, and prints a line for it.
///
/// # Errors
/// As [`bench`](super::bench()), if the library has no such cache, and if what a spec takes would grow beside it.
pub(super) fn bench(args: &BenchArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let tokens = args.k.unwrap_or(CACHED);
    let windows = Windows::new(tokens).ok_or(Failure::Steps { found: tokens, least: PART })?;
    let specs = args.specs.iter().map(|name| {
        let spec = stored(args, source::spec(name)?)?;
        check_constant(&spec)?;
        Ok(spec)
    });
    let specs = specs.collect::<Result<Vec<_>, Failure>>()?;
    let kernels = specs.iter().map(|spec| compile(args, spec, args.kernel)).collect::<Result<Vec<_>, _>>()?;
    let Some(isa) = kernels.first().map(|kernel| kernel.plan().isa) else { return Ok(()) };
    let place =
        Place { cpu: detect::processor(), machine: machine::host(), pool: pool(args.choice.threads)? };
    if !args.json {
        header::machine(out, &place.cpu, &place.machine, &place.pool, isa)?;
        let Windows { early, late } = &windows;
        writeln!(
            out,
            "median step, an append and a decode: early of steps {} to {}, late of the last {}; mean of the latter\n\
             memory: what the process grew by from the end of the early ones on\n",
            early.start,
            early.end,
            late.len()
        )?;
        writeln!(out, "{}", row(HEADS))?;
    }
    let mut failed = 0;
    let progress = Progress::new("specs", kernels.len() as u64);
    for kernel in &kernels {
        let grown = grow(kernel, tokens, &windows, &place)?;
        failed += usize::from(grown.passed == Some(false));
        let line = if args.json { serde_json::to_string(&grown)? } else { grown.text() };
        progress::set_aside(|| writeln!(out, "{line}"))?;
        progress.advance();
    }
    drop(progress);
    if failed > 0 { Err(Failure::Failed { n: failed, of: kernels.len() }) } else { Ok(()) }
}

/// Whether all that a spec takes beside q, k and v is the same however many tokens there are. A recurrence takes what it has of each
/// token with the token.
fn check_constant(spec: &Spec) -> Result<(), Failure> {
    if spec.source == Source::Cross {
        return Err(Failure::GrowsCross { spec: spec.name.clone() });
    }
    if has_states(spec) {
        return Ok(());
    }
    let is_along = |axis: &Axis| matches!(axis, Axis::Query | Axis::Key);
    let mut inputs = spec.inputs.names.iter().zip(&spec.inputs.shapes);
    match inputs.find(|(_, shape)| shape.axes().iter().any(is_along)) {
        Some((input, _)) => Err(Failure::GrowsInput { spec: spec.name.clone(), input: input.clone() }),
        None => Ok(()),
    }
}

/// Tensors that a sequence takes its tokens from.
struct Drawn<'a> {
    spec: &'a Spec,
    q: QueryRows<'a>,
    kv: KeyRows<'a>,
    gate: Option<View<'a>>,
    captured: &'a [InputData<'a>],
    bound: &'a Bound<'a>,
    rows: usize,
}

impl<'a> Drawn<'a> {
    fn new(
        kernel: &'a Kernel,
        bound: &'a Bound<'a>,
        captured: &'a [InputData<'a>],
        rows: usize,
    ) -> Result<Self, Failure> {
        let gate = bound.gate.as_ref().map(Stored::rows).transpose()?;
        let (q, kv) = operands(kernel, bound)?;
        Ok(Self { spec: kernel.spec(), q, kv, gate, captured, bound, rows })
    }

    /// Captured tensors of the token of a step alone, where it takes such.
    fn own(&self, at: usize) -> Vec<CapturedBuffer> {
        if !has_states(self.spec) {
            return Vec::new();
        }
        let at = at % self.rows;
        let of = Part { batch: 1, keys: self.rows, index: 0, tokens: at..at + 1 };
        let shapes = self.spec.inputs.shapes.iter().zip(self.captured);
        shapes.map(|(shape, data)| of.cut(*data, shape, self.spec)).collect()
    }

    /// Reads what a step takes, so that it is in the nearest cache: a model has just made it, where rows that were drawn long ago
    /// come from memory.
    fn fetch(&self, at: usize) {
        let at = at % self.rows;
        for stored in &self.bound.operands {
            let [_, heads, tokens, width] = stored.shape;
            if tokens == self.rows {
                let row = at * heads * width..(at + 1) * heads * width;
                for &byte in stored.elements.all().part(row).bytes().iter().step_by(LINE_BYTES) {
                    black_box(byte);
                }
            }
        }
    }

    /// What a step takes beside captured tensors.
    fn step(&self, at: usize) -> Inputs<'a> {
        let row = at % self.rows..at % self.rows + 1;
        let gate = self.gate.map(|gate| gate.tokens(row.clone()));
        let (q, kv) = (self.q.tokens(row.clone()), self.kv.tokens(row));
        Inputs { q, kv, captured: self.captured, gate }
    }
}

fn grow(kernel: &Kernel, tokens: usize, windows: &Windows, place: &Place) -> Result<Grown, Failure> {
    let (spec, plan, pool) = (kernel.spec(), kernel.plan(), &place.pool);
    let fail = |error| run_failure(spec, error);
    let rows = tokens.min(DRAWN);
    let limits = CacheLimits::new(1, tokens);
    // What is too long is told before anything is drawn.
    let mut cache =
        kernel.cache(limits).map_err(|error| Failure::Cache { spec: spec.name.clone(), error })?;
    let problem = cached::problem(spec, Phase::Prefill, Size { batch: 1, queries: rows, keys: rows })?;
    let bound = problem::tensors(spec, plan.dtype, &problem.view(), LAYOUT)?;
    let captured = bound.captured();
    let drawn = Drawn::new(kernel, &bound, &captured, rows)?;
    let sequence = cache.open().map_err(|error| fail(RunError::Store(error)))?;
    let mut step = kernel.step(&cache, 1, pool.count()).map_err(fail)?;
    let mut output = Output::new(kernel)?;
    let moved = Moved::new(kernel, tokens, &captured)?;
    let peak = moved.peak(place, plan.isa)?;
    let mut all: Option<Vec<f32>> = match has_states(spec) && tokens == rows {
        true => Some(memory::zeroed("the outputs of all steps", rows as u128 * output.len() as u128)?),
        false => None,
    };
    let mut early = memory::zeroed("the times", windows.early.len() as u128)?;
    let mut late = memory::zeroed("the times", windows.late.len() as u128)?;
    // The first look takes memory of its own.
    let mut resident = host::resident_bytes();
    let progress = Progress::new("percent of the steps", PROGRESS as u64);
    for at in 0..tokens {
        let own = drawn.own(at);
        let own: Vec<_> = own.iter().map(CapturedBuffer::data).collect();
        let inputs = drawn.step(at);
        let inputs = if own.is_empty() { inputs } else { Inputs { captured: &own, ..inputs } };
        let outputs = output.view()?;
        drawn.fetch(at);
        let start = Instant::now();
        kernel.decode_next(&mut step, pool, (&mut cache, &[sequence]), inputs, outputs).map_err(fail)?;
        let seconds = start.elapsed().as_secs_f64();
        if let Some(all) = &mut all {
            let to = &mut all[at * output.len()..][..output.len()];
            to.iter_mut().zip(output.o.elements.floats()).for_each(|(to, x)| *to = x);
        }
        for (window, times) in [(&windows.early, &mut early), (&windows.late, &mut late)] {
            if window.contains(&at) {
                times[at - window.start] = seconds;
            }
        }
        if at + 1 == windows.early.end {
            resident = host::resident_bytes();
        }
        if (at + 1) % tokens.div_ceil(PROGRESS) == 0 {
            progress.advance();
        }
    }
    drop(progress);
    let grown = host::resident_bytes().zip(resident).map(|(now, then)| now as i64 - then as i64);
    let cache_bytes = cache.bytes();
    let judged = match (tokens == rows, all) {
        (true, Some(all)) => Some(held::all(kernel, &bound, (all, (&cache, sequence)), place)?),
        (true, None) => {
            drop(cache);
            Some(held::last(kernel, bound, output, place)?)
        }
        (false, _) => None,
    };
    let late_mean_s = late.iter().sum::<f64>() / late.len() as f64;
    let [early_s, late_s] = [early, late].map(|mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        median(&times)
    });
    Ok(Grown {
        spec: spec.name.clone(),
        kernel: kernel.source().name(),
        engine: plan.engine,
        isa: plan.isa.name(),
        dtype: plan.dtype.name(),
        cache: if has_states(spec) { "states f32".to_owned() } else { format(&plan.cache) },
        cache_layout: spec.cache.layout.name(),
        phase: BenchPhase::Generate.name(),
        k: tokens,
        threads: pool.count(),
        window: windows.late.len(),
        early_from: windows.early.start,
        early_s,
        late_s,
        late_mean_s,
        ratio: if early_s > 0.0 { late_s / early_s } else { 0.0 },
        limit: if moved.in_place { "readwrite" } else { "read" },
        step_bytes: moved.bytes,
        peak,
        share: moved.bytes as f64 / late_s / 1e9 / peak,
        cache_bytes,
        grown_bytes: grown,
        cpu: place.cpu.clone(),
        error: judged.map(|judged| judged.error),
        bound: judged.map(|judged| judged.bound),
        passed: judged.map(|judged| judged.passed),
    })
}

/// What a step moves.
struct Moved {
    /// Whether what is read is written back.
    in_place: bool,
    /// Both ways then.
    bytes: u64,
}

impl Moved {
    /// Of the last of so many tokens: states, or keys and values of the pages that it sees, and what lookahead keys among them ask.
    fn new(kernel: &Kernel, tokens: usize, captured: &[InputData<'_>]) -> Result<Self, Failure> {
        let (spec, variant) = (kernel.spec(), kernel.variant());
        if has_states(spec) {
            return Ok(Self { in_place: true, bytes: 2 * work::state_bytes(&variant, 1) as u64 });
        }
        let problem = cached::problem(spec, Phase::Decode, Size { batch: 1, queries: 1, keys: tokens })?;
        let call = kernel
            .planned()
            .call(&problem.view(), Some(captured), 1)
            .map_err(|error| Failure::Schedule { spec: spec.name.clone(), error })?;
        let asks = call.learners.saturating_mul(kernel.plan().cache.k.row_bytes(variant.heads.dim));
        Ok(Self { in_place: false, bytes: call.read_bytes.saturating_add(asks) })
    }

    /// 10⁹ bytes that move so a second at most.
    fn peak(&self, place: &Place, isa: Isa) -> Result<f64, Failure> {
        let bytes = self.bytes as usize;
        Ok(match self.in_place {
            true => peaks::read_write_gbs(&place.pool, isa, bytes / 2)?,
            false => peaks::read_gbs(&place.pool, isa, bytes)?,
        })
    }
}

/// Where steps write.
struct Output {
    o: Stored<'static>,
    lse: Option<Stored<'static>>,
}

impl Output {
    fn new(kernel: &Kernel) -> Result<Self, Failure> {
        let variant = kernel.variant();
        let shape = |heads: u32, width: u32| [1, heads as usize, 1, width as usize];
        let o = shape(variant.output_heads(), variant.heads.value_dim);
        let lse = || Stored::zeroed("the lse", Dtype::F32, shape(variant.heads.query, 1), LAYOUT);
        let lse = variant.output.lse.then(lse).transpose()?;
        Ok(Self { o: Stored::zeroed("the output", kernel.plan().dtype, o, LAYOUT)?, lse })
    }

    /// Elements of a step.
    fn len(&self) -> usize {
        self.o.elements.all().len()
    }

    fn view(&mut self) -> Result<Outputs<'_>, Failure> {
        let lse = self.lse.as_mut().map(Stored::rows_mut).transpose()?;
        Ok(Outputs { o: self.o.rows_mut()?, lse })
    }
}

/// What is above the columns.
const HEADS: [&str; 12] = [
    "spec", "kernel", "type", "cache", "layout", "tokens", "early", "late", "mean", "ratio", "memory",
    "error",
];

/// Cells in their columns.
fn row(cells: [&str; 12]) -> String {
    let [spec, kernel, dtype, cache, layout, tokens, early, late, mean, ratio, memory, error] = cells;
    let what = format!("{spec:<14} {kernel:<9} {dtype:<4} {cache:<14} {layout:<10}");
    format!("{what} {tokens:>8} {early:>8} {late:>8} {mean:>8} {ratio:>5} {memory:>10} {error}")
}

impl Grown {
    /// A row of the table, and a line beneath it.
    fn text(&self) -> String {
        let Self { spec, kernel, dtype, cache, cache_layout, k, early_s, late_s, late_mean_s, ratio, .. } =
            self;
        let memory = match self.grown_bytes {
            None => "unknown".to_owned(),
            Some(bytes) => {
                let sign = if bytes < 0 { "-" } else { "+" };
                format!("{sign}{}", Bytes(bytes.unsigned_abs().into()))
            }
        };
        let error = match (self.error, self.bound, self.passed) {
            (Some(error), _, Some(true)) => format!("{error:.1e} ok"),
            (Some(error), Some(bound), _) => format!("{error:.1e} FAILED, at most {bound:.1e}"),
            _ => "not checked".to_owned(),
        };
        let [early, late, mean] = [early_s, late_s, late_mean_s].map(|&s| Seconds(s).to_string());
        let (k, ratio) = (k.to_string(), format!("{ratio:.3}"));
        let row = row([
            spec,
            *kernel,
            *dtype,
            cache,
            *cache_layout,
            &k,
            &early,
            &late,
            &mean,
            &ratio,
            &memory,
            &error,
        ]);
        let (share, peak) = (100.0 * self.share, self.peak);
        let done = if self.limit == "read" { "read" } else { "read and written in place" };
        format!("{row}\n  late: {share:.0} % of {peak:.1} GB/s, at which as many bytes are {done} at most")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_the_second_and_the_last_part() {
        let of = |tokens| Windows::new(tokens).map(|it| (it.early, it.late));
        assert_eq!(of(9), None);
        assert_eq!(of(10), Some((1..2, 9..10)));
        assert_eq!(of(99_999), Some((9_999..19_998, 90_000..99_999)));
        assert_eq!(of(100_000), Some((10_000..20_000, 90_000..100_000)));
        assert_eq!(of(1_000_000), Some((10_000..20_000, 990_000..1_000_000)));
    }
}
