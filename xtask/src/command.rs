//! Commands that say how they are run by hand.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::Error;

/// A folder for what a task builds, beside the workspace's own output, so that cleaning one cleans both.
pub(crate) fn target_folder(root: &Path, task: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root.join(target).join(task)
}

/// A cargo command of the workspace, without standard input.
pub(crate) struct Cargo {
    command: Command,
    line: String,
}

impl Cargo {
    /// `cargo` with these arguments, to be run in `root`.
    pub(crate) fn new(root: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(root).stdin(Stdio::null());
        Self { command, line: "cargo".to_owned() }.args(args)
    }

    /// The same command with more arguments.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        for arg in args {
            self.line.push(' ');
            self.line.push_str(arg);
        }
        self
    }

    /// Runs it with our output as its output.
    ///
    /// # Errors
    /// If it cannot be started or does not succeed.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let status = self.command.status().map_err(|source| self.not_started(source))?;
        if status.success() { Ok(()) } else { Err(Error::Command { command: self.line }) }
    }

    /// Runs a command that tells by its exit code, as ours do, whether the input was wrong or a check failed.
    ///
    /// # Errors
    /// If it cannot be started or does not succeed.
    pub(crate) fn run_one_of_ours(mut self) -> Result<(), Error> {
        let status = self.command.status().map_err(|source| self.not_started(source))?;
        match status.code() {
            Some(0) => Ok(()),
            Some(1) => Err(Error::Input { command: self.line }),
            _ => Err(Error::Command { command: self.line }),
        }
    }

    /// Runs it and keeps what it prints, whether it succeeds or not.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn output(&mut self) -> Result<Output, Error> {
        self.command.output().map_err(|source| self.not_started(source))
    }

    fn not_started(&self, source: std::io::Error) -> Error {
        Error::Start { command: self.line.clone(), source }
    }
}

impl fmt::Display for Cargo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}
