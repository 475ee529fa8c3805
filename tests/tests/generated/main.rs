//! Generated modules say what their specs say, and do to the bit what the lane program does.

mod kernels;
mod lanes;
mod operations;
