//! The oracle against numbers that can be checked by hand.

mod compare;
mod expressions;
mod formula;
mod minilm;
mod trees;
