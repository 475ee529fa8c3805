//! What can be wrong with a profile.

use core::fmt;

use regard_ir::machine::Isa;
use regard_ir::plan::EngineKind;

/// A profile that describes no machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileError {
    /// The profile's name.
    pub name: String,
    /// What is wrong.
    pub kind: ProfileErrorKind,
}

/// What is wrong with a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileErrorKind {
    /// The parser's message, with line and column.
    Toml(String),
    /// No such instruction set.
    Isa(String),
    /// No such engine.
    Engine(String),
    /// A number that must be at least 1.
    Zero(&'static str),
    /// A size past 32 bits.
    TooLarge {
        /// Its key.
        key: &'static str,
        /// What it says, in KiB.
        kib: u32,
    },
    /// A rate of an engine that is no positive number.
    Rate {
        /// The engine.
        engine: EngineKind,
        /// Its instruction set.
        isa: Isa,
        /// Which rate.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// A rate of reading that is no number, or a negative one.
    Read {
        /// Which rate.
        key: &'static str,
        /// What it says.
        value: String,
    },
    /// Rates on an instruction set that the machine does not have.
    NotOnMachine {
        /// Theirs.
        rates: Isa,
        /// The machine's.
        machine: Isa,
    },
    /// Two tables of rates of one engine on one instruction set.
    Twice {
        /// The engine.
        engine: EngineKind,
        /// Its instruction set.
        isa: Isa,
    },
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "machine profile `{}`: {}", self.name, self.kind)
    }
}

impl fmt::Display for ProfileErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProfileErrorKind::Toml(message) => f.write_str(message),
            ProfileErrorKind::Isa(isa) => {
                let known = Isa::ALL.map(Isa::name).join(", ");
                write!(f, "no instruction set `{isa}`; there are {known}")
            }
            ProfileErrorKind::Engine(engine) => {
                let known = EngineKind::ALL.map(EngineKind::name).join(", ");
                write!(f, "no engine `{engine}`; there are {known}")
            }
            ProfileErrorKind::Zero(key) => write!(f, "{key} is 0, it must be at least 1"),
            ProfileErrorKind::TooLarge { key, kib } => {
                write!(f, "{key} is {kib}, at most {} fit 32 bits", u32::MAX / 1024)
            }
            ProfileErrorKind::Rate { engine, isa, key, value } => write!(
                f,
                "the rate {key} of {} on {} is {value}, it must be a number above 0",
                engine.name(),
                isa.name()
            ),
            ProfileErrorKind::Read { key, value } => {
                write!(f, "the rate {key} of reads is {value}, it must be a number, 0 where it is not known")
            }
            ProfileErrorKind::NotOnMachine { rates, machine } => write!(
                f,
                "there are rates on {}, which a machine with {} does not have",
                rates.name(),
                machine.name()
            ),
            ProfileErrorKind::Twice { engine, isa } => {
                write!(f, "there are two tables of rates of {} on {}", engine.name(), isa.name())
            }
        }
    }
}

impl std::error::Error for ProfileError {}
