//! Keys and values in a cache, and calls on it.

use std::ops::Range;

use regard::{
    Cache, CacheLimits, Kernel, KeyRows, Outputs, Pool, Queries, RunError, SequenceId, Spec, Step, Tokens,
};
use regard_ir::inputs::InputData;
use regard_ir::operands::Rows;
use regard_ir::problem::{MAX_FEW, OwnedProblem, Phase, Problem, ProblemError};
use regard_ir::spec::Mechanism;
use regard_ir::variant::{Axis, InputShape, Source};
use regard_oracle::random::CapturedBuffer;

use crate::execute::run_failure;
use crate::failure::Failure;
use crate::tensors::signature::Bound;
use crate::tensors::stored::{CapturedElements, StoredElements};
use crate::verify::problem::Size;

/// Queries of each sequence in a call of few that nobody gave a number of.
const FEW: usize = 8;

/// The queries of each sequence of a call on a cache, where `asked` are asked for, if any.
///
/// # Errors
/// If the phase has not so many.
pub(crate) fn queries(phase: Phase, asked: Option<usize>) -> Result<usize, Failure> {
    let (default, may_be) = match phase {
        Phase::Decode => (1, 1..=1),
        Phase::Few | Phase::Prefill => (FEW, 2..=MAX_FEW as usize),
    };
    let found = asked.unwrap_or(default);
    if may_be.contains(&found) { Ok(found) } else { Err(Failure::Queries { phase, found }) }
}

/// The lengths of a call on a cache, of sequences of one length.
///
/// # Errors
/// If they do not fit, those of all sequences together included, as such calls have them packed.
pub(crate) fn lengths(spec: &Spec, phase: Phase, size: Size) -> Result<Problem<'static>, ProblemError> {
    let Size { batch, queries, keys } = size;
    let problem = Problem::prefill(spec.source, batch, queries, keys)?;
    for (what, len) in [("queries", queries), ("keys", keys)] {
        let len = batch.saturating_mul(len);
        i32::try_from(len).map_err(|_| ProblemError::TooLong { what, len })?;
    }
    Ok(Problem { phase, ..problem })
}

/// The problem of a call on a cache: sequences of one length, packed as such calls have them.
///
/// # Errors
/// As [`lengths`].
pub(crate) fn problem(spec: &Spec, phase: Phase, size: Size) -> Result<OwnedProblem, ProblemError> {
    let Size { batch, queries, keys } = size;
    lengths(spec, phase, size)?;
    // No more is counted than fits.
    let starts = |len: usize| -> Vec<i32> { (0..=batch).map(|index| (index * len) as i32).collect() };
    let (cu_q, cu_k) = (starts(queries), starts(keys));
    let packed = Problem::packed(spec.source, &cu_q, &cu_k)?;
    Ok((&Problem { phase, ..packed }).into())
}

/// Whether a spec has states in place of a cache.
pub(crate) fn has_states(spec: &Spec) -> bool {
    matches!(spec.mechanism, Mechanism::Recurrence(_))
}

/// Refuses a spec that has.
///
/// # Errors
/// If it has.
pub(crate) fn refuse_states(spec: &Spec) -> Result<(), Failure> {
    if has_states(spec) { Err(Failure::NoCache { spec: spec.name.clone() }) } else { Ok(()) }
}

/// What goes into a cache.
pub(crate) struct Contents<'a, R> {
    /// Keys and values of the tokens that all sequences begin with, if any: the first is filled with them, and the others are
    /// forked from it.
    pub(crate) shared: KeyRows<'a>,
    /// Gives those of a sequence's other tokens.
    pub(crate) own: R,
    /// The captured tensors of the whole problem.
    pub(crate) captured: &'a [InputData<'a>],
}

/// A cache with keys and values in it, and what calls on it work in.
pub(crate) struct Filled {
    /// The cache.
    pub(crate) cache: Cache,
    sequences: Vec<SequenceId>,
    step: Step,
}

impl Filled {
    /// Appends the keys and values of a problem that [`problem`] made and makes what calls of so many threads need.
    ///
    /// # Errors
    /// If the library has no such cache, or a tensor does not fit.
    pub(crate) fn new<'r, R: Fn(usize) -> KeyRows<'r>>(
        kernel: &Kernel,
        problem: &Problem<'_>,
        contents: Contents<'r, R>,
        threads: usize,
    ) -> Result<Self, Failure> {
        let Contents { shared: common, own, captured } = contents;
        let [_, shared] = common.counts();
        let spec = kernel.spec();
        let [batch, keys, queries] = [problem.batch, problem.keys, problem.queries].map(|n| n as usize);
        let all_tokens = (shared > 0).then(|| all_tokens(batch, keys, shared, kernel.plan().cache.tokens));
        let limits = CacheLimits { at_once: queries, all_tokens, ..CacheLimits::new(batch, keys) };
        let refused = |error| Failure::Cache { spec: spec.name.clone(), error };
        let fail = |error| run_failure(spec, error);
        let mut cache = kernel.cache(limits).map_err(refused)?;
        let mut sequences: Vec<SequenceId> = Vec::new();
        let append = |cache: &mut Cache, sequence, of: Part, kv: KeyRows<'r>| {
            let shapes = spec.inputs.shapes.iter().zip(captured);
            let captured: Vec<_> = shapes.map(|(shape, data)| of.cut(*data, shape, spec)).collect();
            let captured: Vec<_> = captured.iter().map(CapturedBuffer::data).collect();
            kernel.append(cache, sequence, Tokens { kv, captured: &captured }).map_err(fail)
        };
        // Lookahead keys are taught by as many tokens at a time as may be taken back.
        let piece = match spec.mechanism {
            Mechanism::Lookahead(_) => MAX_FEW as usize,
            _ => usize::MAX,
        };
        for index in 0..batch {
            let opened = match sequences.first() {
                Some(&first) if shared > 0 => cache.fork(first),
                _ => cache.open(),
            };
            let sequence = opened.map_err(|error| fail(RunError::Store(error)))?;
            if index == 0 && shared > 0 {
                append(&mut cache, sequence, Part { batch, keys, index, tokens: 0..shared }, common)?;
            }
            sequences.push(sequence);
        }
        for (index, &sequence) in sequences.iter().enumerate().filter(|_| shared < keys) {
            let rows = own(index);
            for begin in (0..keys - shared).step_by(piece) {
                let end = (keys - shared).min(begin.saturating_add(piece));
                let of = Part { batch, keys, index, tokens: 0..shared + end };
                append(&mut cache, sequence, of, rows.tokens(begin..end))?;
            }
        }
        let step = kernel.step(&cache, queries, threads).map_err(fail)?;
        Ok(Self { cache, sequences, step })
    }

    /// Attends queries, those of one sequence after those of the other.
    ///
    /// # Errors
    /// As [`Kernel::decode`].
    pub(crate) fn decode(
        &mut self,
        kernel: &Kernel,
        pool: &Pool,
        queries: Queries<'_>,
        outputs: Outputs<'_>,
    ) -> Result<(), RunError> {
        let Self { cache, sequences, step } = self;
        kernel.decode(step, pool, cache, sequences, queries, outputs)
    }
}

/// Tokens that a paged cache must have room for, so that whole pages fit: what is shared once, and of each sequence what follows
/// the last page that is shared in full.
fn all_tokens(batch: usize, keys: usize, shared: usize, page_tokens: u32) -> usize {
    let page = page_tokens.max(1) as usize;
    let common = if shared < keys { shared / page } else { shared.div_ceil(page) };
    let own = keys.div_ceil(page) - common;
    own.saturating_mul(batch).saturating_add(common).saturating_mul(page)
}

/// Tokens of one of some sequences of one length.
pub(crate) struct Part {
    /// How many sequences there are.
    pub(crate) batch: usize,
    /// Tokens of each.
    pub(crate) keys: usize,
    /// Which sequence.
    pub(crate) index: usize,
    /// Which of its tokens.
    pub(crate) tokens: Range<usize>,
}

impl Part {
    /// What a captured tensor of all sequences is to these tokens, without queries.
    pub(crate) fn cut(&self, data: InputData<'_>, shape: &InputShape, spec: &Spec) -> CapturedBuffer {
        let axes = self.axes(shape, spec);
        match data {
            InputData::F32(data) => CapturedBuffer::F32(cut(data, &axes)),
            InputData::I32(data) => CapturedBuffer::I32(cut(data, &axes)),
            InputData::Bool(data) => CapturedBuffer::Bool(cut(data, &axes)),
        }
    }

    /// Length of each axis of a tensor as packed sequences have them, and which part of it is to be had.
    fn axes(&self, shape: &InputShape, spec: &Spec) -> Vec<(usize, Range<usize>)> {
        let Self { batch, keys, index, ref tokens } = *self;
        let is_query = |axis: Axis| axis == Axis::Query && spec.source == Source::Cross;
        let axis = |axis: Axis| match axis {
            // As long as the longest sequence; how many queries that is makes no difference.
            axis if is_query(axis) => (1, 0..0),
            Axis::Query | Axis::Key => (keys, tokens.clone()),
            Axis::Batch => (batch, index..index + 1),
            Axis::Head => (spec.heads.query as usize, 0..spec.heads.query as usize),
            Axis::KvHead => (spec.heads.kv as usize, 0..spec.heads.kv as usize),
            Axis::Len(len) => (len as usize, 0..len as usize),
        };
        let axes = shape.axes();
        let token = packed_axis(shape);
        let Some(token) = token else { return axes.iter().map(|&at| axis(at)).collect() };
        let packed = match is_query(axes[token]) {
            true => (1, 0..0),
            false => (batch * keys, index * keys + tokens.start..index * keys + tokens.end),
        };
        let others = axes.iter().enumerate().filter(|&(at, of)| at != token && *of != Axis::Batch);
        [packed].into_iter().chain(others.map(|(_, &of)| axis(of))).collect()
    }
}

/// The axis of a captured tensor along which the tokens of sequences lie one after the other.
fn packed_axis(shape: &InputShape) -> Option<usize> {
    let token = shape.axes().iter().position(|axis| matches!(axis, Axis::Query | Axis::Key));
    token.filter(|_| shape.axes().contains(&Axis::Batch))
}

/// A part of a dense tensor: of each axis its length and a range.
fn cut<T: Copy>(data: &[T], axes: &[(usize, Range<usize>)]) -> Vec<T> {
    let Some(((len, range), rest)) = axes.split_first() else { return data.to_vec() };
    let step = data.len() / (*len).max(1);
    match rest {
        [] => data[range.clone()].to_vec(),
        _ => range.clone().flat_map(|at| cut(&data[at * step..(at + 1) * step], rest)).collect(),
    }
}

/// Makes the first tokens of all sequences of a problem those of the first: keys, values, and captured tensors along tokens.
pub(crate) fn share(bound: &mut Bound<'_>, spec: &Spec, keys: usize, shared: usize) {
    let tokens = bound.problem.view().all_keys() as usize;
    let of = Common { tokens, keys, shared };
    let kinds: Vec<Rows> = spec.variant().operands().map(|operand| operand.rows).collect();
    let of_keys = bound.operands.iter_mut().zip(kinds).filter(|(_, rows)| *rows == Rows::Keys);
    for (stored, _) in of_keys {
        match &mut stored.elements {
            StoredElements::F32(data) => of.repeat(data.to_mut()),
            StoredElements::F16(data) => of.repeat(data.to_mut()),
            StoredElements::Bf16(data) => of.repeat(data.to_mut()),
        }
    }
    let is_along = |shape: &InputShape| {
        packed_axis(shape).is_some_and(|at| shape.axes()[at] == Axis::Key || spec.source != Source::Cross)
    };
    let captured = bound.captured.iter_mut().zip(&spec.inputs.shapes);
    for (data, _) in captured.filter(|(_, shape)| is_along(shape)) {
        match data {
            CapturedElements::F32(data) => of.repeat(data.to_mut()),
            CapturedElements::I32(data) => of.repeat(data.to_mut()),
            CapturedElements::Bool(data) => of.repeat(data.to_mut()),
        }
    }
}

/// Sequences that begin with the same tokens.
struct Common {
    /// Tokens of all sequences.
    tokens: usize,
    /// Tokens of each.
    keys: usize,
    shared: usize,
}

impl Common {
    /// Copies what the first sequence begins with over what each further one begins with: rows of packed tokens.
    fn repeat<T: Copy>(&self, rows: &mut [T]) {
        let row = rows.len() / self.tokens.max(1);
        let sequence = self.keys * row;
        for start in (sequence..rows.len()).step_by(sequence.max(1)) {
            rows.copy_within(..self.shared * row, start);
        }
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
        let part = |spec: &Spec, axes: &[Axis], len: i32, tokens| {
            let shape = InputShape::new(regard_ir::variant::InputType::I32, axes);
            let ints: Vec<i32> = (0..len).collect();
            match (Part { batch: 3, keys: 2, index: 1, tokens: 0..tokens }).cut(
                InputData::I32(&ints),
                &shape,
                spec,
            ) {
                CapturedBuffer::I32(part) => part,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(part(&spec, &[Axis::Batch], 3, 2), [1]);
        assert_eq!(part(&spec, &[Axis::Len(2), Axis::Batch], 6, 2), [1, 4]);
        assert_eq!(part(&spec, &[Axis::Batch, Axis::Len(3)], 9, 2), [3, 4, 5]);
        assert_eq!(part(&spec, &[Axis::Batch, Axis::Key], 6, 2), [2, 3]);
        assert_eq!(part(&spec, &[Axis::Batch, Axis::Key], 6, 1), [2]);
        assert_eq!(part(&spec, &[Axis::Batch, Axis::Query, Axis::Len(2)], 12, 2), [4, 5, 6, 7]);
        assert_eq!(part(&spec, &[Axis::Key], 2, 2), [0, 1]);
        assert_eq!(part(&spec, &[Axis::Len(2), Axis::Key], 4, 1), [0, 2]);
        assert_eq!(part(&spec, &[Axis::Query, Axis::Key], 4, 2), [0, 1, 2, 3]);
        // Six queries by the two keys of the longest sequence.
        assert_eq!(part(&spec, &[Axis::Batch, Axis::Query, Axis::Key], 12, 1), [4]);
        spec.source = Source::Cross;
        assert_eq!(part(&spec, &[Axis::Batch, Axis::Query], 6, 2), [0; 0]);
        assert_eq!(part(&spec, &[Axis::Query, Axis::Len(2)], 2, 2), [0; 0]);
    }

    #[test]
    fn pages_that_are_shared_in_full_are_taken_once() {
        // Of pages of 4 tokens: 2 in common, and of each sequence the one that 9 and 10 lie in.
        assert_eq!(all_tokens(3, 10, 8, 4), 4 * (2 + 3));
        assert_eq!(all_tokens(3, 10, 7, 4), 4 * (1 + 3 * 2));
        assert_eq!(all_tokens(3, 10, 10, 4), 4 * 3);
        assert_eq!(all_tokens(usize::MAX, 10, 3, 4), usize::MAX);
    }

    #[test]
    fn sequences_begin_alike_and_go_on_by_themselves() {
        let mut rows: Vec<i32> = (0..18).collect();
        Common { tokens: 9, keys: 3, shared: 2 }.repeat(&mut rows);
        assert_eq!(rows, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 10, 11, 0, 1, 2, 3, 16, 17]);
        Common { tokens: 0, keys: 0, shared: 0 }.repeat(&mut rows[..0]);
    }
}
