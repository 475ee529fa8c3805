//! The definition of the softmax family on numbers that can be checked by hand.

use crate::trees::{Build, all, causal, plain};
use half::bf16;
use regard_ir::expr::{Binary, Expr, Type, Var};
use regard_ir::identity::Identity;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::problem::Problem;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Sink, Source, Variant, Weights};
use regard_oracle::{Elements, Mismatch, Oracle, Row, Tensor4, Tensors};

const ONE_HEAD: Heads = Heads { query: 1, kv: 1, value: 1, dim: 1, value_dim: 1 };
const SOFTMAX: Weights = Weights::Softmax { sink: Sink::None };

struct Case {
    heads: Heads,
    modify: Expr,
    allow: Expr,
    weights: Weights,
    sink: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    /// One head of width one; the score of key j is `q[i] * k[j]`.
    fn scalar(allow: Expr, q: &[f32], k: &[f32], v: &[f32]) -> Self {
        let (q, k, v) = (q.to_vec(), k.to_vec(), v.to_vec());
        Case { heads: ONE_HEAD, modify: plain(), allow, weights: SOFTMAX, sink: Vec::new(), q, k, v }
    }

    fn row(&self, h: usize, i: usize) -> Row {
        self.row_at(h, i, None)
    }

    fn row_at(&self, h: usize, i: usize, q_offset: Option<i64>) -> Row {
        let heads = &self.heads;
        let rows = |data: &[f32], n: u32, d: u32| data.len() / (n * d) as usize;
        let (nq, nk) = (rows(&self.q, heads.query, heads.dim), rows(&self.k, heads.kv, heads.dim));
        let mut problem = Problem::prefill(Source::SelfAttention, 1, nq, nk).unwrap();
        if let Some(q_offset) = q_offset {
            problem = problem.with_q_offset(q_offset).unwrap();
        }
        let tensor = |data, n: u32, len, d: u32| {
            Tensor4::dense(Elements::F32(data), [1, n as usize, len, d as usize]).unwrap()
        };
        let tensors = Tensors {
            q: tensor(&self.q, heads.query, nq, heads.dim),
            k: tensor(&self.k, heads.kv, nk, heads.dim),
            v: tensor(&self.v, heads.value, nk, heads.value_dim),
            captured: Captured::NONE,
            sink: &self.sink,
        };
        Oracle::new(variant(self.heads, &self.modify, &self.allow, self.weights, &[]), problem, tensors)
            .unwrap()
            .row(0, h, i)
            .unwrap()
    }
}

fn variant<'a>(
    heads: Heads,
    modify: &'a Expr,
    allow: &'a Expr,
    weights: Weights,
    inputs: &'a [InputShape],
) -> Variant<'a> {
    Variant {
        identity: Identity(0),
        heads,
        source: Source::SelfAttention,
        scale: 1.0,
        modify: modify.tree(),
        allow: allow.tree(),
        weights,
        position: None,
        qk_norm: None,
        output: regard_ir::rows::Output { lse: true, ..Default::default() },
        inputs,
    }
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-15 * expected.abs().max(1.0), "{found} is not {expected}");
}

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
    close(case.row_at(0, 0, Some(0)).o[0], 1.0);
    close(case.row_at(0, 1, Some(0)).o[0], 1.5);
    let before_all = case.row_at(0, 0, Some(-1));
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
        Case { weights, sink: logits.to_vec(), ..Case::scalar(all(), &[1.0], k, v) }.row(0, 0)
    };
    let row = sunk(Sink::One, &[], &[0.0], &[6.0]);
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
    let mut axes = [Axis::Len(1); regard_ir::expr::MAX_AXES];
    axes[0] = Axis::Key;
    let shapes = [InputShape { dtype: InputType::I32, rank: 1, axes }];
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
    let tensors = Tensors { q: tensor, k: tensor, v: tensor, captured, sink: &[] };
    let variant = variant(ONE_HEAD, &modify, &allow, SOFTMAX, &shapes);
    let oracle = Oracle::new(variant, problem, tensors).unwrap();
    assert_eq!(oracle.row(0, 0, 2).unwrap().o, [4.0]);
    let w = 1f64.exp();
    close(oracle.row(0, 0, 0).unwrap().o[0], (1.0 + 2.0 * w) / (1.0 + w));

    let shifted = Oracle::new(variant, problem.with_q_offset(1).unwrap(), tensors).unwrap();
    let error = shifted.row(0, 0, 2).unwrap_err();
    assert_eq!((error.index, error.len, error.scope.q), (3, 3, 3));
    let text = "captured input 0 is read at 3 of axis 0, which has length 3, for b = 0, h = 0, q = 3, k = 0";
    assert_eq!(error.to_string(), text);
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let (modify, allow) = (plain(), all());
    let data = [0.0; 4];
    let halves = [bf16::ZERO; 4];
    let tensor = |shape| Tensor4::dense(Elements::F32(&data), shape).unwrap();
    let good = tensor([1, 1, 2, 1]);
    let problem = Problem::prefill(Source::SelfAttention, 1, 2, 2).unwrap();
    let variant = |weights| variant(ONE_HEAD, &modify, &allow, weights, &[]);
    let refused = |weights, k, v| {
        let tensors = Tensors { q: good, k, v, captured: Captured::NONE, sink: &[] };
        Oracle::new(variant(weights), problem, tensors).unwrap_err()
    };
    let mismatch = refused(SOFTMAX, tensor([1, 2, 2, 1]), good);
    assert_eq!(
        mismatch.to_string(),
        "`k` has shape [1, 2, 2, 1], the variant and the problem make it [1, 1, 2, 1]"
    );
    let bf16 = Tensor4::dense(Elements::Bf16(&halves), [1, 1, 2, 1]).unwrap();
    assert_eq!(refused(SOFTMAX, good, bf16).to_string(), "`v` is bf16, expected f32");
    let learned = Weights::Softmax { sink: Sink::Learned { input: 0 } };
    assert_eq!(refused(learned, good, good), Mismatch::Sink { found: 0, expected: 1 });
}
