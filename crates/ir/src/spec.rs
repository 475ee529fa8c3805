//! A resolved spec: everything that a TOML file says, defaults filled in, expressions typed.
//!
//! There is a place here for every table of the language. A mechanism that no kernel has yet is refused by the compiler,
//! so that a value of this type is always one that the oracle, at least, can evaluate. How keys and values are cached is
//! kept here before kernels do so: what a prefill computes does not depend on it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::expr::Expr;
use crate::identity::Identity;
use crate::plan::{Dtype, Precision};
use crate::rows::{Output, Position, QkNorm};
use crate::variant::{self, Heads, InputShape, Latent, Pseudo, Recurrence, Source, Variant, Weights};

/// One attention variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// What it is called.
    pub name: String,
    /// What it is, in a line; may be empty.
    pub summary: String,
    /// Hash of what follows, without `dtype` and `precision`.
    pub identity: Identity,
    /// Head counts and widths.
    pub heads: Heads,
    /// Whose keys and values.
    pub source: Source,
    /// How positions enter q and k.
    pub position: Option<Position>,
    /// Normalisation of q and k rows.
    pub qk_norm: Option<QkNorm>,
    /// Factor of every query·key product.
    pub scale: f64,
    /// The score modifier, a float; of a recurrence its feature map.
    pub modify: Expr,
    /// The mask, a bool.
    pub allow: Expr,
    /// How scores become weights; nothing of a recurrence.
    pub weights: Weights,
    /// What turns q, k and v into o.
    pub mechanism: Mechanism,
    /// What happens to o.
    pub output: Output,
    /// The layer around it.
    pub project: Option<Project>,
    /// How keys and values are kept between decode steps.
    pub cache: Cache,
    /// Captured tensors.
    pub inputs: Inputs,
    /// Storage of q, k, v and o.
    pub dtype: Dtype,
    /// How products are computed.
    pub precision: Precision,
}

impl Spec {
    /// The variant as kernels see it.
    pub fn variant(&self) -> Variant<'_> {
        let mechanism = match &self.mechanism {
            Mechanism::Plain => variant::Mechanism::Plain,
            Mechanism::Recurrence(recurrence) => variant::Mechanism::Recurrence(*recurrence),
            Mechanism::Latent(latent) => variant::Mechanism::Latent(*latent),
            Mechanism::Lookahead(Lookahead { window, rotate, allow }) => {
                variant::Mechanism::Lookahead(variant::Lookahead {
                    window: *window,
                    rotate: *rotate,
                    allow: allow.tree(),
                })
            }
            Mechanism::Pseudo(pseudo) => variant::Mechanism::Pseudo(*pseudo),
        };
        Variant {
            identity: self.identity,
            heads: self.heads,
            source: self.source,
            position: self.position,
            qk_norm: self.qk_norm,
            scale: self.scale,
            modify: self.modify.tree(),
            allow: self.allow.tree(),
            weights: self.weights,
            mechanism,
            output: self.output,
            inputs: &self.inputs.shapes,
        }
    }
}

/// What turns q, k and v into o. The five exclude each other.
#[derive(Clone, Debug, PartialEq)]
pub enum Mechanism {
    /// Scores of q and k, weights of v.
    Plain,
    /// A running state: linear attention.
    Recurrence(Recurrence),
    /// Keys and values compressed to a latent vector: MLA.
    Latent(Latent),
    /// Keys that keep learning from later tokens: CASTLE.
    Lookahead(Lookahead),
    /// Heads mixed and interleaved into pseudo-heads: IHA.
    Pseudo(Pseudo),
}

/// Captured tensors: the declared ones in the order of their declaration, then those of learned tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// Their names.
    pub names: Vec<String>,
    /// Their types and axes.
    pub shapes: Vec<InputShape>,
}

/// Keys that keep learning from later tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookahead {
    /// How many tokens a key keeps learning from; all later ones where absent.
    pub window: Option<u32>,
    /// Which tensors rope turns, a bit for each of [`variant::Turned`].
    pub rotate: u8,
    /// Whether token `q` teaches key `k`: never where `q` is not later, or past the window.
    pub allow: Expr,
}

/// The layer form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Project {
    /// Width of x and y.
    pub model_dim: u32,
    /// Width of the context of a cross spec.
    pub context_dim: u32,
    /// Whether the projections have biases.
    pub bias: bool,
}

/// How keys and values are kept between decode steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// One block, pages, or a ring.
    pub layout: CacheLayout,
    /// Tokens of a page; the plan's choice where absent.
    pub page: Option<u32>,
    /// Storage of keys.
    pub k: CacheFormat,
    /// Storage of values.
    pub v: CacheFormat,
    /// Whether it lives in a memory-mapped file.
    pub file: bool,
}

impl Cache {
    /// What an absent table means.
    pub const DEFAULT: Cache = Cache {
        layout: CacheLayout::Contiguous,
        page: None,
        k: CacheFormat::Same,
        v: CacheFormat::Same,
        file: false,
    };
}

/// Where cached tokens lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheLayout {
    /// One block.
    Contiguous,
    /// Pages by a table.
    Paged,
    /// The last tokens only.
    Ring,
}

impl CacheLayout {
    /// Every layout.
    pub const ALL: [CacheLayout; 3] = [CacheLayout::Contiguous, CacheLayout::Paged, CacheLayout::Ring];

    /// As it is written in specs.
    pub const fn name(self) -> &'static str {
        match self {
            CacheLayout::Contiguous => "contiguous",
            CacheLayout::Paged => "paged",
            CacheLayout::Ring => "ring",
        }
    }
}

/// How a cached element is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheFormat {
    /// As the spec's dtype.
    Same,
    /// In another storage type.
    Dtype(Dtype),
    /// Symmetric, a scale for each token and head.
    Int8,
    /// Groups of 32 channels of a token with f16 scales; the last group has the channels that are left.
    Int4,
}

impl CacheFormat {
    /// Every format.
    pub const ALL: [CacheFormat; 6] = [
        CacheFormat::Same,
        CacheFormat::Dtype(Dtype::F32),
        CacheFormat::Dtype(Dtype::F16),
        CacheFormat::Dtype(Dtype::Bf16),
        CacheFormat::Int8,
        CacheFormat::Int4,
    ];

    /// As it is written in specs.
    pub const fn name(self) -> &'static str {
        match self {
            CacheFormat::Same => "same",
            CacheFormat::Dtype(dtype) => dtype.name(),
            CacheFormat::Int8 => "int8",
            CacheFormat::Int4 => "int4",
        }
    }
}
