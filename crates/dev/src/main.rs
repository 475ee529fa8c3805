//! Demonstrations and measurements that drive the command regard, as a user would, and read its JSON.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use regard_dev::bench::workload::Company;
use regard_dev::{Error, Profile, Regard, bench, demo, gallery, model};

/// Demonstrations and measurements of regard.
#[derive(Debug, Parser)]
#[command(name = "regard-dev")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Plan, run, verify and time a spec on the activations of a real model.
    ///
    /// Builds the command regard and shows each of its commands as it is typed. Fails if any of them does.
    Demo {
        /// Take the command as the tests have left it: the times that it shows mean nothing.
        #[arg(long)]
        quick: bool,
    },
    /// Draw the masks of all specs, and the page that shows them.
    ///
    /// Builds the command regard, and writes docs/gallery.md and what is in docs/gallery.
    Gallery {
        /// Write nothing; name every file that is edited, missing or left over.
        #[arg(long)]
        check: bool,
    },
    /// Hold the planner's cost model against the clock.
    ///
    /// Builds the command regard, calibrates it, times nine problems in each storage type beside what was predicted for
    /// them, and the planner's choice of engine beside its rivals, in turn. Prints Markdown. Takes some minutes; fails if the
    /// choice loses more than 5 % in the median or 25 % at worst.
    Model,
    Bench(BenchArgs),
}

/// Measure regard on a fixed set of workloads, and other implementations beside it.
///
/// Builds the command regard as it ships. Everyone takes turns on the same tensors, and every answer is held against the
/// formula in f64. Results are added to a file of this machine and this day in docs/bench, and docs/bench.md and its
/// pictures are made anew. A run that was interrupted goes on where it stopped when the same is asked for.
///
/// With `--peers`, PyTorch, vLLM's kernels, ONNX Runtime, OpenVINO, ggml and candle are measured too. What is not there
/// yet is set up first, by the ordinary clients of package registries, in some minutes and some gigabytes; what cannot be
/// had is skipped with the reason.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench --only gqa-4096
  cargo xtask bench --peers
  cargo xtask bench --render")]
struct BenchArgs {
    /// Measure other implementations too.
    #[arg(long)]
    peers: bool,
    /// Where they live; a folder in the user's cache if not given.
    #[arg(long, value_name = "FOLDER", requires = "peers")]
    peers_dir: Option<PathBuf>,
    /// Rounds whose names contain this, as vit or gqa-4096/bf16; may be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Seconds that each who takes part is sampled for, in each round.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Measure nothing; make the page and the pictures from what is kept.
    #[arg(long, conflicts_with_all = ["peers", "only"])]
    render: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().map_err(|_| "expected a number")?;
    if (0.0..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("expected 0 to 3600".to_owned()) }
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // A closed pipe under `--help` is not worth a message.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let done = match args.task {
        Task::Demo { quick } => demo::run(&root(), if quick { Profile::Tests } else { Profile::Release }),
        Task::Gallery { check } => gallery(&root(), check),
        Task::Model => model::run(&root()),
        Task::Bench(args) => bench(&root(), args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}

fn bench(root: &Path, args: BenchArgs) -> Result<(), Error> {
    let BenchArgs { peers, peers_dir, only, seconds, render } = args;
    if render {
        return bench::render(root);
    }
    let company = if peers { Company::Peers } else { Company::Alone };
    bench::run(root, &bench::Options { company, peers_dir, only, seconds })
}

fn gallery(root: &Path, check: bool) -> Result<(), Error> {
    let regard = Regard::build(root, Profile::Dev)?;
    if !check {
        return gallery::write(&regard, root);
    }
    let drift = gallery::drift(&regard, root)?;
    drift.iter().for_each(|drift| println!("{drift}"));
    if drift.is_empty() { Ok(()) } else { Err(Error::Drift { files: drift.len() }) }
}

/// The folder of the workspace: two above that of this crate.
///
/// `cargo run` says where the crate is. What was compiled in may be another clone that shares the target folder.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}
