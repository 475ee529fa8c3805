//! A table that a spec has, and its keys by name, type and default.

use super::extends::Chain;
use super::fields;
use super::key::{self, Key, Least};
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink};
use crate::document::{Entry, Kind, Value};

/// A table of the language.
///
/// What is read from it is `None` where that is reported, so that no error follows from another.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    chain: &'a Chain,
    /// As it is called from the top: `position.rope`.
    name: &'static str,
    /// The keys that it may have.
    keys: &'static [Key],
    pub(super) value: &'a Value,
    pub(super) entries: &'a [Entry],
}

impl<'a> Table<'a> {
    /// The value as a table of these keys, others refused; `None` where it is none.
    pub(super) fn read(
        chain: &'a Chain,
        value: &'a Value,
        name: &'static str,
        keys: &'static [Key],
        sink: &mut Sink,
    ) -> Option<Self> {
        let table = Self::unchecked(chain, value, name, keys, sink)?;
        fields::check_keys(table.entries, &key::names(keys), Some(name), sink);
        Some(table)
    }

    /// As [`Table::read`]; the caller refuses other keys.
    pub(super) fn unchecked(
        chain: &'a Chain,
        value: &'a Value,
        name: &'static str,
        keys: &'static [Key],
        sink: &mut Sink,
    ) -> Option<Self> {
        let entries = fields::table(Some(value), name, sink);
        let Kind::Table(_) = value.kind else { return None };
        Some(Self { chain, name, keys, value, entries })
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        fields::get(self.entries, key)
    }

    /// A key that must be there.
    pub(super) fn required(&self, key: &str, help: Option<&str>, sink: &mut Sink) -> Option<&'a Value> {
        let found = self.get(key);
        // A misspelt key is not missing too, and what could not be read may have said it.
        if found.is_none()
            && !fields::misspelt(self.entries, &key::names(self.keys), key)
            && !self.chain.may_say(key)
        {
            let message = format!("{} is missing", self.what(key));
            let error = Diagnostic::new(Code::S009, &self.value.location, message).label("it is required");
            sink.push(error.help(help.map(str::to_string)));
        }
        found
    }

    /// A number, which must be given if it has no default.
    pub(super) fn number(
        &self,
        key: &str,
        default: Option<f64>,
        least: Least,
        sink: &mut Sink,
    ) -> Option<f64> {
        if default.is_some() && self.get(key).is_none() {
            return default;
        }
        fields::number(self.required(key, None, sink)?, &self.what(key), least, sink)
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str, default: bool, sink: &mut Sink) -> Option<bool> {
        self.get(key).map_or(Some(default), |value| fields::bool(value, &self.what(key), sink))
    }

    /// The index of a string among `options`, of which the first is the default.
    pub(super) fn choice(&self, key: &str, options: &[&str], sink: &mut Sink) -> Option<usize> {
        self.get(key).map_or(Some(0), |value| fields::choice(value, &self.what(key), options, sink))
    }

    /// Refuses a key, if it is there, for what else is or is not; `why` is what the key would act on.
    pub(super) fn refuse(&self, key: &str, beside: &str, why: &str, help: Option<&str>, sink: &mut Sink) {
        if let Some(entry) = self.entries.iter().find(|entry| entry.name() == key) {
            let message = format!("{} has no meaning {beside}", self.what(key));
            let error = Diagnostic::new(Code::S043, &entry.key.token(), message).label(why);
            sink.push(error.help(help.map(str::to_string)));
        }
    }

    /// A key as messages call it.
    pub(super) fn what(&self, key: &str) -> String {
        format!("`{}.{key}`", self.name)
    }
}
