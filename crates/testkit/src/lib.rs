//! Inputs, bounds and poisoned buffers for the tests of regard.
