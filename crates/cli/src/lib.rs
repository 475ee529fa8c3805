//! The command regard: list, check, explain, plan, draw, run, verify and time attention variants, and
//! measure the machine.
//!
//! It is a library, which is compiled beside those that it needs, and a program that calls it.
//!
//! Exit codes: 0 done, also where nobody reads the output to its end; 1 the input is wrong; 2 a check failed. Data goes
//! to stdout, talk to stderr.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod cached;
mod calibrate;
mod check;
mod execute;
mod explain;
mod failure;
mod host;
mod list;
mod machines;
mod memory;
mod peaks;
mod plan;
mod progress;
mod run;
mod show;
mod source;
mod storage;
mod tensors;
mod timing;
mod verify;
mod words;
mod worker;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use failure::Failure;

/// Does what the command line asks for, and gives the exit code.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // A closed pipe under `--help` is not worth a message.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let mut out = io::stdout().lock();
    let done = perform(&args.command, &mut out).and_then(|()| out.flush().map_err(Failure::from));
    match done {
        Ok(()) | Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where stderr is closed there is nobody to tell.
            let _ = writeln!(io::stderr(), "{failure}");
            failure.exit_code()
        }
    }
}

fn perform(command: &Command, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::List => list::list(out),
        Command::Check(args) => check::check(args, out),
        Command::Explain(args) => explain::explain(args, out),
        Command::Plan(args) => plan::plan(args, out),
        Command::Run(args) => run::run(args, out),
        Command::Verify(args) => verify::verify(args, out),
        Command::Show(args) => show::show(args, out),
        Command::Bench(args) => bench::bench(args, out),
        Command::Calibrate(args) => calibrate::calibrate(args, out),
        Command::Worker(args) => worker::worker(args, out),
    }
}
