//! The header of a safetensors file: eight bytes of length, then JSON that says where each tensor lies.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::de::value::StrDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The longest header that is read. A tensor takes about a hundred bytes of it, and no spec has a thousand inputs.
pub(crate) const MAX_HEADER_BYTES: u64 = 1 << 20;

/// What the header says of one tensor, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: String,
    /// The type of its elements.
    pub(crate) dtype: Dtype,
    /// Lengths of its axes.
    pub(crate) shape: Vec<usize>,
    /// Its bytes, counted from the end of the header; as many as type and shape need.
    pub(crate) bytes: Range<usize>,
}

/// A file that cannot be read.
#[derive(Debug)]
pub(crate) struct FileError {
    /// The file.
    pub(crate) path: PathBuf,
    /// The tensor at fault, where it is one.
    pub(crate) tensor: Option<String>,
    /// What is wrong.
    pub(crate) fault: Fault,
}

/// What is wrong with a file.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The system does not give it.
    Io(io::Error),
    /// It ends inside the eight bytes of the header's length.
    NoHeader { found: u64 },
    /// The header claims to be longer than any that is read.
    HeaderTooLong { claimed: u64 },
    /// The file ends inside the header.
    HeaderCut { found: u64, claimed: u64 },
    /// The header is no text.
    NotUtf8 { valid: usize },
    /// The header is no JSON object.
    Json(serde_json::Error),
    /// `__metadata__` is not a map of strings.
    Metadata(serde_json::Error),
    /// A name occurs twice.
    Duplicate,
    /// An entry is not `{dtype, shape, data_offsets}`.
    Entry(serde_json::Error),
    /// An element type that is unknown or takes no whole bytes.
    Dtype { found: String },
    /// Offsets that end before they begin.
    Reversed { begin: u64, end: u64 },
    /// More or fewer bytes than type and shape need; `expected` is absent where it is past 64 bits.
    Size { dtype: Dtype, shape: Vec<u64>, found: u64, expected: Option<u64> },
    /// It begins inside another tensor.
    Overlap { begin: u64, other: String, other_end: u64 },
    /// It begins later than the tensor before it, or the header, ends.
    Gap { begin: u64, expected: u64 },
    /// The file ends inside the data.
    Truncated { found: u64, expected: u64 },
    /// The file goes on after the last tensor.
    GoesOn { expected: u64 },
}

impl FileError {
    /// A fault of the whole file.
    pub(crate) fn new(path: &Path, fault: Fault) -> Self {
        Self { path: path.to_owned(), tensor: None, fault }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(name) = &self.tensor {
            write!(f, "tensor `{}`: ", name.escape_debug())?;
        }
        self.fault.fmt(f)
    }
}

impl std::error::Error for FileError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io(error) => error.fmt(f),
            Fault::NoHeader { found } => {
                write!(f, "{found} bytes are no safetensors file: it starts with 8 bytes of header length")
            }
            Fault::HeaderTooLong { claimed } => {
                write!(
                    f,
                    "the header claims {claimed} bytes, at most {MAX_HEADER_BYTES} are read; is it safetensors?"
                )
            }
            Fault::HeaderCut { found, claimed } => {
                write!(f, "the file ends after {found} bytes of a header that claims {claimed}")
            }
            Fault::NotUtf8 { valid } => write!(f, "the header is not UTF-8 after its first {valid} bytes"),
            Fault::Json(error) => write!(f, "the header is not a JSON object of tensors: {error}"),
            Fault::Metadata(error) => write!(f, "`__metadata__` is not a map of strings: {error}"),
            Fault::Duplicate => write!(f, "the header names it twice"),
            Fault::Entry(error) => {
                write!(f, "its entry is not {{\"dtype\", \"shape\", \"data_offsets\"}}: {error}")
            }
            Fault::Dtype { found } => {
                write!(
                    f,
                    "unknown dtype \"{}\", expected \"F32\", \"F16\", \"BF16\", …",
                    found.escape_debug()
                )
            }
            Fault::Reversed { begin, end } => write!(f, "its data begins at byte {begin} and ends at {end}"),
            Fault::Size { dtype, shape, found, expected } => {
                write!(f, "{} {shape:?} needs ", name(*dtype))?;
                match expected {
                    Some(expected) => write!(f, "{expected} bytes")?,
                    None => write!(f, "more bytes than any file has")?,
                }
                write!(f, ", its offsets give it {found}")
            }
            Fault::Overlap { begin, other, other_end } => {
                let other = other.escape_debug();
                write!(f, "its data begins at byte {begin}, tensor `{other}` ends at {other_end}")
            }
            Fault::Gap { begin, expected } => {
                write!(f, "its data begins at byte {begin}, expected {expected}: tensors lie end to end")
            }
            Fault::Truncated { found, expected } => {
                write!(f, "the file ends after {found} of {expected} bytes of data")
            }
            Fault::GoesOn { expected } => {
                write!(f, "the file goes on after the {expected} bytes of its last tensor")
            }
        }
    }
}

/// A type as specs spell it.
pub(crate) fn name(dtype: Dtype) -> String {
    dtype.to_string().to_lowercase()
}

/// Reads and checks a header; gives the tensors by offset, end to end, and the length of all data.
pub(crate) fn read(path: &Path, file: &mut impl Read) -> Result<(Vec<Entry>, u64), FileError> {
    let text = read_text(file).map_err(|fault| FileError::new(path, fault))?;
    let RawHeader(raw) = serde_json::from_str(&text).map_err(|e| FileError::new(path, Fault::Json(e)))?;
    let mut entries: Vec<Entry> = Vec::new();
    for (name, json) in raw {
        if name == "__metadata__" {
            let metadata: Result<HashMap<String, String>, _> = serde_json::from_str(json.get());
            metadata.map_err(|e| FileError::new(path, Fault::Metadata(e)))?;
            continue;
        }
        match entry(&name, json.get()) {
            Ok(entry) => entries.push(entry),
            Err(fault) => return Err(FileError { tensor: Some(name), ..FileError::new(path, fault) }),
        }
    }
    if let Some(name) = repeated(&entries) {
        return Err(FileError { tensor: Some(name), ..FileError::new(path, Fault::Duplicate) });
    }
    entries.sort_by_key(|entry| (entry.bytes.start, entry.bytes.end));
    let data_len = end_to_end(&entries).map_err(|(entry, fault)| FileError {
        tensor: Some(entry.name.clone()),
        ..FileError::new(path, fault)
    })?;
    Ok((entries, data_len))
}

fn read_text(file: &mut impl Read) -> Result<String, Fault> {
    let mut take = |len: u64| {
        let mut bytes = Vec::new();
        file.take(len).read_to_end(&mut bytes).map_err(Fault::Io)?;
        Ok(bytes)
    };
    let len = take(8)?;
    let Ok(len) = <[u8; 8]>::try_from(len.as_slice()) else {
        return Err(Fault::NoHeader { found: len.len() as u64 });
    };
    let claimed = u64::from_le_bytes(len);
    if claimed > MAX_HEADER_BYTES {
        return Err(Fault::HeaderTooLong { claimed });
    }
    let text = take(claimed)?;
    if (text.len() as u64) < claimed {
        return Err(Fault::HeaderCut { found: text.len() as u64, claimed });
    }
    String::from_utf8(text).map_err(|e| Fault::NotUtf8 { valid: e.utf8_error().valid_up_to() })
}

/// The header's map with order and repeated names kept, its values not yet read.
struct RawHeader(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a map from names to tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(RawHeader(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[derive(serde::Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

fn entry(name: &str, json: &str) -> Result<Entry, Fault> {
    let RawEntry { dtype, shape, data_offsets: (begin, end) } =
        serde_json::from_str(json).map_err(Fault::Entry)?;
    let known = Dtype::deserialize(StrDeserializer::<serde::de::value::Error>::new(&dtype));
    let Some(dtype) = known.ok().filter(|dtype| dtype.bitsize().is_multiple_of(8)) else {
        return Err(Fault::Dtype { found: dtype });
    };
    let found = end.checked_sub(begin).ok_or(Fault::Reversed { begin, end })?;
    let expected = size_bytes(dtype, &shape);
    let fits = |n: u64| usize::try_from(n).ok();
    let lens: Option<Vec<usize>> = shape.iter().map(|&len| fits(len)).collect();
    match (lens, fits(begin), fits(end)) {
        (Some(shape), Some(begin), Some(end)) if expected == Some(found) => {
            Ok(Entry { name: name.to_owned(), dtype, shape, bytes: begin..end })
        }
        _ => Err(Fault::Size { dtype, shape, found, expected }),
    }
}

fn size_bytes(dtype: Dtype, shape: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    let elements = shape.iter().try_fold(1u64, |n, &len| n.checked_mul(len))?;
    elements.checked_mul(dtype.bitsize() as u64 / 8)
}

fn repeated(entries: &[Entry]) -> Option<String> {
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].to_owned())
}

/// The end of the last of `entries`, which are sorted, if each begins where the one before it ends.
fn end_to_end(entries: &[Entry]) -> Result<u64, (&Entry, Fault)> {
    let mut before: Option<&Entry> = None;
    for entry in entries {
        let expected = before.map_or(0, |before| before.bytes.end);
        let (begin, expected) = (entry.bytes.start as u64, expected as u64);
        match before {
            Some(other) if begin < expected => {
                let fault = Fault::Overlap { begin, other: other.name.clone(), other_end: expected };
                return Err((entry, fault));
            }
            _ if begin > expected => return Err((entry, Fault::Gap { begin, expected })),
            _ => before = Some(entry),
        }
    }
    Ok(before.map_or(0, |entry| entry.bytes.end as u64))
}
