//! What came of steps, held against the oracle.

use regard::ir::problem::Phase;
use regard::{Cache, Dtype, Kernel, RunError, SequenceId, View};
use regard_ir::operands::Rows;

use super::{LAYOUT, Output};
use crate::bench::cached::{Place, judge};
use crate::bench::lines::Judged;
use crate::cached;
use crate::execute::{Outcome, run_failure};
use crate::failure::Failure;
use crate::tensors::signature::{Bound, Layout};
use crate::tensors::stored::{Stored, StoredStates};
use crate::verify::judge::{self, Judge};
use crate::verify::problem::Size;

/// Holds all steps of a recurrence against the oracle, and its states.
pub(super) fn all(
    kernel: &Kernel,
    bound: &Bound<'_>,
    (all, (cache, sequence)): (Vec<f32>, (&Cache, SequenceId)),
    place: &Place,
) -> Result<Judged, Failure> {
    let variant = kernel.variant();
    let [heads, width] = [variant.output_heads(), variant.heads.value_dim].map(|n| n as usize);
    let shape = [1, heads, all.len() / (heads * width).max(1), width];
    // Of the kernel's type already, so that none is rounded.
    let o = Stored::nearest(kernel.plan().dtype, all, shape, LAYOUT);
    let states =
        cache.states(sequence).map_err(|error| run_failure(kernel.spec(), RunError::Store(error)))?;
    let states = states.map(|(state, norm)| StoredStates { state: copied(state), norm: norm.map(copied) });
    let outcome = Outcome { o, lse: None, u: None, states, seconds: Vec::new() };
    let (operands, captured) = (judge::operands(bound)?, bound.captured());
    let positions = judge::positions(kernel, bound)?;
    let judge = Judge::new(kernel, bound, (&operands, &captured), &positions, &place.pool)?;
    Ok((&judge.against_oracle(&outcome)?).into())
}

/// A copy of what a sequence's states are.
fn copied(view: View<'_>) -> Stored<'static> {
    let [sequences, heads, rows] = view.counts();
    let shape = [sequences, heads, rows, view.width()];
    let rows = (0..heads).flat_map(|head| (0..rows).map(move |row| (head, row)));
    let elements = rows.flat_map(|(head, row)| view.row(0, head, row).floats());
    Stored::nearest(Dtype::F32, elements.collect(), shape, Layout::Bhnd)
}

/// Holds the last step against the oracle: the last row of what was drawn attends to all of it.
pub(super) fn last(
    kernel: &Kernel,
    drawn: Bound<'static>,
    output: Output,
    place: &Place,
) -> Result<Judged, Failure> {
    let kinds: Vec<Rows> = kernel.variant().operands().map(|operand| operand.rows).collect();
    let of_keys = drawn.operands.iter().zip(&kinds).find(|(_, rows)| **rows == Rows::Keys);
    let rows = of_keys.map_or(0, |(stored, _)| stored.shape[2]);
    let size = Size { batch: 1, queries: 1, keys: rows };
    let problem = cached::problem(kernel.spec(), Phase::Decode, size)?;
    let gate = drawn.gate.as_ref().map(last_row);
    let operands = drawn.operands.into_iter().zip(kinds).map(|(stored, rows)| match rows {
        Rows::Queries => last_row(&stored),
        Rows::Keys | Rows::Matrix(_) => stored,
    });
    let bound = Bound { problem, operands: operands.collect(), gate, ..drawn };
    let Output { o, lse } = output;
    let outcome = Outcome { o, lse, u: None, states: None, seconds: Vec::new() };
    judge(kernel, &bound, &bound.captured(), &place.pool, &outcome)
}

/// The last token of what one sequence has.
fn last_row(stored: &Stored<'_>) -> Stored<'static> {
    let [_, heads, tokens, width] = stored.shape;
    let shape = [1, heads, 1, width];
    let len = heads * width;
    let elements = stored.elements.part((tokens - 1) * len..tokens * len);
    Stored { elements, shape, strides: LAYOUT.strides(shape) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_row_is_that_of_the_last_token() {
        let shape = [1, 2, 3, 2];
        let numbers = (0..12).map(|i| i as f32).collect();
        let row = last_row(&Stored::nearest(Dtype::Bf16, numbers, shape, LAYOUT));
        assert_eq!(row.elements.floats().collect::<Vec<_>>(), [8.0, 9.0, 10.0, 11.0]);
        assert_eq!(row.shape, [1, 2, 1, 2]);
    }
}
