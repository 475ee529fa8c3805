//! What bf16 pieces of f32 operands leave, row by row: bounds are stated for runs of rows, pieces are chosen by single ones.

use regard::{Dtype, EngineKind, Problem, Solo, Spec};
use regard_engine::catalog::Entry;
use regard_ir::bounds::{Quantity, bound};
use regard_ir::plan::{Blocks, Pieces, Plan, Precision};
use regard_oracle::sample::Sample;
use regard_planner::pieces;
use regard_testkit::{Case, Failure, Layout};
use regard_tests::run::Direct;
use regard_tests::{engines, specs};

/// Rows of each number of keys.
const ROWS: u64 = 2_000;

const BLOCKS: Blocks =
    Blocks { query_block: 32, key_block: 1024, key_cell: 4096, mask_step: 32, channel_chain: 64 };

/// Channels of keys and of values: wide rows, narrow ones, and few values, where outputs may all be small.
const WIDTHS: [[u32; 2]; 10] =
    [[64, 64], [72, 72], [96, 96], [128, 128], [8, 8], [16, 16], [32, 32], [56, 56], [8, 2], [128, 2]];

#[test]
#[ignore = "long"]
fn single_rows_leave_what_the_planner_says() {
    let all = engines::available();
    let entry =
        all.iter().find(|entry| entry.engine == EngineKind::AmxBf16).expect("tiles are emulated everywhere");
    let mut passed = Vec::new();
    for [dim, value_dim] in WIDTHS {
        let spec = specs::parse(&format!("heads = {{ query = 1, dim = {dim}, value_dim = {value_dim} }}"));
        for (pieces, stated) in pieces::candidates(&spec.variant()) {
            let errors = errors(entry, &spec, pieces);
            let [rare, worst] = [errors.len() / 10_000, 0].map(|n| errors[errors.len() - 1 - n]);
            let [scores, outputs] = pieces.products();
            println!(
                "{dim}, {value_dim}: {scores} and {outputs} products: {rare:.1e}, once {worst:.1e}, stated {stated:.1e}"
            );
            if rare > stated {
                passed.push(([dim, value_dim], pieces, rare));
            }
        }
    }
    assert!(passed.is_empty(), "more than stated: {passed:?}");
}

/// Errors of outputs of single rows of 1 to 17 keys in such pieces, the smallest first, as those of small scores: bounds are wider
/// where scores are large.
fn errors(entry: &Entry, spec: &Spec, pieces: Pieces) -> Vec<f64> {
    let variant = spec.variant();
    let allowed = bound(Quantity::Output, Dtype::F32, Precision::Fast, 0.0);
    let mut errors = Vec::new();
    for keys in 1..=17 {
        let problem = Problem::prefill(spec.source, 1, 1, keys).expect("it is small");
        for seed in 0..ROWS {
            let case = Case { variant, problem, dtype: Dtype::F32, layout: Layout::ALL[0], seed };
            let inputs = case.inputs();
            let direct = Direct { case: &case, entry, blocks: BLOCKS, pack_ahead_bytes: 0 };
            let plan = Plan { pieces, ..direct.plan() };
            let outputs = direct.run_planned(&plan, &inputs, &Solo).expect("it runs");
            let sample = Sample::new(&problem, &variant.heads, 1, seed);
            let share = match case.judge_as(Precision::Fast, &inputs, &outputs, &sample) {
                Ok(report) => report.share(),
                Err(Failure::Bound(report)) => report.share(),
                Err(other) => panic!("{other}"),
            };
            errors.push(share * allowed);
        }
    }
    errors.sort_unstable_by(f64::total_cmp);
    errors
}
