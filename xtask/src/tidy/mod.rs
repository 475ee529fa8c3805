//! `cargo xtask tidy`: the rules of the tree that no compiler checks.
//!
//! Each check is a pure function from a listing of the tree to findings, so that its tests run on trees of a few
//! lines. What clippy or rustc can check is left to them.

mod arrows;
mod code;
mod homes;
mod manifest;
mod manifests;
mod map;
mod sizes;
mod text;
mod tree;
mod workspace;

use std::fmt;
use std::io::Write as _;
use std::path::Path;

use crate::error::Error;
use tree::Tree;
use workspace::Workspace;

pub(crate) use manifest::Manifest;

/// Whether a finding fails the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Worth a look.
    Note,
    /// A broken rule.
    Error,
}

/// One place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    file: String,
    line: Option<usize>,
    found: String,
    expected: String,
}

impl Finding {
    fn error(file: &str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        let (found, expected) = (found.into(), expected.into());
        Self { level: Level::Error, file: file.to_owned(), line: None, found, expected }
    }

    fn note(file: &str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { level: Level::Note, ..Self::error(file, found, expected) }
    }

    /// The same finding at a line, counted from 1.
    fn at(self, line: usize) -> Self {
        Self { line: Some(line), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Note => "note: ",
            Level::Error => "",
        };
        write!(f, "{level}{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": found {}; expected {}", self.found, self.expected)
    }
}

/// Checks the tree below `root` and prints one line for each finding.
///
/// # Errors
/// If the tree cannot be read, or a rule is broken.
pub(crate) fn run(root: &Path) -> Result<(), Error> {
    let findings = check(&Tree::read(root)?);
    let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    // A reader that has seen enough closes the pipe; the exit code still tells.
    let _ = std::io::stdout().write_all(lines.as_bytes());
    match findings.iter().filter(|finding| finding.level == Level::Error).count() {
        0 => Ok(()),
        errors => Err(Error::Untidy { errors }),
    }
}

/// Every finding of a tree, in order of file and line.
fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = match Workspace::read(tree) {
        Ok(workspace) => [
            arrows::check(tree, &workspace),
            homes::check(tree, &workspace),
            manifests::check(&workspace),
            map::check(tree, &workspace),
        ]
        .concat(),
        Err(findings) => findings,
    };
    findings.extend(sizes::check(tree));
    findings.extend(text::check(tree));
    findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    findings
}

#[cfg(test)]
mod tests {
    use super::tree::Tree;
    use super::*;

    /// A tree of three members and one home of unsafe that breaks no rule.
    pub(super) fn sound() -> Tree {
        let root = "[workspace]\nmembers = [\"crates/*\"]\n\n[workspace.dependencies]\n\
                    regard-ir = { path = \"crates/ir\" }\n\
                    regard-engine = { path = \"crates/engine\", default-features = false }\n";
        let member = |name: &str, rest: &str| {
            format!(
                "[package]\nname = \"{name}\"\nversion.workspace = true\nedition.workspace = true\n\
                 rust-version.workspace = true\nlicense.workspace = true\n\n\
                 [lints]\nworkspace = true\n\n{rest}"
            )
        };
        Tree::default()
            .with("Cargo.toml", root)
            .with(
                "crates/ir/Cargo.toml",
                &member(
                    "regard-ir",
                    "[dependencies]\nserde = { version = \"1\", optional = true }\n\n[features]\n",
                ),
            )
            .with("crates/ir/src/lib.rs", "#![no_std]\n#![forbid(unsafe_code)]\n")
            .with(
                "crates/engine/Cargo.toml",
                &member("regard-engine", "[dependencies]\nregard-ir.workspace = true\n"),
            )
            .with("crates/engine/src/lib.rs", "// SAFETY: nothing happens.\nfn f() { unsafe {} }\n")
            .with(
                "crates/runtime/Cargo.toml",
                &member("regard-runtime", "[dependencies]\nregard-engine.workspace = true\n"),
            )
            .with("crates/runtime/src/lib.rs", "#![forbid(unsafe_code)]\n")
            .with("crates/ARCHITECTURE.md", "`crates/ir`, `crates/engine` and `crates/runtime`.\n")
    }

    /// Findings as they are printed.
    pub(super) fn printed(findings: Vec<Finding>) -> Vec<String> {
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_sound_tree_has_no_findings() {
        assert_eq!(printed(check(&sound())), [""; 0]);
    }

    #[test]
    fn every_check_runs_and_findings_are_in_order() {
        let tree = sound()
            .edit("crates/ir/Cargo.toml", "[features]\n", "[features]\ndefault = [\"serde\"]\nstd = []\n")
            .edit("crates/runtime/src/lib.rs", "#![forbid(unsafe_code)]", "fn f() { dbg!(1) }")
            .with("crates/ir/src/utils.rs", &"\n".repeat(601))
            .with("crates/ARCHITECTURE.md", "`crates/ir` and `crates/engine`.");
        let files: Vec<_> = check(&tree).into_iter().map(|finding| (finding.file, finding.line)).collect();
        let at = |file: &str, line| (file.to_owned(), line);
        assert_eq!(
            files,
            [
                at("crates/ARCHITECTURE.md", None),
                at("crates/ir/Cargo.toml", Some(12)),
                at("crates/ir/Cargo.toml", Some(16)),
                at("crates/ir/src/utils.rs", None),
                at("crates/ir/src/utils.rs", None),
                at("crates/runtime/src/lib.rs", None),
                at("crates/runtime/src/lib.rs", Some(1)),
            ]
        );
    }

    #[test]
    fn a_manifest_that_does_not_parse_is_a_finding() {
        let tree = sound().with("crates/ir/Cargo.toml", "[package\n");
        let [finding] = &printed(check(&tree))[..] else { panic!("one finding") };
        assert!(finding.starts_with("crates/ir/Cargo.toml:1: found a syntax error"), "{finding}");
    }
}
