//! The command line, and the help that teaches it.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use regard::ir::problem::Phase;
use regard::ir::spec::CacheFormat;
use regard::{Dtype, EngineKind, Isa, Source};

use crate::show::args::ShowArgs;
use crate::tensors::signature::Layout;

/// The most threads that can be asked for; past it, starting them takes longer than any problem.
const MAX_THREADS: u64 = 1024;

/// The most timed runs.
const MAX_REPEAT: u64 = 1_000_000;

/// Attention variants from ten lines of TOML to fused CPU kernels.
///
/// A spec says what a variant computes: heads, mask, score. `check` reads it, `explain` says what it costs, `plan` shows
/// how it will run on a machine and why, `show` draws its mask, `run` computes it on tensors, `verify` compares the kernel
/// with a naive f64 oracle, `bench` times it, `calibrate` measures the machine.
#[derive(Debug, Parser)]
#[command(name = "regard", version, arg_required_else_help = true, after_help = MAIN_HELP)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const MAIN_HELP: &str = "\
SPEC is a TOML file, or the name of a shipped spec as `regard list` shows it.

Exit codes:
  0  done (also when the reader of the output went away)
  1  the input is wrong: spec, tensors, flags, files, disk or memory
  2  a check failed: a result is past its bound

First steps:
  regard list
  regard explain gqa
  regard plan gqa --q 4096
  regard verify causal";

/// One command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the shipped specs and machine profiles.
    ///
    /// Prints a line for each: its name, which every other command takes, and what it is. The machine at hand comes first
    /// among the machines, marked with a star.
    List,
    Check(CheckArgs),
    Explain(ExplainArgs),
    Plan(PlanArgs),
    Show(ShowArgs),
    Run(RunArgs),
    Verify(VerifyArgs),
    Bench(BenchArgs),
    Calibrate(CalibrateArgs),
    Worker(WorkerArgs),
}

/// Report every error of every spec.
///
/// Prints each error and note with its place in the file, what was expected, and the nearest valid spelling. A spec
/// without errors gets one line that says what it means, with all definitions expanded.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  regard check mine.toml
  regard check specs/*.toml
  regard check gqa")]
pub(crate) struct CheckArgs {
    /// Spec files or names of shipped specs.
    #[arg(required = true, value_name = "SPEC")]
    pub(crate) specs: Vec<String>,
}

/// Say what a spec computes, and what that costs.
///
/// Prints the formula; the tensors that it reads; the bytes that a KV cache takes for each token, and how much of it the
/// mask can still reach; the operations and bytes of a prefill and of one decoded token, with the products that they are
/// made of; and what limits both on this machine, by its multiply-add rate and its read rates, which are measured now.
///
/// Where a mask reads tensors, their contents are not known here, and pairs are counted as if they forbade nothing. With
/// --machine the figures are of another machine, whose rates nobody measured, and no times are given.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  regard explain gqa
  regard explain sliding_window --q 1 --k 32768 --dtype bf16
  regard explain mine.toml --q 2048 --batch 16 --json")]
pub(crate) struct ExplainArgs {
    /// A spec file or the name of a shipped spec.
    #[arg(value_name = "SPEC")]
    pub(crate) spec: String,
    /// Queries of each sequence; as many as keys if not given.
    #[arg(long, value_name = "N")]
    pub(crate) q: Option<usize>,
    /// Keys of each sequence; as many as queries if not given, 4096 if neither is.
    #[arg(long, value_name = "N")]
    pub(crate) k: Option<usize>,
    /// Sequences.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) batch: usize,
    /// A shipped profile or a TOML file with isa, cores, l1d_kib, l2_kib and l3_kib; this machine if not given.
    #[arg(long, value_name = "PROFILE")]
    pub(crate) machine: Option<String>,
    /// Storage type of q, k, v and o; the spec's if not given.
    #[arg(long, value_name = "TYPE", value_parser = dtypes())]
    pub(crate) dtype: Option<Dtype>,
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show how a spec will run, and why so.
///
/// Prints the plan: engine, block sizes, each with the inequality that bounds it and the candidates it rejects; then the
/// schedule of one problem: tasks, tiles that are full, partial and dead, balance of the threads, predicted time, workspace.
///
/// With `--phase decode` or `few`, the last tokens of sequences attend to all their keys, which lie in a cache. Printed is then what
/// such a call does: cells of keys that are live, passes over them, balance of the threads, bytes of the cache and of what is read
/// of it, predicted time and what bounds it, workspace.
///
/// The machine may be another than this one. Where a mask reads tensors, their contents are not known here, and
/// every tile that depends on them counts as partial.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  regard plan causal --q 4096
  regard plan gqa --phase decode --k 8192 --batch 64 --dtype bf16
  regard plan sliding_window --q 32768 --k 32768 --machine server-avx512-amx --threads 32
  regard plan mine.toml --q 512 --k 512 --machine board.toml --json")]
pub(crate) struct PlanArgs {
    /// A spec file or the name of a shipped spec.
    #[arg(value_name = "SPEC")]
    pub(crate) spec: String,
    /// Queries of each sequence; must be given for prefill; if not given, 8 of few, 1 of decode, which has no more.
    #[arg(long, value_name = "N")]
    pub(crate) q: Option<usize>,
    /// Keys of each sequence; as many as queries of prefill if not given, must be given for decode and few.
    #[arg(long, value_name = "N")]
    pub(crate) k: Option<usize>,
    /// Sequences.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) batch: usize,
    /// What the call does: many queries at once, one query on a cache, or 2 to 16.
    #[arg(long, value_name = "PHASE", default_value = "prefill", value_parser = phases())]
    pub(crate) phase: Phase,
    /// A shipped profile or a TOML file with isa, cores, l1d_kib, l2_kib and l3_kib; this machine if not given.
    #[arg(long, value_name = "PROFILE")]
    pub(crate) machine: Option<String>,
    /// Storage type of q, k, v and o; the spec's if not given.
    #[arg(long, value_name = "TYPE", value_parser = dtypes())]
    pub(crate) dtype: Option<Dtype>,
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// The engine; the fastest if not given.
    #[arg(long, value_name = "NAME", value_parser = engines())]
    pub(crate) engine: Option<EngineKind>,
    #[command(flatten)]
    pub(crate) offset: OffsetArgs,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Compute a spec on the tensors of a file.
///
/// Reads q, k, v and the tensors that the spec declares from a safetensors file and writes `o`, and `lse` where the spec
/// says so, to another. What ran and how long it took is told on stderr. The output appears whole or not at all.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Shapes: q [batch, query heads, nq, dim], k [batch, kv heads, nk, dim], v [batch, kv heads, nk, value_dim].

Examples:
  regard run minilm -i layer0.safetensors -o out.safetensors
  regard run causal -i qkv.safetensors -o out.safetensors --layout bnhd --threads 4
  regard run causal -i qkv.safetensors -o out.safetensors --repeat 50 --json")]
pub(crate) struct RunArgs {
    /// A spec file or the name of a shipped spec.
    #[arg(value_name = "SPEC")]
    pub(crate) spec: String,
    /// The file with q, k, v and declared inputs.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// The engine; the fastest if not given.
    #[arg(long, value_name = "NAME", value_parser = engines())]
    pub(crate) engine: Option<EngineKind>,
    /// Where mask and modifier come from; generated if this build has a spec of the same ones, else loaded.
    #[arg(long, value_name = "SOURCE", value_parser = sources())]
    pub(crate) kernel: Option<Source>,
    #[command(flatten)]
    pub(crate) offset: OffsetArgs,
    /// Order of the axes of q, k, v, o and lse: heads before tokens, or tokens before heads.
    #[arg(long, value_name = "ORDER", default_value = "bhnd", value_parser = layouts())]
    pub(crate) layout: Layout,
    /// Time N runs after one that does not count.
    #[arg(long, value_name = "N", value_parser = repeats())]
    pub(crate) repeat: Option<u32>,
    /// Print what ran and its times as one JSON object on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Compare kernels with the oracle.
///
/// The oracle is the formula itself, in f64, one row at a time. Prints a line for each comparison: where the kernel comes
/// from, engine, instruction set, storage type, size, the largest relative error over 64 rows of a head, its bound, how
/// many rows were compared, the time of one run, ok or FAILED. Where this build has a generated kernel of the spec's mask
/// and modifier, a line says whether it gives the same bits as the loaded one. Instruction sets that this processor lacks
/// are named, and so is what this build does not have.
///
/// Without sizes a few awkward ones are taken; q, k and v are N(0, 1) from a fixed seed. With a file, its tensors are.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  regard verify causal
  regard verify mine.toml --q 2048 --dtype all
  regard verify minilm -i layer0.safetensors --expected layer0.expected.safetensors")]
pub(crate) struct VerifyArgs {
    /// Spec files or names of shipped specs.
    #[arg(required = true, value_name = "SPEC")]
    pub(crate) specs: Vec<String>,
    /// Queries of each sequence.
    #[arg(long, value_name = "N")]
    pub(crate) q: Option<usize>,
    /// Keys of each sequence; as many as queries if not given.
    #[arg(long, value_name = "N", requires = "q")]
    pub(crate) k: Option<usize>,
    /// Sequences; 1 if not given.
    #[arg(long, value_name = "N", requires = "q")]
    pub(crate) batch: Option<usize>,
    /// Storage type of q, k, v and o, or `all`; the spec's if not given.
    #[arg(long, value_name = "TYPE", value_parser = dtypes_or_all())]
    pub(crate) dtype: Option<Choice<Dtype>>,
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// The engine, or `all`.
    #[arg(long, value_name = "NAME", default_value = "all", value_parser = engines_or_all())]
    pub(crate) engine: Choice<EngineKind>,
    /// Where mask and modifier come from; each that this build has if not given.
    #[arg(long, value_name = "SOURCE", value_parser = sources())]
    pub(crate) kernel: Option<Source>,
    /// A file with q, k, v and declared inputs to compare on.
    #[arg(short, long, value_name = "FILE", conflicts_with = "q")]
    pub(crate) input: Option<PathBuf>,
    /// A file whose `o` is another implementation's output on the same input; the kernel must be as near to it.
    #[arg(long, value_name = "FILE", requires = "input")]
    pub(crate) expected: Option<PathBuf>,
    /// Order of the axes of the files' q, k, v and o: heads before tokens, or tokens before heads.
    #[arg(long, value_name = "ORDER", default_value = "bhnd", value_parser = layouts())]
    pub(crate) layout: Layout,
    /// Print one JSON object for each line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Time kernels, and check what was timed.
///
/// First measures this machine, for about a second: the multiply-adds of all threads and of one, and the bytes that
/// they read, and that they read and write back, from each cache and from memory.
///
/// Then prints a line for each spec: the median and the spread of its runs; GFLOP/s over the pairs that its mask allows;
/// GB/s, each tensor read or written once; which of the machine's peaks bounds such a problem (fma, read or readwrite)
/// and how much of it the kernel reaches; and the error against the oracle. q, k and v are N(0, 1) from a fixed seed.
/// Each spec takes about a second.
///
/// Without `--baseline` and `--against`, the column `by model` has the median as a multiple of what the planner's cost model
/// predicts, by the rates that `regard calibrate` measured or by estimates.
///
/// With `--baseline`, kernel and plain way run in turn: a matrix product of the crate gemm, a vectorised softmax of whole
/// rows, a matrix product, heads shared out over the same threads. Printed is how many times as long it takes.
///
/// With `--against`, kernel and that of another spec run in turn on problems of the same size. Printed is the median of the
/// ratios of their times: 1.1 where this one takes a tenth longer.
///
/// With `--phase decode` or `few`, queries attend to keys and values that lie in a cache, as when a model generates. The
/// machine is measured by what bounds that: for each spec by how fast as many bytes as its cache has can be read in huge
/// pages, whichever of several ways of reading is the fastest. GB/s are then the cached keys and values that the mask lets
/// queries see, with their scales, q and o. Where the cache keeps fewer digits than the tensors, the error is that of a whole
/// head by its rms.
///
/// With `--shared N` too, the sequences have their first N tokens in common, as those of one prompt: they lie once in a paged
/// cache, which each sequence was forked from, and count once in GB/s.
///
/// Of decode and few, the column `model` has the median as a multiple of what the planner predicts for such a call; for sequences
/// that share tokens it predicts nothing.
///
/// With `--phase generate`, a sequence grows from nothing to `--k` tokens. Each step appends the key and value of one and attends
/// its query; tokens are drawn once and taken again in turn, so that nothing but the cache grows, and read before their step is
/// timed. Printed are the median step of the second tenth and of the last (of 100,000 steps or more, 10,000 each), the mean of the
/// latter, the medians' ratio, and how much the process's resident memory grew between the end of the one and the end of the other.
/// The last step of 4096 or fewer is held against the oracle; of a longer sequence nothing is. The last median is also held against
/// how fast as many bytes are read as the last step reads. Of a recurrence a step reads and writes the states of all heads: its
/// median is held against how fast as many bytes are read and written in place, and all steps of 4096 or fewer against the oracle.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  regard bench causal --q 2048
  regard bench mha causal --q 4096 --baseline
  regard bench gqa --phase decode --k 16384 --batch 8
  regard bench gqa --phase few --k 65536 --dtype bf16 --cache int8
  regard bench gqa --phase decode --k 4096 --batch 64 --shared 4000
  regard bench sliding_window --phase generate --k 200000
  regard bench gated_deltanet --phase generate --k 2000
  regard bench softcap alibi --q 4096 --kernel loaded --against causal
  regard bench mine.toml --q 1024 --dtype bf16 --json")]
pub(crate) struct BenchArgs {
    /// Spec files or names of shipped specs.
    #[arg(required = true, value_name = "SPEC")]
    pub(crate) specs: Vec<String>,
    /// What the calls do: many queries at once, one query on a cache, or 2 to 16; or one for each token of a growing cache.
    #[arg(long, value_name = "PHASE", default_value = "prefill", value_parser = bench_phases())]
    pub(crate) phase: BenchPhase,
    /// Queries of each sequence; if not given, 1024 of prefill, 8 of few, 1 of decode, which has no more.
    #[arg(long, value_name = "N")]
    pub(crate) q: Option<usize>,
    /// Keys of each sequence, at the end of generate; if not given, as many as queries of prefill, 4096 in a cache.
    #[arg(long, value_name = "N")]
    pub(crate) k: Option<usize>,
    /// Sequences.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) batch: usize,
    /// How the cache stores keys and values; as the spec says if not given.
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    pub(crate) cache: Option<CacheFormat>,
    /// Tokens that all sequences begin with, kept once in a paged cache; none if not given.
    #[arg(long, value_name = "N")]
    pub(crate) shared: Option<usize>,
    /// Storage type of q, k, v and o; the spec's if not given.
    #[arg(long, value_name = "TYPE", value_parser = dtypes())]
    pub(crate) dtype: Option<Dtype>,
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// The engine; the fastest if not given.
    #[arg(long, value_name = "NAME", value_parser = engines())]
    pub(crate) engine: Option<EngineKind>,
    /// Where mask and modifier come from; generated if this build has a spec of the same ones, else loaded.
    #[arg(long, value_name = "SOURCE", value_parser = sources())]
    pub(crate) kernel: Option<Source>,
    /// Timed runs; as many as take about a second if not given.
    #[arg(long, value_name = "N", value_parser = repeats())]
    pub(crate) repeat: Option<u32>,
    /// Also time matrix product, softmax, matrix product, in turn with the kernel. Exact f32 alone.
    #[arg(long)]
    pub(crate) baseline: bool,
    /// Also time this spec, in turn with the kernel. Its own kernel is generated if this build has it.
    #[arg(long, value_name = "SPEC", conflicts_with = "baseline")]
    pub(crate) against: Option<String>,
    /// Print one JSON object for each spec instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Measure how fast each engine is on this machine, and keep it.
///
/// Takes a few seconds, on one core. For each engine and instruction set: products, in its own tiles on N(0, 1) numbers in
/// cache; scores made into weights, by what that adds to the products; keys and values packed. And what a core reads from each
/// cache and from memory.
///
/// They are kept in the folder `regard` of the user's caches ($XDG_CACHE_HOME, else ~/.cache), in a file of this machine's own,
/// and from then on decide which engine serves a plan: so they may change the bits of results, which the same file never
/// does. Without them, rates are estimated from the instruction set.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  regard calibrate
  regard calibrate --show
  regard calibrate --show --toml > this-machine.toml")]
pub(crate) struct CalibrateArgs {
    /// Measure nothing; print what was, and where it is kept.
    #[arg(long)]
    pub(crate) show: bool,
    /// Print a machine profile, as --machine takes it, instead of a table.
    #[arg(long)]
    pub(crate) toml: bool,
}

/// Set kernels up and time them as another program asks by lines on stdin.
///
/// What `cargo xtask bench` alternates with other implementations. The protocol is in docs/measuring.md.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct WorkerArgs {
    /// Threads that share the work; one for each core if not given.
    #[arg(long, value_name = "T", value_parser = threads())]
    pub(crate) threads: Option<usize>,
}

/// What several commands let a caller choose of a kernel.
#[derive(Debug, clap::Args)]
pub(crate) struct ChoiceArgs {
    /// The most capable instruction set to use; the machine's if not given.
    #[arg(long, value_name = "SET", value_parser = isas())]
    pub(crate) isa: Option<Isa>,
    /// Threads that share the work; one for each core if not given.
    #[arg(long, value_name = "T", value_parser = threads())]
    pub(crate) threads: Option<usize>,
}

/// What `bench` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BenchPhase {
    /// Calls that are all alike.
    Call(Phase),
    /// Calls on a cache that grows from one to the next.
    Generate,
}

impl BenchPhase {
    const ALL: [BenchPhase; 4] = [
        BenchPhase::Call(Phase::Prefill),
        BenchPhase::Call(Phase::Few),
        BenchPhase::Call(Phase::Decode),
        BenchPhase::Generate,
    ];

    /// As it is written on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            BenchPhase::Call(phase) => phase.name(),
            BenchPhase::Generate => "generate",
        }
    }
}

/// Where queries stand among the keys.
#[derive(Debug, clap::Args)]
pub(crate) struct OffsetArgs {
    /// Position of the first query; if not given, the queries are the last of the keys' positions (0 in
    /// cross-attention).
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) q_offset: Option<i64>,
}

/// One of a kind, or each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice<T> {
    /// Each that there is.
    All,
    /// This one.
    One(T),
}

impl<T: Copy> Choice<T> {
    /// What is chosen among `all`.
    pub(crate) fn of(self, all: &[T]) -> Vec<T> {
        match self {
            Choice::All => all.to_vec(),
            Choice::One(one) => vec![one],
        }
    }
}

/// A parser of the names that `name` gives to `all`.
fn named<T>(all: &'static [T], name: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let names = PossibleValuesParser::new(all.iter().map(|&one| name(one)));
    names.try_map(move |text| all.iter().copied().find(|&one| name(one) == text).ok_or("no such name"))
}

/// As [`named`], or `all`.
fn named_or_all<T>(all: &'static [T], name: fn(T) -> &'static str) -> impl TypedValueParser<Value = Choice<T>>
where
    T: Copy + Send + Sync + 'static,
{
    let names = PossibleValuesParser::new(all.iter().map(|&one| name(one)).chain(["all"]));
    names.map(move |text| {
        let one = all.iter().copied().find(|&one| name(one) == text);
        one.map_or(Choice::All, Choice::One)
    })
}

pub(crate) fn isas() -> impl TypedValueParser<Value = Isa> {
    named(&Isa::ALL, Isa::name)
}

pub(crate) fn dtypes() -> impl TypedValueParser<Value = Dtype> {
    named(&Dtype::ALL, Dtype::name)
}

fn dtypes_or_all() -> impl TypedValueParser<Value = Choice<Dtype>> {
    named_or_all(&Dtype::ALL, Dtype::name)
}

fn engines() -> impl TypedValueParser<Value = EngineKind> {
    named(&EngineKind::ALL, EngineKind::name)
}

fn engines_or_all() -> impl TypedValueParser<Value = Choice<EngineKind>> {
    named_or_all(&EngineKind::ALL, EngineKind::name)
}

fn sources() -> impl TypedValueParser<Value = Source> {
    named(&Source::ALL, Source::name)
}

fn layouts() -> impl TypedValueParser<Value = Layout> {
    named(&Layout::ALL, Layout::name)
}

fn phases() -> impl TypedValueParser<Value = Phase> {
    named(&[Phase::Prefill, Phase::Few, Phase::Decode], Phase::name)
}

fn bench_phases() -> impl TypedValueParser<Value = BenchPhase> {
    named(&BenchPhase::ALL, BenchPhase::name)
}

fn formats() -> impl TypedValueParser<Value = CacheFormat> {
    named(&CacheFormat::ALL, CacheFormat::name)
}

fn threads() -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u64).range(1..=MAX_THREADS).map(|threads| threads as usize)
}

fn repeats() -> impl TypedValueParser<Value = u32> {
    clap::value_parser!(u64).range(1..=MAX_REPEAT).map(|repeat| repeat as u32)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn negative_offsets_are_numbers_not_flags() {
        let args =
            Args::try_parse_from(["regard", "plan", "gqa", "--q", "2", "--k", "1", "--q-offset", "-1"]);
        let Command::Plan(plan) = args.unwrap().command else { panic!("a plan was asked for") };
        assert_eq!(plan.offset.q_offset, Some(-1));
    }
}
