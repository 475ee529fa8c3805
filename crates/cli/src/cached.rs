//! Keys and values in a cache, and calls on it.

use regard::{
    Cache, CacheLimits, Kernel, Outputs, Pool, Queries, RunError, SequenceId, Spec, Step, Tokens, View,
};
use regard_ir::inputs::InputData;
use regard_ir::problem::{OwnedProblem, Phase, Problem, ProblemError};
use regard_ir::variant::{Axis, InputShape, Source};
use regard_oracle::random::CapturedBuffer;

use crate::execute::run_failure;
use crate::failure::Failure;
use crate::storage::Storage;
use crate::verify::problem::Size;

/// The problem of a call on a cache: sequences of one length, packed as such calls have them.
///
/// # Errors
/// If lengths do not fit.
pub(crate) fn problem(spec: &Spec, phase: Phase, size: Size) -> Result<OwnedProblem, ProblemError> {
    let Size { batch, queries, keys } = size;
    // Told as a problem of sequences that are not packed tells it.
    Problem::prefill(spec.source, batch, queries, keys)?;
    let starts = |what, len: usize| -> Result<Vec<i32>, ProblemError> {
        let start = |index: usize| index.checked_mul(len).and_then(|start| i32::try_from(start).ok());
        let too_long = ProblemError::TooLong { what, len: batch.saturating_mul(len) };
        // The last first: no more is counted than fits.
        start(batch).ok_or(too_long)?;
        Ok((0..=batch).filter_map(start).collect())
    };
    let (cu_q, cu_k) = (starts("queries", queries)?, starts("keys", keys)?);
    let packed = Problem::packed(spec.source, &cu_q, &cu_k)?;
    Ok((&Problem { phase, ..packed }).into())
}

/// A cache with keys and values in it, and what calls on it work in.
pub(crate) struct Filled {
    /// The cache.
    pub(crate) cache: Cache,
    sequences: Vec<SequenceId>,
    step: Step,
}

impl Filled {
    /// Appends the keys and values of a problem that [`problem`] made, `rows` of each sequence at once, and makes what calls of
    /// so many threads need. `captured` are the tensors of the whole problem.
    ///
    /// # Errors
    /// If the library has no such cache, or a tensor does not fit.
    pub(crate) fn new<'r, T: Storage>(
        kernel: &Kernel,
        problem: &Problem<'_>,
        rows: impl Fn(usize) -> [View<'r, T>; 2],
        captured: &[InputData<'_>],
        threads: usize,
    ) -> Result<Self, Failure> {
        let spec = kernel.spec();
        let [batch, keys, queries] = [problem.batch, problem.keys, problem.queries].map(|n| n as usize);
        let limits = CacheLimits { at_once: queries, ..CacheLimits::new(batch, keys) };
        let refused = |error| Failure::Cache { spec: spec.name.clone(), error };
        let fail = |error| run_failure(spec, error);
        let mut cache = kernel.cache(limits).map_err(refused)?;
        let mut sequences = Vec::new();
        for index in 0..batch {
            let sequence = cache.open().map_err(|error| fail(RunError::Store(error)))?;
            sequences.push(sequence);
            let [k, v] = rows(index);
            let shapes = spec.inputs.shapes.iter().zip(captured);
            let own: Vec<_> = shapes.map(|(shape, data)| cut(*data, shape, spec, (index, keys))).collect();
            let own: Vec<_> = own.iter().map(CapturedBuffer::data).collect();
            kernel.append(&mut cache, sequence, Tokens { k, v, captured: &own }).map_err(fail)?;
        }
        let step = kernel.step(&cache, queries, threads).map_err(fail)?;
        Ok(Self { cache, sequences, step })
    }

    /// Attends queries, those of one sequence after those of the other.
    ///
    /// # Errors
    /// As [`Kernel::decode`].
    pub(crate) fn decode<T: Storage>(
        &mut self,
        kernel: &Kernel,
        pool: &Pool,
        queries: Queries<'_, T>,
        outputs: Outputs<'_, T>,
    ) -> Result<(), RunError> {
        let Self { cache, sequences, step } = self;
        kernel.decode(step, pool, cache, sequences, queries, outputs)
    }
}

/// What a captured tensor of sequences of `keys` tokens is to the tokens of one of them, without queries.
fn cut(
    data: InputData<'_>,
    shape: &InputShape,
    spec: &Spec,
    (index, keys): (usize, usize),
) -> CapturedBuffer {
    let axes = shape.axes();
    let token = axes.iter().find(|axis| matches!(axis, Axis::Query | Axis::Key));
    let rows = match (axes.contains(&Axis::Batch), token) {
        (_, Some(Axis::Query)) if spec.source == Source::Cross => Some((0, 0)),
        (false, _) => None,
        (true, None) => Some((index, 1)),
        (true, Some(_)) => Some((index * keys, keys)),
    };
    let others = axes.iter().map(|axis| match axis {
        Axis::Len(len) => *len as usize,
        Axis::Head => spec.heads.query as usize,
        Axis::KvHead => spec.heads.kv as usize,
        Axis::Batch | Axis::Query | Axis::Key => 1,
    });
    let row: usize = others.product();
    let range = rows.map_or(0..data.len(), |(first, count)| first * row..(first + count) * row);
    match data {
        InputData::F32(data) => CapturedBuffer::F32(data[range].to_vec()),
        InputData::I32(data) => CapturedBuffer::I32(data[range].to_vec()),
        InputData::Bool(data) => CapturedBuffer::Bool(data[range].to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_of_one_length_are_packed() {
        let spec = regard::shipped("causal").unwrap().spec;
        let made = |batch, queries, keys| problem(&spec, Phase::Few, Size { batch, queries, keys });
        let few = made(3, 2, 5).unwrap();
        let few = few.view();
        assert_eq!((few.phase, few.extents(), few.batch), (Phase::Few, [1, 6, 15], 3));
        let last = few.sequence(2);
        assert_eq!(
            (last.first_query, last.first_key, last.queries, last.keys, last.q_offset),
            (4, 10, 2, 5, 3)
        );
        let half = 1 << 30;
        assert_eq!(made(2, 1, half), Err(ProblemError::TooLong { what: "keys", len: 1 << 31 }));
        assert_eq!(made(1, 1, 1 << 31), Err(ProblemError::TooLong { what: "keys", len: 1 << 31 }));
        assert!(made(usize::MAX, 1, 1).is_err());
    }

    #[test]
    fn each_sequence_has_its_own_part_of_what_is_captured() {
        let mut spec = regard::shipped("causal").unwrap().spec;
        let ints: Vec<i32> = (0..12).collect();
        let part = |spec: &Spec, axes: &[Axis]| {
            let shape = InputShape::new(regard_ir::variant::InputType::I32, axes);
            match cut(InputData::I32(&ints), &shape, spec, (1, 2)) {
                CapturedBuffer::I32(part) => part,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(part(&spec, &[Axis::Batch]), [1]);
        assert_eq!(part(&spec, &[Axis::Batch, Axis::Len(3)]), [3, 4, 5]);
        assert_eq!(part(&spec, &[Axis::Batch, Axis::Key]), [2, 3]);
        assert_eq!(part(&spec, &[Axis::Batch, Axis::Query, Axis::Len(2)]), [4, 5, 6, 7]);
        assert_eq!(part(&spec, &[Axis::Key]), ints);
        spec.source = Source::Cross;
        assert_eq!(part(&spec, &[Axis::Batch, Axis::Query]), [0; 0]);
    }
}
