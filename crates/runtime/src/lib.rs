//! The loops of attention: skeletons, online softmax, schedules and the interpreter of loaded variants.
#![no_std]
