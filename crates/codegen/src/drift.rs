//! How a folder of generated files differs from what the specs make.

use std::fmt;

use crate::File;

/// A file that is not as it would be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// Its text is another.
    Edited(String),
    /// It is not there.
    Missing(String),
    /// No spec makes it.
    LeftOver(String),
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Drift::Edited(path) => write!(f, "{path} is not what its spec makes"),
            Drift::Missing(path) => write!(f, "{path} is missing"),
            Drift::LeftOver(path) => write!(f, "{path} is not made by any spec"),
        }?;
        f.write_str(": run `cargo xtask codegen` and commit the result")
    }
}

/// Compares whole sets of files; paths and ends of lines as [`crate::kernels`] makes them. Ordered by path.
pub fn drift(made: &[File], found: &[File]) -> Vec<Drift> {
    let at = |files: &[File], path: &str| files.iter().position(|file| file.path == path);
    let changed = made.iter().filter_map(|file| match at(found, &file.path) {
        None => Some(Drift::Missing(file.path.clone())),
        Some(i) if found[i].text != file.text => Some(Drift::Edited(file.path.clone())),
        Some(_) => None,
    });
    let left = found.iter().filter(|file| at(made, &file.path).is_none());
    let mut drift: Vec<_> = changed.chain(left.map(|file| Drift::LeftOver(file.path.clone()))).collect();
    drift.sort_by(|a, b| a.path().cmp(b.path()));
    drift
}

impl Drift {
    /// The file.
    pub fn path(&self) -> &str {
        match self {
            Drift::Edited(path) | Drift::Missing(path) | Drift::LeftOver(path) => path,
        }
    }
}
