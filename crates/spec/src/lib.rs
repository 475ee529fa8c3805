//! The regard spec language: TOML and expressions in, a resolved spec or diagnostics out.
//!
//! [`parse`] is pure: files that a spec extends come through a [`Loader`]. [`from_file`] reads from disk, and
//! [`shipped`] compiles a spec that is built into the compiler. Nothing that a text can hold makes them panic, and
//! each finds all errors of a spec in one run.
#![forbid(unsafe_code)]

mod codes;
mod diagnostic;
mod document;
mod expr;
mod identity;
mod loader;
mod notes;
pub mod reference;
mod render;
mod resolve;
mod shipped;
mod source;

use regard_ir::spec::Spec;

pub use crate::codes::{Code, CodeInfo, Severity};
pub use crate::diagnostic::{Diagnostic, Diagnostics, MAX_DIAGNOSTICS};
pub use crate::loader::{FileSystem, LoadError, Loader, MAX_FILE_BYTES, NoFiles};
pub use crate::shipped::{ALL as SHIPPED, Shipped, find as find_shipped};
pub use crate::source::Position;

/// A compiled spec, and what is to be said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The spec.
    pub spec: Spec,
    /// Notes: the spec means what it says, its author may not have meant it.
    pub notes: Vec<Diagnostic>,
}

/// Compiles the spec in `text`.
///
/// `file` is its name: diagnostics show it, a spec without `name` is called by its stem, and what it extends is
/// looked for beside it.
///
/// # Errors
/// All errors of the spec and of those that it extends, up to [`MAX_DIAGNOSTICS`], with its notes.
pub fn parse(text: &str, file: &str, loader: &dyn Loader) -> Result<Parsed, Diagnostics> {
    resolve::compile(resolve::Origin::File(file.to_string()), Ok(text.as_bytes().to_vec()), loader)
}

/// Compiles the spec in a file of the file system.
///
/// # Errors
/// As [`parse`]; also if the file cannot be read, is larger than [`MAX_FILE_BYTES`] or is not UTF-8.
pub fn from_file(path: impl AsRef<std::path::Path>) -> Result<Parsed, Diagnostics> {
    let path = path.as_ref();
    let origin = resolve::Origin::File(path.to_string_lossy().into_owned());
    resolve::compile(origin, loader::read(path), &FileSystem)
}

/// Compiles a spec that ships with the compiler.
///
/// # Errors
/// If there is none of this name; the help then has the nearest.
pub fn shipped(name: &str) -> Result<Parsed, Diagnostics> {
    let text = find_shipped(name).map(|shipped| shipped.text.as_bytes().to_vec());
    resolve::compile(resolve::Origin::Shipped(name.to_string()), text.ok_or(LoadError::NotFound), &NoFiles)
}
