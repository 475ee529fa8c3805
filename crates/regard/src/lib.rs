//! Attention variants from ten lines of TOML to a fused, cache-blocked SIMD kernel for the CPU at hand.
