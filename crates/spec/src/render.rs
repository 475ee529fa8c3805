//! A diagnostic as text, in the form of rustc.
//!
//! Written here because the renderers on offer set a blank line before the help and none before the marks' end;
//! what a renderer must get right (tabs, wide characters, long lines) fits a page.

use std::fmt;

use unicode_width::UnicodeWidthChar;

use crate::codes::Severity;
use crate::diagnostic::{Diagnostic, printable};

/// Columns of a source line that are shown.
const MAX_WIDTH: usize = 120;

/// Columns that are kept before a place far along its line.
const LEAD: usize = 40;

/// Stands for what was cut off a line.
const CUT: &str = "...";

pub(crate) fn diagnostic(f: &mut fmt::Formatter<'_>, diagnostic: &Diagnostic) -> fmt::Result {
    let kind = match diagnostic.severity() {
        Severity::Error => "error",
        Severity::Note => "note",
    };
    writeln!(f, "{kind}[{}]: {}", diagnostic.code, diagnostic.message)?;
    if diagnostic.source.text.is_empty() {
        return write_unread(f, diagnostic);
    }
    let line = diagnostic.start.line;
    let margin = line.to_string().len();
    writeln!(f, "{:margin$}--> {}:{}", "", diagnostic.file(), diagnostic.start)?;

    let excerpt = Excerpt::new(diagnostic);
    let carets = "^".repeat(excerpt.marked.max(1));
    let marks = format!("{:1$}{carets} {2}", "", excerpt.before, diagnostic.label);
    writeln!(f, "{:margin$} |", "")?;
    writeln!(f, "{line} | {}", excerpt.text)?;
    writeln!(f, "{:margin$} | {}", "", marks.trim_end())?;
    help(f, margin, diagnostic)
}

/// Of a file without text there is no line to show.
fn write_unread(f: &mut fmt::Formatter<'_>, diagnostic: &Diagnostic) -> fmt::Result {
    writeln!(f, " --> {}", diagnostic.file())?;
    help(f, 1, diagnostic)
}

fn help(f: &mut fmt::Formatter<'_>, margin: usize, diagnostic: &Diagnostic) -> fmt::Result {
    match &diagnostic.help {
        Some(help) => writeln!(f, "{:margin$} = help: {help}", ""),
        None => Ok(()),
    }
}

/// The part of a source line around a place.
struct Excerpt {
    text: String,
    /// Columns before the place.
    before: usize,
    /// Columns of the place.
    marked: usize,
}

impl Excerpt {
    fn new(diagnostic: &Diagnostic) -> Self {
        let text = &diagnostic.source.text;
        let line = diagnostic.source.line(diagnostic.start.line);
        let start = diagnostic.span.start.clamp(line.start, line.end);
        let lead = &text[line.start..start];
        let lead = if fits(&text[line.clone()]) { lead } else { last_chars(lead, LEAD) };

        let mut excerpt = Self { text: String::new(), before: 0, marked: 0 };
        if lead.len() < start - line.start {
            excerpt.text.push_str(CUT);
            excerpt.before = CUT.len();
        }
        for c in lead.chars() {
            excerpt.before += show(c, &mut excerpt.text);
        }
        let mut columns = excerpt.before;
        for (i, c) in text[start..line.end].char_indices() {
            if columns >= MAX_WIDTH {
                excerpt.text.push_str(CUT);
                break;
            }
            let width = show(c, &mut excerpt.text);
            columns += width;
            if start + i < diagnostic.span.end {
                excerpt.marked += width;
            }
        }
        excerpt
    }
}

/// Whether a line is shown whole.
fn fits(line: &str) -> bool {
    const MAX_BYTES: usize = 4 * MAX_WIDTH;
    line.len() <= MAX_BYTES && line.chars().map(|c| show(c, &mut String::new())).sum::<usize>() <= MAX_WIDTH
}

fn last_chars(text: &str, n: usize) -> &str {
    let from = text.char_indices().rev().take(n).last().map_or(text.len(), |(at, _)| at);
    &text[from..]
}

/// Adds a character as a terminal can show it, and gives the columns that it takes.
fn show(c: char, text: &mut String) -> usize {
    let from = text.len();
    match c {
        '\t' => text.push_str("    "),
        c if c.is_control() => text.extend(printable(c)),
        c => {
            text.push(c);
            return c.width().unwrap_or(0);
        }
    }
    text.len() - from
}

#[cfg(test)]
mod tests {
    use crate::codes::Code;
    use crate::diagnostic::Diagnostic;
    use crate::source::{Location, Source};

    fn rendered(text: &str, marked: &str) -> String {
        let at = text.find(marked).unwrap();
        let location = Location::new(&Source::new("specs/x.toml", text), at..at + marked.len());
        Diagnostic::new(Code::S014, &location, "unknown name").label("here").to_string()
    }

    #[test]
    fn it_has_the_form_of_rustc() {
        let location = Location::new(&Source::new("specs/sliding.toml", "mask = \"widnow\""), 8..14);
        let diagnostic = Diagnostic::new(Code::S014, &location, "unknown name `widnow`")
            .label("no such function or definition")
            .help(Some("did you mean `window`?".to_string()));
        assert_eq!(
            diagnostic.to_string(),
            "error[S014]: unknown name `widnow`\n\
             \x20--> specs/sliding.toml:1:9\n\
             \x20 |\n\
             1 | mask = \"widnow\"\n\
             \x20 |         ^^^^^^ no such function or definition\n\
             \x20 = help: did you mean `window`?\n"
        );
    }

    #[test]
    fn marks_stand_below_wide_characters_and_tabs() {
        let text = rendered("\tx = \"漢字 widnow\"", "widnow");
        assert!(text.contains("\n1 |     x = \"漢字 widnow\"\n  |               ^^^^^^ here\n"), "{text}");
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = rendered(&format!("{}widnow{}", "a".repeat(5000), "b".repeat(5000)), "widnow");
        let line = text.lines().nth(3).unwrap();
        assert!(line.starts_with("1 | ...aaaa") && line.ends_with("bbbb..."), "{line}");
        let column = line.find("widnow").unwrap();
        assert_eq!(text.lines().nth(4).unwrap().find("^^^^^^ here"), Some(column));
        assert!(line.len() < 140);
    }
}
