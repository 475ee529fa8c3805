//! `cargo xtask codegen`: the crate `kernels` from the shipped specs, and one module more that tests use.

use std::path::Path;

use regard_codegen::{Drift, File, drift};
use regard_spec::{NoFiles, Parsed, SHIPPED};

use crate::error::Error;
use crate::files;

/// The generated sources.
const FOLDER: &str = "kernels/src";

/// The spec with every operation, its text, and its module beside the tests that compare it with the lane program.
const OPERATIONS: &str = "tests/tests/generated/operations.toml";
const OPERATIONS_TEXT: &str = include_str!("../../tests/tests/generated/operations.toml");
const OPERATIONS_MODULE: &str = "tests/tests/generated/operations.rs";

/// Makes every file anew: writes what differs and removes what no spec makes. Nothing is touched unless all could be
/// made.
///
/// # Errors
/// If a spec does not compile, or a file cannot be read, written or removed.
pub(crate) fn write(root: &Path) -> Result<(), Error> {
    let made = make()?;
    for drift in files::make_so(root, &made, &found(root)?)? {
        let verb = if matches!(drift, Drift::LeftOver(_)) { "removed" } else { "wrote" };
        println!("{verb} {}", drift.path());
    }
    Ok(())
}

/// Compares the folder with what the specs make, and prints a line for each file that is edited, missing or left over.
///
/// # Errors
/// If there is such a file, and as [`write`].
pub(crate) fn check(root: &Path) -> Result<(), Error> {
    let drift = compare(root, &make()?)?;
    drift.iter().for_each(|drift| println!("{drift}"));
    if drift.is_empty() { Ok(()) } else { Err(Error::Drift { files: drift.len() }) }
}

/// What the shipped specs make, paths from the root of the tree on.
fn make() -> Result<Vec<File>, Error> {
    let mut files = kernels(&[])?;
    let operations = regard_spec::parse(OPERATIONS_TEXT, OPERATIONS, &NoFiles).map_err(Error::Spec)?.spec;
    let text = regard_codegen::compile(&operations, OPERATIONS);
    files.push(File { path: OPERATIONS_MODULE.to_owned(), text });
    Ok(files)
}

/// The sources of the crate `kernels` with modules of the shipped specs and of others, named by their paths as of
/// files in `specs`; paths from the root of the tree on.
///
/// # Errors
/// If a spec does not compile.
pub(crate) fn kernels(others: &[(String, Parsed)]) -> Result<Vec<File>, Error> {
    let mut specs: Vec<_> =
        others.iter().map(|(name, parsed)| (name.as_str(), parsed.spec.clone())).collect();
    for shipped in SHIPPED {
        let parsed = regard_spec::shipped(shipped.name).map_err(Error::Spec)?;
        specs.push((shipped.name, parsed.spec));
    }
    let mut files = regard_codegen::kernels(&specs);
    for file in &mut files {
        file.path = format!("{FOLDER}/{}", file.path);
    }
    Ok(files)
}

fn compare(root: &Path, made: &[File]) -> Result<Vec<Drift>, Error> {
    Ok(drift(made, &found(root)?))
}

/// The files that are there.
fn found(root: &Path) -> Result<Vec<File>, Error> {
    let mut found = files::read_all(root, FOLDER)?;
    if root.join(OPERATIONS_MODULE).exists() {
        found.push(files::read(root, Path::new(OPERATIONS_MODULE))?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// A tree of its own with what the specs make.
    struct Copy(PathBuf);

    impl Copy {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("regard-codegen-{name}-{}", std::process::id()));
            let copy = Self(root);
            write(&copy.0).unwrap();
            copy
        }

        fn path(&self, file: &str) -> PathBuf {
            self.0.join(FOLDER).join(file)
        }

        /// What a check says of the tree, and that making it anew mends it.
        fn said(&self) -> Vec<String> {
            let said = compare(&self.0, &make().unwrap()).unwrap();
            assert_eq!(check(&self.0).is_err(), !said.is_empty());
            write(&self.0).unwrap();
            check(&self.0).unwrap();
            said.iter().map(Drift::to_string).collect()
        }
    }

    impl Drop for Copy {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_tree_has_what_its_specs_make() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(compare(root, &make().unwrap()).unwrap(), []);
    }

    #[test]
    fn an_edited_file_is_named() {
        let copy = Copy::new("edited");
        let text = fs::read_to_string(copy.path("causal.rs")).unwrap();
        fs::write(copy.path("causal.rs"), text.replace(".le(", ".lt(")).unwrap();
        let expected = "kernels/src/causal.rs is not what its spec makes: run `cargo xtask codegen` and commit the result";
        assert_eq!(copy.said(), [expected]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let copy = Copy::new("missing");
        fs::remove_file(copy.path("mha.rs")).unwrap();
        let expected = "kernels/src/mha.rs is missing: run `cargo xtask codegen` and commit the result";
        assert_eq!(copy.said(), [expected]);
    }

    #[test]
    fn a_left_over_file_is_named() {
        let copy = Copy::new("left");
        fs::create_dir(copy.path("old")).unwrap();
        fs::write(copy.path("old/variant.rs"), "").unwrap();
        let expected = "kernels/src/old/variant.rs is not made by any spec: run `cargo xtask codegen` and commit the \
                        result";
        assert_eq!(copy.said(), [expected]);
        assert!(!copy.path("old").exists());
    }

    #[test]
    fn ends_of_lines_do_not_count() {
        let copy = Copy::new("lines");
        let text = fs::read_to_string(copy.path("lib.rs")).unwrap();
        fs::write(copy.path("lib.rs"), text.replace('\n', "\r\n")).unwrap();
        assert!(copy.said().is_empty());
    }
}
