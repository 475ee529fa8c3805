//! The definition of the softmax family on numbers that can be checked by hand.

use crate::case::{Case, ONE_HEAD, SOFTMAX, close};
use crate::trees::{Build, all, causal, plain};
use half::bf16;
use regard_ir::expr::{Binary, Type, Var};
use regard_ir::identity::Identity;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::problem::Problem;
use regard_ir::rows::Output;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Mechanism, Sink, Source, Variant, Weights};
use regard_oracle::{Elements, Oracle, Tensor4, Tensors};

#[test]
fn two_keys_by_hand() {
    // Scores 0 and ln 3: weights 1/4 and 3/4.
    let ln3 = 3f64.ln();
    let row = Case::scalar(all(), &[1.0, 1.0], &[0.0, 0.0], &[8.0, 4.0]).row(0, 0);
    close(row.o[0], 6.0);
    close(row.lse.unwrap(), 2f64.ln());
    let row = Case::scalar(all(), &[ln3 as f32], &[0.0, 1.0], &[8.0, 4.0]).row(0, 0);
    let w = f64::from(ln3 as f32).exp();
    close(row.o[0], (8.0 + w * 4.0) / (1.0 + w));
    close(row.lse.unwrap(), (1.0 + w).ln());
    close(row.max_score, f64::from(ln3 as f32));
}

#[test]
fn queries_are_the_last_positions_unless_said_otherwise() {
    let case = Case::scalar(causal(), &[0.0, 0.0], &[0.0; 4], &[1.0, 2.0, 4.0, 8.0]);
    close(case.row(0, 0).o[0], 7.0 / 3.0);
    close(case.row(0, 1).o[0], 15.0 / 4.0);
    let from = |q_offset| Case { q_offset: Some(q_offset), ..case.clone() };
    close(from(0).row(0, 0).o[0], 1.0);
    close(from(0).row(0, 1).o[0], 1.5);
    let before_all = from(-1).row(0, 0);
    assert_eq!(
        (before_all.o, before_all.lse, before_all.max_score),
        (vec![0.0], Some(f64::NEG_INFINITY), 0.0)
    );
}

#[test]
fn query_heads_share_keys_and_keys_share_values() {
    let heads = Heads { query: 4, kv: 2, value: 1, dim: 1, value_dim: 2 };
    let case = Case {
        heads,
        q: vec![1.0, 2.0, 3.0, 4.0],
        // Key head 0 prefers the first key beyond doubt, key head 1 the second.
        k: vec![1000.0, 0.0, 0.0, 1000.0],
        v: vec![1.0, 2.0, 3.0, 4.0],
        ..Case::scalar(all(), &[], &[], &[])
    };
    for (h, o) in [[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [3.0, 4.0]].into_iter().enumerate() {
        let row = case.row(h, 0);
        assert_eq!(row.o, o);
        assert_eq!(row.lse, Some(1000.0 * (h + 1) as f64));
    }
}

#[test]
fn a_masked_key_has_no_effect_whatever_it_holds() {
    let nan = f32::NAN;
    let masked = Case::scalar(causal(), &[1.0, 1.0], &[2.0, nan], &[3.0, f32::INFINITY]);
    let row = masked.row(0, 0);
    assert_eq!((row.o[0], row.lse, row.max_score), (3.0, Some(2.0), 2.0));
    let row = masked.row(0, 1);
    assert!(row.o[0].is_nan() && row.lse.unwrap().is_nan());
}

#[test]
fn an_allowed_value_propagates_though_its_weight_underflows() {
    let row = Case::scalar(all(), &[1.0], &[0.0, 2000.0], &[f32::NAN, 1.0]).row(0, 0);
    assert!(row.o[0].is_nan());
    assert_eq!(row.lse, Some(2000.0));
}

#[test]
fn scores_of_minus_infinity_alone_give_zero() {
    let row = Case::scalar(all(), &[1.0], &[f32::NEG_INFINITY; 2], &[f32::NAN, 1.0]).row(0, 0);
    assert_eq!((row.o[0], row.lse, row.max_score), (0.0, Some(f64::NEG_INFINITY), 0.0));
    let row = Case::scalar(all(), &[1.0], &[f32::INFINITY, 0.0], &[1.0, 1.0]).row(0, 0);
    assert!(row.o[0].is_nan());
    let row = Case::scalar(all(), &[1.0], &[f32::NEG_INFINITY, f32::NAN], &[1.0, 1.0]).row(0, 0);
    assert!(row.o[0].is_nan() && row.lse.unwrap().is_nan());
}

#[test]
fn no_keys_is_legal() {
    let row = Case::scalar(all(), &[1.0], &[], &[]).row(0, 0);
    assert_eq!((row.o, row.lse), (vec![0.0], Some(f64::NEG_INFINITY)));
}

#[test]
fn sinks_join_the_sum_without_a_value() {
    let sunk = |sink, logits: &[f32], k: &[f32], v: &[f32]| {
        let weights = Weights::Softmax { sink };
        Case { weights, ..Case::scalar(all(), &[1.0], k, v) }.input(logits).row(0, 0)
    };
    let row = sunk(Sink::One, &[9.0], &[0.0], &[6.0]);
    close(row.o[0], 3.0);
    close(row.lse.unwrap(), 2f64.ln());
    let row = sunk(Sink::Learned { input: 0 }, &[1.5], &[1.5, 1.5], &[6.0, 3.0]);
    close(row.o[0], 3.0);
    close(row.lse.unwrap(), 1.5 + 3f64.ln());
    for k in [&[][..], &[f32::NEG_INFINITY]] {
        let row = sunk(Sink::Learned { input: 0 }, &[-0.5], k, &[6.0][..k.len()]);
        assert_eq!((row.o[0], row.lse), (0.0, Some(-0.5)));
    }
}

#[test]
fn sigmoid_and_relu_weights_are_not_divided() {
    let with = |weights| {
        Case { weights, ..Case::scalar(all(), &[1.0], &[0.0, -2.0, 3.0], &[2.0, 4.0, 8.0]) }.row(0, 0)
    };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let row = with(Weights::Sigmoid);
    close(row.o[0], 1.0 + 4.0 * sigmoid(-2.0) + 8.0 * sigmoid(3.0));
    assert_eq!(row.lse, None);
    close(with(Weights::Relu).o[0], 24.0);
}

#[test]
fn a_modified_score_widens_max_score_either_way() {
    // s + k - 10
    let mut e = Build::default();
    let (s, k, ten) = (e.var(Var::S), e.var(Var::K), e.int(10));
    let shift = e.binary(Binary::Sub, k, ten);
    let shift = e.unary(regard_ir::expr::Unary::ToFloat, shift, Type::Float, false);
    e.binary(Binary::Add, s, shift);
    let case = Case { modify: e.expr(), ..Case::scalar(all(), &[1.0], &[3.0, 2.0], &[1.0, 1.0]) };
    // Scores 3 and 2 become -7 and -7.
    let row = case.row(0, 0);
    close(row.lse.unwrap(), -7.0 + 2f64.ln());
    close(row.max_score, 7.0);
}

#[test]
fn captured_inputs_reach_mask_and_errors_name_the_pair() {
    let shapes = [InputShape::new(InputType::I32, &[Axis::Key])];
    let docs = [InputData::I32(&[7, 7, 9])];
    let problem = Problem::prefill(Source::SelfAttention, 1, 3, 3).unwrap();
    // `doc[q] == doc[k]`
    let mut e = Build::default();
    let (q, k) = (e.var(Var::Q), e.var(Var::K));
    let (doc_q, doc_k) = (e.input(0, Type::Int, &[q]), e.input(0, Type::Int, &[k]));
    e.binary(Binary::Eq, doc_q, doc_k);
    let (modify, allow) = (plain(), e.expr());

    let halves = [1.0, 2.0, 4.0].map(bf16::from_f32);
    let tensor = Tensor4::dense(Elements::Bf16(&halves), [1, 1, 3, 1]).unwrap();
    let captured = Captured::bind(&shapes, &docs, &ONE_HEAD, Source::SelfAttention, &problem).unwrap();
    let tensors = Tensors { operands: &[tensor, tensor, tensor], captured, gate: None };
    let variant = Variant {
        identity: Identity(0),
        heads: ONE_HEAD,
        source: Source::SelfAttention,
        position: None,
        qk_norm: None,
        scale: 1.0,
        modify: modify.tree(),
        allow: allow.tree(),
        weights: SOFTMAX,
        mechanism: Mechanism::Plain,
        output: Output::default(),
        inputs: &shapes,
    };
    let oracle = Oracle::new(variant, problem, tensors).unwrap();
    assert_eq!(oracle.part(0).row(2).unwrap().o, [[4.0]]);
    let w = 1f64.exp();
    close(oracle.part(0).row(0).unwrap().o[0][0], (1.0 + 2.0 * w) / (1.0 + w));

    let shifted = Oracle::new(variant, problem.with_q_offset(1).unwrap(), tensors).unwrap();
    let error = shifted.part(0).row(2).unwrap_err();
    assert_eq!((error.index, error.len, error.scope.q), (3, 3, 3));
    let text = "captured input 0 is read at 3 of axis 0, which has length 3, for b = 0, h = 0, q = 3, k = 0";
    assert_eq!(error.to_string(), text);
}
