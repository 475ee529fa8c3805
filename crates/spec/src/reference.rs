//! What there is in the language, for its guide: the tables that the compiler itself reads, and what each row means.
//!
//! Nothing is listed here a second time. A function, a key or a code has its name, what it takes and its meaning in
//! one row, beside the code that reads it; so the guide cannot name what is not there, nor miss what is.

use crate::expr::define;
use crate::expr::functions::{CONSTANTS, FUNCTIONS, Signature, VARIABLES};
use crate::expr::lex::{KEYWORDS, SYMBOLS};
use crate::expr::{self, boundary};
use crate::resolve;

pub use crate::resolve::{Absent, Key, Least, Takes};

/// A variable or a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub meaning: &'static str,
}

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Its parameters.
    pub params: &'static str,
    /// What it gives.
    pub meaning: &'static str,
}

/// A definition of the prelude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// As it is used: `window(w)`.
    pub head: &'static str,
    /// What it stands for.
    pub body: &'static str,
    /// Which keys that are.
    pub meaning: &'static str,
}

/// Every variable.
pub fn variables() -> Vec<Name> {
    VARIABLES.iter().map(|variable| Name { name: variable.name, meaning: variable.meaning }).collect()
}

/// Every constant.
pub fn constants() -> Vec<Name> {
    CONSTANTS.iter().map(|constant| Name { name: constant.name, meaning: constant.meaning }).collect()
}

/// Every function.
pub fn functions() -> Vec<Function> {
    let function = |&Signature { name, params, meaning, .. }: &Signature| Function { name, params, meaning };
    FUNCTIONS.iter().map(function).collect()
}

/// The prelude, from its own file: what stands beside a definition there is its meaning.
pub fn prelude() -> Vec<Definition> {
    let definition = |line: &'static str| {
        let (head, rest) = line.split_once('=')?;
        let (body, meaning) = rest.split_once(" # ")?;
        let quoted = |text: &'static str| text.trim().trim_matches('"');
        Some(Definition { head: quoted(head), body: quoted(body), meaning: meaning.trim() })
    };
    define::PRELUDE.lines().filter(|line| !line.starts_with('#')).filter_map(definition).collect()
}

/// A key that holds an expression, and what that may read beside constants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The key, from the top.
    pub key: &'static str,
    /// The variables.
    pub variables: Vec<&'static str>,
    /// Whether inputs, too.
    pub inputs: bool,
}

/// Every key that holds an expression.
pub fn places() -> Vec<Place> {
    let place = |(key, place): (_, expr::Place)| {
        let readable = VARIABLES.iter().filter(|variable| place.allows(variable.var));
        Place { key, variables: readable.map(|it| it.name).collect(), inputs: place.allows_inputs() }
    };
    expr::Place::IN_TABLES.into_iter().map(place).collect()
}

/// Every keyword, operator and bracket of expressions.
pub fn tokens() -> impl Iterator<Item = &'static str> {
    KEYWORDS.into_iter().chain(SYMBOLS)
}

/// A table and its keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// As it is called from the top, `position.rope`; empty at the top itself.
    pub name: &'static str,
    /// The kind that these keys are of, where each kind has its own.
    pub kind: Option<&'static str>,
    /// Its keys.
    pub keys: Vec<Key>,
}

/// Every table whose keys are fixed, the top of a spec first.
pub fn tables() -> Vec<Table> {
    let whole = [
        ("", &resolve::top::KEYS[..]),
        ("heads", &resolve::tables::HEADS),
        ("position", &resolve::position::KEYS),
        ("position.rope", &resolve::position::ROPE_KEYS),
        ("qk_norm", &resolve::qk_norm::KEYS),
        ("score", &resolve::tables::SCORE),
        ("mask", &resolve::tables::MASK),
        ("weights", &resolve::weights::KEYS),
        ("recurrence", &resolve::recurrence::KEYS),
        ("latent", &resolve::latent::KEYS),
        ("lookahead", &resolve::lookahead::KEYS),
        ("pseudo", &resolve::pseudo::KEYS),
        ("output", &resolve::output::KEYS),
        ("cache", &resolve::cache::KEYS),
    ];
    let whole = whole.into_iter().map(|(name, keys)| Table { name, kind: None, keys: keys.to_vec() });
    let by_kind = resolve::scaling::kinds();
    let by_kind = by_kind.map(|(kind, keys)| Table { name: "position.scaling", kind: Some(kind), keys });
    whole.chain(by_kind).collect()
}

/// Names of tensors at the kernel's boundary, which no declared input may have.
pub fn boundary() -> Vec<String> {
    boundary::names().collect()
}
