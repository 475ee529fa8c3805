//! What the workspace's kernel tests share: the instruction sets at hand, specs, and cases run and judged. The tests are
//! in the folder tests/tests.
#![forbid(unsafe_code)]

pub mod engines;
pub mod run;
pub mod said;
pub mod specs;
