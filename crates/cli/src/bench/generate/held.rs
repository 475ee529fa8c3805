//! What came of steps, held against the oracle.

use regard::ir::problem::Phase;
use regard::{Cache, Kernel, RunError, SequenceId, View};
use regard_ir::operands::Rows;

use super::{LAYOUT, Output};
use crate::bench::cached::{Place, judge};
use crate::bench::lines::Judged;
use crate::cached;
use crate::execute::{Outcome, run_failure};
use crate::failure::Failure;
use crate::storage::Storage;
use crate::tensors::signature::{Bound, Layout};
use crate::tensors::stored::{Stored, StoredStates};
use crate::verify::judge::{self, Judge};
use crate::verify::problem::Size;

/// Holds all steps of a recurrence against the oracle, and its states.
pub(super) fn all<T: Storage>(
    kernel: &Kernel,
    bound: &Bound<'_>,
    (all, (cache, sequence)): (Vec<T>, (&Cache, SequenceId)),
    place: &Place,
) -> Result<Judged, Failure> {
    let variant = kernel.variant();
    let [heads, width] = [variant.output_heads(), variant.heads.value_dim].map(|n| n as usize);
    let shape = [1, heads, all.len() / (heads * width).max(1), width];
    let states =
        cache.states(sequence).map_err(|error| run_failure(kernel.spec(), RunError::Store(error)))?;
    let outcome = Outcome {
        o: Stored { elements: T::store(all), shape, strides: LAYOUT.strides(shape) },
        lse: None,
        u: None,
        states: states.map(|(state, norm)| StoredStates { state: copied(state), norm: norm.map(copied) }),
        seconds: Vec::new(),
    };
    let (operands, captured) = (judge::operands(bound)?, bound.captured());
    let positions = judge::positions(kernel, bound)?;
    let judge = Judge::new(kernel, bound, (&operands, &captured), &positions, &place.pool)?;
    Ok((&judge.against_oracle(&outcome)?).into())
}

/// A copy of what a sequence's states are.
fn copied(view: View<'_, f32>) -> Stored<'static> {
    let [sequences, heads, rows] = view.counts();
    let shape = [sequences, heads, rows, view.width()];
    let of = (0..heads).flat_map(|head| (0..rows).map(move |row| (head, row)));
    let elements = of.flat_map(|(head, row)| view.row(0, head, row).iter().copied()).collect();
    Stored { elements: f32::store(elements), shape, strides: Layout::Bhnd.strides(shape) }
}

/// Holds the last step against the oracle: the last row of what was drawn attends to all of it.
pub(super) fn last<T: Storage>(
    kernel: &Kernel,
    drawn: Bound<'static>,
    output: Output<T>,
    place: &Place,
) -> Result<Judged, Failure> {
    let kinds: Vec<Rows> = kernel.variant().operands().map(|operand| operand.rows).collect();
    let of_keys = drawn.operands.iter().zip(&kinds).find(|(_, rows)| **rows == Rows::Keys);
    let rows = of_keys.map_or(0, |(stored, _)| stored.shape[2]);
    let size = Size { batch: 1, queries: 1, keys: rows };
    let problem = cached::problem(kernel.spec(), Phase::Decode, size)?;
    let gate = drawn.gate.as_ref().map(last_row::<T>).transpose()?;
    let operands = drawn.operands.into_iter().zip(kinds).map(|(stored, rows)| match rows {
        Rows::Queries => last_row::<T>(&stored),
        Rows::Keys | Rows::Matrix(_) => Ok(stored),
    });
    let operands = operands.collect::<Result<_, _>>()?;
    let bound = Bound { problem, operands, gate, ..drawn };
    let stored = |elements, shape| Stored { elements, shape, strides: LAYOUT.strides(shape) };
    let outcome = Outcome {
        o: stored(T::store(output.o), output.o_shape),
        lse: output.lse.map(|lse| stored(f32::store(lse), output.lse_shape)),
        u: None,
        states: None,
        seconds: Vec::new(),
    };
    judge(kernel, &bound, &bound.captured(), &place.pool, &outcome)
}

/// The last token of what one sequence has.
fn last_row<T: Storage>(stored: &Stored<'_>) -> Result<Stored<'static>, Failure> {
    let [_, heads, tokens, width] = stored.shape;
    let shape = [1, heads, 1, width];
    let row = T::of(&stored.elements).and_then(|elements| elements.get((tokens - 1) * heads * width..));
    let row =
        row.ok_or_else(|| Failure::Bug("a drawn tensor has another type than the kernel's".to_owned()))?;
    Ok(Stored { elements: T::store(row.to_vec()), shape, strides: LAYOUT.strides(shape) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_row_is_that_of_the_last_token() {
        let shape = [1, 2, 3, 2];
        let elements = f32::store((0..12).map(|i| i as f32).collect());
        let stored = Stored { elements, shape, strides: LAYOUT.strides(shape) };
        let row = last_row::<f32>(&stored).unwrap();
        assert_eq!((f32::of(&row.elements), row.shape), (Some(&[8.0, 9.0, 10.0, 11.0][..]), [1, 2, 1, 2]));
    }
}
