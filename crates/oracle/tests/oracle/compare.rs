//! The judge: what it passes, what it catches, and what it says.

use half::bf16;
use regard_ir::bounds;
use regard_ir::identity::Identity;
use regard_ir::inputs::Captured;
use regard_ir::plan::{Dtype, Precision};
use regard_ir::problem::Problem;
use regard_ir::variant::{Heads, Mechanism, Sink, Source, Variant, Weights};
use regard_oracle::compare::{CompareError, Outputs, Report, compare};
use regard_oracle::random::normal;
use regard_oracle::sample::Sample;
use regard_oracle::{Buffer, Elements, Mismatch, Oracle, Tensor4, Tensors};

use crate::trees::{causal, plain};

const HEADS: Heads = Heads { query: 2, kv: 1, value: 1, dim: 4, value_dim: 3 };
const QUERIES: usize = 130;

/// The oracle's own rows rounded to `dtype`, changed by `change`, and judged.
fn judged(
    dtype: Dtype,
    q_offset: i64,
    change: impl FnOnce(&mut [f32], &mut [f32]),
) -> Result<Report, CompareError> {
    let (modify, allow) = (plain(), causal());
    let variant = Variant {
        identity: Identity(0),
        heads: HEADS,
        source: Source::SelfAttention,
        scale: 0.5,
        modify: modify.tree(),
        allow: allow.tree(),
        weights: Weights::Softmax { sink: Sink::None },
        mechanism: Mechanism::Plain,
        position: None,
        qk_norm: None,
        output: regard_ir::rows::Output { lse: true, ..Default::default() },
        inputs: &[],
    };
    let problem = Problem::prefill(Source::SelfAttention, 1, QUERIES, QUERIES).unwrap();
    let problem = problem.with_q_offset(q_offset).unwrap();
    let buffer = |seed, n: u32| Buffer::rounded(dtype, normal(seed).take(n as usize * QUERIES));
    let (q, k, v) = (buffer(1, 2 * 4), buffer(2, 4), buffer(3, 3));
    let tensors = Tensors {
        operands: &[
            Tensor4::dense(q.elements(0), [1, 2, QUERIES, 4]).unwrap(),
            Tensor4::dense(k.elements(0), [1, 1, QUERIES, 4]).unwrap(),
            Tensor4::dense(v.elements(0), [1, 1, QUERIES, 3]).unwrap(),
        ],

        captured: Captured::NONE,
        gate: None,
    };
    let oracle = Oracle::new(variant, problem, tensors).unwrap();
    let (mut o, mut lse) = (Vec::new(), Vec::new());
    for part in [0, 1].map(|head| oracle.part(head)) {
        for i in 0..QUERIES {
            let row = part.row(i).unwrap();
            o.extend(row.o[0].iter().map(|&x| x as f32));
            lse.push(row.lse.unwrap()[0] as f32);
        }
    }
    change(&mut o, &mut lse);
    let o = Buffer::rounded(dtype, o);
    let outputs = Outputs {
        o: Tensor4::dense(o.elements(0), [1, 2, QUERIES, 3]).unwrap(),
        lse: Some(Tensor4::dense(Elements::F32(&lse), [1, 2, QUERIES, 1]).unwrap()),
        u: None,
        state: None,
    };
    compare(&oracle, &outputs, &Sample::new(&problem, &HEADS, 64, 0))
}

#[test]
fn rounding_to_storage_passes() {
    for dtype in Dtype::ALL {
        let report = judged(dtype, 0, |_, _| {}).unwrap();
        assert!(report.passed(), "{report}");
        assert_eq!((report.rows_checked, report.rows), (260, 260));
        assert!(report.output.error > 0.0);
    }
}

#[test]
fn one_element_past_the_bound_is_caught_where_it_is() {
    let past = 100.0 * bounds::bound(bounds::Quantity::Output, Dtype::F32, Precision::Exact, 0.0) as f32;
    let report = judged(Dtype::F32, 0, |o, _| o[(QUERIES + 129) * 3 + 1] += past).unwrap();
    assert!(!report.passed());
    assert_eq!((report.output.run.h, report.output.run.rows.clone()), (1, 128..130));
    assert!(report.lse.as_ref().unwrap().passed());
    assert!(report.to_string().contains("(b 0, h 1, rows 128..130)"), "{report}");

    let report = judged(Dtype::F32, 0, |_, lse| lse[70] += 100.0 * past).unwrap();
    assert!(report.output.passed() && !report.passed());
    assert_eq!(report.lse.unwrap().run.rows, 64..128);
}

#[test]
fn a_result_must_be_finite_where_the_oracle_is_and_only_there() {
    let report = judged(Dtype::F32, 0, |o, _| o[7] = f32::NAN).unwrap();
    assert!(!report.passed());
    assert_eq!(report.output.broken.unwrap().at, [0, 0, 2, 1]);
    assert!(report.to_string().contains("NaN at [0, 0, 2, 1] where the oracle has "), "{report}");
}

#[test]
fn rows_without_a_key_must_be_zero_with_an_empty_sum() {
    assert!(judged(Dtype::Bf16, -70, |_, _| {}).unwrap().passed());
    let report = judged(Dtype::F32, -70, |o, _| o[0] = f32::MIN_POSITIVE).unwrap();
    assert_eq!(report.output.error, f64::INFINITY);
    assert!(!report.passed());
    for wrong in [0.0, f32::NAN, f32::INFINITY] {
        let report = judged(Dtype::F32, -70, |_, lse| lse[69] = wrong).unwrap();
        assert_eq!(report.lse.unwrap().broken.unwrap().at, [0, 0, 69, 0]);
    }
}

#[test]
fn outputs_of_another_shape_or_type_are_refused() {
    let (modify, allow) = (plain(), causal());
    let variant = Variant {
        identity: Identity(0),
        heads: Heads { query: 1, kv: 1, value: 1, dim: 1, value_dim: 1 },
        source: Source::SelfAttention,
        scale: 1.0,
        modify: modify.tree(),
        allow: allow.tree(),
        weights: Weights::Sigmoid,
        mechanism: Mechanism::Plain,
        position: None,
        qk_norm: None,
        output: regard_ir::rows::Output::default(),
        inputs: &[],
    };
    let problem = Problem::prefill(Source::SelfAttention, 1, 2, 2).unwrap();
    let (data, halves) = ([1.0, 1.0], [bf16::ONE; 2]);
    let f32s = Tensor4::dense(Elements::F32(&data), [1, 1, 2, 1]).unwrap();
    let tensors = Tensors { operands: &[f32s, f32s, f32s], captured: Captured::NONE, gate: None };
    let oracle = Oracle::new(variant, problem, tensors).unwrap();
    let sample = Sample::new(&problem, &variant.heads, 64, 0);
    let bf16s = Tensor4::dense(Elements::Bf16(&halves), [1, 1, 2, 1]).unwrap();
    let refused = compare(&oracle, &Outputs { o: bf16s, lse: None, u: None, state: None }, &sample);
    assert_eq!(refused.unwrap_err().to_string(), "`o` is bf16, expected f32");
    let refused = compare(&oracle, &Outputs { o: f32s, lse: Some(bf16s), u: None, state: None }, &sample);
    assert!(matches!(refused, Err(CompareError::Output(Mismatch::Dtype { name: "lse", .. }))));
    // Sigmoid weights have no lse, so that there is nothing to judge one by.
    let report =
        compare(&oracle, &Outputs { o: f32s, lse: Some(f32s), u: None, state: None }, &sample).unwrap();
    assert_eq!(report.lse, None);
}
