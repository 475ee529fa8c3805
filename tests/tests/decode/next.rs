//! Tokens that are appended and attended by one call.

use core::ops::Range;

use regard::{Dtype, Pool, Problem, RunError, Solo};
use regard_ir::operands::Rows;
use regard_ir::spec::CacheFormat;
use regard_runtime::flash;
use regard_testkit::{Case, Inputs};
use regard_tests::cached;
use regard_tests::{engines, picked, run, specs};

use crate::{Sizes, attend, bits, cached_as, named};

const SPECS: [&str; 8] =
    ["causal", "sliding_window", "alibi", "gated", "talking_output", "castle", "mla", "iha_window"];

/// The inputs of a case with some of its queries and keys alone.
fn with_rows(case: &Case<'_>, inputs: &Inputs, queries: &[Range<usize>], keys: &[Range<usize>]) -> Inputs {
    let gate = inputs.gate.as_ref().map(|gate| picked(case, gate, queries));
    let of = |rows, tensor: &_| match rows {
        Rows::Queries => picked(case, tensor, queries),
        Rows::Keys => picked(case, tensor, keys),
        Rows::Matrix(_) => regard_testkit::Input::clone(tensor),
    };
    Inputs { gate, ..inputs.map(&case.variant, of) }
}

#[test]
fn a_step_is_an_append_and_a_decode() {
    let pool = Pool::new(2).expect("two threads");
    let (lengths, queries) = ([33, 70, 5, 140], 3);
    for (seed, name) in (0..).zip(SPECS) {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            for entry in engines::serving(dtype) {
                let spec =
                    cached_as(specs::narrow(named(name), 40, 24), CacheFormat::Same, CacheFormat::Same, 32);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let kernel = run::compile(&spec, entry, dtype);
                let sizes = Sizes::new(&lengths, queries);
                let case = sizes.case(&kernel, seed);
                let inputs = case.inputs();
                let filled = cached::fill(&kernel, &case, &inputs, 64).expect("a case is small");
                let expected = attend(&kernel, &case, &inputs, &filled, &Solo);

                let told = || run::describe(name, entry, &case);
                let mut cache = kernel.cache(cached::limits(&case)).expect("a case is small");
                let (mut sequences, mut last) = (Vec::new(), Vec::new());
                for index in 0..lengths.len() as u32 {
                    let of = case.problem.sequence(index);
                    let (first, before) = (of.first_key as usize, of.keys as usize - queries);
                    let sequence = cache.open().expect("room for each");
                    for at in (0..before).step_by(16) {
                        let piece = at..before.min(at + 16);
                        cached::append(&kernel, (&case, &inputs), (&mut cache, sequence), index, piece)
                            .unwrap_or_else(|error| panic!("{}: {error}", told()));
                    }
                    sequences.push(sequence);
                    last.push(first + before..first + before + queries);
                }
                let all = case.problem.all_queries() as usize;
                let now = with_rows(&case, &inputs, core::slice::from_ref(&(0..all)), &last);
                // What a step was not made for changes nothing.
                let mut few = kernel.step(&cache, queries - 1, 2).expect("few");
                let on = (&mut cache, &sequences[..]);
                let error = cached::step(&kernel, &case, &now, on, (&mut few, &pool)).unwrap_err();
                assert!(matches!(error, RunError::Step { .. }), "{}: {error}", told());
                assert_eq!(cache.len(sequences[1]).expect("open"), lengths[1] - queries, "{}", told());

                let mut step = kernel.step(&cache, queries, 2).expect("few");
                let on = (&mut cache, &sequences[..]);
                let outputs = cached::step(&kernel, &case, &now, on, (&mut step, &pool))
                    .unwrap_or_else(|error| panic!("{}: {error}", told()));
                assert!(bits(&outputs, 0, all) == bits(&expected, 0, all), "{}", told());
                assert_eq!(cache.len(sequences[3]).expect("open"), lengths[3], "{}", told());
            }
        }
    }
}

#[test]
fn a_prompt_is_an_append_and_a_prefill() {
    let tokens = 200;
    for (seed, name) in (0..).zip(SPECS) {
        for entry in engines::serving(Dtype::F32) {
            let spec =
                cached_as(specs::narrow(named(name), 40, 24), CacheFormat::Same, CacheFormat::Same, 32);
            if name == "castle" || !run::serves(&spec, entry, Dtype::F32) {
                continue;
            }
            let kernel = run::compile(&spec, entry, Dtype::F32);
            let sizes = Sizes::new(&[tokens], tokens);
            let case = sizes.case(&kernel, seed);
            let inputs = case.inputs();
            let filled = cached::fill(&kernel, &case, &inputs, 64).expect("a case is small");
            let expected = cached::prefill(&kernel, &case, &inputs, &filled, &Solo).expect("a case is small");

            let mut cache = kernel.cache(cached::limits(&case)).expect("a case is small");
            let sequence = cache.open().expect("room");
            // Which form latents take goes by the queries of a call, and with it the bits.
            let cut = if name == "mla" { tokens } else { 130 };
            for piece in [0..cut, cut..tokens] {
                let rows = core::slice::from_ref(&piece);
                let now = with_rows(&case, &inputs, rows, rows);
                let problem =
                    Problem::prefill(case.variant.source, 1, piece.len(), piece.end).expect("short");
                let part = Case { problem, ..case };
                let outputs = cached::extend(&kernel, &part, &now, (&mut cache, sequence), &Solo)
                    .unwrap_or_else(|error| panic!("{}: {error}", run::describe(name, entry, &case)));
                let same = bits(&outputs, 0, piece.len()) == bits(&expected, piece.start, piece.len());
                assert!(same, "{}", run::describe(name, entry, &case));
            }
            assert_eq!(cache.len(sequence).expect("open"), tokens);
        }
    }
}

/// What does not fit is told as it is of tensors, and changes nothing.
#[test]
fn tensors_that_do_not_fit_are_refused() {
    for (name, sequences) in [("causal", 1), ("causal", 3), ("mla", 1), ("mla", 2), ("castle", 2)] {
        let spec = specs::narrow(named(name), 40, 24);
        let entry = engines::serving(Dtype::F32)[0];
        let kernel = run::compile(&spec, entry, Dtype::F32);
        let sizes = Sizes::new(&vec![4; sequences], 4);
        let case = sizes.case(&kernel, 1);
        let mut inputs = case.inputs();
        // The last tensor of keys has a token less than the others.
        let last = case.variant.operands().collect::<Vec<_>>();
        let last = last.iter().rposition(|operand| operand.rows == Rows::Keys).expect("it has keys");
        let rows = case.problem.all_keys() as usize - 1;
        inputs.operands[last] = picked(&case, &inputs.operands[last], core::slice::from_ref(&(0..rows)));

        let mut cache = kernel.cache(cached::limits(&case)).expect("a case is small");
        let ids: Vec<_> = (0..sequences).map(|_| cache.open().expect("room for each")).collect();
        let mut step = kernel.step(&cache, 4, 1).expect("few");
        let error =
            cached::step(&kernel, &case, &inputs, (&mut cache, &ids), (&mut step, &Solo)).unwrap_err();
        assert!(matches!(error, RunError::Runtime(flash::RunError::Shape { .. })), "{name}: {error}");
        if sequences == 1 {
            let problem = Problem::prefill(case.variant.source, 1, 4, 4).expect("short");
            let part = Case { problem, ..case };
            let error = cached::extend(&kernel, &part, &inputs, (&mut cache, ids[0]), &Solo).unwrap_err();
            assert!(matches!(error, RunError::Runtime(flash::RunError::Shape { .. })), "{name}: {error}");
        }
        assert!(ids.iter().all(|&id| cache.len(id).expect("open") == 0), "{name}");
    }
}
