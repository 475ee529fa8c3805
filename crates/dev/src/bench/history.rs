//! Results as they are kept: JSON lines, one file for each machine and date below docs/bench.
//!
//! A session line says on what machine and with what versions the rounds after it were measured; each round is one line,
//! written when all of it is known; an end line closes what was asked for. Lines are never changed: what turns out to be wrong
//! of them a remark says, which is added by hand. A session that was interrupted has no end, and the next call that asks for
//! the same goes on after its last round.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::statistics::Spread;
use super::workload::workload;
use crate::error::Error;

/// Where results are, from the root of the tree.
pub const FOLDER: &str = "docs/bench";

/// One line of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// What follows was measured so.
    Session(Session),
    /// What was measured together.
    Round(Round),
    /// What is to be known of the rounds of its file, as it was found out later.
    Remark(String),
    /// All that was asked for is there.
    End,
}

/// A machine, and who was measured on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// The day, as 2026-11-25.
    pub date: String,
    /// What was typed.
    pub command: String,
    /// The commit of ours, with a `+` where the tree had changes.
    pub commit: String,
    /// The processor's name.
    pub cpu: String,
    /// The most capable instruction set.
    pub isa: String,
    /// Cores that a process may use.
    pub cores: u32,
    /// Of each implementation.
    pub versions: BTreeMap<String, String>,
    /// Implementations that could not be had, and why.
    pub skipped: BTreeMap<String, String>,
}

/// What was measured by turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// As the table of workloads calls it.
    pub name: String,
    /// Threads that shared the work.
    pub threads: usize,
    /// 10⁹ operations a second of each kind of unit that the machine has, over those threads, just before.
    pub limits: BTreeMap<String, f64>,
    /// The share of the machine that other programs took while samples were taken; absent where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<f64>,
    /// Everyone that was asked, in the order of the turns.
    pub entries: Vec<Entry>,
}

/// One way of computing one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The workload.
    pub workload: String,
    /// Who.
    pub who: String,
    /// In which of its ways.
    pub way: String,
    /// What it says of itself: kernel, engine and instruction set, a backend.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of an entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran, and was held against the formula.
    Measured {
        /// Seconds of one call.
        seconds: Spread,
        /// The largest relative error.
        error: f64,
        /// What ours is allowed; absent for others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bound: Option<f64>,
    },
    /// It did not, and said why.
    Failed(String),
}

impl Entry {
    /// The median time of a call, if it ran and its answer is not plainly wrong.
    pub fn median(&self) -> Option<f64> {
        match &self.outcome {
            Outcome::Measured { seconds, .. } if !self.is_wrong() => Some(seconds.median),
            _ => None,
        }
    }

    /// Whether the answer is past what ours is allowed, or plainly wrong.
    pub fn is_wrong(&self) -> bool {
        match self.outcome {
            Outcome::Measured { error, bound, .. } => error > bound.unwrap_or(self.plainly_wrong()),
            Outcome::Failed(_) => false,
        }
    }

    /// What another's error must not be above, by what it stores.
    fn plainly_wrong(&self) -> f64 {
        match workload(&self.workload) {
            Some(workload) if workload.is_rounded() => PLAINLY_WRONG_IN_8_BITS,
            _ => PLAINLY_WRONG,
        }
    }
}

/// An error that no storage type explains.
pub const PLAINLY_WRONG: f64 = 0.1;

/// The same where keys and values are cached in 8 bits: those of fp8 with three bits of fraction give 0.1 to 0.13.
pub const PLAINLY_WRONG_IN_8_BITS: f64 = 0.2;

/// Ours, among the implementations.
pub const OURS: &str = "regard";

/// A file of results that lines are added to.
#[derive(Clone, Debug)]
pub struct History {
    path: PathBuf,
    lines: Vec<Line>,
}

impl History {
    /// The file of a machine and a date; empty if there is none yet.
    ///
    /// # Errors
    /// If it cannot be read, or a line is none of ours.
    pub fn of(root: &Path, session: &Session) -> Result<Self, Error> {
        let path = root.join(FOLDER).join(format!("{}-{}.jsonl", slug(session), session.date));
        if path.exists() { Self::read(&path) } else { Ok(Self { path, lines: Vec::new() }) }
    }

    /// The lines of a file. A last line that was cut short is left out.
    ///
    /// # Errors
    /// If the file cannot be read, or another line is none of ours.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::file(path))?;
        let whole = text.ends_with('\n');
        let count = text.lines().count();
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(line) => lines.push(line),
                Err(_) if index + 1 == count && !whole => {}
                Err(error) => {
                    let error = error.to_string();
                    return Err(Error::History { path: path.to_owned(), line: index + 1, error });
                }
            }
        }
        Ok(Self { path: path.to_owned(), lines })
    }

    /// Every file, oldest first.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn all(root: &Path) -> Result<Vec<Self>, Error> {
        let folder = root.join(FOLDER);
        let entries = fs::read_dir(&folder).map_err(Error::file(&folder))?;
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|it| it == "jsonl"));
        // The date is the end of the name.
        paths.sort_by_key(|path| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            (stem.chars().rev().take(10).collect::<Vec<_>>().into_iter().rev().collect::<String>(), stem)
        });
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// Lines without a file, for tests.
    #[cfg(test)]
    pub(super) fn with(lines: Vec<Line>) -> Self {
        Self { path: PathBuf::new(), lines }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its lines.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The names of rounds that an interrupted session which asked for the same has measured already.
    pub fn done(&self, session: &Session) -> Vec<String> {
        let open = match self.lines.iter().rposition(|line| *line == Line::End) {
            Some(end) => &self.lines[end + 1..],
            None => &self.lines[..],
        };
        let mut same = false;
        let mut done = Vec::new();
        for line in open {
            match line {
                Line::Session(it) => same = (&it.command, &it.commit) == (&session.command, &session.commit),
                Line::Round(round) if same => done.push(round.name.clone()),
                Line::Round(_) | Line::Remark(_) | Line::End => {}
            }
        }
        done
    }

    /// Adds a line to the file, and makes sure that it is there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, line: Line) -> Result<(), Error> {
        let fail = Error::file(&self.path);
        let written = (|| {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            // A line that was cut short by a crash is not continued, nor left.
            let mut text = String::new();
            if self.lines.is_empty() || ends_within_a_line(&self.path)? {
                for line in &self.lines {
                    text.push_str(&serde_json::to_string(line)?);
                    text.push('\n');
                }
                fs::write(&self.path, text)?;
            }
            let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
            file.write_all(format!("{}\n", serde_json::to_string(&line)?).as_bytes())?;
            file.sync_all()
        })();
        written.map_err(fail)?;
        self.lines.push(line);
        Ok(())
    }
}

fn ends_within_a_line(path: &Path) -> std::io::Result<bool> {
    Ok(fs::read(path)?.last().is_some_and(|&byte| byte != b'\n'))
}

/// A processor's name and what it can do, as a part of a file's name.
pub(super) fn slug(session: &Session) -> String {
    let words = format!("{} {}", session.cpu, session.isa).to_lowercase();
    let words = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests;
