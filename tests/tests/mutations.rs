//! Bugs put in on purpose: what judges the kernels must refuse each of them, on every engine, where it accepts the same
//! run without the bug.

use regard_oracle::Tensor4;
use regard_testkit::{Case, Failure, Input, Inputs};
use regard_tests::mutants::{Bug, Misled, Mutation, NOTHING, verdicts};
use regard_tests::run::Disagreement;

const SPEC: &str = "heads = { query = 6, kv = 2, dim = 21, value_dim = 13 }\nmask = 'causal & window(37)'\n\
                    score = { modify = 's + alibi(h) * (k - q)' }\noutput = { lse = true }";

fn assert_caught(text: &str, mutation: Mutation) {
    let verdicts = verdicts(text, &mutation);
    if verdicts.is_empty() {
        println!("skipped {:?}: no engine of this CPU can have it", mutation.bug);
    }
    for (what, verdict) in verdicts {
        let caught = matches!(verdict, Err(Disagreement::Outputs(Failure::Bound(_))));
        assert!(caught, "{:?} {:?} is not caught: {what}: {verdict:?}", mutation.bug, mutation.misled);
    }
}

fn bug(bug: Bug) -> Mutation {
    Mutation { bug, ..NOTHING }
}

#[test]
fn the_last_key_of_a_block_is_dropped() {
    assert_caught(SPEC, bug(Bug::LastValueMisread));
    assert_caught(SPEC, bug(Bug::LastKeyDropped));
}

#[test]
fn a_mask_is_steeper_than_it_is() {
    assert_caught(SPEC, bug(Bug::StairsTooSteep));
}

#[test]
fn a_rescale_is_missing() {
    // Scores that rise along the keys, so that references move in every block.
    let rising = "heads = { query = 6, kv = 2, dim = 21 }\nscore = { modify = 's + k * 0.2' }";
    assert_caught(rising, bug(Bug::RescaleIgnored));
    assert_caught(rising, bug(Bug::FactorOfAnotherRow));
}

#[test]
fn an_output_is_replaced_or_kept_by_mistake() {
    assert_caught(SPEC, bug(Bug::OutputReplaced));
    // The workspace is full of NaN, and of the cell before.
    assert_caught(SPEC, bug(Bug::OutputKept));
}

#[test]
fn a_panel_or_a_channel_is_wrong() {
    assert_caught(SPEC, bug(Bug::KeyOfAnotherPanel));
    assert_caught(SPEC, bug(Bug::LastChannelDropped));
}

#[test]
fn a_window_is_off_by_one() {
    for keys in [-1, 1] {
        assert_caught(SPEC, Mutation { misled: Misled { keys, ..Misled::default() }, ..NOTHING });
        let plain = "heads = { query = 2, dim = 16 }\nmask = 'causal & window(37)'";
        assert_caught(plain, Mutation { misled: Misled { keys, ..Misled::default() }, ..NOTHING });
        let causal = "heads = { query = 2, dim = 16 }\nmask = 'causal'";
        assert_caught(causal, Mutation { misled: Misled { keys, ..Misled::default() }, ..NOTHING });
    }
}

#[test]
fn a_head_of_the_modifier_is_wrong() {
    assert_caught(SPEC, Mutation { misled: Misled { heads: 1, ..Misled::default() }, ..NOTHING });
}

#[test]
fn a_kv_head_is_wrong() {
    assert_caught(SPEC, Mutation { inputs: |case, inputs| rotated(case, inputs, (1, 0), (0, 0)), ..NOTHING });
    assert_caught(SPEC, Mutation { inputs: |case, inputs| rotated(case, inputs, (0, 0), (1, 0)), ..NOTHING });
}

#[test]
fn a_key_or_value_of_another_position() {
    assert_caught(SPEC, Mutation { inputs: |case, inputs| rotated(case, inputs, (0, 1), (0, 0)), ..NOTHING });
    assert_caught(SPEC, Mutation { inputs: |case, inputs| rotated(case, inputs, (0, 0), (0, 1)), ..NOTHING });
}

/// A cell whose sums do not join those of the others: the first, one in the midst, the last.
#[test]
fn a_cell_is_not_merged() {
    // The modifier has the code called for every key.
    let spec = "heads = { query = 2, dim = 16 }\nscore = { modify = 's * 0.5' }";
    for lost in [0..64, 64..128, 128..192] {
        assert_caught(spec, Mutation { misled: Misled { lost, ..Misled::default() }, ..NOTHING });
    }
}

/// Keys and values of so many heads and tokens further on.
fn rotated(case: &Case<'_>, inputs: Inputs, keys: (usize, usize), values: (usize, usize)) -> Inputs {
    let rotate = |tensor: Tensor4<'_>, (by_head, by_token): (usize, usize)| {
        let [batch, heads, tokens, _] = tensor.shape();
        let rows = (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h)));
        let values = rows.flat_map(|(b, h)| {
            (0..tokens).flat_map(move |n| tensor.row(b, (h + by_head) % heads, (n + by_token) % tokens))
        });
        Input::new(case.dtype, tensor.shape(), case.layout, values.map(|x| x as f32))
    };
    let [q, k, v] = &inputs.operands[..] else { panic!("three operands") };
    let operands = vec![q.clone(), rotate(k.view(), keys), rotate(v.view(), values)];
    Inputs { operands, ..inputs }
}
