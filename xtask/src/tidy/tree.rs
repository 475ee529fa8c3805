//! A listing of the source tree, read once, so that every check is a function of plain data.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Error;

/// Larger files are data: they are listed, their text is not kept.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Folders that hold no sources of ours.
const SKIPPED: [&str; 2] = [".git", "target"];

/// Every file of the tree by its path from the root, `/` between names; binary and large ones without text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, Option<String>>,
}

impl Tree {
    /// Reads everything below `root` but build output and git's own files.
    ///
    /// # Errors
    /// If a folder or file cannot be read.
    pub(crate) fn read(root: &Path) -> Result<Self, Error> {
        let mut tree = Self::default();
        tree.read_folder(root, "")?;
        Ok(tree)
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> Result<(), Error> {
        for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
            let entry = entry.map_err(Error::read(folder))?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type().map_err(Error::read(&path))?;
            if kind.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    self.read_folder(&path, &format!("{prefix}{name}/"))?;
                }
            } else if kind.is_file() {
                let len = entry.metadata().map_err(Error::read(&path))?.len();
                let text = match len <= MAX_TEXT_BYTES {
                    true => String::from_utf8(std::fs::read(&path).map_err(Error::read(&path))?).ok(),
                    false => None,
                };
                self.files.insert(format!("{prefix}{name}"), text);
            }
        }
        Ok(())
    }

    /// The text of a file; `None` if there is no such file or it is not text.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// Whether a file or folder of this path is listed.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        self.files.contains_key(path)
            || self.files.range(folder.clone()..).next().is_some_and(|(first, _)| first.starts_with(&folder))
    }

    /// The path of every file, in order.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Path and text of every text file, in order of their paths.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    /// Path and text of every Rust source, in order of their paths.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".rs"))
    }
}

#[cfg(test)]
impl Tree {
    /// The same tree with one file added or replaced.
    pub(crate) fn with(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), Some(text.to_owned()));
        self
    }

    /// The same tree with `from` replaced by `to` in one file, which must contain it.
    pub(crate) fn edit(self, path: &str, from: &str, to: &str) -> Self {
        let text = self.text(path).expect("the file exists");
        assert!(text.contains(from), "{path} does not contain {from:?}");
        let text = text.replacen(from, to, 1);
        self.with(path, &text)
    }

    /// The same tree without one file.
    pub(crate) fn without(mut self, path: &str) -> Self {
        self.files.remove(path);
        self
    }
}
