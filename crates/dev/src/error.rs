//! What can go wrong around the command.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

/// A step that did not do what it is for.
#[derive(Debug)]
pub(crate) enum Error {
    /// A command could not be started.
    Start { command: String, error: io::Error },
    /// A command failed; what it said is above.
    Failed { command: String, status: ExitStatus },
    /// Cargo built without naming the binary.
    NoBinary,
    /// A command printed something else than the JSON it promises.
    Json { command: String, missing: &'static str },
    /// A file of the tree that cannot be read or a folder that cannot be made.
    File { path: PathBuf, error: io::Error },
    /// The output cannot be written.
    Stdout(io::Error),
}

impl Error {
    /// 2 for what a command found wrong or a bug of ours, else 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Error::Failed { status, .. } if status.code() == Some(1) => ExitCode::from(1),
            Error::Failed { .. } | Error::NoBinary | Error::Json { .. } => ExitCode::from(2),
            Error::Start { .. } | Error::File { .. } | Error::Stdout(_) => ExitCode::from(1),
        }
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
            Error::File { path, error } => write!(f, "{}: {error}", path.display()),
            Error::Stdout(error) => write!(f, "cannot write to stdout: {error}"),
        }
    }
}

impl std::error::Error for Error {}
