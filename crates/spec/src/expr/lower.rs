//! From the graph to the tree that the readings take: which floats decide something, and constants folded.
//!
//! A float that decides something is binary32 in every reading, so a node that is used both ways becomes two.

use std::collections::HashMap;

use regard_ir::expr::{Binary, Expr, Node, NodeId, Op, Type, Var};

use super::facts::Facts;
use super::fold::fold;
use super::graph::{Graph, decides, renumbered};
use crate::identity;

/// The graph's tree; a float at its root decides nothing.
pub(super) fn lower(graph: &Graph) -> Expr {
    let mut output = Output::default();
    let root = output.graph(graph);
    output.tree(root)
}

/// The tree of the sum of two floats, nodes that are in both once.
pub(super) fn lower_sum(a: &Graph, b: &Graph) -> Expr {
    let mut output = Output::default();
    let (a, b) = (output.graph(a), output.graph(b));
    let root = output.add(Op::Binary(Binary::Add, a, b), Type::Float, Facts::Float(None), false);
    output.tree(root)
}

/// The tree of a mask, where there is one, that also asks for these comparisons. They stand first, and so guard it; those
/// that it is a conjunction with already are not asked for twice.
pub(super) fn lower_and(mask: Option<&Graph>, comparisons: &[Comparison]) -> Expr {
    let mut output = Output::default();
    let comparisons: Vec<NodeId> = comparisons.iter().map(|&it| output.comparison(it)).collect();
    let mask = mask.map(|mask| output.graph(mask));
    let asked_for = |&id: &NodeId| mask.is_none_or(|mask| !output.asks_for(mask, id));
    let mut sides: Vec<NodeId> = comparisons.into_iter().filter(asked_for).collect();
    match mask.map(|mask| (mask, output.nodes[usize::from(mask)].op)) {
        None | Some((_, Op::Bool(true))) => {}
        Some((mask, Op::Bool(false))) => sides = vec![mask],
        Some((mask, _)) => sides.push(mask),
    }
    let and = |a, b| output.add(Op::Binary(Binary::And, a, b), Type::Bool, Facts::Bool(None), true);
    let root = sides.into_iter().reduce(and);
    let root = root.unwrap_or_else(|| output.add(Op::Bool(true), Type::Bool, Facts::Bool(Some(true)), true));
    output.tree(root)
}

/// What a mechanism asks of the positions `q` and `k`, whatever a mask says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// `k <= q`
    NotLater,
    /// `k < q`
    Earlier,
    /// `q - k <= n`
    Within(u32),
}

/// For each node, whether its free and its exact form are needed.
fn needs(graph: &Graph) -> Vec<[bool; 2]> {
    let mut needs = vec![[false; 2]; graph.nodes.len()];
    let free = graph.node(graph.root).ty == Type::Float;
    needs[usize::from(graph.root)] = [free, !free];
    for (id, node) in graph.nodes.iter().enumerate().rev() {
        for exact in [false, true] {
            if needs[id][usize::from(exact)] {
                for operand in node.op.operands() {
                    let float = graph.node(operand).ty == Type::Float;
                    let operand_exact = !float || exact_operands(node.op, exact);
                    needs[usize::from(operand)][usize::from(operand_exact)] = true;
                }
            }
        }
    }
    needs
}

/// Whether the float operands of a node in this form are exact.
fn exact_operands(op: Op, exact: bool) -> bool {
    exact || decides(op)
}

/// The nodes made so far, equal ones shared.
#[derive(Default)]
struct Output {
    nodes: Vec<Node>,
    index: HashMap<Vec<u8>, NodeId>,
}

impl Output {
    /// Adds what a graph needs, and gives its root.
    fn graph(&mut self, graph: &Graph) -> NodeId {
        let needs = needs(graph);
        // For each node of the graph, its free and its exact form.
        let mut forms: Vec<[Option<NodeId>; 2]> = vec![[None; 2]; graph.nodes.len()];
        for (id, node) in graph.nodes.iter().enumerate() {
            for exact in [false, true] {
                if needs[id][usize::from(exact)] {
                    let operands_exact = exact_operands(node.op, exact);
                    let op = renumbered(node.op, |operand| {
                        let [free, deciding] = forms[usize::from(operand)];
                        let form = if operands_exact { deciding } else { free.or(deciding) };
                        form.expect("a needed operand is lowered before its user")
                    });
                    let form = self.add(op, node.ty, node.facts, exact);
                    forms[id][usize::from(exact)] = Some(form);
                }
            }
        }
        let [free, exact] = forms[usize::from(graph.root)];
        free.or(exact).expect("the root is needed")
    }

    fn comparison(&mut self, comparison: Comparison) -> NodeId {
        let mut int = |op| self.add(op, Type::Int, Facts::any(Type::Int), true);
        let (q, k) = (int(Op::Var(Var::Q)), int(Op::Var(Var::K)));
        let op = match comparison {
            Comparison::NotLater => Op::Binary(Binary::Le, k, q),
            Comparison::Earlier => Op::Binary(Binary::Lt, k, q),
            Comparison::Within(n) => {
                let distance = int(Op::Binary(Binary::Sub, q, k));
                let n = int(Op::Int(n as i32));
                Op::Binary(Binary::Le, distance, n)
            }
        };
        self.add(op, Type::Bool, Facts::Bool(None), true)
    }

    /// Whether a mask is false where a condition is, which it is one side of.
    fn asks_for(&self, mask: NodeId, condition: NodeId) -> bool {
        let mut open = vec![mask];
        while let Some(id) = open.pop() {
            match self.nodes[usize::from(id)].op {
                _ if id == condition => return true,
                Op::Binary(Binary::And, a, b) => open.extend([a, b]),
                _ => {}
            }
        }
        false
    }

    fn add(&mut self, op: Op, ty: Type, facts: Facts, exact: bool) -> NodeId {
        let node = Node { op: self.folded(op, ty, facts, exact), ty, exact };
        let mut key = Vec::new();
        identity::node(&mut key, &node);
        let next = self.nodes.len() as NodeId;
        *self.index.entry(key).or_insert_with(|| {
            self.nodes.push(node);
            next
        })
    }

    fn folded(&self, op: Op, ty: Type, facts: Facts, exact: bool) -> Op {
        // A single head of keys is number 0, of whatever heads a kernel makes of it.
        if op == Op::Var(Var::G) && facts.int() == Some(0) {
            return Op::Int(0);
        }
        let value = match (ty, facts) {
            (Type::Float, Facts::Float(Some(value))) if exact => {
                (!value.is_nan()).then_some(f64::from(value))
            }
            (Type::Float, _) if !exact => fold(op, |id| match self.nodes[usize::from(id)].op {
                Op::Float(value) => Some(value),
                Op::Int(value) => Some(f64::from(value)),
                _ => None,
            }),
            _ => None,
        };
        value.map_or(op, Op::Float)
    }

    /// The nodes that lead to `root`.
    fn tree(self, root: NodeId) -> Expr {
        let root = usize::from(root);
        let mut used = vec![false; root + 1];
        used[root] = true;
        for (id, node) in self.nodes.iter().enumerate().take(root + 1).rev() {
            if used[id] {
                node.op.operands().for_each(|operand| used[usize::from(operand)] = true);
            }
        }
        let mut moved = vec![0; root + 1];
        let mut kept = Vec::new();
        for (id, node) in self.nodes.into_iter().enumerate().take(root + 1).filter(|&(id, _)| used[id]) {
            moved[id] = kept.len() as NodeId;
            kept.push(Node { op: renumbered(node.op, |operand| moved[usize::from(operand)]), ..node });
        }
        Expr::new(kept)
    }
}
