//! What a call on a cache does: a few queries of each sequence, which are its last tokens, over all its keys.

use std::io::Write;
use std::time::Instant;

use regard::{CacheLimits, CacheSize, CachedPrediction, Kernel, PlanReport, Planned, Problem};
use regard_ir::cache::PageFormat;
use regard_ir::plan::SplitOverview;
use serde::Serialize;

use super::{Aside, Made, schedule_failure};
use crate::args::PlanArgs;
use crate::cached;
use crate::failure::Failure;
use crate::memory::Bytes;
use crate::source;
use crate::timing::Seconds;
use crate::verify::problem::Size;

/// What is printed, as JSON has it.
#[derive(Serialize)]
struct Shown<'a> {
    plan: &'a PlanReport,
    problem: Problem<'static>,
    call: SplitOverview,
    cache: Cache,
    /// The time that it will take, by the rates that the plan's machine has.
    predicted: Option<CachedPrediction>,
    #[serde(flatten)]
    aside: Aside<'a>,
    plan_s: f64,
    call_s: f64,
}

/// The cache that the call is on.
#[derive(Serialize)]
struct Cache {
    layout: &'static str,
    /// Tokens of a page, and how keys and values are stored.
    page: PageFormat,
    /// Tokens of each sequence that it holds at once, in whole pages.
    held_tokens: usize,
    /// Of all its pages.
    bytes: usize,
}

/// Prints the plan, and what a call on a cache does.
///
/// # Errors
/// If spec, machine or flags do not make a plan, or there is no such cache.
pub(super) fn plan(args: &PlanArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let size = size(args)?;
    let spec = source::spec(&args.spec)?;
    cached::refuse_states(&spec)?;
    let problem = cached::lengths(&spec, args.phase, size)?;
    let made = Made::new(args, &spec)?;
    let Made { planned, threads, .. } = &made;
    if spec.cache.file && size.batch != 1 {
        return Err(Failure::FileSequences { spec: spec.name, batch: size.batch });
    }
    let limits = CacheLimits { at_once: size.queries, ..CacheLimits::new(size.batch, size.keys) };
    let cache =
        planned.cache_size(limits).map_err(|error| Failure::Cache { spec: spec.name.clone(), error })?;

    let start = Instant::now();
    let call = planned.call(&problem, None, *threads).map_err(|error| schedule_failure(&spec, error))?;
    let call_s = start.elapsed().as_secs_f64();
    let CacheSize { held_tokens, bytes, .. } = cache;
    let shown = Shown {
        plan: planned.report(),
        problem,
        call,
        cache: Cache { layout: spec.cache.layout.name(), page: planned.plan().cache, held_tokens, bytes },
        predicted: planned.predict_call(&call),
        aside: made.aside(workspace_bytes(planned, &problem, &cache, *threads)),
        plan_s: made.plan_s,
        call_s,
    };
    let mixed = planned.plan().cache.mixed;
    let pseudo_heads = planned.variant().pseudo().map(|pseudo| PseudoHeads { count: pseudo.heads, mixed });
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&shown)?)?;
        return Ok(());
    }
    text(&shown, pseudo_heads, out)
}

/// The size that is asked for.
fn size(args: &PlanArgs) -> Result<Size, Failure> {
    let phase = args.phase;
    if let Some(found) = args.offset.q_offset {
        return Err(Failure::Offset { phase, found });
    }
    let queries = cached::queries(phase, args.q)?;
    let expects = "how many keys of each sequence are cached";
    let keys = args.k.ok_or(Failure::NoLength { flag: "--k", phase, expects })?;
    Ok(Size { batch: args.batch, queries, keys })
}

/// Workspace of a call here; `None` where this processor cannot run the plan.
fn workspace_bytes(
    planned: &Planned,
    problem: &Problem<'_>,
    cache: &CacheSize,
    threads: usize,
) -> Option<usize> {
    Kernel::build(planned.clone()).ok()?.step_bytes(problem, cache, threads).ok()
}

/// What heads are mixed into.
#[derive(Clone, Copy)]
struct PseudoHeads {
    /// How many of a head.
    count: u32,
    /// Whether they are before they are cached, so that each head has keys of its own there.
    mixed: bool,
}

/// As a person reads it; of heads that are mixed into pseudo-heads, these are given.
fn text(shown: &Shown<'_>, pseudo_heads: Option<PseudoHeads>, out: &mut dyn Write) -> Result<(), Failure> {
    let Problem { phase, batch, queries, keys, q_offset, packed: _, part: _ } = shown.problem;
    let plan = &shown.plan.plan;
    writeln!(out, "{}", shown.plan)?;
    writeln!(out, "call of {}: {batch}x{queries}x{keys}, first query at position {q_offset}", phase.name())?;
    let heads = &shown.plan.heads;
    let SplitOverview { rows, live_cells, cells, chunks, passes, read_bytes, threads, imbalance, .. } =
        shown.call;
    let counted = |n: u32, one, more| format!("{n} {}", if n == 1 { one } else { more });
    let asked = counted(queries, "query", "queries");
    match pseudo_heads {
        None => {
            let group = counted(heads.group(), "query head", "query heads");
            writeln!(out, "rows      = {rows} of a pass: {asked} × {group} of a key head")?;
        }
        Some(PseudoHeads { count, mixed: true }) => {
            writeln!(out, "rows      = {rows} of a pass: {asked} × {count} pseudo-heads of a head")?;
        }
        Some(PseudoHeads { count, mixed: false }) => {
            let all = counted(heads.query, "head", "heads");
            writeln!(out, "rows      = {rows} of a pass: {asked} × {count} pseudo-heads of {all}")?;
        }
    }
    let whose = match batch {
        0 | 1 => String::new(),
        _ if live_cells.is_multiple_of(batch.into()) => {
            format!(", {} of each sequence", live_cells / u64::from(batch))
        }
        _ => format!(", of {batch} sequences"),
    };
    writeln!(
        out,
        "cells     = {live_cells} of {cells} live{whose}; each of {} keys in {}",
        plan.decode.key_cell,
        counted(chunks, "chunk", "chunks")
    )?;
    match pseudo_heads {
        None => {
            let heads = counted(heads.kv, "key head", "key heads");
            writeln!(out, "passes    = {passes}: live cells × {heads}")?;
        }
        Some(PseudoHeads { mixed: true, .. }) => {
            let heads = counted(heads.query, "head", "heads");
            writeln!(out, "passes    = {passes}: live cells × {heads}")?;
        }
        Some(_) => writeln!(out, "passes    = {passes}: live cells, each of all heads at once")?,
    }
    writeln!(
        out,
        "imbalance = {:.1} % above the average for the busiest of {}",
        100.0 * imbalance,
        counted(threads, "thread", "threads")
    )?;
    let Cache { layout, page, held_tokens, bytes } = &shown.cache;
    let stored = match (page.k.name(), page.v.name()) {
        (k, v) if k == v => format!("keys and values as {k}"),
        (k, v) => format!("keys as {k}, values as {v}"),
    };
    writeln!(
        out,
        "cache     = {}, {layout}: room for {held_tokens} tokens of each sequence, {stored}",
        Bytes(*bytes as u128)
    )?;
    writeln!(out, "reads     = {} of keys and values", Bytes(read_bytes.into()))?;
    if let Some(predicted) = &shown.predicted {
        writeln!(
            out,
            "predicted = {}, from {} rates; bound by {}: reads take {}, arithmetic {}",
            Seconds(predicted.seconds),
            predicted.rates.name(),
            predicted.bound.name(),
            Seconds(predicted.reading_s),
            Seconds(predicted.arithmetic_s())
        )?;
    }
    shown.aside.text(plan.isa, out)?;
    writeln!(out, "planned in {}, looked at in {}", Seconds(shown.plan_s), Seconds(shown.call_s))?;
    Ok(())
}
