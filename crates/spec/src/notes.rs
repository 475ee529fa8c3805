//! What a score modifier means and its author may not have meant.

use regard_ir::expr::{Binary, NodeId, Op, Type, Unary, Var};

use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink};
use crate::expr::ast::Span;
use crate::expr::graph::{Graph, decides};
use crate::source::Location;

/// Notes a term that grows with `k` alone, where the weights are `shiftless` and so do not change if it is made
/// relative, and a jump in `s`.
pub(crate) fn modifier(graph: &Graph, shiftless: bool, locate: impl Fn(&Span) -> Location, sink: &mut Sink) {
    let reads = reads(graph);
    for term in terms(graph).into_iter().filter(|_| shiftless) {
        let Reads { reachable: true, k: true, other: false, s: false } = reads[usize::from(term)] else {
            continue;
        };
        if grows(graph, &reads, term) {
            let location = locate(&graph.node(term).span);
            sink.push(
                Diagnostic::new(Code::S101, &location, "this term grows with `k` alone")
                    .label("loses precision at far positions")
                    .help("write `k - q`: it is the same under softmax".to_string()),
            );
        }
    }
    for (node, reads_of) in graph.nodes.iter().zip(&reads) {
        let s = |operand: NodeId| graph.node(operand).ty == Type::Float && reads[usize::from(operand)].s;
        if reads_of.reachable && decides(node.op) && node.op.operands().any(s) {
            sink.push(
                Diagnostic::new(Code::S102, &locate(&node.span), "the modifier may jump here")
                    .label("decided by `s`")
                    .help("rounding may put a score on either side of the jump".to_string()),
            );
        }
    }
}

/// What leads to a node.
#[derive(Clone, Copy, Default)]
struct Reads {
    /// Whether the node leads to the root.
    reachable: bool,
    k: bool,
    /// Whether it reads a position or length that `k` may be relative to.
    other: bool,
    s: bool,
}

fn reads(graph: &Graph) -> Vec<Reads> {
    let mut reads = vec![Reads::default(); graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        let is = |var| node.op == Op::Var(var);
        let other = [Var::Q, Var::Nq, Var::Nk].into_iter().any(is);
        let start = Reads { reachable: false, k: is(Var::K), other, s: is(Var::S) };
        reads[id] = node.op.operands().fold(start, |all, operand| {
            let it = reads[usize::from(operand)];
            Reads { reachable: false, k: all.k || it.k, other: all.other || it.other, s: all.s || it.s }
        });
    }
    reads[usize::from(graph.root)].reachable = true;
    for (id, node) in graph.nodes.iter().enumerate().rev() {
        if reads[id].reachable {
            node.op.operands().for_each(|operand| reads[usize::from(operand)].reachable = true);
        }
    }
    reads
}

/// The terms of the sum that the root is.
fn terms(graph: &Graph) -> Vec<NodeId> {
    let mut terms = Vec::new();
    let mut seen = vec![false; graph.nodes.len()];
    let mut open = vec![graph.root];
    while let Some(id) = open.pop() {
        if std::mem::replace(&mut seen[usize::from(id)], true) {
            continue;
        }
        match graph.node(id).op {
            Op::Binary(Binary::Add | Binary::Sub, a, b) => open.extend([a, b]),
            Op::Unary(Unary::Neg | Unary::ToFloat, a) => open.push(a),
            _ => terms.push(id),
        }
    }
    terms
}

/// Whether a value has no bound as `k` grows, as far as its operations tell.
fn grows(graph: &Graph, reads: &[Reads], root: NodeId) -> bool {
    let mut open = vec![root];
    let mut seen = vec![false; graph.nodes.len()];
    while let Some(id) = open.pop() {
        if !reads[usize::from(id)].k || std::mem::replace(&mut seen[usize::from(id)], true) {
            continue;
        }
        match graph.node(id).op {
            Op::Var(_) => return true,
            Op::Unary(op, a) if !matches!(op, Unary::Tanh | Unary::Sigmoid | Unary::Sin | Unary::Cos) => {
                open.push(a);
            }
            Op::Binary(Binary::Div | Binary::FloorDiv, a, _) => open.push(a),
            Op::Binary(Binary::Add | Binary::Sub | Binary::Mul | Binary::Max | Binary::Pow, a, b) => {
                open.extend([a, b]);
            }
            _ => {}
        }
    }
    false
}
