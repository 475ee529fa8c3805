//! What the tests of the workspace share: the instruction sets at hand; specs, and what is said of them; cases, run and
//! judged. The tests are in the folder tests/tests.
#![forbid(unsafe_code)]

use core::ops::Range;

use regard::Dtype;
use regard_oracle::Tensor4;
use regard_testkit::{Input, Layout};

pub mod engines;
pub mod hidden;
pub mod run;
pub mod said;
pub mod specs;
pub mod timed;

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

/// Some tokens of a tensor as a tensor of their own.
pub fn cut(tensor: &Tensor4<'_>, dtype: Dtype, tokens: Range<usize>) -> Input {
    let [batch, heads, _, width] = tensor.shape();
    let heads_of = (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h)));
    let rows = heads_of.flat_map(|(b, h)| tokens.clone().map(move |n| (b, h, n)));
    let values = rows.flat_map(|(b, h, n)| tensor.row(b, h, n)).map(|x| x as f32);
    Input::new(dtype, [batch, heads, tokens.len(), width], Layout::Gapped, values)
}
