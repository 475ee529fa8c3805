//! The workloads: a row each.

use super::{Cache, Call, Latents, Mask, Prefix, Recurrence, Score, Workload};

const fn row(name: &'static str, heads: [u32; 2], dim: u32, tokens: u32, mask: Mask) -> Workload {
    let [heads, kv_heads] = heads;
    let (call, score) = (Call::Prefill, Score::Plain);
    Workload { name, heads, kv_heads, dim, latents: None, tokens, call, mask, score, recurrence: None }
}

const fn decode(name: &'static str, sequences: u32, tokens: u32, cache: Cache) -> Workload {
    let call = Call::Decode { sequences, queries: 1, prefix: Prefix::Own, cache };
    Workload { call, ..row(name, [32, 8], 128, tokens, Mask::Causal) }
}

/// Eight queries of one sequence.
const fn few(name: &'static str, tokens: u32, cache: Cache) -> Workload {
    let call = Call::Decode { sequences: 1, queries: 8, prefix: Prefix::Own, cache };
    Workload { call, ..decode(name, 1, tokens, cache) }
}

/// A query of each of 64 sequences of a prefix and 64 tokens of their own.
const fn common(name: &'static str, prefix: Prefix, cache: Cache) -> Workload {
    let (Prefix::Copied(tokens) | Prefix::Shared(tokens)) = prefix else { panic!("nothing in common") };
    let call = Call::Decode { sequences: 64, queries: 1, prefix, cache };
    Workload { call, ..decode(name, 64, tokens + 64, cache) }
}

/// Latents as DeepSeek-V2-Lite has them.
const fn latent(workload: Workload) -> Workload {
    let latents = Some(Latents { rank: 512, nope: 128, value: 128 });
    Workload { heads: 16, kv_heads: 16, dim: 192, latents, ..workload }
}

const fn scored(workload: Workload, score: Score) -> Workload {
    Workload { score, ..workload }
}

const fn recurrent(workload: Workload, recurrence: Recurrence) -> Workload {
    Workload { recurrence: Some(recurrence), ..workload }
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
    latent(row("mla-2048", [16, 16], 192, 2048, Mask::Causal)),
    recurrent(row("linear-4096",    [16, 16],  64, 4096, Mask::Causal), Recurrence::Sum),
    recurrent(row("delta-4096",     [16, 16],  64, 4096, Mask::Causal), Recurrence::GatedDelta),
    recurrent(row("delta-4096-128", [16, 16], 128, 4096, Mask::Causal), Recurrence::GatedDelta),
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
    decode("decode-1x8192",       1,  8192, Cache::Same),
    few(   "decode-1x8192-few",       8192, Cache::Same),
    decode("decode-1x8192-8bit",  1,  8192, Cache::Bits8),
    few(   "decode-1x8192-8bit-few",  8192, Cache::Bits8),
    decode("decode-1x8192-4bit",  1,  8192, Cache::Bits4),
    decode("decode-1x131072",     1, 131072, Cache::Same),
    decode("decode-1x131072-8bit", 1, 131072, Cache::Bits8),
    decode("decode-1x131072-4bit", 1, 131072, Cache::Bits4),
    latent(decode("decode-mla-1x4096",   1,  4096, Cache::Same)),
    latent(decode("decode-mla-1x16384",  1, 16384, Cache::Same)),
    common("decode-64x16448",             Prefix::Copied(16384), Cache::Same),
    common("decode-64x16448-shared",      Prefix::Shared(16384), Cache::Same),
    common("decode-64x16448-8bit",        Prefix::Copied(16384), Cache::Bits8),
    common("decode-64x16448-8bit-shared", Prefix::Shared(16384), Cache::Bits8),
];

/// The workload of a name.
pub fn workload(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}
