//! What keeps a cache from being made, or from doing what it was asked for.

use std::fmt;

use regard_ir::spec::CacheLayout;
use regard_map::file::FileError;
use regard_runtime::cache::StoreError;
use regard_runtime::schedule::MAX_TASKS;

use crate::cache::CacheLimits;

/// A cache that cannot be had, or cannot do what it was asked for.
#[derive(Debug)]
pub enum CacheError {
    /// The limits ask for nothing, or for more than can be counted.
    Limits(CacheLimits),
    /// More sequences than the states of one cache can be told apart.
    Sequences {
        /// How many.
        found: usize,
    },
    /// The system does not give the memory.
    Memory {
        /// How much.
        bytes: usize,
    },
    /// The spec keeps its cache in a file, and none was named.
    WantsFile,
    /// A recurrence keeps states in place of keys and values, each in a piece of memory of its own.
    States {
        /// What was asked for, as a spec says it.
        asked: &'static str,
    },
    /// A recurrence over all keys has a state when it has them all, and none to go on from.
    AllKeys,
    /// Lookahead keys change with each token, so that no page of theirs is shared, written over in turn, or kept in a file.
    Lookahead {
        /// What was asked for, as a spec says it.
        asked: &'static str,
    },
    /// A cache in a file has one block of tokens, and the spec asks for another layout.
    FileLayout(CacheLayout),
    /// The pages of a cache in a file have too many words to be counted in 32 bits.
    Page {
        /// Tokens of a page.
        tokens: u32,
        /// Its words.
        words: usize,
    },
    /// The cache is not in a file.
    NoFile,
    /// What the file is, or what became of it.
    File(FileError),
    /// What its sequences do not allow.
    Store(StoreError),
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheError::Limits(CacheLimits { sequences, tokens, .. }) => write!(
                f,
                "a cache of {sequences} sequences of {tokens} tokens: both are at least 1, and tokens at most {}",
                i32::MAX
            ),
            CacheError::Sequences { found } => {
                write!(f, "a cache of {found} sequences: a recurrence has states of at most {MAX_TASKS}")
            }
            CacheError::Memory { bytes } => write!(f, "the system does not give {bytes} bytes for the cache"),
            CacheError::WantsFile => f.write_str(
                "the spec says `cache.file = true`: `Kernel::create_cache` and `open_cache` take the file",
            ),
            CacheError::States { asked } => write!(
                f,
                "a recurrence has no cache with `{asked}`: its states, in place of keys and values, are kept by layout contiguous"
            ),
            CacheError::AllKeys => f.write_str(
                "a recurrence without `mask = \"causal\"` has no cache: `Kernel::run_recurrence` takes all keys at once",
            ),
            CacheError::Lookahead { asked } => write!(
                f,
                "lookahead keys have no cache with `{asked}`: they change with each token, and are kept in memory, by layout contiguous"
            ),
            CacheError::FileLayout(layout) => write!(
                f,
                "a cache in a file is of layout contiguous; the spec says `cache.layout = \"{}\"`",
                layout.name()
            ),
            &CacheError::Page { tokens, words } => write!(
                f,
                "a page of {tokens} tokens has {words} words of 4 bytes, and a page in a file at most {}: make `cache.page` smaller",
                u32::MAX
            ),
            CacheError::NoFile => write!(f, "the cache is in memory: only one that is in a file can be kept"),
            CacheError::File(error) => error.fmt(f),
            CacheError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CacheError {}
