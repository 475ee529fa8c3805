//! The blocks of tables and their keys.

use regard_spec::reference::{self, Absent, Key, Takes};

use super::Block;
use super::blocks::table;

/// A block for each table, called as the table is.
pub(super) fn all() -> Vec<Block> {
    let block = |it: reference::Table| {
        let name = match it.kind {
            _ if it.name.is_empty() => "top".to_owned(),
            Some(kind) => format!("{} {kind}", it.name),
            None => it.name.to_owned(),
        };
        Block { name: format!("keys of {name}"), text: keys(&it.keys) }
    };
    reference::tables().into_iter().map(block).collect()
}

fn keys(keys: &[Key]) -> String {
    let rows = keys
        .iter()
        .map(|key| [format!("`{}`", key.name), takes(key.takes), absent(key.absent), key.meaning.to_owned()]);
    table(["key", "takes", "default", "meaning"], rows)
}

fn takes(takes: Takes) -> String {
    match takes {
        Takes::Integer { from, to } => format!("an integer from {from} to {to}"),
        Takes::Number(least) => format!("a number {least}"),
        Takes::Flag => "`true` or `false`".to_owned(),
        Takes::OneOf(options) => {
            options.iter().map(|option| format!("`\"{option}\"`")).collect::<Vec<_>>().join(", ")
        }
        Takes::Words(words) => words.to_owned(),
        Takes::Unsupported => "not supported yet".to_owned(),
    }
}

fn absent(absent: Absent) -> String {
    match absent {
        Absent::Required => "required".to_owned(),
        Absent::Value(value) => format!("`{value}`"),
        Absent::Words(words) => words.to_owned(),
    }
}
