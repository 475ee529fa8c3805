//! Every shipped spec in every storage type, attended on a cache, against the oracle.

use regard::{Dtype, RunError, SHIPPED, Solo};
use regard_engine::catalog::Entry;
use regard_ir::spec::Spec;
use regard_testkit::Failure;
use regard_tests::cached;
use regard_tests::run::Disagreement;
use regard_tests::{engines, run, specs};

use crate::{KEYS, Sizes};

/// Fills a cache with a case, attends its queries, and judges the outputs. Whether its sums cancel so far that f32 cannot tell
/// them.
fn check(name: &str, entry: &Entry, spec: &Spec, dtype: Dtype, sizes: &Sizes, seed: u64) -> bool {
    let kernel = run::compile(spec, entry, dtype);
    let case = sizes.case(&kernel, seed);
    let inputs = case.inputs();
    let told = || run::describe(name, entry, &case);
    let filled =
        cached::fill(&kernel, &case, &inputs, 100).unwrap_or_else(|error| panic!("{}: {error}", told()));
    let mut step = kernel.step(&filled.cache, case.problem.queries as usize, 1).expect("a case is small");
    let outputs = cached::decode(&kernel, &case, &inputs, &filled, (&mut step, &Solo));
    let outputs = outputs.map_err(|error| match error {
        RunError::Runtime(error) => error,
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
            if !run::serves(&spec, entry, dtype) || specs::has_states(&spec) {
                continue;
            }
            for (queries, lengths) in [(1, &KEYS[..]), (3, &KEYS[2..]), (16, &KEYS[4..])] {
                cases += 1;
                // What keys learn takes the oracle a square of their number.
                let most = if specs::has_lookahead(&spec) { 300 } else { usize::MAX };
                let lengths: Vec<usize> = lengths.iter().copied().filter(|&len| len < most).collect();
                let sizes = Sizes::new(&lengths, queries);
                cancelling += u64::from(check(shipped.name, entry, &spec, dtype, &sizes, cases));
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
