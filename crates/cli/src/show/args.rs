//! The command line of `regard show`.

use std::path::PathBuf;

use regard::{Dtype, Isa};

use crate::args::{OffsetArgs, dtypes, isas};

/// Draw the mask of a spec and its tiles.
///
/// Draws which keys (across) each query (down) attends to, for one head of one sequence, and what the plan makes of it:
/// tiles that are full (all allowed: no mask code), partial (tested) and dead (never visited). The counts are those of
/// `regard plan`. Small problems are drawn pair by pair; of large ones the tiles are drawn, and in SVG and PNG a
/// few pairs beside them.
///
/// Without -o, the picture is drawn in the terminal, as characters where that has no colours, NO_COLOR is set, or the
/// output goes to a file. Where a mask reads tensors and their contents are not given, tiles that depend on them count as partial.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  regard show causal --q 64
  regard show sliding_window --q 16384 --k 16384 -o window.svg
  regard show document --q 2048 --k 2048 --example -o document.png
  regard show minilm --q 22 --k 22 -i layer0.safetensors --batch 4 --sequence 2
  regard show mine.toml --q 4096 --k 4096 --machine server-avx512-amx --dtype bf16")]
pub(crate) struct ShowArgs {
    /// A spec file or the name of a shipped spec.
    #[arg(value_name = "SPEC")]
    pub(crate) spec: String,
    /// Queries of each sequence.
    #[arg(long, value_name = "N")]
    pub(crate) q: usize,
    /// Keys of each sequence; as many as queries if not given.
    #[arg(long, value_name = "N")]
    pub(crate) k: Option<usize>,
    /// The file to write: SVG or PNG, by its ending.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The query head to draw, for masks that differ between heads.
    #[arg(long, value_name = "H", default_value_t = 0)]
    pub(crate) head: u32,
    /// Sequences.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) batch: usize,
    /// The sequence to draw, for masks that differ between sequences.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) sequence: u32,
    /// A safetensors file with the tensors that the mask reads; it may hold others.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Make up the tensors that the mask reads: ids of documents along keys, lengths, coins; the picture says so.
    #[arg(long, conflicts_with = "input")]
    pub(crate) example: bool,
    /// A shipped profile or a TOML file with isa, cores, l1d_kib, l2_kib and l3_kib; this machine if not given.
    #[arg(long, value_name = "PROFILE")]
    pub(crate) machine: Option<String>,
    /// Storage type of q, k, v and o; the spec's if not given.
    #[arg(long, value_name = "TYPE", value_parser = dtypes())]
    pub(crate) dtype: Option<Dtype>,
    /// The most capable instruction set to use; the machine's if not given.
    #[arg(long, value_name = "SET", value_parser = isas())]
    pub(crate) isa: Option<Isa>,
    #[command(flatten)]
    pub(crate) offset: OffsetArgs,
    /// Print what the picture says as one JSON object, instead of drawing in the terminal.
    #[arg(long)]
    pub(crate) json: bool,
}
