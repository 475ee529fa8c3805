//! `cargo xtask verify`: generated kernels of specs that do not ship, compared by `regard verify`.
//!
//! A kernel is generated into the crate `kernels`, and the command finds there what it compares. So the tree is copied,
//! its crate `kernels` made with a module more for each spec, and the command built from the copy: what compares is the
//! command as it is. A copy of the crate `kernels` alone would be less, but cargo replaces a dependency by path only where
//! its manifest is another, which all others would have to agree on. Only what differs is written, so a second call
//! builds the kernels and what lies above them.

use std::path::Path;

use regard_codegen::File;
use regard_spec::{Diagnostics, Parsed};

use crate::codegen;
use crate::command::{Cargo, target_folder};
use crate::error::Error;
use crate::files;

/// What cargo needs to build the command with the versions of the workspace.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "Cargo.lock"];
const FOLDERS: [&str; 5] = ["crates", "kernels", "specs", "tests", "xtask"];

/// Compares loaded and generated kernels of `specs`, files or names of shipped ones, with each other and with the oracle.
///
/// # Errors
/// If a spec is not there or has errors, which are all told first; if a file cannot be read or written; and if a
/// comparison fails.
pub(crate) fn run(root: &Path, specs: &[String]) -> Result<(), Error> {
    let given = load(specs)?;
    let folder = target_folder(root, "verify");
    let tree = folder.join("tree");
    eprintln!("making {} of {} specs in {}", modules(given.len()), specs.len(), tree.display());
    files::make_so(&tree, &copy(root, &given)?, &read_tree(&tree)?)?;

    let (manifest, target) = (tree.join("Cargo.toml"), folder.join("build"));
    let [manifest, target] = [manifest, target].map(|path| path.display().to_string());
    let run = ["run", "--locked", "--package", "regard-cli", "--manifest-path", &manifest];
    let specs: Vec<_> = specs.iter().map(String::as_str).collect();
    // In the folder that the caller is in, which the paths of the specs are relative to.
    Cargo::new(Path::new("."), &run)
        .args(&["--target-dir", &target, "--", "verify", "--dtype", "all", "--"])
        .args(&specs)
        .run_one_of_ours()
}

/// Compiles the specs that are files; what ships has its module already.
fn load(specs: &[String]) -> Result<Vec<(String, Parsed)>, Error> {
    let mut given = Vec::new();
    let mut wrong = 0;
    for (i, name) in specs.iter().enumerate() {
        match compile(name) {
            Ok(Some(parsed)) => given.push((module_name(name, i), parsed)),
            Ok(None) => {}
            Err(said) => {
                wrong += 1;
                eprintln!("{said}");
            }
        }
    }
    if wrong > 0 { Err(Error::Specs { n: wrong, of: specs.len() }) } else { Ok(given) }
}

/// A spec, or what is wrong with it; nothing where its name is a shipped one's.
fn compile(name: &str) -> Result<Option<Parsed>, String> {
    let path = Path::new(name);
    let ships = regard_spec::find_shipped(name).is_some();
    if !path.exists() && !ships {
        return Err(format!("error: {name:?} is neither a file nor a shipped spec\n"));
    }
    if ships && !path.is_file() {
        return Ok(None);
    }
    regard_spec::from_file(path).map(Some).map_err(|errors: Diagnostics| errors.to_string())
}

/// A module's path that no other spec of the call has, and none that ships.
fn module_name(spec: &str, place: usize) -> String {
    let stem = Path::new(spec).file_stem().unwrap_or_default().to_string_lossy();
    format!("given/{stem}_{place}")
}

/// The tree at `root` with modules of `given` in its crate `kernels`.
fn copy(root: &Path, given: &[(String, Parsed)]) -> Result<Vec<File>, Error> {
    let mut copy = codegen::kernels(given)?;
    for file in read_tree(root)? {
        if copy.iter().all(|made| made.path != file.path) {
            copy.push(file);
        }
    }
    Ok(copy)
}

/// What a build of the command reads, below a root that need not exist.
fn read_tree(root: &Path) -> Result<Vec<File>, Error> {
    let mut files = Vec::new();
    for manifest in MANIFESTS.iter().filter(|&manifest| root.join(manifest).exists()) {
        files.push(files::read(root, Path::new(manifest))?);
    }
    for folder in FOLDERS {
        files.extend(files::read_all(root, folder)?);
    }
    Ok(files)
}

fn modules(n: usize) -> String {
    format!("{n} module{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// A folder of a test's own, gone when it ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("regard-xtask-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// Writes a file and gives its path.
        fn file(&self, name: &str, text: &str) -> String {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path.display().to_string()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const GOOD: &str = "heads = { query = 3, dim = 8 }\nmask = 'k % 5 == 0'";

    #[test]
    fn files_are_compiled_and_shipped_names_are_not() {
        let folder = Folder::new("load");
        let mine = folder.file("mine.toml", GOOD);
        let given = load(&["causal".to_owned(), mine]).unwrap();
        let names: Vec<_> = given.iter().map(|(name, parsed)| (&name[..], &parsed.spec.name[..])).collect();
        assert_eq!(names, [("given/mine_1", "mine")]);
    }

    #[test]
    fn every_spec_that_cannot_be_used_is_counted() {
        let folder = Folder::new("wrong");
        let good = folder.file("good.toml", GOOD);
        let bad = folder.file("bad.toml", "heads = { query = 3, dim = 8 }\nmask = 'causl'");
        let error = load(&[bad, "none.toml".to_owned(), good]).err().unwrap();
        assert_eq!(error.to_string(), "2 of 3 specs cannot be used");
    }

    #[test]
    fn the_copy_is_the_tree_with_a_module_for_each_spec() {
        let folder = Folder::new("copy");
        let specs =
            [folder.file("a/x.toml", GOOD), folder.file("b/x.toml", "heads = { query = 1, dim = 4 }")];
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let copy = copy(root, &load(&specs).unwrap()).unwrap();
        let text = |path: &str| {
            let files: Vec<_> = copy.iter().filter(|file| file.path == path).collect();
            assert_eq!(files.len(), 1, "{path}");
            files[0].text.clone()
        };
        assert!(text("kernels/src/given/x_0.rs").contains("k % 5 == 0"));
        assert!(text("kernels/src/given/x_1.rs").contains("query: 1"));
        let lib = text("kernels/src/lib.rs");
        for module in ["causal", "given::x_0", "given::x_1"] {
            assert!(lib.contains(&format!("{module}::IDENTITY =>")), "{lib}");
        }
        for path in
            ["Cargo.toml", "Cargo.lock", "kernels/Cargo.toml", "crates/cli/src/main.rs", "specs/gqa.toml"]
        {
            assert_eq!(text(path), fs::read_to_string(root.join(path)).unwrap());
        }
    }

    #[test]
    fn a_tree_that_is_as_it_should_be_is_not_touched() {
        let folder = Folder::new("tree");
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let made = [file("crates/a.rs", "a"), file("specs/b.toml", "b")];
        let make =
            |made: &[File]| files::make_so(&folder.0, made, &read_tree(&folder.0).unwrap()).unwrap().len();
        assert_eq!([make(&made), make(&made)], [2, 0]);
        folder.file("crates/target/built", "");
        folder.file("crates/old/c.rs", "");
        assert_eq!([make(&made), make(&made)], [1, 0]);
        assert!(folder.0.join("crates/target/built").exists() && !folder.0.join("crates/old").exists());
    }
}
