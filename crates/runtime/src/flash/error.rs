//! Runs that did not happen.

use core::fmt;

use regard_engine::grid::GridError;
use regard_ir::cache::PageFormat;
use regard_ir::inputs::BindError;
use regard_ir::plan::{Blocks, Dtype, Split};

use super::{PartLen, WorkspaceLen};

/// A run that did not happen, or whose outputs mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunError {
    /// A tensor has other counts or another width than spec and problem say.
    Shape {
        /// "q", "k", "v", "gate", "o" or "lse".
        tensor: &'static str,
        /// Sequences, heads, tokens and width that were given.
        found: [usize; 4],
        /// What they must be.
        expected: [usize; 4],
    },
    /// A tensor is stored in another type than the call takes.
    Dtype {
        /// Its name in specs.
        tensor: &'static str,
        /// The type that it is stored in.
        found: Dtype,
        /// That of the plan, or f32 where the tensor is floats whatever the plan.
        expected: Dtype,
    },
    /// The plan's engine does not compute this storage type.
    Storage {
        /// The storage type.
        dtype: Dtype,
    },
    /// Rows too wide for this build.
    TooWide {
        /// The width.
        width: usize,
        /// The largest that is served.
        most: usize,
    },
    /// Outputs that cannot be shared out among tasks.
    Output(GridError),
    /// Captured tensors that do not fit their declarations.
    Captured(BindError),
    /// The variant has no log of sums, but a place for it was given.
    NoLse,
    /// A gate is missing, or was given to a variant that has none.
    Gate {
        /// Whether the variant has a gate.
        wanted: bool,
    },
    /// A part is not as long as the problem's are, or as the one that it is merged with.
    Part {
        /// What is needed.
        needed: PartLen,
        /// What was given.
        found: PartLen,
    },
    /// A gate was given to a part.
    GateOfPart,
    /// Outputs were asked of a problem that has some of its keys alone.
    Partial,
    /// The workspace is too small.
    Workspace {
        /// What is needed.
        needed: WorkspaceLen,
        /// What was given.
        found: WorkspaceLen,
    },
    /// Lengths or positions of a sequence that are no whole tokens, of so many positions each.
    Tokens {
        /// Positions of a token.
        per_token: u32,
    },
    /// The schedule was made for another problem.
    Schedule,
    /// Block sizes that the skeleton cannot work with.
    Blocks(Blocks),
    /// Sizes of cells, chunks and pages that do not divide each other.
    Split {
        /// Cells and chunks.
        decode: Split,
        /// Pages.
        cache: PageFormat,
    },
    /// The variant's mechanism is another than that of the call, or its code has nothing for it.
    Mechanism,
    /// Sums of features are missing beside states, or were given of a variant that does not divide by them.
    Norm {
        /// Whether the variant divides by them.
        wanted: bool,
    },
    /// A problem of lookahead keys, or of a causal recurrence, has not a query for each key that is given.
    QueryForEachKey,
    /// More tokens with lookahead keys were appended at once than are kept until keys learn from them.
    AtOnce {
        /// Tokens.
        found: usize,
        /// The most.
        most: usize,
    },
    /// Keys of a sequence have learned for good from tokens at or after its first query.
    Taught {
        /// The sequence.
        sequence: usize,
        /// Position of the first query.
        first: i32,
        /// How many tokens they have learned from.
        taught: u32,
    },
    /// There is not one whole cache of the problem's length for each sequence.
    Caches,
    /// Keys that the mask lets a query see were written over.
    Lost {
        /// The sequence.
        sequence: usize,
        /// Position of the first that is gone.
        first: u32,
        /// Position of the last.
        last: u32,
    },
    /// A mask or modifier indexed a captured tensor outside its axes. The outputs mean nothing.
    Index {
        /// Which input, in declaration order.
        input: usize,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Shape { tensor, found, expected } => {
                write!(
                    f,
                    "tensor `{tensor}` is {found:?} (sequences, heads, tokens, width), expected {expected:?}"
                )
            }
            RunError::Dtype { tensor, found, expected } => {
                write!(f, "tensor `{tensor}` is stored as {}, expected {}", found.name(), expected.name())
            }
            RunError::Storage { dtype } => {
                write!(f, "the plan's engine does not compute {} storage", dtype.name())
            }
            RunError::TooWide { width, most } => {
                write!(f, "rows of {width} channels; at most {most} are served")
            }
            RunError::Output(error) => error.fmt(f),
            RunError::Captured(error) => error.fmt(f),
            RunError::NoLse => {
                write!(f, "a place for lse was given, but the spec does not say `output.lse = true`")
            }
            RunError::Gate { wanted: true } => {
                write!(f, "the spec says `output.gate`, but no gate was given: `Inputs::gate` takes it")
            }
            RunError::Gate { wanted: false } => {
                write!(f, "a gate was given, but the spec does not say `output.gate`")
            }
            RunError::Part { needed, found } => write!(f, "the part has {found}, expected {needed}"),
            RunError::GateOfPart => write!(f, "a part has no gate: what finishes it takes the gate"),
            RunError::Partial => {
                write!(
                    f,
                    "the problem has some of its keys alone: its sums go to a part, which is finished with the others"
                )
            }
            RunError::Workspace { needed, found } => {
                write!(
                    f,
                    "the workspace has {} floats and {} spans, this schedule needs {} and {}",
                    found.floats, found.spans, needed.floats, needed.spans
                )
            }
            RunError::Tokens { per_token } => {
                write!(
                    f,
                    "lengths and positions of each sequence must be multiples of {per_token}, those of a token"
                )
            }
            RunError::Schedule => write!(f, "the schedule was made for another problem or plan"),
            RunError::Blocks(blocks) => {
                write!(f, "block sizes that do not divide each other, or are 0: {blocks:?}")
            }
            RunError::Split { decode, cache } => {
                write!(
                    f,
                    "cells, chunks and pages that do not divide each other, or are 0: {decode:?}, {cache:?}"
                )
            }
            RunError::Mechanism => {
                f.write_str("the call is for another mechanism than the variant has, or its code lacks it")
            }
            RunError::Norm { wanted: true } => {
                write!(f, "the spec says `recurrence.normalize`, but no `norm` was given beside the states")
            }
            RunError::Norm { wanted: false } => {
                write!(f, "a `norm` was given, but the spec does not say `recurrence.normalize`")
            }
            RunError::QueryForEachKey => f.write_str(
                "lookahead keys and causal recurrences need a query for each key that is given, the first at the position that the tokens before have led to",
            ),
            RunError::AtOnce { found, most } => write!(
                f,
                "{found} tokens with lookahead keys appended at once, which take {most} at most: `prefill_next` takes a prompt"
            ),
            RunError::Taught { sequence, first, taught } => write!(
                f,
                "the first query of sequence {sequence} is at {first}, and its keys have learned from {taught} tokens for good: queries are the last tokens that were appended"
            ),
            RunError::Caches => {
                write!(
                    f,
                    "the call does not have one cache for each sequence, with as many tokens as the problem has keys"
                )
            }
            RunError::Lost { sequence, first, last } => write!(
                f,
                "the mask lets queries of sequence {sequence} see keys {first} to {last}, which its ring has written over"
            ),
            RunError::Index { input } => {
                write!(f, "captured input {input} was indexed outside its axes; the outputs mean nothing")
            }
        }
    }
}

impl core::error::Error for RunError {}
