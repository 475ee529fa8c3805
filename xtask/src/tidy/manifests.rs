//! That manifests share what they should share, and say why they ask for what they ask for.

use super::Finding;
use super::manifest::{Dependency, Kind, Manifest};
use super::workspace::{Member, Workspace};

/// What every member takes from the workspace.
const INHERITED: [&[&str]; 5] = [
    &["package", "version"],
    &["package", "edition"],
    &["package", "rust-version"],
    &["package", "license"],
    &["lints"],
];

/// Dependencies whose job the whole project knows; any other is explained where it is declared.
const CORE: [&str; 8] = ["pulp", "gemm", "half", "memmap2", "serde", "toml", "nom", "insta"];

/// Reports what a member does not inherit, and features and dependencies without a comment.
pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = unexplained(workspace, Workspace::ROOT, &workspace.root);
    for member in &workspace.members {
        let path = member.manifest_path();
        findings.extend(not_inherited(member));
        findings.extend(unexplained(workspace, &path, &member.manifest));
    }
    findings
}

fn not_inherited(member: &Member) -> impl Iterator<Item = Finding> {
    INHERITED.iter().filter(|path| !member.manifest.inherits(path)).map(|path| {
        let key = path.join(".");
        let expected = format!("`{key}.workspace = true`");
        Finding::error(&member.manifest_path(), format!("a {key} that is not the workspace's"), expected)
    })
}

fn unexplained(workspace: &Workspace, path: &str, manifest: &Manifest) -> Vec<Finding> {
    let known = |dependency: &Dependency| {
        CORE.contains(&dependency.package.as_str()) || workspace.member(&dependency.package).is_some()
    };
    let inherited = |dependency: &Dependency| dependency.inherited && dependency.kind != Kind::Workspace;
    let dependencies = manifest.dependencies().into_iter();
    let dependencies =
        dependencies.filter(|d| !d.commented && !inherited(d) && !known(d)).map(|dependency| {
            let found = format!("the dependency {} without a comment", dependency.key);
            Finding::error(path, found, "a line above it on why").at(dependency.line)
        });
    let features = manifest.features().into_iter();
    let features =
        features.filter(|feature| !feature.commented && feature.name != "default").map(|feature| {
            let found = format!("the feature {} without a comment", feature.name);
            Finding::error(path, found, "a line above it on what it permits").at(feature.line)
        });
    dependencies.chain(features).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{printed, sound};
    use super::*;
    use crate::tidy::Tree;

    fn check_tree(tree: &Tree) -> Vec<String> {
        printed(check(&Workspace::read(tree).unwrap()))
    }

    #[test]
    fn members_inherit_from_the_workspace() {
        let tree = sound()
            .edit("crates/ir/Cargo.toml", "edition.workspace = true", "edition = \"2021\"")
            .edit("crates/ir/Cargo.toml", "[lints]\nworkspace = true", "[lints.rust]");
        assert_eq!(
            check_tree(&tree),
            [
                "crates/ir/Cargo.toml: found a package.edition that is not the workspace's; \
                 expected `package.edition.workspace = true`",
                "crates/ir/Cargo.toml: found a lints that is not the workspace's; expected `lints.workspace = true`",
            ]
        );
    }

    #[test]
    fn features_have_comments() {
        let features = "[features]\ndefault = [\"a\"]\n# Lets it.\na = []\nb = []\n";
        let tree = sound().edit("crates/ir/Cargo.toml", "[features]\n", features);
        assert_eq!(
            check_tree(&tree),
            [
                "crates/ir/Cargo.toml:18: found the feature b without a comment; expected a line above it on what it permits"
            ]
        );
    }

    #[test]
    fn dependencies_outside_the_core_have_comments_where_they_are_declared() {
        let rest = "[dependencies]\n# Roots.\nlibm = \"0.2\"\nrand = \"1\"\nshared.workspace = true\n";
        let tree = sound().edit("crates/ir/Cargo.toml", "[dependencies]\n", rest).edit(
            "Cargo.toml",
            "regard-ir =",
            "shared = \"1\"\nhalf = \"2\"\nregard-ir =",
        );
        assert_eq!(
            check_tree(&tree),
            [
                "Cargo.toml:5: found the dependency shared without a comment; expected a line above it on why",
                "crates/ir/Cargo.toml:14: found the dependency rand without a comment; expected a line above it on why",
            ]
        );
    }
}
