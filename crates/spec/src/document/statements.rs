//! Where the statements of a TOML file begin and end, as far as strings and brackets tell.

use std::ops::Range;

/// A bracket or multi-line string that the file's end finds open.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unclosed {
    /// The bracket or delimiter.
    pub(super) opening: Range<usize>,
    /// The line that it stands in, which is all that it is taken to spoil.
    pub(super) statement: Range<usize>,
}

/// Every bracket and multi-line string that is never closed.
///
/// What follows the line of one is read as if that line were not there.
pub(super) fn unclosed(text: &str) -> Vec<Unclosed> {
    // One scan for each; a file with more is spoilt beyond use.
    const MAX_UNCLOSED: usize = 16;
    let mut found = Vec::new();
    let mut from = 0;
    while let Some((opening, start)) = first_unclosed(text, from) {
        let end = text[opening.end..].find('\n').map_or(text.len(), |at| opening.end + at);
        found.push(Unclosed { opening, statement: start..end });
        from = end;
        if found.len() == MAX_UNCLOSED {
            break;
        }
    }
    found
}

/// One statement's place, without the line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) range: Range<usize>,
    /// Whether it is the header of a table, to which what follows belongs.
    pub(super) header: bool,
}

/// All statements.
pub(super) fn split(text: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = Scan::statement(text, start).end;
        statements.push(Statement { range: start..end, header: is_header(&text[start..]) });
        start = end + 1;
    }
    statements
}

/// What goes with a statement: a header takes its whole table with it.
pub(super) fn extent(statements: &[Statement], at: usize) -> Range<usize> {
    let Statement { range, header } = &statements[at];
    let table = statements[at + 1..].iter().take_while(|next| *header && !next.header);
    range.start..table.last().map_or(range.end, |last| last.range.end)
}

fn is_header(text: &str) -> bool {
    text.trim_start_matches([' ', '\t']).starts_with('[')
}

fn first_unclosed(text: &str, from: usize) -> Option<(Range<usize>, usize)> {
    let mut start = from;
    while start < text.len() {
        let scan = Scan::statement(text, start);
        if let Some(opening) = scan.open {
            return Some((opening, start));
        }
        start = scan.end + 1;
    }
    None
}

/// One statement, scanned.
struct Scan {
    end: usize,
    open: Option<Range<usize>>,
}

impl Scan {
    fn statement(text: &str, start: usize) -> Self {
        let bytes = text.as_bytes();
        let header = is_header(&text[start..]);
        let mut brackets: Vec<usize> = Vec::new();
        let mut i = start;
        while i < bytes.len() {
            match bytes[i] {
                b'\n' if header || brackets.is_empty() => return Self { end: i, open: None },
                b'#' => i += text[i..].find('\n').unwrap_or(bytes.len() - i),
                b'[' | b'{' => {
                    brackets.push(i);
                    i += 1;
                }
                b']' | b'}' => {
                    brackets.pop();
                    i += 1;
                }
                quote @ (b'"' | b'\'') => match string_end(&bytes[i..], quote) {
                    Some(len) => i += len,
                    None => return Self { end: bytes.len(), open: Some(i..i + 3) },
                },
                _ => i += 1,
            }
        }
        let open = if header { None } else { brackets.first().map(|&at| at..at + 1) };
        Self { end: bytes.len(), open }
    }
}

/// The length of the string that starts here, up to its line's end if it is open; `None` for an open multi-line one.
fn string_end(bytes: &[u8], quote: u8) -> Option<usize> {
    let multi_line = bytes.starts_with(&[quote; 3]);
    let mut i = if multi_line { 3 } else { 1 };
    while i < bytes.len() {
        match bytes[i] {
            b'\\' if quote == b'"' && bytes.get(i + 1) != Some(&b'\n') => i += 2,
            b'\n' if !multi_line => return Some(i),
            c if c == quote && !multi_line => return Some(i + 1),
            c if c == quote && bytes[i..].starts_with(&[quote; 3]) => {
                // Up to two quotes may stand before the delimiter.
                let quotes = bytes[i..].iter().take(5).take_while(|&&c| c == quote).count();
                return Some(i + quotes);
            }
            _ => i += 1,
        }
    }
    if multi_line { None } else { Some(bytes.len()) }
}
