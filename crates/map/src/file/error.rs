//! What can be wrong with a file of a cache.

use std::path::{Path, PathBuf};
use std::{error, fmt, io};

use super::table::Held;

/// A file that cannot be had, or is not what it should be.
#[derive(Debug)]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The system refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// What it says.
        error: io::Error,
    },
    /// There is a file of that name.
    Exists,
    /// Someone else has it open.
    Locked,
    /// A cache of no pages, or of more than can be counted.
    Sizes {
        /// Words of a page.
        page_words: u32,
        /// Tokens of a page.
        page_tokens: u32,
        /// Pages.
        pages: u32,
    },
    /// The disk has no room.
    Space {
        /// Bytes of the file.
        needed: u64,
        /// Bytes that are free, where the system tells.
        free: Option<u64>,
    },
    /// It does not begin as the file of a cache.
    NotACache,
    /// The file is laid out in a way that this build does not know.
    Layout {
        /// Its number.
        found: u32,
        /// The one that is known.
        expected: u32,
    },
    /// The header was changed.
    Header,
    /// The file of something else.
    Identity {
        /// Whose it is.
        found: [u8; 16],
        /// Whose it should be.
        expected: [u8; 16],
    },
    /// Pages of another version.
    Version {
        /// The file's.
        found: u32,
        /// The one that was asked for.
        expected: u32,
    },
    /// The description has another count of numbers, or more than a file has room for.
    Numbers {
        /// How many there are.
        found: usize,
        /// How many there should be, or may be.
        expected: usize,
    },
    /// One of the numbers of the description is another.
    Number {
        /// What it is called.
        name: &'static str,
        /// The file's.
        found: u32,
        /// The one that was asked for.
        expected: u32,
    },
    /// The file was cut, or has grown.
    Length {
        /// Its bytes.
        found: u64,
        /// Bytes that it should have, at least if even its header is cut.
        expected: u64,
    },
    /// None of the records of what is complete is whole.
    Record,
    /// The table of pages is not that of the newest record, nor of the one that was last made durable.
    Table {
        /// The commit of the newest record.
        commit: u64,
    },
    /// A page is not what was committed.
    Page(Held),
    /// Someone who did not ask for the lock wrote to the file while it was open.
    Changed {
        /// The commit whose record is no longer there.
        commit: u64,
    },
    /// A commit of more tokens than were written.
    Lengths {
        /// Tokens.
        len: u32,
        /// The most that there ever were.
        written: u32,
    },
    /// A commit of a page that the file does not have, or of tokens that do not fit it or are not among those of the commit.
    Held {
        /// What the page is said to hold.
        held: Held,
        /// Pages of the file.
        pages: u32,
        /// Tokens of a page.
        page_tokens: u32,
        /// Tokens of the commit.
        len: u32,
    },
    /// A sync failed before: what came after the last one that did not may never reach the disk.
    Unsynced {
        /// Tokens that were durable before that.
        durable: u32,
    },
}

impl Fault {
    pub(super) fn at(self, path: &Path) -> FileError {
        FileError { path: path.to_owned(), fault: self }
    }

    /// What the system says of what is being done.
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { doing, error }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io { doing, error } => write!(f, "{doing}: {error}"),
            Fault::Exists => f.write_str("there is a file of that name; open it, or take another name"),
            Fault::Locked => {
                f.write_str("someone else has the file open, and a cache is written by one at a time")
            }
            Fault::Sizes { page_words, page_tokens, pages } => write!(
                f,
                "{pages} pages of {page_words} words for {page_tokens} tokens: each is at least 1, and all together at most {} \
                 bytes",
                isize::MAX
            ),
            Fault::Space { needed, free: Some(free) } => {
                write!(f, "the file needs {needed} bytes, and the disk has {free} left")
            }
            Fault::Space { needed, free: None } => {
                write!(f, "the file needs {needed} bytes, and the disk has fewer left")
            }
            Fault::NotACache => f.write_str("not the file of a cache, or one whose creation did not end"),
            Fault::Layout { found, expected } => {
                write!(f, "a file of layout {found}, and this build reads layout {expected}")
            }
            Fault::Header => {
                f.write_str("the header does not match its checksum: the file was changed or damaged")
            }
            Fault::Identity { found, expected } => {
                write!(f, "a file of {}, and one of {} was expected", Hex(found), Hex(expected))
            }
            Fault::Version { found, expected } => {
                write!(f, "pages of version {found}, and version {expected} was expected")
            }
            Fault::Numbers { found, expected } => {
                write!(f, "a description with {found} numbers, and there should be {expected}")
            }
            Fault::Number { name, found, expected } => {
                write!(f, "{name}: {found} in the file, and {expected} was expected")
            }
            Fault::Length { found, expected } if found < expected => {
                write!(f, "the file has {found} bytes of {expected}: it was cut")
            }
            Fault::Length { found, expected } => {
                write!(f, "the file has {found} bytes, and should have {expected}: something was added")
            }
            Fault::Record => {
                f.write_str("no record of what is complete is whole: the file was changed or damaged")
            }
            Fault::Table { commit } => write!(
                f,
                "the table of pages is neither that of commit {commit} nor that of the last sync: the file was changed or damaged"
            ),
            Fault::Page(held) => write!(f, "{held} is not what was committed"),
            Fault::Changed { commit } => {
                write!(f, "the record of commit {commit} is gone: someone else writes to the file")
            }
            Fault::Lengths { len, written } => {
                write!(
                    f,
                    "a commit of {len} tokens, of which {written} were ever written: there are at least as many"
                )
            }
            Fault::Held { held, pages, page_tokens, len } => write!(
                f,
                "{held}: the file has {pages} pages of {page_tokens} tokens, and the commit {len} tokens"
            ),
            Fault::Unsynced { durable } => write!(
                f,
                "a sync failed before, and only the first {durable} tokens are known to be on the disk; go on in another file"
            ),
        }
    }
}

impl error::Error for FileError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.fault {
            Fault::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Held { page, first, tokens } = self;
        match tokens {
            0 => write!(f, "page {page}, without tokens"),
            _ => write!(f, "page {page}, with tokens {first} to {}", self.end() - 1),
        }
    }
}

/// Bytes in hexadecimal.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
