//! The same bits whatever the threads, the neighbours and the queries at once.

use regard::{Dtype, Pool, Solo};
use regard_tests::cached;
use regard_tests::{engines, run, specs};

use crate::{FORMATS, Sizes, attend, bits, cached_as, judge_one_by_one, named};

#[test]
fn threads_and_neighbours_change_no_bit() {
    let pools = [Pool::new(2).expect("threads"), Pool::new(3).expect("threads")];
    let lengths = [1600, 17, 700, 1, 64, 1030];
    let mut seed = 0;
    for entry in engines::available() {
        for (format, name) in
            FORMATS.into_iter().cycle().zip(["causal", "attention_sink", "document", "gqa", "qk_norm"])
        {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                seed += 1;
                let spec = specs::narrow(named(name), 40, 24);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let kernel = run::compile(&cached_as(spec, format.0, format.1, format.2), entry, dtype);
                let sizes = Sizes::new(&lengths, 1);
                let case = sizes.case(&kernel, seed);
                let inputs = case.inputs();
                let filled = cached::fill(&kernel, &case, &inputs, 64).expect("a case is small");
                let together = attend(&kernel, &case, &inputs, &filled, &Solo);
                for pool in &pools {
                    let again = attend(&kernel, &case, &inputs, &filled, pool);
                    assert!(
                        bits(&together, 0, lengths.len()) == bits(&again, 0, lengths.len()),
                        "{name} on {entry:?}"
                    );
                }
                for (index, &len) in lengths.iter().enumerate() {
                    let alone = Sizes::new(&[len], 1);
                    let one = alone.case(&kernel, seed);
                    let inputs = cached::sequence_of(&case, &inputs, index as u32);
                    let filled = cached::fill(&kernel, &one, &inputs, 1000).expect("a case is small");
                    let outputs = attend(&kernel, &one, &inputs, &filled, &pools[0]);
                    assert!(
                        bits(&outputs, 0, 1) == bits(&together, index, 1),
                        "{name} on {entry:?}: sequence {index}"
                    );
                }
            }
        }
    }
}

#[test]
fn queries_at_once_are_what_they_are_one_by_one() {
    for entry in engines::available() {
        for (format, name) in FORMATS.into_iter().zip(["causal", "sliding_window", "alibi", "rope"]) {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let spec = specs::narrow(named(name), 40, 24);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let kernel = run::compile(&cached_as(spec, format.0, format.1, format.2), entry, dtype);
                judge_one_by_one(&kernel, [1100, 7], |_| (), &format!("{name} on {entry:?}"));
            }
        }
    }
}
