//! What is measured, as data.
//!
//! A workload is one sequence whose queries are its keys, or one query of each of some sequences whose keys and values are
//! cached. Rounds say which workloads are measured in which storage types; the spec of each is a few lines of TOML that follow
//! from the row.

mod rounds;

use std::fmt::Write;

use regard_ir::plan::Dtype;

pub use rounds::{Also, Company, Round, rounds};

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
    /// Attends the last token of each of some sequences to its cached keys.
    Decode {
        /// How many.
        sequences: u32,
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
    /// Channels of a head.
    pub dim: u32,
    /// Queries, and keys, of a sequence; cached keys where there are any.
    pub tokens: u32,
    /// Which of both.
    pub call: Call,
    /// Allowed pairs.
    pub mask: Mask,
    /// The modifier.
    pub score: Score,
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
    /// The spec, as a user would write it.
    pub fn spec(&self, precision: Precision) -> String {
        let Self { name, heads, kv_heads, dim, .. } = self;
        let mut text = format!("name = \"{}\"\n", name.replace('-', "_"));
        let kv = if kv_heads == heads { String::new() } else { format!("kv = {kv_heads}, ") };
        // Writing to a string does not fail.
        let _ = writeln!(text, "heads = {{ query = {heads}, {kv}dim = {dim} }}");
        if precision == Precision::Fast {
            text.push_str("precision = \"fast\"\n");
        }
        match self.score {
            Score::Plain => {}
            Score::Softcap(cap) => {
                let _ = writeln!(text, "score = {{ modify = \"softcap(s, {cap})\" }}");
            }
            Score::Alibi => text.push_str("score = { modify = \"s + alibi(h) * (k - q)\" }\n"),
        }
        if let Call::Decode { cache: Cache::Bits8, .. } = self.call {
            text.push_str("cache = { dtype = \"int8\" }\n");
        }
        match self.mask {
            Mask::None => {}
            Mask::Causal => text.push_str("mask = \"causal\"\n"),
            Mask::Window(keys) => {
                let _ = writeln!(text, "mask = \"causal & window({keys})\"");
            }
            Mask::Documents(_) => {
                text.push_str("inputs = { doc = \"i32[b, k]\" }\nmask = \"causal & same(doc)\"\n");
            }
        }
        text
    }

    /// The document of each token, where there are documents.
    pub fn documents(&self) -> Option<Vec<i32>> {
        let Mask::Documents(lengths) = self.mask else { return None };
        let ids = lengths.iter().enumerate();
        Some(ids.flat_map(|(id, &len)| std::iter::repeat_n(id as i32, len as usize)).collect())
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
        if self.is_decode() { 1 } else { self.tokens }
    }

    /// Whether keys and values are cached.
    pub fn is_decode(&self) -> bool {
        matches!(self.call, Call::Decode { .. })
    }

    /// Whether they are cached in fewer bits than storage types have.
    pub fn is_rounded(&self) -> bool {
        matches!(self.call, Call::Decode { cache: Cache::Bits8, .. })
    }

    /// Bytes that must be read and written where keys and values are cached: those, q and o. Of ours: others' 8 bits have other
    /// scales.
    pub fn cached_bytes(&self, dtype: Dtype) -> Option<f64> {
        let Call::Decode { sequences, cache } = self.call else { return None };
        let element = dtype.size_bytes() as f64;
        let dim = f64::from(self.dim);
        let row = match cache {
            Cache::Same => element * dim,
            Cache::Bits8 => dim + size_of::<f32>() as f64,
        };
        let rows = 2.0 * f64::from(self.kv_heads) * f64::from(self.tokens);
        let ends = 2.0 * f64::from(self.heads) * element * dim;
        Some(f64::from(sequences) * (rows * row + ends))
    }

    /// Pairs of query and key that one head computes of a sequence.
    pub fn pairs(&self) -> f64 {
        if self.is_decode() {
            return self.tokens.into();
        }
        let triangle = |n: u32| f64::from(n) * (f64::from(n) + 1.0) / 2.0;
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

    /// Multiplications and additions of all heads: two for each channel of q and of v, for each pair.
    pub fn operations(&self) -> f64 {
        4.0 * f64::from(self.dim) * self.pairs() * f64::from(self.heads) * f64::from(self.sequences())
    }

    /// In words, for a table.
    pub fn words(&self) -> String {
        let Self { heads, kv_heads, dim, tokens, .. } = self;
        let mask = match self.mask {
            Mask::None => "both directions".to_owned(),
            Mask::Causal => "causal".to_owned(),
            Mask::Window(keys) => format!("causal, window of {keys}"),
            Mask::Documents(lengths) => format!("causal, {} documents", lengths.len()),
        };
        let score = match self.score {
            Score::Plain => String::new(),
            Score::Softcap(cap) => format!(", softcap {cap}"),
            Score::Alibi => ", ALiBi".to_owned(),
        };
        let of = match heads {
            1 => "1 head".to_owned(),
            _ if kv_heads == heads => format!("{heads} heads"),
            _ => format!("{heads} heads over {kv_heads}"),
        };
        match self.call {
            Call::Prefill => format!("{of} of {dim}, {tokens} tokens, {mask}{score}"),
            Call::Decode { sequences, cache } => {
                let each = if sequences == 1 {
                    "a query".to_owned()
                } else {
                    format!("a query of each of {sequences} sequences")
                };
                let bits = if cache == Cache::Bits8 { " in 8 bits" } else { "" };
                format!("{of} of {dim}, {each} on {tokens} cached keys{bits}, {mask}{score}")
            }
        }
    }

    /// What another implementation is told of the problem, as fields of a request.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("heads", self.heads.to_string()),
            ("kv_heads", self.kv_heads.to_string()),
            ("dim", self.dim.to_string()),
            ("tokens", self.tokens.to_string()),
        ];
        if let Call::Decode { sequences, cache } = self.call {
            fields.push(("phase", "decode".to_owned()));
            fields.push(("batch", sequences.to_string()));
            if cache == Cache::Bits8 {
                fields.push(("cache_bits", "8".to_owned()));
            }
        }
        if self.mask != Mask::None {
            fields.push(("causal", "1".to_owned()));
        }
        match self.mask {
            Mask::Window(keys) => fields.push(("window", keys.to_string())),
            Mask::Documents(lengths) => {
                let lengths: Vec<_> = lengths.iter().map(u32::to_string).collect();
                fields.push(("documents", lengths.join(",")));
            }
            Mask::None | Mask::Causal => {}
        }
        match self.score {
            Score::Plain => {}
            Score::Softcap(cap) => fields.push(("softcap", cap.to_string())),
            Score::Alibi => fields.push(("alibi", "1".to_owned())),
        }
        fields
    }
}

const fn row(name: &'static str, heads: [u32; 2], dim: u32, tokens: u32, mask: Mask) -> Workload {
    let [heads, kv_heads] = heads;
    Workload { name, heads, kv_heads, dim, tokens, call: Call::Prefill, mask, score: Score::Plain }
}

const fn decode(name: &'static str, sequences: u32, tokens: u32, cache: Cache) -> Workload {
    Workload { call: Call::Decode { sequences, cache }, ..row(name, [32, 8], 128, tokens, Mask::Causal) }
}

const fn scored(workload: Workload, score: Score) -> Workload {
    Workload { score, ..workload }
}

/// Every workload.
#[rustfmt::skip]
pub const WORKLOADS: &[Workload] = &[
    //   name          heads      dim  tokens mask
    row("gqa-512",     [32, 8],   128,   512, Mask::Causal),
    row("gqa-1024",    [32, 8],   128,  1024, Mask::Causal),
    row("gqa-2048",    [32, 8],   128,  2048, Mask::Causal),
    row("gqa-4096",    [32, 8],   128,  4096, Mask::Causal),
    row("bert-512",    [16, 16],   64,   512, Mask::None),
    row("bert-2048",   [16, 16],   64,  2048, Mask::None),
    row("vit-197",     [12, 12],   64,   197, Mask::None),
    row("window-8192", [8, 8],    128,  8192, Mask::Window(1024)),
    scored(row("gemma2-4096", [8, 4], 256, 4096, Mask::Window(1024)), Score::Softcap(50.0)),
    scored(row("alibi-2048", [16, 16], 128, 2048, Mask::Causal), Score::Alibi),
    row("documents-4096", [16, 16], 128, 4096, Mask::Documents(&[512, 1024, 300, 900, 1360])),
    row("small-64",    [1, 1],     64,    64, Mask::None),
    row("small-128",   [1, 1],    128,    64, Mask::None),
    row("width-64",    [32, 8],    64,  1024, Mask::Causal),
    row("width-80",    [32, 8],    80,  1024, Mask::Causal),
    row("width-96",    [32, 8],    96,  1024, Mask::Causal),
    row("width-128",   [32, 8],   128,  1024, Mask::Causal),
    row("width-192",   [32, 8],   192,  1024, Mask::Causal),
    row("width-256",   [32, 8],   256,  1024, Mask::Causal),
    //      name                sequences tokens cache
    decode("decode-1x1024",       1,  1024, Cache::Same),
    decode("decode-1x4096",       1,  4096, Cache::Same),
    decode("decode-1x16384",      1, 16384, Cache::Same),
    decode("decode-1x65536",      1, 65536, Cache::Same),
    decode("decode-8x16384",      8, 16384, Cache::Same),
    decode("decode-1x65536-8bit", 1, 65536, Cache::Bits8),
];

/// The workload of a name.
pub fn workload(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
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
                let expected = (workload.heads, workload.kv_heads, workload.dim, workload.dim);
                assert_eq!((heads.query, heads.kv, heads.dim, heads.value_dim), expected);
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
        assert!(eight.words().contains("8 sequences on 16384 cached keys, causal"), "{}", eight.words());
    }
}
