//! Where the files come from that `extends` names.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The most bytes that a spec file may have.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Reads the files that specs name. The compiler itself touches no file.
pub trait Loader {
    /// The bytes of the file at `path`, which is relative to what the first file's name is relative to.
    ///
    /// # Errors
    /// If there is no such file, or it cannot be read.
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError>;
}

/// Why a file was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// There is none of this name.
    NotFound,
    /// It is a directory.
    Directory,
    /// It has more than [`MAX_FILE_BYTES`].
    TooLarge,
    /// Something else, as the system says it.
    Other(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::NotFound => f.write_str("there is no such file"),
            LoadError::Directory => f.write_str("it is a directory"),
            LoadError::TooLarge => write!(f, "it is larger than {MAX_FILE_BYTES} bytes"),
            LoadError::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads from the file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystem;

impl Loader for FileSystem {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        read(Path::new(path))
    }
}

/// The bytes of a file, up to the limit.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    if path.is_dir() {
        return Err(LoadError::Directory);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(load_error)?;
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(load_error)?;
    if bytes.len() > MAX_FILE_BYTES { Err(LoadError::TooLarge) } else { Ok(bytes) }
}

fn load_error(error: std::io::Error) -> LoadError {
    match error.kind() {
        std::io::ErrorKind::NotFound => LoadError::NotFound,
        _ => LoadError::Other(error.to_string()),
    }
}

/// Has no files: specs can extend only what ships with the compiler.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl Loader for NoFiles {
    fn load(&self, _path: &str) -> Result<Vec<u8>, LoadError> {
        Err(LoadError::NotFound)
    }
}
