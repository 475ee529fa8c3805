//! The problems that the model is held against.

use std::fs;
use std::path::{Path, PathBuf};

use super::inputs;
use crate::error::Error;

/// One variant at some lengths.
pub(super) struct Workload {
    name: &'static str,
    /// Query heads, key heads and their width.
    heads: [usize; 3],
    /// The rest of the spec.
    spec: &'static str,
    /// Queries, and keys.
    lengths: &'static [usize],
}

/// A variant at one length in one storage type, in files.
pub(super) struct Problem {
    /// What it is called in tables.
    pub(super) name: String,
    /// The storage type.
    pub(super) dtype: &'static str,
    /// The file of its spec.
    pub(super) spec: PathBuf,
    /// The file of its tensors.
    pub(super) inputs: PathBuf,
    /// Queries, and keys.
    pub(super) keys: usize,
}

/// Storage types, as the language has them.
const DTYPES: [&str; 3] = ["f32", "bf16", "f16"];

/// A long causal prefill with shared heads, an encoder, an image, a window and a modifier.
pub(super) const WORKLOADS: [Workload; 5] = [
    Workload {
        name: "gqa",
        heads: [32, 8, 128],
        spec: "mask = \"causal\"",
        lengths: &[512, 1024, 2048, 4096],
    },
    Workload { name: "bert", heads: [16, 16, 64], spec: "", lengths: &[512, 2048] },
    Workload { name: "vit", heads: [12, 12, 64], spec: "", lengths: &[197] },
    Workload {
        name: "window",
        heads: [8, 8, 128],
        spec: "mask = \"causal & window(1024)\"",
        lengths: &[8192],
    },
    Workload {
        name: "alibi",
        heads: [8, 8, 128],
        spec: "score = { modify = \"s + alibi(h) * (k - q)\" }\nmask = \"causal\"",
        lengths: &[2048],
    },
];

impl Workload {
    /// Writes the files of each length in each storage type.
    ///
    /// # Errors
    /// If one cannot be written.
    pub(super) fn problems(&self, folder: &Path) -> Result<Vec<Problem>, Error> {
        let Self { name, heads: [query, kv, width], spec, lengths } = *self;
        let mut problems = Vec::new();
        for &keys in lengths {
            for dtype in DTYPES {
                let file = |extension: &str| folder.join(format!("{name}-{keys}-{dtype}.{extension}"));
                let (spec_file, inputs) = (file("toml"), file("safetensors"));
                let heads = format!("heads = {{ query = {query}, kv = {kv}, dim = {width} }}");
                let text = format!("dtype = \"{dtype}\"\n{heads}\n{spec}\n");
                fs::write(&spec_file, text).map_err(Error::file(&spec_file))?;
                inputs::write(&inputs, dtype, [query, kv, keys, width])?;
                problems.push(Problem {
                    name: format!("{name} {keys}"),
                    dtype,
                    spec: spec_file,
                    inputs,
                    keys,
                });
            }
        }
        Ok(problems)
    }
}
