//! What a run is given, held against its variant and problem before anything is computed.

use core::iter::Peekable;
use core::slice;

use regard_engine::Engine;
use regard_engine::grid::Task;
use regard_engine::pack::MAX_DIM;
use regard_ir::cache::PageFormat;
use regard_ir::plan::Dtype;
use regard_ir::problem::{Problem, Sequence};
use regard_ir::variant::Variant;

use super::{Outputs, PartLen, Parts, RunError, Target};
use crate::cache::Caches;
use crate::view::View;

/// Whether sizes are those that the skeleton works with, and outputs fit variant and problem.
pub(super) fn check<E: Engine>(
    parts: &Parts<'_>,
    gate: Option<&View<'_>>,
    target: &Target<'_>,
) -> Result<(), RunError> {
    let Parts { variant, plan, problem, .. } = parts;
    let blocks = &plan.prefill;
    let heads = &variant.heads;
    check_tokens(variant, problem)?;
    let (dim, value_dim) = (heads.dim as usize, heads.value_dim as usize);
    match target {
        Target::Whole(_) if problem.part.is_some() => return Err(RunError::Partial),
        Target::Whole(outputs) => check_outputs((variant, plan.dtype), problem, gate, outputs)?,
        Target::Part(_) if gate.is_some() => return Err(RunError::GateOfPart),
        Target::Part(part) => {
            let (needed, found) = (PartLen::new(heads, problem), part.len());
            if needed != found {
                return Err(RunError::Part { needed, found });
            }
        }
    }
    let width = dim.max(value_dim);
    if width > MAX_DIM {
        return Err(RunError::TooWide { width, most: MAX_DIM });
    }
    let steps = blocks.key_block.checked_div(blocks.mask_step).unwrap_or(0);
    let whole = |a: u32, b: u32| a > 0 && b > 0 && a.is_multiple_of(b);
    let fits = whole(blocks.key_cell, blocks.key_block)
        && whole(blocks.key_block, blocks.mask_step)
        && whole(blocks.mask_step, E::KEY_STEP as u32)
        && steps <= u64::BITS
        && blocks.query_block > 0
        && blocks.channel_chain > 0;
    if !fits {
        return Err(RunError::Blocks(*blocks));
    }
    Ok(())
}

/// Whether there is one whole cache of its length for each sequence.
pub(crate) fn check_caches(
    caches: &dyn Caches,
    format: &PageFormat,
    (variant, problem): (&Variant<'_>, &Problem<'_>),
) -> Result<(), RunError> {
    let (page, rows, per_token) = (format.shape(variant), format.rows_of_token(variant), variant.per_token());
    let is_of = |i: usize| {
        let cache = caches.get(i);
        let is_as_long = cache.len == problem.sequence(i as u32).keys / per_token;
        is_as_long && cache.in_positions(rows).is_whole(&page)
    };
    let all = caches.count() == problem.batch as usize && (0..caches.count()).all(is_of);
    if all && problem.part.is_none() { Ok(()) } else { Err(RunError::Caches) }
}

/// Whether an engine computes a storage type.
pub(crate) fn check_storage<E: Engine>(dtype: Dtype) -> Result<(), RunError> {
    if E::STORAGE.contains(&dtype) { Ok(()) } else { Err(RunError::Storage { dtype }) }
}

pub(super) fn shape(
    tensor: &'static str,
    counts: [usize; 3],
    width: usize,
    expected: [usize; 4],
) -> Result<(), RunError> {
    let found = [counts[0], counts[1], counts[2], width];
    if found == expected { Ok(()) } else { Err(RunError::Shape { tensor, found, expected }) }
}

/// Whether a tensor is of one of some storage types, of which the first is told of where it is not.
pub(crate) fn is_stored(tensor: &'static str, found: Dtype, as_one_of: &[Dtype]) -> Result<(), RunError> {
    match as_one_of {
        [expected, ..] if !as_one_of.contains(&found) => {
            Err(RunError::Dtype { tensor, found, expected: *expected })
        }
        _ => Ok(()),
    }
}

/// Whether each sequence is of whole tokens.
pub(crate) fn check_tokens(variant: &Variant<'_>, problem: &Problem<'_>) -> Result<(), RunError> {
    let per_token = variant.per_token();
    let whole = |of: Sequence| {
        let Sequence { first_query, first_key, queries, keys, held, q_offset, .. } = of;
        [first_query, first_key, queries, keys, held.begin, held.end, q_offset.unsigned_abs()]
            .iter()
            .all(|n| n.is_multiple_of(per_token))
    };
    if per_token == 1 || (0..problem.batch).all(|sequence| whole(problem.sequence(sequence))) {
        Ok(())
    } else {
        Err(RunError::Tokens { per_token })
    }
}

/// Whether outputs, and the gate that they pass, are as variant and problem make them.
pub(crate) fn check_outputs(
    (variant, dtype): (&Variant<'_>, Dtype),
    problem: &Problem<'_>,
    gate: Option<&View<'_>>,
    outputs: &Outputs<'_>,
) -> Result<(), RunError> {
    let [batch, queries, _] = problem.extents().map(|n| n as usize);
    let queries = queries / variant.per_token() as usize;
    let (query_heads, value_dim) = (variant.heads.query as usize, variant.heads.value_dim as usize);
    let output_heads = variant.output_heads() as usize;
    shape("o", outputs.o.0.counts(), outputs.o.0.width(), [batch, output_heads, queries, value_dim])?;
    is_stored("o", outputs.o.0.dtype(), &[dtype])?;
    match (variant.output.gate, gate) {
        (None, None) => {}
        (Some(_), None) => return Err(RunError::Gate { wanted: true }),
        (None, Some(_)) => return Err(RunError::Gate { wanted: false }),
        (Some(gate), Some(values)) => {
            let expected = if gate.per_head { 1 } else { value_dim };
            shape("gate", values.counts(), values.width(), [batch, output_heads, queries, expected])?;
            is_stored("gate", values.dtype(), &[dtype, Dtype::F32])?;
        }
    }
    if let Some(lse) = &outputs.lse {
        if !variant.output.lse {
            return Err(RunError::NoLse);
        }
        shape("lse", lse.0.counts(), lse.0.width(), [batch, query_heads, queries, 1])?;
        is_stored("lse", lse.0.dtype(), &[Dtype::F32])?;
    }
    Ok(())
}

/// Whether lists of tasks, in their order, are all rows of the problem and no others: those of a sequence are in one of them, which
/// has so many key heads.
pub(crate) fn covers<const N: usize>(lists: &[(&[Task], u32); N], problem: &Problem<'_>) -> bool {
    let mut lists = lists.map(|(tasks, heads)| (tasks.iter().peekable(), heads));
    for sequence in 0..problem.batch {
        let queries = problem.sequence(sequence).queries;
        if queries == 0 {
            continue;
        }
        let is_in = |tasks: &mut Peekable<slice::Iter<'_, Task>>| {
            tasks.peek().is_some_and(|task| task.sequence == sequence)
        };
        let Some((tasks, heads)) =
            lists.iter_mut().find_map(|(tasks, heads)| is_in(tasks).then_some((tasks, *heads)))
        else {
            return false;
        };
        for kv_head in 0..heads {
            let mut row = 0;
            while row < queries {
                match tasks.next() {
                    Some(task)
                        if (task.sequence, task.kv_head, task.query_begin) == (sequence, kv_head, row)
                            && task.query_end > row =>
                    {
                        row = task.query_end;
                    }
                    _ => return false,
                }
            }
        }
    }
    lists.iter_mut().all(|(tasks, _)| tasks.next().is_none())
}
