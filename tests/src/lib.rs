//! What the tests of the workspace share: the instruction sets at hand; specs, and what is said of them; cases, run and
//! judged. The tests are in the folder tests/tests.
#![forbid(unsafe_code)]

use core::ops::Range;

use regard::Dtype;
use regard_ir::inputs::InputData;
use regard_ir::operands::Rows;
use regard_ir::problem::Sequence;
use regard_ir::variant::{Axis, Source, Variant};
use regard_oracle::Tensor4;
use regard_oracle::random::CapturedBuffer;
use regard_testkit::{Case, Input, Inputs, Layout};

pub mod cached;
pub mod drawn;
pub mod engines;
pub mod held;
pub mod hidden;
pub mod mutants;
pub mod poisoned;
pub mod run;
pub mod said;
pub mod specs;
pub mod states;
pub mod timed;
pub mod views;

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
    Input::of_tokens(tensor, (dtype, Layout::Gapped), &[tokens])
}

/// Some rows of a tensor, one range after the other, as a case stores them.
pub fn picked(case: &Case<'_>, tensor: &Input, rows: &[Range<usize>]) -> Input {
    Input::of_tokens(&tensor.view(), (case.dtype, case.layout), rows)
}

/// The same inputs with some of their queries alone.
pub fn with_queries(case: &Case<'_>, inputs: &Inputs, dtype: Dtype, tokens: Range<usize>) -> Inputs {
    inputs.map(&case.variant, |rows, tensor| match rows {
        Rows::Queries => cut(&tensor.view(), dtype, tokens.clone()),
        Rows::Keys | Rows::Matrix(_) => tensor.clone(),
    })
}

/// What of a captured input is one sequence's.
///
/// One that is of tokens, but not of sequences, is as long as the longest of them: it is cut to the tokens of this one.
pub fn cut_captured(
    data: InputData<'_>,
    variant: &Variant<'_>,
    input: usize,
    index: u32,
    of: &Sequence,
) -> CapturedBuffer {
    let per_token = variant.per_token();
    let of = &Sequence {
        first_query: of.first_query * per_token,
        first_key: of.first_key * per_token,
        queries: of.queries * per_token,
        keys: of.keys * per_token,
        ..*of
    };
    let shape = &variant.inputs[input];
    let token = shape.axes().iter().find(|axis| matches!(axis, Axis::Query | Axis::Key));
    let by_query = token == Some(&Axis::Query) && variant.source == Source::Cross;
    let rows = match (shape.axes().contains(&Axis::Batch), token) {
        (false, None) => None,
        (true, None) => Some((index, 1)),
        (true, Some(_)) if by_query => Some((of.first_query, of.queries)),
        (true, Some(_)) => Some((of.first_key, of.keys)),
        (false, Some(axis)) => return cut_axis(data, variant, input, *axis, of),
    };
    let others = shape.axes().iter().map(|axis| match axis {
        Axis::Len(len) => *len as usize,
        Axis::Head => variant.heads.query as usize,
        Axis::KvHead => variant.heads.kv as usize,
        Axis::Batch | Axis::Query | Axis::Key => 1,
    });
    let row: usize = others.product();
    let range =
        rows.map_or(0..data.len(), |(first, count)| first as usize * row..(first + count) as usize * row);
    match data {
        InputData::F32(data) => CapturedBuffer::F32(data[range].to_vec()),
        InputData::I32(data) => CapturedBuffer::I32(data[range].to_vec()),
        InputData::Bool(data) => CapturedBuffer::Bool(data[range].to_vec()),
    }
}

/// As [`cut_captured`], of an input that has an axis of tokens and none of sequences.
fn cut_axis(
    data: InputData<'_>,
    variant: &Variant<'_>,
    input: usize,
    token: Axis,
    of: &Sequence,
) -> CapturedBuffer {
    let lens = |axes: &[Axis]| -> usize {
        let len = |axis: &Axis| match axis {
            Axis::Len(len) => *len as usize,
            Axis::Head => variant.heads.query as usize,
            Axis::KvHead => variant.heads.kv as usize,
            Axis::Batch | Axis::Query | Axis::Key => panic!("one axis of tokens"),
        };
        axes.iter().map(len).product()
    };
    let axes = variant.inputs[input].axes();
    let at = axes.iter().position(|axis| *axis == token).expect("it is one of them");
    let (outer, inner) = (lens(&axes[..at]), lens(&axes[at + 1..]));
    let by_query = token == Axis::Query && variant.source == Source::Cross;
    let kept = if by_query { of.queries } else { of.keys } as usize * inner;
    fn rows<T: Copy>(data: &[T], outer: usize, kept: usize) -> Vec<T> {
        data.chunks((data.len() / outer).max(1)).flat_map(|row| &row[..kept]).copied().collect()
    }
    match data {
        InputData::F32(data) => CapturedBuffer::F32(rows(data, outer, kept)),
        InputData::I32(data) => CapturedBuffer::I32(rows(data, outer, kept)),
        InputData::Bool(data) => CapturedBuffer::Bool(rows(data, outer, kept)),
    }
}
