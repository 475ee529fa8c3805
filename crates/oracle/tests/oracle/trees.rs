//! A few expressions, built by hand.

use regard_ir::expr::{Binary, Expr, Node, NodeId, Op, Type, Unary, Var};

/// Collects nodes in post-order; each method returns the id of the node it added.
#[derive(Default)]
pub(crate) struct Build {
    nodes: Vec<Node>,
}

impl Build {
    pub(crate) fn add(&mut self, op: Op, ty: Type, exact: bool) -> NodeId {
        self.nodes.push(Node { op, ty, exact });
        (self.nodes.len() - 1) as NodeId
    }

    pub(crate) fn var(&mut self, var: Var) -> NodeId {
        self.add(Op::Var(var), var.ty(), var.ty() != Type::Float)
    }

    pub(crate) fn int(&mut self, value: i32) -> NodeId {
        self.add(Op::Int(value), Type::Int, true)
    }

    pub(crate) fn float(&mut self, value: f64, exact: bool) -> NodeId {
        self.add(Op::Float(value), Type::Float, exact)
    }

    pub(crate) fn unary(&mut self, op: Unary, a: NodeId, ty: Type, exact: bool) -> NodeId {
        self.add(Op::Unary(op, a), ty, exact)
    }

    /// An operation of bools or ints, or an inexact one of floats.
    pub(crate) fn binary(&mut self, op: Binary, a: NodeId, b: NodeId) -> NodeId {
        let ty = match op {
            Binary::And | Binary::Or | Binary::Lt | Binary::Le | Binary::Eq | Binary::Ne => Type::Bool,
            _ => self.nodes[a as usize].ty,
        };
        self.add(Op::Binary(op, a, b), ty, ty != Type::Float)
    }

    pub(crate) fn input(&mut self, input: u16, ty: Type, at: &[NodeId]) -> NodeId {
        let mut index = [0; regard_ir::expr::MAX_AXES];
        index[..at.len()].copy_from_slice(at);
        self.add(Op::Input { input, rank: at.len() as u8, index }, ty, ty != Type::Float)
    }

    pub(crate) fn expr(self) -> Expr {
        Expr::new(self.nodes)
    }
}

/// `k <= q`.
pub(crate) fn causal() -> Expr {
    let mut e = Build::default();
    let (k, q) = (e.var(Var::K), e.var(Var::Q));
    e.binary(Binary::Le, k, q);
    e.expr()
}

/// `true`.
pub(crate) fn all() -> Expr {
    Expr::leaf(Op::Bool(true), Type::Bool)
}

/// `s`.
pub(crate) fn plain() -> Expr {
    Expr::leaf(Op::Var(Var::S), Type::Float)
}
