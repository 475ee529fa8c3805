//! The machine at hand, and the profiles of others.

mod calibration;

pub use calibration::{Calibration, Ignored, measured};
pub use regard_engine::any::available;
pub use regard_planner::profile::{BUILT_IN, Profile, ProfileError};

use regard_engine::detect;
use regard_ir::machine::Machine;

/// The machine at hand, with the rates that `regard calibrate` measured on it, where there are any.
///
/// Rates decide which engine serves a plan, and so which bits come out: the same file, the same bits. [`detect`] tells of
/// the file.
pub fn host() -> Machine {
    self::detect().0
}

/// As [`host`], and where its rates come from.
///
/// The file is that of this machine in the folder `regard` below `$XDG_CACHE_HOME`, or below `.cache` in the home folder. It
/// is read at each call, and one that is of no use is ignored.
pub fn detect() -> (Machine, Calibration) {
    let machine = detect::host();
    let calibration = Calibration::of(&machine);
    (Machine { rates: calibration.rates(), ..machine }, calibration)
}
