//! The chain of specs that extend one another, the spec itself first.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::{fields, key, top};
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink, did_you_mean, quote, quote_path};
use crate::document::{Document, Entry, Value};
use crate::shipped::{self, Shipped};
use crate::source::{Location, Source};
use crate::{LoadError, Loader, MAX_FILE_BYTES};

/// The most specs that extend one another.
const MAX_CHAIN: usize = 32;

/// Where a spec comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file, by its path.
    File(String),
    /// A shipped spec, by its name.
    Shipped(String),
}

impl Origin {
    /// As diagnostics show it.
    fn shown(&self) -> String {
        match self {
            Origin::File(path) => path.clone(),
            Origin::Shipped(name) => format!("shipped:{name}"),
        }
    }

    /// The name of a spec that gives itself none.
    pub(crate) fn stem(&self) -> String {
        let (Origin::File(path) | Origin::Shipped(path)) = self;
        Path::new(path).file_stem().map_or(path.clone(), |stem| stem.to_string_lossy().into_owned())
    }

    /// What `extends = name` means in a spec from here: a file beside it, or a shipped spec.
    fn parent(&self, name: &str) -> Origin {
        let beside = |path: &str, name: &str| {
            let folder = Path::new(path).parent().unwrap_or(Path::new(""));
            folder.join(name).to_string_lossy().into_owned()
        };
        match (self, name.strip_suffix(".toml")) {
            (_, None) => Origin::Shipped(name.to_string()),
            (Origin::File(path), Some(_)) => Origin::File(beside(path, name)),
            (Origin::Shipped(path), Some(stem)) => Origin::Shipped(beside(path, stem)),
        }
    }

    /// Equal for two ways to write one path.
    fn normal(&self) -> Origin {
        let Origin::File(path) = self else { return self.clone() };
        let mut normal = PathBuf::new();
        for component in Path::new(path).components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir
                    if matches!(normal.components().next_back(), Some(Component::Normal(_))) =>
                {
                    normal.pop();
                }
                other => normal.push(other),
            }
        }
        Origin::File(normal.to_string_lossy().into_owned())
    }

    fn load(&self, loader: &dyn Loader) -> Result<Vec<u8>, LoadError> {
        match self {
            Origin::File(path) => loader.load(path),
            Origin::Shipped(name) => {
                shipped::find(name).map(|found| found.text.as_bytes().to_vec()).ok_or(LoadError::NotFound)
            }
        }
    }
}

/// A spec and those that it extends.
pub(crate) struct Chain {
    /// The spec, then its parent, and so on.
    pub(super) documents: Vec<Document>,
    /// Whether one of them could not be read.
    lost: bool,
}

impl Chain {
    /// Reads the spec whose bytes are given, and its parents.
    pub(super) fn load(
        origin: Origin,
        bytes: Result<Vec<u8>, LoadError>,
        loader: &dyn Loader,
        sink: &mut Sink,
    ) -> Self {
        let mut chain = Self { documents: Vec::new(), lost: false };
        let mut said_at = Location::new(&Source::new(origin.shown(), ""), 0..0);
        let mut origins = vec![origin];
        let mut bytes = bytes;
        loop {
            let origin = origins.last().unwrap_or_else(|| unreachable!("the spec itself is there"));
            let Some(source) = decode(origin, bytes, &said_at, sink) else { break };
            let document = Document::read(source, sink);
            let extends = document.entries.iter().find(|entry| entry.name() == "extends").cloned();
            chain.documents.push(document);
            let Some(Entry { value, .. }) = extends else { return chain };
            let Some(name) = fields::string(&value, "`extends`", sink) else { break };
            said_at = value.location.clone();
            let parent = origin.parent(&name.decoded);
            if let Some(error) = refused(&origins, &parent, &said_at) {
                sink.push(error);
                break;
            }
            bytes = parent.load(loader);
            origins.push(parent);
        }
        chain.lost = true;
        chain
    }

    /// The entry of a top-level key, from the first spec that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.documents.iter().flat_map(|document| &document.entries).find(|entry| entry.name() == key)
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// Which of some strings a top-level key has.
    pub(super) fn choice(&self, key: &str, options: &[&str], sink: &mut Sink) -> Option<usize> {
        fields::choice(self.value(key)?, &format!("`{key}`"), options, sink)
    }

    /// Whether what could not be read may have said this word.
    pub(super) fn may_say(&self, word: &str) -> bool {
        self.lost || self.documents.iter().any(|document| document.may_say(word))
    }

    /// Whether an unknown top-level key is a misspelt `key`.
    pub(super) fn misspells(&self, key: &str) -> bool {
        self.documents
            .iter()
            .any(|document| fields::misspelt(&document.entries, &key::names(&top::KEYS), key))
    }

    /// Where to report what the spec does not say.
    pub(super) fn start(&self) -> Option<Location> {
        self.documents.first().map(|document| Location::new(&document.source, 0..0))
    }
}

/// Why a parent is not even read.
fn refused(origins: &[Origin], parent: &Origin, said_at: &Location) -> Option<Diagnostic> {
    if let Some(first) = origins.iter().position(|origin| origin.normal() == parent.normal()) {
        let cycle: Vec<String> = origins[first..].iter().chain([parent]).map(Origin::shown).collect();
        let message = format!("{} extends itself", quote_path(&parent.shown()));
        return Some(Diagnostic::new(Code::S013, said_at, message).label(cycle.join(" → ")));
    }
    if origins.len() == MAX_CHAIN {
        let message = format!("more than {MAX_CHAIN} specs extend one another");
        return Some(Diagnostic::new(Code::S042, said_at, message).label("one too many"));
    }
    if let Origin::Shipped(name) = parent
        && shipped::find(name).is_none()
    {
        let message = format!("no spec {} ships with the compiler", quote(name));
        let names = shipped::ALL.iter().map(|&Shipped { name, .. }| name);
        let help = did_you_mean(name, names).unwrap_or("a file's name ends in `.toml`".to_string());
        return Some(Diagnostic::new(Code::S015, said_at, message).label("no such spec").help(help));
    }
    None
}

/// The bytes as text, or an error: at the place that names the file where it has no text.
fn decode(
    origin: &Origin,
    bytes: Result<Vec<u8>, LoadError>,
    said_at: &Location,
    sink: &mut Sink,
) -> Option<Arc<Source>> {
    let name = quote_path(&origin.shown());
    let bytes = bytes
        .and_then(|bytes| if bytes.len() > MAX_FILE_BYTES { Err(LoadError::TooLarge) } else { Ok(bytes) });
    match (bytes.map(String::from_utf8), origin) {
        (Ok(Ok(text)), _) => return Some(Source::new(origin.shown(), text)),
        (Ok(Err(error)), _) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes());
            let location = Location::new(&Source::new(origin.shown(), text), at..at + '\u{fffd}'.len_utf8());
            sink.push(
                Diagnostic::new(Code::S002, &location, format!("{name} is not UTF-8"))
                    .label(format!("byte {at} of the file")),
            );
        }
        (Err(LoadError::TooLarge), _) => {
            let message = format!("{name} is larger than {MAX_FILE_BYTES} bytes");
            sink.push(Diagnostic::new(Code::S003, said_at, message));
        }
        (Err(LoadError::NotFound), Origin::Shipped(shipped)) => {
            let names = shipped::ALL.iter().map(|&Shipped { name, .. }| name);
            let message = format!("no spec {} ships with the compiler", quote(shipped));
            sink.push(Diagnostic::new(Code::S015, said_at, message).help(did_you_mean(shipped, names)));
        }
        (Err(error), _) => {
            sink.push(Diagnostic::new(Code::S001, said_at, format!("cannot read {name}: {error}")));
        }
    }
    None
}
