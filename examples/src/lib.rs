//! Programs to read: how regard is used in larger ones.
//!
//! * [`hybrid`]: a language model whose layers are recurrent and softmax attention, over one interface of caches.
#![forbid(unsafe_code)]

pub mod hybrid;
mod linear;
