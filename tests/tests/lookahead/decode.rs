//! Lookahead keys in a cache: sequences that grow by steps against the oracle, and what may not change a bit.

use core::ops::Range;

use regard::{CacheError, CacheLimits, Dtype, Kernel, Pool, Problem, RunError, Solo, StoreError, Threads};
use regard_ir::operands::Rows;
use regard_ir::problem::Sequence;
use regard_ir::spec::{self, CacheFormat, CacheLayout, Spec};
use regard_testkit::{Case, Inputs, Layout, Outputs};
use regard_tests::cached::{self, Filled};
use regard_tests::{cumulative, cut_captured, engines, held, picked, run, specs};

/// The most queries of a step.
const MOST: usize = 16;

/// A sequence of a case's tokens in a cache.
struct Growing<'a> {
    kernel: &'a Kernel,
    case: &'a Case<'a>,
    inputs: &'a Inputs,
    filled: Filled,
    /// Who appends.
    threads: &'a dyn Threads,
}

impl<'a> Growing<'a> {
    fn new(kernel: &'a Kernel, case: &'a Case<'a>, inputs: &'a Inputs, at_once: usize) -> Self {
        let limits = CacheLimits { at_once, ..CacheLimits::new(3, case.problem.keys.max(1) as usize) };
        let mut cache = kernel.cache(limits).expect("a case is small");
        let sequences = vec![cache.open().expect("there is room")];
        Self { kernel, case, inputs, filled: Filled { cache, sequences }, threads: &Solo }
    }

    fn len(&self, sequence: usize) -> usize {
        self.filled.cache.len(self.filled.sequences[sequence]).expect("it is open")
    }

    fn append(&mut self, sequence: usize, count: usize) -> Result<(), RunError> {
        let (begin, id) = (self.len(sequence), self.filled.sequences[sequence]);
        let (of, cache) = ((self.case, self.inputs), &mut self.filled.cache);
        cached::append_with((self.kernel, self.threads), of, (cache, id), 0, begin..begin + count)
    }

    /// Attends the last tokens of some sequences, as many of each: the call as a case of its own, its inputs, and the outputs.
    fn attend<R>(
        &mut self,
        sequences: &[usize],
        count: usize,
        threads: &dyn Threads,
        with: impl FnOnce(&Case<'_>, &Inputs, Outputs) -> R,
    ) -> Result<R, RunError> {
        let lengths: Vec<usize> = sequences.iter().map(|&sequence| self.len(sequence)).collect();
        let cu_q = cumulative(lengths.iter().map(|_| count));
        let cu_k = cumulative(lengths.iter().copied());
        let problem = Problem::packed(self.case.variant.source, &cu_q, &cu_k).expect("short");
        let case = Case { problem, ..*self.case };
        let rows = |first: fn(usize, usize) -> usize| -> Vec<Range<usize>> {
            lengths.iter().map(|&len| first(len, count)..len).collect()
        };
        let (queries, keys) = (rows(|len, count| len - count), rows(|_, _| 0));
        let captured = self.inputs.captured();
        let of = Sequence { keys: lengths[0] as u32, ..self.case.problem.sequence(0) };
        let captured = captured.iter().enumerate();
        let inputs = Inputs {
            captured: captured
                .map(|(input, &data)| cut_captured(data, &case.variant, input, 0, &of))
                .collect(),
            ..self.inputs.map(&case.variant, |of, tensor| match of {
                Rows::Queries => picked(&case, tensor, &queries),
                Rows::Keys => picked(&case, tensor, &keys),
                Rows::Matrix(_) => tensor.clone(),
            })
        };
        let mut step = self.kernel.step(&self.filled.cache, MOST, threads.count())?;
        let all = self.filled.sequences.clone();
        self.filled.sequences = sequences.iter().map(|&sequence| all[sequence]).collect();
        let outputs = cached::decode(self.kernel, &case, &inputs, &self.filled, (&mut step, threads));
        self.filled.sequences = all;
        Ok(with(&case, &inputs, outputs?))
    }

    /// Prefills the first sequence's next tokens: the call as a case of its own, its inputs, and the outputs.
    fn prefill(&mut self, count: usize, threads: &dyn Threads) -> Result<(Inputs, Outputs), RunError> {
        let (begin, end) = (self.len(0), self.len(0) + count);
        let problem = Problem::prefill(self.case.variant.source, 1, count, end).expect("short");
        let case = Case { problem, ..*self.case };
        let of = Sequence { keys: end as u32, ..self.case.problem.sequence(0) };
        let captured = self.inputs.captured();
        let captured = captured.iter().enumerate();
        let captured: Vec<_> =
            captured.map(|(input, &data)| cut_captured(data, &case.variant, input, 0, &of)).collect();
        let rows = |begin: usize| {
            let (of_keys, of_queries) = (begin..end, end - count..end);
            Inputs {
                captured: captured.clone(),
                ..self.inputs.map(&case.variant, |of, tensor| {
                    let rows = if of == Rows::Keys { &of_keys } else { &of_queries };
                    picked(&case, tensor, core::slice::from_ref(rows))
                })
            }
        };
        let (given, whole) = (rows(begin), rows(0));
        let cache = (&mut self.filled.cache, self.filled.sequences[0]);
        let outputs = cached::extend(self.kernel, &case, &given, cache, threads)?;
        Ok((whole, outputs))
    }

    /// Appends and attends one sequence's next tokens, and gives the bits of the outputs.
    fn step(&mut self, count: usize) -> Vec<Vec<u64>> {
        let rows = |_: &Case<'_>, _: &Inputs, outputs| (0..count).map(|row| bits(&outputs, row)).collect();
        self.append(0, count)
            .and_then(|()| self.attend(&[0], count, &Solo, rows))
            .unwrap_or_else(|error| panic!("{error}"))
    }
}

/// The bits of a row of the outputs, of all heads.
fn bits(outputs: &Outputs, row: usize) -> Vec<u64> {
    let view = outputs.o.view();
    (0..view.shape()[1]).flat_map(|head| view.row(0, head, row)).map(f64::to_bits).collect()
}

fn case<'a>(kernel: &'a Kernel, tokens: usize, seed: u64) -> Case<'a> {
    let problem = Problem::prefill(kernel.spec().source, 1, tokens, tokens).expect("short");
    let layout = Layout::ALL[seed as usize % Layout::ALL.len()];
    Case { variant: kernel.variant(), problem, dtype: kernel.plan().dtype, layout, seed }
}

const SPECS: [&str; 6] = [
    "heads = { query = 3, dim = 24, value_dim = 20 }\nlookahead = {}\noutput.lse = true",
    "heads = { query = 2, dim = 40 }\nlookahead = { window = 9 }\nmask = 'window(50)'",
    "heads = { query = 2, dim = 16 }\nlookahead = {}\nposition.rope.theta = 1e4\nscore.modify = 'softcap(s, 3.0)'",
    "heads = { query = 1, dim = 64 }\nlookahead = { rotate = ['q_u', 'v_u'], window = 40 }\nposition.rope.theta = 1e4",
    "heads = { query = 2, dim = 33 }\nlookahead = { allow = 'same(doc)' }\ninputs.doc = 'i32[b, k]'\nmask = 'same(doc)'\nweights = { sink = 'one' }",
    "heads = { query = 5, dim = 8 }\nlookahead = {}\nmask = 'k % 3 != 1 | k == q'\nweights = 'sigmoid'",
];

/// Steps of many sizes over pages, chunks and cells: every output is the formula's.
#[test]
fn steps_are_the_formula() {
    for entry in engines::available() {
        for (seed, text) in SPECS.iter().enumerate() {
            for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
                let spec = specs::parse(&format!("{text}\ncache.page = 16"));
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let kernel = run::compile(&spec, entry, dtype);
                let case = case(&kernel, 150, seed as u64);
                let inputs = case.inputs();
                let mut growing = Growing::new(&kernel, &case, &inputs, 1 + 5 * seed % 16);
                for &count in [1, 1, 16, 2, 5, 1, 1, 7, 16, 16, 1, 3].iter().cycle() {
                    if growing.len(0) + count > 150 {
                        break;
                    }
                    growing.append(0, count).expect("there is room");
                    growing
                        .attend(&[0], count, &Solo, |call, inputs, outputs| {
                            run::judge(call, inputs, Ok(outputs), kernel.plan()).unwrap_or_else(|error| {
                                panic!(
                                    "{} to {}: {error}",
                                    run::describe(text, entry, call),
                                    call.problem.keys
                                )
                            });
                        })
                        .expect("it runs");
                }
            }
        }
    }
}

/// Prompts in pieces, then steps, then more of a prompt: every output is the formula's.
#[test]
fn prompts_and_steps_are_the_formula() {
    let pool = Pool::new(2).expect("threads");
    for entry in engines::available() {
        for (seed, text) in SPECS.iter().enumerate() {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let spec = specs::parse(&format!("{text}\ncache.page = 16"));
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let kernel = run::compile(&spec, entry, dtype);
                let case = case(&kernel, 260, seed as u64);
                let inputs = case.inputs();
                let mut growing = Growing::new(&kernel, &case, &inputs, 1);
                for (prompt, steps) in [(70, 3), (1, 0), (40, 20), (0, 1), (90, 2)] {
                    let told = |keys| format!("{} to {keys}", run::describe(text, entry, &case));
                    let (whole, outputs) =
                        growing.prefill(prompt, &pool).unwrap_or_else(|error| panic!("{error}"));
                    let keys = growing.len(0);
                    let problem = Problem::prefill(case.variant.source, 1, prompt, keys).expect("short");
                    run::judge(&Case { problem, ..case }, &whole, Ok(outputs), kernel.plan())
                        .unwrap_or_else(|error| panic!("prompt {}: {error}", told(keys)));
                    for _ in 0..steps {
                        growing.append(0, 1).expect("there is room");
                        growing
                            .attend(&[0], 1, &pool, |call, inputs, outputs| {
                                run::judge(call, inputs, Ok(outputs), kernel.plan()).unwrap_or_else(
                                    |error| panic!("step {}: {error}", told(call.problem.keys as usize)),
                                );
                            })
                            .expect("it runs");
                    }
                }
            }
        }
    }
}

/// A prompt in pieces that end with query blocks has the bits of one in one piece, which are those of tensors.
#[test]
fn pieces_have_the_bits_of_the_whole() {
    for entry in engines::available() {
        let spec = specs::parse(SPECS[0]);
        if !run::serves(&spec, entry, Dtype::F32) {
            continue;
        }
        let kernel = run::compile(&spec, entry, Dtype::F32);
        let block = kernel.plan().prefill.query_block as usize;
        let tokens = 3 * block + 5;
        let case = case(&kernel, tokens, 3);
        let inputs = case.inputs();
        let rows = |pieces: &[usize]| {
            let mut growing = Growing::new(&kernel, &case, &inputs, 1);
            let mut rows = Vec::new();
            for &piece in pieces {
                let outputs = growing.prefill(piece, &Solo).unwrap_or_else(|error| panic!("{error}")).1;
                rows.extend((0..piece).map(|row| bits(&outputs, row)));
            }
            rows
        };
        let whole = rows(&[tokens]);
        assert!(rows(&[block, 2 * block, 5]) == whole, "in pieces on {entry:?}");
        let given = run::run(&kernel, &case, &inputs, &Solo).expect("it runs");
        let given: Vec<_> = (0..tokens).map(|row| bits(&given, row)).collect();
        assert!(given == whole, "from tensors on {entry:?}");
    }
}

/// One head that two threads share has the bits of one that one has.
#[test]
fn shared_heads_have_the_bits_of_whole_ones() {
    let pool = Pool::new(2).expect("threads");
    for entry in engines::available() {
        for lines in
            ["lookahead = {}", "lookahead = { window = 70 }\nmask = 'window(1100)'\noutput.lse = true"]
        {
            let spec = specs::parse(&format!("heads = {{ query = 1, dim = 16 }}\n{lines}"));
            if !run::serves(&spec, entry, Dtype::F32) {
                continue;
            }
            let kernel = run::compile(&spec, entry, Dtype::F32);
            let piece = 10 * kernel.plan().prefill.query_block as usize;
            let tokens = 2 * kernel.plan().prefill.key_cell as usize + 50;
            let case = case(&kernel, tokens, 3);
            let inputs = case.inputs();
            let rows = |threads: &dyn Threads| {
                let mut growing = Growing::new(&kernel, &case, &inputs, 1);
                let mut rows = Vec::new();
                for piece in [piece, tokens - piece] {
                    let outputs = growing.prefill(piece, threads).unwrap_or_else(|error| panic!("{error}")).1;
                    rows.extend((0..piece).map(|row| bits(&outputs, row)));
                }
                rows
            };
            let (shared, whole) = (rows(&pool), rows(&Solo));
            let differing = shared.iter().zip(&whole).position(|(shared, whole)| shared != whole);
            assert_eq!(differing, None, "{lines} on {entry:?}");
        }
    }
}

/// A long sequence, by ones: keys have had many lessons.
#[test]
fn many_lessons_are_the_formula() {
    let pool = Pool::new(2).expect("threads");
    for entry in engines::lanes() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let spec = specs::parse("heads = { query = 1, dim = 32 }\nlookahead = {}");
            if !run::serves(&spec, entry, dtype) {
                continue;
            }
            let kernel = run::compile(&spec, entry, dtype);
            let case = case(&kernel, 1300, 3);
            let inputs = case.inputs();
            let mut growing = Growing { threads: &pool, ..Growing::new(&kernel, &case, &inputs, 1) };
            while growing.len(0) < 1300 {
                growing.append(0, 1).expect("there is room");
                if growing.len(0).is_multiple_of(433) {
                    growing
                        .attend(&[0], 1, &Solo, |call, inputs, outputs| {
                            run::judge(call, inputs, Ok(outputs), kernel.plan())
                                .unwrap_or_else(|error| panic!("{}: {error}", call.problem.keys));
                        })
                        .expect("it runs");
                }
            }
        }
    }
}

/// A row's bits depend on neither the tokens of its call, what may be taken back, what was taken back, threads nor other sequences.
#[test]
fn bits_are_of_the_position_alone() {
    let pool = Pool::new(3).expect("threads");
    for entry in engines::lanes() {
        for text in &SPECS[..4] {
            let spec = specs::parse(&format!("{text}\ncache.page = 16"));
            let kernel = run::compile(&spec, entry, Dtype::F32);
            let case = case(&kernel, 90, 5);
            let inputs = case.inputs();
            let mut one_by_one = Growing::new(&kernel, &case, &inputs, 1);
            let expected: Vec<_> = (0..90).flat_map(|_| one_by_one.step(1)).collect();

            let mut by_many = Growing { threads: &pool, ..Growing::new(&kernel, &case, &inputs, 16) };
            let mut found = Vec::new();
            for &count in [3, 16, 1, 9, 16, 14, 2, 13, 16].iter() {
                found.extend(by_many.step(count));
            }
            assert!(found == expected, "{text} by many on {entry:?}");

            // Guesses that are taken back, others in their place, and relatives beside.
            let mut guessing = Growing::new(&kernel, &case, &inputs, 8);
            let mut found = Vec::new();
            while found.len() < 90 {
                let count = 8.min(90 - found.len());
                let guessed = guessing.step(count);
                let accepted = 1 + found.len() % count;
                let (len, id) = (guessing.len(0), guessing.filled.sequences[0]);
                guessing.filled.cache.truncate(id, len - count + accepted).expect("they wait");
                found.extend(guessed.into_iter().take(accepted));
                if found.len() == 41 || guessing.filled.sequences.len() == 1 && found.len() > 20 {
                    let forked = guessing.filled.cache.fork(id).expect("there is room");
                    guessing.filled.sequences.push(forked);
                }
            }
            assert!(found == expected, "{text} by guesses on {entry:?}");
            let last = guessing
                .attend(&[1, 0], 1, &pool, |_, _, outputs| [bits(&outputs, 0), bits(&outputs, 1)])
                .expect("it runs");
            assert!(last[1] == expected[89], "{text} beside another on {entry:?}");
        }
    }
}

/// Tokens that teach nobody may hold anything.
#[test]
fn what_is_not_finite_reaches_whom_it_teaches() {
    for entry in engines::lanes() {
        let spec = specs::parse(
            "heads = { query = 2, dim = 16 }\nlookahead = { allow = 'q != 20' }\nmask = 'k != 20'",
        );
        let kernel = run::compile(&spec, entry, Dtype::F32);
        let case = case(&kernel, 70, 2);
        let clean = case.inputs();
        let all = |inputs: &Inputs| {
            let mut growing = Growing::new(&kernel, &case, inputs, 1);
            (0..70).flat_map(|_| growing.step(1)).collect::<Vec<_>>()
        };
        let expected = all(&clean);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut spoilt = clean.clone();
            // All but q_c of the token that nobody sees.
            for tensor in &mut spoilt.operands[1..] {
                tensor.set([0, 0, 20, 3], bad);
            }
            let found = all(&spoilt);
            for (token, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(found == expected, "{bad} at {token} on {entry:?}");
            }
        }
        let mut spoilt = clean.clone();
        spoilt.operands[5].set([0, 0, 30, 3], f32::NAN);
        let found = all(&spoilt);
        assert!(found[..30] == expected[..30], "none before it learns from it");
        let is_nan = |row: &Vec<u64>| row.iter().all(|&bits| f64::from_bits(bits).is_nan());
        assert!(found[31..].iter().all(|row| is_nan(&row[..16].to_vec())), "all after it do");
    }
}

/// Keys in fewer digits: steps are near what the cache holds of them.
#[test]
fn formats_are_what_the_cache_holds() {
    for entry in engines::lanes() {
        for (k, v) in
            [(CacheFormat::Int8, CacheFormat::Int8), (CacheFormat::Dtype(Dtype::F16), CacheFormat::Int4)]
        {
            let spec = specs::parse("heads = { query = 2, dim = 40 }\nlookahead = {}");
            let spec = Spec { cache: spec::Cache { k, v, ..spec.cache }, ..spec };
            let kernel = run::compile(&spec, entry, Dtype::F32);
            let case = case(&kernel, 100, 1);
            let inputs = case.inputs();
            let mut growing = Growing::new(&kernel, &case, &inputs, 1);
            for _ in 0..100 {
                growing.append(0, 1).expect("there is room");
            }
            let held = held::inputs(&kernel, &case, &inputs, &growing.filled);
            let mut wide = Growing { inputs: &held, ..growing };
            wide.attend(&[0], 1, &Solo, |call, held, outputs| {
                held::judge(&kernel, call, held, &outputs).unwrap_or_else(|error| panic!("{k:?}: {error}"));
            })
            .expect("it runs");
        }
    }
}

#[test]
fn what_a_cache_cannot_have_is_refused() {
    let text = "heads = { query = 1, dim = 16 }\nlookahead = {}\nmask = 'window(9)'";
    let entry = engines::lanes()[0];
    for layout in [CacheLayout::Paged, CacheLayout::Ring] {
        let spec = specs::parse(text);
        let spec = Spec { cache: spec::Cache { layout, ..spec.cache }, ..spec };
        let kernel = run::compile(&spec, entry, Dtype::F32);
        let error = kernel.cache(CacheLimits::new(1, 9)).expect_err("no pages are shared");
        assert!(error.to_string().contains(layout.name()), "{error}");
    }
    let kernel = run::compile(&specs::parse(text), entry, Dtype::F32);
    let file = std::env::temp_dir().join("regard-no-such-folder").join("lookahead.cache");
    assert!(matches!(kernel.create_cache(&file, 9), Err(CacheError::Lookahead { .. })));

    let case = case(&kernel, 64, 1);
    let inputs = case.inputs();
    let mut growing = Growing::new(&kernel, &case, &inputs, 2);
    let error = growing.append(0, 17).expect_err("more than wait");
    assert_eq!(growing.len(0), 0, "nothing was appended");
    assert!(error.to_string().contains("17 tokens"), "{error}");
    for _ in 0..40 {
        growing.step(1);
    }
    let id = growing.filled.sequences[0];
    growing.filled.cache.truncate(id, 38).expect("two can be taken back");
    let error = growing.filled.cache.truncate(id, 31).expect_err("they were taught");
    assert!(matches!(error, CacheError::Store(StoreError::Taught { tokens: 31, least: 32 })), "{error}");
    growing.filled.cache.truncate(id, 0).expect("a sequence begins anew");
    assert_eq!(growing.step(3).len(), 3);
    growing.append(0, 16).and_then(|()| growing.append(0, 16)).expect("there is room");
    let error = growing.attend(&[0], 16, &Solo, |_, _, _| ()).map(|()| growing.append(0, 1));
    assert!(matches!(error, Ok(Ok(()))), "{error:?}");
    let error = growing.attend(&[0], 16, &Solo, |_, _, _| ()).expect_err("some of them were taught");
    assert!(error.to_string().contains("the first query of sequence 0 is at 20"), "{error}");
}
