//! `regard check`: every error and note of every spec, or what it means.

use std::io::Write;

use crate::args::CheckArgs;
use crate::failure::Failure;
use crate::source::{self, Loaded};
use crate::words;

/// Writes the diagnostics of all specs, and a line of meaning for each that has no error.
///
/// # Errors
/// If some spec has an error or is not there, after all have been looked at.
pub(crate) fn check(args: &CheckArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut n_wrong = 0;
    for name in &args.specs {
        match source::load(name) {
            Ok(Loaded::Spec(parsed)) => {
                for note in &parsed.notes {
                    writeln!(out, "{note}")?;
                }
                writeln!(out, "ok: {name}: {}", words::meaning(&parsed.spec))?;
            }
            Ok(Loaded::Errors(errors)) => {
                n_wrong += 1;
                writeln!(out, "{errors}")?;
            }
            Err(missing) => {
                n_wrong += 1;
                writeln!(out, "{missing}\n")?;
            }
        }
    }
    match n_wrong {
        0 => Ok(()),
        n => Err(Failure::SpecsWithErrors { n, of: args.specs.len() }),
    }
}
