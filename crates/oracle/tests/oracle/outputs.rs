//! Sinks, other weights, and what happens to outputs.

use regard_ir::expr::{Binary, Expr, Op, Type, Var};
use regard_ir::rows::{Gate, Mix, Output, OutputNorm};
use regard_ir::variant::{Heads, Sink, Weights};
use regard_oracle::random::normal;

use crate::case::{Case, all_close, close};
use crate::trees::{Build, all, causal};

const HEADS: Heads = Heads { query: 2, kv: 1, value: 1, dim: 3, value_dim: 2 };

/// Two heads on four keys, causal.
fn random() -> Case {
    let draw = |seed, len| normal(seed).take(len).collect::<Vec<_>>();
    Case::new(HEADS, causal(), &draw(1, 24), &draw(2, 12), &draw(3, 8))
}

fn plain(case: &Case) -> Output {
    case.output
}

#[test]
fn a_sink_of_one_is_a_key_of_score_zero_without_value() {
    let case = Case { allow: all(), ..random() };
    let sunk = Case { weights: Weights::Softmax { sink: Sink::One }, ..case.clone() };
    let mut with_key = case.clone();
    with_key.k.extend([0.0; 3]);
    with_key.v.extend([0.0; 2]);
    for (h, i) in [(0, 0), (1, 3)] {
        all_close(&sunk.row(h, i).o, &with_key.row(h, i).o);
        close(sunk.row(h, i).lse.unwrap(), with_key.row(h, i).lse.unwrap());
    }
}

#[test]
fn a_sink_of_minus_infinity_is_none_and_each_head_has_its_own() {
    let case = random();
    let learned = Weights::Softmax { sink: Sink::Learned { input: 0 } };
    let sunk = Case { weights: learned, ..case.clone() }.input(&[f32::NEG_INFINITY, 0.0]);
    assert_eq!(sunk.row(0, 2), case.row(0, 2));
    let one = Case { weights: Weights::Softmax { sink: Sink::One }, ..case };
    assert_eq!(sunk.row(1, 2), one.row(1, 2));
}

#[test]
fn a_sigmoid_of_minus_infinity_is_zero_and_a_bias_shifts_scores() {
    let biased = |bias: f64| {
        let mut e = Build::default();
        let (s, bias) = (e.var(Var::S), e.float(bias, false));
        e.binary(Binary::Add, s, bias);
        e.expr()
    };
    let case = |weights, bias| Case {
        weights,
        modify: biased(bias),
        ..Case::scalar(all(), &[1.0], &[0.0, 2.0], &[3.0, 5.0])
    };
    assert_eq!(case(Weights::Sigmoid, f64::NEG_INFINITY).row(0, 0).o, [0.0]);
    close(case(Weights::Sigmoid, -2.0).row(0, 0).o[0], 3.0 / (1.0 + 2f64.exp()) + 5.0 / 2.0);
    let relu = case(Weights::Relu, -0.5).row(0, 0);
    assert_eq!((relu.o[0], relu.lse), (7.5, None));
    assert_eq!(case(Weights::Relu, f64::NEG_INFINITY).row(0, 0).o, [0.0]);
}

/// Two heads of one key each way: head 0 gives (3, 4), head 1 gives (5, 12), without any weighing.
fn known() -> Case {
    let heads = Heads { query: 2, kv: 2, value: 2, dim: 1, value_dim: 2 };
    Case::new(heads, all(), &[0.0, 0.0], &[0.0, 0.0], &[3.0, 4.0, 5.0, 12.0])
}

#[test]
fn a_mix_sums_heads() {
    let mix = |heads, factors: &[f32]| {
        let output = Output { mix: Some(Mix { heads, input: 0 }), ..plain(&known()) };
        let row = Case { output, ..known() }.input(factors).part_row(0, 0).unwrap();
        assert_eq!(row.lse, Some(vec![0.0, 0.0]));
        row.o
    };
    assert_eq!(mix(2, &[1.0, 0.0, 0.0, 1.0]), [[3.0, 4.0], [5.0, 12.0]]);
    assert_eq!(mix(3, &[1.0, 1.0, 2.0, -1.0, 0.0, 0.5]), [[8.0, 16.0], [1.0, -4.0], [2.5, 6.0]]);
    assert_eq!(mix(1, &[0.0, 2.0]), [[10.0, 24.0]]);
}

#[test]
fn a_mix_by_the_identity_changes_nothing() {
    let case = random();
    let output = Output { mix: Some(Mix { heads: 2, input: 0 }), ..plain(&case) };
    let mixed = Case { output, ..case.clone() }.input(&[1.0, 0.0, 0.0, 1.0]);
    for i in 0..4 {
        let row = mixed.part_row(0, i).unwrap();
        for h in 0..2 {
            let alone = case.row(h, i);
            assert_eq!((&row.o[h], row.max_scores[h]), (&alone.o, alone.max_score));
            assert_eq!(Some(row.lse.as_ref().unwrap()[h]), alone.lse);
        }
    }
}

/// The difference of two maps over shared values, of which the second counts for nothing, is the first.
#[test]
fn a_differential_head_with_lambda_zero_is_its_first_map() {
    let draw = |seed, len| normal(seed).take(len).collect::<Vec<_>>();
    let heads = Heads { query: 2, kv: 2, value: 1, dim: 3, value_dim: 4 };
    let ([q, k], v) = ([1, 2].map(|seed| draw(seed, 24)), draw(3, 16));
    let norm = Some(OutputNorm { eps: 1e-5, learned: None });
    let of_two = Case::new(heads, causal(), &q, &k, &v);
    let output = Output { mix: Some(Mix { heads: 1, input: 0 }), norm, ..plain(&of_two) };
    let of_one = Case::new(Heads { query: 1, kv: 1, ..heads }, causal(), &q[..12], &k[..12], &v);
    let first = Case { output: Output { norm, ..plain(&of_one) }, ..of_one };
    let difference = |lambda: f32| Case { output, ..of_two.clone() }.input(&[1.0, -lambda]);
    for i in 0..4 {
        all_close(&difference(0.0).part_row(0, i).unwrap().o[0], &first.row(0, i).o);
    }
    // And with another lambda it is not.
    let [row, first] = [difference(0.5).part_row(0, 3).unwrap().o[0].clone(), first.row(0, 3).o];
    assert!(row.iter().zip(&first).any(|(a, b)| (a - b).abs() > 1e-3), "{row:?} and {first:?}");
}

#[test]
fn a_norm_is_over_the_channels_of_a_head() {
    let norm = |eps, learned| {
        let output = Output { norm: Some(OutputNorm { eps, learned }), ..plain(&known()) };
        Case { output, ..known() }.input(&[1.0, 10.0])
    };
    // Means of squares 12.5 and 84.5.
    all_close(&norm(0.0, None).row(0, 0).o, &[3.0 / 12.5f64.sqrt(), 4.0 / 12.5f64.sqrt()]);
    all_close(&norm(0.5, Some(0)).row(0, 0).o, &[3.0 / 13f64.sqrt(), 40.0 / 13f64.sqrt()]);
    all_close(&norm(0.0, Some(0)).row(1, 0).o, &[5.0 / 84.5f64.sqrt(), 120.0 / 84.5f64.sqrt()]);
}

#[test]
fn gates_by_hand() {
    let gated = |per_head, silu, gate: &[f32]| {
        let output = Output { gate: Some(Gate { per_head, silu }), ..plain(&known()) };
        let case = Case { output, gate: Some(gate.to_vec()), ..known() };
        [case.row(0, 0).o, case.row(1, 0).o].concat()
    };
    let ln3 = 3f64.ln() as f32;
    let sigmoid = |x: f32| 1.0 / (1.0 + (-f64::from(x)).exp());
    let silu = |x: f32| f64::from(x) * sigmoid(x);
    all_close(
        &gated(false, false, &[0.0, ln3, -ln3, 0.0]),
        &[1.5, 4.0 * sigmoid(ln3), 5.0 * sigmoid(-ln3), 6.0],
    );
    all_close(
        &gated(false, true, &[0.0, 2.0, -2.0, 1.0]),
        &[0.0, 4.0 * silu(2.0), 5.0 * silu(-2.0), 12.0 * silu(1.0)],
    );
    all_close(&gated(true, false, &[0.0, ln3]), &[1.5, 2.0, 5.0 * sigmoid(ln3), 12.0 * sigmoid(ln3)]);
    assert_eq!(gated(true, false, &[1.0, -2.0]), gated(false, false, &[1.0, 1.0, -2.0, -2.0]));
}

#[test]
fn mix_norm_and_gate_come_in_this_order() {
    let output = Output {
        mix: Some(Mix { heads: 1, input: 0 }),
        norm: Some(OutputNorm { eps: 0.0, learned: Some(1) }),
        gate: Some(Gate { per_head: true, silu: true }),
        lse: true,
    };
    let case = Case { output, gate: Some(vec![2.0]), ..known() }.input(&[1.0, 1.0]).input(&[1.0, 3.0]);
    // (8, 16), mean of squares 160.
    let silu = 2.0 / (1.0 + (-2f64).exp());
    let o = case.part_row(0, 0).unwrap().o;
    all_close(&o[0], &[8.0 / 160f64.sqrt() * silu, 48.0 / 160f64.sqrt() * silu]);
}

#[test]
fn a_row_without_keys_goes_through_mix_norm_and_gate_as_zero() {
    let output = Output {
        mix: Some(Mix { heads: 2, input: 0 }),
        norm: Some(OutputNorm { eps: 1e-6, learned: None }),
        gate: Some(Gate { per_head: false, silu: false }),
        lse: true,
    };
    let never = Expr::leaf(Op::Bool(false), Type::Bool);
    let case = Case { output, allow: never, gate: Some(vec![5.0; 4]), ..known() };
    let row = case.input(&[1.0; 4]).part_row(0, 0).unwrap();
    assert_eq!((row.o, row.lse), (vec![vec![0.0; 2]; 2], Some(vec![f64::NEG_INFINITY; 2])));
}
