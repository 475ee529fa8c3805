//! Keys in the wrong place.

use crate::diagnostic::one_of;
use crate::reference;

/// What a name that is no key here is elsewhere in the language, if it is anything.
///
/// A window is meant as a mask sooner than as one of lookahead keys.
pub(super) fn elsewhere(name: &str) -> Option<String> {
    let prelude = reference::prelude();
    if let Some(mask) = prelude.iter().map(|it| it.head).find(|head| head.split('(').next() == Some(name)) {
        return Some(format!("it is for expressions: `mask = \"{mask}\"`"));
    }
    let tables = reference::tables();
    // A single letter is a variable sooner than a key of another table.
    let has = |table: &&reference::Table| name.len() > 1 && table.keys.iter().any(|key| key.name == name);
    let mut homes: Vec<&str> = tables.iter().filter(has).map(|table| table.name).collect();
    homes.dedup();
    match homes[..] {
        [] => function(name),
        ["", ..] => Some("it stands at the top, in no table".to_string()),
        [home] => Some(format!("it is a key of `{home}`: write `{home}.{name}`")),
        _ => Some(format!("it is a key of {}", one_of(&homes))),
    }
}

fn function(name: &str) -> Option<String> {
    let functions = reference::functions();
    let function = functions.iter().find(|it| it.name == name)?;
    Some(format!("it is a function of expressions: `{name}({})`", function.params))
}
