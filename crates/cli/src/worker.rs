//! `regard worker`: kernels that another program sets up, times and reads by lines on stdin.
//!
//! `cargo xtask bench` alternates runs of several implementations, each a process that stays alive. This is ours. A
//! request is a verb and `key=value` fields, separated by tabs; each gets one line back: `ok`, `time` or `err` with
//! fields of its own. The protocol as a whole is described in docs/measuring.md.

mod cached;
mod request;
mod slot;

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::time::Instant;

use regard::ir::problem::Phase;
use regard::{Dtype, Isa, Kernel, Options, Pool, Threads, machine};
use regard_engine::detect;

use crate::args::WorkerArgs;
use crate::failure::Failure;
use crate::peaks::{self, Rates};
use crate::run::pool;
use crate::source;
use request::{BadRequest, Request};
use slot::Timed;

/// The most calls of one sample: a clock that stands still must not make it endless.
const MAX_CALLS: f64 = 1e7;

/// Answers requests until stdin ends.
///
/// # Errors
/// If threads cannot be started, or nobody reads the answers.
pub(crate) fn worker(args: &WorkerArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut worker = Worker { pool: pool(args.threads)?, slots: HashMap::new() };
    let say = |out: &mut dyn Write, line: &str| writeln!(out, "{line}").and_then(|()| out.flush());
    say(out, concat!("ready\tversion=", env!("CARGO_PKG_VERSION")))?;
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { return Ok(()) };
        let answer = match worker.answer(&line) {
            Ok(answer) => answer,
            Err(refusal) => format!("err\tmessage={}", one_line(&refusal.to_string())),
        };
        say(out, &answer)?;
    }
    Ok(())
}

/// Kernels that are set up, by the names that the other side gave.
struct Worker {
    pool: Pool,
    slots: HashMap<String, Box<dyn Timed>>,
}

/// Why a request was not done.
enum Refusal {
    Request(BadRequest),
    Failure(Box<Failure>),
}

impl From<BadRequest> for Refusal {
    fn from(error: BadRequest) -> Self {
        Refusal::Request(error)
    }
}

impl<E: Into<Failure>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Refusal::Failure(Box::new(error.into()))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Request(error) => error.fmt(f),
            Refusal::Failure(failure) => failure.fmt(f),
        }
    }
}

impl Worker {
    fn answer(&mut self, line: &str) -> Result<String, Refusal> {
        let request = Request::parse(line)?;
        match request.verb {
            "limits" => self.limits(&request),
            "setup" => self.setup(&request),
            "run" => self.run(&request),
            "output" => self.output(&request),
            "free" => {
                self.slots.remove(request.field("slot")?);
                Ok("ok".to_owned())
            }
            verb => Err(BadRequest::Verb { found: verb.to_owned() }.into()),
        }
    }

    /// What the machine does at most, in 10⁹ operations a second over the threads of this process; and where bytes are asked
    /// for, in 10⁹ of them a second that are read of so many in huge pages.
    fn limits(&self, request: &Request<'_>) -> Result<String, Refusal> {
        let machine = machine::host();
        let rates = Rates::measure(&self.pool, machine.isa);
        let mut answer =
            format!("ok\tcpu={}\tisa={}\tcores={}", detect::processor(), machine.isa.name(), machine.cores);
        for (name, rate) in rates.named() {
            answer.push_str(&format!("\t{name}={rate:.2}"));
        }
        if request.optional("bytes").is_some() {
            let read = peaks::read_gbs(&self.pool, machine.isa, request.number("bytes")?)?;
            answer.push_str(&format!("\tread={read:.2}"));
        }
        Ok(answer)
    }

    fn setup(&mut self, request: &Request<'_>) -> Result<String, Refusal> {
        let spec = source::spec(request.field("spec")?)?;
        let dtype = request.named("dtype", &Dtype::ALL, Dtype::name)?;
        let phase = match request.optional("phase") {
            Some(_) => request.named("phase", &[Phase::Prefill, Phase::Few, Phase::Decode], Phase::name)?,
            None => Phase::Prefill,
        };
        let isa = match request.optional("isa") {
            Some(_) => Some(request.named("isa", &Isa::ALL, Isa::name)?),
            None => None,
        };
        let options = Options { dtype: Some(dtype), isa, ..Options::default() };
        let kernel = Kernel::compile_with(&spec, &machine::host(), options)
            .map_err(|error| Failure::Compile { spec: spec.name.clone(), error })?;
        let mut answer = format!("ok\tkernel={}", kernel.source().name());
        let plan = kernel.plan();
        answer.push_str(&format!("\tengine={}\tisa={}", plan.engine.name(), plan.isa.name()));
        let slot = match phase {
            Phase::Few | Phase::Decode => {
                let cache = plan.cache;
                answer.push_str(&format!("\tcache=k {} v {}", cache.k.name(), cache.v.name()));
                cached::set_up(kernel, phase, request, self.pool.count())?
            }
            Phase::Prefill => slot::set_up(kernel, request, self.pool.count())?,
        };
        self.slots.insert(request.field("slot")?.to_owned(), slot);
        Ok(answer)
    }

    /// Calls a kernel for at least so many seconds, and tells how long one call took.
    fn run(&mut self, request: &Request<'_>) -> Result<String, Refusal> {
        let seconds: f64 = request.number("seconds")?;
        let slot = slot(&mut self.slots, request)?;
        let once = timed(slot, &self.pool, 1)?;
        if once >= seconds {
            return Ok(format!("time\tseconds={once:e}\tcalls=1"));
        }
        // A second guess by a few calls: the first call after another's turn finds caches cold.
        let few = timed(slot, &self.pool, 3)? / 3.0;
        let calls = (seconds / few.max(1e-9)).ceil().clamp(1.0, MAX_CALLS) as u32;
        let each = timed(slot, &self.pool, calls)? / f64::from(calls);
        Ok(format!("time\tseconds={each:e}\tcalls={calls}"))
    }

    /// Writes what a kernel gave, as raw f32 `[head, query, channel]`.
    fn output(&mut self, request: &Request<'_>) -> Result<String, Refusal> {
        let path = request.field("path")?;
        let bytes = slot(&mut self.slots, request)?.output();
        std::fs::write(path, bytes)
            .map_err(|error| BadRequest::File { path: path.to_owned(), error: error.to_string() })?;
        Ok("ok".to_owned())
    }
}

fn slot<'s>(
    slots: &'s mut HashMap<String, Box<dyn Timed>>,
    request: &Request<'_>,
) -> Result<&'s mut dyn Timed, Refusal> {
    let name = request.field("slot")?;
    match slots.get_mut(name) {
        Some(slot) => Ok(slot.as_mut()),
        None => Err(BadRequest::Slot { found: name.to_owned() }.into()),
    }
}

/// The seconds that so many calls take together.
fn timed(slot: &mut dyn Timed, pool: &Pool, calls: u32) -> Result<f64, Failure> {
    let start = Instant::now();
    for _ in 0..calls {
        slot.call(pool)?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Text that stays in its field.
fn one_line(text: &str) -> String {
    text.split(['\n', '\t']).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}
