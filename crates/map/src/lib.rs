//! Memory from the system, for what is too large to be read through small pages, and for what is to outlive its process.
//!
//! A cache of keys and values is read from end to end for each token. With pages of 4 KiB the processor spends a good part
//! of that on finding them; where the system has huge pages, [`Words`] ask for them. A [`CacheFile`] is such memory in a
//! file, with a record of how much of it is complete; a [`StateFile`] has one state of a recurrence, which is written anew each time.
#![deny(unsafe_code)]

pub mod file;
mod words;

pub use file::{CacheFile, StateFile};
pub use words::Words;
