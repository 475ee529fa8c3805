//! Corners: nothing to see, values that are no numbers, and numbers that a format does not have.

use regard::{CacheLimits, Dtype, Kernel, Problem, Solo};
use regard_ir::spec::{CacheFormat, Spec};
use regard_testkit::{Case, Inputs, Layout, Outputs};
use regard_tests::cached::{self, Filled};
use regard_tests::{engines, run, specs};

use crate::{FORMATS, Sizes, attend, bits, cached_as};

fn spec(mask: &str) -> Spec {
    specs::parse(&format!(
        "heads = {{ query = 4, kv = 2, dim = 24 }}\nmask = '{mask}'\noutput = {{ lse = true }}"
    ))
}

#[test]
fn queries_that_see_nothing_give_zeros() {
    for entry in engines::serving(Dtype::F32) {
        for mask in ["k > q + 3", "causal"] {
            let kernel = run::compile(&spec(mask), entry, Dtype::F32);
            let sizes = Sizes::new(&[0, 20, 0, 1100], 2);
            let case = sizes.case(&kernel, 1);
            let inputs = case.inputs();
            let filled = cached::fill(&kernel, &case, &inputs, 500).expect("a case is small");
            let outputs = attend(&kernel, &case, &inputs, &filled, &Solo);
            run::judge(&case, &inputs, Ok(outputs), kernel.plan())
                .unwrap_or_else(|error| panic!("{mask}: {error}"));
        }
    }
}

#[test]
fn a_step_forgets_its_last_call() {
    // No page has a key that the second condition allows, which is seen page by page alone.
    let mask = "causal & (window(8) | k < 16 & k >= 16)";
    for entry in engines::serving(Dtype::F32) {
        let spec = cached_as(spec(mask), CacheFormat::Same, CacheFormat::Same, 16);
        let kernel = run::compile(&spec, entry, Dtype::F32);
        let sizes = Sizes::new(&[600], 2);
        let case = sizes.case(&kernel, 9);
        let inputs = case.inputs();
        let filled = cached::fill(&kernel, &case, &inputs, 600).expect("a case is small");
        let mut step = kernel.step(&filled.cache, 2, 1).expect("a case is small");
        for call in ["first", "second"] {
            let outputs = cached::decode(&kernel, &case, &inputs, &filled, (&mut step, &Solo));
            let outputs = outputs.expect("a case is small");
            run::judge(&case, &inputs, Ok(outputs), kernel.plan())
                .unwrap_or_else(|error| panic!("{call} call on {entry:?}: {error}"));
        }
    }
}

/// Fills a cache with a case after `change` was made to its keys and values, and attends its queries.
fn attend_changed(kernel: &Kernel, case: &Case<'_>, change: impl FnOnce(&mut Inputs)) -> Outputs {
    let mut inputs = case.inputs();
    change(&mut inputs);
    let filled = cached::fill(kernel, case, &inputs, 500).expect("a case is small");
    attend(kernel, case, &inputs, &filled, &Solo)
}

#[test]
fn a_masked_key_changes_no_bit_whatever_it_holds() {
    let masked = 40;
    for entry in engines::serving(Dtype::F32) {
        for (k, v, page) in FORMATS {
            let kernel = run::compile(&cached_as(spec("causal & k != 40"), k, v, page), entry, Dtype::F32);
            let sizes = Sizes::new(&[100], 3);
            let case = sizes.case(&kernel, 2);
            let expected = attend_changed(&kernel, &case, |_| ());
            for x in [f32::NAN, f32::INFINITY, -3e38, 1e6] {
                let found = attend_changed(&kernel, &case, |inputs| {
                    for head in 0..2 {
                        inputs.operands[1].set([0, head, masked, 5], x);
                        inputs.operands[2].set([0, head, masked, 7], x);
                    }
                });
                assert!(bits(&found, 0, 3) == bits(&expected, 0, 3), "{x} in {k:?} and {v:?} on {entry:?}");
            }
        }
    }
}

#[test]
fn what_is_no_number_and_seen_is_told() {
    for entry in engines::serving(Dtype::F32) {
        for (k, v, page) in FORMATS {
            // The second cell has one key, and that is no number: nothing in it has a score.
            let kernel = run::compile(&cached_as(spec("causal"), k, v, page), entry, Dtype::F32);
            let len = kernel.plan().decode.key_cell as usize + 1;
            let sizes = Sizes::new(&[len], 1);
            let case = sizes.case(&kernel, 3);
            for of_key in [true, false] {
                let found = attend_changed(&kernel, &case, |inputs| {
                    let tensor = if of_key { &mut inputs.operands[1] } else { &mut inputs.operands[2] };
                    tensor.set([0, 1, len - 1, 5], f32::NAN);
                });
                let o = found.o.view();
                assert!((2..4).all(|head| o.row(0, head, 0)[5].is_nan()), "{k:?} and {v:?} on {entry:?}");
                assert!((0..2).all(|head| o.row(0, head, 0).into_iter().all(f64::is_finite)));
            }
        }
    }
}

#[test]
fn calls_that_do_not_fit_are_refused() {
    let kernel = Kernel::compile(&spec("causal"), &regard::machine::host()).expect("it runs here");
    let bf16 = cached_as(spec("causal"), CacheFormat::Dtype(Dtype::Bf16), CacheFormat::Same, 16);
    let other = Kernel::compile(&bf16, &regard::machine::host()).expect("it runs here");
    assert!(kernel.cache(CacheLimits::new(0, 10)).is_err());
    assert!(kernel.cache(CacheLimits::new(1, usize::MAX)).is_err());

    let problem = Problem::prefill(kernel.spec().source, 1, 2, 30).expect("short");
    let case = Case { variant: kernel.variant(), problem, dtype: Dtype::F32, layout: Layout::Bhnd, seed: 1 };
    let inputs = case.inputs();
    let filled = cached::fill(&kernel, &case, &inputs, 30).expect("a case is small");
    let refused = |found: Result<Outputs, regard::RunError>| {
        found.err().map(|error| error.to_string()).expect("it is refused")
    };

    let mut step = kernel.step(&filled.cache, 1, 1).expect("small");
    let told = refused(cached::decode(&kernel, &case, &inputs, &filled, (&mut step, &Solo)));
    assert!(told.contains("2 queries"), "{told}");
    let mut step = kernel.step(&filled.cache, 2, 1).expect("small");
    let told = refused(cached::decode(&other, &case, &inputs, &filled, (&mut step, &Solo)));
    assert!(told.contains("bf16"), "{told}");
    kernel.step(&filled.cache, 16, 1).expect("the most that a call has");
    let told = kernel.step(&filled.cache, 17, 1).expect_err("that is a prefill").to_string();
    assert!(told.contains("17 queries") && told.contains("at most 16"), "{told}");
    let Filled { mut cache, sequences } = filled;
    cache.close(sequences[0]).expect("it is open");
    let told =
        refused(cached::decode(&kernel, &case, &inputs, &Filled { cache, sequences }, (&mut step, &Solo)));
    assert!(told.contains("no such sequence"), "{told}");
}
