//! `regard run`: a spec on the tensors of a file.

use std::io::{self, Write};

use regard::{Kernel, Options, Pool, Threads, machine};

use crate::args::RunArgs;
use crate::execute::{Execution, Outcome};
use crate::failure::Failure;
use crate::memory;
use crate::source;
use crate::tensors::Tensors;
use crate::tensors::signature::{Layout, Signature};
use crate::tensors::write::write;
use crate::timing::{Seconds, Timing};

/// Runs the spec, writes its outputs, and tells what ran in what time.
///
/// # Errors
/// If spec, tensors, flags, memory or files do not allow it.
pub(crate) fn run(args: &RunArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let spec = source::spec(&args.spec)?;
    let options =
        Options { isa: args.choice.isa, engine: args.engine, kernel: args.kernel, ..Options::default() };
    let kernel = Kernel::compile_with(&spec, &machine::host(), options)
        .map_err(|error| Failure::Compile { spec: spec.name.clone(), error })?;
    let tensors = Tensors::read(&args.input)?;
    let mut bound = Signature::new(&spec, kernel.plan().dtype, args.layout).bind(&tensors)?;
    if let Some(q_offset) = args.offset.q_offset {
        let shifted = bound.problem().with_q_offset(q_offset)?;
        bound.problem = (&shifted).into();
    }
    let pool = pool(args.choice.threads)?;
    let execution = Execution { kernel: &kernel, pool: &pool, repeat: args.repeat };
    let outcome = execution.run(&bound)?;
    save(args, bound.layout, &outcome)?;

    let timing = Timing::new(&kernel, &bound, &outcome, pool.count());
    let spread = match args.repeat {
        Some(n) => format!(" (median of {n}; {} to {})", Seconds(timing.min_s), Seconds(timing.max_s)),
        None => String::new(),
    };
    // What is told beside the data may get lost.
    let _ = writeln!(io::stderr(), "{timing}{spread}");
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&timing)?)?;
    }
    Ok(())
}

/// A pool of as many threads as are asked for, or as there are cores.
///
/// # Errors
/// If the system does not start them.
pub(crate) fn pool(threads: Option<usize>) -> Result<Pool, Failure> {
    let count = threads.unwrap_or(machine::host().cores as usize);
    Pool::new(count).map_err(|error| Failure::Threads { count, error })
}

fn save(args: &RunArgs, layout: Layout, outcome: &Outcome) -> Result<(), Failure> {
    let mut tensors = vec![("o", outcome.o.output(&layout.file_axes(outcome.o.shape)))];
    if let Some(lse) = &outcome.lse {
        let axes = layout.file_axes(lse.shape);
        tensors.push(("lse", lse.output(&axes[..axes.len() - 1])));
    }
    if let Some(u) = &outcome.u {
        tensors.push(("u", u.output(&layout.file_axes(u.shape))));
    }
    if let Some(states) = &outcome.states {
        tensors.push(("state", states.state.output(&states.state.shape)));
        if let Some(norm) = &states.norm {
            let [batch, heads, _, dim] = norm.shape;
            tensors.push(("norm", norm.output(&[batch, heads, dim])));
        }
    }
    memory::ask("the output file", tensors.iter().map(|(_, tensor)| tensor.len_bytes() as u128).sum())?;
    write(&args.output, &tensors).map_err(Failure::Write)
}
