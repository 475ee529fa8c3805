//! Parts over disjoint keys: merged and finished they are the whole.

use core::ops::Range;

use regard::{Dtype, Kernel, Part, Pool, Problem, ProblemError, SHIPPED, Threads};
use regard_engine::catalog::Entry;
use regard_ir::spec::Mechanism;
use regard_ir::variant::LatentForm;
use regard_testkit::{Case, Inputs, Layout, Outputs};
use regard_tests::run::{self, Judge};
use regard_tests::{engines, specs};

/// Queries of each problem.
const QUERIES: usize = 11;

/// The forms of latents.
const FORMS: [LatentForm; 2] = [LatentForm::Absorbed, LatentForm::Expanded];

/// Calls `check` with a kernel of each shipped spec on each engine, those of latents in some forms, and a problem of a little
/// more than two key cells.
fn each_kernel(forms: &[LatentForm], check: impl Fn(&Kernel, &Case<'_>, &Inputs, &dyn Fn() -> String)) {
    let shipped = SHIPPED.iter().filter(|shipped| !specs::is_preset(shipped));
    let all = shipped.flat_map(|shipped| {
        let spec = specs::narrow(shipped, 20, 12);
        if specs::has_lookahead(&spec) || specs::has_states(&spec) {
            return vec![];
        }
        let in_form = |&form| {
            let mut spec = spec.clone();
            if let Mechanism::Latent(latent) = &mut spec.mechanism {
                latent.form = form;
            }
            (shipped, spec)
        };
        let several = matches!(spec.mechanism, Mechanism::Latent(_));
        forms[..if several { forms.len() } else { 1 }].iter().map(in_form).collect::<Vec<_>>()
    });
    for (i, (shipped, spec)) in all.enumerate() {
        let dtype = Dtype::ALL[i % 3];
        for entry in engines::available() {
            if !run::serves(&spec, entry, dtype) {
                continue;
            }
            let kernel = kernel(&spec, entry, dtype);
            let keys = 2 * cell(&kernel) + 37;
            let problem = Problem::prefill(kernel.spec().source, 2, QUERIES, keys).expect("short");
            let dtype = kernel.plan().dtype;
            let case =
                Case { variant: kernel.variant(), problem, dtype, layout: Layout::Bnhd, seed: i as u64 };
            check(&kernel, &case, &case.inputs(), &|| run::describe(shipped.name, entry, &case));
        }
    }
}

fn kernel(spec: &regard::Spec, entry: &Entry, dtype: Dtype) -> Kernel {
    run::compile(spec, entry, dtype)
}

/// Keys of a key cell.
fn cell(kernel: &Kernel) -> usize {
    (kernel.plan().prefill.key_cell / kernel.variant().per_token()) as usize
}

fn bits(outputs: &Outputs) -> Vec<u64> {
    let tensors = [Some(outputs.o.view()), outputs.lse.as_ref().map(|lse| lse.view())];
    let rows = |tensor: regard_oracle::Tensor4<'_>| {
        let [batch, heads, tokens, _] = tensor.shape();
        let places =
            (0..batch * heads * tokens).map(move |i| (i / tokens / heads, i / tokens % heads, i % tokens));
        places.flat_map(|(b, h, n)| tensor.row(b, h, n)).map(f64::to_bits).collect::<Vec<_>>()
    };
    tensors.into_iter().flatten().flat_map(rows).collect()
}

#[test]
fn a_first_part_and_then_cell_by_cell_gives_the_bits_of_the_whole() {
    let pool = Pool::new(2).expect("two threads");
    // Sums over latents are brought back part by part, which rounds otherwise than once for all: they are near, below.
    each_kernel(&[LatentForm::Expanded], |kernel, case, inputs, told| {
        let whole =
            run::run(kernel, case, inputs, &pool).unwrap_or_else(|error| panic!("{}: {error}", told()));
        let (cell, keys) = (cell(kernel), case.problem.keys as usize);
        let ways: [&[Range<usize>]; 4] = [
            &[0..keys, keys..keys],
            &[0..cell, cell..2 * cell, 2 * cell..keys],
            &[0..cell, cell..cell, cell..2 * cell, 2 * cell..keys],
            &[0..0, 0..2 * cell, 2 * cell..keys],
        ];
        for way in ways {
            let merged = run::run_in_parts(kernel, case, inputs, way, &pool)
                .unwrap_or_else(|error| panic!("{}: {error}", told()));
            assert!(bits(&merged) == bits(&whole), "{way:?} is not the whole: {}", told());
        }
    });
}

#[test]
fn any_cut_in_any_order_is_within_the_bound() {
    let pool = Pool::new(2).expect("two threads");
    each_kernel(&FORMS, |kernel, case, inputs, told| {
        let keys = case.problem.keys as usize;
        let third = keys / 3;
        let ways: [&[Range<usize>]; 3] =
            [&[1..keys, 0..1], &[third..keys, 3..third, 0..3], &[keys - 1..keys, 0..keys - 1]];
        let judge = Judge::new(case, inputs);
        for way in ways {
            let merged = run::run_in_parts(kernel, case, inputs, way, &pool);
            let judged = judge.judge(merged, kernel.plan());
            judged.unwrap_or_else(|error| panic!("{way:?}, {}: {error}", told()));
        }
    });
}

#[test]
fn a_part_over_nothing_changes_no_bit() {
    let pool = Pool::new(2).expect("two threads");
    each_kernel(&FORMS, |kernel, case, inputs, told| {
        let part = |keys| {
            run::part(kernel, case, inputs, keys, &pool).unwrap_or_else(|error| panic!("{}: {error}", told()))
        };
        let numbers = |part: &Part| {
            let (sums, stats) = part.numbers();
            [sums, stats].concat().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let (some, none) = (part(0..100), part(50..50));
        let mut merged = some.clone();
        merged.merge(&none).expect("parts of one problem");
        assert!(numbers(&merged) == numbers(&some), "{}", told());
        let mut merged = none;
        merged.merge(&some).expect("parts of one problem");
        assert!(numbers(&merged) == numbers(&some), "{}", told());
    });
}

#[test]
fn what_is_no_part_is_refused() {
    let pool = Pool::new(1).expect("a thread");
    let spec = specs::parse("heads = { query = 2, dim = 8 }\nmask = 'causal'");
    let problem = Problem::prefill(spec.source, 1, 3, 10).expect("short");
    let outside = ProblemError::Part { begin: 4, end: 11, keys: 10, packed: false };
    assert_eq!(problem.partial(4..11).map(|_| ()), Err(outside));
    let backwards = Range { start: 5, end: 4 };
    assert!(problem.partial(backwards).is_err());
    let packed = Problem::packed(spec.source, &[0, 3], &[0, 10]).expect("one sequence");
    let told = packed.partial(0..4).unwrap_err().to_string();
    assert_eq!(told, "packed sequences have no parts: give each sequence's part in a problem of its own");

    let entry = engines::serving(Dtype::F32)[0];
    let kernel = kernel(&spec, entry, Dtype::F32);
    let case = Case { variant: kernel.variant(), problem, dtype: Dtype::F32, layout: Layout::Bhnd, seed: 0 };
    let inputs = case.inputs();
    let mut part = run::part(&kernel, &case, &inputs, 0..10, &pool).expect("nothing is wrong with it");
    let longer = Case { problem: Problem::prefill(spec.source, 1, 4, 10).expect("short"), ..case };
    let other =
        run::part(&kernel, &longer, &longer.inputs(), 0..10, &pool).expect("nothing is wrong with it");
    let told = part.merge(&other).unwrap_err().to_string();
    assert!(told.contains("64 sums and 16 numbers beside them, expected 48 sums and 12"), "{told}");
    let mut foreign = Part::from_numbers(vec![0.0; 48], vec![0.0; 11]);
    assert!(foreign.merge(&foreign.clone()).is_err());

    // Keys are missing: there are no outputs of that.
    let partial = problem.partial(0..4).expect("some of the keys");
    let schedule = kernel.schedule(&partial, &[], pool.count()).expect("short");
    let held = Case { problem: Problem::prefill(spec.source, 1, 3, 4).expect("short"), ..case };
    let mut outputs = held.outputs();
    let mut workspace = regard::Workspace::new(&schedule);
    let result = run::run_scheduled(&kernel, &schedule, &held.inputs(), &mut outputs, &pool, &mut workspace);
    assert_eq!(result, Err(regard_runtime::flash::RunError::Partial));
}
