//! What no file of the tree may say, and what none may be called.

use super::Finding;
use super::code::{code_only, line_index};
use super::tree::Tree;

/// Macros that mark code as unfinished. The workspace's lints warn of them too, but not in every build.
const UNFINISHED: [&str; 3] = ["todo!(", "unimplemented!(", "dbg!("];

/// Starts of paths in somebody's home. Written in two pieces so that this file does not break its own rule.
const HOMES: [&str; 3] = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

/// Hosts of package registries: where packages come from is the machine's business.
const REGISTRIES: [&str; 6] = [
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("py", "pi.org"),
    concat!("pythonhosted", ".org"),
    concat!("npm", "js.org"),
    concat!("deb.debian", ".org"),
];

/// A name that says nothing.
const VAGUE: [&str; 2] = ["utils", "util"];

/// Reports home paths and registry hosts in any text, unfinished code in sources, and vague names.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts() {
        findings.extend(places(text, &HOMES).filter(|&(at, _)| starts_a_path(text, at)).map(|(at, home)| {
            let found = format!("an absolute path below {home}");
            Finding::error(path, found, "a path from the root of the tree").at(line_index(text, at) + 1)
        }));
        findings.extend(places(text, &REGISTRIES).map(|(at, host)| {
            Finding::error(path, format!("the host {host}"), "no host of a registry")
                .at(line_index(text, at) + 1)
        }));
    }
    for (path, text) in tree.sources() {
        let code = code_only(text);
        findings.extend(places(&code, &UNFINISHED).map(|(at, mark)| {
            Finding::error(path, format!("`{mark}…)`"), "finished code").at(line_index(&code, at) + 1)
        }));
    }
    let vague = tree.paths().filter(|path| path.split('/').any(|name| VAGUE.contains(&stem(name))));
    findings.extend(
        vague.map(|path| Finding::error(path, "a name that says nothing", "a name of what is in it")),
    );
    findings
}

fn places<'a>(text: &'a str, needles: &'a [&str]) -> impl Iterator<Item = (usize, &'a str)> {
    needles.iter().flat_map(move |needle| text.match_indices(needle))
}

/// Whether the slash at `at` is the first of its path, not one inside a path or an address.
fn starts_a_path(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back();
    !before.is_some_and(|c| c.is_alphanumeric() || "/._-~*}".contains(c))
}

fn stem(name: &str) -> &str {
    name.split_once('.').map_or(name, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use super::super::tests::printed;
    use super::*;

    #[test]
    fn home_paths_are_found_in_any_text() {
        let home = |name: &str| format!("x\nfile = \"/{name}/me/x\" # https://a.example/{name}/me\n");
        for name in [concat!("ho", "me"), concat!("ro", "ot"), concat!("Us", "ers")] {
            assert_eq!(
                printed(check(&Tree::default().with("a.md", &home(name)))),
                [format!(
                    "a.md:2: found an absolute path below /{name}/; expected a path from the root of the tree"
                )]
            );
        }
    }

    #[test]
    fn registry_hosts_are_found() {
        for host in REGISTRIES {
            let tree = Tree::default().with(".ci/run", &format!("curl https://{host}/x\n"));
            assert_eq!(
                printed(check(&tree)),
                [format!(".ci/run:1: found the host {host}; expected no host of a registry")]
            );
        }
        let lock = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        assert_eq!(printed(check(&Tree::default().with("Cargo.lock", lock))), [""; 0]);
    }

    #[test]
    fn unfinished_code_is_found_and_talk_of_it_is_not() {
        let tree = Tree::default()
            .with("a.rs", "// todo!()\nfn f() { todo!() }\nconst X: &str = \"dbg!(\";\nfn g() { dbg!(1); }\n")
            .with("b.md", "unimplemented!()");
        assert_eq!(
            printed(check(&tree)),
            [
                "a.rs:2: found `todo!(…)`; expected finished code",
                "a.rs:4: found `dbg!(…)`; expected finished code",
            ]
        );
    }

    #[test]
    fn vague_names_are_found() {
        let tree = Tree::default().with("a/utils.rs", "").with("b/util/mod.rs", "").with("c/utility.rs", "");
        assert_eq!(
            printed(check(&tree)),
            [
                "a/utils.rs: found a name that says nothing; expected a name of what is in it",
                "b/util/mod.rs: found a name that says nothing; expected a name of what is in it",
            ]
        );
    }
}
