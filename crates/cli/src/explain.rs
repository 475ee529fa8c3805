//! `regard explain`: what a spec computes, and what that costs.

mod figures;
mod formula;
mod limits;
mod page;
mod pairs;
mod quantity;

use std::io::Write;

use regard::ir::cache::PageFormat;
use regard::ir::variant::Heads;
use regard::{Dtype, Isa, Machine, Options, Plan, Planned, Problem, Spec};
use serde::Serialize;

use crate::args::ExplainArgs;
use crate::failure::Failure;
use crate::peaks::Peaks;
use crate::plan::workspace_bytes;
use crate::run::pool;
use crate::{machines, source};
use figures::{Cache, Call, Input};
use formula::Line;
use limits::Bound;

/// The length that is taken where none is given.
const TYPICAL: usize = 4096;

/// What is printed, as JSON has it.
#[derive(Serialize)]
struct Explained<'a> {
    spec: &'a str,
    summary: &'a str,
    heads: Heads,
    formula: Vec<Line>,
    captured: Vec<Input>,
    dtype: Dtype,
    cache: Cache,
    prefill: Call,
    decode: Call,
    isa: Isa,
    threads: usize,
    /// Of the prefill; absent where the kernel cannot be built on this processor.
    workspace_bytes: Option<usize>,
    /// Absent where no rates were measured.
    limits: Option<Limits>,
    #[serde(skip)]
    given: Given<'a>,
}

/// What the figures were made from, for the page to say so.
struct Given<'a> {
    spec: &'a Spec,
    /// How keys and values are cached.
    page: PageFormat,
    /// Whether lengths were given.
    lengths: bool,
}

/// What bounds both calls on this machine.
#[derive(Serialize)]
struct Limits {
    prefill: Bound,
    decode: Bound,
}

impl Limits {
    /// Measures the machine at hand, for about a second.
    fn measure(
        args: &ExplainArgs,
        machine: &Machine,
        plan: &Plan,
        calls: [&Call; 2],
    ) -> Result<Self, Failure> {
        let peaks = Peaks::measure(&pool(args.choice.threads)?, machine, plan.isa)?;
        let [prefill, decode] = calls.map(|call| Bound::new(&call.work, &peaks, plan.engine));
        Ok(Self { prefill, decode })
    }
}

/// Prints formula, cache, operations and bytes, and what limits them here.
///
/// # Errors
/// If spec, machine or flags do not make a plan, or lengths are none that a problem has.
pub(crate) fn explain(args: &ExplainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let spec = source::spec(&args.spec)?;
    let machine = machines::machine(args.machine.as_deref())?;
    let keys = args.k.or(args.q).unwrap_or(TYPICAL);
    let problem = Problem::prefill(spec.source, args.batch, args.q.unwrap_or(keys), keys)?;
    let options = Options { dtype: args.dtype, isa: args.choice.isa, ..Options::default() };
    let planned = Planned::new(&spec, &machine, options)
        .map_err(|error| Failure::Compile { spec: spec.name.clone(), error })?;
    let threads = args.choice.threads.unwrap_or(machine.cores as usize);
    let dtype = planned.plan().dtype;
    let (prefill, decode) = (Call::new(&planned, problem)?, Call::decode(&planned, &problem)?);
    let limits = match args.machine {
        None => Some(Limits::measure(args, &machine, planned.plan(), [&prefill, &decode])?),
        Some(_) => None,
    };

    let explained = Explained {
        spec: &spec.name,
        summary: &spec.summary,
        heads: spec.heads,
        formula: formula::formula(&spec),
        captured: figures::captured(&spec),
        dtype,
        cache: figures::cache(&spec, planned.plan(), &problem),
        prefill,
        decode,
        isa: planned.plan().isa,
        threads,
        workspace_bytes: workspace_bytes(&planned, &problem, threads),
        limits,
        given: Given { spec: &spec, page: planned.plan().cache, lengths: args.q.or(args.k).is_some() },
    };
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&explained)?)?;
        return Ok(());
    }
    page::page(&explained, out)
}
