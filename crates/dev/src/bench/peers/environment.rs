//! The folder that peers live in: made part by part, each once.
//!
//! A finished part leaves a mark with its pins, so that a setup that was interrupted goes on where it stopped and other
//! versions are made anew. What package clients and compilers say goes to a log.

use std::collections::HashMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::pins::Part;
use super::steps;

/// Where peers live unless told otherwise, below the user's cache folder.
const FOLDER: &str = "regard/peers";

/// The peers' folder.
#[derive(Debug)]
pub struct Environment {
    folder: PathBuf,
    sources: PathBuf,
    /// What was looked at in this run.
    known: HashMap<Part, Result<(), String>>,
}

impl Environment {
    /// The folder at `folder`, or in the user's cache; the peers' sources are in the tree at `root`.
    ///
    /// # Errors
    /// If there is no cache folder, or it cannot be made.
    pub fn new(folder: Option<&Path>, root: &Path) -> Result<Self, String> {
        let folder = match folder {
            Some(folder) => folder.to_owned(),
            None => cache_folder()
                .ok_or("found neither XDG_CACHE_HOME nor HOME, expected --peers-dir")?
                .join(FOLDER),
        };
        let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(folder.join("logs")).map_err(fail)?;
        fs::create_dir_all(folder.join("ready")).map_err(fail)?;
        let folder = folder.canonicalize().map_err(fail)?;
        Ok(Self { folder, sources: root.join("crates/dev/peers"), known: HashMap::new() })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the workers' sources are.
    pub fn sources(&self) -> &Path {
        &self.sources
    }

    /// Its own Python.
    pub fn python(&self) -> PathBuf {
        self.folder.join("python/bin/python")
    }

    /// Makes a part if it is not there, and says so.
    ///
    /// # Errors
    /// With the step that failed and where its output is; also where the same part failed before in this run.
    pub(super) fn prepare(&mut self, part: Part) -> Result<(), String> {
        if let Some(known) = self.known.get(&part) {
            return known.clone();
        }
        let made = self.make(part).map_err(|why| self.without_folder(&why));
        self.known.insert(part, made.clone());
        made
    }

    /// What went wrong, without the name of this folder: it is kept in results, which say nothing of where they were made.
    fn without_folder(&self, why: &str) -> String {
        why.replace(&format!("{}/", self.folder.display()), "PEERS/")
    }

    fn make(&self, part: Part) -> Result<(), String> {
        let mark = self.folder.join("ready").join(part.name());
        let pins = part.pins().join("\n");
        // What was built may have been thrown away since.
        let is_there = !part.is_built() || self.folder.join(part.name()).is_dir();
        let is_made = is_there && fs::read_to_string(&mark).is_ok_and(|made| made == pins);
        if is_made && !part.is_built() {
            return Ok(());
        }
        let log = self.folder.join("logs").join(format!("{}.log", part.name()));
        let _ = fs::remove_file(&log);
        let start = Instant::now();
        let mut steps = steps::of(part, self)?;
        if is_made {
            // Compilers see for themselves what has changed, and are quick where nothing has.
            steps.drain(..steps.len().saturating_sub(1));
        }
        for Step { words, command } in steps {
            if !is_made {
                eprintln!("peers: {}: {words}", part.title());
            }
            run(command, &log).map_err(|why| format!("{words}: {why}; see {}", log.display()))?;
        }
        if !is_made {
            fs::write(&mark, pins).map_err(|error| format!("{}: {error}", mark.display()))?;
            eprintln!("peers: {}: ready after {:.0} s", part.title(), start.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

/// One command of a setup.
pub(super) struct Step {
    /// What it does, as "downloading the wheel".
    pub(super) words: &'static str,
    /// The command.
    pub(super) command: Command,
}

fn run(mut command: Command, log: &Path) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let append = || File::options().create(true).append(true).open(log);
    let (out, err) = append().and_then(|out| Ok((out, append()?))).map_err(|error| error.to_string())?;
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program}: {status}")),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

fn cache_folder() -> Option<PathBuf> {
    let given = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given("XDG_CACHE_HOME").or_else(|| Some(given("HOME")?.join(".cache")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_part_is_not_made_again() {
        let folder = env::temp_dir().join(format!("regard-peers-{}", std::process::id()));
        let mut environment = Environment::new(Some(&folder), Path::new("nowhere")).unwrap();
        fs::write(environment.folder().join("ready/torch"), Part::Torch.pins().join("\n")).unwrap();
        assert_eq!(environment.prepare(Part::Torch), Ok(()));
        // There are no sources to build from.
        let missing = environment.prepare(Part::Candle).unwrap_err();
        assert!(missing.contains("; see PEERS/logs/candle.log"), "{missing}");
        // What was built and is no longer there is made again, from the first step on.
        fs::write(environment.folder().join("ready/ggml"), Part::Ggml.pins().join("\n")).unwrap();
        let gone = environment.prepare(Part::Ggml).unwrap_err();
        assert!(!gone.starts_with("building"), "{gone}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_a_failed_step_ran_is_told() {
        let log = env::temp_dir().join(format!("regard-step-{}.log", std::process::id()));
        let error = run(Command::new("regard-has-no-such-program"), &log).unwrap_err();
        assert!(error.starts_with("regard-has-no-such-program: "), "{error}");
        let _ = fs::remove_file(log);
    }
}
