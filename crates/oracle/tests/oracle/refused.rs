//! Tensors that do not fit are refused with what was found and what was expected.

use half::bf16;
use regard_ir::identity::Identity;
use regard_ir::inputs::Captured;
use regard_ir::problem::Problem;
use regard_ir::rows::{Frequencies, Gate, Mix, Output, OutputNorm, Position, RopeLayout};
use regard_ir::variant::{Mechanism, Sink, Source, Variant, Weights};
use regard_oracle::{Elements, Mismatch, Oracle, Tensor4, Tensors};

use crate::case::{Case, ONE_HEAD, SOFTMAX};
use crate::trees::{all, plain};

/// Two queries over two keys of one head of one channel, with these k, v and gate.
fn refused(k: Tensor4<'_>, v: Tensor4<'_>, gate: Option<Tensor4<'_>>, has_gate: bool) -> String {
    let (modify, allow) = (plain(), all());
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
        output: Output {
            gate: has_gate.then_some(Gate { per_head: false, silu: false }),
            ..Output::default()
        },
        inputs: &[],
    };
    let problem = Problem::prefill(Source::SelfAttention, 1, 2, 2).unwrap();
    let q = [bf16::ZERO; 2];
    let q = Tensor4::dense(Elements::Bf16(&q), [1, 1, 2, 1]).unwrap();
    let tensors = Tensors { operands: &[q, k, v], captured: Captured::NONE, gate };
    Oracle::new(variant, problem, tensors).map(|_| ()).map_err(|error| error.to_string()).unwrap_err()
}

#[test]
fn shapes_and_types() {
    let (halves, floats) = ([bf16::ZERO; 4], [0.0; 4]);
    let half = |shape| Tensor4::dense(Elements::Bf16(&halves), shape).unwrap();
    let float = |shape| Tensor4::dense(Elements::F32(&floats), shape).unwrap();
    let good = half([1, 1, 2, 1]);
    assert_eq!(
        refused(half([1, 2, 2, 1]), good, None, false),
        "`k` has shape [1, 2, 2, 1], the variant and the problem make it [1, 1, 2, 1]"
    );
    assert_eq!(refused(good, float([1, 1, 2, 1]), None, false), "`v` is f32, expected bf16");
    assert_eq!(refused(good, good, Some(good), false), "`gate` is given, the variant has none");
    assert_eq!(refused(good, good, None, true), "`gate` is missing, the variant has one");
    assert_eq!(
        refused(good, good, Some(float([1, 1, 2, 2])), true),
        "`gate` has shape [1, 1, 2, 2], the variant and the problem make it [1, 1, 2, 1]"
    );
    let f16s = [half::f16::ZERO; 2];
    let f16s = Tensor4::dense(Elements::F16(&f16s), [1, 1, 2, 1]).unwrap();
    assert_eq!(refused(good, good, Some(f16s), true), "`gate` is f16, expected bf16");
}

#[test]
fn inputs_of_tables() {
    let scalar = || Case::scalar(all(), &[0.0], &[0.0], &[0.0]);
    let sink = Weights::Softmax { sink: Sink::Learned { input: 0 } };
    let case = Case { weights: sink, ..scalar() };
    assert_eq!(case.refused().to_string(), "`sink` is not among the captured inputs, expected 1 of f32");
    let case = case.input(&[0.0; 3]);
    assert_eq!(case.refused().to_string(), "`sink` is 3 elements of f32, expected 1 of f32");

    let output = Output { mix: Some(Mix { heads: 2, input: 0 }), ..Output::default() };
    let case = Case { output, ..scalar() }.ids(&[0]);
    assert_eq!(case.refused().to_string(), "`mix` is 1 elements of i32, expected 2 of f32");

    let output = Output { norm: Some(OutputNorm { eps: 0.0, learned: Some(0) }), ..Output::default() };
    let case = Case { output, ..scalar() }.input(&[]);
    assert_eq!(case.refused().to_string(), "`o_norm` is 0 elements of f32, expected 1 of f32");

    let position = Position {
        frequencies: Frequencies::Input(0),
        dim: 2,
        layout: RopeLayout::Half,
        offset: 0,
        ids: Some(0),
    };
    let case = Case { position: Some(position), ..scalar() }.input(&[1.0]);
    assert_eq!(case.refused().to_string(), "`ids` is 1 elements of f32, expected 1 of i32");
}

#[test]
fn captured_inputs_that_are_not_bound() {
    let mismatch = Mismatch::Captured { found: 1, expected: 2 };
    assert_eq!(mismatch.to_string(), "1 captured inputs are bound, the variant has 2");
}
