//! What the tests of the workspace share: the instruction sets at hand; specs, and what is said of them; cases, run and
//! judged. The tests are in the folder tests/tests.
#![forbid(unsafe_code)]

pub mod engines;
pub mod run;
pub mod said;
pub mod specs;
