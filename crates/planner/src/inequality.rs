//! The inequalities that bound a plan's numbers, as data.

use core::fmt;

use serde::Serialize;

/// A named factor of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Factor {
    /// What it counts: `rows`, `keys`, `dim`; a plain number has an empty name.
    pub name: &'static str,
    /// How many.
    pub value: u64,
}

/// A product of factors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Term {
    /// What it is the size of.
    pub what: &'static str,
    /// What it is the product of.
    pub factors: Vec<Factor>,
}

/// What the two sides are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes of memory.
    Bytes,
    /// Multiplications with an addition, of f32 numbers.
    #[serde(rename = "multiply-adds")]
    Products,
    /// Billionths of a second.
    Nanoseconds,
}

/// The right side: a fraction of some capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// What is limited.
    pub what: &'static str,
    /// All of it.
    pub value: u64,
    /// The fraction's numerator.
    pub numerator: u64,
    /// The fraction's denominator.
    pub denominator: u64,
}

/// A sum of products that should be at most a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inequality {
    /// The left side.
    pub terms: Vec<Term>,
    /// The right side.
    pub limit: Limit,
    /// The unit of both.
    pub unit: Unit,
}

impl Term {
    /// The product, saturating.
    pub fn value(&self) -> u64 {
        self.factors.iter().fold(1, |product, factor| product.saturating_mul(factor.value))
    }
}

impl Inequality {
    /// The sum of the terms, saturating.
    pub fn left(&self) -> u64 {
        self.terms.iter().fold(0, |sum: u64, term| sum.saturating_add(term.value()))
    }

    /// Whether the sum is at most the limit.
    pub fn holds(&self) -> bool {
        let Limit { value, numerator, denominator, .. } = self.limit;
        self.left() as u128 * denominator as u128 <= value as u128 * numerator as u128
    }
}

impl fmt::Display for Inequality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let join = if i == 0 { "" } else { " + " };
            write!(f, "{join}{}", term.what)?;
            for (i, factor) in term.factors.iter().enumerate() {
                let join = if i == 0 { ' ' } else { '×' };
                let space = if i == 0 { "" } else { " " };
                write!(f, "{space}{join}{space}{}", factor.value)?;
                if !factor.name.is_empty() {
                    write!(f, " {}", factor.name)?;
                }
            }
        }
        let Limit { what, value, numerator, denominator } = self.limit;
        let relation = if self.holds() { "at most" } else { "more than" };
        write!(f, " = {}, {relation} ", Amount(self.left(), self.unit))?;
        match (numerator, denominator) {
            (1, 1) => {}
            (1, 2) => f.write_str("half of ")?,
            (1, 4) => f.write_str("a quarter of ")?,
            _ => write!(f, "{numerator}/{denominator} of ")?,
        }
        write!(f, "{what} ({})", Amount(value, self.unit))
    }
}

/// A number with its unit; bytes in KiB or MiB where they are that many.
pub(crate) struct Amount(pub(crate) u64, pub(crate) Unit);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;
        match (self.1, self.0) {
            (Unit::Products, n) => write!(f, "{n} multiply-adds"),
            (Unit::Nanoseconds, n) if n >= 1_000_000 => write!(f, "{:.2} ms", n as f64 / 1e6),
            (Unit::Nanoseconds, n) => write!(f, "{:.1} µs", n as f64 / 1e3),
            (Unit::Bytes, n) if n % MIB == 0 && n > 0 => write!(f, "{} MiB", n / MIB),
            (Unit::Bytes, n) if n >= MIB => write!(f, "{:.2} MiB", n as f64 / MIB as f64),
            (Unit::Bytes, n) if n % KIB == 0 && n > 0 => write!(f, "{} KiB", n / KIB),
            (Unit::Bytes, n) if n >= KIB => write!(f, "{:.1} KiB", n as f64 / KIB as f64),
            (Unit::Bytes, n) => write!(f, "{n} B"),
        }
    }
}

/// A factor with a name, or a plain number.
pub(crate) const fn factor(value: u64, name: &'static str) -> Factor {
    Factor { name, value }
}

/// A product.
pub(crate) fn term(what: &'static str, factors: &[Factor]) -> Term {
    Term { what, factors: factors.to_vec() }
}
