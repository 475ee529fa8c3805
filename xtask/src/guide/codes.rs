//! The blocks of diagnostics: every code, and one of each as it is printed.

use std::path::{Path, PathBuf};

use regard_codegen::File;
use regard_spec::{Code, CodeInfo, Diagnostic, FileSystem, LoadError, Loader, Severity};

use super::Block;
use super::blocks::table;
use crate::error::Error;
use crate::files;

/// Specs with errors, each named after the code that it gives.
const CORPUS: &str = "tests/diagnostics";

/// A table of the codes, and their examples.
///
/// # Errors
/// If the corpus cannot be read.
pub(super) fn all(root: &Path) -> Result<Vec<Block>, Error> {
    let examples = examples(root)?;
    Ok(vec![
        Block { name: "codes".to_owned(), text: codes() },
        Block { name: "examples of codes".to_owned(), text: examples },
    ])
}

fn codes() -> String {
    let rows = Code::ALL.iter().map(|it| {
        let name = it.code.name();
        [format!("[{name}](#{})", name.to_lowercase()), it.rule.to_owned(), said(it)]
    });
    table(["code", "about", "says"], rows)
}

fn said(info: &CodeInfo) -> String {
    match info.severity {
        Severity::Error => info.description.to_owned(),
        Severity::Note => format!("Note: {}", info.description),
    }
}

/// A section for each code, with one of what the compiler prints for the specs that are named after it: one with help
/// before one without, then the shortest.
fn examples(root: &Path) -> Result<String, Error> {
    let corpus = Folder(root.join(CORPUS));
    let files = files::read_all(root, CORPUS)?;
    let mut sections = Vec::new();
    for info in Code::ALL {
        let name = info.code.name();
        let of_code = |file: &&File| {
            file.path.rsplit('/').next().is_some_and(|it| it.starts_with(&name.to_lowercase()))
        };
        let said_of = files.iter().filter(of_code).flat_map(|file| found(file, &corpus));
        let printed = said_of
            .filter(|it| it.code == info.code)
            .map(|it| (it.help.is_none(), it.to_string()))
            .min_by(|a, b| (a.0, a.1.len(), &a.1).cmp(&(b.0, b.1.len(), &b.1)));
        let example = printed.map_or(String::new(), |(_, text)| format!("\n```text\n{text}```\n"));
        sections.push(format!("### {name}\n\n{}\n{example}", said(info)));
    }
    Ok(sections.join("\n"))
}

/// All that the compiler says of a spec of the corpus.
fn found(file: &File, folder: &Folder) -> Vec<Diagnostic> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    match regard_spec::parse(&file.text, name, folder) {
        Ok(parsed) => parsed.notes,
        Err(errors) => errors.as_slice().to_vec(),
    }
}

/// The corpus, whose specs name each other.
struct Folder(PathBuf);

impl Loader for Folder {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        FileSystem.load(&self.0.join(path).to_string_lossy())
    }
}
