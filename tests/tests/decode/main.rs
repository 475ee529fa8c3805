//! Queries on cached keys.

mod appends;
mod bits;
mod corners;
mod files;
mod formats;
mod latents;
mod next;
mod pages;
mod prefill;
mod pseudo;
mod random;
mod rings;
mod specs;
mod stacks;
mod story;

use regard::{Dtype, Kernel, Problem, SHIPPED, Solo, Threads};
use regard_ir::spec::{self, CacheFormat, Spec};
use regard_oracle::Tensor4;
use regard_testkit::{Case, Inputs, Layout, Outputs};
use regard_tests::cached::{self, Filled};
use regard_tests::cumulative;

/// Keys of the sequences of a call: each length that a panel, page, chunk or cell makes special, on each side.
const KEYS: [usize; 14] = [1, 2, 15, 16, 17, 63, 64, 65, 255, 257, 511, 513, 1025, 1600];

/// The packed problem of sequences of some lengths, with as many queries of each.
struct Sizes {
    cu_q: Vec<i32>,
    cu_k: Vec<i32>,
}

impl Sizes {
    fn new(lengths: &[usize], queries: usize) -> Self {
        Self { cu_q: cumulative(lengths.iter().map(|_| queries)), cu_k: cumulative(lengths.iter().copied()) }
    }

    fn case<'a>(&'a self, kernel: &'a Kernel, seed: u64) -> Case<'a> {
        let problem =
            Problem::packed(kernel.spec().source, &self.cu_q, &self.cu_k).expect("offsets that rise from 0");
        let dtype = kernel.plan().dtype;
        Case { variant: kernel.variant(), problem, dtype, layout: Layout::Bnhd, seed }
    }
}

/// Attends the queries of a case to a filled cache.
fn attend(
    kernel: &Kernel,
    case: &Case<'_>,
    inputs: &Inputs,
    filled: &Filled,
    threads: &dyn Threads,
) -> Outputs {
    let queries = case.problem.queries as usize;
    let mut step = kernel.step(&filled.cache, queries, threads.count()).expect("a case is small");
    cached::decode(kernel, case, inputs, filled, (&mut step, threads))
        .unwrap_or_else(|error| panic!("{}: {error}", kernel.spec().name))
}

/// A spec whose keys and values are cached in some formats, in pages of so many tokens.
fn cached_as(spec: Spec, k: CacheFormat, v: CacheFormat, page: u32) -> Spec {
    Spec { cache: spec::Cache { page: Some(page), k, v, ..spec.cache }, ..spec }
}

/// The bits of some rows of the outputs, of all heads.
fn bits(outputs: &Outputs, first: usize, count: usize) -> Vec<u64> {
    let rows = |tensor: &Tensor4<'_>| -> Vec<u64> {
        let places = (0..tensor.shape()[1]).flat_map(|h| (first..first + count).map(move |n| (h, n)));
        places.flat_map(|(h, n)| tensor.row(0, h, n)).map(f64::to_bits).collect()
    };
    let lse = outputs.lse.as_ref().map(|lse| rows(&lse.view())).unwrap_or_default();
    [rows(&outputs.o.view()), lse].concat()
}

fn named(name: &str) -> &'static regard::Shipped {
    SHIPPED.iter().find(|shipped| shipped.name == name).unwrap_or_else(|| panic!("{name} is shipped"))
}

/// Formats of keys and values, with the tokens of a page.
const FORMATS: [(CacheFormat, CacheFormat, u32); 4] = [
    (CacheFormat::Same, CacheFormat::Same, 64),
    (CacheFormat::Int8, CacheFormat::Int8, 32),
    (CacheFormat::Int4, CacheFormat::Same, 16),
    (CacheFormat::Dtype(Dtype::F16), CacheFormat::Int4, 48),
];

/// Numbers that are drawn: xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

/// Holds queries that are attended together against each by itself, at the end of a cache that holds so many keys.
fn judge_one_by_one(
    kernel: &Kernel,
    [len, queries]: [usize; 2],
    spoil: impl FnOnce(&mut Inputs),
    told: &str,
) {
    let sizes = Sizes::new(&[len], queries);
    let case = sizes.case(kernel, 5);
    let mut inputs = case.inputs();
    spoil(&mut inputs);
    let mut filled = cached::fill(kernel, &case, &inputs, 64).expect("a case is small");
    let together = attend(kernel, &case, &inputs, &filled, &Solo);
    // From the last one back: each is then the last token.
    for query in (0..queries).rev() {
        let keys = len - (queries - 1 - query);
        filled.cache.truncate(filled.sequences[0], keys).expect("it is as long");
        let one = Sizes::new(&[keys], 1);
        let one = one.case(kernel, 5);
        let inputs = regard_tests::with_queries(&one, &inputs, case.dtype, query..query + 1);
        let outputs = attend(kernel, &one, &inputs, &filled, &Solo);
        assert!(bits(&outputs, 0, 1) == bits(&together, query, 1), "{told}: query {query}");
    }
}
