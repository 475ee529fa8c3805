//! The corners that the language defines: nothing to attend to, NaN and infinities masked and not, huge and equal scores.

use regard::{Dtype, Pool, Problem, Solo, Spec};
use regard_engine::catalog::Entry;
use regard_ir::plan::Blocks;
use regard_testkit::{Case, Inputs, Layout, Outputs};
use regard_tests::run::{self, Direct};
use regard_tests::{engines, hidden, specs};

/// Small blocks, so that a few dozen keys are several blocks and cells.
const BLOCKS: Blocks = Blocks { query_block: 5, key_block: 16, key_cell: 32, mask_step: 8, channel_chain: 8 };

/// Calls `check` with each engine and storage type for a problem of the spec, with the plan's blocks and small ones.
fn each(spec: &Spec, problem: Problem, check: impl Fn(&Subject<'_>)) {
    for entry in engines::available() {
        for (dtype, layout) in Dtype::ALL.into_iter().zip(Layout::ALL) {
            if !run::serves(spec, entry, dtype) {
                continue;
            }
            let kernel = run::compile(spec, entry, dtype);
            for blocks in [kernel.plan().prefill, BLOCKS] {
                let case = Case { variant: kernel.variant(), problem, dtype, layout, seed: 5 };
                check(&Subject { name: &spec.name, entry, blocks, case });
            }
        }
    }
}

struct Subject<'a> {
    name: &'a str,
    entry: &'a Entry,
    blocks: Blocks,
    case: Case<'a>,
}

impl Subject<'_> {
    fn direct(&self) -> Direct<'_> {
        Direct { case: &self.case, entry: self.entry, blocks: self.blocks, pack_ahead_bytes: u64::MAX }
    }

    fn run(&self, inputs: &Inputs) -> Outputs {
        self.direct().run(inputs, &Solo).unwrap_or_else(|error| panic!("{}: {error}", self.describe()))
    }

    /// Runs and judges.
    fn verify(&self, inputs: &Inputs) -> Outputs {
        let outputs = self.run(inputs);
        let result = run::judge(&self.case, inputs, Ok(outputs.clone()), &self.direct().plan());
        result.unwrap_or_else(|error| panic!("{}: {error}", self.describe()));
        outputs
    }

    fn describe(&self) -> String {
        format!("{} with {:?}", run::describe(self.name, self.entry, &self.case), self.blocks)
    }

    fn assert_row(&self, outputs: &Outputs, head: usize, query: usize, expected: f64) {
        let row = outputs.o.view().row(0, head, query);
        assert!(row.iter().all(|&x| x == expected), "{}: row {query} is {row:?}", self.describe());
    }

    fn assert_lse(&self, outputs: &Outputs, head: usize, query: usize, expected: f64) {
        let lse = outputs.lse.as_ref().expect("the spec has it").view().row(0, head, query)[0];
        assert_eq!(lse, expected, "{}: lse of row {query}", self.describe());
    }
}

fn spec(text: &str) -> Spec {
    specs::parse(&format!(
        "heads = {{ query = 4, kv = 2, dim = 12, value_dim = 10 }}\noutput = {{ lse = true }}\n{text}"
    ))
}

fn problem(spec: &Spec, queries: usize, keys: usize) -> Problem<'static> {
    Problem::prefill(spec.source, 1, queries, keys).expect("short")
}

#[test]
fn a_row_that_may_attend_to_nothing() {
    let spec = spec("mask = 'causal & q != 70 & (q != 81 | k > 100)'");
    each(&spec, problem(&spec, 40, 100), |subject| {
        let outputs = subject.verify(&subject.case.inputs());
        for (head, query) in (0..4).flat_map(|head| [(head, 10), (head, 21)]) {
            subject.assert_row(&outputs, head, query, 0.0);
            subject.assert_lse(&outputs, head, query, f64::NEG_INFINITY);
        }
    });
}

#[test]
fn every_row_masked() {
    let spec = spec("mask = 'k > nk'");
    each(&spec, problem(&spec, 9, 70), |subject| {
        let outputs = subject.verify(&subject.case.inputs());
        (0..9).for_each(|query| subject.assert_lse(&outputs, 3, query, f64::NEG_INFINITY));
    });
}

#[test]
fn every_row_masked_by_data_that_no_interval_knows() {
    let spec = spec("inputs = { open = 'f32[k, 1]' }\nmask = 'open[k, 0] * open[k, 0] < -1.0'");
    each(&spec, problem(&spec, 9, 70), |subject| {
        let outputs = subject.verify(&subject.case.inputs());
        (0..9).for_each(|query| subject.assert_row(&outputs, 1, query, 0.0));
        (0..9).for_each(|query| subject.assert_lse(&outputs, 1, query, f64::NEG_INFINITY));
    });
}

#[test]
fn the_first_block_and_whole_cells_masked() {
    for mask in [
        "k >= 16",
        "k >= 32",
        "k >= 64",
        "k < 16 | k >= 64",
        "(k // 32) % 2 == q % 2",
        "k >= 16 & q % 2 == 0 | k >= 70",
        "k == 40 | k == 99 & q > 80",
    ] {
        let spec = spec(&format!("mask = '{mask}'"));
        each(&spec, problem(&spec, 23, 100), |subject| {
            subject.verify(&subject.case.inputs());
        });
    }
}

#[test]
fn no_keys() {
    let spec = spec("mask = 'causal'");
    each(&spec, problem(&spec, 7, 0), |subject| {
        let outputs = subject.verify(&subject.case.inputs());
        for query in 0..7 {
            subject.assert_row(&outputs, 2, query, 0.0);
            subject.assert_lse(&outputs, 2, query, f64::NEG_INFINITY);
        }
    });
}

#[test]
fn no_queries_and_no_sequences() {
    let spec = spec("mask = 'causal'");
    each(&spec, problem(&spec, 0, 9), |subject| {
        subject.verify(&subject.case.inputs());
    });
    each(&spec, Problem::prefill(spec.source, 0, 3, 9).expect("short"), |subject| {
        subject.verify(&subject.case.inputs());
    });
}

#[test]
fn more_queries_than_keys() {
    let spec = spec("mask = 'causal'");
    each(&spec, problem(&spec, 90, 41), |subject| {
        let outputs = subject.verify(&subject.case.inputs());
        subject.assert_lse(&outputs, 0, 48, f64::NEG_INFINITY);
        let last_masked = outputs.lse.as_ref().expect("the spec has it").view().row(0, 0, 49)[0];
        assert!(last_masked.is_finite(), "{}: position 0 sees key 0", subject.describe());
    });
}

#[test]
fn a_window_wider_than_the_sequence() {
    let spec = spec("mask = 'causal & window(100000)'");
    each(&spec, problem(&spec, 50, 50), |subject| {
        subject.verify(&subject.case.inputs());
    });
}

/// Whatever a masked key and its value hold, not a bit of the output changes.
#[test]
fn nan_and_infinities_that_are_masked() {
    const MASKS: [&str; 5] = [
        // Masked lane by lane, step by step, block by block, for some rows of a tile, and by data.
        "k % 3 != 1",
        "k < 24 | k >= 48",
        "k < 32 | k >= 64",
        "k <= q - 3 & k % 5 != 2",
        "bias[k] > 0",
    ];
    for mask in MASKS {
        for modify in ["s", "softcap(s, 4) + bias[k] * 0.1"] {
            let spec = spec(&format!(
                "inputs = {{ bias = 'f32[k]' }}\nmask = '{mask}'\nscore = {{ modify = '{modify}' }}"
            ));
            each(&spec, problem(&spec, 30, 90), |subject| {
                let clean = subject.case.inputs();
                let expected = subject.verify(&clean);
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut inputs = clean.clone();
                    let hidden = hidden_keys(&subject.case, &clean);
                    assert!(hidden.len() > 5, "{mask} hides {hidden:?}");
                    for (&key, head) in hidden.iter().flat_map(|key| [(key, 0), (key, 1)]) {
                        // One element is enough for a score; the other widths are met by the value.
                        inputs.operands[1].set([0, head, key, key % 12], bad);
                        (0..10).for_each(|channel| inputs.operands[2].set([0, head, key, channel], bad));
                    }
                    let found = subject.run(&inputs);
                    assert_same_bits(&found, &expected, || format!("{bad}: {}", subject.describe()));
                }
            });
        }
    }
}

/// The keys that the mask hides from every query of every head.
fn hidden_keys(case: &Case<'_>, inputs: &Inputs) -> Vec<usize> {
    let by_query: Vec<_> = (0..case.problem.queries).map(|query| hidden::keys(case, inputs, query)).collect();
    let from_all = |k: &usize| by_query.iter().all(|hidden| hidden.contains(k));
    (0..case.problem.keys as usize).filter(from_all).collect()
}

/// A key that is hidden from some rows of a tile changes those that see it, and no bit of the others.
#[test]
fn nan_that_some_rows_see() {
    let spec = spec("mask = 'causal'");
    each(&spec, problem(&spec, 60, 60), |subject| {
        let clean = subject.case.inputs();
        let expected = subject.verify(&clean);
        for in_value in [false, true] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut inputs = clean.clone();
                let tensor = if in_value { &mut inputs.operands[2] } else { &mut inputs.operands[1] };
                tensor.set([0, 1, 33, 4], bad);
                let found = subject.verify(&inputs);
                for (head, query) in (0..4).flat_map(|head| (0..60).map(move |query| (head, query))) {
                    if head < 2 || query < 33 {
                        let row = |outputs: &Outputs| outputs.o.view().row(0, head, query);
                        assert_eq!(bits(&row(&found)), bits(&row(&expected)), "{}", subject.describe());
                    }
                }
                let broken = found.o.view().row(0, 2, 33)[4];
                // An infinite key may give a score of −inf, which is a weight of 0.
                assert!(!in_value || !broken.is_finite(), "{}: {broken}", subject.describe());
            }
        }
    });
}

#[test]
fn nan_and_infinities_that_are_not_masked() {
    let spec = spec("mask = 'causal & window(40)'");
    each(&spec, problem(&spec, 70, 70), |subject| {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 31, 69] {
                let clean = subject.case.inputs();
                let mut inputs = clean.clone();
                inputs.operands[0].set([0, 3, at, 2], bad);
                subject.verify(&inputs);
                let mut inputs = clean.clone();
                inputs.operands[1].set([0, 1, at, 11], bad);
                subject.verify(&inputs);
                let mut inputs = clean.clone();
                inputs.operands[2].set([0, 0, at, 9], bad);
                subject.verify(&inputs);
            }
        }
    });
}

#[test]
fn logits_of_ten_thousand() {
    for factor in ["10000", "-10000"] {
        let spec = spec(&format!("mask = 'causal'\nscore = {{ modify = 's * {factor}' }}"));
        each(&spec, problem(&spec, 33, 80), |subject| {
            subject.verify(&subject.case.inputs());
        });
        // The same without a modifier, so that the scale alone makes them.
        let spec = self::spec(&format!("mask = 'causal'\nscore = {{ scale = {factor} }}"));
        each(&spec, problem(&spec, 33, 80), |subject| {
            subject.verify(&subject.case.inputs());
        });
    }
}

#[test]
fn scores_far_apart_between_cells() {
    // Each cell of 32 keys lies 300 above or below the one before it: all weight is in one of them.
    for modify in ["s + 300 * (k // 32)", "s - 300 * (k // 32)", "s - 4000 * abs(k // 32 - 1)"] {
        let spec = spec(&format!("score = {{ modify = '{modify}' }}"));
        each(&spec, problem(&spec, 11, 128), |subject| {
            subject.verify(&subject.case.inputs());
        });
    }
}

#[test]
fn equal_scores_are_the_mean() {
    for constant in ["0", "-7", "1000", "-0.5"] {
        let spec = spec(&format!("score = {{ modify = 's * 0 + {constant}' }}"));
        each(&spec, problem(&spec, 9, 64), |subject| {
            let outputs = subject.verify(&subject.case.inputs());
            // 64 equal weights: each output row is the mean of the values, whichever the query.
            let rows: Vec<_> = (0..9).map(|query| outputs.o.view().row(0, 0, query)).collect();
            assert!(rows.iter().all(|row| bits(row) == bits(&rows[0])), "{}", subject.describe());
        });
    }
}

#[test]
fn scores_of_minus_infinity_weigh_nothing() {
    // By the modifier, for some keys, for all keys of some rows, and for the first cell.
    for modify in [
        "if k % 2 == 0 then s else -inf",
        "if q % 3 == 0 then -inf else s",
        "if k < 40 then -inf else s",
        "if k == 71 then s else -inf",
    ] {
        let spec = spec(&format!("mask = 'causal'\nscore = {{ modify = '{modify}' }}"));
        each(&spec, problem(&spec, 90, 90), |subject| {
            let outputs = subject.verify(&subject.case.inputs());
            if modify.starts_with("if q % 3") {
                subject.assert_row(&outputs, 0, 3, 0.0);
                subject.assert_lse(&outputs, 0, 3, f64::NEG_INFINITY);
            }
        });
    }
}

#[test]
fn empty_rows_beside_threads() {
    let spec = spec("mask = 'q > 50 & k <= q'");
    let pool = Pool::new(3).expect("three threads");
    for entry in engines::serving(Dtype::F32) {
        let kernel = run::compile(&spec, entry, Dtype::F32);
        let (variant, problem) = (kernel.variant(), problem(&spec, 600, 600));
        let case = Case { variant, problem, dtype: Dtype::F32, layout: Layout::Gapped, seed: 8 };
        let inputs = case.inputs();
        let result = run::run(&kernel, &case, &inputs, &pool);
        let judged = run::judge(&case, &inputs, result, kernel.plan());
        judged.unwrap_or_else(|error| panic!("{}: {error}", run::describe("late", entry, &case)));
    }
}

fn bits(row: &[f64]) -> Vec<u64> {
    row.iter().map(|x| x.to_bits()).collect()
}

fn assert_same_bits(found: &Outputs, expected: &Outputs, what: impl Fn() -> String) {
    let [_, heads, queries, _] = expected.o.shape();
    let lse = |outputs: &Outputs, head, query| {
        outputs.lse.as_ref().map(|lse| bits(&lse.view().row(0, head, query)))
    };
    for (head, query) in (0..heads).flat_map(|head| (0..queries).map(move |query| (head, query))) {
        let o = |outputs: &Outputs| bits(&outputs.o.view().row(0, head, query));
        assert_eq!(o(found), o(expected), "head {head}, query {query}: {}", what());
        assert_eq!(lse(found, head, query), lse(expected, head, query), "lse, {query}: {}", what());
    }
}
