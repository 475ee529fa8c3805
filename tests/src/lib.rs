//! What the workspace's kernel tests share: the instruction sets at hand, specs, and cases run and judged. The tests are
//! in the folder tests/tests.
#![forbid(unsafe_code)]

pub mod engines;
pub mod run;
pub mod specs;

/// The offsets of packed sequences of some lengths.
///
/// # Panics
/// If they add up to more than 32 bits.
pub fn cumulative(lengths: impl Iterator<Item = usize>) -> Vec<i32> {
    let ends = lengths.scan(0, |end, len| {
        *end += i32::try_from(len).expect("short");
        Some(*end)
    });
    [0].into_iter().chain(ends).collect()
}
