//! Demonstrations and measurements that drive the command regard, as a user would, and read its JSON.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use regard_dev::{Error, Profile, Regard, demo, gallery, model};

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
    Demo,
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
        Task::Demo => demo::run(&root()),
        Task::Gallery { check } => gallery(&root(), check),
        Task::Model => model::run(&root()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
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
