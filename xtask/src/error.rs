//! What can stop a task, and the exit code that says so.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Why a task stopped.
#[derive(Debug)]
pub(crate) enum Error {
    /// A file or folder of the tree could not be read or written.
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started.
    Start {
        /// The command line.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// A part of the toolchain is missing.
    Component {
        /// Its name for rustup.
        name: &'static str,
    },
    /// A command failed after saying why itself.
    Command {
        /// The command line, to be run by hand.
        command: String,
    },
    /// A command did not take its input, after saying why itself.
    Input {
        /// The command line, to be run by hand.
        command: String,
    },
    /// Some specs, of which that was said, cannot be used.
    Specs {
        /// How many.
        n: usize,
        /// Of how many.
        of: usize,
    },
    /// The tree breaks rules that have been listed.
    Untidy {
        /// How many findings are errors.
        errors: usize,
    },
    /// A shipped spec does not compile.
    Spec(regard_spec::Diagnostics),
    /// Generated files, which have been listed, are not what the specs make.
    Drift {
        /// How many.
        files: usize,
    },
    /// Pages of the guide, which have been listed, are not what the language has.
    Guide {
        /// How many.
        pages: usize,
    },
    /// A page of the guide has other marks than there are blocks.
    GuideMarks {
        /// Which page.
        page: String,
        /// What is wrong.
        what: String,
    },
    /// The program without an allocator linked although the runtime was built to allocate.
    ControlLinked {
        /// The command line that should have failed.
        command: String,
    },
    /// The control failed for another reason than the missing allocator.
    ControlBroken {
        /// The command line.
        command: String,
        /// What it said.
        stderr: String,
    },
}

impl Error {
    /// Turns an I/O error of `path` into an [`Error::File`].
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error::File { path: path.to_owned(), source }
    }

    /// 1 where the surroundings are wrong, 2 where a check failed.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Error::File { .. }
            | Error::Start { .. }
            | Error::Component { .. }
            | Error::Input { .. }
            | Error::Specs { .. } => ExitCode::from(1),
            Error::Command { .. }
            | Error::Untidy { .. }
            | Error::Spec(_)
            | Error::Drift { .. }
            | Error::Guide { .. }
            | Error::GuideMarks { .. }
            | Error::ControlLinked { .. }
            | Error::ControlBroken { .. } => ExitCode::from(2),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::File { path, source } => write!(f, "{}: {source}", path.display()),
            Error::Start { command, source } => write!(f, "`{command}` did not start: {source}"),
            Error::Component { name } => {
                write!(f, "{name} is not installed: run `rustup component add {name}`")
            }
            Error::Specs { n, of } => write!(f, "{n} of {of} specs cannot be used"),
            Error::Command { command } | Error::Input { command } => {
                write!(f, "failed; to run it by hand: {command}")
            }
            Error::Untidy { errors: 1 } => {
                write!(f, "1 rule of the tree is broken; by hand: cargo xtask tidy")
            }
            Error::Untidy { errors } => {
                write!(f, "{errors} rules of the tree are broken; by hand: cargo xtask tidy")
            }
            Error::Spec(diagnostics) => diagnostics.fmt(f),
            Error::Drift { files: 1 } => {
                write!(f, "1 generated file is not what the specs make; to make it: cargo xtask codegen")
            }
            Error::Drift { files } => {
                write!(
                    f,
                    "{files} generated files are not what the specs make; to make them: cargo xtask codegen"
                )
            }
            Error::Guide { pages } => {
                write!(
                    f,
                    "pages of the guide that are not what the language has: {pages}; to make them: cargo xtask guide"
                )
            }
            Error::GuideMarks { page, what } => write!(f, "{page}: {what}"),
            Error::ControlLinked { command } => write!(
                f,
                "a program without an allocator linked with a runtime that allocates, so the check proves \
                 nothing; by hand: {command}"
            ),
            Error::ControlBroken { command, stderr } => write!(
                f,
                "expected the error `no global memory allocator found` from `{command}`, found:\n{stderr}"
            ),
        }
    }
}

impl std::error::Error for Error {}
