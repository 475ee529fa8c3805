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
    let parsed = regard_spec::from_file(path).map_err(|errors: Diagnostics| errors.to_string())?;
    match regard_codegen::compile(&parsed.spec, name) {
        Ok(_) => Ok(Some(parsed)),
        Err(error) => Err(format!("error: {error}\n")),
    }
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
