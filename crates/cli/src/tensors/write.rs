//! Output files: written beside their place and renamed, so that no reader sees half of one.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensorError, View};

use super::element::{Element, encode};

/// A tensor to be written.
#[derive(Clone, Debug)]
pub(crate) struct Output<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Output<'a> {
    /// `elements` row-major over `shape`, whose product is their number.
    pub(crate) fn new<T: Element>(shape: &[usize], elements: &'a [T]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), elements.len(), "{shape:?}");
        Self { dtype: T::DTYPE, shape: shape.to_vec(), bytes: encode(elements) }
    }

    /// How long its data is.
    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl View for &Output<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.len_bytes()
    }
}

/// A file that cannot be written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The system refuses a step.
    Io {
        /// The file.
        path: PathBuf,
        /// "create", "write" or "rename".
        step: &'static str,
        /// Why.
        error: io::Error,
    },
    /// The place is a directory.
    Directory(PathBuf),
    /// The tensors do not make a file.
    Format(PathBuf, SafeTensorError),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Io { path, step, error } => {
                write!(f, "{}: cannot {step} it: {error}", path.display())
            }
            WriteError::Directory(path) => write!(f, "{}: is a directory, expected a file", path.display()),
            WriteError::Format(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for WriteError {}

/// Writes named tensors to `path`, as [`save`] does.
///
/// # Errors
/// If the tensors do not make a safetensors file, and as `save`.
pub(crate) fn write(path: &Path, tensors: &[(&str, Output<'_>)]) -> Result<(), WriteError> {
    let views = tensors.iter().map(|(name, tensor)| (*name, tensor));
    let bytes = safetensors::serialize(views, None).map_err(|e| WriteError::Format(path.to_owned(), e))?;
    save(path, &bytes)
}

/// Writes `bytes` to `path`; what was there before stays until all of it is on disk.
///
/// A place that is neither a file nor a directory, such as a pipe, is written to directly.
///
/// # Errors
/// If the system refuses a step; no partial file is left behind.
pub(crate) fn save(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let fail = |step| move |error| WriteError::Io { path: path.to_owned(), step, error };
    match fs::metadata(path) {
        Ok(place) if place.is_dir() => return Err(WriteError::Directory(path.to_owned())),
        Ok(place) if !place.is_file() => return fs::write(path, bytes).map_err(fail("write")),
        _ => {}
    }
    let beside = beside(path);
    let mut file = File::create_new(&beside).map_err(fail("create"))?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(fail("write"))
        .and_then(|()| fs::rename(&beside, path).map_err(fail("rename")));
    if written.is_err() {
        // The first error is the one to tell; a file that cannot be removed either is told by its name.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// A name in the same folder that no other process writes to.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}
