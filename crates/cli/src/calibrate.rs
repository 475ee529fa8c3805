//! `regard calibrate`: how fast each engine is on this machine, measured once and kept.

mod measure;

use std::fs;
use std::io::{self, Write};

use regard::Machine;
use regard::ir::rates::{EngineRates, Rates, ReadRates};
use regard::machine::{self, Calibration, Profile};

use crate::args::CalibrateArgs;
use crate::failure::Failure;
use crate::list;
use crate::tensors::write::{self, WriteError};

/// Measures this machine and keeps what was found, or shows what is kept.
///
/// # Errors
/// If there is no memory to measure in, or the file cannot be written.
pub(crate) fn calibrate(args: &CalibrateArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let (machine, calibration) = machine::detect();
    if args.show {
        return shown(args, &machine, &calibration, out);
    }
    let path = calibration.path().ok_or(Failure::NoCacheFolder)?;
    let machine = Machine { rates: measure::rates(&machine)?, ..machine };
    let profile = machine::measured(machine);
    if args.toml {
        write!(out, "{}", profile.to_toml())?;
    } else {
        table(&profile, out)?;
    }
    if let Some(folder) = path.parent() {
        let step = "create the folder of";
        fs::create_dir_all(folder)
            .map_err(|error| Failure::Write(WriteError::Io { path: path.to_owned(), step, error }))?;
    }
    write::save(path, profile.to_toml().as_bytes()).map_err(Failure::Write)?;
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "written to {}", path.display());
    Ok(())
}

fn shown(
    args: &CalibrateArgs,
    machine: &Machine,
    calibration: &Calibration,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let profile = match calibration {
        Calibration::Read { profile, .. } => (**profile).clone(),
        Calibration::None { .. } | Calibration::Ignored { .. } => machine::measured(*machine),
    };
    if args.toml {
        write!(out, "{}", profile.to_toml())?;
        return Ok(());
    }
    table(&profile, out)?;
    writeln!(out, "{}", source(calibration))?;
    Ok(())
}

/// Where the rates of this machine come from, in a line.
pub(crate) fn source(calibration: &Calibration) -> String {
    match calibration {
        Calibration::Read { path, .. } => format!("rates measured here, from {}", path.display()),
        Calibration::None { .. } => {
            "nothing was measured here: rates are estimates; `regard calibrate` measures".to_owned()
        }
        Calibration::Ignored { path, reason } => {
            format!("{} is ignored: {reason}; `regard calibrate` writes it anew", path.display())
        }
    }
}

fn table(profile: &Profile, out: &mut dyn Write) -> Result<(), Failure> {
    let Profile { processor, machine, .. } = profile;
    writeln!(out, "{processor}: {}", list::words(machine))?;
    if machine.rates == Rates::NONE {
        return Ok(());
    }
    writeln!(out, "\n10⁹ a second, one core   {:>9} {:>9} {:>9}", "products", "softmax", "packing")?;
    let mut rows: Vec<&EngineRates> = machine.rates.engines().collect();
    rows.sort_by(|a, b| b.products.total_cmp(&a.products));
    for &EngineRates { engine, isa, products, softmax, packing } in rows {
        let name = format!("{} on {}", engine.name(), isa.name());
        writeln!(out, "{name:<24} {products:>9} {softmax:>9} {packing:>9}")?;
    }
    let ReadRates { l2, l3, memory } = machine.rates.reads;
    write!(out, "reads, GB/s             ")?;
    for (name, rate) in [("L2", l2), ("L3", l3), ("memory", memory)] {
        if rate > 0.0 {
            write!(out, " {name} {rate}")?;
        }
    }
    writeln!(out)?;
    Ok(())
}
