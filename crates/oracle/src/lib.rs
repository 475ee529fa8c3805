//! The formula of every regard variant, naive and in f64: the truth that kernels are judged by.
