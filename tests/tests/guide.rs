//! The guide to the language: each spec in it is one, and says what the compiler says of it.

use std::collections::BTreeMap;
use std::path::Path;

use regard::{Kernel, machine};
use regard_spec::{LoadError, Loader, reference};
use regard_tests::said::{expectation, expected, found};

const PAGES: [&str; 3] = ["language.md", "language/tables.md", "language/diagnostics.md"];

/// A spec of a page.
struct Block {
    page: &'static str,
    line: usize,
    text: String,
}

impl Block {
    /// Its file's name, where its first line says one.
    fn file(&self) -> Option<&str> {
        let name = self.text.lines().next()?.strip_prefix("# ")?;
        name.ends_with(".toml").then_some(name)
    }
}

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(path).expect("the guide has this page").replace("\r\n", "\n")
}

/// What stands between ```` ```toml ```` and ```` ``` ````.
fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for name in PAGES {
        let mut open: Option<Block> = None;
        for (i, line) in page(name).lines().enumerate() {
            match (&mut open, line) {
                (None, "```toml") => open = Some(Block { page: name, line: i + 2, text: String::new() }),
                (Some(_), "```") => blocks.extend(open.take()),
                (Some(block), line) => block.text += &format!("{line}\n"),
                (None, _) => {}
            }
        }
        assert!(open.is_none(), "{name} ends inside a block");
    }
    blocks
}

/// The blocks that are files.
struct Files(BTreeMap<String, String>);

impl Files {
    fn of(blocks: &[Block]) -> Self {
        Self(blocks.iter().filter_map(|it| Some((it.file()?.to_owned(), it.text.clone()))).collect())
    }
}

impl Loader for Files {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        self.0.get(path).map(|text| text.clone().into_bytes()).ok_or(LoadError::NotFound)
    }
}

#[test]
fn every_spec_gives_what_it_says_and_nothing_else() {
    let blocks = blocks();
    let files = Files::of(&blocks);
    for Block { page, line, text } in &blocks {
        let found = found(regard_spec::parse(text, "example.toml", &files));
        let found: Vec<_> = found.iter().map(expectation).collect();
        assert_eq!(found, expected(text), "docs/{page}:{line}\n{text}");
    }
    assert!(blocks.len() > 25, "{} specs", blocks.len());
}

#[test]
fn every_spec_without_errors_has_a_kernel() {
    let blocks = blocks();
    let files = Files::of(&blocks);
    let specs: Vec<_> = blocks
        .iter()
        .filter_map(|it| Some((it, regard_spec::parse(&it.text, "x.toml", &files).ok()?.spec)))
        .collect();
    for (Block { page, line, .. }, spec) in &specs {
        assert!(Kernel::compile(spec, &machine::host()).is_ok(), "docs/{page}:{line}");
    }
    assert!(specs.len() > 25, "{} specs", specs.len());
}

#[test]
fn the_grammar_has_every_token() {
    let text = page("language.md");
    let grammar = text.split("```\n").find(|block| block.starts_with("expr")).expect("the grammar is there");
    let mut written: Vec<_> = grammar.split('\'').skip(1).step_by(2).collect();
    let mut tokens: Vec<_> = reference::tokens().collect();
    written.sort();
    written.dedup();
    tokens.sort();
    assert_eq!(written, tokens);
}

#[test]
fn links_lead_somewhere() {
    let mut n = 0;
    for name in PAGES {
        let text = page(name);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match (path, name.rsplit_once('/')) {
                ("", _) => name.to_owned(),
                (path, None) => path.to_owned(),
                (path, Some((folder, _))) => match path.strip_prefix("../") {
                    Some(above) => above.to_owned(),
                    None => format!("{folder}/{path}"),
                },
            };
            let found = PAGES.contains(&target.as_str())
                && (anchor.is_empty() || headings(&page(&target)).contains(&anchor.to_owned()));
            assert!(found, "docs/{name} links to {link}");
            n += 1;
        }
    }
    assert!(n > 60, "{n} links");
}

/// What a heading is linked by.
fn headings(page: &str) -> Vec<String> {
    let headings = page.lines().filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '_' | '-');
    headings.map(|it| it.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}
