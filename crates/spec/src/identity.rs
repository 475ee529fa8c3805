//! Canonical bytes, and the identity that is their hash.
//!
//! Tables that no spec can have yet write nothing, so that the specs without them keep their identities when the
//! language gains them. Names of captured inputs count: they are how a caller binds tensors.

use regard_ir::expr::{Node, Op, Tree, Type};
use regard_ir::identity::Identity;
use regard_ir::spec::{Mechanism, Spec};
use regard_ir::variant::{Axis, InputShape, InputType, Sink, Source, Weights};
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
    bytes.extend(spec.scale.to_bits().to_le_bytes());
    tree(&mut bytes, spec.modify.tree());
    tree(&mut bytes, spec.allow.tree());
    mechanism(&mut bytes, &spec.mechanism);
    bytes.push(spec.output.lse.into());
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

fn mechanism(bytes: &mut Vec<u8>, mechanism: &Mechanism) {
    match mechanism {
        Mechanism::Weights(Weights::Softmax { sink: Sink::None }) => bytes.push(0),
        other => unreachable!("the compiler does not make {other:?}"),
    }
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
