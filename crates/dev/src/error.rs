//! What can go wrong around the command.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use crate::bench::protocol::WorkerError;

/// A step that did not do what it is for.
#[derive(Debug)]
pub enum Error {
    /// A command could not be started.
    Start {
        /// As it is typed.
        command: String,
        /// Why.
        error: io::Error,
    },
    /// A command failed; what it said is above.
    Failed {
        /// As it is typed.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Cargo built without naming the binary.
    NoBinary,
    /// A command printed something else than the JSON it promises.
    Json {
        /// As it is typed.
        command: String,
        /// A key that was expected.
        missing: &'static str,
    },
    /// A file of the tree that cannot be read or a folder that cannot be made.
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A spec that is no TOML.
    Spec {
        /// Its name.
        name: String,
        /// What is wrong with it.
        error: String,
    },
    /// Files that are not as they would be made, which have been told.
    Drift {
        /// How many.
        files: usize,
    },
    /// The planner chose worse than it may.
    Choice {
        /// What it lost in the median, as a fraction.
        middle: f64,
        /// What it lost at worst.
        worst: f64,
        /// The most of both.
        bar: [f64; 2],
    },
    /// A worker of ours that does not work.
    Worker(WorkerError),
    /// The folder of other implementations cannot be made.
    Peers(String),
    /// No round of measurements has such a name.
    NoRound {
        /// What was asked for.
        found: String,
        /// All there are.
        names: Vec<String>,
    },
    /// A line of a file of results is none of ours.
    History {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        error: String,
    },
    /// A picture cannot be drawn.
    Plot(String),
    /// Answers past their bounds, which have been told.
    Wrong {
        /// How many.
        answers: usize,
    },
    /// The output cannot be written.
    Stdout(io::Error),
}

impl Error {
    /// 2 for what a command found wrong or a bug of ours, else 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Error::Failed { status, .. } if status.code() == Some(1) => ExitCode::from(1),
            Error::Failed { .. }
            | Error::NoBinary
            | Error::Json { .. }
            | Error::Drift { .. }
            | Error::Choice { .. }
            | Error::Worker(_)
            | Error::Plot(_)
            | Error::Wrong { .. } => ExitCode::from(2),
            Error::Start { .. }
            | Error::File { .. }
            | Error::Spec { .. }
            | Error::Peers(_)
            | Error::NoRound { .. }
            | Error::History { .. }
            | Error::Stdout(_) => ExitCode::from(1),
        }
    }
}

impl Error {
    /// What the system says of a file.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |error| Error::File { path: path.to_owned(), error }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Stdout(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Start { command, error } => write!(f, "cannot start `{command}`: {error}"),
            Error::Failed { command, status } => write!(f, "`{command}` failed: {status}"),
            Error::NoBinary => write!(f, "cargo built regard-cli but named no binary `regard`"),
            Error::Json { command, missing } => {
                write!(f, "`{command}` printed no JSON with `{missing}`")
            }
            Error::Spec { name, error } => write!(f, "{name}: {error}"),
            Error::Choice { middle, worst, bar } => write!(
                f,
                "the planner's choices lose {:.1} % in the median and {:.1} % at worst, at most {:.0} and {:.0} % may be lost",
                100.0 * middle,
                100.0 * worst,
                100.0 * bar[0],
                100.0 * bar[1]
            ),
            Error::Drift { files } => write!(f, "{files} files of the gallery are not as they would be made"),
            Error::Worker(error) => write!(f, "regard worker: {error}"),
            Error::Peers(error) => write!(f, "the folder of peers: {error}"),
            Error::NoRound { found, names } => {
                write!(f, "no round has {found} in its name, expected a part of one of {}", names.join(", "))
            }
            Error::History { path, line, error } => write!(f, "{}:{line}: {error}", path.display()),
            Error::Plot(error) => write!(f, "the picture of results: {error}"),
            Error::Wrong { answers } => write!(f, "{answers} answers of regard are past their bounds"),
            Error::File { path, error } => write!(f, "{}: {error}", path.display()),
            Error::Stdout(error) => write!(f, "cannot write to stdout: {error}"),
        }
    }
}

impl std::error::Error for Error {}
