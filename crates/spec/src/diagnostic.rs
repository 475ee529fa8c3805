//! Errors and notes, and the list that collects them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::codes::{Code, Severity};
use crate::render;
use crate::source::{Location, Position, Source};

/// The most diagnostics that one spec can give: more than anyone reads, and a bound on hostile files.
pub const MAX_DIAGNOSTICS: usize = 200;

/// One error or note, and where it is.
///
/// It prints as a person reads it: code, message, `file:line:column`, the source line with the place marked, help.
#[derive(Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind it is.
    pub code: Code,
    /// What is wrong, in a line.
    pub message: String,
    /// What stands beside the marks; may be empty.
    pub label: String,
    /// What would be right, where that can be guessed.
    pub help: Option<String>,
    /// The byte range in the file's text.
    pub span: Range<usize>,
    /// Where the range starts.
    pub start: Position,
    /// Where the range ends, exclusive.
    pub end: Position,
    pub(crate) source: Arc<Source>,
}

impl Diagnostic {
    pub(crate) fn new(code: Code, location: &Location, message: impl Into<String>) -> Self {
        let Location { source, span } = location;
        Self {
            code,
            message: message.into(),
            label: String::new(),
            help: None,
            span: span.clone(),
            start: source.position(span.start),
            end: source.position(span.end),
            source: Arc::clone(source),
        }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into().or(self.help);
        self
    }

    /// Whether it is an error or a note.
    pub fn severity(&self) -> Severity {
        self.code.info().severity
    }

    /// The file's name as it was given.
    pub fn file(&self) -> &str {
        &self.source.name
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        render::diagnostic(f, self)
    }
}

impl fmt::Debug for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}-{} {}", self.code, self.file(), self.start, self.end, self.message)
    }
}

/// Why a spec cannot be used: its errors, at least one, then its notes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(pub(crate) Vec<Diagnostic>);

impl Diagnostics {
    /// The diagnostics, by file and place.
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.0
    }

    /// How many of them are errors.
    pub fn n_errors(&self) -> usize {
        self.0.iter().filter(|diagnostic| diagnostic.severity() == Severity::Error).count()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Collects diagnostics: each code and message at a place once, up to [`MAX_DIAGNOSTICS`].
#[derive(Debug, Default)]
pub(crate) struct Sink {
    list: Vec<Diagnostic>,
    n_errors: usize,
}

impl Sink {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let error = diagnostic.severity() == Severity::Error;
        self.n_errors += usize::from(error);
        let known = |other: &Diagnostic| {
            other.code == diagnostic.code
                && other.span == diagnostic.span
                && other.message == diagnostic.message
                && Arc::ptr_eq(&other.source, &diagnostic.source)
        };
        if !self.is_full() && !self.list.iter().any(known) {
            self.list.push(diagnostic);
        }
    }

    /// Whether more would be dropped, so that no work on their text is worth it.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= MAX_DIAGNOSTICS
    }

    /// Forgets those that `keep` refuses; they still count as errors.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&Diagnostic) -> bool) {
        self.list.retain(keep);
    }

    /// Errors so far, also those that were not kept.
    pub(crate) fn n_errors(&self) -> usize {
        self.n_errors
    }

    /// The diagnostics in the order of their places, a file's own before those of the specs it extends.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        let mut files: Vec<*const Source> = Vec::new();
        for diagnostic in &self.list {
            let file = Arc::as_ptr(&diagnostic.source);
            if !files.contains(&file) {
                files.push(file);
            }
        }
        self.list.sort_by_key(|diagnostic| {
            let file = Arc::as_ptr(&diagnostic.source);
            (files.iter().position(|&other| other == file), diagnostic.span.start, diagnostic.span.end)
        });
        self.list
    }
}

/// `name` in backquotes, short and without control characters, for a message.
pub(crate) fn quote(name: &str) -> String {
    quote_up_to(name, 40)
}

/// As [`quote`], for paths: long enough that one can be found by it.
pub(crate) fn quote_path(path: &str) -> String {
    quote_up_to(path, 250)
}

fn quote_up_to(name: &str, max_chars: usize) -> String {
    let mut text: String = name.chars().take(max_chars).flat_map(printable).collect();
    if name.chars().nth(max_chars).is_some() {
        text.push('…');
    }
    format!("`{text}`")
}

/// The character, or its escape where it would not print as itself.
pub(crate) fn printable(c: char) -> impl Iterator<Item = char> {
    let (plain, escaped) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

/// `did you mean …?`, if a candidate is spelt much like `name`.
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// The candidate that is spelt most like `name`, if that is much.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const MAX_LEN: usize = 64;
    const MAX_CANDIDATES: usize = 1000;
    if name.len() > MAX_LEN {
        return None;
    }
    let lower = name.to_lowercase();
    let near = |candidate: &&str| {
        let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
        let longer = name.chars().count().max(candidate.chars().count());
        // Any two single letters are one change apart.
        let far = if lower.chars().count() == 1 { 0 } else { longer.max(3) / 3 };
        (distance <= far).then_some(distance)
    };
    candidates
        .into_iter()
        .take(MAX_CANDIDATES)
        .filter_map(|candidate| Some((near(&candidate)?, candidate)))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// The words in backquotes: `a`, `b` or `c`.
pub(crate) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [init @ .., last] if !init.is_empty() => format!("{} or {last}", init.join(", ")),
        few => few.concat(),
    }
}
