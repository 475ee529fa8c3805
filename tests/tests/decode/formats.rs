//! Formats of keys and values: within the bounds on what the cache holds, and near what it was given.

use regard::{Dtype, Solo};
use regard_ir::spec::CacheFormat;
use regard_tests::{cached, engines, held, run, specs};

use crate::{KEYS, Sizes, attend, cached_as, named};

#[test]
fn every_format_holds_its_bounds() {
    use CacheFormat::{Dtype as Float, Int4, Int8};
    let formats = [
        (Int8, Int8, 64),
        (Int4, Int4, 64),
        (Int8, Int4, 16),
        (Int4, Float(Dtype::Bf16), 48),
        (Float(Dtype::F16), Int8, 80),
        (Float(Dtype::F16), Float(Dtype::F16), 32),
        (Float(Dtype::Bf16), Float(Dtype::F32), 160),
        (Float(Dtype::F32), Float(Dtype::Bf16), 1024),
    ];
    // None of them turns or norms keys, so that scores are no larger than bounds are stated for.
    let names = [
        "causal",
        "sliding_window",
        "alibi",
        "softcap_bias",
        "document",
        "mqa",
        "attention_sink",
        "sigmoid",
        "cross",
    ];
    let mut seed = 0;
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for entry in engines::serving(dtype) {
            for ((k, v, page), name) in formats.into_iter().zip(names.iter().cycle().skip(seed as usize)) {
                seed += 1;
                let spec = specs::narrow(named(name), 72, 40);
                let kernel = run::compile(&cached_as(spec, k, v, page), entry, dtype);
                let queries = [1, 5][seed as usize % 2];
                let sizes = Sizes::new(&KEYS[4..], queries);
                let case = sizes.case(&kernel, seed);
                let inputs = case.inputs();
                let filled = cached::fill(&kernel, &case, &inputs, 100).expect("a case is small");
                let outputs = attend(&kernel, &case, &inputs, &filled, &Solo);
                let told = || format!("{} in {:?}", run::describe(name, entry, &case), kernel.plan().cache);
                let held = held::inputs(&kernel, &case, &inputs, &filled);
                let of_held = held::judge(&kernel, &case, &held, &outputs)
                    .unwrap_or_else(|error| panic!("{}: {error}", told()));
                let rms = held::allowed_rms(&kernel);
                let exact = run::run(&kernel, &case, &inputs, &Solo).expect("a case that was judged");
                let found = held::relative_rms(&outputs.o.view(), &exact.o.view());
                println!("{}: {of_held:.1e} of what is held, {found:.1e} of what was given", told());
                assert!(found <= rms, "{}: {found:.1e} of {rms:.1e}", told());
            }
        }
    }
}
