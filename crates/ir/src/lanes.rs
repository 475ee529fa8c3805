//! Expressions as straight-line lane code: one list of instructions, each with what its value depends on.
//!
//! The lane reading has two forms, and both start here: an interpreter executes the list, generated modules spell it
//! out. They share operations and their order, and so every bit. There are no branches: both sides of a guard are
//! computed, a fetch outside its axes gives 0, and only a check knows under which guard it stands.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::expr::{Binary, MAX_AXES, NodeId, Op, Tree, Type, Unary, Var};
use crate::variant::{Axis, InputShape};

/// Index of a value: that of the instruction that computes it.
pub type ValueId = u32;

/// What a value depends on, beside the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing: all lanes are equal, for every key.
    Uniform,
    /// The row (query and head): lanes differ, keys do not matter.
    Row,
    /// The key: all lanes are equal.
    Key,
    /// Both.
    Full,
}

impl Kind {
    /// What depends on either.
    pub const fn join(self, other: Kind) -> Kind {
        match (self, other) {
            (Kind::Uniform, kind) | (kind, Kind::Uniform) => kind,
            (Kind::Row, Kind::Row) => Kind::Row,
            (Kind::Key, Kind::Key) => Kind::Key,
            _ => Kind::Full,
        }
    }

    /// Whether the value is the same for every key.
    pub const fn is_keyless(self) -> bool {
        matches!(self, Kind::Uniform | Kind::Row)
    }
}

/// What an instruction does, with operands of type `V`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LaneOp<V> {
    /// A literal bool.
    Bool(bool),
    /// A literal int.
    Int(i32),
    /// A literal float.
    Float(f32),
    /// A variable other than the score.
    Var(Var),
    /// The score.
    Score,
    /// Which scores the caller has not masked.
    Live,
    /// An operation of one operand.
    Unary {
        /// Which one.
        op: Unary,
        /// The operand's type.
        of: Type,
        /// Whether a float result decides something, and so comes from [`crate::exact`].
        exact: bool,
        /// The operand.
        a: V,
    },
    /// An operation of two operands of one type.
    Binary {
        /// Which one.
        op: Binary,
        /// The operands' type.
        of: Type,
        /// The left operand.
        a: V,
        /// The right operand.
        b: V,
    },
    /// `if c then a else b`.
    Select {
        /// The condition.
        c: V,
        /// The value where it holds.
        a: V,
        /// The value elsewhere.
        b: V,
    },
    /// The ALiBi slope of head `a` among `heads`, an f32.
    Alibi {
        /// The head.
        a: V,
        /// How many heads share the series.
        heads: u32,
    },
    /// The element of a captured input at an index; 0 where the index leaves the axes.
    Fetch {
        /// Which input, in declaration order.
        input: u16,
        /// Its number of axes.
        rank: u8,
        /// The index along each axis; entries past `rank` mean nothing.
        index: [V; MAX_AXES],
    },
    /// Whether an index leaves the axes of a captured input, a bool.
    Outside {
        /// Which input, in declaration order.
        input: u16,
        /// Its number of axes.
        rank: u8,
        /// The index along each axis; entries past `rank` mean nothing.
        index: [V; MAX_AXES],
    },
    /// Reports the input if some lane is `outside` where `guard` holds (anywhere, if absent). Computes no value.
    Check {
        /// Which input, in declaration order.
        input: u16,
        /// Where its index leaves the axes.
        outside: V,
        /// Where the index is asked for.
        guard: Option<V>,
    },
}

impl<V: Copy> LaneOp<V> {
    /// The same operation on other operands; `f` is called once for each, in order.
    pub fn map<W: Copy + Default>(&self, mut f: impl FnMut(V) -> W) -> LaneOp<W> {
        let place = |rank: u8, index: &[V; MAX_AXES], f: &mut dyn FnMut(V) -> W| {
            let mut places = [W::default(); MAX_AXES];
            for (to, &from) in places.iter_mut().zip(&index[..rank as usize]) {
                *to = f(from);
            }
            places
        };
        match *self {
            LaneOp::Bool(x) => LaneOp::Bool(x),
            LaneOp::Int(x) => LaneOp::Int(x),
            LaneOp::Float(x) => LaneOp::Float(x),
            LaneOp::Var(var) => LaneOp::Var(var),
            LaneOp::Score => LaneOp::Score,
            LaneOp::Live => LaneOp::Live,
            LaneOp::Unary { op, of, exact, a } => LaneOp::Unary { op, of, exact, a: f(a) },
            LaneOp::Binary { op, of, a, b } => LaneOp::Binary { op, of, a: f(a), b: f(b) },
            LaneOp::Select { c, a, b } => LaneOp::Select { c: f(c), a: f(a), b: f(b) },
            LaneOp::Alibi { a, heads } => LaneOp::Alibi { a: f(a), heads },
            LaneOp::Fetch { input, rank, ref index } => {
                LaneOp::Fetch { input, rank, index: place(rank, index, &mut f) }
            }
            LaneOp::Outside { input, rank, ref index } => {
                LaneOp::Outside { input, rank, index: place(rank, index, &mut f) }
            }
            LaneOp::Check { input, outside, guard } => {
                LaneOp::Check { input, outside: f(outside), guard: guard.map(f) }
            }
        }
    }

    /// The operands, in order.
    pub fn operands(&self) -> Vec<V> {
        let mut operands = vec![];
        self.map(|operand| operands.push(operand));
        operands
    }
}

/// One instruction, and the value that it computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instr {
    /// What it does.
    pub op: LaneOp<ValueId>,
    /// The value's type.
    pub ty: Type,
    /// What the value depends on.
    pub kind: Kind,
}

/// An expression as instructions, operands first. The value of an instruction is named by its place in the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// The instructions.
    pub instrs: Vec<Instr>,
    /// The value of the whole expression.
    pub result: ValueId,
}

impl Lowered {
    /// Lowers a mask: what its indices are checked under is its own business alone.
    pub fn mask(tree: Tree<'_>, inputs: &[InputShape]) -> Self {
        Lowering::new(tree, inputs).finish(None)
    }

    /// Lowers a score modifier. Where it can index outside an input it reads [`LaneOp::Live`]: a masked score is not
    /// asked for, and reports nothing.
    pub fn modifier(tree: Tree<'_>, inputs: &[InputShape]) -> Self {
        let mut lowering = Lowering::new(tree, inputs);
        let live = lowering.checks(tree.root()).then(|| lowering.emit(LaneOp::Live, Type::Bool, Kind::Full));
        lowering.finish(live)
    }

    /// Whether it can report an index outside an input.
    pub fn checks(&self) -> bool {
        self.instrs.iter().any(|instr| matches!(instr.op, LaneOp::Check { .. }))
    }
}

struct Lowering<'a> {
    tree: Tree<'a>,
    inputs: &'a [InputShape],
    /// Whether evaluating a node may find a bad index, for each node.
    checks: Vec<bool>,
    instrs: Vec<Instr>,
    /// Values that are already computed. The guard is part of the key only where an index is checked under it.
    memo: BTreeMap<(NodeId, Option<ValueId>), ValueId>,
}

impl<'a> Lowering<'a> {
    fn new(tree: Tree<'a>, inputs: &'a [InputShape]) -> Self {
        let mut lowering = Self { tree, inputs, checks: vec![], instrs: vec![], memo: BTreeMap::new() };
        for node in tree.nodes() {
            let here = match node.op {
                Op::Input { input, rank, index } => !lowering.in_range(input, &index[..rank as usize]),
                _ => false,
            };
            let below = node.op.operands().any(|operand| lowering.checks(operand));
            lowering.checks.push(here || below);
        }
        lowering
    }

    fn finish(mut self, guard: Option<ValueId>) -> Lowered {
        let result = self.value(self.tree.root(), guard);
        Lowered { instrs: self.instrs, result }
    }

    fn emit(&mut self, op: LaneOp<ValueId>, ty: Type, kind: Kind) -> ValueId {
        self.instrs.push(Instr { op, ty, kind });
        (self.instrs.len() - 1) as ValueId
    }

    fn kind(&self, value: ValueId) -> Kind {
        self.instrs[value as usize].kind
    }

    /// The value of a node, asked for where `guard` holds (everywhere, where absent).
    fn value(&mut self, id: NodeId, guard: Option<ValueId>) -> ValueId {
        let key = (id, guard.filter(|_| self.checks(id)));
        if let Some(&value) = self.memo.get(&key) {
            return value;
        }
        let value = self.node(id, guard);
        self.memo.insert(key, value);
        value
    }

    fn node(&mut self, id: NodeId, guard: Option<ValueId>) -> ValueId {
        let node = *self.tree.node(id);
        let of = |operand: NodeId| self.tree.node(operand).ty;
        match node.op {
            Op::Bool(x) => self.emit(LaneOp::Bool(x), node.ty, Kind::Uniform),
            Op::Int(x) => self.emit(LaneOp::Int(x), node.ty, Kind::Uniform),
            Op::Float(x) => self.emit(LaneOp::Float(x as f32), node.ty, Kind::Uniform),
            Op::Var(Var::S | Var::X) => self.emit(LaneOp::Score, node.ty, Kind::Full),
            Op::Var(var) => {
                let kind = match var {
                    Var::H | Var::Q => Kind::Row,
                    Var::K => Kind::Key,
                    _ => Kind::Uniform,
                };
                self.emit(LaneOp::Var(var), node.ty, kind)
            }
            Op::Unary(op, operand) => {
                let of = of(operand);
                let a = self.value(operand, guard);
                let exact = node.exact;
                self.emit(LaneOp::Unary { op, of, exact, a }, node.ty, self.kind(a))
            }
            Op::Alibi { head, heads } => {
                let a = self.value(head, guard);
                self.emit(LaneOp::Alibi { a, heads }, node.ty, self.kind(a))
            }
            Op::Binary(Binary::Div, left, right) if !node.exact && self.inverse(right).is_some() => {
                let a = self.value(left, guard);
                let inverse = self.inverse(right).unwrap_or(1.0);
                let b = self.emit(LaneOp::Float(inverse), Type::Float, Kind::Uniform);
                let times = LaneOp::Binary { op: Binary::Mul, of: Type::Float, a, b };
                self.emit(times, node.ty, self.kind(a))
            }
            Op::Binary(Binary::Add, left, right)
                if !node.exact && self.shifted_elu(left, right).is_some() =>
            {
                let operand = self.shifted_elu(left, right).unwrap_or(left);
                let x = self.value(operand, guard);
                self.elu_plus_one(x)
            }
            Op::Binary(op, left, right) => {
                let of = of(left);
                let a = self.value(left, guard);
                let right_guard = match op {
                    Binary::And if self.checks(right) => Some(self.narrow(guard, a, true)),
                    Binary::Or if self.checks(right) => Some(self.narrow(guard, a, false)),
                    _ => guard,
                };
                let b = self.value(right, right_guard);
                self.emit(LaneOp::Binary { op, of, a, b }, node.ty, self.kind(a).join(self.kind(b)))
            }
            Op::Select(condition, yes, no) => {
                let c = self.value(condition, guard);
                let yes_guard = if self.checks(yes) { Some(self.narrow(guard, c, true)) } else { guard };
                let a = self.value(yes, yes_guard);
                let no_guard = if self.checks(no) { Some(self.narrow(guard, c, false)) } else { guard };
                let b = self.value(no, no_guard);
                let kind = self.kind(c).join(self.kind(a)).join(self.kind(b));
                self.emit(LaneOp::Select { c, a, b }, node.ty, kind)
            }
            Op::Input { input, rank, index: nodes } => {
                let nodes = &nodes[..rank as usize];
                let mut kind = Kind::Uniform;
                let mut index = [0; MAX_AXES];
                for (at, &id) in index.iter_mut().zip(nodes) {
                    *at = self.value(id, guard);
                    kind = kind.join(self.kind(*at));
                }
                if !self.in_range(input, nodes) {
                    let outside = self.emit(LaneOp::Outside { input, rank, index }, Type::Bool, kind);
                    let kind = guard.map_or(kind, |guard| self.kind(guard).join(kind));
                    self.emit(LaneOp::Check { input, outside, guard }, Type::Bool, kind);
                }
                self.emit(LaneOp::Fetch { input, rank, index }, node.ty, kind)
            }
        }
    }

    /// What `elu(x) + 1` is of, the features of linear attention.
    fn shifted_elu(&self, left: NodeId, right: NodeId) -> Option<NodeId> {
        let is_one = |id: NodeId| self.tree.node(id).op == Op::Float(1.0);
        [(left, right), (right, left)].into_iter().find_map(|(elu, one)| match self.tree.node(elu).op {
            Op::Unary(Unary::Elu, operand) if is_one(one) => Some(operand),
            _ => None,
        })
    }

    /// max(x, 0) + exp(min(x, 0)): as precise, without the digits that `elu` takes the one from, and all on lanes.
    fn elu_plus_one(&mut self, x: ValueId) -> ValueId {
        let (of, kind) = (Type::Float, self.kind(x));
        let zero = self.emit(LaneOp::Float(0.0), of, Kind::Uniform);
        let above = self.emit(LaneOp::Binary { op: Binary::Max, of, a: x, b: zero }, of, kind);
        let below = self.emit(LaneOp::Binary { op: Binary::Min, of, a: x, b: zero }, of, kind);
        let power = self.emit(LaneOp::Unary { op: Unary::Exp, of, exact: false, a: below }, of, kind);
        self.emit(LaneOp::Binary { op: Binary::Add, of, a: above, b: power }, of, kind)
    }

    /// The inverse of a constant, to be multiplied by instead of dividing, which takes several times as long; where
    /// nothing is decided by the quotient a further rounding is free.
    fn inverse(&self, id: NodeId) -> Option<f32> {
        let Op::Float(x) = self.tree.node(id).op else { return None };
        let inverse = (1.0 / x) as f32;
        (inverse.is_normal() && (x as f32).is_normal()).then_some(inverse)
    }

    /// The guard of what is asked for only where `condition` is `wanted`.
    fn narrow(&mut self, guard: Option<ValueId>, condition: ValueId, wanted: bool) -> ValueId {
        let condition = if wanted {
            condition
        } else {
            let not = LaneOp::Unary { op: Unary::Not, of: Type::Bool, exact: true, a: condition };
            self.emit(not, Type::Bool, self.kind(condition))
        };
        let Some(guard) = guard else { return condition };
        let both = LaneOp::Binary { op: Binary::And, of: Type::Bool, a: guard, b: condition };
        self.emit(both, Type::Bool, self.kind(guard).join(self.kind(condition)))
    }

    fn checks(&self, id: NodeId) -> bool {
        self.checks[id as usize]
    }

    /// Whether every index is the variable of its axis, which cannot leave it. Not so for queries: an offset may put
    /// them outside.
    fn in_range(&self, input: u16, index: &[NodeId]) -> bool {
        let axes = self.inputs[input as usize].axes().iter();
        axes.zip(index).all(|(&axis, &id)| match (axis, self.tree.node(id).op) {
            (Axis::Batch, Op::Var(Var::B)) | (Axis::Head, Op::Var(Var::H)) => true,
            (Axis::KvHead, Op::Var(Var::G)) | (Axis::Key, Op::Var(Var::K)) => true,
            (Axis::Len(len), Op::Int(i)) => i >= 0 && (i as u32) < len,
            _ => false,
        })
    }
}
