//! Source text: offsets to lines and columns, and offsets in a decoded TOML string to offsets in the file.

use std::ops::Range;
use std::sync::Arc;

/// A line and a column, both from 1; a column counts characters (Unicode scalar values).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A file's name and text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// As it is shown in diagnostics.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
    /// Where each line starts; a byte order mark belongs to no line.
    lines: Vec<usize>,
    /// How many characters start before each block of [`BLOCK_BYTES`], so that a column costs no walk along its line.
    blocks: Vec<usize>,
}

/// Bytes between two counts of characters.
const BLOCK_BYTES: usize = 1 << 10;

impl Source {
    pub(crate) fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        let text = text.into();
        let first = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let lines = std::iter::once(first).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let blocks = text.as_bytes().chunks(BLOCK_BYTES).scan(0, |before, block| {
            let start = *before;
            *before += chars_in(block);
            Some(start)
        });
        let blocks = blocks.collect();
        Arc::new(Self { name: name.into(), text, lines, blocks })
    }

    /// The line and column of a byte offset; past the end it is the end.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.lines.partition_point(|&start| start <= offset).max(1);
        let start = self.lines[line - 1].min(offset);
        Position { line, column: self.chars_before(offset) - self.chars_before(start) + 1 }
    }

    fn chars_before(&self, offset: usize) -> usize {
        // The offset after the last full block has no block of its own.
        let block = (offset / BLOCK_BYTES).min(self.blocks.len().saturating_sub(1));
        let before = self.blocks.get(block).copied().unwrap_or(0);
        before + chars_in(&self.text.as_bytes()[block * BLOCK_BYTES..offset])
    }

    /// The byte range of a line (from 1) without its ending.
    pub(crate) fn line(&self, line: usize) -> Range<usize> {
        let start = self.lines[line - 1];
        let end = self.lines.get(line).copied().unwrap_or(self.text.len());
        let text = self.text[start..end].trim_end_matches(['\n', '\r']);
        start..start + text.len()
    }
}

/// Characters that start in a piece of UTF-8.
fn chars_in(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0b1100_0000 != 0b1000_0000).count()
}

/// A range of a source that a diagnostic can point at.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    pub(crate) source: Arc<Source>,
    pub(crate) span: Range<usize>,
}

impl Location {
    pub(crate) fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        Self { source: Arc::clone(source), span }
    }
}

/// A decoded TOML string or key that remembers where each of its bytes was written.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    source: Arc<Source>,
    /// The token in the file, quotes included.
    token: Range<usize>,
    /// What the token stands for.
    pub(crate) decoded: String,
    /// For each byte of `decoded`, where the character that it belongs to starts in the file; then where the text ends.
    origins: Vec<usize>,
}

impl Text {
    /// Reads the string or key token at `token`, which the TOML parser has accepted.
    pub(crate) fn new(source: &Arc<Source>, token: Range<usize>) -> Self {
        let mut text = Self {
            source: Arc::clone(source),
            token: token.clone(),
            decoded: String::with_capacity(token.len()),
            origins: Vec::with_capacity(token.len() + 1),
        };
        text.decode(&source.text[token.clone()], token.start);
        text
    }

    /// The place in the file of a byte range of the decoded text.
    pub(crate) fn locate(&self, span: Range<usize>) -> Location {
        let start = self.origins[span.start.min(self.decoded.len())];
        let end = self.origins[span.end.min(self.decoded.len())].max(start);
        Location::new(&self.source, start..end)
    }

    /// The whole token, quotes included.
    pub(crate) fn token(&self) -> Location {
        Location::new(&self.source, self.token.clone())
    }

    fn decode(&mut self, raw: &str, at: usize) {
        let (delimiter, escapes) = match raw.as_bytes() {
            [b'"', b'"', b'"', ..] => (3, true),
            [b'\'', b'\'', b'\'', ..] => (3, false),
            [b'"', ..] => (1, true),
            [b'\'', ..] => (1, false),
            _ => (0, false),
        };
        let mut i = delimiter;
        let end = raw.len() - delimiter;
        if delimiter == 3 {
            i += newline_len(&raw[i..end]);
        }
        while i < end {
            let rest = &raw[i..end];
            if escapes && rest.starts_with('\\') {
                let (decoded, len) = escape(rest);
                if let Some(c) = decoded {
                    self.push(c, at + i);
                }
                i += len;
            } else {
                let Some(c) = rest.chars().next() else { break };
                self.push(c, at + i);
                i += c.len_utf8();
            }
        }
        self.origins.push(at + end);
    }

    fn push(&mut self, c: char, origin: usize) {
        self.decoded.push(c);
        self.origins.resize(self.decoded.len(), origin);
    }
}

/// The character of an escape (none for a line that is continued) and the escape's length in bytes.
fn escape(text: &str) -> (Option<char>, usize) {
    let Some(id) = text[1..].chars().next() else { return (None, text.len()) };
    let hex = |digits: usize| {
        let value = text.get(2..2 + digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        (Some(value.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)), 2 + digits)
    };
    match id {
        'b' => (Some('\u{8}'), 2),
        'e' => (Some('\u{1b}'), 2),
        'f' => (Some('\u{c}'), 2),
        'n' => (Some('\n'), 2),
        'r' => (Some('\r'), 2),
        't' => (Some('\t'), 2),
        'x' => hex(2),
        'u' => hex(4),
        'U' => hex(8),
        '"' | '\\' => (Some(id), 2),
        _ => (None, text.len() - text[1..].trim_start_matches([' ', '\t', '\r', '\n']).len()),
    }
}

fn newline_len(text: &str) -> usize {
    if text.starts_with("\r\n") { 2 } else { usize::from(text.starts_with('\n')) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(token: &str) -> Text {
        let source = Source::new("t", token);
        Text::new(&source, 0..token.len())
    }

    #[test]
    fn columns_count_characters_and_not_bytes() {
        let source = Source::new("t", "\u{feff}é = 1\r\nxy");
        assert_eq!(source.position(5), Position { line: 1, column: 2 });
        assert_eq!(source.position(source.text.len()), Position { line: 2, column: 3 });
        assert_eq!(source.position(usize::MAX), Position { line: 2, column: 3 });
        assert_eq!(&source.text[source.line(1)], "é = 1");
    }

    #[test]
    fn columns_far_along_a_line_are_counted_in_blocks() {
        let line = "é漢x".repeat(1000);
        let source = Source::new("t", format!("first\n{line}"));
        for (column, (at, _)) in line.char_indices().enumerate().step_by(101) {
            assert_eq!(source.position(6 + at), Position { line: 2, column: column + 1 });
        }
        let full = Source::new("t", "x".repeat(2 * BLOCK_BYTES));
        assert_eq!(full.position(2 * BLOCK_BYTES), Position { line: 1, column: 2 * BLOCK_BYTES + 1 });
    }

    #[test]
    fn spans_map_through_escapes_to_the_file() {
        let text = text(r#""a \u003c b""#);
        assert_eq!(text.decoded, "a < b");
        assert_eq!(text.locate(2..3).span, 3..9);
        assert_eq!(text.locate(4..5).span, 10..11);
        assert_eq!(text.locate(5..5).span, 11..11);
    }

    #[test]
    fn spans_map_through_continued_lines() {
        let raw = "\"\"\"\r\na \\\r\n   b\nc\"\"\"";
        let text = text(raw);
        assert_eq!(text.decoded, "a b\nc");
        let b = raw.find('b').unwrap();
        assert_eq!(text.locate(2..3).span, b..b + 1);
    }

    #[test]
    fn decoding_agrees_with_the_toml_parser() {
        for raw in [
            r#""""#,
            r#"''"#,
            r#""a\tb\"\\\x41\U0001F600\e""#,
            "'C:\\n'",
            "\"\"\"\n\"\"quoted\"\"\\\n \t\n x\\\"\"\"\"",
            "\"\"\"\"\"\"\"\"",
            "'''\r\nx\r\n''y'''",
            "'''''''",
        ] {
            let parsed = toml::de::DeValue::parse(raw).unwrap();
            assert_eq!(parsed.get_ref().as_str(), Some(text(raw).decoded.as_str()), "{raw}");
        }
    }
}
