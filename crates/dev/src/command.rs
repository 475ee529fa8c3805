//! The command regard: built, found, and run as it is shown.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::error::Error;

/// How the command is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quickly.
    Dev,
    /// As the tests of the workspace are, which leave it behind: its crates have other features than alone.
    Tests,
    /// As it ships, to be timed.
    Release,
}

/// The built command.
#[derive(Clone, Debug)]
pub struct Regard {
    binary: PathBuf,
    root: PathBuf,
    /// What it finds in its environment beside ours.
    env: Vec<(&'static str, PathBuf)>,
}

impl Regard {
    /// Builds the command with the cargo that started us, and asks it where the binary is.
    ///
    /// # Errors
    /// If cargo cannot be started or fails.
    pub fn build(root: &Path, profile: Profile) -> Result<Self, Error> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut args = vec!["build", "--message-format=json-render-diagnostics"];
        args.extend(match profile {
            Profile::Dev => &["--package", "regard-cli"][..],
            Profile::Tests => &["--workspace", "--tests"],
            Profile::Release => &["--package", "regard-cli", "--release"],
        });
        let mut command = Command::new(cargo);
        command.args(&args).current_dir(root).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = succeed(&mut command, &format!("cargo {}", args.join(" ")))?;
        let binary = objects(&output)
            .filter(|message| message["target"]["name"] == "regard" && message["profile"]["test"] == false)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from));
        Ok(Self { binary: binary.ok_or(Error::NoBinary)?, root: root.to_owned(), env: Vec::new() })
    }

    /// The same, with a folder in its environment.
    pub(crate) fn with_env(mut self, name: &'static str, folder: &Path) -> Self {
        self.env.push((name, folder.to_owned()));
        self
    }

    /// A binary that is there already, run in `root`.
    pub fn at(binary: &Path, root: &Path) -> Self {
        Self { binary: binary.to_owned(), root: root.to_owned(), env: Vec::new() }
    }

    /// Shows the command line, runs it, and lets it print.
    ///
    /// # Errors
    /// If it cannot be started or fails.
    pub(crate) fn show(&self, args: &[&str]) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        writeln!(out, "\n$ {}", line(args))?;
        out.flush()?;
        succeed(self.command(args).stdout(Stdio::inherit()).stderr(Stdio::inherit()), &line(args))?;
        Ok(())
    }

    /// The JSON objects that it prints, one a line.
    ///
    /// # Errors
    /// If it cannot be started or fails.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Vec<Value>, Error> {
        let output = succeed(self.command(args).stderr(Stdio::inherit()), &line(args))?;
        Ok(objects(&output).collect())
    }

    /// The command that starts its worker, with so many threads.
    pub(crate) fn worker(&self, threads: usize) -> Command {
        self.command(&["worker", "--threads", &threads.to_string()])
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.envs(self.env.iter().map(|(name, folder)| (name, folder)));
        command.args(args).current_dir(&self.root).stdin(Stdio::null());
        command
    }
}

/// A command as a user types it.
pub(crate) fn line(args: &[&str]) -> String {
    format!("regard {}", args.join(" "))
}

fn succeed(command: &mut Command, line: &str) -> Result<Output, Error> {
    let output = command.output().map_err(|error| Error::Start { command: line.to_owned(), error })?;
    match output.status {
        status if status.success() => Ok(output),
        status => Err(Error::Failed { command: line.to_owned(), status }),
    }
}

fn objects(output: &Output) -> impl Iterator<Item = Value> {
    output.stdout.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}
