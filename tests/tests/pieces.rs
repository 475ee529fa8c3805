//! What bf16 pieces of f32 operands leave, row by row: bounds are stated for runs of rows, pieces are chosen by single ones.

use regard::{Dtype, EngineKind, Problem, Solo};
use regard_ir::plan::{Blocks, Precision};
use regard_oracle::sample::Sample;
use regard_planner::pieces;
use regard_testkit::{Case, Failure, Layout};
use regard_tests::run::Direct;
use regard_tests::{engines, specs};

/// Rows of each width and number of keys.
const ROWS: u64 = 2_000;

const BLOCKS: Blocks =
    Blocks { query_block: 32, key_block: 1024, key_cell: 4096, mask_step: 32, channel_chain: 64 };

#[test]
#[ignore = "170,000 rows, one by one"]
fn one_row_in_ten_thousand_passes_the_bound() {
    let all = engines::available();
    let entry =
        all.iter().find(|entry| entry.engine == EngineKind::AmxBf16).expect("tiles are emulated everywhere");
    for dim in [8, 32, 64, 96, 128] {
        let spec = specs::parse(&format!("heads = {{ query = 1, dim = {dim} }}"));
        let variant = spec.variant();
        let mut shares = Vec::new();
        for keys in 1..=17 {
            let problem = Problem::prefill(spec.source, 1, 1, keys).expect("it is small");
            for seed in 0..ROWS {
                let case = Case { variant, problem, dtype: Dtype::F32, layout: Layout::ALL[0], seed };
                let inputs = case.inputs();
                let direct = Direct { case: &case, entry, blocks: BLOCKS, pack_ahead_bytes: 0 };
                let outputs = direct.run(&inputs, &Solo).expect("it runs");
                let sample = Sample::new(&problem, &variant.heads, 1, seed);
                shares.push(match case.judge_as(Precision::Fast, &inputs, &outputs, &sample) {
                    Ok(report) => report.share(),
                    Err(Failure::Bound(report)) => report.share(),
                    Err(other) => panic!("{other}"),
                });
            }
        }
        shares.sort_unstable_by(f64::total_cmp);
        let rare = shares[shares.len() - 1 - shares.len() / 10_000];
        let pieces = pieces::fewest(entry, &variant, Dtype::F32, Precision::Fast).expect("it is served");
        println!(
            "{dim} channels, {pieces:?}: {rare:.2} of the bound, {:.2} once",
            shares.last().unwrap_or(&0.0)
        );
        assert!(rare <= 1.0, "{dim} channels: one row in 10,000 is {rare:.2} times the bound off");
    }
}
