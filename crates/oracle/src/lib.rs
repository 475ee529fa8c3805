//! The formula of every regard variant, naive and in f64: the truth that kernels are judged by.
//!
//! [`Part::row`] is the definition, computed row by row. [`eval`] is the scalar reading of expressions,
//! [`compare`] judges a kernel's output by the table in [`regard_ir::bounds`], [`sample`] says which rows of a large
//! problem are looked at, and [`random`] makes the inputs that the bounds are stated for. Nothing here is shared
//! with a kernel but the data of [`regard_ir`].
#![forbid(unsafe_code)]

pub mod compare;
pub mod eval;
mod formula;
mod known;
mod lookahead;
mod mismatch;
pub mod random;
mod recurrence;
mod rope;
mod rows;
pub mod sample;
mod tensor;

pub use formula::{Keys, Oracle, Part, Row, Tensors};
pub use known::Known;
pub use mismatch::Mismatch;
pub use recurrence::{Running, Start};
pub use tensor::{Buffer, Elements, Tensor4, TensorError};
