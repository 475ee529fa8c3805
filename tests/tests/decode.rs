//! Queries on cached keys: within the bounds of the oracle, with the same bits whatever the threads and the neighbours.

use regard::{Dtype, Pool, Problem, SHIPPED, Solo};
use regard_engine::catalog::Entry;
use regard_ir::cache::Codec;
use regard_ir::spec::{Cache, CacheFormat, CacheLayout, Spec};
use regard_ir::variant::Source;
use regard_testkit::{Case, Failure, Layout};
use regard_tests::cached::{self, Filled};
use regard_tests::run::Disagreement;
use regard_tests::{cumulative, engines, run, specs};

/// Keys of the sequences of a call: each length that a panel, page, chunk or cell makes special, on each side.
const KEYS: [usize; 14] = [1, 2, 15, 16, 17, 63, 64, 65, 255, 257, 511, 513, 1025, 1600];

/// Fills a cache with a case, attends its queries, and judges the outputs. Whether its sums cancel so far that f32 cannot tell
/// them.
fn check(
    name: &str,
    entry: &Entry,
    spec: &Spec,
    dtype: Dtype,
    lengths: &[usize],
    queries: usize,
    seed: u64,
) -> bool {
    let kernel = run::compile(spec, entry, dtype);
    let cu_q = cumulative(lengths.iter().map(|_| queries));
    let cu_k = cumulative(lengths.iter().copied());
    let problem = Problem::packed(spec.source, &cu_q, &cu_k).expect("offsets that rise from 0");
    let case = Case { variant: kernel.variant(), problem, dtype, layout: Layout::Bnhd, seed };
    let inputs = case.inputs();
    let told = || run::describe(name, entry, &case);
    let filled =
        cached::fill(&kernel, &case, &inputs, 100).unwrap_or_else(|error| panic!("{}: {error}", told()));
    let mut step = kernel.step(&filled.cache, queries, 2).expect("a case is small");
    let outputs = cached::decode(&kernel, &case, &inputs, &filled, (&mut step, &Solo));
    let outputs = outputs.map_err(|error| match error {
        regard::RunError::Runtime(error) => error,
        error => panic!("{}: {error}", told()),
    });
    match run::judge(&case, &inputs, outputs, kernel.plan()) {
        Ok(()) => false,
        Err(Disagreement::Outputs(Failure::Bound(report))) if run::cancels(&case, &inputs, &report) => true,
        Err(error) => panic!("{}: {error}", told()),
    }
}

fn every_spec(dtype: Dtype) {
    let (mut cases, mut cancelling) = (0, 0);
    for entry in engines::serving(dtype) {
        for shipped in SHIPPED.iter().filter(|shipped| !specs::is_preset(shipped)) {
            let spec = specs::narrow(shipped, 20, 12);
            if !run::serves(&spec, entry, dtype) {
                continue;
            }
            for (queries, lengths) in [(1, &KEYS[..]), (3, &KEYS[2..]), (16, &KEYS[4..])] {
                cases += 1;
                cancelling += u64::from(check(shipped.name, entry, &spec, dtype, lengths, queries, cases));
            }
        }
    }
    println!("{cancelling} of {cases} cases cancel");
    assert!(cancelling * 100 < cases, "{cancelling} of {cases} cancel");
}

#[test]
fn f32_storage() {
    every_spec(Dtype::F32);
}

#[test]
fn f16_storage() {
    every_spec(Dtype::F16);
}

#[test]
fn bf16_storage() {
    every_spec(Dtype::Bf16);
}
