//! Lookahead keys on every engine against the oracle, over awkward sizes, masks and outputs.

mod decode;
mod trial;

use regard_engine::catalog::{ENTRIES, Entry};
use regard_ir::machine::Isa;
use regard_ir::plan::{Blocks, Dtype, EngineKind};
use regard_ir::problem::Problem;
use regard_ir::spec::Spec;
use regard_ir::variant::Source;
use regard_runtime::flash::RunError;
use regard_spec::{NoFiles, parse};
use regard_testkit::Layout;
use regard_tests::engines;

use crate::trial::Trial;

/// Blocks of which a few tokens make several.
const SMALL: Blocks =
    Blocks { query_block: 16, key_block: 32, key_cell: 64, mask_step: 8, channel_chain: 64 };

fn spec(heads: &str, lines: &str) -> Spec {
    let text = format!("heads = {{ {heads} }}\n{lines}\n");
    parse(&text, "t.toml", &NoFiles).unwrap_or_else(|errors| panic!("{errors}")).spec
}

fn prefill(tokens: usize) -> Problem<'static> {
    Problem::prefill(Source::SelfAttention, 2, tokens, tokens).unwrap()
}

/// Runs a trial on every engine that serves it, judges it, and holds two threads or seven against one: so many share heads out.
fn check(trial: &Trial<'_>, blocks: Blocks) {
    for entry in serving(trial) {
        check_on(trial, entry, blocks);
    }
}

/// The engines here that compute a trial: rows of bf16 that are turned are no bf16 numbers any more.
fn serving(trial: &Trial<'_>) -> impl Iterator<Item = &'static Entry> {
    let turns = trial.spec.position.is_some();
    let rounds = move |entry: &Entry| turns && entry.engine == EngineKind::DotBf16;
    engines::serving(trial.dtype).into_iter().filter(move |&entry| !rounds(entry))
}

fn check_on(trial: &Trial<'_>, entry: &Entry, blocks: Blocks) {
    let (plan, data) = (trial.plan(entry, blocks), trial.data());
    let results = trial.run(&plan, &data, 1).unwrap_or_else(|error| panic!("{error}"));
    let report = trial.judge(&plan, &data, &results);
    let name = format!(
        "{} {} on {} {}, {} tokens, {blocks:?}",
        trial.spec.name,
        trial.dtype.name(),
        entry.engine.name(),
        entry.isa.name(),
        trial.problem.keys,
    );
    assert!(report.passed(), "{name}: {report}");
    let again = trial.run(&plan, &data, if trial.seed.is_multiple_of(2) { 2 } else { 7 }).unwrap();
    for (one, two) in [(&results.o, &again.o), (&results.u, &again.u)] {
        let (one, two) = (one.view(), two.view());
        let [batch, heads, tokens, _] = one.shape();
        let bits = |row: Vec<f64>| row.into_iter().map(f64::to_bits).collect::<Vec<_>>();
        for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
            for token in 0..tokens {
                assert_eq!(bits(one.row(b, h, token)), bits(two.row(b, h, token)), "{name}");
            }
        }
    }
}

#[test]
fn awkward_lengths() {
    let spec = spec("query = 3, dim = 24, value_dim = 20", "lookahead = {}\noutput.lse = true");
    for (seed, tokens) in [0, 1, 2, 15, 16, 17, 31, 33, 47, 64, 65, 130].into_iter().enumerate() {
        for dtype in Dtype::ALL {
            let layout = Layout::ALL[seed % 3];
            check(&Trial { spec: &spec, problem: prefill(tokens), dtype, layout, seed: seed as u64 }, SMALL);
        }
    }
}

/// On every engine in f32 and bf16.
fn check_types(spec: &Spec, problem: Problem<'_>, seed: u64, blocks: Blocks) {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        check(&Trial { spec, problem, dtype, layout: Layout::ALL[seed as usize % 3], seed }, blocks);
    }
}

#[test]
fn blocks_of_many_sizes() {
    let spec = spec("query = 2, dim = 40", "lookahead = {}");
    for (i, (query_block, key_block, key_cell)) in
        [(1, 8, 8), (3, 16, 64), (40, 32, 96), (48, 64, 64), (100, 128, 128), (300, 32, 1024)]
            .into_iter()
            .enumerate()
    {
        let blocks = Blocks { query_block, key_block, key_cell, ..SMALL };
        check_types(&spec, prefill(101), i as u64, blocks);
    }
}

#[test]
fn windows_end_what_keys_learn() {
    for (i, window) in [0, 1, 7, 16, 40, 1000].into_iter().enumerate() {
        let spec = spec("query = 2, dim = 16", &format!("lookahead.window = {window}"));
        check_types(&spec, prefill(113), i as u64, SMALL);
    }
}

#[test]
fn rope_turns_each_tensor() {
    let rope = "position.rope = { theta = 1e4, layout = 'interleaved', dim = 12, offset = 2 }";
    for (i, rotate) in ["'q_c', 'k_c', 'q_u', 'k_u', 'v_u'", "'q_c'", "'k_c'", "'q_u'", "'k_u'", "'v_u'", ""]
        .into_iter()
        .enumerate()
    {
        let spec = spec("query = 2, dim = 16", &format!("{rope}\nlookahead.rotate = [{rotate}]"));
        check_types(&spec, prefill(50), i as u64, SMALL);
    }
    let ids = "inputs.pos = 'i32[b, k]'\nposition = { rope.theta = 1e3, ids = 'pos' }\nlookahead = {}";
    check_types(&spec("query = 2, dim = 16", ids), prefill(50), 9, SMALL);
}

#[test]
fn masks_scores_and_outputs_are_as_elsewhere() {
    for (i, lines) in [
        "lookahead = {}\nmask = 'window(20)'",
        "lookahead.window = 9\nmask = 'window(20) | first(3)'",
        "inputs.doc = 'i32[b, k]'\nmask = 'same(doc)'\nlookahead.allow = 'same(doc)'",
        "inputs.doc = 'i32[b, k]'\nlookahead = { allow = 'same(doc)', window = 30 }",
        "lookahead.allow = '(q + k) % 3 == 0'",
        "lookahead = {}\nscore.modify = 'softcap(s, 4) + alibi(h) * (k - q)'\nscore.scale = -0.2",
        "lookahead = {}\nweights.sink = 'learned'\noutput.lse = true",
        "lookahead = {}\nweights = { kind = 'sigmoid', bias = -2 }",
        "lookahead = {}\noutput = { mix = 3, norm = 'rms', gate = 'elementwise' }",
    ]
    .into_iter()
    .enumerate()
    {
        check_types(&spec("query = 4, dim = 16, value_dim = 24", lines), prefill(75), i as u64, SMALL);
    }
}

#[test]
fn packed_sequences_are_apart() {
    let starts = [0, 40, 40, 41, 90];
    let problem = Problem::packed(Source::SelfAttention, &starts, &starts).unwrap();
    for (i, lines) in
        ["lookahead = {}", "position.rope.theta = 1e4\nlookahead.window = 12"].into_iter().enumerate()
    {
        check_types(&spec("query = 3, dim = 16", lines), problem, i as u64, SMALL);
    }
}

#[test]
fn sums_over_many_tokens_keep_their_digits() {
    let spec = spec("query = 1, dim = 64", "lookahead = {}");
    let blocks = Blocks { query_block: 96, key_block: 512, key_cell: 1024, mask_step: 8, channel_chain: 64 };
    let problem = Problem::prefill(Source::SelfAttention, 1, 1100, 1100).unwrap();
    check_types(&spec, problem, 1, blocks);
}

#[test]
fn what_is_no_number_stays_where_it_is() {
    let lines = "inputs.doc = 'i32[b, k]'\nmask = 'same(doc)'\nlookahead.allow = 'same(doc)'";
    let (plain, documents) =
        (spec("query = 2, dim = 16", "lookahead = {}"), spec("query = 2, dim = 16", lines));
    for (i, value) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
        for spec in [&plain, &documents] {
            for which in 0..6 {
                let trial = Trial {
                    spec,
                    problem: prefill(60),
                    dtype: if which % 2 == 0 { Dtype::F32 } else { Dtype::Bf16 },
                    layout: Layout::Bhnd,
                    seed: 3 + i as u64,
                };
                let spoil = |data: &mut trial::Data| {
                    let tensors = [
                        &mut data.q_c,
                        &mut data.k_c,
                        &mut data.v_c,
                        &mut data.q_u,
                        &mut data.k_u,
                        &mut data.v_u,
                    ];
                    let tensor = tensors.into_iter().nth(which).unwrap();
                    tensor.set([0, 1, 21, 5], value);
                    tensor.set([1, 0, 40, 0], value);
                };
                for entry in serving(&trial) {
                    let (plan, mut data) = (trial.plan(entry, SMALL), trial.data());
                    spoil(&mut data);
                    let results = trial.run(&plan, &data, 1).unwrap();
                    let report = trial.judge(&plan, &data, &results);
                    let name =
                        format!("tensor {which} with {value} on {} {}", plan.engine.name(), plan.isa.name());
                    assert!(report.passed(), "{name}: {report}");
                }
            }
        }
    }
}

#[test]
fn other_calls_are_refused() {
    let spec = spec("query = 2, dim = 16", "lookahead = {}");
    let entry = ENTRIES.iter().find(|entry| entry.isa == Isa::Scalar).unwrap();
    let problem = Problem::prefill(Source::SelfAttention, 1, 4, 9).unwrap();
    let trial = Trial { spec: &spec, problem, dtype: Dtype::F32, layout: Layout::Bhnd, seed: 0 };
    let (plan, data) = (trial.plan(entry, SMALL), trial.data());
    assert!(matches!(
        trial.run(&plan, &data, 1),
        Err(RunError::Shape { tensor: "u", .. } | RunError::QueryForEachKey)
    ));
    let later = Problem::prefill(Source::SelfAttention, 1, 9, 9).unwrap().with_q_offset(1).unwrap();
    let trial = Trial { problem: later, ..trial };
    assert!(matches!(trial.run(&plan, &trial.data(), 1), Err(RunError::QueryForEachKey)));
}
