//! Cases whose keys and values are cached first.

use regard::{
    Cache, CacheLimits, InputData, Kernel, Queries, RunError, SequenceId, Solo, Step, Threads, Tokens,
    Workspace,
};
use regard_ir::operands::Rows;
use regard_ir::problem::MAX_FEW;
use regard_oracle::random::CapturedBuffer;
use regard_testkit::{Case, Inputs, Outputs};

use crate::views::{places, views};
use crate::{cut, cut_captured};

/// The keys and values of a case, one sequence of a cache for each of its sequences.
#[derive(Debug)]
pub struct Filled {
    /// The cache.
    pub cache: Cache,
    /// Its sequences, in the case's order.
    pub sequences: Vec<SequenceId>,
}

/// Room for the sequences of a case.
pub fn limits(case: &Case<'_>) -> CacheLimits {
    CacheLimits {
        at_once: case.problem.queries.max(1) as usize,
        ..CacheLimits::new(case.problem.batch.max(1) as usize, case.problem.keys.max(1) as usize)
    }
}

/// Appends the keys and values of a case to sequences of a cache of its own, each in pieces of so many tokens.
///
/// # Errors
/// As appending does.
///
/// # Panics
/// If there is no room.
pub fn fill(kernel: &Kernel, case: &Case<'_>, inputs: &Inputs, piece: usize) -> Result<Filled, RunError> {
    let mut cache = kernel.cache(limits(case)).expect("a case is small");
    let mut sequences = Vec::new();
    // Of tokens with lookahead keys no more are appended at once.
    let piece = if inputs.of_lookahead { piece.min(MAX_FEW as usize) } else { piece };
    for index in 0..case.problem.batch {
        let sequence = cache.open().expect("there is room for each");
        sequences.push(sequence);
        let keys = case.problem.sequence(index).keys as usize;
        for begin in (0..keys).step_by(piece) {
            append(kernel, (case, inputs), (&mut cache, sequence), index, begin..keys.min(begin + piece))?;
        }
    }
    Ok(Filled { cache, sequences })
}

/// Appends all keys and values of a case of one sequence at once, with its captured tensors as they are.
///
/// # Errors
/// As appending does.
///
/// # Panics
/// If there is no room, or the case has more sequences.
pub fn fill_at_once(kernel: &Kernel, case: &Case<'_>, inputs: &Inputs) -> Result<Filled, RunError> {
    assert_eq!(case.problem.batch, 1, "one sequence");
    let mut cache = kernel.cache(limits(case)).expect("a case is small");
    let sequence = cache.open().expect("there is room for one");
    let (keys, captured) = (case.problem.keys as usize, inputs.captured());
    let kv = views(inputs, &captured).kv.sequence(0).tokens(0..keys);
    kernel.append(&mut cache, sequence, Tokens { kv, captured: &captured })?;
    Ok(Filled { cache, sequences: vec![sequence] })
}

/// Appends some keys and values of a sequence of a case to a sequence of a cache.
///
/// # Errors
/// As appending does.
pub fn append(
    kernel: &Kernel,
    of: (&Case<'_>, &Inputs),
    to: (&mut Cache, SequenceId),
    index: u32,
    tokens: core::ops::Range<usize>,
) -> Result<(), RunError> {
    append_with((kernel, &Solo), of, to, index, tokens)
}

/// The same on threads.
///
/// # Errors
/// As appending does.
pub fn append_with(
    (kernel, threads): (&Kernel, &dyn Threads),
    (case, inputs): (&Case<'_>, &Inputs),
    (cache, sequence): (&mut Cache, SequenceId),
    index: u32,
    tokens: core::ops::Range<usize>,
) -> Result<(), RunError> {
    let of = case.problem.sequence(index);
    let up_to = regard_ir::problem::Sequence { keys: tokens.end as u32, ..of };
    let captured: Vec<CapturedBuffer> = inputs
        .captured()
        .iter()
        .enumerate()
        .map(|(input, data)| cut_captured(*data, &case.variant, input, index, &up_to))
        .collect();
    let captured: Vec<InputData<'_>> = captured.iter().map(CapturedBuffer::data).collect();
    let first = of.first_key as usize;
    let rows = first + tokens.start..first + tokens.end;
    let kv = views(inputs, &captured).kv.sequence(of.batch as usize).tokens(rows);
    kernel.append_with(threads, cache, sequence, Tokens { kv, captured: &captured })
}

/// Attends the queries of a case to its cached keys and values.
///
/// # Errors
/// As [`Kernel::decode`].
pub fn decode(
    kernel: &Kernel,
    case: &Case<'_>,
    inputs: &Inputs,
    filled: &Filled,
    (step, threads): (&mut Step, &dyn Threads),
) -> Result<Outputs, RunError> {
    let mut outputs = case.outputs();
    let Filled { cache, sequences } = filled;
    let captured = inputs.captured();
    let queries = queries(inputs, &captured);
    kernel.decode(step, threads, cache, sequences, queries, places(&mut outputs))?;
    Ok(outputs)
}

fn queries<'a>(inputs: &'a Inputs, captured: &'a [InputData<'a>]) -> Queries<'a> {
    let whole = views(inputs, captured);
    Queries { q: whole.q, captured, gate: whole.gate }
}

/// Runs a case as a prefill on its cached keys and values.
///
/// # Errors
/// As [`Kernel::prefill`].
pub fn prefill(
    kernel: &Kernel,
    case: &Case<'_>,
    inputs: &Inputs,
    filled: &Filled,
    threads: &dyn Threads,
) -> Result<Outputs, RunError> {
    let mut outputs = case.outputs();
    let captured = inputs.captured();
    let schedule = kernel.schedule(&case.problem, &captured, threads.count()).expect("a case is small");
    let memory = &mut Workspace::new(&schedule);
    let on = (&filled.cache, &filled.sequences[..]);
    let (queries, to) = (queries(inputs, &captured), places(&mut outputs));
    kernel.prefill(&schedule, threads, on, queries, to, memory)?;
    Ok(outputs)
}

/// Has a sequence of a cache take the tokens of a case and attends them.
///
/// # Errors
/// As [`Kernel::prefill_next`].
pub fn extend(
    kernel: &Kernel,
    case: &Case<'_>,
    inputs: &Inputs,
    cache: (&mut Cache, SequenceId),
    threads: &dyn Threads,
) -> Result<Outputs, RunError> {
    let mut outputs = case.outputs();
    let captured = inputs.captured();
    let tokens = case.problem.queries as usize;
    let schedule = kernel.schedule_next(cache.0, cache.1, tokens, &captured, threads.count())?;
    let memory = &mut Workspace::new(&schedule);
    let (given, to) = (views(inputs, &captured), places(&mut outputs));
    kernel.prefill_next(&schedule, threads, cache, given, to, memory)?;
    Ok(outputs)
}

/// Has sequences of a cache take the few tokens of a packed case, as many each, and attends them.
///
/// # Errors
/// As [`Kernel::decode_next`].
pub fn step(
    kernel: &Kernel,
    case: &Case<'_>,
    inputs: &Inputs,
    cache: (&mut Cache, &[SequenceId]),
    (step, threads): (&mut Step, &dyn Threads),
) -> Result<Outputs, RunError> {
    let mut outputs = case.outputs();
    let captured = inputs.captured();
    kernel.decode_next(step, threads, cache, views(inputs, &captured), places(&mut outputs))?;
    Ok(outputs)
}

/// One sequence of a case as the inputs of a case of its own.
pub fn sequence_of(case: &Case<'_>, inputs: &Inputs, index: u32) -> Inputs {
    let of = case.problem.sequence(index);
    let rows = |first: u32, count: u32| first as usize..(first + count) as usize;
    let captured = inputs.captured();
    let captured = captured.iter().enumerate();
    Inputs {
        captured: captured
            .map(|(input, data)| cut_captured(*data, &case.variant, input, index, &of))
            .collect(),
        gate: inputs
            .gate
            .as_ref()
            .map(|gate| cut(&gate.view(), case.dtype, rows(of.first_query, of.queries))),
        ..inputs.map(&case.variant, |of_rows, tensor| match of_rows {
            Rows::Queries => cut(&tensor.view(), case.dtype, rows(of.first_query, of.queries)),
            Rows::Keys => cut(&tensor.view(), case.dtype, rows(of.first_key, of.keys)),
            Rows::Matrix(_) => tensor.clone(),
        })
    }
}
