//! `regard list`: what ships.

use std::io::Write;

use regard::machine::{self, BUILT_IN, Profile};
use regard::{Machine, SHIPPED};

use crate::failure::Failure;
use crate::memory::Bytes;

/// Writes a line for each shipped spec and machine profile.
///
/// # Errors
/// If they cannot be written.
pub(crate) fn list(out: &mut dyn Write) -> Result<(), Failure> {
    let mut specs = Vec::new();
    for shipped in SHIPPED {
        let summary = regard::shipped(shipped.name).map_err(Failure::Spec)?.spec.summary;
        specs.push((shipped.name, summary));
    }
    let (models, specs): (Vec<_>, Vec<_>) = specs.into_iter().partition(|(name, _)| name.contains('/'));
    writeln!(out, "specs")?;
    lines(out, "  ", &specs)?;
    writeln!(out, "\nspecs of models")?;
    lines(out, "  ", &models)?;

    let mut machines = Vec::new();
    for (name, text) in BUILT_IN {
        machines.push((name, Profile::parse(name, text).map_err(Failure::Profile)?.summary));
    }
    writeln!(out, "\nmachines (* is this one; the others are profiles for --machine)")?;
    writeln!(out, "* {:<width$}  {}", "host", words(&machine::host()), width = width(&machines))?;
    lines(out, "  ", &machines)?;
    Ok(())
}

fn lines(out: &mut dyn Write, indent: &str, named: &[(&str, String)]) -> Result<(), Failure> {
    let width = width(named);
    for (name, summary) in named {
        writeln!(out, "{indent}{name:<width$}  {summary}")?;
    }
    Ok(())
}

fn width(named: &[(&str, String)]) -> usize {
    named.iter().map(|(name, _)| name.len()).max().unwrap_or(0)
}

/// A machine in a line.
pub(crate) fn words(machine: &Machine) -> String {
    let Machine { isa, cores, l1d_bytes, l2_bytes, l3_bytes, rates: _ } = *machine;
    let mut words = format!("{}, {cores} core{}", isa.name(), if cores == 1 { "" } else { "s" });
    for (name, bytes) in [("L1d", l1d_bytes), ("L2", l2_bytes), ("L3", l3_bytes)] {
        if bytes > 0 {
            words.push_str(&format!(", {name} {}", Bytes(bytes.into())));
        }
    }
    words
}
