//! Keys of tables: what each takes, what it is where it is absent, and what it means.
//!
//! The compiler takes its lists of known keys from these rows and the guide its tables. What a row says of values is
//! held against the compiler by tests.

use std::fmt;

/// A key of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Which values it can have.
    pub takes: Takes,
    /// What its absence means.
    pub absent: Absent,
    /// What it says of the variant.
    pub meaning: &'static str,
}

impl Key {
    pub(super) const fn new(name: &'static str, takes: Takes, absent: Absent, meaning: &'static str) -> Self {
        Self { name, takes, absent, meaning }
    }
}

/// The names of keys.
pub(super) fn names(keys: &[Key]) -> Vec<&'static str> {
    keys.iter().map(|key| key.name).collect()
}

/// Which values a key can have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Takes {
    /// An integer, both ends included.
    Integer {
        /// The least.
        from: u32,
        /// The greatest.
        to: u32,
    },
    /// A finite number.
    Number(Least),
    /// True or false.
    Flag,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// What the words say.
    Words(&'static str),
    /// Nothing yet: the key is of the language, and the compiler refuses it by name.
    Unsupported,
}

/// What the absence of a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// An error.
    Required,
    /// The same as this value, as it is written in TOML.
    Value(&'static str),
    /// What the words say.
    Words(&'static str),
}

/// Where numbers begin that a key can have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Least {
    /// Greater numbers.
    Above(f64),
    /// This number and greater ones.
    From(f64),
}

impl Least {
    pub(super) fn is_met(self, found: f64) -> bool {
        match self {
            Least::Above(least) => found > least,
            Least::From(least) => found >= least,
        }
    }
}

impl fmt::Display for Least {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Least::Above(least) => write!(f, "above {least}"),
            Least::From(least) => write!(f, "at least {least}"),
        }
    }
}
