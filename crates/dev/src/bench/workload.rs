//! What is measured, as data.
//!
//! A workload is one sequence whose queries are its keys, or the last tokens of each of some sequences whose keys and values are
//! cached. Rounds say which workloads are measured in which storage types; the spec of each is a few lines of TOML that follow
//! from the row.

mod rounds;
mod table;
mod words;

use regard_ir::cache::Codec;
use regard_ir::plan::Dtype;

pub use rounds::{Also, Company, Round, rounds};
pub use table::{WORKLOADS, workload};

/// Which pairs of query and key a workload allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mask {
    /// All.
    None,
    /// Keys up to the query.
    Causal,
    /// Of those, the last so many.
    Window(u32),
    /// Of those, the ones of the query's own document; documents have these lengths.
    Documents(&'static [u32]),
}

/// What is done with a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// Nothing.
    Plain,
    /// A tanh keeps it within this.
    Softcap(f64),
    /// Each head discounts distance by its own slope.
    Alibi,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Attends as many queries as there are keys.
    Prefill,
    /// Attends the last tokens of each of some sequences to its cached keys.
    Decode {
        /// How many sequences.
        sequences: u32,
        /// How many tokens of each.
        queries: u32,
        /// What the sequences begin with.
        prefix: Prefix,
        /// How keys and values are cached.
        cache: Cache,
    },
}

/// How keys and values are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// In the storage type of q and o.
    Same,
    /// In 8 bits of each implementation's own: ours in int8.
    Bits8,
    /// In 4 bits: int4, which is ours alone.
    Bits4,
}

/// What sequences begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// Tokens of their own.
    Own,
    /// So many tokens that are the same in all, of which each caches a copy.
    Copied(u32),
    /// The same, cached once.
    Shared(u32),
}

/// Sizes of latents: what keys and values of all heads are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latents {
    /// Channels of a latent.
    pub rank: u32,
    /// Channels of a key that are made of it; a head has the others, which are rotary, of its row.
    pub nope: u32,
    /// Channels of a value.
    pub value: u32,
}

/// A state that takes the place of scores and their softmax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recurrence {
    /// Products of keys and values are added to it.
    Sum,
    /// It decays with each token, and what a key recalls is taken off what is written.
    GatedDelta,
}

/// One problem of attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// Short, without spaces.
    pub name: &'static str,
    /// Query heads.
    pub heads: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Channels of a query and a key of a head.
    pub dim: u32,
    /// What keys and values are made of, where they are not given.
    pub latents: Option<Latents>,
    /// Queries, and keys, of a sequence; cached keys where there are any.
    pub tokens: u32,
    /// Which of both.
    pub call: Call,
    /// Allowed pairs.
    pub mask: Mask,
    /// The modifier.
    pub score: Score,
    /// What there is in place of softmax, where there is something.
    pub recurrence: Option<Recurrence>,
}

/// A tensor of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// As the language has it.
    pub name: &'static str,
    /// What its rows are.
    pub of: Kind,
    /// Heads.
    pub heads: u32,
    /// Channels of a row.
    pub width: u32,
}

/// What the rows of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One for each query.
    Queries,
    /// One for each key.
    Keys,
    /// So many, the same for all sequences.
    Matrix(u32),
}

/// How exactly ours computes f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// In f32.
    Exact,
    /// In bf16 pieces on matrix tiles.
    Fast,
}

impl Workload {
    /// Rotary channels of a key that come from the row of its latent; none without latents.
    pub fn rope(&self) -> u32 {
        self.latents.map_or(0, |latents| self.dim - latents.nope)
    }

    /// Channels of a value.
    pub fn value_dim(&self) -> u32 {
        self.latents.map_or(self.dim, |latents| latents.value)
    }

    /// The tensors that it computes on, in the order of the language.
    pub fn tensors(&self) -> Vec<Rows> {
        let &Self { heads, kv_heads, dim, .. } = self;
        let of = |name, of, heads, width| Rows { name, of, heads, width };
        match self.latents {
            None => vec![
                of("q", Kind::Queries, heads, dim),
                of("k", Kind::Keys, kv_heads, dim),
                of("v", Kind::Keys, kv_heads, dim),
            ],
            Some(Latents { rank, nope, value }) => vec![
                of("q_nope", Kind::Queries, heads, nope),
                of("q_rope", Kind::Queries, heads, self.rope()),
                of("c_kv", Kind::Keys, 1, rank),
                of("k_rope", Kind::Keys, 1, self.rope()),
                of("w_uk", Kind::Matrix(nope), heads, rank),
                of("w_uv", Kind::Matrix(value), heads, rank),
            ],
        }
    }

    /// The document of each token, where there are documents.
    pub fn documents(&self) -> Option<Vec<i32>> {
        let Mask::Documents(lengths) = self.mask else { return None };
        let ids = lengths.iter().enumerate();
        Some(ids.flat_map(|(id, &len)| std::iter::repeat_n(id as i32, len as usize)).collect())
    }

    /// What a recurrence reads of each head and token beside the tensors, in the order of the spec's inputs.
    pub fn gates(&self) -> &'static [&'static str] {
        match self.recurrence {
            None | Some(Recurrence::Sum) => &[],
            Some(Recurrence::GatedDelta) => &["decay", "beta"],
        }
    }

    /// Sequences.
    pub fn sequences(&self) -> u32 {
        match self.call {
            Call::Prefill => 1,
            Call::Decode { sequences, .. } => sequences,
        }
    }

    /// Queries of a sequence.
    pub fn queries(&self) -> u32 {
        match self.call {
            Call::Prefill => self.tokens,
            Call::Decode { queries, .. } => queries,
        }
    }

    /// What sequences begin with.
    pub fn prefix(&self) -> Prefix {
        match self.call {
            Call::Prefill => Prefix::Own,
            Call::Decode { prefix, .. } => prefix,
        }
    }

    /// How many tokens all sequences begin with.
    pub fn common(&self) -> u32 {
        match self.prefix() {
            Prefix::Own => 0,
            Prefix::Copied(tokens) | Prefix::Shared(tokens) => tokens,
        }
    }

    /// Whether keys and values are cached.
    pub fn is_decode(&self) -> bool {
        matches!(self.call, Call::Decode { .. })
    }

    /// How ours caches them, where that is in fewer bits than storage types have.
    pub fn codec(&self) -> Option<Codec> {
        match self.call {
            Call::Decode { cache: Cache::Bits8, .. } => Some(Codec::Int8),
            Call::Decode { cache: Cache::Bits4, .. } => Some(Codec::Int4),
            Call::Decode { cache: Cache::Same, .. } | Call::Prefill => None,
        }
    }

    /// Whether they are cached in fewer bits than storage types have.
    pub fn is_rounded(&self) -> bool {
        self.codec().is_some()
    }

    /// Whether no other implementation is asked for it.
    pub fn is_ours_alone(&self) -> bool {
        let Call::Decode { queries, prefix, cache, .. } = self.call else { return false };
        queries != 1 || prefix != Prefix::Own || cache == Cache::Bits4
    }

    /// Bytes that must be read and written where keys and values are cached: those, once where they are shared, q and o. Of
    /// ours: others' 8 bits have other scales.
    pub fn cached_bytes(&self, dtype: Dtype) -> Option<f64> {
        let Call::Decode { sequences, queries, prefix, .. } = self.call else { return None };
        let element = dtype.size_bytes() as f64;
        if let Some(Latents { rank, nope, value }) = self.latents {
            let [heads, tokens, ends] = [self.heads, self.tokens, self.dim + value].map(f64::from);
            let matrices = heads * f64::from(rank) * f64::from(nope + value);
            let each = tokens * f64::from(rank + self.rope()) + f64::from(queries) * heads * ends;
            return Some(element * (matrices + f64::from(sequences) * each));
        }
        let dim = f64::from(self.dim);
        let row = match self.codec() {
            None => element * dim,
            Some(codec) => {
                let bits = f64::from(u32::BITS / codec.numbers());
                dim * bits / 8.0 + f64::from(codec.scales(self.dim) * codec.scale_bytes())
            }
        };
        let once = if let Prefix::Shared(tokens) = prefix { tokens } else { 0 };
        let tokens = f64::from(once) + f64::from(sequences) * f64::from(self.tokens - once);
        let rows = 2.0 * f64::from(self.kv_heads) * tokens;
        let ends = 2.0 * f64::from(sequences) * f64::from(self.heads) * f64::from(queries) * element * dim;
        Some(rows * row + ends)
    }

    /// Memory that everyone who takes part holds beside its cache, roughly: keys and values as they are drawn, read and rounded.
    pub fn drawn_bytes(&self) -> f64 {
        const COPIES: f64 = 4.0;
        let own = f64::from(self.sequences()) * f64::from(self.tokens - self.common());
        let of_keys = self.tensors().into_iter().filter(|tensor| tensor.of == Kind::Keys);
        let width: f64 = of_keys.map(|tensor| f64::from(tensor.heads) * f64::from(tensor.width)).sum();
        COPIES * size_of::<f32>() as f64 * width * (f64::from(self.common()) + own)
    }

    /// Pairs of query and key that one head computes of a sequence.
    pub fn pairs(&self) -> f64 {
        let triangle = |n: u32| f64::from(n) * (f64::from(n) + 1.0) / 2.0;
        if let Call::Decode { queries, .. } = self.call {
            return triangle(self.tokens) - triangle(self.tokens - queries);
        }
        match self.mask {
            Mask::None => f64::from(self.tokens).powi(2),
            Mask::Causal => triangle(self.tokens),
            Mask::Window(keys) => {
                let full = self.tokens.saturating_sub(keys);
                triangle(self.tokens) - triangle(full)
            }
            Mask::Documents(lengths) => lengths.iter().map(|&n| triangle(n)).sum(),
        }
    }

    /// Multiplications and additions of all heads: two for each channel of q and of v, for each pair; and, of latents, those that
    /// make keys and values or, of few queries, bring these to latents and their outputs back. Of a recurrence two for each element
    /// of the state, when it is written and when it is read, and by a delta rule when it is recalled.
    pub fn operations(&self) -> f64 {
        let all_heads = f64::from(self.heads) * f64::from(self.sequences());
        let width = |width: u32| 2.0 * f64::from(width) * all_heads;
        if let Some(recurrence) = self.recurrence {
            let times = if recurrence == Recurrence::GatedDelta { 3.0 } else { 2.0 };
            return times * width(self.dim) * f64::from(self.value_dim()) * f64::from(self.tokens);
        }
        let Some(Latents { rank, nope, value }) = self.latents else {
            return width(2 * self.dim) * self.pairs();
        };
        let made = width(nope + value) * f64::from(rank);
        if self.is_decode() {
            width(2 * rank + self.rope()) * self.pairs() + made * f64::from(self.queries())
        } else {
            width(self.dim + value) * self.pairs() + made * f64::from(self.tokens)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regard_spec::{NoFiles, parse};

    #[test]
    fn every_workload_is_a_spec() {
        for workload in WORKLOADS {
            for precision in [Precision::Exact, Precision::Fast] {
                let text = workload.spec(precision);
                let parsed =
                    parse(&text, "workload.toml", &NoFiles).unwrap_or_else(|e| panic!("{text}\n{e}"));
                assert_eq!(parsed.notes, [], "{text}");
                let heads = parsed.spec.heads;
                // All heads read one latent.
                let kv_heads = workload.latents.map_or(workload.kv_heads, |_| 1);
                let expected = (workload.heads, kv_heads, workload.dim, workload.value_dim());
                assert_eq!((heads.query, heads.kv, heads.dim, heads.value_dim), expected);
                let operands = parsed.spec.variant().operands();
                let rows = |rows| match rows {
                    regard_ir::operands::Rows::Queries => Kind::Queries,
                    regard_ir::operands::Rows::Keys => Kind::Keys,
                    regard_ir::operands::Rows::Matrix(rows) => Kind::Matrix(rows),
                };
                let expected: Vec<_> = operands
                    .map(|it| Rows {
                        name: it.name,
                        of: rows(it.rows),
                        heads: it.heads.unwrap_or(1),
                        width: it.width,
                    })
                    .collect();
                assert_eq!(workload.tensors(), expected);
                let gates = parsed.spec.inputs.names.iter().filter(|name| *name != "doc");
                assert!(gates.eq(workload.gates()), "{text}");
            }
        }
    }

    #[test]
    fn pairs_are_those_that_the_mask_allows() {
        let pairs = |name| workload(name).unwrap().pairs();
        assert_eq!(pairs("gqa-512"), 512.0 * 513.0 / 2.0);
        assert_eq!(pairs("vit-197"), 197.0 * 197.0);
        let window: u32 = (0..8192).map(|q: u32| (q + 1).min(1024)).sum();
        assert_eq!(pairs("window-8192"), f64::from(window));
        let documents = workload("documents-4096").unwrap().documents().unwrap();
        assert_eq!(documents.len(), 4096);
        let same = |id| documents.iter().filter(|&&other| other == id).count() as f64;
        let by_hand: f64 = (0..5).map(|id| same(id) * (same(id) + 1.0) / 2.0).sum();
        assert_eq!(pairs("documents-4096"), by_hand);
        assert_eq!(pairs("decode-8x16384"), 16384.0);
        assert_eq!(pairs("decode-1x8192-few"), (8185..=8192).map(f64::from).sum::<f64>());
    }

    #[test]
    fn decoding_moves_its_cache() {
        let of = |name| workload(name).unwrap();
        let (four, eight) = (of("decode-1x4096"), of("decode-8x16384"));
        assert_eq!(eight.operations(), 8.0 * 4.0 * 128.0 * 16384.0 * 32.0);
        let ends = 2.0 * 32.0 * 128.0;
        assert_eq!(four.cached_bytes(Dtype::Bf16), Some(2.0 * (ends + 2.0 * 8.0 * 128.0 * 4096.0)));
        assert_eq!(eight.cached_bytes(Dtype::F32), Some(8.0 * 4.0 * (ends + 2.0 * 8.0 * 128.0 * 16384.0)));
        let rounded = of("decode-1x65536-8bit");
        assert_eq!(rounded.cached_bytes(Dtype::Bf16), Some(2.0 * ends + 2.0 * 8.0 * 132.0 * 65536.0));
        assert_eq!(of("gqa-512").cached_bytes(Dtype::F32), None);
        // A scale of 16 bits for each 32 channels.
        let rounded = of("decode-1x8192-4bit");
        assert_eq!(rounded.cached_bytes(Dtype::Bf16), Some(2.0 * ends + 2.0 * 8.0 * 72.0 * 8192.0));
        let few = of("decode-1x8192-few");
        assert_eq!(few.cached_bytes(Dtype::F16), Some(2.0 * (8.0 * ends + 2.0 * 8.0 * 128.0 * 8192.0)));
        // Latents are read once, and both matrices.
        let latents = of("decode-mla-1x4096");
        let (matrices, ends) = (16.0 * 512.0 * 256.0, 16.0 * (192.0 + 128.0));
        assert_eq!(latents.cached_bytes(Dtype::Bf16), Some(2.0 * (576.0 * 4096.0 + matrices + ends)));
        assert_eq!(latents.operations(), 2.0 * 16.0 * (1088.0 * 4096.0 + 512.0 * 256.0));
        assert!(eight.words().contains("8 sequences on 16384 cached keys, causal"), "{}", eight.words());
    }

    #[test]
    fn a_recurrence_takes_as_long_for_each_token() {
        let of = |name| workload(name).unwrap();
        assert_eq!(of("linear-4096").operations(), 4.0 * 64.0 * 64.0 * 4096.0 * 16.0);
        assert_eq!(of("delta-4096-128").operations(), 6.0 * 128.0 * 128.0 * 4096.0 * 16.0);
        assert!(of("delta-4096").words().ends_with("causal, gated delta rule"));
        assert!(of("linear-4096").fields().contains(&("recurrence", "sum".to_owned())));
    }

    #[test]
    fn what_sequences_share_is_read_once() {
        let of = |name| workload(name).unwrap();
        let (copied, shared) = (of("decode-64x16448"), of("decode-64x16448-shared"));
        let (ends, row) = (64.0 * 2.0 * 32.0 * 128.0, 2.0 * 8.0 * 128.0);
        assert_eq!(copied.cached_bytes(Dtype::F32), Some(4.0 * (ends + row * 64.0 * 16448.0)));
        assert_eq!(shared.cached_bytes(Dtype::F32), Some(4.0 * (ends + row * (16384.0 + 64.0 * 64.0))));
        // Both are drawn the same.
        assert_eq!(copied.drawn_bytes(), shared.drawn_bytes());
        assert_eq!((copied.fields(), copied.operations()), (shared.fields(), shared.operations()));
        assert!(copied.fields().contains(&("shared", "16384".to_owned())));
        assert!(!copied.spec(Precision::Exact).contains("cache"));
        let spec = of("decode-64x16448-8bit-shared").spec(Precision::Exact);
        assert!(spec.contains("cache = { dtype = \"int8\", layout = \"paged\" }\n"), "{spec}");
    }
}
