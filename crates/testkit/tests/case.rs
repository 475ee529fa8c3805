//! A case accepts what the oracle says, and nothing else.

use regard_ir::expr::{Binary, Expr, MAX_AXES, Node, Op, Type, Var};
use regard_ir::identity::Identity;
use regard_ir::inputs::Captured;
use regard_ir::plan::{Dtype, Precision};
use regard_ir::problem::Problem;
use regard_ir::rows::{
    Frequencies, Gate, Mix, NormKind, OutputNorm, Position, QkNorm, RopeLayout, RopeScaling,
};
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Mechanism, Sink, Source, Variant, Weights};
use regard_oracle::sample::Sample;
use regard_oracle::{Known, Oracle, Tensors};
use regard_testkit::{Case, ElementsMut, Failure, Input, Inputs, Layout, Output, Outputs, PoisonError};

const HEADS: Heads = Heads { query: 4, kv: 2, value: 1, dim: 5, value_dim: 3 };

/// `doc[b, q] == doc[b, k]`
fn same_document() -> Expr {
    let node = |op, ty| Node { op, ty, exact: true };
    let read = |position| {
        let mut index = [0; MAX_AXES];
        index[1] = position;
        Op::Input { input: 0, rank: 2, index }
    };
    Expr::new(vec![
        node(Op::Var(Var::B), Type::Int),
        node(Op::Var(Var::Q), Type::Int),
        node(Op::Var(Var::K), Type::Int),
        node(read(1), Type::Int),
        node(read(2), Type::Int),
        node(Op::Binary(Binary::Eq, 3, 4), Type::Bool),
    ])
}

/// Writes what the oracle says, rounded to storage.
fn write(case: &Case<'_>, inputs: &Inputs, outputs: &mut Outputs) {
    let data = inputs.captured();
    let Case { variant, problem, .. } = *case;
    let captured = Captured::bind(variant.inputs, &data, &variant.heads, variant.source, &problem).unwrap();
    let gate = inputs.gate.as_ref().map(Input::view);
    let operands = inputs.views();
    let oracle = Oracle::new(variant, problem, Tensors { operands: &operands, captured, gate }).unwrap();
    for part in (0..oracle.parts()).map(|part| oracle.part(part)) {
        let b = part.sequence();
        for i in 0..problem.queries as usize {
            let row = part.row(i).unwrap();
            for (h, o) in part.output_heads().zip(row.o) {
                for (channel, value) in o.into_iter().enumerate() {
                    put(&mut outputs.o, [b, h, i, channel], value);
                }
            }
            for (h, lse) in part.query_heads().zip(row.lse.unwrap()) {
                put(outputs.lse.as_mut().unwrap(), [b, h, i, 0], lse);
            }
        }
    }
}

fn put(output: &mut Output, at: [usize; 4], value: f64) {
    let offset = at.iter().zip(output.strides()).map(|(i, stride)| i * stride).sum::<usize>();
    match output.elements_mut() {
        ElementsMut::F32(data) => data[offset] = value as f32,
        ElementsMut::F16(data) => data[offset] = half::f16::from_f64(value),
        ElementsMut::Bf16(data) => data[offset] = half::bf16::from_f64(value),
    }
}

fn with_case(dtype: Dtype, layout: Layout, check: impl FnOnce(&Case<'_>, &Inputs, &Sample, Outputs)) {
    let shapes = [InputShape::new(InputType::I32, &[Axis::Batch, Axis::Key])];
    let allow = same_document();
    let modify = Expr::leaf(Op::Var(Var::S), Type::Float);
    with_variant(&Variant { inputs: &shapes, ..variant(&modify, &allow) }, dtype, layout, check);
}

/// Every table of the softmax family at once.
fn with_tables(dtype: Dtype, layout: Layout, check: impl FnOnce(&Case<'_>, &Inputs, &Sample, Outputs)) {
    let float = |axes: &[Axis]| InputShape::new(InputType::F32, axes);
    let shapes = [
        InputShape::new(InputType::I32, &[Axis::Batch, Axis::Key]),
        float(&[Axis::Len(5)]),
        float(&[Axis::Len(5)]),
        float(&[Axis::Head]),
        float(&[Axis::Len(3), Axis::Head]),
        float(&[Axis::Len(3)]),
    ];
    let frequencies = Frequencies::Theta { theta: 10_000.0, scaling: RopeScaling::None };
    let position = Position { frequencies, dim: 4, layout: RopeLayout::Interleaved, offset: 1, ids: Some(0) };
    let qk_norm =
        QkNorm { kind: NormKind::Rms, eps: 1e-6, learned: Some([1, 2]), all_heads: false, after_rope: false };
    let output = regard_ir::rows::Output {
        mix: Some(Mix { heads: 3, input: 4 }),
        norm: Some(OutputNorm { eps: 1e-6, learned: Some(5) }),
        gate: Some(Gate { per_head: false, silu: false }),
        lse: true,
    };
    let (modify, allow) = (Expr::leaf(Op::Var(Var::S), Type::Float), same_document());
    let variant = Variant {
        position: Some(position),
        qk_norm: Some(qk_norm),
        weights: Weights::Softmax { sink: Sink::Learned { input: 3 } },
        mechanism: Mechanism::Plain,
        output,
        inputs: &shapes,
        ..variant(&modify, &allow)
    };
    with_variant(&variant, dtype, layout, check);
}

fn variant<'a>(modify: &'a Expr, allow: &'a Expr) -> Variant<'a> {
    Variant {
        identity: Identity(0),
        heads: HEADS,
        source: Source::SelfAttention,
        scale: 1.0 / 5f64.sqrt(),
        modify: modify.tree(),
        allow: allow.tree(),
        weights: Weights::Softmax { sink: Sink::None },
        mechanism: Mechanism::Plain,
        position: None,
        qk_norm: None,
        output: regard_ir::rows::Output { lse: true, ..Default::default() },
        inputs: &[],
    }
}

fn with_variant(
    variant: &Variant<'_>,
    dtype: Dtype,
    layout: Layout,
    check: impl FnOnce(&Case<'_>, &Inputs, &Sample, Outputs),
) {
    let problem = Problem::prefill(Source::SelfAttention, 2, 20, 33).unwrap();
    let case = Case { variant: *variant, problem, dtype, layout, seed: 3 };
    let (inputs, mut outputs) = (case.inputs(), case.outputs());
    write(&case, &inputs, &mut outputs);
    check(&case, &inputs, &Sample::new(&problem, &HEADS, 8, 0), outputs);
}

#[test]
fn the_oracles_own_rows_are_accepted() {
    for (dtype, layout) in Dtype::ALL.into_iter().flat_map(|d| Layout::ALL.map(|l| (d, l))) {
        with_case(dtype, layout, |case, inputs, sample, outputs| {
            let report = case.judge(inputs, &outputs, sample);
            assert!(report.is_ok_and(|report| report.rows_checked == 160), "{dtype:?} {layout:?}");
        });
    }
}

#[test]
fn every_table_has_its_inputs_and_outputs() {
    for (dtype, layout) in Dtype::ALL.into_iter().flat_map(|d| Layout::ALL.map(|l| (d, l))) {
        with_tables(dtype, layout, |case, inputs, sample, good| {
            assert_eq!(good.o.shape(), [2, 3, 20, 3]);
            assert_eq!(good.lse.as_ref().unwrap().shape(), [2, 4, 20, 1]);
            let gate = inputs.gate.as_ref().unwrap().view();
            assert_eq!((gate.shape(), gate.dtype()), (good.o.shape(), dtype));
            let report = case.judge(inputs, &good, sample);
            // Output heads are counted: 2 sequences, 3 heads, 20 queries.
            assert!(report.as_ref().is_ok_and(|r| r.rows_checked == 120 && r.rows == 120), "{report:?}");

            let mut wrong = good.clone();
            put(&mut wrong.o, [1, 2, 13, 0], 9.0);
            let Err(Failure::Bound(report)) = case.judge(inputs, &wrong, sample) else { panic!("passed") };
            assert_eq!((report.output.run.b, report.output.run.h), (1, 2));
            let mut wrong = good.clone();
            put(wrong.lse.as_mut().unwrap(), [1, 3, 13, 0], 9.0);
            let Err(Failure::Bound(report)) = case.judge(inputs, &wrong, sample) else { panic!("passed") };
            let lse = report.lse.unwrap();
            assert_eq!((lse.run.b, lse.run.h), (1, 3));
            // Another gate is another output.
            let mut other = inputs.clone();
            other.gate.as_mut().unwrap().set([1, 2, 13, 0], 30.0);
            assert!(matches!(case.judge(&other, &good, sample), Err(Failure::Bound(_))));
        });
    }
}

#[test]
fn a_wrong_a_missing_and_a_stray_element_are_not() {
    with_case(Dtype::F32, Layout::Gapped, |case, inputs, sample, good| {
        let mut wrong = good.clone();
        put(&mut wrong.o, [1, 2, 13, 0], 9.0);
        assert!(matches!(case.judge(inputs, &wrong, sample), Err(Failure::Bound(_))));

        let missing = Outputs { lse: case.outputs().lse, ..good.clone() };
        let unwritten = PoisonError::Unwritten([0, 0, 0, 0]);
        assert_eq!(case.judge(inputs, &missing, sample), Err(Failure::Poison("lse", unwritten)));

        // The first element of the gap behind the first row.
        let mut stray = good.clone();
        put(&mut stray.o, [0, 0, 0, 3], 0.0);
        assert_eq!(case.judge(inputs, &stray, sample), Err(Failure::Poison("o", PoisonError::Stray(3))));
    });
}

#[test]
fn rows_that_are_known_are_not_computed_again() {
    with_case(Dtype::F32, Layout::Bhnd, |case, inputs, sample, good| {
        let known = Known::default();
        let judge = |inputs: &Inputs, outputs: &Outputs| {
            case.judge_knowing(&known, Precision::Exact, inputs, outputs, sample)
        };
        let mut wrong = good.clone();
        put(&mut wrong.o, [1, 2, 13, 0], 9.0);
        for _ in 0..2 {
            assert!(judge(inputs, &good).is_ok_and(|report| report.rows_checked == 160));
            assert!(matches!(judge(inputs, &wrong), Err(Failure::Bound(_))));
        }
        // Outputs are right by what is known, and wrong by what these inputs make.
        let other = Case { seed: 4, ..*case }.inputs();
        assert!(judge(&other, &good).is_ok());
        assert!(matches!(case.judge(&other, &good, sample), Err(Failure::Bound(_))));
    });
}

#[test]
fn seeds_make_different_inputs_that_agree_between_layouts() {
    with_case(Dtype::F32, Layout::Bhnd, |case, inputs, _, _| {
        let row = |inputs: &Inputs| inputs.operands[1].view().row(1, 1, 32);
        let other_layout = Case { layout: Layout::Bnhd, ..*case }.inputs();
        assert_eq!(row(inputs), row(&other_layout));
        assert_eq!(inputs.captured, other_layout.captured);
        let other_seed = Case { seed: 4, ..*case }.inputs();
        assert_ne!(row(inputs), row(&other_seed));
        assert_ne!(inputs.captured, other_seed.captured);
        assert_ne!(inputs.operands[0].view().row(0, 0, 0), inputs.operands[1].view().row(0, 0, 0));
    });
}
