//! The scalar reading of expressions: one pair of query and key at a time.
//!
//! Exact floats are binary32 and go through [`regard_ir::exact`]; other floats are f64. The side of a guard that
//! cannot change the result is not evaluated, so that an index is looked at only where the language looks at it.

use core::cell::Cell;
use core::fmt;

use regard_ir::exact;
use regard_ir::expr::{Binary, MAX_AXES, Node, NodeId, Op, Tree, Type, Unary, Var};
use regard_ir::inputs::{Captured, InputData};

/// A value; a binary32 is held exactly by the f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A 32-bit integer.
    Int(i32),
    /// A float.
    Float(f64),
}

/// What the variables are for one pair of query and key.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scope {
    /// Batch index.
    pub b: i32,
    /// Query head.
    pub h: i32,
    /// Key head.
    pub g: i32,
    /// Absolute position of the query.
    pub q: i32,
    /// Absolute position of the key.
    pub k: i32,
    /// Number of queries.
    pub nq: i32,
    /// Number of keys.
    pub nk: i32,
    /// The scaled score, for score modifiers.
    pub s: f64,
    /// The element, for feature maps.
    pub x: f64,
}

/// A captured input was read outside one of its axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IndexError {
    /// Which input, in declaration order.
    pub input: usize,
    /// Which of its axes.
    pub axis: usize,
    /// The index.
    pub index: i32,
    /// The length of the axis.
    pub len: u32,
    /// For which pair.
    pub scope: Scope,
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, axis, index, len, scope: Scope { b, h, q, k, .. } } = self;
        write!(
            f,
            "captured input {input} is read at {index} of axis {axis}, which has length {len}, \
             for b = {b}, h = {h}, q = {q}, k = {k}"
        )
    }
}

impl std::error::Error for IndexError {}

/// The value of `tree` for one pair.
///
/// # Errors
/// If a captured input is read outside an axis.
///
/// # Panics
/// If operands have types that the compiler does not produce, or an input is not among `captured`.
pub fn eval(tree: Tree<'_>, scope: &Scope, captured: &Captured<'_>) -> Result<Value, IndexError> {
    let reader = Reader { tree, scope, captured, wrong: Cell::new(None) };
    reader
        .value(tree.root())
        .ok_or_else(|| reader.wrong.get().expect("where there is no value, an index is wrong"))
}

struct Reader<'a> {
    tree: Tree<'a>,
    scope: &'a Scope,
    captured: &'a Captured<'a>,
    /// The index that is outside its axis, if one is: beside the values, which are many and small.
    wrong: Cell<Option<IndexError>>,
}

impl Reader<'_> {
    /// Most operands are ints that are there, which are read without another call.
    #[inline(always)]
    fn value(&self, id: NodeId) -> Option<Value> {
        match *self.tree.node(id) {
            Node { op: Op::Int(value), .. } => Some(Value::Int(value)),
            Node { op: Op::Var(var), ty: Type::Int, .. } => Some(self.variable(var)),
            ref node => self.compute(node),
        }
    }

    fn compute(&self, Node { op, exact, .. }: &Node) -> Option<Value> {
        let value = match *op {
            Op::Bool(value) => Value::Bool(value),
            Op::Int(value) => Value::Int(value),
            Op::Float(value) => Value::Float(value),
            Op::Var(var) => self.variable(var),
            Op::Unary(op, a) => unary(op, self.value(a)?, *exact),
            Op::Binary(Binary::And, a, b) => Value::Bool(self.bool(a)? && self.bool(b)?),
            Op::Binary(Binary::Or, a, b) => Value::Bool(self.bool(a)? || self.bool(b)?),
            Op::Binary(op, a, b) => binary(op, self.value(a)?, self.value(b)?, *exact),
            Op::Select(condition, a, b) => self.value(if self.bool(condition)? { a } else { b })?,
            Op::Alibi { head, heads } => Value::Float(exact::alibi_slope(self.int(head)?, heads)),
            Op::Input { input, rank, ref index } => self.element(input.into(), &index[..rank.into()])?,
        };
        Some(match value {
            Value::Float(x) if *exact => Value::Float(f64::from(x as f32)),
            value => value,
        })
    }

    fn variable(&self, var: Var) -> Value {
        let scope = self.scope;
        match var {
            Var::B => Value::Int(scope.b),
            Var::H => Value::Int(scope.h),
            Var::G => Value::Int(scope.g),
            Var::Q => Value::Int(scope.q),
            Var::K => Value::Int(scope.k),
            Var::Nq => Value::Int(scope.nq),
            Var::Nk => Value::Int(scope.nk),
            Var::S => Value::Float(scope.s),
            Var::X => Value::Float(scope.x),
        }
    }

    fn element(&self, input: usize, index_nodes: &[NodeId]) -> Option<Value> {
        let mut indices = [0; MAX_AXES];
        for (index, &node) in indices.iter_mut().zip(index_nodes) {
            *index = self.int(node)?;
        }
        let indices = &indices[..index_nodes.len()];
        let Some(offset) = self.captured.offset(input, indices) else {
            self.wrong.set(Some(self.out_of_axis(input, indices)));
            return None;
        };
        Some(match self.captured.data(input) {
            InputData::F32(data) => Value::Float(data[offset].into()),
            InputData::I32(data) => Value::Int(data[offset]),
            InputData::Bool(data) => Value::Bool(data[offset] != 0),
        })
    }

    fn out_of_axis(&self, input: usize, indices: &[i32]) -> IndexError {
        let dims = self.captured.dims(input, indices);
        let outside = |axis: &usize| u32::try_from(indices[*axis]).map_or(true, |index| index >= dims[*axis]);
        let axis = (0..indices.len()).find(outside).unwrap_or_default();
        IndexError { input, axis, index: indices[axis], len: dims[axis], scope: *self.scope }
    }

    fn bool(&self, id: NodeId) -> Option<bool> {
        match self.value(id)? {
            Value::Bool(value) => Some(value),
            other => unreachable!("node {id} is {other:?}, not a bool"),
        }
    }

    fn int(&self, id: NodeId) -> Option<i32> {
        match self.value(id)? {
            Value::Int(value) => Some(value),
            other => unreachable!("node {id} is {other:?}, not an int"),
        }
    }
}

fn unary(op: Unary, a: Value, exact: bool) -> Value {
    match (op, a) {
        (Unary::Not, Value::Bool(a)) => Value::Bool(!a),
        (Unary::Neg, Value::Int(a)) => Value::Int(a.wrapping_neg()),
        (Unary::Abs, Value::Int(a)) => Value::Int(a.wrapping_abs()),
        (Unary::ToFloat, Value::Int(a)) => Value::Float(a.into()),
        (Unary::ToInt, Value::Float(a)) => Value::Int(exact::to_int(a as f32)),
        (op, Value::Float(a)) if exact => Value::Float(exact::unary(op, a as f32).into()),
        (op, Value::Float(a)) => Value::Float(unary_f64(op, a)),
        (op, a) => unreachable!("{op:?} of {a:?}"),
    }
}

fn unary_f64(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Sqrt => x.sqrt(),
        Unary::Exp => x.exp(),
        Unary::Exp2 => x.exp2(),
        Unary::Log => x.ln(),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Gelu => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Unary::Elu if x > 0.0 => x,
        Unary::Elu => x.exp_m1(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Not | Unary::ToFloat | Unary::ToInt => unreachable!("{op:?} is not a function of floats"),
    }
}

fn binary(op: Binary, a: Value, b: Value, exact: bool) -> Value {
    match (op, a, b) {
        (Binary::Eq, Value::Bool(a), Value::Bool(b)) => Value::Bool(a == b),
        (Binary::Ne, Value::Bool(a), Value::Bool(b)) => Value::Bool(a != b),
        (Binary::Lt | Binary::Le | Binary::Eq | Binary::Ne, Value::Int(a), Value::Int(b)) => {
            Value::Bool(compare(op, &a, &b))
        }
        (Binary::Lt | Binary::Le | Binary::Eq | Binary::Ne, Value::Float(a), Value::Float(b)) => {
            Value::Bool(compare(op, &(a as f32), &(b as f32)))
        }
        (op, Value::Int(a), Value::Int(b)) => Value::Int(exact::binary_int(op, a, b)),
        (op, Value::Float(a), Value::Float(b)) if exact => {
            Value::Float(exact::binary(op, a as f32, b as f32).into())
        }
        (op, Value::Float(a), Value::Float(b)) => Value::Float(binary_f64(op, a, b)),
        (op, a, b) => unreachable!("{op:?} of {a:?} and {b:?}"),
    }
}

fn compare<T: PartialOrd>(op: Binary, a: &T, b: &T) -> bool {
    match op {
        Binary::Lt => a < b,
        Binary::Le => a <= b,
        Binary::Eq => a == b,
        _ => a != b,
    }
}

fn binary_f64(op: Binary, a: f64, b: f64) -> f64 {
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Pow => a.powf(b),
        Binary::Min if b < a => b,
        Binary::Max if b > a => b,
        Binary::Min | Binary::Max => a,
        _ => unreachable!("{op:?} is not a function of two floats with a float result"),
    }
}
