//! Score and value tiles for each instruction set, and what the processor can run.
#![no_std]
