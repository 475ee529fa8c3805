//! A case accepts what the oracle says, and nothing else.

use regard_ir::expr::{Binary, Expr, MAX_AXES, Node, Op, Type, Var};
use regard_ir::identity::Identity;
use regard_ir::inputs::Captured;
use regard_ir::plan::Dtype;
use regard_ir::problem::Problem;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Sink, Source, Variant, Weights};
use regard_oracle::sample::Sample;
use regard_oracle::{Oracle, Tensors};
use regard_testkit::{Case, ElementsMut, Failure, Inputs, Layout, Output, Outputs, PoisonError};

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
    let (q, k, v) = (inputs.q.view(), inputs.k.view(), inputs.v.view());
    let oracle = Oracle::new(variant, problem, Tensors { q, k, v, captured, sink: &[] }).unwrap();
    let [batch, heads, queries, _] = outputs.o.shape();
    for b in 0..batch {
        for (h, i) in (0..heads).flat_map(|h| (0..queries).map(move |i| (h, i))) {
            let row = oracle.row(b, h, i).unwrap();
            for (channel, value) in row.o.into_iter().enumerate() {
                put(&mut outputs.o, [b, h, i, channel], value);
            }
            put(outputs.lse.as_mut().unwrap(), [b, h, i, 0], row.lse.unwrap());
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
    let mut axes = [Axis::Len(1); MAX_AXES];
    axes[..2].copy_from_slice(&[Axis::Batch, Axis::Key]);
    let shapes = [InputShape { dtype: InputType::I32, rank: 2, axes }];
    let (modify, allow) = (Expr::leaf(Op::Var(Var::S), Type::Float), same_document());
    let variant = Variant {
        identity: Identity(0),
        heads: HEADS,
        source: Source::SelfAttention,
        scale: 1.0 / 5f64.sqrt(),
        modify: modify.tree(),
        allow: allow.tree(),
        weights: Weights::Softmax { sink: Sink::None },
        position: None,
        qk_norm: None,
        output: regard_ir::rows::Output { lse: true, ..Default::default() },
        inputs: &shapes,
    };
    let problem = Problem::prefill(Source::SelfAttention, 2, 20, 33).unwrap();
    let case = Case { variant, problem, dtype, layout, seed: 3 };
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
fn seeds_make_different_inputs_that_agree_between_layouts() {
    with_case(Dtype::F32, Layout::Bhnd, |case, inputs, _, _| {
        let row = |inputs: &Inputs| inputs.k.view().row(1, 1, 32);
        let other_layout = Case { layout: Layout::Bnhd, ..*case }.inputs();
        assert_eq!(row(inputs), row(&other_layout));
        assert_eq!(inputs.captured, other_layout.captured);
        let other_seed = Case { seed: 4, ..*case }.inputs();
        assert_ne!(row(inputs), row(&other_seed));
        assert_ne!(inputs.captured, other_seed.captured);
        assert_ne!(inputs.q.view().row(0, 0, 0), inputs.k.view().row(0, 0, 0));
    });
}
