//! Sequences of pseudo-heads that grow: a cache holds keys and values as they were given, and whoever reads them mixes them, or rows
//! that were mixed before.

use std::ops::Range;

use regard::{Dtype, Kernel, MAX_FEW, Pool, Solo};
use regard_ir::bounds::{self, Quantity};
use regard_ir::problem::Sequence;
use regard_ir::spec::{CacheFormat, Mechanism, Spec};
use regard_ir::variant::PseudoForm;
use regard_oracle::Tensor4;
use regard_testkit::{Case, Inputs, Outputs};
use regard_tests::cached::{self, Filled};
use regard_tests::{engines, held, run, specs};

use crate::{FORMATS, Sizes, attend, bits, cached_as};

const LEN: usize = 90;

const SPECS: [&str; 6] = [
    "heads = { query = 4, kv = 2, dim = 24, value_dim = 20 }\npseudo.heads = 3\nmask = 'causal'",
    "heads = { query = 3, dim = 16 }\npseudo = { heads = 4, causal = 'token', window_unit = 'token' }\n\
     mask = 'causal & window(9)'\nposition.rope.theta = 1e4",
    "heads = { query = 2, dim = 20 }\npseudo.heads = 2\nmask = 'causal & same(doc)'\ninputs.doc = 'i32[b, k]'\n\
     position.rope.theta = 1e4\nqk_norm = { kind = 'rms', learned = true }\noutput.norm = 'rms'",
    // More heads than are mixed at once, of which the last group has one.
    "heads = { query = 5, kv = 5, dim = 18 }\npseudo.heads = 4\nmask = 'causal & (h == 1 | window(150))'\n\
     position = { rope = { theta = 100, layout = 'interleaved', dim = 10 } }\nweights.sink = 'learned'",
    // More pseudo-heads than rows that are mixed at once, in more steps than a chain of sums has.
    "heads = { query = 20, kv = 20, dim = 8 }\npseudo.heads = 9\nmask = 'causal'\nscore.modify = 's + alibi(h) * (k - q)'",
    "heads = { query = 4, kv = 1, dim = 10 }\npseudo.heads = 7\nweights = { kind = 'sigmoid', bias = -3 }\n\
     mask = 'causal & (window(40) | first(5))'\ninputs = { at = 'i32[b, k]' }\n\
     position = { rope = { theta = 100, layout = 'interleaved' }, ids = 'at' }\nqk_norm = { kind = 'l2', after_rope = true }",
];

const FORMS: [PseudoForm; 2] = [PseudoForm::Compact, PseudoForm::Expanded];

/// A spec whose cache keeps what the form says.
fn in_form(mut spec: Spec, form: PseudoForm) -> Spec {
    let Mechanism::Pseudo(pseudo) = &mut spec.mechanism else { panic!("pseudo-heads") };
    pseudo.form = form;
    spec
}

/// Each spec in each form.
fn specs_and_forms() -> impl Iterator<Item = (&'static str, PseudoForm)> {
    SPECS.iter().flat_map(|&text| FORMS.map(|form| (text, form)))
}

/// Judges outputs by what was given or, where the cache rounds mixed rows, by what it holds.
fn judge(
    kernel: &Kernel,
    case: &Case<'_>,
    inputs: &Inputs,
    filled: &Filled,
    outputs: Outputs,
) -> Result<(), String> {
    if bounds::kept(&kernel.plan().cache, kernel.plan().dtype).is_some() {
        let held = held::inputs(kernel, case, inputs, filled);
        return held::judge(kernel, case, &held, &outputs).map(|_| ()).map_err(|error| error.to_string());
    }
    run::judge(case, inputs, Ok(outputs), kernel.plan()).map(|_| ()).map_err(|error| error.to_string())
}

/// The queries of some tokens of a case, and all keys up to the last of them.
fn cut_to(case: &Case<'_>, inputs: &Inputs, tokens: Range<usize>) -> Inputs {
    let of = Sequence { keys: tokens.end as u32, ..case.problem.sequence(0) };
    let data = inputs.captured();
    let captured = data.iter().enumerate();
    let [q, k, v] = &inputs.operands[..] else { panic!("q, k and v") };
    let up_to = |tensor: &regard_testkit::Input| regard_tests::cut(&tensor.view(), case.dtype, 0..tokens.end);
    Inputs {
        operands: vec![regard_tests::cut(&q.view(), case.dtype, tokens.clone()), up_to(k), up_to(v)],
        captured: captured
            .map(|(input, data)| regard_tests::cut_captured(*data, &case.variant, input, 0, &of))
            .collect(),
        ..inputs.clone()
    }
}

#[test]
fn a_prompt_and_steps_after_it_are_what_they_are_at_once() {
    prompts_and_steps(PseudoForm::Compact);
}

#[test]
fn a_prompt_and_steps_of_rows_that_were_mixed_are_what_they_are_at_once() {
    prompts_and_steps(PseudoForm::Expanded);
}

fn prompts_and_steps(form: PseudoForm) {
    for text in SPECS {
        for dtype in Dtype::ALL {
            for entry in engines::serving(dtype) {
                let spec = in_form(specs::parse(text), form);
                // What engines differ in is a prefill; a unit that is emulated takes long for it.
                let takes_long = entry.emulated && text != SPECS[0];
                if takes_long || !run::serves(&spec, entry, dtype) {
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
                // The bits of each token when it was attended in a step.
                let mut steps: Vec<Option<Vec<u64>>> = vec![None; LEN];
                let mut check = |filled: &mut Filled, tokens: Range<usize>| {
                    let told = || format!("{text}, {form:?} on {entry:?}: tokens {tokens:?}");
                    let Filled { cache, sequences } = &mut *filled;
                    cached::append(&kernel, (&case, &inputs), (cache, sequences[0]), 0, tokens.clone())
                        .expect("room for all");
                    let sizes =
                        Sizes { cu_q: vec![0, tokens.len() as i32], cu_k: vec![0, tokens.end as i32] };
                    let part = sizes.case(&kernel, 3);
                    let inputs = cut_to(&case, &inputs, tokens.clone());
                    let prefilled = cached::prefill(&kernel, &part, &inputs, filled, &Solo).expect("small");
                    let is_rounded = bounds::kept(&kernel.plan().cache, dtype).is_some();
                    assert!(
                        is_rounded
                            || bits(&prefilled, 0, tokens.len())
                                == bits(&at_once, tokens.start, tokens.len()),
                        "{} by a prefill",
                        told()
                    );
                    if tokens.len() > MAX_FEW as usize {
                        return;
                    }
                    let decoded = cached::decode(&kernel, &part, &inputs, filled, (&mut step, &Solo));
                    let decoded = decoded.expect("a step is small");
                    // Whichever other queries share the step.
                    for (i, token) in tokens.clone().enumerate() {
                        let found = bits(&decoded, i, 1);
                        assert!(*steps[token].get_or_insert_with(|| found.clone()) == found, "{}", told());
                    }
                    for outputs in [prefilled, decoded] {
                        judge(&kernel, &part, &inputs, filled, outputs)
                            .unwrap_or_else(|error| panic!("{}: {error}", told()));
                    }
                };
                check(&mut filled, 0..61);
                (61..70).for_each(|token| check(&mut filled, token..token + 1));
                // What is rolled back and added again is what it was.
                let sequence = filled.sequences[0];
                filled.cache.truncate(sequence, 62).expect("it has more");
                check(&mut filled, 62..67);
                check(&mut filled, 67..83);
                check(&mut filled, 83..LEN);
            }
        }
    }
}

/// What is mixed before it is cached is what is mixed as it is read.
#[test]
fn both_forms_are_one_formula() {
    for text in SPECS {
        for entry in engines::serving(Dtype::F32) {
            let outputs = FORMS.map(|form| {
                let kernel = run::compile(&in_form(specs::parse(text), form), entry, Dtype::F32);
                let sizes = Sizes::new(&[LEN, 33, 410], 2);
                let case = sizes.case(&kernel, 9);
                let inputs = case.inputs();
                let filled = cached::fill(&kernel, &case, &inputs, 50).expect("a case is small");
                assert_eq!(kernel.plan().cache.mixed, form == PseudoForm::Expanded);
                (attend(&kernel, &case, &inputs, &filled, &Solo), kernel.plan().precision())
            });
            let [(compact, precision), (expanded, _)] = &outputs;
            let (compact, expanded) = (compact.o.view(), expanded.o.view());
            let [_, heads, rows, _] = compact.shape();
            for head in 0..heads {
                let all =
                    |of: &Tensor4<'_>| (0..rows).flat_map(|row| of.row(0, head, row)).collect::<Vec<_>>();
                let (a, b) = (all(&compact), all(&expanded));
                let largest = a.iter().fold(0.0f64, |most, x| most.max(x.abs()));
                let apart = a.iter().zip(&b).fold(0.0f64, |most, (a, b)| most.max((a - b).abs()));
                // Each is as near to the formula.
                let bound = 2.0 * bounds::bound(Quantity::Output, Dtype::F32, *precision, 0.0);
                assert!(apart <= bound * largest, "{text} on {entry:?}, head {head}: {apart} of {largest}");
            }
        }
    }
}

/// Sequences of different lengths attend together as each does by itself, whoever shares the work.
#[test]
fn sequences_of_a_step_are_apart() {
    let pool = Pool::new(2).expect("two threads");
    let engines = || engines::serving(Dtype::F32).into_iter().cycle();
    for (i, ((text, form), entry)) in specs_and_forms().zip(engines()).enumerate() {
        // Lengths on each side of lines, pages and cells.
        let queries = if i / 2 % 2 == 0 { 1 } else { 3 };
        // Queries before the first key have no positions that an input gives.
        let fewest = if text.contains("ids") { queries } else { 0 };
        let lengths = [queries, 90, 17, 64, fewest, 500, 385];
        let kernel = run::compile(&in_form(specs::parse(text), form), entry, Dtype::F32);
        let sizes = Sizes::new(&lengths, queries);
        let case = sizes.case(&kernel, 5);
        let inputs = case.inputs();
        let filled = cached::fill(&kernel, &case, &inputs, 90).expect("a case is small");
        let mut step = kernel.step(&filled.cache, queries, 2).expect("a case is small");
        let two = cached::decode(&kernel, &case, &inputs, &filled, (&mut step, &pool)).expect("small");
        let one = cached::decode(&kernel, &case, &inputs, &filled, (&mut step, &Solo)).expect("small");
        let all = queries * lengths.len();
        assert!(bits(&one, 0, all) == bits(&two, 0, all), "{text} on {entry:?}");
        run::judge(&case, &inputs, Ok(one), kernel.plan()).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

/// What was made for many sequences serves few, whose work is cut finer.
#[test]
fn a_step_for_many_sequences_serves_one() {
    let pool = Pool::new(2).expect("two threads");
    let engines = || engines::serving(Dtype::F32).into_iter().cycle();
    for ((text, form), entry) in specs_and_forms().zip(engines()) {
        let kernel = run::compile(&in_form(specs::parse(text), form), entry, Dtype::F32);
        for sequences in [2, 5, 40] {
            let lengths = vec![20; sequences];
            let sizes = Sizes::new(&lengths, 1);
            let all = sizes.case(&kernel, 5);
            let filled = cached::fill(&kernel, &all, &all.inputs(), 20).expect("a case is small");
            let queries = MAX_FEW as usize;
            let mut step = kernel.step(&filled.cache, queries, 2).expect("a case is small");
            let mut other = kernel.step(&filled.cache, queries, 1).expect("a case is small");
            let sizes = Sizes::new(&[20], queries);
            let case = sizes.case(&kernel, 6);
            let inputs = case.inputs();
            let one = Filled { cache: filled.cache, sequences: filled.sequences[..1].to_vec() };
            let found = cached::decode(&kernel, &case, &inputs, &one, (&mut step, &pool)).expect("small");
            let again = cached::decode(&kernel, &case, &inputs, &one, (&mut other, &Solo)).expect("small");
            assert!(bits(&found, 0, queries) == bits(&again, 0, queries), "{text} on {entry:?}");
        }
    }
}

/// Keys and values of fewer digits are what the cache holds of them.
#[test]
fn every_format_is_mixed() {
    let mut seed = 0;
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for entry in engines::serving(dtype) {
            for ((k, v, page), form) in FORMATS.iter().flat_map(|&format| FORMS.map(|form| (format, form))) {
                // Scores no larger than bounds are stated for.
                let text = "heads = { query = 3, dim = 72, value_dim = 40 }\npseudo.heads = 3\nmask = 'causal & window(700)'";
                let spec = in_form(cached_as(specs::parse(text), k, v, page), form);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let kernel = run::compile(&spec, entry, dtype);
                seed += 1;
                let sizes = Sizes::new(&[17, 256, 1, 400], 1);
                let case = sizes.case(&kernel, seed);
                let inputs = case.inputs();
                let filled = cached::fill(&kernel, &case, &inputs, 100).expect("a case is small");
                let outputs = attend(&kernel, &case, &inputs, &filled, &Solo);
                let held = held::inputs(&kernel, &case, &inputs, &filled);
                held::judge(&kernel, &case, &held, &outputs)
                    .unwrap_or_else(|error| panic!("{k:?} and {v:?}, {form:?} on {entry:?}: {error}"));
            }
        }
    }
}

/// Attends queries of a case whose cached keys and values were changed in some place.
fn attend_changed(kernel: &Kernel, case: &Case<'_>, change: impl FnOnce(&mut Inputs)) -> Outputs {
    let mut inputs = case.inputs();
    change(&mut inputs);
    let filled = cached::fill(kernel, case, &inputs, 500).expect("a case is small");
    attend(kernel, case, &inputs, &filled, &Solo)
}

/// What is no number, or so large that sums of such are none, is told where it is seen and nowhere else.
#[test]
fn what_is_no_number_is_told_where_it_is_seen() {
    let heads = "heads = { query = 3, kv = 3, dim = 24 }\npseudo.heads = 3";
    for entry in engines::serving(Dtype::F32) {
        for ((k, v, page), form) in FORMATS.iter().flat_map(|&format| FORMS.map(|form| (format, form))) {
            let kernel = |mask: &str| {
                let spec = in_form(specs::parse(&format!("{heads}\nmask = '{mask}'")), form);
                run::compile(&cached_as(spec, k, v, page), entry, Dtype::F32)
            };
            let [seen, masked] = [kernel("causal"), kernel("causal & k // 3 != 40")];
            let sizes = Sizes::new(&[100], 3);
            let case = sizes.case(&masked, 2);
            let expected = attend_changed(&masked, &case, |_| ());
            for x in [f32::NAN, f32::INFINITY, -3e38] {
                let told = || format!("{x} in {k:?} and {v:?}, {form:?} on {entry:?}");
                let found = attend_changed(&masked, &case, |inputs| {
                    inputs.operands[1].set([0, 2, 40, 5], x);
                    inputs.operands[2].set([0, 0, 40, 7], x);
                });
                assert!(bits(&found, 0, 3) == bits(&expected, 0, 3), "{}", told());
                let case = sizes.case(&seen, 2);
                let found = attend_changed(&seen, &case, |inputs| inputs.operands[2].set([0, 0, 40, 7], x));
                let o = found.o.view();
                for (head, query) in (0..3).flat_map(|head| (0..3).map(move |query| (head, query))) {
                    let row = o.row(0, head, query);
                    assert!(row[7].is_nan() || row[7].abs() > 1e30, "{}: {}", told(), row[7]);
                    // Nor is any other channel changed, unless one scale is that of all.
                    let others = row.iter().enumerate().filter(|(channel, _)| *channel != 7);
                    let is_scaled = matches!(v, CacheFormat::Int8 | CacheFormat::Int4);
                    assert!(is_scaled || others.clone().all(|(_, x)| x.is_finite()), "{}", told());
                }
            }
        }
    }
}
