//! Tensor files of the command line.
//!
//! A safetensors file is untrusted: its header is checked entry by entry before anything is read by it, so that a
//! lie about a length, an offset or a type is an error that names the file and the tensor. What the elements are is
//! data, NaN included. [`signature`] holds a file against a spec, [`write`] makes output files.

pub(crate) mod element;
pub(crate) mod header;
pub(crate) mod mismatch;
pub(crate) mod signature;
pub(crate) mod stored;
pub(crate) mod write;

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use element::Element;
use header::{Entry, Fault, FileError};

/// The tensors of a file, in the order of their data.
#[derive(Debug)]
pub(crate) struct Tensors {
    path: PathBuf,
    entries: Vec<Entry>,
    data: Vec<u8>,
}

/// One tensor of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensor<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The type of its elements.
    pub(crate) dtype: Dtype,
    /// Lengths of its axes.
    pub(crate) shape: &'a [usize],
    bytes: &'a [u8],
}

impl Tensors {
    /// Reads a file whole.
    ///
    /// # Errors
    /// If it cannot be read, or is not a safetensors file.
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        let fail = |error| FileError::new(path, Fault::Io(error));
        Self::read_from(path, File::open(path).map_err(fail)?)
    }

    /// As [`Tensors::read`], from an open file; `path` is for messages.
    pub(crate) fn read_from(path: &Path, mut file: impl Read) -> Result<Self, FileError> {
        let fail = |error| FileError::new(path, Fault::Io(error));
        let (entries, data_len) = header::read(path, &mut file)?;
        let mut data = Vec::new();
        // One byte more than promised, to see whether the file goes on.
        file.take(data_len.saturating_add(1)).read_to_end(&mut data).map_err(fail)?;
        let found = data.len() as u64;
        if found < data_len {
            let cut = entries.iter().find(|entry| entry.bytes.end as u64 > found);
            let fault = Fault::Truncated { found, expected: data_len };
            return Err(FileError {
                tensor: cut.map(|entry| entry.name.clone()),
                ..FileError::new(path, fault)
            });
        }
        if found > data_len {
            return Err(FileError::new(path, Fault::GoesOn { expected: data_len }));
        }
        Ok(Self { path: path.to_owned(), entries, data })
    }

    /// Where the tensors come from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.entries.iter().map(|entry| Tensor {
            name: &entry.name,
            dtype: entry.dtype,
            shape: &entry.shape,
            bytes: &self.data[entry.bytes.clone()],
        })
    }

    /// The tensor of a name.
    pub(crate) fn get(&self, name: &str) -> Option<Tensor<'_>> {
        self.iter().find(|tensor| tensor.name == name)
    }
}

impl<'a> Tensor<'a> {
    /// The elements, or `None` where they are of another type; borrowed from the file where the processor can read
    /// them in place.
    pub(crate) fn elements<T: Element>(&self) -> Option<Cow<'a, [T]>> {
        (self.dtype == T::DTYPE).then(|| element::decode(self.bytes))
    }
}

#[cfg(test)]
mod tests;
