//! Machine profiles: machines as TOML, so that a plan can be made for one that is not at hand, and so that what was measured
//! on one is kept.

mod error;

use regard_ir::machine::{Isa, Machine};
use regard_ir::plan::EngineKind;
use regard_ir::rates::{EngineRates, Rates, ReadRates};
use serde::{Deserialize, Serialize};

pub use error::{ProfileError, ProfileErrorKind};

/// The profiles that ship with the compiler: name and text, in the order of specs/machines/.
pub const BUILT_IN: [(&str, &str); 5] = [
    ("cortex-a72", include_str!("../../../specs/machines/cortex-a72.toml")),
    ("cortex-m7", include_str!("../../../specs/machines/cortex-m7.toml")),
    ("desktop-avx2", include_str!("../../../specs/machines/desktop-avx2.toml")),
    ("server-avx512-amx", include_str!("../../../specs/machines/server-avx512-amx.toml")),
    ("server-avx512-bf16", include_str!("../../../specs/machines/server-avx512-bf16.toml")),
];

/// What the numbers of [`Profile::to_toml`] mean: raised whenever that changes.
pub const FORMAT: u32 = 1;

/// A named machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its name: the file's stem.
    pub name: String,
    /// What it is, in a line.
    pub summary: String,
    /// Its processor's name, where rates were measured.
    pub processor: String,
    /// What its rates mean, where they were measured: [`FORMAT`] of the build that did; else 0.
    pub format: u32,
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

    /// Reads a profile: `isa`, `cores`, `l1d_kib`, and where they exist `l2_kib`, `l3_kib`, a `summary`, and the rates that
    /// were measured: tables `[[rates]]` with `engine`, `isa`, `products`, `softmax` and `packing`, and a table `[reads]` with
    /// `l2`, `l3` and `memory`.
    ///
    /// # Errors
    /// If the text is no TOML, has other keys or types, names no instruction set or engine, states a size that is 0 or past
    /// 32 bits, or a rate that is none.
    pub fn parse(name: &str, text: &str) -> Result<Self, ProfileError> {
        let error = |kind| ProfileError { name: name.to_owned(), kind };
        let raw: Raw = toml::from_str(text)
            .map_err(|toml| error(ProfileErrorKind::Toml(toml.to_string().trim_end().to_owned())))?;
        let machine = raw.machine().map_err(error)?;
        let Raw { summary, processor, format, .. } = raw;
        Ok(Self { name: name.to_owned(), summary, processor, format, machine })
    }

    /// The text that [`Profile::parse`] reads; cache sizes are rounded down to KiB.
    pub fn to_toml(&self) -> String {
        // Strings and finite numbers, tables last: there is nothing that TOML could not hold.
        toml::to_string(&Raw::from(self)).unwrap_or_default()
    }
}

/// The file as it is written.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    summary: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    processor: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    format: u32,
    isa: String,
    cores: u32,
    l1d_kib: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    l2_kib: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    l3_kib: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rates: Vec<RawRates>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reads: Option<RawReads>,
}

/// One engine's rates.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawRates {
    engine: String,
    isa: String,
    products: f64,
    softmax: f64,
    packing: f64,
}

/// Rates of reading.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawReads {
    #[serde(default)]
    l2: f64,
    #[serde(default)]
    l3: f64,
    #[serde(default)]
    memory: f64,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Raw {
    fn machine(&self) -> Result<Machine, ProfileErrorKind> {
        for (key, value) in [("cores", self.cores), ("l1d_kib", self.l1d_kib)] {
            if value == 0 {
                return Err(ProfileErrorKind::Zero(key));
            }
        }
        let bytes = |key, kib: u32| kib.checked_mul(1024).ok_or(ProfileErrorKind::TooLarge { key, kib });
        let isa = isa(&self.isa)?;
        let mut rates = Rates::NONE;
        rates.reads = self.reads()?;
        for raw in &self.rates {
            let measured = raw.rates()?;
            if !isa.includes(measured.isa) {
                return Err(ProfileErrorKind::NotOnMachine { rates: measured.isa, machine: isa });
            }
            if rates.of(measured.engine, measured.isa).is_some() {
                return Err(ProfileErrorKind::Twice { engine: measured.engine, isa: measured.isa });
            }
            rates = rates.with(measured);
        }
        Ok(Machine {
            isa,
            cores: self.cores,
            l1d_bytes: bytes("l1d_kib", self.l1d_kib)?,
            l2_bytes: bytes("l2_kib", self.l2_kib)?,
            l3_bytes: bytes("l3_kib", self.l3_kib)?,
            rates,
        })
    }

    fn reads(&self) -> Result<ReadRates, ProfileErrorKind> {
        let Some(RawReads { l2, l3, memory }) = self.reads else { return Ok(ReadRates::default()) };
        for (key, value) in [("l2", l2), ("l3", l3), ("memory", memory)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(ProfileErrorKind::Read { key, value: value.to_string() });
            }
        }
        Ok(ReadRates { l2, l3, memory })
    }
}

impl RawRates {
    fn rates(&self) -> Result<EngineRates, ProfileErrorKind> {
        let engine = EngineKind::ALL.into_iter().find(|engine| engine.name() == self.engine);
        let engine = engine.ok_or_else(|| ProfileErrorKind::Engine(self.engine.clone()))?;
        let isa = isa(&self.isa)?;
        let Self { products, softmax, packing, .. } = *self;
        for (key, value) in [("products", products), ("softmax", softmax), ("packing", packing)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(ProfileErrorKind::Rate { engine, isa, key, value: value.to_string() });
            }
        }
        Ok(EngineRates { engine, isa, products, softmax, packing })
    }
}

fn isa(name: &str) -> Result<Isa, ProfileErrorKind> {
    let isa = Isa::ALL.into_iter().find(|isa| isa.name() == name);
    isa.ok_or_else(|| ProfileErrorKind::Isa(name.to_owned()))
}

impl From<&Profile> for Raw {
    fn from(profile: &Profile) -> Self {
        let Profile { summary, processor, format, machine, name: _ } = profile;
        let Machine { isa, cores, l1d_bytes, l2_bytes, l3_bytes, rates } = *machine;
        let ReadRates { l2, l3, memory } = rates.reads;
        let rows = rates.engines().map(|&EngineRates { engine, isa, products, softmax, packing }| RawRates {
            engine: engine.name().to_owned(),
            isa: isa.name().to_owned(),
            products,
            softmax,
            packing,
        });
        Self {
            summary: summary.clone(),
            processor: processor.clone(),
            format: *format,
            isa: isa.name().to_owned(),
            cores,
            l1d_kib: l1d_bytes / 1024,
            l2_kib: l2_bytes / 1024,
            l3_kib: l3_bytes / 1024,
            rates: rows.collect(),
            reads: (rates.reads != ReadRates::default()).then_some(RawReads { l2, l3, memory }),
        }
    }
}
