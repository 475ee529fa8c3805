//! The oracle against numbers that can be checked by hand.

mod case;
mod compare;
mod expressions;
mod formula;
mod lookahead;
mod minilm;
mod outputs;
mod pseudo;
mod refused;
mod rows;
mod trees;
