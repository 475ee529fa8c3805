//! Why a command ends before its end.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use regard::ir::interval::Span;
use regard::ir::problem::{Phase, ProblemError};
use regard::ir::spec::CacheLayout;
use regard::machine::ProfileError;
use regard::{CacheError, CompileError, Diagnostics, Dtype, RunError, ScheduleError};

use crate::bench::NoBaseline;
use crate::memory::OutOfMemory;
use crate::show::error::ShowError;
use crate::tensors::header::FileError;
use crate::tensors::mismatch::BindErrors;
use crate::tensors::write::WriteError;

/// Why a command ends before its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody reads the output any more.
    ClosedPipe,
    /// The output cannot be written.
    Stdout(io::Error),
    /// A spec has errors.
    Spec(Diagnostics),
    /// Neither a file nor a shipped spec; `nearest` is a shipped one that may be meant.
    NoSpec { name: String, nearest: Option<&'static str> },
    /// Some specs have errors, which have been told.
    SpecsWithErrors { n: usize, of: usize },
    /// Neither a file nor a shipped profile; `nearest` is a shipped one that may be meant.
    NoProfile { name: String, nearest: Option<&'static str> },
    /// A profile that cannot be read.
    ProfileFile { path: PathBuf, error: io::Error },
    /// A profile that describes no machine.
    Profile(ProfileError),
    /// A length that a phase does not do without.
    NoLength { flag: &'static str, phase: Phase, expects: &'static str },
    /// A position of the first query, where the phase says where queries stand.
    Offset { phase: Phase, found: i64 },
    /// Several sequences, where the cache is a file.
    FileSequences { spec: String, batch: usize },
    /// A phase does not have so many queries of a sequence.
    Queries { phase: Phase, found: usize },
    /// A flag that says nothing to a phase.
    OfAnotherPhase { flag: &'static str, phase: &'static str, of: &'static str },
    /// Fewer steps than medians are of.
    Steps { found: usize, least: usize },
    /// An input that a growing sequence would need more and more of.
    GrowsInput { spec: String, input: String },
    /// A sequence that does not grow by its queries.
    GrowsCross { spec: String },
    /// More tokens that sequences have in common than they have.
    SharedPastKeys { shared: usize, keys: usize },
    /// Tokens in common where the layout keeps none so.
    SharedLayout { spec: String, layout: CacheLayout, shared: usize },
    /// A call on a cache of a spec that has states instead.
    NoCache { spec: String },
    /// A cache that cannot be had.
    Cache { spec: String, error: CacheError },
    /// Lengths that no problem has.
    Problem(ProblemError),
    /// A spec that no kernel could be made of.
    Compile { spec: String, error: CompileError },
    /// A problem that could not be scheduled.
    Schedule { spec: String, error: ScheduleError },
    /// A run that did not happen.
    Run { spec: String, error: RunError },
    /// A mask or modifier read a declared tensor outside its axes.
    Index { spec: String, input: String },
    /// An input has the positions of the keys alone, and queries lie outside of them.
    Positions { spec: String, input: String, queries: Span, keys: u32 },
    /// More memory than there is.
    Memory(OutOfMemory),
    /// Fewer threads than were asked for.
    Threads { count: usize, error: io::Error },
    /// A tensor file that cannot be read.
    File(FileError),
    /// A tensor file that does not give what the spec takes.
    Bind(BindErrors),
    /// No folder for what was measured on this machine.
    NoCacheFolder,
    /// An output file that cannot be written.
    Write(WriteError),
    /// A file has one storage type, several were asked for.
    DtypesOfFile { path: PathBuf, asked: Vec<Dtype> },
    /// A spec that the plain way does not compute.
    Baseline { spec: String, none: NoBaseline },
    /// What cannot be drawn.
    Show(ShowError),
    /// Results past their bounds, which have been told.
    Failed { n: usize, of: usize },
    /// Something that cannot be, by what was checked before it.
    Bug(String),
}

impl Failure {
    /// 0 for a closed pipe, 2 for a failed check or a bug of ours, else 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Failure::ClosedPipe => ExitCode::SUCCESS,
            Failure::Failed { .. } | Failure::Bug(_) => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }
}

/// Of writing to stdout; what is done with files has variants of its own.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => Failure::Stdout(error),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

impl From<OutOfMemory> for Failure {
    fn from(error: OutOfMemory) -> Self {
        Failure::Memory(error)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Failure::File(error)
    }
}

impl From<BindErrors> for Failure {
    fn from(errors: BindErrors) -> Self {
        Failure::Bind(errors)
    }
}

impl From<ProblemError> for Failure {
    fn from(error: ProblemError) -> Self {
        Failure::Problem(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The compiler's diagnostics begin with their own `error[…]`.
        if let Failure::Spec(diagnostics) = self {
            return write!(f, "{}", diagnostics.to_string().trim_end());
        }
        write!(f, "error: ")?;
        match self {
            Failure::Spec(_) => Ok(()),
            Failure::ClosedPipe => write!(f, "nobody reads the output"),
            Failure::Stdout(error) => write!(f, "cannot write to stdout: {error}"),
            Failure::NoSpec { name, nearest } => {
                write!(f, "{name:?} is neither a file nor a shipped spec")?;
                hint(f, *nearest, "regard list")
            }
            Failure::SpecsWithErrors { n, of } => write!(f, "{n} of {of} specs cannot be used"),
            Failure::NoProfile { name, nearest } => {
                write!(f, "{name:?} is neither a file nor a shipped machine profile")?;
                hint(f, *nearest, "regard list")
            }
            Failure::ProfileFile { path, error } => {
                write!(f, "machine profile {}: {error}", path.display())
            }
            Failure::Profile(error) => error.fmt(f),
            Failure::NoLength { flag, phase, expects } => {
                write!(f, "{flag} <N> is not given: --phase {} expects {expects}", phase.name())
            }
            Failure::Offset { phase, found } => write!(
                f,
                "--q-offset {found}: not with --phase {}, whose queries are the last tokens of their sequences; it is for prefill",
                phase.name()
            ),
            Failure::FileSequences { spec, batch } => write!(
                f,
                "spec {spec}: --batch is {batch}, but a cache in a file (`cache.file = true`) is of one sequence: expected 1"
            ),
            Failure::Queries { phase, found } => {
                let (takes, others) = match phase {
                    Phase::Decode => ("1 query", "few is for 2 to 16"),
                    _ => ("2 to 16 queries", "decode is for 1, prefill for more"),
                };
                write!(f, "--phase {} takes {takes} of a sequence, --q is {found}; {others}", phase.name())
            }
            Failure::OfAnotherPhase { flag, phase: "prefill", of } => {
                write!(f, "{flag}: prefill has no cache; it is for --phase {of}")
            }
            Failure::OfAnotherPhase { flag, phase, of } => {
                write!(f, "{flag}: not with --phase {phase}; it is for {of}")
            }
            Failure::Steps { found, least } => write!(
                f,
                "--phase generate has a step for each token, --k is {found}: expected at least {least}, of which a tenth is one"
            ),
            Failure::GrowsInput { spec, input } => write!(
                f,
                "spec {spec}: `{input}` has elements for each token; --phase generate expects inputs that do not grow with \
                 the sequence"
            ),
            Failure::GrowsCross { spec } => write!(
                f,
                "spec {spec}: its keys are of another sequence than its queries; --phase generate expects a spec without \
                 `source = \"cross\"`"
            ),
            Failure::SharedPastKeys { shared, keys } => write!(
                f,
                "--shared is {shared}, more than the {keys} keys of a sequence: expected at most --k"
            ),
            Failure::SharedLayout { spec, layout, shared } => write!(
                f,
                "spec {spec}: `cache.layout` is `{}`, expected contiguous or paged with --shared {shared}: the tokens that \
                 sequences have in common lie in pages",
                layout.name()
            ),
            Failure::NoCache { spec } => write!(
                f,
                "spec {spec} has states in place of a cache: leave --phase away, and say `--q 1` for a step of one token; \
                 bench times steps one after the other with `--phase generate`"
            ),
            Failure::Cache { spec, error } => write!(f, "spec {spec}: {error}"),
            Failure::Problem(error) => error.fmt(f),
            Failure::Compile { spec, error } => write!(f, "spec {spec}: {error}"),
            Failure::Schedule { spec, error } => write!(f, "spec {spec}: {error}"),
            Failure::Run { spec, error } => write!(f, "spec {spec}: {error}"),
            Failure::Index { spec, input } => {
                write!(
                    f,
                    "spec {spec}: tensor `{input}` is read outside its axes; guard the index, or change the data"
                )
            }
            Failure::Show(error) => error.fmt(f),
            Failure::Positions { spec, input, queries: Span { lo, hi }, keys } => write!(
                f,
                "spec {spec}: `{input}` has positions for the {keys} keys, the queries are numbers {lo} to {hi}: \
                 give as many keys, or another --q-offset"
            ),
            Failure::Memory(error) => error.fmt(f),
            Failure::Threads { count, error } => write!(f, "--threads {count}: cannot start them: {error}"),
            Failure::File(error) => error.fmt(f),
            Failure::Bind(errors) => errors.fmt(f),
            Failure::NoCacheFolder => f.write_str(
                "there is no folder to keep what is measured in: neither XDG_CACHE_HOME nor HOME is an absolute path",
            ),
            Failure::Write(error) => error.fmt(f),
            Failure::Baseline { spec, none } => write!(f, "{spec}: {none}"),
            Failure::DtypesOfFile { path, asked } => {
                let asked: Vec<_> = asked.iter().map(|dtype| dtype.name()).collect();
                write!(
                    f,
                    "{} has one storage type, --dtype asks for {}: name the one that it has",
                    path.display(),
                    asked.join(", ")
                )
            }
            Failure::Failed { n, of } => write!(f, "{n} of {of} comparisons failed"),
            Failure::Bug(what) => write!(f, "{what}; this is a bug of regard"),
        }
    }
}

fn hint(f: &mut fmt::Formatter<'_>, nearest: Option<&str>, list: &str) -> fmt::Result {
    match nearest {
        Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
        None => write!(f, "; `{list}` shows what ships"),
    }
}
