//! `--machine`: a profile that ships, one in a file, or the machine at hand.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use regard::Machine;
use regard::machine::{self, BUILT_IN, Calibration, Profile};

use crate::failure::Failure;
use crate::source::nearest;

/// The longest profile that is read: one with rates of every engine is a tenth of it.
const MAX_PROFILE_BYTES: u64 = 1 << 16;

/// The machine that a plan is for.
///
/// # Errors
/// If the profile is not there, cannot be read, or describes no machine.
pub(crate) fn machine(profile: Option<&str>) -> Result<Machine, Failure> {
    Ok(detected(profile)?.0)
}

/// The same, and where the rates of the machine at hand come from.
///
/// # Errors
/// As [`machine`].
pub(crate) fn detected(profile: Option<&str>) -> Result<(Machine, Option<Calibration>), Failure> {
    let Some(name) = profile else {
        let (machine, calibration) = machine::detect();
        return Ok((machine, Some(calibration)));
    };
    Ok((named(name)?, None))
}

fn named(name: &str) -> Result<Machine, Failure> {
    let path = Path::new(name);
    if path.is_file() {
        return read(path);
    }
    if let Some(profile) = Profile::built_in(name) {
        return Ok(profile.machine);
    }
    if path.exists() {
        return read(path);
    }
    let nearest = nearest(name, BUILT_IN.iter().map(|&(name, _)| name));
    Err(Failure::NoProfile { name: name.to_owned(), nearest })
}

fn read(path: &Path) -> Result<Machine, Failure> {
    let text = text(path).map_err(|error| Failure::ProfileFile { path: path.to_owned(), error })?;
    Profile::parse(&path.display().to_string(), &text)
        .map(|profile| profile.machine)
        .map_err(Failure::Profile)
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_PROFILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_PROFILE_BYTES {
        let message = format!("it is longer than {MAX_PROFILE_BYTES} bytes, and no profile is");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(text)
}
