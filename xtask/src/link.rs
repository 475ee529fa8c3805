//! `cargo xtask link`: the runtime in a program that has no allocator.
//!
//! The program in xtask/link has neither std nor a global allocator, so rustc refuses to build it if anything that it
//! uses links `alloc`. A check that cannot fail proves nothing: the same program with the runtime's feature
//! `alloc` is the control, and it must be refused.

use std::path::Path;
use std::process::Command;

use crate::command::{Cargo, target_folder};
use crate::error::Error;

/// The program's manifest, from the root.
pub(crate) const MANIFEST: &str = "xtask/link/Cargo.toml";

/// What rustc says of a program that needs an allocator and has none.
const NO_ALLOCATOR: &str = "no global memory allocator found";

/// Links and starts the program, then makes sure that the control does not link.
///
/// It ends as a C program on Linux; elsewhere the check is skipped aloud.
///
/// # Errors
/// If the program does not link or run, or if the control does.
pub(crate) fn run(root: &Path) -> Result<(), Error> {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped link: the program without std is for Linux");
        return Ok(());
    }
    share_lock_file(root)?;
    build(root).run()?;
    start(root)?;
    eprintln!("regard-runtime runs in a program without an allocator");
    control(root)
}

fn build(root: &Path) -> Cargo {
    let target = target_folder(root, "link").display().to_string();
    Cargo::new(root, &["build", "--release", "--manifest-path", MANIFEST, "--target-dir", &target])
}

fn start(root: &Path) -> Result<(), Error> {
    let program = target_folder(root, "link").join("release/regard-link");
    let command = program.display().to_string();
    match Command::new(&program).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Error::Command { command }),
        Err(source) => Err(Error::Start { command, source }),
    }
}

fn control(root: &Path) -> Result<(), Error> {
    let mut control = build(root).args(&["--features", "alloc"]);
    let output = control.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let command = control.to_string();
    if output.status.success() {
        Err(Error::ControlLinked { command })
    } else if stderr.contains(NO_ALLOCATOR) {
        eprintln!("and does not link there with the feature `alloc`, as it should not");
        Ok(())
    } else {
        Err(Error::ControlBroken { command, stderr })
    }
}

/// Gives the program the workspace's versions, so that nothing is resolved or fetched twice.
fn share_lock_file(root: &Path) -> Result<(), Error> {
    let (from, to) = (root.join("Cargo.lock"), root.join(MANIFEST).with_extension("lock"));
    std::fs::copy(&from, &to).map(drop).map_err(Error::read(&to))
}
