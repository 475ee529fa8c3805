//! The other end of a worker: a process that sets up, times and writes what it is asked to, line by line.
//!
//! A request is a verb and `key=value` fields between tabs; an answer is `ready`, `ok`, `time` or `err` with fields of
//! its own. docs/measuring.md has the whole protocol.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How long a worker may take to start: some import for seconds.
const START: Duration = Duration::from_secs(180);

/// A running worker. It ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<String>,
    /// What it says of its version.
    pub version: String,
}

/// The fields of an answer.
pub type Fields = BTreeMap<String, String>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerError {
    /// The process cannot be started.
    Start(String),
    /// It ended; what it said last is in its log.
    Ended,
    /// It did not answer in time.
    Silent(Duration),
    /// It says that it cannot.
    Refused(String),
    /// It answered something else.
    Unexpected(String),
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerError::Start(error) => write!(f, "cannot be started: {error}"),
            WorkerError::Ended => write!(f, "its process ended"),
            WorkerError::Silent(time) => write!(f, "no answer within {} s", time.as_secs()),
            WorkerError::Refused(message) => write!(f, "{message}"),
            WorkerError::Unexpected(answer) => write!(f, "answered {answer:?}"),
        }
    }
}

impl std::error::Error for WorkerError {}

impl Worker {
    /// Starts a process that obeys the protocol; what it says beside goes to `log`.
    ///
    /// # Errors
    /// If it cannot be started, or says that it cannot work.
    pub fn start(mut command: Command, log: &Path) -> Result<Self, WorkerError> {
        let fail = |error: std::io::Error| WorkerError::Start(error.to_string());
        let log = File::create(log).map_err(fail)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(fail)?;
        let (sender, answers) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        let mut worker = Self { child, stdin, answers, version: String::new() };
        let mut ready = worker.answer("ready", START)?;
        worker.version = ready.remove("version").unwrap_or_default();
        Ok(worker)
    }

    /// Asks, and waits for an answer of a kind.
    ///
    /// # Errors
    /// If the process has ended, is silent, refuses, or answers something else. A silent one is ended.
    pub fn ask(
        &mut self,
        verb: &str,
        fields: &[(&str, String)],
        kind: &str,
        patience: Duration,
    ) -> Result<Fields, WorkerError> {
        let mut line = verb.to_owned();
        for (key, value) in fields {
            line.push_str(&format!("\t{key}={value}"));
        }
        line.push('\n');
        let stdin = self.stdin.as_mut().ok_or(WorkerError::Ended)?;
        stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).map_err(|_| WorkerError::Ended)?;
        self.answer(kind, patience)
    }

    /// Whether it can be asked again.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The process's number.
    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    fn answer(&mut self, kind: &str, patience: Duration) -> Result<Fields, WorkerError> {
        let line = match self.answers.recv_timeout(patience) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return Err(WorkerError::Ended),
            Err(RecvTimeoutError::Timeout) => {
                // What it may say later would be taken for the next answer.
                let _ = self.child.kill();
                return Err(WorkerError::Silent(patience));
            }
        };
        let (found, mut fields) = parse(&line).ok_or_else(|| WorkerError::Unexpected(line.clone()))?;
        match found {
            found if found == kind => Ok(fields),
            "err" => Err(WorkerError::Refused(fields.remove("message").unwrap_or_default())),
            _ => Err(WorkerError::Unexpected(line)),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Workers end with their stdin; one that hangs is not waited for.
        drop(self.stdin.take());
        thread::sleep(Duration::from_millis(20));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(line: &str) -> Option<(&str, Fields)> {
    let mut parts = line.split('\t');
    let kind = parts.next()?;
    let fields =
        parts.map(|part| part.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())));
    Some((kind, fields.collect::<Option<_>>()?))
}
