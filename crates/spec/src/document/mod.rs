//! A TOML file as entries with spans, in the order of the file, and all its syntax errors.
//!
//! The TOML parser recovers from an error by guessing, and its guesses give further errors. So a statement that
//! has one is reported once, blanked, and the text is parsed again: what is left is exactly what was written well.

mod statements;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use self::statements::Statement;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink, quote};
use crate::source::{Location, Source, Text};

/// A TOML file.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) source: Arc<Source>,
    pub(crate) entries: Vec<Entry>,
    /// Places that were not understood, and so may have held anything.
    damaged: Vec<Range<usize>>,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Text,
    pub(crate) value: Value,
}

impl Entry {
    pub(crate) fn name(&self) -> &str {
        &self.key.decoded
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) location: Location,
    pub(crate) kind: Kind,
}

impl Value {
    /// The text, if it is a string.
    pub(crate) fn text(self) -> Option<Text> {
        match self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    String(Text),
    /// `None` where it does not fit 64 bits.
    Integer(Option<i64>),
    /// `None` where it does not fit a double.
    Float(Option<f64>),
    Bool(bool),
    Datetime,
    Array(Vec<Value>),
    Table(Vec<Entry>),
}

impl Kind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Kind::String(_) => "a string",
            Kind::Integer(_) => "an integer",
            Kind::Float(_) => "a float",
            Kind::Bool(_) => "a bool",
            Kind::Datetime => "a date",
            Kind::Array(_) => "an array",
            Kind::Table(_) => "a table",
        }
    }
}

impl Document {
    /// Reads a file; its syntax errors go to `sink`, the rest of it to the result.
    pub(crate) fn read(source: Arc<Source>, sink: &mut Sink) -> Self {
        // Blanking a statement changes no other, so two rounds do unless statements were misjudged.
        const ROUNDS: usize = 4;
        let mut text = source.text.clone();
        let mut damaged = Vec::new();
        for unclosed in statements::unclosed(&text) {
            let what = quote(&text[unclosed.opening.clone()]);
            let location = Location::new(&source, unclosed.opening);
            sink.push(
                Diagnostic::new(Code::S004, &location, format!("{what} is never closed"))
                    .label("opened here"),
            );
            damaged.push(unclosed.statement);
        }
        blank(&mut text, &damaged);
        for _ in 0..ROUNDS {
            let (table, errors) = DeTable::parse_recoverable(&text);
            if errors.is_empty() {
                let entries = entries(table.into_inner(), &source);
                return Self { source, entries, damaged };
            }
            let statements = statements::split(&text);
            let mut wrong = Vec::new();
            for (statement, error) in first_errors(&text, &statements, &errors) {
                sink.push(syntax_error(&source, &error));
                wrong.push(statements::extent(&statements, statement));
            }
            blank(&mut text, &wrong);
            damaged.append(&mut wrong);
        }
        damaged.push(0..text.len());
        Self { source, entries: Vec::new(), damaged }
    }

    /// Whether a statement that was not understood holds this word, and so may have said what seems to be missing.
    pub(crate) fn may_say(&self, word: &str) -> bool {
        self.damaged.iter().any(|range| self.source.text[range.clone()].contains(word))
    }
}

/// An error of the TOML parser.
struct TomlError<'e> {
    span: Range<usize>,
    message: Cow<'e, str>,
}

/// The first error of each statement that has one, in their order.
fn first_errors<'e>(
    text: &str,
    statements: &[Statement],
    errors: &'e [toml::de::Error],
) -> Vec<(usize, TomlError<'e>)> {
    let mut places: Vec<_> = errors
        .iter()
        .map(|error| (error.span().unwrap_or(text.len()..text.len()), error.message()))
        .collect();
    places.sort_by_key(|(span, _)| span.start);
    let mut found: Vec<(usize, TomlError<'e>)> = Vec::new();
    let Some(last) = statements.len().checked_sub(1) else { return found };
    for (span, message) in places {
        let at = statements.partition_point(|statement| statement.range.end < span.start).min(last);
        if found.last().is_some_and(|&(last, _)| last == at) {
            continue;
        }
        // The parser skips parts of a file that is broken elsewhere, so a statement's errors are best seen alone.
        let range = &statements[at].range;
        let alone = DeTable::parse_recoverable(&text[range.clone()]).1;
        let first =
            alone.iter().filter_map(|error| Some((error.span()?, error))).min_by_key(|(span, _)| span.start);
        let error = match first {
            Some((span, error)) => TomlError {
                span: range.start + span.start..range.start + span.end,
                message: error.message().to_string().into(),
            },
            None => TomlError { span, message: message.into() },
        };
        found.push((at, error));
    }
    found
}

/// Replaces all but line ends by spaces, so that every offset keeps its meaning.
fn blank(text: &mut String, ranges: &[Range<usize>]) {
    let mut blanked = String::with_capacity(text.len());
    let mut kept = 0;
    for range in ranges {
        let start = range.start.max(kept);
        blanked.push_str(&text[kept..start]);
        kept = range.end.max(start);
        for c in text[start..kept].chars() {
            let line_end = matches!(c, '\n' | '\r');
            blanked.extend(std::iter::repeat_n(if line_end { c } else { ' ' }, c.len_utf8()));
        }
    }
    blanked.push_str(&text[kept..]);
    *text = blanked;
}

/// The parser's message in our words where they are plainer.
fn syntax_error(source: &Arc<Source>, error: &TomlError<'_>) -> Diagnostic {
    let TomlError { span, message } = error;
    let place = Location::new(source, span.clone());
    let found = source.text.get(span.clone()).unwrap_or("");
    if message == "duplicate key" {
        return Diagnostic::new(Code::S005, &place, format!("duplicate key {}", quote(found)))
            .label("given a second time");
    }
    let first = message.split(", expected").next().unwrap_or(message.as_ref());
    let not_a_value =
        first.starts_with("string values must be quoted") || first.starts_with("invalid boolean");
    if not_a_value && found.is_empty() {
        return Diagnostic::new(Code::S004, &place, "a value is missing").label("expected a value");
    }
    if not_a_value {
        return Diagnostic::new(Code::S004, &place, format!("{} is not a value", quote(found)))
            .label("a string must be quoted");
    }
    Diagnostic::new(Code::S004, &place, message.replace('\n', " "))
}

fn entries(table: DeTable<'_>, source: &Arc<Source>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .into_iter()
        .map(|(key, value)| Entry { key: Text::new(source, key.span()), value: read_value(value, source) })
        .collect();
    entries.sort_by_key(|entry| entry.key.token().span.start);
    entries
}

fn read_value(value: Spanned<DeValue<'_>>, source: &Arc<Source>) -> Value {
    let span = value.span();
    let kind = match value.into_inner() {
        DeValue::String(_) => Kind::String(Text::new(source, span.clone())),
        DeValue::Integer(integer) => {
            Kind::Integer(i64::from_str_radix(integer.as_str(), integer.radix()).ok())
        }
        DeValue::Float(float) => Kind::Float(finite_or_named(float.as_str())),
        DeValue::Boolean(value) => Kind::Bool(value),
        DeValue::Datetime(_) => Kind::Datetime,
        DeValue::Array(values) => {
            Kind::Array(values.into_iter().map(|value| read_value(value, source)).collect())
        }
        DeValue::Table(table) => Kind::Table(entries(table, source)),
    };
    Value { location: Location::new(source, span), kind }
}

/// A TOML float; infinite only if it says so.
fn finite_or_named(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    (value.is_finite() || text.ends_with("inf") || text.ends_with("nan")).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Document, Vec<String>) {
        let mut sink = Sink::default();
        let document = Document::read(Source::new("t", text), &mut sink);
        let found =
            sink.finish().into_iter().map(|d| format!("{} {}-{} {}", d.code, d.start, d.end, d.message));
        (document, found.collect())
    }

    fn names(document: &Document) -> Vec<&str> {
        document.entries.iter().map(Entry::name).collect()
    }

    #[test]
    fn one_error_for_each_bad_statement_and_the_rest_is_kept() {
        let (document, found) =
            read("a = \nb = 2\njunk\nc = [1, 2\nd = 4\ne = foo\nf = { x = 1 y = 2 }\ng = 7\n");
        assert_eq!(names(&document), ["b", "d", "g"]);
        assert_eq!(
            found,
            [
                "S004 1:5-1:5 a value is missing",
                "S004 3:5-3:5 key with no value, expected `=`",
                "S004 4:5-4:6 `[` is never closed",
                "S004 6:5-6:8 `foo` is not a value",
                "S004 7:11-7:14 `1 y` is not a value",
            ]
        );
        assert!(document.may_say("x") && !document.may_say("g"));
    }

    #[test]
    fn a_bad_header_takes_its_table_with_it() {
        let (document, found) = read("a = 1\n[heads\nquery = 1\n[score]\nscale = 1\n");
        assert_eq!(names(&document), ["a", "score"]);
        assert_eq!(found, ["S004 2:7-2:7 unclosed table, expected `]`"]);
    }

    #[test]
    fn an_open_string_spoils_only_its_line() {
        let (document, found) = read("a = \"\"\"x\nb = 1\nc = 'x\nd = 2\n");
        assert_eq!(names(&document), ["b", "d"]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], "S004 1:5-1:8 `\"\"\"` is never closed");
    }

    #[test]
    fn entries_keep_the_order_of_the_file() {
        let (document, found) = read("z = 1\na.y = 2\nm = 0x10\na.b = 99999999999999999999\n");
        assert!(found.is_empty());
        assert_eq!(names(&document), ["z", "a", "m"]);
        assert!(matches!(document.entries[2].value.kind, Kind::Integer(Some(16))));
        let Kind::Table(a) = &document.entries[1].value.kind else { panic!("a is a table") };
        assert!(matches!(a[1].value.kind, Kind::Integer(None)));
    }
}
