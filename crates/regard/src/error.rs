//! What can go wrong between a spec and its outputs.

use std::fmt;

use regard_engine::any::Unavailable;
use regard_ir::cache::PageFormat;
use regard_ir::identity::Identity;
use regard_ir::inputs::BindError;
use regard_ir::machine::Isa;
use regard_ir::problem::ProblemError;
use regard_launch::LaunchError;
use regard_map::file::FileError;
use regard_planner::PlanError;
use regard_runtime::cache::StoreError;
use regard_runtime::{flash, schedule};

/// A spec that no kernel could be made of.
#[derive(Clone, Debug, PartialEq)]
pub enum CompileError {
    /// It could not be planned for the machine.
    Plan(PlanError),
    /// The instruction set that was asked for is not one of the machine's.
    Ceiling {
        /// What was asked for.
        asked: Isa,
        /// The machine's most capable one.
        machine: Isa,
    },
    /// The plan is for a machine whose instructions this processor does not have.
    Unavailable(Unavailable),
    /// A generated kernel was asked for, and this build has none of the spec.
    NotGenerated {
        /// The spec's name.
        name: String,
    },
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompileError::Plan(error) => error.fmt(f),
            CompileError::Ceiling { asked, machine } => {
                write!(
                    f,
                    "{} is not on this machine, whose most capable set is {}",
                    asked.name(),
                    machine.name()
                )
            }
            CompileError::Unavailable(error) => error.fmt(f),
            CompileError::NotGenerated { name } if cfg!(feature = "shipped") => {
                write!(
                    f,
                    "{name} has no generated kernel: the build has those of the shipped specs, none of which has its mask and modifier; take `loaded`"
                )
            }
            CompileError::NotGenerated { name } => write!(
                f,
                "{name} has no generated kernel: this build has none, its feature `shipped` is off; take `loaded`"
            ),
        }
    }
}

impl std::error::Error for CompileError {}

/// A problem that could not be scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleError {
    /// Captured tensors that do not fit their declarations.
    Captured(BindError),
    /// Positions past 32 bits, of which a token has several.
    Positions(ProblemError),
    /// More work than a schedule can hold.
    Cut(schedule::ScheduleError),
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScheduleError::Captured(error) => error.fmt(f),
            ScheduleError::Positions(error) => write!(f, "in virtual tokens: {error}"),
            ScheduleError::Cut(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ScheduleError {}

/// A run that did not happen, or whose outputs mean nothing.
#[derive(Debug)]
pub enum RunError {
    /// The schedule was made by the kernel of another spec.
    Identity {
        /// This kernel's spec.
        expected: Identity,
        /// The schedule's.
        found: Identity,
    },
    /// The schedule is for fewer threads than will run.
    Threads {
        /// What the schedule is for.
        scheduled: usize,
        /// How many there are.
        found: usize,
    },
    /// The cache was made by a kernel that stores keys and values otherwise.
    Format {
        /// How this kernel does.
        expected: PageFormat,
        /// How the cache does.
        found: PageFormat,
    },
    /// A step for calls with more queries of a sequence than they may have.
    Queries {
        /// How many.
        found: usize,
        /// The most.
        most: usize,
    },
    /// A call on more sequences, or with more queries of each, than its step was made for.
    Step {
        /// What it was made for.
        most: [usize; 2],
        /// What there are.
        found: [usize; 2],
    },
    /// Keys were to be appended to a cache of states, or queries to attend to its keys.
    States,
    /// The file of the cache is not what it was: another program cut it or wrote to its records.
    File(FileError),
    /// What a cache cannot do.
    Store(StoreError),
    /// Lengths that no problem has.
    Problem(ProblemError),
    /// More work than a call can be cut into.
    Schedule(ScheduleError),
    /// As the runtime says.
    Runtime(flash::RunError),
    /// The processor lacks the instructions.
    Unavailable(Unavailable),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Identity { expected, found } => {
                write!(f, "the schedule was made for spec {found}, this kernel is of {expected}")
            }
            RunError::Threads { scheduled, found } => {
                write!(f, "the schedule is for {scheduled} threads, {found} were given to run it")
            }
            RunError::Format { expected, found } => {
                let kept = |&PageFormat { tokens, k, v, mixed }: &PageFormat| {
                    let rows = if mixed { ", rows of pseudo-heads" } else { "" };
                    format!("pages of {tokens} tokens, K as {} and V as {}{rows}", k.name(), v.name())
                };
                write!(f, "the cache keeps {}, the kernel reads {}", kept(found), kept(expected))
            }
            RunError::Queries { found, most } => write!(
                f,
                "a step for {found} queries of a sequence: a call on a cache takes at most {most}, and more are a prefill"
            ),
            RunError::Step { most: [sequences, queries], found: [n, q] } => write!(
                f,
                "a call on {n} sequences with {q} queries each: the step was made for at most {sequences} and {queries}"
            ),
            RunError::States => f.write_str(
                "a cache of states has no keys: `Kernel::prefill_next` and `decode_next` write and read a state at once",
            ),
            RunError::File(error) => error.fmt(f),
            RunError::Store(error) => error.fmt(f),
            RunError::Problem(error) => error.fmt(f),
            RunError::Schedule(error) => error.fmt(f),
            RunError::Runtime(error) => error.fmt(f),
            RunError::Unavailable(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RunError {}

impl From<LaunchError> for RunError {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::Unavailable(error) => RunError::Unavailable(error),
            LaunchError::Runtime(error) => RunError::Runtime(error),
        }
    }
}

impl RunError {
    /// The captured input, in declaration order, that a mask or modifier indexed outside its axes.
    pub fn index_fault(&self) -> Option<usize> {
        match self {
            RunError::Runtime(flash::RunError::Index { input }) => Some(*input),
            _ => None,
        }
    }
}
