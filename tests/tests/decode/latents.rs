//! Latents: both forms, from tensors and from caches, and a form for each sequence.

use regard::{Dtype, Pool, Problem, Solo};
use regard_ir::operands::Rows;
use regard_ir::spec::{CacheFormat, Mechanism, Spec};
use regard_ir::variant::LatentForm;
use regard_testkit::{Case, Inputs, Layout};
use regard_tests::{cached, engines, held, run, specs};

use crate::{Sizes, attend, bits, cached_as, judge_one_by_one};

/// Ranks that are no multiple of vectors or groups, heads that are no power of two, values wider than latents.
const SHAPES: [&str; 5] = [
    "heads = { query = 5 }\nlatent = { rank = 96, nope_dim = 40, rope_dim = 24, value_dim = 48 }",
    "heads = { query = 3 }\nlatent = { rank = 33, nope_dim = 7, rope_dim = 6, value_dim = 70 }",
    "heads = { query = 1 }\nlatent = { rank = 200, nope_dim = 100, rope_dim = 2, value_dim = 130 }",
    "heads = { query = 17 }\nlatent = { rank = 16, nope_dim = 8, rope_dim = 8, value_dim = 8 }",
    "heads = { query = 2 }\nlatent = { rank = 65, nope_dim = 9, rope_dim = 12, value_dim = 33 }",
];

const REST: &str = "position = { rope = { theta = 10000, layout = 'interleaved' } }\nmask = 'causal'";

fn spec(shape: &str, rest: &str, form: LatentForm) -> Spec {
    let mut spec = specs::parse(&format!("{shape}\n{rest}"));
    let Mechanism::Latent(latent) = &mut spec.mechanism else { panic!("it has latents") };
    latent.form = form;
    spec
}

/// Every form is the formula, so each is the other.
#[test]
fn both_forms_are_the_formula() {
    let pool = Pool::new(2).expect("two threads");
    let sizes = [(1, 1, 1), (2, 5, 70), (1, 40, 300), (1, 300, 129), (3, 7, 3), (1, 1, 1100), (1, 6, 0)];
    let mut seed = 0;
    for entry in engines::available() {
        for dtype in Dtype::ALL {
            for (shape, form) in SHAPES.iter().flat_map(|shape| LatentForm::ALL.map(|form| (shape, form))) {
                let spec = spec(shape, REST, form);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let kernel = run::compile(&spec, entry, dtype);
                // Emulated units are slow.
                let few = if entry.emulated { 2 } else { sizes.len() };
                for &(batch, queries, keys) in sizes.iter().cycle().skip(seed as usize % 7).take(few.min(3)) {
                    seed += 1;
                    let problem = Problem::prefill(spec.source, batch, queries, keys).expect("short");
                    let layout = Layout::ALL[seed as usize % Layout::ALL.len()];
                    let case = Case { variant: kernel.variant(), problem, dtype, layout, seed };
                    let inputs = case.inputs();
                    let told = || format!("{form:?} of {}", run::describe(shape, entry, &case));
                    let result = run::run(&kernel, &case, &inputs, &pool);
                    match run::judge(&case, &inputs, result, kernel.plan()) {
                        Ok(()) => {}
                        Err(run::Disagreement::Outputs(regard_testkit::Failure::Bound(report)))
                            if run::cancels(&case, &inputs, &report) => {}
                        Err(error) => panic!("{}: {error}", told()),
                    }
                }
            }
        }
    }
}

/// A packed call whose sequences take different forms gives each the bits that it has by itself.
#[test]
fn each_sequence_takes_its_own_form() {
    let pools = [Pool::new(2).expect("threads"), Pool::new(3).expect("threads")];
    // Many queries for each key, one, none, and more.
    let lengths = [(400, 400), (1, 700), (0, 90), (3, 0), (90, 1300), (2, 65)];
    for entry in engines::available().into_iter().filter(|entry| !entry.emulated) {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let spec = spec(SHAPES[0], REST, LatentForm::Auto);
            if !run::serves(&spec, entry, dtype) {
                continue;
            }
            let kernel = run::compile(&spec, entry, dtype);
            let starts = |of: fn(&(usize, usize)) -> usize| regard_tests::cumulative(lengths.iter().map(of));
            let (cu_q, cu_k) = (starts(|it| it.0), starts(|it| it.1));
            let problem = Problem::packed(spec.source, &cu_q, &cu_k).expect("offsets that rise from 0");
            let case = Case { variant: kernel.variant(), problem, dtype, layout: Layout::Bnhd, seed: 9 };
            let inputs = case.inputs();
            let schedule = kernel.schedule(&problem, &[], 2).expect("small");
            assert!(schedule.workspace_bytes() > 0);
            let together = run::run(&kernel, &case, &inputs, &Solo).expect("it runs");
            for pool in &pools {
                let again = run::run(&kernel, &case, &inputs, pool).expect("it runs");
                let all = cu_q[lengths.len()] as usize;
                assert!(bits(&together, 0, all) == bits(&again, 0, all), "{entry:?}");
            }
            for (index, &(queries, keys)) in lengths.iter().enumerate() {
                let alone = Problem::prefill(spec.source, 1, queries, keys).expect("short");
                let one = Case { problem: alone, ..case };
                let inputs = cached::sequence_of(&case, &inputs, index as u32);
                let outputs = run::run(&kernel, &one, &inputs, &pools[0]).expect("it runs");
                let first = cu_q[index] as usize;
                assert!(
                    bits(&outputs, 0, queries) == bits(&together, first, queries),
                    "sequence {index} in {dtype:?} on {entry:?}"
                );
            }
        }
    }
}

/// A prefill on a cache that keeps latents as they are has the bits of one from tensors, in either form; a step is near it.
#[test]
fn a_cache_holds_what_tensors_do() {
    let (len, queries) = (300, 40);
    for entry in engines::available() {
        for (form, dtype) in [
            (LatentForm::Expanded, Dtype::F32),
            (LatentForm::Absorbed, Dtype::F32),
            (LatentForm::Expanded, Dtype::Bf16),
            (LatentForm::Absorbed, Dtype::Bf16),
        ] {
            let spec = spec(SHAPES[1], REST, form);
            if !run::serves(&spec, entry, dtype) {
                continue;
            }
            let kernel = run::compile(&spec, entry, dtype);
            let sizes = Sizes { cu_q: vec![0, queries], cu_k: vec![0, len] };
            let case = sizes.case(&kernel, 4);
            let inputs = case.inputs();
            let filled = cached::fill(&kernel, &case, &inputs, 70).expect("a case is small");
            let on_cache = cached::prefill(&kernel, &case, &inputs, &filled, &Solo).expect("it runs");
            let given = run::run(&kernel, &case, &inputs, &Solo).expect("it runs");
            let all = queries as usize;
            assert!(bits(&on_cache, 0, all) == bits(&given, 0, all), "{form:?} in {dtype:?} on {entry:?}");
        }
    }
}

/// Latents in fewer digits: outputs are those of what the cache holds, in every phase and form.
#[test]
fn quantised_latents_are_what_the_cache_holds() {
    let formats = [CacheFormat::Int8, CacheFormat::Int4, CacheFormat::Dtype(Dtype::F16)];
    for entry in engines::available().into_iter().filter(|entry| !entry.emulated) {
        for (seed, (format, form)) in
            formats.iter().flat_map(|format| LatentForm::ALL.map(|form| (*format, form))).enumerate()
        {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let spec = spec(SHAPES[seed % SHAPES.len()], "mask = 'causal'", form);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let kernel = run::compile(&cached_as(spec, format, format, 32), entry, dtype);
                let judge = |case: &Case<'_>, inputs: &Inputs, decodes: bool| {
                    let filled = cached::fill(&kernel, case, inputs, 100).expect("a case is small");
                    let outputs = match decodes {
                        true => attend(&kernel, case, inputs, &filled, &Solo),
                        false => cached::prefill(&kernel, case, inputs, &filled, &Solo).expect("it runs"),
                    };
                    let held = held::inputs(&kernel, case, inputs, &filled);
                    let told = || format!("{form:?} in {format:?}, {dtype:?} on {entry:?}");
                    let error = held::judge(&kernel, case, &held, &outputs)
                        .unwrap_or_else(|error| panic!("{}: {error}", told()));
                    println!("{}: {error:.1e} of what is held", told());
                };
                let few = Sizes::new(&[1, 17, 65, 600], 1 + seed % 3);
                let case = few.case(&kernel, seed as u64);
                judge(&case, &case.inputs(), true);
                let many = Sizes::new(&[130], 90);
                let case = many.case(&kernel, seed as u64);
                judge(&case, &case.inputs(), false);
            }
        }
    }
}

/// A latent of a masked token may hold anything.
#[test]
fn latents_that_are_not_finite_reach_those_alone_who_see_them() {
    for entry in engines::available() {
        for form in [LatentForm::Expanded, LatentForm::Absorbed] {
            let spec = spec(SHAPES[0], "mask = 'causal & k != 70'", form);
            if !run::serves(&spec, entry, Dtype::F32) {
                continue;
            }
            let kernel = run::compile(&spec, entry, Dtype::F32);
            let problem = Problem::prefill(spec.source, 1, 50, 120).expect("short");
            let case =
                Case { variant: kernel.variant(), problem, dtype: Dtype::F32, layout: Layout::Bhnd, seed: 1 };
            let clean = case.inputs();
            let keys: Vec<bool> = case.variant.operands().map(|it| it.rows == Rows::Keys).collect();
            let expected = run::run(&kernel, &case, &clean, &Solo).expect("it runs");
            for bad in [f32::NAN, f32::INFINITY] {
                let mut spoilt = clean.clone();
                for (tensor, _) in spoilt.operands.iter_mut().zip(&keys).filter(|(_, of_keys)| **of_keys) {
                    tensor.set([0, 0, 70, 3], bad);
                }
                let found = run::run(&kernel, &case, &spoilt, &Solo).expect("it runs");
                assert!(bits(&found, 0, 50) == bits(&expected, 0, 50), "{form:?} on {entry:?}");
                let filled = cached::fill(&kernel, &case, &spoilt, 64);
                assert!(filled.is_ok(), "a cache takes what it is given");
            }
            // One that is seen spreads as the formula says, in the rows that see it.
            let mut spoilt = clean.clone();
            spoilt.operands[2].set([0, 0, 100, 3], f32::NAN);
            let result = run::run(&kernel, &case, &spoilt, &Solo);
            run::judge(&case, &spoilt, result, kernel.plan())
                .unwrap_or_else(|error| panic!("{form:?} on {entry:?}: {error}"));
        }
    }
}

/// Values are read from keys where these lie if rows fill vectors, and else from turned ones. No bit tells which, nor does what is
/// not finite.
#[test]
fn queries_at_once_are_what_they_are_one_by_one() {
    for entry in engines::available() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            // Rows of one query fill no vectors, those of all do, of 8 or of 16 lanes.
            for (shape, queries) in [(0, 3), (1, 5), (3, 5), (4, 8)] {
                let spec = spec(SHAPES[shape], "mask = 'causal & k != 70'", LatentForm::Absorbed);
                if !run::serves(&spec, entry, dtype) {
                    continue;
                }
                let kernel = run::compile(&spec, entry, dtype);
                let latents = kernel.variant().operands().position(|it| it.rows == Rows::Keys);
                let latents = latents.expect("keys are made of them");
                let spoil = |inputs: &mut Inputs| {
                    inputs.operands[latents].set([0, 0, 70, 3], f32::NAN);
                    inputs.operands[latents].set([0, 0, 900, 2], f32::INFINITY);
                };
                let told = format!("{} in {dtype:?} on {entry:?}", SHAPES[shape]);
                judge_one_by_one(&kernel, [1100, queries], spoil, &told);
            }
        }
    }
}
