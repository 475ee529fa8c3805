//! Canonical bytes, and the identity that is their hash.
//!
//! Tables that are absent write nothing, so that the specs without them keep their identities when the language gains
//! them; what comes before a table's bytes says whether they follow, so no two specs have the same bytes. Names of captured
//! inputs count: they are how a caller binds tensors. How keys and values are cached does not: it changes no formula, and one
//! kernel serves every cache.

use regard_ir::expr::{Node, Op, Tree, Type};
use regard_ir::identity::Identity;
use regard_ir::rows::{
    Frequencies, Gate, Mix, NormKind, Output, OutputNorm, Position, QkNorm, RopeLayout, RopeScaling,
};
use regard_ir::spec::{Lookahead, Mechanism, Spec};
use regard_ir::variant::{
    Axis, Decay, InputShape, InputType, Latent, Pseudo, Recurrence, Sink, Source, Weights,
};
use sha2::{Digest, Sha256};

/// The identity of a spec, whatever its own field says.
pub(crate) fn of(spec: &Spec) -> Identity {
    let mut bytes = vec![Identity::VERSION];
    let heads = spec.heads;
    for n in [heads.query, heads.kv, heads.value, heads.dim, heads.value_dim] {
        bytes.extend(n.to_le_bytes());
    }
    bytes.push(match spec.source {
        Source::SelfAttention => 0,
        Source::Cross => 1,
    });
    float(&mut bytes, spec.scale);
    tree(&mut bytes, spec.modify.tree());
    tree(&mut bytes, spec.allow.tree());
    weights(&mut bytes, spec.weights);
    tables(&mut bytes, spec);
    for (name, shape) in spec.inputs.names.iter().zip(&spec.inputs.shapes) {
        text(&mut bytes, name);
        input(&mut bytes, shape);
    }
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    Identity(u128::from_be_bytes(first))
}

/// Adds a node: its operation, type and exactness.
pub(crate) fn node(bytes: &mut Vec<u8>, node: &Node) {
    let (tag, data): (u8, u64) = match node.op {
        Op::Bool(value) => (0, value.into()),
        Op::Int(value) => (1, value as u32 as u64),
        Op::Float(value) => (2, value.to_bits()),
        Op::Var(var) => (3, var as u64),
        Op::Unary(op, _) => (4, op as u64),
        Op::Binary(op, ..) => (5, op as u64),
        Op::Select(..) => (6, 0),
        Op::Alibi { heads, .. } => (7, heads.into()),
        Op::Input { input, .. } => (8, input.into()),
    };
    let ty = match node.ty {
        Type::Bool => 0,
        Type::Int => 1,
        Type::Float => 2,
    };
    bytes.extend([tag, ty, node.exact.into()]);
    bytes.extend(data.to_le_bytes());
    for operand in node.op.operands() {
        bytes.extend(operand.to_le_bytes());
    }
}

fn tree(bytes: &mut Vec<u8>, tree: Tree<'_>) {
    bytes.extend((tree.nodes().len() as u32).to_le_bytes());
    tree.nodes().iter().for_each(|it| node(bytes, it));
}

fn weights(bytes: &mut Vec<u8>, weights: Weights) {
    match weights {
        Weights::Softmax { sink: Sink::None } => bytes.push(0),
        Weights::Softmax { sink: Sink::One } => bytes.push(1),
        Weights::Softmax { sink: Sink::Learned { input } } => {
            bytes.push(2);
            bytes.extend(input.to_le_bytes());
        }
        Weights::Sigmoid => bytes.push(3),
        Weights::Relu => bytes.push(4),
    }
}

/// Which tables there are, a bit each, then what each of them says.
fn tables(bytes: &mut Vec<u8>, spec: &Spec) {
    let Output { mix, norm, gate, lse } = spec.output;
    let there = [
        lse,
        spec.position.is_some(),
        spec.qk_norm.is_some(),
        mix.is_some(),
        norm.is_some(),
        gate.is_some(),
        spec.mechanism != Mechanism::Plain,
    ];
    bytes.push(there.iter().rev().fold(0, |bits, &there| bits << 1 | u8::from(there)));
    if let Some(position) = spec.position {
        self::position(bytes, position);
    }
    if let Some(QkNorm { kind, eps, learned, all_heads, after_rope }) = spec.qk_norm {
        bytes.push(match kind {
            NormKind::Rms => 0,
            NormKind::L2 => 1,
        });
        float(bytes, eps);
        for input in [learned.map(|[q, _]| q), learned.map(|[_, k]| k)] {
            optional(bytes, input);
        }
        bytes.extend([all_heads, after_rope].map(u8::from));
    }
    if let Some(Mix { heads, input }) = mix {
        bytes.extend(heads.to_le_bytes());
        bytes.extend(input.to_le_bytes());
    }
    if let Some(OutputNorm { eps, learned }) = norm {
        float(bytes, eps);
        optional(bytes, learned);
    }
    if let Some(Gate { per_head, silu }) = gate {
        bytes.extend([per_head, silu].map(u8::from));
    }
    mechanism(bytes, &spec.mechanism);
}

/// What there is but scores of q and k: which mechanism, then what its table says. Forms of one formula are the same.
fn mechanism(bytes: &mut Vec<u8>, mechanism: &Mechanism) {
    match *mechanism {
        Mechanism::Plain => {}
        Mechanism::Latent(Latent { rank, nope_dim, rope_dim, value_dim, form: _ }) => {
            bytes.push(0);
            for n in [rank, nope_dim, rope_dim, value_dim] {
                bytes.extend(n.to_le_bytes());
            }
        }
        Mechanism::Lookahead(Lookahead { window, rotate, ref allow }) => {
            bytes.extend([1, rotate, window.is_some().into()]);
            bytes.extend(window.iter().flat_map(|window| window.to_le_bytes()));
            tree(bytes, allow.tree());
        }
        Mechanism::Pseudo(Pseudo { heads, causal_by_token, window_in_tokens, mix, collapse, form: _ }) => {
            bytes.push(2);
            bytes.extend(heads.to_le_bytes());
            bytes.extend([causal_by_token, window_in_tokens].map(u8::from));
            mix.into_iter().chain([collapse]).for_each(|input| bytes.extend(input.to_le_bytes()));
        }
        Mechanism::Recurrence(Recurrence { normalize_eps, decay, delta, causal, restart }) => {
            bytes.push(3);
            bytes.push(normalize_eps.is_some().into());
            normalize_eps.iter().for_each(|&eps| float(bytes, eps));
            bytes.push(match decay {
                Decay::None => 0,
                Decay::Head(_) => 1,
                Decay::Token(_) => 2,
                Decay::Channel(_) => 3,
            });
            for input in [decay.input(), delta, restart] {
                optional(bytes, input);
            }
            bytes.push(causal.into());
        }
    }
}

fn position(bytes: &mut Vec<u8>, position: Position) {
    let Position { frequencies, dim, layout, offset, ids } = position;
    match frequencies {
        Frequencies::Theta { theta, scaling } => {
            bytes.push(0);
            float(bytes, theta);
            self::scaling(bytes, scaling);
        }
        Frequencies::Input(input) => {
            bytes.push(1);
            bytes.extend(input.to_le_bytes());
        }
    }
    bytes.extend(dim.to_le_bytes());
    bytes.push(match layout {
        RopeLayout::Half => 0,
        RopeLayout::Interleaved => 1,
    });
    bytes.extend(offset.to_le_bytes());
    optional(bytes, ids);
}

fn scaling(bytes: &mut Vec<u8>, scaling: RopeScaling) {
    match scaling {
        RopeScaling::None => bytes.push(0),
        RopeScaling::Linear { factor } => {
            bytes.push(1);
            float(bytes, factor);
        }
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            bytes.push(2);
            [factor, low_freq_factor, high_freq_factor].into_iter().for_each(|x| float(bytes, x));
            bytes.extend(original_max_position_embeddings.to_le_bytes());
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            attention_factor,
            original_max_position_embeddings,
            truncate,
        } => {
            bytes.push(3);
            [factor, beta_fast, beta_slow, attention_factor].into_iter().for_each(|x| float(bytes, x));
            bytes.extend(original_max_position_embeddings.to_le_bytes());
            bytes.push(truncate.into());
        }
    }
}

fn float(bytes: &mut Vec<u8>, value: f64) {
    bytes.extend(value.to_bits().to_le_bytes());
}

/// An input that may be absent.
fn optional(bytes: &mut Vec<u8>, input: Option<u16>) {
    bytes.push(input.is_some().into());
    bytes.extend(input.into_iter().flat_map(u16::to_le_bytes));
}

fn input(bytes: &mut Vec<u8>, shape: &InputShape) {
    bytes.push(match shape.dtype {
        InputType::F32 => 0,
        InputType::I32 => 1,
        InputType::Bool => 2,
    });
    bytes.push(shape.rank);
    for axis in shape.axes() {
        let (tag, len) = match *axis {
            Axis::Batch => (0, 0),
            Axis::Head => (1, 0),
            Axis::KvHead => (2, 0),
            Axis::Query => (3, 0),
            Axis::Key => (4, 0),
            Axis::Len(len) => (5, len),
        };
        bytes.push(tag);
        bytes.extend(u32::to_le_bytes(len));
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
}
