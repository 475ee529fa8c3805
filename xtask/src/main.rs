//! The tasks of the workspace that cargo itself has no command for.
#![forbid(unsafe_code)]

mod ci;
mod codegen;
mod command;
mod error;
mod files;
mod guide;
mod link;
mod tidy;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use command::Cargo;
use error::Error;

/// Tasks of the regard workspace.
///
/// Exit codes: 0 done; 1 something around the tree is wrong (a missing tool, an unreadable file, a wrong flag);
/// 2 a check failed.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Plan, run, verify and time a spec on the activations of a real model.
    ///
    /// Builds and starts `regard-dev demo`. What follows is passed on: `cargo xtask demo --help` shows what it takes.
    #[command(disable_help_flag = true)]
    Demo {
        /// Passed on as they are.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Hold the planner's cost model against the clock.
    ///
    /// Starts `regard-dev model`. What follows is passed on: `cargo xtask model --help` shows what it takes.
    #[command(disable_help_flag = true)]
    Model {
        /// Passed on as they are.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure regard on a fixed set of workloads, and with `--peers` other implementations beside it.
    ///
    /// Builds and starts `regard-dev bench`. What follows is passed on: `cargo xtask bench --help` shows what it takes.
    #[command(disable_help_flag = true)]
    Bench {
        /// Passed on as they are.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Draw the gallery: docs/gallery.md, with a picture of each spec.
    ///
    /// Starts `regard-dev gallery`, which writes what differs and removes what is of no spec.
    Gallery {
        /// Write nothing; name every file that is edited, missing or left over.
        #[arg(long)]
        check: bool,
    },
    /// Make the parts of the guide to the language that come from the compiler's own tables.
    ///
    /// They stand between marks in docs/language.md and the pages below docs/language; the rest is left as it is.
    Guide {
        /// Write nothing; name every page that is not what the language has.
        #[arg(long)]
        check: bool,
    },
    /// Make the crate `kernels` from the shipped specs.
    ///
    /// Writes what differs and removes what no spec makes.
    Codegen {
        /// Write nothing; name every file that is edited, missing or left over.
        #[arg(long)]
        check: bool,
    },
    /// Compare the generated kernels of specs that do not ship with loaded ones and with the oracle.
    ///
    /// Makes a module of each SPEC, builds the command `regard` with it in a copy of the tree, and runs `regard verify
    /// SPEC… --dtype all`: each engine and instruction set of this machine, each storage type, several awkward sizes;
    /// whether both kernels give the same bits, and how near they are to the oracle. The first call builds for some
    /// minutes. The copy is in target/verify.
    #[command(
        after_help = "Examples:\n  cargo xtask verify mine.toml\n  cargo xtask verify experiments/*.toml"
    )]
    Verify {
        /// Spec files or names of shipped specs.
        #[arg(required = true, value_name = "SPEC")]
        specs: Vec<String>,
    },
    /// Check the rules of the tree that no compiler checks.
    ///
    /// Arrows between crates, homes and reasons of unsafe code, sizes of sources, the map in crates/ARCHITECTURE.md,
    /// manifests, and what no file may say. One line for each finding: file, what was found, what is expected.
    Tidy,
    /// Run every check of the project: what a change must pass.
    ///
    /// Format, tidy, clippy with warnings as errors, each feature of the run-time crates alone, link, all tests, and
    /// the demo, with the command as the tests have built it.
    /// Stops at the first step that fails and says how to run it by hand.
    Ci {
        /// Run exhaustive tests too: those marked `#[ignore = "long"]`, and the demo as it ships.
        #[arg(long)]
        long: bool,
    },
    /// Link the runtime into a program that has no allocator, and run it.
    ///
    /// The same program with the runtime's feature `alloc` must not link; that is checked as well.
    Link,
}

fn main() -> ExitCode {
    let root = root();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // A closed pipe under `--help` is not worth a message.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    match run(&root, args.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}

/// The folder of the workspace: above that of this crate.
///
/// `cargo run` says where the crate is. What was compiled in may be another clone that shares the target folder.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).parent().unwrap_or(Path::new(".")).to_owned()
}

fn run(root: &Path, task: Task) -> Result<(), Error> {
    match task {
        Task::Demo { args } => dev(root, "demo", &args),
        Task::Bench { args } => dev(root, "bench", &args),
        Task::Model { args } => dev(root, "model", &args),
        Task::Gallery { check } => {
            let gallery = Cargo::new(root, &["run", "--package", "regard-dev", "--", "gallery"]);
            gallery.args(if check { &["--check"] } else { &[] }).run()
        }
        Task::Guide { check: false } => guide::write(root),
        Task::Guide { check: true } => guide::check(root),
        Task::Codegen { check: false } => codegen::write(root),
        Task::Codegen { check: true } => codegen::check(root),
        Task::Verify { specs } => verify::run(root, &specs),
        Task::Tidy => tidy::run(root),
        Task::Ci { long: false } => ci::run(root, ci::Tests::Usual),
        Task::Ci { long: true } => ci::run(root, ci::Tests::Long),
        Task::Link => link::run(root),
    }
}

/// A task of `regard-dev`, built as it ships: what is timed in it says something of the kernels.
fn dev(root: &Path, task: &str, args: &[String]) -> Result<(), Error> {
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let command = Cargo::new(root, &["run", "--release", "--package", "regard-dev", "--", task]);
    command.args(&args).run_one_of_ours()
}
