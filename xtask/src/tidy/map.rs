//! That the map of the crates names what exists.

use super::Finding;
use super::tree::Tree;
use super::workspace::Workspace;

/// Where the map is.
const MAP: &str = "crates/ARCHITECTURE.md";

/// Endings that make a word without a slash a path.
const ENDINGS: [&str; 4] = [".md", ".rs", ".toml", ".lock"];

/// Reports members that the map misses and paths in it that are gone.
pub(super) fn check(tree: &Tree, workspace: &Workspace) -> Vec<Finding> {
    let Some(text) = tree.text(MAP) else {
        return vec![Finding::error(MAP, "no such file", "a map of the crates")];
    };
    let named: Vec<_> = quoted(text).collect();
    let missing = workspace
        .members
        .iter()
        .filter(|member| !named.iter().any(|(_, word)| word.trim_end_matches('/') == member.folder));
    let mut findings: Vec<_> = missing
        .map(|member| Finding::error(MAP, format!("no mention of `{}`", member.folder), "every member crate"))
        .collect();
    let gone = named.iter().filter(|(_, word)| is_path(word) && !tree.exists(word.trim_end_matches('/')));
    findings.extend(gone.map(|(line, word)| {
        Finding::error(MAP, format!("`{word}`, which does not exist"), "a path from the root").at(*line)
    }));
    findings
}

/// What stands in backticks outside of fenced blocks, with its line.
fn quoted(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    let prose = text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    prose.flat_map(|(index, line)| line.split('`').skip(1).step_by(2).map(move |word| (index + 1, word)))
}

/// Whether a word has the form of a path: letters, digits and `._-`, and a slash or an ending that we know.
fn is_path(word: &str) -> bool {
    let path_like = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    word.chars().all(path_like) && (word.contains('/') || ENDINGS.iter().any(|ending| word.ends_with(ending)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{printed, sound};
    use super::*;

    fn check_tree(tree: &Tree) -> Vec<String> {
        printed(check(tree, &Workspace::read(tree).unwrap()))
    }

    #[test]
    fn a_crate_that_the_map_misses_is_found() {
        let tree = sound().with(MAP, "`crates/ir/`, `crates/engine`, crates/runtime and `runtime`.");
        assert_eq!(
            check_tree(&tree),
            ["crates/ARCHITECTURE.md: found no mention of `crates/runtime`; expected every member crate"]
        );
    }

    #[test]
    fn a_path_that_is_gone_is_found() {
        let paths = "\nSee `crates/ir/src/lib.rs`, `crates/ir/src/old.rs`, `old.md`, `cargo xtask ci` and `a / b`.\n\
                     ```\n`crates/fenced`\n```\n`crates/gone`\n";
        let text = format!("{}{paths}", sound().text(MAP).unwrap());
        let gone = |line: usize, word: &str| {
            format!("{MAP}:{line}: found `{word}`, which does not exist; expected a path from the root")
        };
        assert_eq!(
            check_tree(&sound().with(MAP, &text)),
            [gone(3, "crates/ir/src/old.rs"), gone(3, "old.md"), gone(7, "crates/gone")]
        );
    }

    #[test]
    fn a_tree_without_a_map_is_found() {
        assert_eq!(
            check_tree(&sound().without(MAP)),
            ["crates/ARCHITECTURE.md: found no such file; expected a map of the crates"]
        );
    }
}
