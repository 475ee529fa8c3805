//! Where the elements of captured tensors lie when sequences are packed.

use regard_ir::inputs::{BindError, Captured, InputData};
use regard_ir::problem::Problem;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Source};

const HEADS: Heads = Heads { query: 2, kv: 1, value: 1, dim: 8, value_dim: 8 };

/// Sequences of 3, 0 and 4 keys, with 1, 0 and 2 queries.
const CU_Q: [i32; 4] = [0, 1, 1, 3];
const CU_K: [i32; 4] = [0, 3, 3, 7];

/// The offsets of some elements of an input of these axes that has so many; `Err` with what it needs.
fn offsets<const N: usize>(
    source: Source,
    axes: &[Axis],
    len: usize,
    index: [&[i32]; N],
) -> Result<[Option<usize>; N], BindError> {
    let problem = Problem::packed(source, &CU_Q, &CU_K).unwrap();
    let (shapes, elements) = ([InputShape::new(InputType::I32, axes)], vec![0; len]);
    let data = [InputData::I32(&elements)];
    let captured = Captured::bind(&shapes, &data, &HEADS, source, &problem)?;
    Ok(index.map(|index| captured.offset(0, index)))
}

#[test]
fn sequences_and_tokens_are_one_axis_in_front() {
    let own = Source::SelfAttention;
    let found =
        offsets(own, &[Axis::Batch, Axis::Key], 7, [&[0, 2], &[0, 3], &[1, 0], &[2, 0], &[2, 3], &[3, 0]]);
    assert_eq!(found, Ok([Some(2), None, None, Some(3), Some(6), None]));
    // [Tk, H], whatever the order of declaration.
    for axes in [[Axis::Batch, Axis::Head, Axis::Key], [Axis::Head, Axis::Batch, Axis::Key]] {
        let at = |b, h, k| if axes[0] == Axis::Head { [h, b, k] } else { [b, h, k] };
        let found =
            offsets(own, &axes, 14, [&at(0, 1, 2), &at(2, 0, 0), &at(2, 1, 3), &at(2, 2, 3), &at(2, 1, -1)]);
        assert_eq!(found, Ok([Some(5), Some(6), Some(13), None, None]), "{axes:?}");
    }
    // A second axis of tokens is as long as the longest sequence, and read as far as its own.
    let found =
        offsets(own, &[Axis::Batch, Axis::Query, Axis::Key], 28, [&[0, 1, 2], &[0, 1, 3], &[2, 0, 3]]);
    assert_eq!(found, Ok([Some(6), None, Some(15)]));
}

#[test]
fn queries_of_another_sequence_are_packed_by_themselves() {
    let found = offsets(Source::Cross, &[Axis::Batch, Axis::Query], 3, [&[0, 0], &[0, 1], &[2, 1]]);
    assert_eq!(found, Ok([Some(0), None, Some(2)]));
}

#[test]
fn what_has_no_sequences_or_no_tokens_is_as_it_was() {
    let found = offsets(Source::SelfAttention, &[Axis::Batch], 3, [&[0], &[2], &[3]]);
    assert_eq!(found, Ok([Some(0), Some(2), None]));
    let found = offsets(Source::SelfAttention, &[Axis::Head, Axis::Key], 8, [&[1, 3], &[1, 4]]);
    assert_eq!(found, Ok([Some(7), None]));
}

#[test]
fn other_numbers_of_elements_are_refused() {
    for (axes, expected) in
        [(vec![Axis::Batch, Axis::Key], 7), (vec![Axis::Batch, Axis::Head, Axis::Key], 14)]
    {
        let found = offsets(Source::SelfAttention, &axes, 12, []);
        assert_eq!(found, Err(BindError::Len { input: 0, expected, found: 12 }));
    }
}
