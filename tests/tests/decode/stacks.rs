//! Sequences that share a prefix: one pass for all, and the bits of a pass for each.

use regard::{Cache, CacheLimits, Dtype, Kernel, Pool, SequenceId, Solo};
use regard_ir::spec::{CacheLayout, Mechanism};
use regard_ir::variant::PseudoForm;
use regard_testkit::{Case, Inputs};
use regard_tests::cached::{self, Filled};
use regard_tests::{engines, run, specs};

use crate::{FORMATS, Sizes, attend, bits, cached_as, named};

/// Tokens of the source, of which sequences are made.
const SOURCE: usize = 2400;

#[test]
fn a_shared_prefix_changes_no_bit() {
    let pool = Pool::new(3).expect("threads");
    let names = ["causal", "document", "alibi", "attention_sink", "sliding_window", "qk_norm", "iha_window"];
    let mut turn = 0;
    for entry in engines::available() {
        for name in names {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let (format, queries) = (FORMATS[turn % FORMATS.len()], [1, 3, 1, 2, 16][turn % 5]);
                turn += 1;
                let spec = specs::narrow(named(name), 40, 24);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let mut spec = cached_as(spec, format.0, format.1, format.2);
                spec.cache.layout = CacheLayout::Paged;
                if let Mechanism::Pseudo(pseudo) = &mut spec.mechanism {
                    // Rows as they were given are not read by several sequences at once.
                    pseudo.form = PseudoForm::Expanded;
                }
                let kernel = run::compile(&spec, entry, dtype);
                assert!(kernel.plan().decode.stack_rows > 0, "a paged cache has stacks");
                let source = Sizes::new(&[SOURCE], SOURCE);
                let sources = [11, 12].map(|seed| source.case(&kernel, seed));
                let inputs = [0, 1].map(|i| sources[i].inputs());
                let filled = family(&kernel, [0, 1].map(|i| (&sources[i], &inputs[i])));
                let lengths: Vec<usize> = filled
                    .sequences
                    .iter()
                    .map(|&sequence| filled.cache.len(sequence).expect("it is open"))
                    .collect();
                let sizes = Sizes::new(&lengths, queries);
                let case = sizes.case(&kernel, turn as u64);
                let inputs = case.inputs();
                let together = attend(&kernel, &case, &inputs, &filled, &Solo);
                let all = lengths.len() * queries;
                let threads = attend(&kernel, &case, &inputs, &filled, &pool);
                assert!(bits(&together, 0, all) == bits(&threads, 0, all), "{name} on {entry:?}: threads");
                let mut filled = filled;
                let sequences = filled.sequences.clone();
                for (index, &len) in lengths.iter().enumerate() {
                    filled.sequences = vec![sequences[index]];
                    let alone = Sizes::new(&[len], queries);
                    let one = alone.case(&kernel, turn as u64);
                    let inputs = cached::sequence_of(&case, &inputs, index as u32);
                    let outputs = attend(&kernel, &one, &inputs, &filled, &Solo);
                    assert!(
                        bits(&outputs, 0, queries) == bits(&together, index * queries, queries),
                        "{name}, {dtype:?}, {format:?} on {entry:?}: sequence {index} of {len} tokens"
                    );
                }
            }
        }
    }
}

/// Sequences that fork from each other at different tokens and go on with others, with one among them that shares nothing.
fn family(kernel: &Kernel, sources: [(&Case<'_>, &Inputs); 2]) -> Filled {
    let mut cache = kernel.cache(CacheLimits::new(24, SOURCE)).expect("small");
    let append = |cache: &mut Cache, sequence: SequenceId, source: usize, count: usize| {
        let len = cache.len(sequence).expect("it is open");
        cached::append(kernel, sources[source], (cache, sequence), 0, len..len + count).expect("room");
    };
    let root = cache.open().expect("room");
    append(&mut cache, root, 0, 2100);
    let mut sequences = vec![root];
    for child in 0..18 {
        let parent = sequences[child * 7 % sequences.len()];
        let sequence = match child {
            5 => cache.open().expect("room"),
            _ => cache.fork(parent).expect("room"),
        };
        // Up to the middle of the first cell, to its end, past it, or all.
        let len = cache.len(sequence).expect("it is open").min([3000, 1024, 1500, 700, 2048][child % 5]);
        cache.truncate(sequence, len).expect("it has them");
        append(&mut cache, sequence, child % 2, 1 + 7 * (child % 4));
        sequences.push(sequence);
    }
    append(&mut cache, root, 1, 100);
    Filled { cache, sequences }
}
