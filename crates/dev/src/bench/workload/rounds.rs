//! Which workloads are measured together, in which storage types, and beside whom.

use regard_ir::plan::Dtype;

/// Another way of running ours, beside the plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Also {
    /// f32 by `precision = "fast"`, where the machine has matrix tiles.
    Fast,
    /// With AVX2 as the ceiling, where the machine has more.
    Avx2,
}

/// Who is measured beside ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// Other implementations.
    Peers,
    /// Nobody.
    Alone,
}

/// What is measured together, by turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// Names of its workloads.
    pub workloads: &'static [&'static str],
    /// Storage of q, k, v and o.
    pub dtype: Dtype,
    /// Threads that share the work.
    pub threads: usize,
    /// Further runs of ours.
    pub also: &'static [Also],
    /// Who else runs.
    pub company: Company,
}

impl Round {
    /// What it is called in results and by `--only`: the words that its workloads' names begin with, and the storage type.
    pub fn name(&self) -> String {
        let (first, others) =
            self.workloads.split_first().map_or(("", &[][..]), |(&first, rest)| (first, rest));
        let words = first.split('-').enumerate();
        let alike =
            words.take_while(|&(at, word)| others.iter().all(|name| name.split('-').nth(at) == Some(word)));
        let stem: Vec<_> = alike.map(|(_, word)| word).collect();
        format!("{}/{}", stem.join("-"), self.dtype.name())
    }
}

/// The rounds of a workload in several storage types, with all that runs in f32.
macro_rules! rounds {
    ($([$($workload:literal),+] $dtypes:tt $threads:literal $also:tt $company:ident;)+) => {
        &[$(rounds!(@each [$($workload),+] $dtypes $threads $also $company)),+]
    };
    (@each $workloads:tt [$($dtype:ident),+] $threads:literal $also:tt $company:ident) => {
        &[$(Round {
            workloads: &$workloads,
            dtype: Dtype::$dtype,
            threads: $threads,
            also: rounds!(@also $dtype $also),
            company: Company::$company,
        }),+] as &[Round]
    };
    (@also F32 [$($also:ident),*]) => { &[$(Also::$also),*] };
    (@also $dtype:ident $also:tt) => { &[] };
}

/// What is measured, in this order.
#[rustfmt::skip]
const TABLE: &[&[Round]] = rounds! {
    // workloads      storage           threads also        company
    ["gqa-4096"]       [F32, Bf16, F16]  2  [Fast, Avx2]    Peers;
    ["gqa-2048"]       [F32, Bf16, F16]  2  [Fast]          Peers;
    ["gqa-1024"]       [F32, Bf16, F16]  2  [Fast]          Peers;
    ["gqa-512"]        [F32, Bf16, F16]  2  [Fast]          Peers;
    ["bert-512"]       [F32, Bf16]       2  []              Peers;
    ["bert-2048"]      [F32, Bf16]       2  []              Peers;
    ["vit-197"]        [F32, Bf16]       2  []              Peers;
    ["window-8192"]    [F32, Bf16]       2  []              Peers;
    ["gemma2-4096"]    [F32, Bf16]       2  []              Peers;
    ["alibi-2048"]     [F32, Bf16]       2  []              Peers;
    ["documents-4096"] [F32, Bf16]       2  []              Peers;
    ["mla-2048"]       [F32, Bf16]       2  []              Peers;
    ["linear-4096"]    [F32, Bf16]       2  []              Peers;
    ["delta-4096"]     [F32, Bf16]       2  []              Peers;
    ["delta-4096-128"] [F32, Bf16]       2  []              Peers;
    ["small-64"]       [F32, Bf16]       1  []              Peers;
    ["small-128"]      [F32, Bf16]       1  []              Peers;
    ["decode-1x1024"]  [F32, Bf16]       2  []              Peers;
    ["decode-1x4096"]  [F32, Bf16, F16]  2  []              Peers;
    ["decode-1x16384"] [F32, Bf16]       2  []              Peers;
    ["decode-1x65536"] [F32, Bf16]       2  []              Peers;
    ["decode-8x16384"] [F32, Bf16]       2  []              Peers;
    ["decode-mla-1x4096"]  [F32, Bf16]   2  []              Peers;
    ["decode-mla-1x16384"] [F32, Bf16]   2  []              Peers;
    ["decode-1x65536-8bit"] [Bf16]       2  []              Peers;
    ["decode-1x8192", "decode-1x8192-few"]                      [F32, Bf16, F16] 2 [] Alone;
    ["decode-1x8192-8bit", "decode-1x8192-8bit-few"]            [Bf16]           2 [] Alone;
    ["decode-1x8192-4bit"]                                      [Bf16]           2 [] Alone;
    ["decode-1x131072"]                                         [Bf16, F16]      2 [] Alone;
    ["decode-1x131072-8bit"]                                    [Bf16]           2 [] Alone;
    ["decode-1x131072-4bit"]                                    [Bf16]           2 [] Alone;
    ["decode-64x16448", "decode-64x16448-shared"]               [F32, Bf16]      2 [] Alone;
    ["decode-64x16448-8bit", "decode-64x16448-8bit-shared"]     [Bf16]           2 [] Alone;
    ["width-64", "width-80", "width-96", "width-128", "width-192", "width-256"] [F32, Bf16] 2 [] Alone;
};

/// Every round.
pub fn rounds() -> impl Iterator<Item = &'static Round> {
    TABLE.iter().copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workload::workload;

    #[test]
    fn every_round_has_workloads_and_a_name_of_its_own() {
        let mut names: Vec<_> = rounds().map(Round::name).collect();
        assert_eq!(names[0], "gqa-4096/f32");
        for name in ["width/bf16", "decode-1x8192/f16", "decode-1x8192-8bit/bf16", "decode-64x16448/f32"] {
            assert!(names.contains(&name.to_owned()), "{name} of {names:?}");
        }
        assert!(rounds().flat_map(|round| round.workloads).all(|name| workload(name).is_some()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rounds().count());
    }
}
