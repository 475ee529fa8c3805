//! What masks are over boxes of queries and keys: intervals against the scalar reading, and recursive halving.

mod halving;
mod intervals;
mod random;
mod scalar;
