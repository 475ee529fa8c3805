//! Where unsafe code lives, and that each piece of it says why it is sound.

use super::Finding;
use super::code::{code_only, line_index, words};
use super::tree::Tree;
use super::workspace::{Member, Workspace};

/// Packages that may hold unsafe code.
const HOMES: [&str; 3] = ["regard-engine", "regard-map", "regard-ffi"];

/// A program outside the workspace that has the C entry point of a binary without std, which is an unsafe attribute.
const LINK_PROGRAM: &str = "xtask/link/";

/// What forbids unsafe code in a crate.
const FORBID: &str = "#![forbid(unsafe_code)]";

/// How a comment that gives reasons is marked.
const MARKS: [&str; 2] = ["SAFETY:", "# Safety"];

/// Reports roots that do not forbid unsafe code, unsafe code outside its homes, and any without reasons.
pub(super) fn check(tree: &Tree, workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    let foreign = workspace.members.iter().filter(|member| !HOMES.contains(&member.package.as_str()));
    for root in foreign.flat_map(|member| roots(tree, member)) {
        let code = code_only(tree.text(&root).unwrap_or_default());
        if !code.lines().any(|line| line.trim() == FORBID) {
            findings.push(Finding::error(&root, "no line that forbids unsafe code", format!("`{FORBID}`")));
        }
    }
    for (path, text) in tree.sources() {
        let code = code_only(text);
        let places = words(&code, "unsafe").filter(|&at| !is_pointer_type(&code[at..]));
        let lines = places.map(|at| line_index(&code, at));
        if is_home(workspace, path) {
            let bare = lines.filter(|&line| !has_reasons(text, &code, line));
            findings.extend(bare.map(|line| {
                let expected = "a SAFETY comment above it, or a `# Safety` section in its doc";
                Finding::error(path, "unsafe code without reasons", expected).at(line + 1)
            }));
        } else {
            findings.extend(lines.map(|line| {
                let expected = format!("it only in {}", HOMES.join(", "));
                Finding::error(path, "unsafe code", expected).at(line + 1)
            }));
        }
    }
    findings
}

fn is_home(workspace: &Workspace, path: &str) -> bool {
    let home = |member: &Member| HOMES.contains(&member.package.as_str()) && member.owns(path);
    path.starts_with(LINK_PROGRAM) || workspace.members.iter().any(home)
}

/// The root files of a member's library and binaries.
fn roots(tree: &Tree, member: &Member) -> Vec<String> {
    let named = member.manifest.named_roots().into_iter();
    let mut roots: Vec<_> =
        named.chain(["src/lib.rs", "src/main.rs"]).map(|path| format!("{}/{path}", member.folder)).collect();
    let bins = format!("{}/src/bin/", member.folder);
    roots.extend(tree.paths().filter(|path| path.starts_with(&bins)).map(str::to_owned));
    roots.retain(|root| root.ends_with(".rs") && tree.text(root).is_some());
    roots.sort();
    roots.dedup();
    roots
}

/// Whether this is the type of a function pointer, which is not unsafe itself.
fn is_pointer_type(from_unsafe: &str) -> bool {
    let mut tokens = from_unsafe["unsafe".len()..].split_whitespace().peekable();
    if tokens.peek() == Some(&"extern") {
        tokens.next();
    }
    tokens.next().is_some_and(|token| token.starts_with("fn("))
}

/// Whether a comment with reasons stands on this line, or above it without another statement between.
///
/// clippy judges blocks and impls more exactly; this covers functions, attributes and traits too.
fn has_reasons(text: &str, code: &str, line: usize) -> bool {
    let (texts, codes): (Vec<_>, Vec<_>) = (text.lines().collect(), code.lines().collect());
    let marked = |index: usize| {
        let comment = texts[index].find("//").map_or("", |at| &texts[index][at..]);
        MARKS.iter().any(|mark| comment.contains(mark))
    };
    if marked(line) {
        return true;
    }
    for above in (0..line).rev() {
        if marked(above) {
            return true;
        }
        let (text, code) = (texts[above].trim(), codes[above].trim());
        let other_statement = !code.starts_with("#[") && code.ends_with([';', '}', '{']);
        if text.is_empty() || other_statement {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::tests::{printed, sound};
    use super::*;

    fn check_tree(tree: &Tree) -> Vec<String> {
        printed(check(tree, &Workspace::read(tree).unwrap()))
    }

    #[test]
    fn a_root_must_forbid_unsafe_code() {
        let commented = "// #![forbid(unsafe_code)]\n";
        let tree = sound().with("crates/ir/src/lib.rs", commented).with("crates/ir/src/bin/tool.rs", "");
        assert_eq!(
            check_tree(&tree),
            [
                "crates/ir/src/bin/tool.rs: found no line that forbids unsafe code; expected `#![forbid(unsafe_code)]`",
                "crates/ir/src/lib.rs: found no line that forbids unsafe code; expected `#![forbid(unsafe_code)]`",
            ]
        );
    }

    #[test]
    fn unsafe_code_outside_its_homes_is_found() {
        let text = "// unsafe\nconst WORD: &str = \"unsafe\";\nfn f() { unsafe { g() } }\n";
        let expected = ["crates/ir/tests/x.rs:3: found unsafe code; \
                         expected it only in regard-engine, regard-map, regard-ffi"];
        assert_eq!(check_tree(&sound().with("crates/ir/tests/x.rs", text)), expected);
    }

    #[test]
    fn unsafe_code_needs_its_reasons() {
        let engine = "crates/engine/src/tile.rs";
        let bad = [
            "fn f() {\n    unsafe { g() }\n}",
            "// SAFETY: of another statement.\nlet a = unsafe { g() };\nlet b = unsafe { g() };",
            "// SAFETY: too far.\n\nunsafe impl Send for X {}",
            "/// Does it.\npub unsafe fn f() {}",
            "let mark = \"SAFETY:\"; unsafe { g() }",
        ];
        for text in bad {
            let findings = check_tree(&sound().with(engine, text));
            assert_eq!(findings.len(), 1, "{text}");
            assert!(findings[0].contains("unsafe code without reasons"), "{findings:?}");
        }
        let good = [
            "// SAFETY: g has no conditions.\nunsafe { g() }",
            "unsafe { g() } // SAFETY: g has no conditions.",
            "/// # Safety\n/// - none.\n#[inline]\n#[cfg(unix)]\npub unsafe fn f() {}",
            "// SAFETY: g has no conditions.\nlet a: Long =\n    unsafe { g() };",
            "type F = unsafe fn(f32);\ntype G = unsafe extern \"C\" fn(f32);",
        ];
        for text in good {
            assert_eq!(check_tree(&sound().with(engine, text)), [""; 0], "{text}");
        }
    }

    #[test]
    fn the_link_program_is_held_to_reasons() {
        let bare = sound().with("xtask/link/src/main.rs", "#[unsafe(no_mangle)]\n");
        assert_eq!(check_tree(&bare).len(), 1);
        let reasoned = sound().with("xtask/link/src/main.rs", "// SAFETY: one main.\n#[unsafe(no_mangle)]\n");
        assert_eq!(check_tree(&reasoned), [""; 0]);
    }
}
