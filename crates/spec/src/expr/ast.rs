//! Expressions as they are written: a flat tree whose operands come before their users.
//!
//! Flat, so that neither walking nor freeing a long chain recurses; `a + b + c` is one node with a list.

use std::ops::Range;

/// Byte range in the decoded text of an expression.
pub(crate) type Span = Range<u32>;

/// Index of a node in its [`Ast`].
pub(crate) type AstId = u32;

/// An operator between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Or,
    And,
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Rem,
    Pow,
}

impl Operator {
    pub(crate) const fn symbol(self) -> &'static str {
        match self {
            Operator::Or => "|",
            Operator::And => "&",
            Operator::Lt => "<",
            Operator::Le => "<=",
            Operator::Gt => ">",
            Operator::Ge => ">=",
            Operator::Eq => "==",
            Operator::Ne => "!=",
            Operator::Add => "+",
            Operator::Sub => "-",
            Operator::Mul => "*",
            Operator::Div => "/",
            Operator::FloorDiv => "//",
            Operator::Rem => "%",
            Operator::Pow => "^",
        }
    }
}

/// What is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Syntax {
    /// An int; `None` where it does not fit 64 bits.
    Int(Option<u64>),
    Float(f64),
    Bool(bool),
    /// A name on its own.
    Name,
    /// `name(args)`.
    Call(Vec<AstId>),
    /// `name[indices]`.
    Index(Vec<AstId>),
    Not(AstId),
    Neg(AstId),
    /// `first op operand op operand …`, applied from the left; for comparisons, all must hold.
    Chain(AstId, Vec<(Operator, AstId)>),
    /// `base ^ exponent`.
    Pow(AstId, AstId),
    If(AstId, AstId, AstId),
}

/// A node and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AstNode {
    pub(crate) syntax: Syntax,
    /// All of it.
    pub(crate) span: Span,
    /// The name of a name, call or index.
    pub(crate) name: Span,
}

/// A parsed expression; its root is the last node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ast {
    pub(crate) nodes: Vec<AstNode>,
}

impl Ast {
    pub(crate) fn push(&mut self, syntax: Syntax, span: Span, name: Span) -> AstId {
        self.nodes.push(AstNode { syntax, span, name });
        (self.nodes.len() - 1) as AstId
    }

    pub(crate) fn node(&self, id: AstId) -> &AstNode {
        &self.nodes[id as usize]
    }

    pub(crate) fn root(&self) -> AstId {
        (self.nodes.len() - 1) as AstId
    }
}
