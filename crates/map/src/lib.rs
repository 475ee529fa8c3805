//! Memory from the system, for what is too large to be read through small pages.
//!
//! A cache of keys and values is read from end to end for each token. With pages of 4 KiB the processor spends a good part
//! of that on finding them; where the system has huge pages, memory from here asks for them.
#![forbid(unsafe_code)]

mod words;

pub use words::Words;
