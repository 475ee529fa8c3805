//! Typed expressions: one flat tree, read in four ways.
//!
//! A mask, a score modifier or a feature map is a list of [`Node`]s in post-order: a node's operands come before
//! it and the last node is the root. Nodes may be shared, so the list is a tree in meaning and a graph in memory.
//! The readings are the scalar one (oracle), intervals ([`crate::interval`]), SIMD lanes (runtime) and Rust text
//! (codegen). Adding a function is a variant of [`Unary`] or [`Binary`] and one line in each reading.
//!
//! Everything that the language offers beyond these operations (constants, the prelude, `softcap`, `silu`,
//! `t5_bucket`, …) is expanded by the compiler, so that no reading needs to know it.

/// Index of a node in its tree.
pub type NodeId = u16;

/// The most axes that a captured input can have: one each of `b h g q k`, and one numbered.
pub const MAX_AXES: usize = 6;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A 32-bit integer that wraps.
    Int,
    /// A float; see [`Node::exact`] for its precision.
    Float,
}

/// What an expression may read. All are 0-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Var {
    /// Batch (sequence) index.
    B,
    /// Query head.
    H,
    /// Key/value head.
    G,
    /// Absolute position of the query.
    Q,
    /// Absolute position of the key.
    K,
    /// Number of queries of the sequence.
    Nq,
    /// Number of keys of the sequence.
    Nk,
    /// The scaled score (score modifiers only; float).
    S,
    /// The element (feature maps only; float).
    X,
}

impl Var {
    /// The variable's type.
    pub const fn ty(self) -> Type {
        match self {
            Var::S | Var::X => Type::Float,
            _ => Type::Int,
        }
    }
}

/// Operations of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// Logical not.
    Not,
    /// Negation of a number; ints wrap.
    Neg,
    /// Absolute value of a number; `abs(i32::MIN)` wraps to itself.
    Abs,
    /// Int to float, rounded to nearest even where the float is binary32.
    ToFloat,
    /// Float to int: truncated, saturating at the ends of `i32`; NaN gives 0.
    ToInt,
    /// Largest integral float not above.
    Floor,
    /// Smallest integral float not below.
    Ceil,
    /// Square root.
    Sqrt,
    /// e to the power.
    Exp,
    /// 2 to the power.
    Exp2,
    /// Natural logarithm.
    Log,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e^−x).
    Sigmoid,
    /// x·Φ(x), the erf form.
    Gelu,
    /// ln(1 + e^x).
    Softplus,
    /// x where x > 0, else e^x − 1.
    Elu,
    /// Sine of an angle in radians.
    Sin,
    /// Cosine of an angle in radians.
    Cos,
}

impl Unary {
    /// Every operation, for tables and tests that must cover them all.
    pub const ALL: [Unary; 18] = [
        Unary::Not,
        Unary::Neg,
        Unary::Abs,
        Unary::ToFloat,
        Unary::ToInt,
        Unary::Floor,
        Unary::Ceil,
        Unary::Sqrt,
        Unary::Exp,
        Unary::Exp2,
        Unary::Log,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Gelu,
        Unary::Softplus,
        Unary::Elu,
        Unary::Sin,
        Unary::Cos,
    ];
}

/// Operations of two operands. Comparisons and logic give bools; the others give their operands' type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// Sum; ints wrap.
    Add,
    /// Difference; ints wrap.
    Sub,
    /// Product; ints wrap.
    Mul,
    /// Quotient of floats.
    Div,
    /// Quotient of ints, rounded down; by zero it is 0; `i32::MIN // -1` wraps.
    FloorDiv,
    /// Remainder of ints with the sign of the divisor; by zero it is 0.
    Rem,
    /// Power of floats.
    Pow,
    /// The smaller: `b < a ? b : a`, so that a NaN in `a` stays and one in `b` is dropped.
    Min,
    /// The larger: `b > a ? b : a`, with the same rule for NaN.
    Max,
    /// Both; the right side is not evaluated where the left is false.
    And,
    /// Either; the right side is not evaluated where the left is true.
    Or,
    /// `a < b`. The compiler turns `a > b` into `b < a`.
    Lt,
    /// `a <= b`.
    Le,
    /// `a == b`, of numbers or bools.
    Eq,
    /// `a != b`, of numbers or bools.
    Ne,
}

impl Binary {
    /// Every operation, for tables and tests that must cover them all.
    pub const ALL: [Binary; 15] = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::FloorDiv,
        Binary::Rem,
        Binary::Pow,
        Binary::Min,
        Binary::Max,
        Binary::And,
        Binary::Or,
        Binary::Lt,
        Binary::Le,
        Binary::Eq,
        Binary::Ne,
    ];
}

/// What a node computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// A literal bool.
    Bool(bool),
    /// A literal int.
    Int(i32),
    /// A literal float; read as the nearest binary32 where the node is exact.
    Float(f64),
    /// A variable.
    Var(Var),
    /// One operand.
    Unary(Unary, NodeId),
    /// Two operands of one type.
    Binary(Binary, NodeId, NodeId),
    /// `if .0 then .1 else .2`; the side not taken is not evaluated.
    Select(NodeId, NodeId, NodeId),
    /// The ALiBi slope of query head `.head` among `.heads`; see [`crate::exact::alibi_slope`].
    Alibi {
        /// The head, an int.
        head: NodeId,
        /// How many heads share the series.
        heads: u32,
    },
    /// An element of a captured input. `index[..rank]` are ints, one for each axis.
    Input {
        /// Which input, in declaration order.
        input: u16,
        /// Its number of axes.
        rank: u8,
        /// The index along each axis; entries past `rank` are 0 and mean nothing.
        index: [NodeId; MAX_AXES],
    },
}

/// One operation, its type, and how precise a float must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// The type of the result.
    pub ty: Type,
    /// Whether this float decides something (it flows into a comparison, an int, `floor`, `ceil`, an index or a
    /// mask). Such a float is IEEE binary32 in every reading: `+ - * / sqrt` rounded once, the other functions by
    /// [`crate::exact`]. Other floats are f64 in the oracle and f32 lanes in kernels. Always true of bools and ints.
    pub exact: bool,
}

/// A typed expression, borrowed.
///
/// Post-order: operands have smaller ids than their users, the root is the last node, and there is at least one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tree<'a> {
    nodes: &'a [Node],
}

impl<'a> Tree<'a> {
    /// A view of nodes in post-order.
    ///
    /// # Panics
    /// If there is no node, there are more than 2^16, or a node does not come after its operands. The compiler and
    /// generated modules, which are its callers, keep this order; in a `const` the panic is a compile error.
    pub const fn new(nodes: &'a [Node]) -> Self {
        assert!(
            !nodes.is_empty() && nodes.len() <= NodeId::MAX as usize + 1,
            "an expression has 1 to 65536 nodes"
        );
        let mut i = 0;
        while i < nodes.len() {
            let (operands, n) = nodes[i].op.operand_array();
            let mut j = 0;
            while j < n {
                assert!((operands[j] as usize) < i, "an operand must come before its user");
                j += 1;
            }
            i += 1;
        }
        Self { nodes }
    }

    /// All nodes, operands first.
    pub const fn nodes(self) -> &'a [Node] {
        self.nodes
    }

    /// The id of the root.
    pub const fn root(self) -> NodeId {
        (self.nodes.len() - 1) as NodeId
    }

    /// One node.
    ///
    /// # Panics
    /// If the id is not of this tree.
    pub const fn node(self, id: NodeId) -> &'a Node {
        &self.nodes[id as usize]
    }

    /// The type of the root.
    pub const fn ty(self) -> Type {
        self.nodes[self.nodes.len() - 1].ty
    }

    /// Whether the expression is just this variable, as the modifier `s` is.
    pub fn is_var(self, var: Var) -> bool {
        self.nodes[self.nodes.len() - 1].op == Op::Var(var)
    }

    /// Whether some node of the list reads `var`.
    pub fn reads(self, var: Var) -> bool {
        self.nodes.iter().any(|node| node.op == Op::Var(var))
    }

    /// Whether some node of the list reads an element of this captured input.
    pub fn reads_input(self, wanted: u16) -> bool {
        self.nodes.iter().any(|node| matches!(node.op, Op::Input { input, .. } if input == wanted))
    }
}

impl Op {
    const fn operand_array(&self) -> ([NodeId; MAX_AXES], usize) {
        let mut ids = [0; MAX_AXES];
        match *self {
            Op::Bool(_) | Op::Int(_) | Op::Float(_) | Op::Var(_) => (ids, 0),
            Op::Unary(_, a) | Op::Alibi { head: a, .. } => {
                ids[0] = a;
                (ids, 1)
            }
            Op::Binary(_, a, b) => {
                ids[0] = a;
                ids[1] = b;
                (ids, 2)
            }
            Op::Select(c, a, b) => {
                ids[0] = c;
                ids[1] = a;
                ids[2] = b;
                (ids, 3)
            }
            Op::Input { rank, index, .. } => (index, rank as usize),
        }
    }

    /// The ids of the operands, in order.
    pub fn operands(&self) -> impl Iterator<Item = NodeId> {
        let (ids, n) = self.operand_array();
        ids.into_iter().take(n)
    }
}

/// A typed expression, owned.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    nodes: alloc::vec::Vec<Node>,
}

#[cfg(feature = "alloc")]
impl Expr {
    /// An expression from nodes in post-order.
    ///
    /// # Panics
    /// As [`Tree::new`].
    pub fn new(nodes: alloc::vec::Vec<Node>) -> Self {
        let _ = Tree::new(&nodes);
        Self { nodes }
    }

    /// An expression of one node without operands.
    pub fn leaf(op: Op, ty: Type) -> Self {
        Self::new(alloc::vec![Node { op, ty, exact: !matches!(ty, Type::Float) }])
    }

    /// The view that the readings take.
    pub fn tree(&self) -> Tree<'_> {
        Tree { nodes: &self.nodes }
    }
}
