//! Kernels generated from the specs in specs/, one module each. There is none yet.
#![no_std]
#![forbid(unsafe_code)]
