//! Sequences of different lengths in one call: what each of them gives alone, bit for bit.

use regard::{Dtype, Pool, Problem, SHIPPED};
use regard_engine::catalog::Entry;
use regard_ir::problem::{ProblemError, Sequence};
use regard_ir::spec::Spec;
use regard_ir::variant::Source;
use regard_oracle::Tensor4;
use regard_testkit::{Case, Layout, Outputs};
use regard_tests::{cached, cumulative, engines, run, specs};

/// Queries and keys of each sequence: none of one, none of the other, none of both, one, few, past a block.
const LENGTHS: [(usize, usize); 9] =
    [(5, 5), (0, 3), (7, 9), (0, 0), (1, 130), (33, 40), (2, 2), (150, 150), (1, 1)];

/// The bits of some rows of the outputs, of all heads.
fn bits(outputs: &Outputs, batch: usize, first: u32, count: u32) -> Vec<u64> {
    let rows = |tensor: &Tensor4<'_>| -> Vec<u64> {
        let places =
            (0..tensor.shape()[1]).flat_map(|h| (first..first + count).map(move |n| (h, n as usize)));
        places.flat_map(|(h, n)| tensor.row(batch, h, n)).map(f64::to_bits).collect()
    };
    let lse = outputs.lse.as_ref().map(|lse| rows(&lse.view())).unwrap_or_default();
    [rows(&outputs.o.view()), lse].concat()
}

/// Runs all sequences in one call, judges them, and compares each with what it gives alone.
fn check(spec: &Spec, entry: &Entry, dtype: Dtype, pool: &Pool) {
    let cu_q = cumulative(LENGTHS.iter().map(|it| it.0));
    let cu_k = cumulative(LENGTHS.iter().map(|it| it.1));
    let kernel = run::compile(spec, entry, dtype);
    let variant = kernel.variant();
    let problem = Problem::packed(spec.source, &cu_q, &cu_k).expect("offsets that rise from 0");
    let case = Case { variant, problem, dtype, layout: Layout::Bnhd, seed: 7 };
    let inputs = case.inputs();
    let told = || run::describe(&spec.name, entry, &case);
    let together =
        run::run(&kernel, &case, &inputs, pool).unwrap_or_else(|error| panic!("{}: {error}", told()));
    let judged = run::judge(&case, &inputs, Ok(together.clone()), kernel.plan());
    judged.unwrap_or_else(|error| panic!("{}: {error}", told()));

    for index in 0..problem.batch {
        let of = problem.sequence(index);
        let Sequence { first_query, queries, keys, .. } = of;
        let alone = cached::sequence_of(&case, &inputs, index);
        let problem = Problem::prefill(spec.source, 1, queries as usize, keys as usize).expect("short");
        let single = Case { problem, layout: Layout::Gapped, ..case };
        let outputs = run::run(&kernel, &single, &alone, pool)
            .unwrap_or_else(|error| panic!("{}: {error}", run::describe(&spec.name, entry, &single)));
        assert!(
            bits(&outputs, 0, 0, queries) == bits(&together, 0, first_query, queries),
            "sequence {index} is another beside its neighbours: {}",
            told()
        );
    }
}

#[test]
fn each_sequence_is_what_it_is_alone() {
    let pool = Pool::new(2).expect("two threads");
    // Presets have the same tables, with heads of their own.
    let shipped = SHIPPED.iter().filter(|shipped| !specs::is_preset(shipped));
    for (i, shipped) in shipped.enumerate() {
        let spec = specs::narrow(shipped, 24, 16);
        let dtype = Dtype::ALL[i % 3];
        for entry in engines::available() {
            // Some need as many queries as keys: their own tests pack them.
            if run::serves(&spec, entry, dtype) && !specs::pairs_queries(&spec) {
                check(&spec, entry, dtype, &pool);
            }
        }
    }
}

#[test]
fn no_sequences_and_empty_ones_are_legal() {
    let pool = Pool::new(2).expect("two threads");
    let spec = specs::parse("heads = { query = 2, dim = 8 }\nmask = 'causal'\noutput = { lse = true }");
    for entry in engines::serving(Dtype::F32) {
        for (cu_q, cu_k) in [(vec![0], vec![0]), (vec![0, 0, 0], vec![0, 0, 4]), (vec![0, 3], vec![0, 0])] {
            let kernel = run::compile(&spec, entry, Dtype::F32);
            let problem = Problem::packed(spec.source, &cu_q, &cu_k).expect("offsets that rise from 0");
            let case =
                Case { variant: kernel.variant(), problem, dtype: Dtype::F32, layout: Layout::Bnhd, seed: 1 };
            let inputs = case.inputs();
            let outputs = run::run(&kernel, &case, &inputs, &pool).expect("nothing is wrong with it");
            run::judge(&case, &inputs, Ok(outputs), kernel.plan())
                .unwrap_or_else(|error| panic!("{cu_q:?}: {error}"));
        }
    }
}

#[test]
fn offsets_that_are_none_are_refused() {
    let packed =
        |cu_q: &[i32], cu_k: &[i32]| Problem::packed(Source::Cross, cu_q, cu_k).map(|problem| problem.batch);
    assert_eq!(packed(&[0, 2, 2], &[0, 0, 5]), Ok(2));
    assert_eq!(packed(&[], &[]), Err(ProblemError::Sequences { cu_q: 0, cu_k: 0 }));
    assert_eq!(packed(&[0, 1], &[0, 1, 2]), Err(ProblemError::Sequences { cu_q: 2, cu_k: 3 }));
    let cumulative = |what, at, found, least| Err(ProblemError::Cumulative { what, at, found, least });
    assert_eq!(packed(&[1, 2], &[0, 2]), cumulative("cu_q", 0, 1, 0));
    assert_eq!(packed(&[0, 2], &[-1, 2]), cumulative("cu_k", 0, -1, 0));
    assert_eq!(packed(&[0, 2, 5], &[0, 9, 7]), cumulative("cu_k", 2, 7, 9));
    let told = packed(&[0, 2, 5], &[0, 9, 7]).unwrap_err().to_string();
    assert_eq!(told, "cu_k[2] is 7, after 9: cumulative offsets never fall");
}

#[test]
fn query_offsets_are_each_sequence_s_own() {
    let (cu_q, cu_k) = ([0, 2, 5], [0, 4, 4]);
    let problem = Problem::packed(Source::SelfAttention, &cu_q, &cu_k).expect("offsets that rise from 0");
    let offsets = |problem: &Problem<'_>| [0, 1].map(|i| problem.sequence(i).q_offset);
    assert_eq!(offsets(&problem), [2, -3]);
    assert_eq!(offsets(&problem.with_q_offset(7).expect("near")), [7, 7]);
    assert_eq!(offsets(&problem.with_q_offsets(&[9, -1]).expect("one each")), [9, -1]);
    let few = ProblemError::QueryOffsets { sequences: 2, found: 1 };
    assert_eq!(problem.with_q_offsets(&[9]).map(|_| ()), Err(few));
    let far = ProblemError::OffsetTooLarge { q_offset: i32::MAX.into(), queries: 3 };
    assert_eq!(problem.with_q_offsets(&[0, i32::MAX]).map(|_| ()), Err(far));
}
