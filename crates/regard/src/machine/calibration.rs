//! The file that keeps what was measured on this machine: a profile, in the user's cache folder.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use regard_engine::{any, catalog, detect};
use regard_ir::machine::{Isa, Machine};
use regard_ir::plan::EngineKind;
use regard_ir::rates::Rates;
use regard_planner::profile::{FORMAT, Profile, ProfileError};

/// The longest file that is read: that of a machine with every engine is a tenth of it.
const MAX_BYTES: u64 = 1 << 16;

/// Where the rates of the machine at hand come from.
#[derive(Debug)]
pub enum Calibration {
    /// There is no file: nothing was measured.
    None {
        /// Where one would be; absent where there is no cache folder.
        path: Option<PathBuf>,
    },
    /// Measured.
    Read {
        /// The file.
        path: PathBuf,
        /// What it says.
        profile: Box<Profile>,
    },
    /// There is a file that is of no use here.
    Ignored {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: Ignored,
    },
}

/// Why a file of rates is of no use.
#[derive(Debug)]
pub enum Ignored {
    /// It cannot be read.
    Io(io::Error),
    /// It is longer than any profile.
    TooLong,
    /// It is damaged.
    Damaged(ProfileError),
    /// It is of another format.
    Format {
        /// The file's.
        found: u32,
    },
    /// It is of another machine.
    Foreign {
        /// What differs.
        what: &'static str,
        /// In the file.
        found: String,
        /// Here.
        expected: String,
    },
    /// It lacks an engine of this build.
    Incomplete {
        /// The engine.
        engine: EngineKind,
        /// Its instruction set.
        isa: Isa,
    },
}

impl Calibration {
    /// The file of a machine, judged.
    pub(super) fn of(machine: &Machine) -> Self {
        let Some(path) = path(machine) else { return Calibration::None { path: None } };
        Self::read(path, machine)
    }

    fn read(path: PathBuf, machine: &Machine) -> Self {
        match judge(&path, machine) {
            Ok(profile) => Calibration::Read { path, profile: Box::new(profile) },
            Err(Ignored::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                Calibration::None { path: Some(path) }
            }
            Err(reason) => Calibration::Ignored { path, reason },
        }
    }

    /// What was measured; nothing where nothing of use was.
    pub fn rates(&self) -> Rates {
        match self {
            Calibration::Read { profile, .. } => profile.machine.rates,
            Calibration::None { .. } | Calibration::Ignored { .. } => Rates::NONE,
        }
    }

    /// Where the file is, or would be.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Calibration::None { path } => path.as_deref(),
            Calibration::Read { path, .. } | Calibration::Ignored { path, .. } => Some(path),
        }
    }
}

/// The profile to write for the machine at hand, whose rates were measured just now.
pub fn measured(machine: Machine) -> Profile {
    Profile {
        name: String::new(),
        summary: String::new(),
        processor: detect::processor(),
        format: FORMAT,
        machine,
    }
}

/// Where the file of a machine is: its name has what the machine is told by, so that machines that share a home folder
/// have a file each.
fn path(machine: &Machine) -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(caches.join("regard").join(file_name(&detect::processor(), machine)))
}

fn file_name(processor: &str, machine: &Machine) -> String {
    let Machine { isa, cores, l1d_bytes, l2_bytes, l3_bytes, .. } = *machine;
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let words: String = processor.chars().map(plain).collect();
    let words: Vec<&str> = words.split('-').filter(|word| !word.is_empty()).collect();
    let [l1d, l2, l3] = [l1d_bytes, l2_bytes, l3_bytes].map(|bytes| bytes / 1024);
    format!("{}-{}-{cores}x-{l1d}-{l2}-{l3}.toml", words.join("-"), isa.name())
}

fn judge(path: &Path, machine: &Machine) -> Result<Profile, Ignored> {
    let mut text = String::new();
    let file = File::open(path).map_err(Ignored::Io)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(Ignored::Io)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Ignored::TooLong);
    }
    let profile = Profile::parse("host", &text).map_err(Ignored::Damaged)?;
    if profile.format != FORMAT {
        return Err(Ignored::Format { found: profile.format });
    }
    let here = measured(*machine);
    let told_by = |profile: &Profile| {
        let Machine { isa, cores, l1d_bytes, l2_bytes, l3_bytes, .. } = profile.machine;
        let kib = |bytes: u32| format!("{} KiB", bytes / 1024);
        [
            ("processor", profile.processor.clone()),
            ("instruction set", isa.name().to_owned()),
            ("number of cores", cores.to_string()),
            ("L1d", kib(l1d_bytes)),
            ("L2", kib(l2_bytes)),
            ("L3", kib(l3_bytes)),
        ]
    };
    for ((what, found), (_, expected)) in told_by(&profile).into_iter().zip(told_by(&here)) {
        if found != expected {
            return Err(Ignored::Foreign { what, found, expected });
        }
    }
    for entry in catalog::runnable(machine.isa).filter(|entry| !entry.emulated) {
        let (engine, isa) = (entry.engine, entry.isa);
        if any::available(engine, isa) && profile.machine.rates.of(engine, isa).is_none() {
            return Err(Ignored::Incomplete { engine, isa });
        }
    }
    Ok(profile)
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ignored::Io(error) => write!(f, "it cannot be read: {error}"),
            Ignored::TooLong => write!(f, "it is longer than {MAX_BYTES} bytes"),
            Ignored::Damaged(error) => error.fmt(f),
            Ignored::Format { found } => write!(f, "it is of format {found}, this build reads {FORMAT}"),
            Ignored::Foreign { what, found, expected } => {
                write!(f, "it is of another machine: its {what} is {found}, here it is {expected}")
            }
            Ignored::Incomplete { engine, isa } => {
                write!(f, "it has no rates of {} on {}", engine.name(), isa.name())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use regard_ir::rates::{EngineRates, ReadRates};

    use super::*;

    /// A file of one test.
    struct Place(PathBuf);

    impl Place {
        fn new(test: &str) -> Self {
            Self(std::env::temp_dir().join(format!("regard-rates-{test}-{}.toml", std::process::id())))
        }

        fn judged(&self, text: &str) -> Calibration {
            fs::write(&self.0, text).unwrap();
            Calibration::read(self.0.clone(), &detect::host())
        }

        fn ignored(&self, text: &str) -> String {
            match self.judged(text) {
                Calibration::Ignored { reason, .. } => reason.to_string(),
                other => panic!("{other:?} of\n{text}"),
            }
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// This machine with made-up rates of each of its engines.
    fn here() -> Profile {
        let mut machine = detect::host();
        for entry in catalog::runnable(machine.isa).filter(|entry| !entry.emulated) {
            let (engine, isa) = (entry.engine, entry.isa);
            let rates = EngineRates { engine, isa, products: 101.5, softmax: 7.1, packing: 0.3 };
            machine.rates = machine.rates.with(rates);
        }
        machine.rates.reads = ReadRates { l2: 170.0, l3: 28.0, memory: 12.5 };
        measured(machine)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (place, here) = (Place::new("round-trip"), here());
        let Calibration::Read { profile, .. } = place.judged(&here.to_toml()) else { panic!("{here:?}") };
        assert_eq!(profile.machine.rates, here.machine.rates);
        assert_eq!(profile.processor, here.processor);
    }

    #[test]
    fn a_file_of_no_use_is_ignored_for_a_reason() {
        let (place, here) = (Place::new("no-use"), here());
        let text = here.to_toml();
        for cut in [1, text.len() / 3, text.len() / 2] {
            place.ignored(&text[..cut]);
        }
        let other = Profile { processor: "Another".to_owned(), ..here.clone() };
        let found = place.ignored(&other.to_toml());
        assert!(
            found.starts_with("it is of another machine: its processor is Another, here it is"),
            "{found}"
        );
        let more = Machine { cores: here.machine.cores + 1, ..here.machine };
        let found = place.ignored(&Profile { machine: more, ..here.clone() }.to_toml());
        assert!(found.contains("its number of cores is"), "{found}");
        let older = Profile { format: FORMAT - 1, ..here.clone() };
        assert_eq!(place.ignored(&older.to_toml()), "it is of format 0, this build reads 1");
        let mut lacking = here.machine;
        lacking.rates = Rates::NONE;
        let found = place.ignored(&Profile { machine: lacking, ..here.clone() }.to_toml());
        assert!(found.starts_with("it has no rates of "), "{found}");
        assert_eq!(place.ignored(&" ".repeat(70_000)), "it is longer than 65536 bytes");
    }

    #[test]
    fn without_a_file_nothing_is_known() {
        let place = Place::new("none");
        let calibration = Calibration::read(place.0.clone(), &detect::host());
        assert!(matches!(&calibration, Calibration::None { path: Some(path) } if *path == place.0));
        assert_eq!(calibration.rates(), Rates::NONE);
    }

    #[test]
    fn a_file_is_named_after_its_machine() {
        let machine = Machine {
            isa: Isa::Avx2,
            cores: 8,
            l1d_bytes: 32 << 10,
            l2_bytes: 512 << 10,
            l3_bytes: 0,
            rates: Rates::NONE,
        };
        assert_eq!(
            file_name("A CPU (R) @ 3.0, family 6", &machine),
            "a-cpu-r-3-0-family-6-avx2-8x-32-512-0.toml"
        );
    }
}
