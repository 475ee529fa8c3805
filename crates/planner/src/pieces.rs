//! What operands are split into, from the bound that results must keep.

use regard_engine::catalog::Entry;
use regard_ir::bounds::{self, Quantity};
use regard_ir::plan::{Dtype, EngineKind, Pieces, Precision};
use regard_ir::variant::{Mechanism, Variant};

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

/// What of a variant decides how far errors are from averaging out.
struct Traits {
    narrow: bool,
    /// Whether outputs may be small beside what they are sums of: they are few, or differences of heads.
    cancels: bool,
    /// Whether rows of q and k are turned, normed or mixed, and so no numbers of their storage type any more.
    changes: bool,
    /// Whether rows of v are mixed.
    mixes: bool,
}

impl Traits {
    fn of(variant: &Variant<'_>) -> Self {
        let Variant { heads, output, position, qk_norm, mechanism, .. } = variant;
        let mixes = variant.pseudo().is_some();
        // Half of what meets is rounded once more where latents are expanded or queries absorbed, and the bound allows for it.
        let turns = (position.is_some() || qk_norm.is_some()) && !matches!(mechanism, Mechanism::Latent(_));
        Self {
            narrow: heads.dim < NARROW,
            cancels: heads.value_dim < FEW || output.mix.is_some() || mixes,
            changes: turns || mixes,
            mixes,
        }
    }

    /// Pieces of f32, the fewest first, and the error of outputs over the row's largest that each passes in at most one of 10,000
    /// single rows of 1 to 17 N(0, 1) keys, at widths from 8 to 128; of cancelling ones, at two channels. A test of that name,
    /// `single_rows_leave_what_the_planner_says`, holds the figures.
    ///
    /// No error that is told by the largest output of a row has an end: now and then all outputs are small.
    fn fast(&self) -> [(Pieces, f64); 3] {
        let of = |scores, weights, values| Pieces { scores, weights, values, order: 3 };
        let error = |wide, narrow, cancelling| match self {
            Traits { cancels: true, .. } => cancelling,
            Traits { narrow: true, .. } => narrow,
            _ => wide,
        };
        [
            (of(2, 2, 2), error(2.0e-5, 3.9e-5, 4.1e-4)),
            (of(3, 2, 3), error(8.0e-6, 1.4e-5, 1.8e-4)),
            (of(3, 3, 3), error(6.1e-7, 6.7e-7, 1.1e-5)),
        ]
    }

    /// Pieces of bf16 storage: a second one where one alone would leave more than the bound. Turned rows of one piece were
    /// seen at 1.7e-2 where 8e-3 is allowed.
    const fn bf16(&self) -> Pieces {
        Pieces {
            scores: 1 + self.changes as u8,
            weights: 1 + self.cancels as u8,
            values: 1 + self.mixes as u8,
            order: 1 + 2 * self.cancels as u8,
        }
    }
}

/// Pieces of f32 operands that `precision = "fast"` chooses from, the fewest first, and the error that each is taken to leave.
pub fn candidates(variant: &Variant<'_>) -> [(Pieces, f64); 3] {
    Traits::of(variant).fast()
}

/// The fewest pieces of operands of `dtype` with which an engine keeps the bounds of a precision; `None` where it cannot.
pub fn fewest(entry: &Entry, variant: &Variant<'_>, dtype: Dtype, precision: Precision) -> Option<Pieces> {
    Some(choose(entry, variant, dtype, precision)?.pieces)
}

/// The same with the reason.
pub(crate) fn choose(
    entry: &Entry,
    variant: &Variant<'_>,
    dtype: Dtype,
    precision: Precision,
) -> Option<Split> {
    if variant.recurrence().is_some() {
        return entry.has_states(dtype).then_some(Split { pieces: Pieces::WHOLE, choice: None });
    }
    let traits = Traits::of(variant);
    if let Some(exact) = entry.exact(dtype) {
        let pieces = match (entry.engine, dtype) {
            (EngineKind::SimdF32, _) => return Some(Split { pieces: exact, choice: None }),
            (_, Dtype::Bf16) => traits.bf16(),
            (_, Dtype::F16) => Pieces { order: exact.order + u8::from(traits.cancels), ..exact },
            _ => exact,
        };
        let choice = choice(pieces, Reason::Pieces { dtype, pieces });
        return (entry.splits() || pieces == exact).then_some(Split { pieces, choice: Some(choice) });
    }
    if precision == Precision::Exact || !entry.splits() {
        return None;
    }
    let bound = bounds::bound(Quantity::Output, dtype, precision, 0.0);
    let candidates = traits.fast();
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
