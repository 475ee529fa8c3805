//! Values of the types that tables want, or an error that says what they are instead.

use std::ops::RangeInclusive;

use super::key::Least;
use super::misplaced::elsewhere;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink, did_you_mean, nearest, one_of, quote};
use crate::document::{Entry, Kind, Value};
use crate::source::{Location, Text};

/// The most keys that a message lists.
const MAX_LISTED: usize = 8;

/// Refuses every key that is not `known`; `table` is where they stand, if not at the top.
pub(super) fn check_keys(entries: &[Entry], known: &[&str], table: Option<&str>, sink: &mut Sink) {
    for entry in entries {
        let name = entry.name();
        if known.contains(&name) {
            continue;
        }
        let near = || elsewhere(name).or_else(|| did_you_mean(name, known.iter().copied()));
        let near = if sink.is_full() { None } else { near() };
        let help =
            near.or_else(|| (known.len() <= MAX_LISTED).then(|| format!("expected {}", one_of(known))));
        unknown_key(entry, table, help, sink);
    }
}

/// Refuses a key.
pub(super) fn unknown_key(entry: &Entry, table: Option<&str>, help: Option<String>, sink: &mut Sink) {
    let place = table.map_or(String::new(), |table| format!(" in `{table}`"));
    let message = format!("unknown key {}{place}", quote(entry.name()));
    sink.push(Diagnostic::new(Code::S006, &entry.key.token(), message).label("no such key").help(help));
}

/// Whether an unknown key is a misspelt `key`, which then is not missing.
pub(super) fn misspelt(entries: &[Entry], known: &[&str], key: &str) -> bool {
    let unknown = entries.iter().map(Entry::name).filter(|name| !known.contains(name));
    unknown.into_iter().any(|name| nearest(name, known.iter().copied()) == Some(key))
}

pub(super) fn get<'a>(entries: &'a [Entry], key: &str) -> Option<&'a Value> {
    entries.iter().find(|entry| entry.name() == key).map(|entry| &entry.value)
}

/// The entries of a table; none if it is absent.
pub(super) fn table<'a>(value: Option<&'a Value>, what: &str, sink: &mut Sink) -> &'a [Entry] {
    match value.map(|value| (&value.kind, value)) {
        None => &[],
        Some((Kind::Table(entries), _)) => entries,
        Some((_, value)) => {
            wrong_type(value, &format!("`{what}`"), "a table", sink);
            &[]
        }
    }
}

pub(super) fn string<'a>(value: &'a Value, what: &str, sink: &mut Sink) -> Option<&'a Text> {
    if let Kind::String(text) = &value.kind {
        return Some(text);
    }
    wrong_type(value, what, "a string", sink);
    None
}

pub(super) fn bool(value: &Value, what: &str, sink: &mut Sink) -> Option<bool> {
    if let Kind::Bool(value) = value.kind {
        return Some(value);
    }
    wrong_type(value, what, "true or false", sink);
    None
}

pub(super) fn integer(value: &Value, what: &str, range: RangeInclusive<u32>, sink: &mut Sink) -> Option<u32> {
    let Kind::Integer(found) = value.kind else {
        wrong_type(value, what, "an integer", sink);
        return None;
    };
    let fits = found.and_then(|found| u32::try_from(found).ok()).filter(|found| range.contains(found));
    if fits.is_none() {
        let (lo, hi) = (range.start(), range.end());
        let found = found.map_or("more than 64 bits".to_string(), |found| found.to_string());
        let message = format!("{what} must be from {lo} to {hi}, found {found}");
        sink.push(Diagnostic::new(Code::S010, &value.location, message).label("out of range"));
    }
    fits
}

/// A finite number.
pub(super) fn number(value: &Value, what: &str, least: Least, sink: &mut Sink) -> Option<f64> {
    let found = match value.kind {
        Kind::Integer(found) => found.map(|found| found as f64),
        Kind::Float(found) => found,
        _ => {
            wrong_type(value, what, "a number", sink);
            return None;
        }
    };
    let fitting = found.filter(|&found| found.is_finite() && least.is_met(found));
    if fitting.is_none() {
        let written = &value.location.source.text[value.location.span.clone()];
        let message = format!("{what} must be finite and {least}, found {}", quote(written));
        sink.push(Diagnostic::new(Code::S010, &value.location, message).label("out of range"));
    }
    fitting
}

/// The index of a string among `options`.
pub(super) fn choice(value: &Value, what: &str, options: &[&str], sink: &mut Sink) -> Option<usize> {
    let text = string(value, what, sink)?;
    let found = options.iter().position(|&option| option == text.decoded);
    if found.is_none() {
        let message = format!("{what} cannot be {}", quote(&text.decoded));
        sink.push(
            Diagnostic::new(Code::S007, &value.location, message)
                .label(format!("expected {}", one_of(options)))
                .help(did_you_mean(&text.decoded, options.iter().copied())),
        );
    }
    found
}

pub(super) fn wrong_type(value: &Value, what: &str, expected: &str, sink: &mut Sink) {
    sink.push(mistyped(value, what, expected));
}

/// That a value has the wrong type.
pub(super) fn mistyped(value: &Value, what: &str, expected: &str) -> Diagnostic {
    let found = value.kind.name();
    Diagnostic::new(Code::S008, &value.location, format!("{what} must be {expected}, found {found}"))
        .label(format!("expected {expected}"))
}

/// Reports that something of the language is not supported yet.
pub(super) fn unsupported(location: &Location, what: &str, sink: &mut Sink) {
    sink.push(
        Diagnostic::new(Code::S012, location, format!("`{what}` is not supported yet"))
            .label("no kernel reads this yet"),
    );
}
