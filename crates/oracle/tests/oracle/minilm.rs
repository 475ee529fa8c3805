//! The oracle against the attention of a real sentence encoder, run by another implementation.

use std::fs;
use std::path::Path;

use regard_ir::expr::{Binary, Expr, MAX_AXES, Type, Var};
use regard_ir::identity::Identity;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::problem::Problem;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Mechanism, Sink, Source, Variant, Weights};
use regard_oracle::compare::{Outputs, Report, compare};
use regard_oracle::sample::Sample;
use regard_oracle::{Elements, Oracle, Tensor4, Tensors};
use safetensors::SafeTensors;

use crate::trees::{Build, plain};

const HEADS: Heads = Heads { query: 12, kv: 12, value: 12, dim: 32, value_dim: 32 };
const SHAPE: [usize; 4] = [4, 12, 22, 32];

/// `k < len[b]`
fn before_the_padding() -> Expr {
    let mut e = Build::default();
    let (k, b) = (e.var(Var::K), e.var(Var::B));
    let len = e.input(0, Type::Int, &[b]);
    e.binary(Binary::Lt, k, len);
    e.expr()
}

/// The model's own output of a layer, judged as if a kernel had written it, with these sentence lengths.
fn judged(layer: u32, lens: &[i32]) -> Report {
    let path = |end: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../../fixtures/minilm/layer{layer}{end}.safetensors"))
    };
    let (inputs, expected) = (fs::read(path("")).unwrap(), fs::read(path(".expected")).unwrap());
    let inputs = SafeTensors::deserialize(&inputs).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let floats = |file: &SafeTensors<'_>, name| -> Vec<f32> {
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.shape(), SHAPE);
        tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    let [q, k, v] = ["q", "k", "v"].map(|name| floats(&inputs, name));
    let o = floats(&expected, "o");
    let tensor = |data| Tensor4::dense(Elements::F32(data), SHAPE).unwrap();

    let mut axes = [Axis::Len(1); MAX_AXES];
    axes[0] = Axis::Batch;
    let shapes = [InputShape { dtype: InputType::I32, rank: 1, axes }];
    let data = [InputData::I32(lens)];
    let problem = Problem::prefill(Source::SelfAttention, 4, 22, 22).unwrap();
    let captured = Captured::bind(&shapes, &data, &HEADS, Source::SelfAttention, &problem).unwrap();
    let (modify, allow) = (plain(), before_the_padding());
    let variant = Variant {
        identity: Identity(0),
        heads: HEADS,
        source: Source::SelfAttention,
        scale: 1.0 / 32f64.sqrt(),
        modify: modify.tree(),
        allow: allow.tree(),
        weights: Weights::Softmax { sink: Sink::None },
        mechanism: Mechanism::Plain,
        position: None,
        qk_norm: None,
        output: regard_ir::rows::Output::default(),
        inputs: &shapes,
    };
    let tensors = Tensors { operands: &[tensor(&q), tensor(&k), tensor(&v)], captured, gate: None };
    let oracle = Oracle::new(variant, problem, tensors).unwrap();
    let outputs = Outputs { o: tensor(&o), lse: None, u: None, state: None };
    compare(&oracle, &outputs, &Sample::new(&problem, &HEADS, 1, 0)).unwrap()
}

#[test]
fn the_model_agrees_within_the_bound_of_f32() {
    for layer in [0, 3] {
        let report = judged(layer, &[6, 22, 7, 13]);
        assert!(report.passed(), "layer {layer}: {report}");
        assert_eq!(report.rows_checked, 4 * 12 * 22);
    }
}

#[test]
fn a_wrong_length_is_far_past_it() {
    let report = judged(3, &[6, 22, 8, 13]);
    assert!(report.output.error > 1000.0 * report.output.bound, "{report}");
    assert_eq!(report.output.run.b, 2);
}
