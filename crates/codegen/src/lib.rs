//! Specs as Rust source.
//!
//! A module is the variant and nothing else: constants, expression trees for the interval reading, and mask and
//! modifier as straight-line code generic over the lane type. It names no machine and no engine, and its text is the
//! same whoever makes it. Pure: callers read and write files.
//!
//! Modules are formatted as `rustfmt` would leave them (110 columns, small heuristics at their maximum), so that they
//! are checked like any other source. Wide expressions are cut into bindings rather than broken over lines.
#![forbid(unsafe_code)]

mod data;
mod drift;
mod graph;
mod header;
mod layout;
mod lines;
mod module;
mod names;

use regard_ir::spec::Spec;

pub use drift::{Drift, drift};

/// A source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it belongs, from the folder `src` on, with `/` between folders.
    pub path: String,
    /// What it holds.
    pub text: String,
}

/// The text of the module of a spec, whose doc says that it is made from `origin`, the spec's file.
pub fn compile(spec: &Spec, origin: &str) -> String {
    module::module(spec, origin)
}

/// All files of a crate with one module for each spec, and a function that finds a module by identity. Specs are given
/// by their path under `specs/` without ending, as in `models/llama3`.
pub fn kernels(specs: &[(&str, Spec)]) -> Vec<File> {
    let mut files = vec![module::root(specs)];
    for (name, spec) in specs {
        let path = format!("{}.rs", names::module_path(name).join("/"));
        files.push(File { path, text: compile(spec, &format!("specs/{name}.toml")) });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}
