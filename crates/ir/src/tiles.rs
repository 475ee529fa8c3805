//! Which tiles of a mask are live, found by recursive halving.
