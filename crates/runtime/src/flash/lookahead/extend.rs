//! Lookahead keys of a cache, extended by a prompt or a piece of one.

use regard_engine::Engine;
use regard_engine::threads::Threads;
use regard_ir::problem::Problem;

use super::super::check::{check_caches, check_storage};
use super::super::keys::Source;
use super::super::{Feed, Inputs, Outputs, Parts, RunError, Workspace, run_plain};
use super::{Given, check};
use crate::cache::{CachedSequence, CachedSequenceMut, Caches};
use crate::code::Code;
use crate::operands::{self, KeyRows, LookaheadKeys, QueryRows};
use crate::rows::Tensor;
use crate::split;

/// As [`run_lookahead`](super::super::run_lookahead), of tokens that are appended to a sequence of a cache first: all its keys learn
/// from them for good. The problem's queries are these tokens, and its keys all that the sequence has then.
///
/// `floats` are as many as [`append_len`](crate::split::append_len) says of one thread or more.
///
/// # Errors
/// As `run_lookahead` and [`append`](crate::split::append). After [`RunError::Index`] the sequence's lookahead keys mean nothing.
pub fn extend_lookahead<E: Engine>(
    engine: E,
    parts: Parts<'_>,
    code: &dyn Code<E::Lanes>,
    (inputs, outputs): (Inputs<'_>, Outputs<'_>),
    (cache, floats): (CachedSequenceMut<'_>, &mut [f32]),
    threads: &dyn Threads,
    memory: Workspace<'_>,
) -> Result<(), RunError> {
    check_storage::<E>(parts.plan.dtype)?;
    let Inputs { q, kv, captured, gate } = inputs;
    let Parts { variant, plan, problem, .. } = parts;
    operands::check((variant, plan.dtype), problem, Some(&q), None)?;
    let (QueryRows::Plain(q), KeyRows::Lookahead(LookaheadKeys { k_u, v_u, .. })) = (q, kv) else {
        return Err(RunError::Mechanism);
    };
    let first = problem.q_offset;
    let whole = problem.packed.is_none() && problem.batch == 1 && first >= 0;
    if !whole || first as i64 + problem.queries as i64 != problem.keys as i64 {
        return Err(RunError::QueryForEachKey);
    }
    let tokens = split::Tokens { kv, captured };
    let appended = problem.partial(first as usize..problem.keys as usize).map_err(|_| RunError::Caches)?;
    let appended = Problem { queries: 0, ..appended };
    let CachedSequenceMut { memory: words, pages, learned } = cache;
    let mut learned = learned.ok_or(RunError::Mechanism)?;
    let to = CachedSequenceMut { memory: &mut *words, pages, learned: Some(learned.reborrow(false)) };
    split::append(engine, (variant, plan, &appended), code, tokens, to, threads, floats)?;
    let page = plan.cache.shape(variant);
    let (len, written) = (problem.keys, problem.keys);
    let caches = &Only(CachedSequence { memory: words, pages, len, written });
    check_caches(caches, &plan.cache, (variant, problem))?;
    let u = learned.rows(problem.keys as usize, variant.heads.dim as usize).map_err(RunError::Output)?;
    check(&parts, &u, first)?;
    let lookahead = Some((Given { q_u: None, k_u, v_u }, u));
    let feed = Feed { q: Tensor::One(q), captured, gate, source: Source::Cached { caches, page }, lookahead };
    run_plain(engine, parts, code, feed, outputs.into(), threads, memory)?;
    *learned.taught = problem.keys;
    Ok(())
}

/// The cache of one sequence.
struct Only<'a>(CachedSequence<'a>);

impl Caches for Only<'_> {
    fn count(&self) -> usize {
        1
    }

    fn get(&self, _: usize) -> CachedSequence<'_> {
        self.0
    }
}
