//! Vector lanes over `pulp`, and the maths that attention needs on them.
//!
//! `pulp` gives arithmetic, comparison and loads for every instruction set. [`Lanes`] adds what it lacks (floor,
//! conversions, 16-bit storage, transposes); `regard-engine` implements it once per instruction set. [`F32`],
//! [`I32`] and [`Mask`] are lanes with operators, so that loops and generated variants read like formulas. Nothing
//! here knows an instruction set, and nothing is unsafe.
#![no_std]
#![forbid(unsafe_code)]

mod bf16;
mod lanes;
mod math;
mod value;

pub use bf16::{halves_bf16, pair_bf16, round_bf16};
pub use lanes::{Lanes, Prefetch, TRANSPOSE, rows_apart, rows_from};
pub use math::{
    NEAR, exp, exp_parts, exp2, exp2_coarse, exp2_fine, pow2, sigmoid, softmax_weight, softmax_weight_near,
    tanh, times_parts,
};
pub use pulp::Simd;
pub use value::{F32, I32, Mask, load_f32, load_i32, vectors, vectors_i32, vectors_i32_mut, vectors_mut};
