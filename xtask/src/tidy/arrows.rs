//! Which crate may use which.
//!
//! The table has one row for each crate and names what it uses directly; what those use it may use too. Three rules
//! come on top: tests may use the test crates, the planner sees of the engines only their catalog, and nothing that
//! runs kernels brings in a parser by default.

use std::collections::BTreeSet;

use super::Finding;
use super::code::{code_only, line_index, words};
use super::manifest::{Dependency, Kind};
use super::tree::Tree;
use super::workspace::{Member, Workspace};

/// A package, and the packages of the workspace that it may use beside all that they may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("regard-ir", &[]),
    ("regard-simd", &[]),
    ("regard-map", &[]),
    ("regard-spec", &["regard-ir"]),
    ("regard-oracle", &["regard-ir", "regard-spec"]),
    ("regard-engine", &["regard-ir", "regard-simd"]),
    ("regard-planner", &["regard-spec", "regard-engine"]),
    ("regard-runtime", &["regard-engine"]),
    ("regard-kernels", &["regard-runtime"]),
    ("regard-codegen", &["regard-planner"]),
    ("regard-build", &["regard-codegen"]),
    ("regard-launch", &["regard-runtime", "regard-kernels"]),
    ("regard", &["regard-planner", "regard-launch", "regard-map"]),
    ("regard-layer", &["regard"]),
    ("regard-ffi", &["regard-runtime", "regard-kernels"]),
    ("regard-measure", &["regard-runtime", "regard-oracle"]),
    ("regard-cli", &["regard", "regard-layer", "regard-measure"]),
    ("regard-examples", &["regard"]),
    ("regard-dev", &["regard-oracle"]),
    ("regard-testkit", &["regard-oracle"]),
    ("regard-tests", &["regard-codegen", "regard", "regard-layer", "regard-oracle", "regard-testkit"]),
    ("xtask", &["regard-codegen"]),
];

/// What the tests of any crate that uses `regard-ir` may use.
const TEST_CRATES: [&str; 4] = ["regard-spec", "regard-oracle", "regard-testkit", "regard-dev"];

/// The top of what runs kernels; all that it uses is held to [`PARSERS`] as well.
const RUNTIME: &str = "regard-runtime";

/// What nothing at run time brings in unless a feature asks for it.
const PARSERS: [&str; 3] = ["nom", "serde", "toml"];

/// Reports each dependency against the arrows, what the planner sees beside the catalog, and each parser that the
/// runtime side brings in by default.
pub(super) fn check(tree: &Tree, workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in &workspace.members {
        if allowed(&member.package).is_none() {
            findings.push(Finding::error(
                &member.manifest_path(),
                format!("the package {}, which has no place among the crates", member.package),
                "a row in ARROWS of xtask/src/tidy/arrows.rs",
            ));
            continue;
        }
        let dependencies = workspace.dependencies(member);
        let forbidden = dependencies.iter().filter(|dependency| !may_use(workspace, member, dependency));
        findings.extend(forbidden.map(|dependency| forbidden_arrow(member, dependency)));
    }
    findings.extend(beside_the_catalog(tree, workspace));
    findings.extend(parsers(workspace));
    findings
}

/// A plan is made for any machine on any machine, so the planner reads what engines there are, never the engines.
fn beside_the_catalog(tree: &Tree, workspace: &Workspace) -> Vec<Finding> {
    let Some(planner) = workspace.member("regard-planner") else { return Vec::new() };
    let (engine, catalog) = ("regard_engine", "regard_engine::catalog");
    let mut findings = Vec::new();
    for (path, text) in tree.sources().filter(|(path, _)| planner.owns(path)) {
        let code = code_only(text);
        let others = words(&code, engine).filter(|&at| !code[at..].starts_with(catalog));
        findings.extend(others.map(|at| {
            Finding::error(path, format!("`{engine}`"), format!("`{catalog}`")).at(line_index(&code, at) + 1)
        }));
    }
    findings
}

fn may_use(workspace: &Workspace, member: &Member, dependency: &Dependency) -> bool {
    let target = dependency.package.as_str();
    let ours = workspace.member(target).is_some() || ARROWS.iter().any(|&(package, _)| package == target);
    let uses = allowed(&member.package).unwrap_or_default();
    let for_tests =
        dependency.kind == Kind::Dev && uses.contains("regard-ir") && TEST_CRATES.contains(&target);
    !ours || uses.contains(target) || for_tests
}

fn forbidden_arrow(member: &Member, dependency: &Dependency) -> Finding {
    let uses: Vec<_> = allowed(&member.package).unwrap_or_default().into_iter().collect();
    let expected = match uses[..] {
        [] => format!("{} to use no crate of the workspace", member.package),
        _ => format!("{} to use at most {}", member.package, uses.join(", ")),
    };
    let found = match dependency.kind {
        Kind::Normal | Kind::Workspace => format!("a dependency on {}", dependency.package),
        Kind::Build => format!("a build dependency on {}", dependency.package),
        Kind::Dev => format!("a dev-dependency on {}", dependency.package),
    };
    Finding::error(&member.manifest_path(), found, expected).at(dependency.line)
}

/// All that a package may use, or `None` if the table does not have it.
fn allowed(package: &str) -> Option<BTreeSet<&'static str>> {
    let (_, uses) = ARROWS.iter().find(|(name, _)| *name == package)?;
    let mut all: BTreeSet<_> = uses.iter().copied().collect();
    for used in *uses {
        all.extend(allowed(used).unwrap_or_default());
    }
    Some(all)
}

/// Follows the default features of the runtime and of all that it uses, as cargo would.
fn parsers(workspace: &Workspace) -> Vec<Finding> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut queue = vec![(RUNTIME.to_owned(), vec!["default".to_owned()])];
    let below = allowed(RUNTIME).unwrap_or_default();
    queue.extend(below.iter().map(|package| ((*package).to_owned(), vec!["default".to_owned()])));
    while let Some((package, asked)) = queue.pop() {
        let Some(member) = workspace.member(&package) else { continue };
        if !seen.insert((package, asked.clone())) {
            continue;
        }
        let on = turned_on(member, asked);
        for dependency in workspace.dependencies(member) {
            if dependency.kind == Kind::Dev
                || (dependency.optional && !on.dependencies.contains(&dependency.key))
            {
                continue;
            }
            if PARSERS.contains(&dependency.package.as_str()) {
                found.insert((member.manifest_path(), dependency.line, dependency.package));
                continue;
            }
            let prefix = format!("{}/", dependency.key);
            let forwarded = on.forwarded.iter().filter_map(|name| name.strip_prefix(&prefix));
            let mut features: Vec<_> = forwarded.map(str::to_owned).chain(dependency.features).collect();
            if dependency.default_features != Some(false) {
                features.push("default".to_owned());
            }
            features.sort();
            queue.push((dependency.package, features));
        }
    }
    let finding = |(file, line, package): (String, usize, String)| {
        let found = format!("a dependency on {package} under default features");
        Finding::error(&file, found, "no parser in what runs kernels, except by a feature that is off")
            .at(line)
    };
    found.into_iter().map(finding).collect()
}

/// What a member's features turn on.
#[derive(Default)]
struct TurnedOn {
    /// Keys of optional dependencies.
    dependencies: BTreeSet<String>,
    /// Features of dependencies, as `key/feature`.
    forwarded: BTreeSet<String>,
}

fn turned_on(member: &Member, asked: Vec<String>) -> TurnedOn {
    let features = member.manifest.features();
    let (mut on, mut seen, mut queue) = (TurnedOn::default(), BTreeSet::new(), asked);
    while let Some(name) = queue.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        if let Some(key) = name.strip_prefix("dep:") {
            on.dependencies.insert(key.to_owned());
        } else if let Some((key, feature)) = name.split_once('/') {
            if !key.ends_with('?') {
                on.dependencies.insert(key.to_owned());
            }
            on.forwarded.insert(format!("{}/{feature}", key.trim_end_matches('?')));
        } else if let Some(feature) = features.iter().find(|feature| feature.name == name) {
            queue.extend(feature.enables.iter().cloned());
        } else {
            on.dependencies.insert(name);
        }
    }
    on
}

#[cfg(test)]
mod tests {
    use super::super::tests::{printed, sound};
    use super::*;

    fn check_tree(tree: &Tree) -> Vec<String> {
        printed(check(tree, &Workspace::read(tree).unwrap()))
    }

    #[test]
    fn the_table_has_no_cycle_and_names_its_own_rows() {
        for (package, _) in ARROWS {
            let uses = allowed(package).unwrap();
            assert!(!uses.contains(package), "{package} uses itself");
            assert!(
                uses.iter().all(|used| ARROWS.iter().any(|(name, _)| name == used)),
                "{package}: {uses:?}"
            );
        }
        let runtime = allowed(RUNTIME).unwrap();
        assert_eq!(runtime.into_iter().collect::<Vec<_>>(), ["regard-engine", "regard-ir", "regard-simd"]);
    }

    #[test]
    fn an_arrow_that_turns_back_is_found_in_each_kind_of_table() {
        let expected = "expected regard-engine to use at most regard-ir, regard-simd";
        let cases = [
            ("[dependencies]\nregard-runtime = \"1\"", "a dependency on regard-runtime"),
            ("[dependencies]\nr = { package = \"regard-runtime\" }", "a dependency on regard-runtime"),
            ("[target.'cfg(unix)'.dependencies]\nregard-runtime = \"1\"", "a dependency on regard-runtime"),
            ("[build-dependencies]\nregard-runtime = \"1\"", "a build dependency on regard-runtime"),
            ("[dev-dependencies]\nregard-runtime = \"1\"", "a dev-dependency on regard-runtime"),
        ];
        for (table, found) in cases {
            let path = "crates/engine/Cargo.toml";
            let tree = sound().edit(path, "[dependencies]\nregard-ir.workspace = true", table);
            assert_eq!(check_tree(&tree), [format!("{path}:12: found {found}; {expected}")], "{table}");
        }
    }

    #[test]
    fn tests_may_use_the_test_crates_and_sources_may_not() {
        let text = |table| format!("[package]\nname = \"regard-engine\"\n{table}\nregard-testkit = \"1\"\n");
        let dev = sound().with("crates/engine/Cargo.toml", &text("[dev-dependencies]"));
        assert_eq!(check_tree(&dev), [""; 0]);
        let normal = sound().with("crates/engine/Cargo.toml", &text("[dependencies]"));
        assert_eq!(check_tree(&normal).len(), 1);
        let ir = sound().edit(
            "crates/ir/Cargo.toml",
            "[features]",
            "[dev-dependencies]\nregard-testkit = \"1\"\n",
        );
        assert_eq!(
            check_tree(&ir),
            ["crates/ir/Cargo.toml:15: found a dev-dependency on regard-testkit; \
              expected regard-ir to use no crate of the workspace"]
        );
    }

    #[test]
    fn the_planner_sees_of_the_engines_only_their_catalog() {
        let text = "// regard_engine::isa\nuse regard_engine::catalog::Entry;\nuse regard_engine::isa;\n";
        let tree = sound()
            .with("crates/planner/Cargo.toml", "[package]\nname = \"regard-planner\"\n")
            .with("crates/planner/src/tiles.rs", text);
        let expected = "found `regard_engine`; expected `regard_engine::catalog`";
        assert_eq!(check_tree(&tree), [format!("crates/planner/src/tiles.rs:3: {expected}")]);
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        let tree = sound().edit("crates/engine/Cargo.toml", "regard-engine", "regard-motor");
        let findings = check_tree(&tree);
        assert!(findings[0].contains("the package regard-motor, which has no place"), "{findings:?}");
    }

    #[test]
    fn a_parser_is_found_where_default_features_reach_it() {
        let serde = |line| {
            format!(
                "crates/ir/Cargo.toml:{line}: found a dependency on serde under default features; \
                 expected no parser in what runs kernels, except by a feature that is off"
            )
        };
        let ir = "crates/ir/Cargo.toml";
        let json = sound().edit(ir, "[features]\n", "[features]\njson = [\"dep:serde\"]\n");
        assert_eq!(check_tree(&json), [""; 0]);

        let plain = json.clone().edit(ir, ", optional = true", "");
        assert_eq!(check_tree(&plain), [serde(12)]);
        let default = json.clone().edit(ir, "[features]\n", "[features]\ndefault = [\"json\"]\n");
        assert_eq!(check_tree(&default), [serde(12)]);
        let asked = json.clone().edit(
            "crates/engine/Cargo.toml",
            "regard-ir.workspace = true",
            "regard-ir = { workspace = true, features = [\"json\"] }",
        );
        assert_eq!(check_tree(&asked), [serde(12)]);
        let features = "\n[features]\ndefault = [\"x\"]\nx = [\"regard-ir?/json\"]\n";
        let engine = json.text("crates/engine/Cargo.toml").unwrap().to_owned();
        let forwarded = json.with("crates/engine/Cargo.toml", &format!("{engine}{features}"));
        assert_eq!(check_tree(&forwarded), [serde(12)]);
    }

    #[test]
    fn the_runtime_does_not_see_the_language() {
        let tree =
            sound().edit("crates/runtime/Cargo.toml", "regard-engine.workspace = true", "toml = \"1\"");
        let [finding] = &check_tree(&tree)[..] else { panic!("one finding") };
        assert!(finding.starts_with("crates/runtime/Cargo.toml:12: found a dependency on toml"), "{finding}");
    }
}
