//! `cargo xtask guide`: the parts of the guide to the language that are made from the compiler's own tables.
//!
//! A page of the guide is prose with blocks between marks. What is between `<!-- made: NAME -->` and `<!-- end -->` is
//! made here; the rest is written by hand and left alone.

mod blocks;
mod codes;
mod keys;

use std::fmt;
use std::path::Path;

use crate::error::Error;
use crate::files;

/// The pages.
pub(crate) const PAGES: [&str; 3] =
    ["docs/language.md", "docs/language/tables.md", "docs/language/diagnostics.md"];

/// Starts a block, before its name.
const START: &str = "<!-- made: ";
/// Ends the line that starts a block.
const STARTED: &str = " -->\n";
/// Ends a block.
const END: &str = "<!-- end -->";

/// Makes every block anew, and writes the pages that change. Nothing is touched unless all could be made.
///
/// # Errors
/// If a page cannot be read or written, or its marks are wrong.
pub(crate) fn write(root: &Path) -> Result<(), Error> {
    let pages = pages(root)?;
    for page in pages.iter().filter(|page| page.text != page.made) {
        let path = root.join(page.path);
        std::fs::write(&path, &page.made).map_err(Error::read(&path))?;
        println!("wrote {}", page.path);
    }
    Ok(())
}

/// Compares the pages with what they should be, and prints a line for each that is not.
///
/// # Errors
/// If there is such a page, and as [`write`].
pub(crate) fn check(root: &Path) -> Result<(), Error> {
    let drifted: Vec<_> = pages(root)?.into_iter().filter(|page| page.text != page.made).collect();
    drifted.iter().for_each(|page| println!("{page}"));
    if drifted.is_empty() { Ok(()) } else { Err(Error::Guide { pages: drifted.len() }) }
}

/// A page as it is, and as it should be.
struct Page {
    path: &'static str,
    text: String,
    made: String,
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not what the language has: run `cargo xtask guide` and commit the result", self.path)
    }
}

fn pages(root: &Path) -> Result<Vec<Page>, Error> {
    let mut blocks = blocks::all();
    blocks.append(&mut codes::all(root)?);
    let mut used = Vec::new();
    let mut pages = Vec::new();
    for path in PAGES {
        let text = files::read(root, Path::new(path))?.text;
        let made = fill(&text, &blocks, &mut used)
            .map_err(|what| Error::GuideMarks { page: path.to_owned(), what })?;
        pages.push(Page { path, text, made });
    }
    match blocks.iter().find(|block| !used.contains(&block.name)) {
        None => Ok(pages),
        Some(block) => Err(Error::GuideMarks {
            page: PAGES.join(", "),
            what: format!("no page has the block `{}`", block.name),
        }),
    }
}

/// What stands between two marks.
struct Block {
    name: String,
    text: String,
}

/// The page with each block as it should be; the names of its blocks are added to `used`.
fn fill(page: &str, blocks: &[Block], used: &mut Vec<String>) -> Result<String, String> {
    let mut made = String::new();
    let mut rest = page;
    while let Some((before, from_name)) = rest.split_once(START) {
        let (name, after) = from_name.split_once(STARTED).ok_or("a mark that does not end")?;
        let block = blocks.iter().find(|block| block.name == name);
        let block = block.ok_or_else(|| format!("there is no block `{name}`"))?;
        let (old, after) = after.split_once(END).ok_or_else(|| format!("`{name}` has no end"))?;
        if old.contains(START) {
            return Err(format!("`{name}` has no end"));
        }
        used.push(name.to_owned());
        made += &format!("{before}{START}{name}{STARTED}\n{}\n{END}", block.text);
        rest = after;
    }
    Ok(made + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_what_the_language_has() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let drifted: Vec<_> =
            pages(root).unwrap().into_iter().filter(|page| page.text != page.made).collect();
        assert_eq!(drifted.iter().map(Page::to_string).collect::<Vec<_>>(), [""; 0]);
    }

    fn filled(page: &str) -> Result<String, String> {
        let block = Block { name: "x".to_owned(), text: "| new |\n".to_owned() };
        fill(page, &[block], &mut Vec::new())
    }

    #[test]
    fn what_is_between_marks_is_made_anew_and_all_else_stays() {
        let page = |inside: &str| format!("a\n<!-- made: x -->\n{inside}<!-- end -->\nb\n");
        assert_eq!(filled(&page("old\n")), Ok(page("\n| new |\n\n")));
        assert_eq!(filled(&page("\n| new |\n\n")), Ok(page("\n| new |\n\n")));
        assert_eq!(filled("no marks\n"), Ok("no marks\n".to_owned()));
    }

    #[test]
    fn wrong_marks_are_refused() {
        for (page, what) in [
            ("<!-- made: y -->\n<!-- end -->", "there is no block `y`"),
            ("<!-- made: x -->\n", "`x` has no end"),
            ("<!-- made: x -->\n<!-- made: x -->\n<!-- end -->", "`x` has no end"),
            ("<!-- made: x", "a mark that does not end"),
        ] {
            assert_eq!(filled(page), Err(what.to_owned()), "{page}");
        }
    }
}
