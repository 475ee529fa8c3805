//! The blocks of diagnostics: every code, and one of each as it is printed.

use std::path::{Path, PathBuf};

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

/// A section for each code, with what the compiler prints for the shortest spec of the corpus that is named after it.
fn examples(root: &Path) -> Result<String, Error> {
    let corpus = Folder(root.join(CORPUS));
    let mut files = files::read_all(root, CORPUS)?;
    files.sort_by(|a, b| (a.text.len(), &a.path).cmp(&(b.text.len(), &b.path)));
    let mut sections = Vec::new();
    for info in Code::ALL {
        let name = info.code.name();
        let mut section = format!("### {name}\n\n{}\n", said(info));
        let of_code = |path: &str| {
            let file = path.rsplit('/').next()?;
            file.starts_with(&name.to_lowercase()).then(|| file.to_owned())
        };
        let example =
            files.iter().find_map(|file| first(&of_code(&file.path)?, &file.text, &corpus, info.code));
        if let Some(example) = example {
            section += &format!("\n```text\n{example}```\n");
        }
        sections.push(section);
    }
    Ok(sections.join("\n"))
}

/// What is printed of a code for a spec.
fn first(file: &str, text: &str, folder: &Folder, code: Code) -> Option<String> {
    let found: Vec<Diagnostic> = match regard_spec::parse(text, file, folder) {
        Ok(parsed) => parsed.notes,
        Err(errors) => errors.as_slice().to_vec(),
    };
    found.iter().find(|it| it.code == code).map(Diagnostic::to_string)
}

/// The corpus, whose specs name each other.
struct Folder(PathBuf);

impl Loader for Folder {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        FileSystem.load(&self.0.join(path).to_string_lossy())
    }
}
