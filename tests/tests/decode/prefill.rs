//! Prefills of caches, at once and piece by piece.

use regard::{Dtype, Solo};
use regard_ir::spec::CacheFormat;
use regard_tests::cached::{self, Filled};
use regard_tests::{cumulative, engines, run, specs};

use crate::{FORMATS, Sizes, bits, cached_as, named};

#[test]
fn prefills_of_caches_are_what_tensors_give() {
    let lengths = [1, 17, 64, 300, 1100];
    let mut seed = 0;
    for dtype in Dtype::ALL {
        for entry in engines::serving(dtype) {
            for name in [
                "causal",
                "document",
                "softcap_bias",
                "qk_norm",
                "rope",
                "gated",
                "talking_output",
                "value_heads",
                "iha",
                "iha_window",
            ] {
                let spec = specs::narrow(named(name), 40, 24);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                seed += 1;
                let kernel =
                    run::compile(&cached_as(spec, CacheFormat::Same, CacheFormat::Same, 48), entry, dtype);
                let sizes =
                    Sizes { cu_q: cumulative([1, 9, 64, 40, 77].into_iter()), ..Sizes::new(&lengths, 1) };
                let case = sizes.case(&kernel, seed);
                let inputs = case.inputs();
                let filled = cached::fill(&kernel, &case, &inputs, 64).expect("a case is small");
                let told = || run::describe(name, entry, &case);
                let outputs = cached::prefill(&kernel, &case, &inputs, &filled, &Solo)
                    .unwrap_or_else(|error| panic!("{}: {error}", told()));
                // Turned or normed keys are rounded to the storage type once more than without a cache.
                let turned = kernel.variant().position.is_some() || kernel.variant().qk_norm.is_some();
                if dtype == Dtype::F32 || !turned {
                    let exact = run::run(&kernel, &case, &inputs, &Solo).expect("a case is small");
                    let all = case.problem.all_queries() as usize;
                    assert!(bits(&outputs, 0, all) == bits(&exact, 0, all), "{}", told());
                }
                run::judge(&case, &inputs, Ok(outputs), kernel.plan())
                    .unwrap_or_else(|error| panic!("{}: {error}", told()));
            }
        }
    }
}

#[test]
fn keys_that_were_normed_over_all_heads_are_not_asked_for() {
    let spec = specs::parse(
        "heads = { query = 4, kv = 2, dim = 24 }\nmask = 'causal'\nqk_norm = { kind = 'rms', axis = 'all' }",
    );
    for entry in engines::serving(Dtype::F32) {
        let kernel = run::compile(&spec, entry, Dtype::F32);
        let sizes = Sizes::new(&[100], 40);
        let case = sizes.case(&kernel, 1);
        let inputs = case.inputs();
        let filled = cached::fill(&kernel, &case, &inputs, 100).expect("a case is small");
        let outputs = cached::prefill(&kernel, &case, &inputs, &filled, &Solo).expect("a case is small");
        let exact = run::run(&kernel, &case, &inputs, &Solo).expect("a case is small");
        assert!(bits(&outputs, 0, 40) == bits(&exact, 0, 40), "on {entry:?}");
    }
}

#[test]
fn a_prompt_in_pieces_is_what_it_is_at_once() {
    let (len, pieces) = (700, [1, 40, 263, 64, 300, 32]);
    for entry in engines::available() {
        for (format, name) in FORMATS.into_iter().zip(["causal", "sliding_window", "alibi", "gqa"]) {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let spec = specs::narrow(named(name), 40, 24);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let kernel = run::compile(&cached_as(spec, format.0, format.1, format.2), entry, dtype);
                let sizes = Sizes::new(&[len], len);
                let case = sizes.case(&kernel, 11);
                let inputs = case.inputs();
                let whole = cached::fill(&kernel, &case, &inputs, len).expect("a case is small");
                let at_once =
                    cached::prefill(&kernel, &case, &inputs, &whole, &Solo).expect("a case is small");
                let mut cache = kernel.cache(cached::limits(&case)).expect("small");
                let sequence = cache.open().expect("room for one");
                let mut filled = Filled { cache, sequences: vec![sequence] };
                let mut first = 0;
                for piece in pieces {
                    cached::append(
                        &kernel,
                        (&case, &inputs),
                        (&mut filled.cache, sequence),
                        0,
                        first..first + piece,
                    )
                    .expect("room for all");
                    let sizes = Sizes { cu_q: vec![0, piece as i32], cu_k: vec![0, (first + piece) as i32] };
                    let part = sizes.case(&kernel, 11);
                    let inputs = regard_tests::with_queries(&part, &inputs, dtype, first..first + piece);
                    let outputs =
                        cached::prefill(&kernel, &part, &inputs, &filled, &Solo).expect("a case is small");
                    assert!(
                        bits(&outputs, 0, piece) == bits(&at_once, first, piece),
                        "{name} on {entry:?}: tokens from {first}"
                    );
                    first += piece;
                }
                assert_eq!(first, len);
            }
        }
    }
}
