//! How far a result may be from the oracle: the one table that every test and `regard verify` read.
//!
//! Errors are measured as max |x − oracle| / max |oracle| over each run of [`ROWS`] query rows of one head. The
//! bounds hold for N(0, 1) inputs rounded to their dtype, scores up to [`SCORES`] in magnitude and up to 16k keys.

use crate::cache::{Codec, PageFormat};
use crate::plan::{Dtype, Precision};
use crate::variant::Mechanism;

/// Query rows of one head that are judged together.
pub const ROWS: usize = 64;

/// The largest score magnitude that the bounds are stated for; larger scores widen them in proportion.
pub const SCORES: f64 = 5.0;

/// Which result is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// The output rows.
    Output,
    /// The log of the weights' sum, an f32 whatever the storage.
    Lse,
    /// The lookahead keys after the last token, in f32 whatever the storage.
    Learned,
    /// The state of a recurrence after the last token, and its norm, in f32 whatever the storage.
    State,
}

/// The bound.
///
/// `max_score` is the largest |score| of the data, in natural units, before and after the modifier; below [`SCORES`]
/// it changes nothing.
pub fn bound(quantity: Quantity, dtype: Dtype, precision: Precision, max_score: f64) -> f64 {
    let at_five = match (quantity, dtype, precision) {
        (_, Dtype::F32, Precision::Fast) => 2e-5,
        (_, Dtype::F32, Precision::Exact) => 2e-6,
        (Quantity::Output, Dtype::F16, _) => 2e-3,
        (Quantity::Output, Dtype::Bf16, _) => 8e-3,
        (Quantity::Lse | Quantity::Learned | Quantity::State, Dtype::F16 | Dtype::Bf16, _) => 2e-3,
    };
    at_five * libm::fmax(1.0, max_score / SCORES)
}

/// The same for a variant of a mechanism: what is made of 16-bit rows before they meet is rounded once more.
pub fn bound_of(
    mechanism: &Mechanism<'_>,
    quantity: Quantity,
    dtype: Dtype,
    precision: Precision,
    max_score: f64,
) -> f64 {
    let rounds_twice = match mechanism {
        Mechanism::Latent(_) | Mechanism::Lookahead(_) | Mechanism::Recurrence(_) => true,
        Mechanism::Plain | Mechanism::Pseudo(_) => false,
    };
    let factor = match (quantity, dtype) {
        (Quantity::Output, Dtype::Bf16) if rounds_twice => 2.0,
        _ => 1.0,
    };
    factor * bound(quantity, dtype, precision, max_score)
}

/// What an error is divided by, given the largest finite |oracle| of its run.
///
/// An lse is a log, so its error is that of the sum's leading digits whatever its size: it is divided by at least 1,
/// or a sum that happens to be near 1 would be judged on digits that f32 scores do not have.
pub fn denominator(quantity: Quantity, max_oracle: f64) -> f64 {
    match quantity {
        Quantity::Output | Quantity::Learned | Quantity::State => max_oracle,
        Quantity::Lse => libm::fmax(1.0, max_oracle),
    }
}

/// How far the outputs of a head may be from those of the very keys and values that a cache was given, rms by rms, where it
/// keeps fewer digits than their type has; `None` where it keeps all.
///
/// Holds as [`bound`] does, and is widened as it is by larger scores.
pub fn cached(codec: Codec, dtype: Dtype) -> Option<f64> {
    let rounded_to = |dtype| Some(bound(Quantity::Output, dtype, Precision::Exact, 0.0));
    match (codec, dtype) {
        (Codec::F32, _) | (Codec::F16, Dtype::F16 | Dtype::Bf16) | (Codec::Bf16, Dtype::Bf16) => None,
        (Codec::F16, Dtype::F32) => rounded_to(Dtype::F16),
        (Codec::Bf16, Dtype::F32 | Dtype::F16) => rounded_to(Dtype::Bf16),
        (Codec::Int8, _) => Some(2e-2),
        (Codec::Int4, _) => Some(2e-1),
    }
}

/// The same of a cache of some format, whose rows of pseudo-heads are rounded once more where they are mixed before they are kept.
pub fn kept(format: &PageFormat, dtype: Dtype) -> Option<f64> {
    let of = |codec| match codec {
        // Sums of rows are no numbers of their storage type.
        Codec::F16 | Codec::Bf16 if format.mixed => {
            let storage = bound(Quantity::Output, dtype, Precision::Exact, 0.0);
            cached(codec, Dtype::F32).map(|rounded| libm::fmax(rounded, storage))
        }
        _ => cached(codec, dtype),
    };
    [format.k, format.v].into_iter().filter_map(of).reduce(f64::max)
}
