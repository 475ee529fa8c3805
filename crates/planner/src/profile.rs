//! Machine profiles: machines as TOML, so that a plan can be made for one that is not at hand.

use core::fmt;

use regard_ir::machine::{Isa, Machine};
use serde::Deserialize;

/// The profiles that ship with the compiler: name and text, in the order of specs/machines/.
pub const BUILT_IN: [(&str, &str); 5] = [
    ("cortex-a72", include_str!("../../../specs/machines/cortex-a72.toml")),
    ("cortex-m7", include_str!("../../../specs/machines/cortex-m7.toml")),
    ("desktop-avx2", include_str!("../../../specs/machines/desktop-avx2.toml")),
    ("server-avx512-amx", include_str!("../../../specs/machines/server-avx512-amx.toml")),
    ("server-avx512-bf16", include_str!("../../../specs/machines/server-avx512-bf16.toml")),
];

/// A named machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its name: the file's stem.
    pub name: String,
    /// What it is, in a line.
    pub summary: String,
    /// The machine.
    pub machine: Machine,
}

impl Profile {
    /// The profile that ships under this name.
    pub fn built_in(name: &str) -> Option<Self> {
        let (name, text) = BUILT_IN.into_iter().find(|(known, _)| *known == name)?;
        // A test parses them all.
        Self::parse(name, text).ok()
    }

    /// Reads a profile: `isa`, `cores`, `l1d_kib`, and where they exist `l2_kib`, `l3_kib` and a `summary`.
    ///
    /// # Errors
    /// If the text is no TOML, has other keys or types, names no instruction set, or states a size that is 0 or past
    /// 32 bits.
    pub fn parse(name: &str, text: &str) -> Result<Self, ProfileError> {
        let error = |kind| ProfileError { name: name.to_owned(), kind };
        let raw: Raw = toml::from_str(text)
            .map_err(|toml| error(ProfileErrorKind::Toml(toml.to_string().trim_end().to_owned())))?;
        let isa = Isa::ALL
            .into_iter()
            .find(|isa| isa.name() == raw.isa)
            .ok_or_else(|| error(ProfileErrorKind::Isa(raw.isa.clone())))?;
        for (key, value) in [("cores", raw.cores), ("l1d_kib", raw.l1d_kib)] {
            if value == 0 {
                return Err(error(ProfileErrorKind::Zero(key)));
            }
        }
        let bytes = |key, kib: u32| {
            kib.checked_mul(1024).ok_or_else(|| error(ProfileErrorKind::TooLarge { key, kib }))
        };
        let machine = Machine {
            isa,
            cores: raw.cores,
            l1d_bytes: bytes("l1d_kib", raw.l1d_kib)?,
            l2_bytes: bytes("l2_kib", raw.l2_kib)?,
            l3_bytes: bytes("l3_kib", raw.l3_kib)?,
        };
        Ok(Self { name: name.to_owned(), summary: raw.summary, machine })
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    summary: String,
    isa: String,
    cores: u32,
    l1d_kib: u32,
    #[serde(default)]
    l2_kib: u32,
    #[serde(default)]
    l3_kib: u32,
}

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
    /// A number that must be at least 1.
    Zero(&'static str),
    /// A size past 32 bits.
    TooLarge {
        /// Its key.
        key: &'static str,
        /// What it says, in KiB.
        kib: u32,
    },
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.kind {
            ProfileErrorKind::Toml(message) => write!(f, "machine profile `{name}`: {message}"),
            ProfileErrorKind::Isa(isa) => {
                let known = Isa::ALL.map(Isa::name).join(", ");
                write!(f, "machine profile `{name}`: no instruction set `{isa}`; there are {known}")
            }
            ProfileErrorKind::Zero(key) => {
                write!(f, "machine profile `{name}`: {key} is 0, it must be at least 1")
            }
            ProfileErrorKind::TooLarge { key, kib } => {
                write!(f, "machine profile `{name}`: {key} is {kib}, at most {} fit 32 bits", u32::MAX / 1024)
            }
        }
    }
}

impl std::error::Error for ProfileError {}
