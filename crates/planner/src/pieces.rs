//! What operands are split into, from the bound that results must keep.

use regard_engine::catalog::Entry;
use regard_ir::bounds::{self, Quantity};
use regard_ir::plan::{Dtype, EngineKind, Pieces, Precision};
use regard_ir::rows::Output;
use regard_ir::variant::Heads;

use crate::report::{Choice, Reason, RejectedPieces};

/// The choice, with its reason where there was one to make.
pub(crate) struct Split {
    pub(crate) pieces: Pieces,
    pub(crate) choice: Option<Choice>,
}

/// Rows of fewer channels have scores that single products make up, so that errors average out less.
const NARROW: u32 = 64;

/// Outputs of fewer channels may all be small beside the values that they are sums of, and errors are told by the largest.
const FEW: u32 = 8;

/// Pieces of f32, the fewest first, and the largest error of outputs over their largest that each was seen to leave, over
/// 15,000 rows of 2 to 100 N(0, 1) keys at each width from 8 to 128, and over rows of 1 to 17 keys at widths from 3 on.
///
/// Heads that are mixed may cancel: the difference of two softmax maps was seen with the last but one.
const fn fast((heads, output): (&Heads, &Output)) -> [(Pieces, f64); 4] {
    let (narrow, few, mixed) = (heads.dim < NARROW, heads.value_dim < FEW, output.mix.is_some());
    [
        (Pieces::WHOLE, 8e-3),
        (Pieces { scores: 2, weights: 2, values: 2 }, if narrow || mixed { 3.3e-5 } else { 1.6e-5 }),
        (
            Pieces { scores: 3, weights: 2, values: 2 },
            if mixed {
                3.6e-5
            } else if few {
                2.1e-5
            } else {
                9.3e-6
            },
        ),
        (Pieces { scores: 3, weights: 3, values: 3 }, 4.2e-8),
    ]
}

/// The fewest pieces of operands of `dtype` with which an engine keeps the bounds of a precision; `None` where it cannot.
pub fn fewest(entry: &Entry, of: (&Heads, &Output), dtype: Dtype, precision: Precision) -> Option<Pieces> {
    Some(choose(entry, of, dtype, precision)?.pieces)
}

/// The same with the reason.
pub(crate) fn choose(
    entry: &Entry,
    of: (&Heads, &Output),
    dtype: Dtype,
    precision: Precision,
) -> Option<Split> {
    if let Some(pieces) = entry.exact(dtype) {
        let choice = (entry.engine != EngineKind::SimdF32).then(|| choice(pieces, Reason::Pieces { dtype }));
        return Some(Split { pieces, choice });
    }
    if precision == Precision::Exact || !entry.splits() {
        return None;
    }
    let bound = bounds::bound(Quantity::Output, dtype, precision, 0.0);
    let candidates = fast(of);
    let kept = candidates.iter().position(|&(_, error)| error <= bound)?;
    let (pieces, error) = candidates[kept];
    let rejected = kept.checked_sub(1).map(|fewer| {
        let (pieces, error) = candidates[fewer];
        RejectedPieces { products: pieces.products(), error }
    });
    let reason = Reason::FastPieces { products: pieces.products(), error, bound, rejected };
    Some(Split { pieces, choice: Some(choice(pieces, reason)) })
}

fn choice(pieces: Pieces, reason: Reason) -> Choice {
    Choice::fixed("pieces", pieces.scores.into(), reason)
}
