//! What cannot be drawn.

use std::fmt;
use std::path::PathBuf;

/// What cannot be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ShowError {
    /// The spec has fewer query heads.
    Head { asked: u32, heads: u32 },
    /// There are fewer sequences.
    Sequence { asked: u32, batch: u32 },
    /// A file of a kind that is not known by its ending.
    Ending(PathBuf),
}

impl fmt::Display for ShowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShowError::Head { asked, heads } => {
                write!(f, "--head {asked}: the spec has {heads} query heads, 0 to {}", heads - 1)
            }
            ShowError::Sequence { asked, batch } => {
                write!(f, "--sequence {asked}: there are {batch} sequences, counted from 0; see --batch")
            }
            ShowError::Ending(path) => {
                write!(f, "{}: the ending says what is drawn, expected .svg or .png", path.display())
            }
        }
    }
}

impl std::error::Error for ShowError {}
