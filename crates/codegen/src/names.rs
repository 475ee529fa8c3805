//! Names for what is generated.

use std::collections::BTreeSet;

use regard_ir::variant::InputShape;

/// Rust's keywords, and words that are reserved to become some.
const KEYWORDS: [&str; 52] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop",
    "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static",
    "struct", "super", "trait", "true", "try", "type", "typeof", "union", "unsafe", "unsized", "use",
    "virtual", "where", "while", "yield",
];

/// The path of the module of a spec called `name`, as its parts: `models/gpt-2` is `models`, `gpt_2`.
pub(crate) fn module_path(name: &str) -> Vec<String> {
    name.split('/').map(identifier).collect()
}

/// A snake-case identifier that is like `name`.
fn identifier(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        match c {
            c if c.is_ascii_alphanumeric() => text.push(c.to_ascii_lowercase()),
            _ if text.is_empty() || text.ends_with('_') => {}
            _ => text.push('_'),
        }
    }
    let text = text.trim_end_matches('_');
    match text.chars().next() {
        None => "unnamed".to_owned(),
        Some(c) if c.is_ascii_digit() => format!("n{text}"),
        _ if KEYWORDS.contains(&text) => format!("{text}_"),
        _ => text.to_owned(),
    }
}

/// What captured inputs are called in a module.
pub(crate) struct InputNames {
    /// A constant for each.
    pub(crate) constants: Vec<String>,
    /// A variable for an element of each, where the name is short enough that a line with a whole index fits.
    pub(crate) variables: Vec<Option<String>>,
}

impl InputNames {
    /// Names like those of the spec.
    pub(crate) fn new(names: &[String], shapes: &[InputShape]) -> Self {
        // An index of many axes, each the name of a variable, must fit a line.
        let (constant_len, variable_len) = match shapes.iter().map(|shape| shape.rank).max() {
            Some(4..) => (12, 6),
            _ => (20, 10),
        };
        let mut taken = BTreeSet::from(["VARIANT".to_owned(), "IDENTITY".to_owned()]);
        let (mut constants, mut variables) = (vec![], vec![]);
        for (i, name) in names.iter().enumerate() {
            let name = identifier(name);
            let constant = name.trim_end_matches('_').to_ascii_uppercase();
            let is_free = constant.len() <= constant_len && taken.insert(constant.clone());
            constants.push(if is_free { constant } else { format!("INPUT_{i}") });
            variables.push((name.len() <= variable_len).then_some(name));
        }
        Self { constants, variables }
    }
}

/// The variables of one function, each with a name of its own.
#[derive(Clone, Default)]
pub(crate) struct Scope {
    taken: BTreeSet<String>,
    counter: usize,
}

impl Scope {
    /// A scope in which these names are taken.
    pub(crate) fn new<'a>(taken: impl IntoIterator<Item = &'a str>) -> Self {
        Self { taken: taken.into_iter().map(str::to_owned).collect(), counter: 0 }
    }

    /// The name that is wanted, or a numbered one.
    pub(crate) fn name(&mut self, wanted: Option<&str>) -> String {
        if let Some(name) = wanted.filter(|&name| !self.taken.contains(name)) {
            self.taken.insert(name.to_owned());
            return name.to_owned();
        }
        loop {
            self.counter += 1;
            let name = format!("t{}", self.counter);
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use regard_ir::variant::{Axis, InputType};

    use super::*;

    #[test]
    fn any_file_name_becomes_an_identifier() {
        let path = |name| module_path(name).join("::");
        assert_eq!(path("models/gpt-2"), "models::gpt_2");
        assert_eq!(path("Type"), "type_");
        assert_eq!(path("9b. draft"), "n9b_draft");
        assert_eq!(path("窓"), "unnamed");
    }

    #[test]
    fn inputs_that_differ_by_case_alone_are_told_apart() {
        let names = ["Doc", "doc", "variant", "a_name_of_more_than_twenty"].map(str::to_owned);
        let shapes = [InputShape::new(InputType::I32, &[Axis::Key]); 4];
        let InputNames { constants, variables } = InputNames::new(&names, &shapes);
        assert_eq!(constants, ["DOC", "INPUT_1", "INPUT_2", "INPUT_3"]);
        assert_eq!(variables[3], None);
        let mut scope = Scope::new(["at"]);
        assert_eq!(
            variables[..2].iter().map(|name| scope.name(name.as_deref())).collect::<Vec<_>>(),
            ["doc", "t1"]
        );
        assert_eq!([scope.name(Some("at")), scope.name(None)], ["t2", "t3"]);
    }
}
