//! Typed operations as they are found, equal ones shared.
//!
//! A node here does not know yet whether its float decides something; [`super::lower`] finds that from its users.

use std::collections::HashMap;

use regard_ir::expr::{Binary, Node, NodeId, Op, Type, Unary};

use super::ast::Span;
use super::facts::Facts;
use crate::identity;

/// The most nodes of an expression after expansion, counted as a tree.
pub(crate) const MAX_NODES: u32 = 10_000;

/// A typed operation.
#[derive(Clone, Debug)]
pub(crate) struct GraphNode {
    pub(crate) op: Op,
    pub(crate) ty: Type,
    pub(super) facts: Facts,
    /// Nodes of the tree below and with it.
    tree: u32,
    /// Nodes on the longest way down from it.
    depth: u32,
    /// Where it was first written.
    pub(crate) span: Span,
}

/// Shared operations, operands before users.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<GraphNode>,
    /// What the expression gives.
    pub(crate) root: NodeId,
    index: HashMap<Vec<u8>, NodeId>,
    created: u32,
}

/// How deep an expression may nest after expansion, each operation a level.
pub(crate) const MAX_DEPTH: u32 = 512;

/// A limit that a node would pass.
#[derive(Debug)]
pub(super) enum Limit {
    Nodes,
    Depth,
}

impl Graph {
    /// One operation without operands.
    pub(super) fn leaf(op: Op, ty: Type, facts: Facts) -> Self {
        Self { nodes: vec![GraphNode { op, ty, facts, tree: 1, depth: 1, span: 0..0 }], ..Self::default() }
    }

    pub(crate) fn node(&self, id: NodeId) -> &GraphNode {
        &self.nodes[usize::from(id)]
    }

    /// The node of an operation, which is folded where its facts say its value and its operands are constants.
    pub(super) fn add(&mut self, op: Op, ty: Type, facts: Facts, span: &Span) -> Result<NodeId, Limit> {
        self.created += 1;
        let tree = op.operands().fold(1u32, |n, operand| n.saturating_add(self.node(operand).tree));
        if self.created > MAX_NODES || tree > MAX_NODES {
            return Err(Limit::Nodes);
        }
        let depth = op.operands().map(|operand| self.node(operand).depth).max().unwrap_or(0) + 1;
        if depth > MAX_DEPTH {
            return Err(Limit::Depth);
        }
        let constant = op.operands().all(|operand| self.is_constant(operand));
        let op = match facts {
            // A variable of one value, as `h` of one head, stays what was written: `alibi` asks for `h`.
            _ if matches!(op, Op::Var(_)) => op,
            Facts::Bool(Some(value)) if constant => Op::Bool(value),
            Facts::Int(_) if constant => facts.int().map_or(op, |value| Op::Int(value as i32)),
            _ => op,
        };
        let mut key = Vec::new();
        identity::node(&mut key, &Node { op, ty, exact: true });
        if let Some(&id) = self.index.get(&key) {
            return Ok(id);
        }
        let id = self.nodes.len() as NodeId;
        self.nodes.push(GraphNode { op, ty, facts, tree, depth, span: span.clone() });
        self.index.insert(key, id);
        Ok(id)
    }

    /// Whether the node's value needs no variable and no input.
    fn is_constant(&self, id: NodeId) -> bool {
        match self.node(id).facts {
            _ if matches!(self.node(id).op, Op::Bool(_) | Op::Int(_) | Op::Float(_)) => true,
            Facts::Float(value) => value.is_some(),
            _ => false,
        }
    }
}

/// The operation with other operands.
pub(super) fn renumbered(op: Op, new: impl Fn(NodeId) -> NodeId) -> Op {
    match op {
        Op::Bool(_) | Op::Int(_) | Op::Float(_) | Op::Var(_) => op,
        Op::Unary(unary, a) => Op::Unary(unary, new(a)),
        Op::Binary(binary, a, b) => Op::Binary(binary, new(a), new(b)),
        Op::Select(condition, a, b) => Op::Select(new(condition), new(a), new(b)),
        Op::Alibi { head, heads } => Op::Alibi { head: new(head), heads },
        Op::Input { input, rank, mut index } => {
            index[..usize::from(rank)].iter_mut().for_each(|id| *id = new(*id));
            Op::Input { input, rank, index }
        }
    }
}

/// Whether the operation's float operands decide something.
pub(crate) fn decides(op: Op) -> bool {
    matches!(
        op,
        Op::Unary(Unary::Floor | Unary::Ceil | Unary::ToInt, _)
            | Op::Binary(Binary::Lt | Binary::Le | Binary::Eq | Binary::Ne, ..)
    )
}
