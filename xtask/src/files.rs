//! Whole folders of text files, read and made so.

use std::fs;
use std::path::{Path, PathBuf};

use regard_codegen::{Drift, File, drift};

use crate::error::Error;

/// What cargo builds is none of the files.
const BUILT: &str = "target";

/// All files of a folder and of the folders in it, which need not exist; paths from the root on, with `/`.
///
/// # Errors
/// If one cannot be read.
pub(crate) fn read_all(root: &Path, folder: &str) -> Result<Vec<File>, Error> {
    let mut files = Vec::new();
    add_all(root, PathBuf::from(folder), &mut files)?;
    Ok(files)
}

fn add_all(root: &Path, folder: PathBuf, files: &mut Vec<File>) -> Result<(), Error> {
    let path = root.join(&folder);
    if !path.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(&path).map_err(Error::read(&path))? {
        let entry = entry.map_err(Error::read(&path))?;
        let inside = folder.join(entry.file_name());
        if entry.file_name() == BUILT {
            continue;
        }
        if entry.path().is_dir() {
            add_all(root, inside, files)?;
        } else {
            files.push(read(root, &inside)?);
        }
    }
    Ok(())
}

/// A file, whichever way its lines end; its path is from the root on.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn read(root: &Path, inside: &Path) -> Result<File, Error> {
    let path = root.join(inside);
    let bytes = fs::read(&path).map_err(Error::read(&path))?;
    let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
    Ok(File { path: inside.to_string_lossy().replace('\\', "/"), text })
}

/// Writes below `root` what `made` has and `found` has not, removes what `made` does not have, and says what was done.
/// Files that are as they should be are not touched, so that nothing is built anew for them.
///
/// # Errors
/// If a file cannot be written or removed.
pub(crate) fn make_so(root: &Path, made: &[File], found: &[File]) -> Result<Vec<Drift>, Error> {
    let done = drift(made, found);
    for drift in &done {
        let path = root.join(drift.path());
        match drift {
            Drift::LeftOver(_) => {
                fs::remove_file(&path).map_err(Error::read(&path))?;
                // A folder that still holds something stays.
                let _ = path.parent().map(fs::remove_dir);
            }
            Drift::Edited(_) | Drift::Missing(_) => {
                let text = made.iter().find(|file| file.path == drift.path()).map(|file| &file.text);
                let parent = path.parent().unwrap_or(root);
                fs::create_dir_all(parent).map_err(Error::read(parent))?;
                fs::write(&path, text.map_or("", String::as_str)).map_err(Error::read(&path))?;
            }
        }
    }
    Ok(done)
}
