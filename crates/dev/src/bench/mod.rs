//! `cargo xtask bench`: ours on a fixed set of workloads, by turns with other implementations.
//!
//! Every implementation is a process that obeys one [`protocol`]. In a round all compute the same workload on the same
//! tensors; each answer is held against the formula in f64, then they take turns, so that whatever else the machine does
//! falls on all. Results are kept as [`history`]; [`page`] and [`plot`] show them.

mod crew;
pub mod history;
mod load;
pub mod page;
pub mod peers;
pub mod plot;
pub mod protocol;
pub mod reference;
pub mod statistics;
pub mod summary;
pub mod turns;
pub mod workload;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use indicatif::{ProgressBar, ProgressStyle};

use crate::command::{Profile, Regard};
use crate::error::Error;
use crew::Crew;
use history::{History, Line, Session};
use peers::environment::Environment;
use workload::{Round, rounds};

/// Where tensors, answers and logs go while rounds are measured.
const FOLDER: &str = "target/bench";

/// What is to be measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Whether others are measured too.
    pub company: workload::Company,
    /// Where others live, unless it is the user's cache folder.
    pub peers_dir: Option<PathBuf>,
    /// Rounds whose names contain one of these; all if there is none.
    pub only: Vec<String>,
    /// Seconds that each who takes part is sampled for, in each round.
    pub seconds: f64,
}

/// Builds the command as it ships, and measures it as [`measure`] does.
///
/// # Errors
/// As `measure`, and if the command cannot be built.
pub fn run(root: &Path, options: &Options) -> Result<(), Error> {
    // What is mistyped is told before minutes of building.
    chosen(&options.only)?;
    measure(Regard::build(root, Profile::Release)?, root, options)
}

/// Measures what has not been measured yet, keeps it, and renders all that is kept.
///
/// # Errors
/// If no round has such a name, something around the measurement fails, or an answer of ours is past its bound.
pub fn measure(regard: Regard, root: &Path, options: &Options) -> Result<(), Error> {
    let chosen = chosen(&options.only)?;
    let with_peers = options.company == workload::Company::Peers;
    let environment = match with_peers {
        true => Some(Environment::new(options.peers_dir.as_deref(), root).map_err(Error::Peers)?),
        false => None,
    };
    let threads = chosen.iter().map(|round| round.threads).max().unwrap_or(1);
    let folder = root.join(FOLDER);
    fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    let mut session = Session {
        date: time::OffsetDateTime::now_utc().date().to_string(),
        command: command(options),
        commit: commit(root),
        ..Session::default()
    };
    let mut crew = Crew::muster(regard, environment, folder.clone(), threads, &mut session)?;
    let mut history = History::of(root, &session)?;
    let done = history.done(&session);
    let left: Vec<_> = chosen.into_iter().filter(|round| !done.contains(&round.name())).collect();
    if !done.is_empty() {
        eprintln!("{} rounds of an interrupted run are there, {} are left", done.len(), left.len());
    }
    history.append(Line::Session(session.clone()))?;
    let mut wrong = 0;
    let progress = progress(left.len());
    for round in left {
        progress.set_message(round.name());
        let measured = turns::measure(round, &mut crew, options.seconds, &folder)?;
        progress.suspend(|| summary::tell(&measured));
        wrong += measured.entries.iter().filter(|it| it.who == history::OURS && it.is_wrong()).count();
        history.append(Line::Round(measured))?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    history.append(Line::End)?;
    println!("kept in {}", history.path().strip_prefix(root).unwrap_or(history.path()).display());
    render(root)?;
    if wrong == 0 { Ok(()) } else { Err(Error::Wrong { answers: wrong }) }
}

/// Makes the page and the plots from all results that are kept.
///
/// # Errors
/// If a file of results cannot be read, or what is made of them cannot be written.
pub fn render(root: &Path) -> Result<(), Error> {
    let machines = summary::machines(&History::all(root)?);
    for machine in machines.iter().filter(|machine| machine.has_others()) {
        let path = root.join(history::FOLDER).join(machine.plot_name());
        plot::draw(machine, &path)?;
    }
    let path = root.join("docs/bench.md");
    fs::write(&path, page::page(&machines)).map_err(Error::file(&path))?;
    println!("rendered docs/bench.md");
    Ok(())
}

fn chosen(only: &[String]) -> Result<Vec<&'static Round>, Error> {
    let is_chosen = |round: &&Round| only.is_empty() || only.iter().any(|part| round.name().contains(part));
    let chosen: Vec<_> = rounds().filter(is_chosen).collect();
    if chosen.is_empty() {
        let names = rounds().map(Round::name).collect();
        return Err(Error::NoRound { found: only.join(", "), names });
    }
    Ok(chosen)
}

/// What is typed to get these results again.
fn command(options: &Options) -> String {
    let mut line = "cargo xtask bench".to_owned();
    if options.company == workload::Company::Peers {
        line.push_str(" --peers");
    }
    for only in &options.only {
        line.push_str(&format!(" --only {only}"));
    }
    line.push_str(&format!(" --seconds {}", options.seconds));
    line
}

/// The commit that is checked out, with a `+` if files that are built differ from it; "unknown" without git.
fn commit(root: &Path) -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(root).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "crates", "kernels", "Cargo.lock"]);
    if changed.is_some_and(|changed| !changed.is_empty()) { commit + "+" } else { commit }
}

/// A bar where stderr is a terminal.
fn progress(rounds: usize) -> ProgressBar {
    let bar = ProgressBar::new(rounds as u64);
    if let Ok(style) = ProgressStyle::with_template("[{bar:40}] {pos}/{len} rounds, {eta} left, now {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_chosen_by_a_part_of_their_name() {
        let names = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(|&part| part.to_owned()).collect();
            chosen(&only).map(|rounds| rounds.iter().map(|round| round.name()).collect::<Vec<_>>())
        };
        assert_eq!(
            names(&["vit", "alibi-2048/bf16"]).unwrap(),
            ["vit-197/f32", "vit-197/bf16", "alibi-2048/bf16"]
        );
        assert_eq!(names(&[]).unwrap().len(), rounds().count());
        let error = names(&["vitt"]).unwrap_err().to_string();
        assert!(error.contains("vitt") && error.contains("vit-197/f32"), "{error}");
    }
}
