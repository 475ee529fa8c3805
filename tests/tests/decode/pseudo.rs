//! Sequences of pseudo-heads that grow: a cache holds keys and values as they were given, and a prefill mixes them.

use regard::{Dtype, Kernel, MAX_FEW, Pool, Solo, Step};
use regard_ir::spec::CacheFormat;
use regard_testkit::{Case, Inputs, Outputs};
use regard_tests::cached::{self, Filled};
use regard_tests::{engines, run, specs};

use crate::{Sizes, bits, cached_as};

const LEN: usize = 90;

const SPECS: [&str; 3] = [
    "heads = { query = 4, kv = 2, dim = 24, value_dim = 20 }\npseudo.heads = 3\nmask = 'causal'",
    "heads = { query = 3, dim = 16 }\npseudo = { heads = 4, causal = 'token', window_unit = 'token' }\n\
     mask = 'causal & window(9)'\nposition.rope.theta = 1e4",
    "heads = { query = 2, dim = 20 }\npseudo.heads = 2\nmask = 'causal & same(doc)'\ninputs.doc = 'i32[b, k]'\n\
     position.rope.theta = 1e4\nqk_norm = { kind = 'rms', learned = true }\noutput.norm = 'rms'",
];

/// Appends tokens of a case to its cache and attends their queries: by a prefill, and where they are few by a step too.
fn grow(
    kernel: &Kernel,
    (case, inputs): (&Case<'_>, &Inputs),
    filled: &mut Filled,
    step: &mut Step,
    tokens: core::ops::Range<usize>,
) -> [Option<Outputs>; 2] {
    let Filled { cache, sequences } = filled;
    cached::append(kernel, (case, inputs), (cache, sequences[0]), 0, tokens.clone()).expect("room for all");
    let sizes = Sizes { cu_q: vec![0, tokens.len() as i32], cu_k: vec![0, tokens.end as i32] };
    let part = sizes.case(kernel, 3);
    let of = regard_ir::problem::Sequence { keys: tokens.end as u32, ..case.problem.sequence(0) };
    let data = inputs.captured();
    let captured = data.iter().enumerate();
    let [q, k, v] = &inputs.operands[..] else { panic!("q, k and v") };
    let is_few = tokens.len() <= MAX_FEW as usize;
    let q = regard_tests::cut(&q.view(), case.dtype, tokens);
    let inputs = Inputs {
        operands: vec![q, k.clone(), v.clone()],
        captured: captured
            .map(|(input, data)| regard_tests::cut_captured(*data, &case.variant, input, 0, &of))
            .collect(),
        ..inputs.clone()
    };
    let prefilled = cached::prefill(kernel, &part, &inputs, filled, &Solo).expect("a case is small");
    let decoded = is_few
        .then(|| cached::decode(kernel, &part, &inputs, filled, (step, &Solo)).expect("a step is small"));
    [Some(prefilled), decoded]
}

#[test]
fn a_prompt_and_steps_after_it_are_what_they_are_at_once() {
    for text in SPECS {
        for dtype in Dtype::ALL {
            for entry in engines::serving(dtype) {
                let spec = specs::parse(text);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let spec = cached_as(spec, CacheFormat::Same, CacheFormat::Same, 16);
                let kernel = run::compile(&spec, entry, dtype);
                let sizes = Sizes::new(&[LEN], LEN);
                let case = sizes.case(&kernel, 3);
                let inputs = case.inputs();
                let at_once = run::run(&kernel, &case, &inputs, &Solo).expect("a case is small");
                let mut cache = kernel.cache(cached::limits(&case)).expect("small");
                let sequences = vec![cache.open().expect("room for one")];
                let mut filled = Filled { cache, sequences };
                let mut step = kernel.step(&filled.cache, MAX_FEW as usize, 2).expect("a case is small");
                let mut check = |filled: &mut Filled, tokens: core::ops::Range<usize>| {
                    let both = grow(&kernel, (&case, &inputs), filled, &mut step, tokens.clone());
                    for (outputs, phase) in both.iter().flatten().zip(["prefill", "step"]) {
                        assert!(
                            bits(outputs, 0, tokens.len()) == bits(&at_once, tokens.start, tokens.len()),
                            "{text} on {entry:?}: tokens {tokens:?} by a {phase}"
                        );
                    }
                };
                check(&mut filled, 0..61);
                (61..70).for_each(|token| check(&mut filled, token..token + 1));
                // What is rolled back and added again is what it was.
                let sequence = filled.sequences[0];
                filled.cache.truncate(sequence, 64).expect("it has more");
                check(&mut filled, 64..67);
                check(&mut filled, 67..LEN);
            }
        }
    }
}

/// Sequences of different lengths attend together as each does by itself, whoever shares the work.
#[test]
fn sequences_of_a_step_are_apart() {
    let pool = Pool::new(2).expect("two threads");
    for (text, entry) in SPECS.iter().zip(engines::serving(Dtype::F32).into_iter().cycle()) {
        let kernel = run::compile(&specs::parse(text), entry, Dtype::F32);
        let lengths = [1, 90, 17, 64];
        let sizes = Sizes::new(&lengths, 1);
        let case = sizes.case(&kernel, 5);
        let inputs = case.inputs();
        let filled = cached::fill(&kernel, &case, &inputs, 90).expect("a case is small");
        let mut step = kernel.step(&filled.cache, 1, 2).expect("a case is small");
        let two = cached::decode(&kernel, &case, &inputs, &filled, (&mut step, &pool)).expect("small");
        let one = cached::decode(&kernel, &case, &inputs, &filled, (&mut step, &Solo)).expect("small");
        assert!(bits(&one, 0, lengths.len()) == bits(&two, 0, lengths.len()), "{text} on {entry:?}");
        let whole = run::run(&kernel, &case, &inputs, &Solo).expect("a case is small");
        assert!(bits(&one, 0, lengths.len()) == bits(&whole, 0, lengths.len()), "{text} on {entry:?}");
        run::judge(&case, &inputs, Ok(one), kernel.plan()).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

/// What was made for many sequences serves few, whose work is cut finer.
#[test]
fn a_step_for_many_sequences_serves_one() {
    let pool = Pool::new(2).expect("two threads");
    for (text, entry) in SPECS.iter().zip(engines::serving(Dtype::F32).into_iter().cycle()) {
        let kernel = run::compile(&specs::parse(text), entry, Dtype::F32);
        for sequences in [2, 5, 40] {
            let lengths = vec![20; sequences];
            let sizes = Sizes::new(&lengths, 1);
            let all = sizes.case(&kernel, 5);
            let filled = cached::fill(&kernel, &all, &all.inputs(), 20).expect("a case is small");
            let mut step = kernel.step(&filled.cache, MAX_FEW as usize, 2).expect("a case is small");
            let queries = MAX_FEW as usize;
            let sizes = Sizes::new(&[20], queries);
            let case = sizes.case(&kernel, 6);
            let inputs = case.inputs();
            let one = Filled { cache: filled.cache, sequences: filled.sequences[..1].to_vec() };
            let found = cached::decode(&kernel, &case, &inputs, &one, (&mut step, &pool)).expect("it is cut");
            let expected = cached::prefill(&kernel, &case, &inputs, &one, &Solo).expect("a case is small");
            assert!(bits(&found, 0, queries) == bits(&expected, 0, queries), "{text} on {entry:?}");
        }
    }
}
