//! A scalar reading of expressions for tests.

use regard_ir::exact;
use regard_ir::expr::{Binary, MAX_AXES, Node, NodeId, Op, Type, Unary, Var};
use regard_ir::inputs::{Captured, InputData};
use regard_ir::interval::{InputRanges, Range, Region, Span};

/// What an expression is at one point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    Int(i32),
    Float(f64),
}

/// One value of each variable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) b: i32,
    pub(crate) h: i32,
    pub(crate) g: i32,
    pub(crate) q: i32,
    pub(crate) k: i32,
    pub(crate) nq: i32,
    pub(crate) nk: i32,
}

/// How floats that decide nothing are computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lanes {
    F32,
    F64,
}

/// The scalar reading: `None` where an index leaves its axis.
pub(crate) struct Scalar<'a> {
    pub(crate) nodes: &'a [Node],
    pub(crate) at: Point,
    pub(crate) inputs: &'a Captured<'a>,
    pub(crate) lanes: Lanes,
}

impl Scalar<'_> {
    pub(crate) fn value(&self, id: NodeId) -> Option<Value> {
        let Node { op, exact, .. } = self.nodes[id as usize];
        let in_f32 = exact || self.lanes == Lanes::F32;
        let round = |x: f64| Value::Float(if in_f32 { x as f32 as f64 } else { x });
        Some(match op {
            Op::Bool(value) => Value::Bool(value),
            Op::Int(value) => Value::Int(value),
            Op::Float(value) => round(value),
            Op::Var(var) => self.var(var),
            Op::Unary(op, a) => match (op, self.value(a)?) {
                (Unary::Not, Value::Bool(a)) => Value::Bool(!a),
                (Unary::Neg, Value::Int(a)) => Value::Int(a.wrapping_neg()),
                (Unary::Abs, Value::Int(a)) => Value::Int(a.wrapping_abs()),
                (Unary::ToFloat, Value::Int(a)) => {
                    Value::Float(if in_f32 { a as f32 as f64 } else { a as f64 })
                }
                (Unary::ToInt, Value::Float(a)) => Value::Int(exact::to_int(a as f32)),
                (_, Value::Float(a)) if in_f32 => Value::Float(exact::unary(op, a as f32) as f64),
                (_, Value::Float(a)) => Value::Float(unary_f64(op, a)),
                other => panic!("{other:?}"),
            },
            Op::Binary(Binary::And, a, b) => match self.value(a)? {
                Value::Bool(true) => self.value(b)?,
                no => no,
            },
            Op::Binary(Binary::Or, a, b) => match self.value(a)? {
                Value::Bool(false) => self.value(b)?,
                yes => yes,
            },
            Op::Binary(op, a, b) => match (self.value(a)?, self.value(b)?) {
                (Value::Bool(a), Value::Bool(b)) => Value::Bool((a == b) == (op == Binary::Eq)),
                (Value::Int(a), Value::Int(b)) => match compare(op, a, b) {
                    Some(truth) => Value::Bool(truth),
                    None => Value::Int(exact::binary_int(op, a, b)),
                },
                (Value::Float(a), Value::Float(b)) => match compare(op, a, b) {
                    Some(truth) => Value::Bool(truth),
                    None if in_f32 => Value::Float(exact::binary(op, a as f32, b as f32) as f64),
                    None => Value::Float(binary_f64(op, a, b)),
                },
                other => panic!("{other:?}"),
            },
            Op::Select(condition, a, b) => match self.value(condition)? {
                Value::Bool(true) => self.value(a)?,
                _ => self.value(b)?,
            },
            Op::Alibi { head, heads } => match self.value(head)? {
                Value::Int(head) => round(exact::alibi_slope(head, heads)),
                other => panic!("{other:?}"),
            },
            Op::Input { input, rank, index } => {
                let mut at = [0; MAX_AXES];
                for (at, &id) in at.iter_mut().zip(&index[..rank as usize]) {
                    let Value::Int(index) = self.value(id)? else { panic!("an index is an int") };
                    *at = index;
                }
                let offset = self.inputs.offset(input as usize, &at[..rank as usize])?;
                element(self.inputs.data(input as usize), offset)
            }
        })
    }

    fn var(&self, var: Var) -> Value {
        Value::Int(match var {
            Var::B => self.at.b,
            Var::H => self.at.h,
            Var::G => self.at.g,
            Var::Q => self.at.q,
            Var::K => self.at.k,
            Var::Nq => self.at.nq,
            Var::Nk => self.at.nk,
            Var::S | Var::X => panic!("a mask reads neither s nor x"),
        })
    }
}

fn compare<T: PartialOrd>(op: Binary, a: T, b: T) -> Option<bool> {
    Some(match op {
        Binary::Lt => a < b,
        Binary::Le => a <= b,
        Binary::Eq => a == b,
        Binary::Ne => a != b,
        _ => return None,
    })
}

fn unary_f64(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sqrt => x.sqrt(),
        Unary::Exp => x.exp(),
        Unary::Exp2 => x.exp2(),
        Unary::Log => x.ln(),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Unary::Elu => {
            if x > 0.0 {
                x
            } else {
                x.exp_m1()
            }
        }
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        other => panic!("{other:?} of a float that decides nothing"),
    }
}

fn binary_f64(op: Binary, a: f64, b: f64) -> f64 {
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Pow => a.powf(b),
        Binary::Min => {
            if b < a {
                b
            } else {
                a
            }
        }
        Binary::Max => {
            if b > a {
                b
            } else {
                a
            }
        }
        other => panic!("{other:?} of floats"),
    }
}

fn element(data: &InputData<'_>, offset: usize) -> Value {
    match data {
        InputData::F32(data) => Value::Float(data[offset] as f64),
        InputData::I32(data) => Value::Int(data[offset]),
        InputData::Bool(data) => Value::Bool(data[offset] != 0),
    }
}

/// Ranges of inputs by a look at every element of the box.
pub(crate) struct Exhaustive<'a>(pub(crate) &'a Captured<'a>);

impl InputRanges for Exhaustive<'_> {
    fn range(&self, input: usize, index: &[Span]) -> Range {
        let dims = self.0.dims(input, &[]);
        let any = Range::any(self.0.shape(input).dtype);
        if index.iter().zip(dims).any(|(span, dim)| span.lo < 0 || span.hi >= dim as i32) {
            return any;
        }
        let mut values = Vec::new();
        let mut at: Vec<i32> = index.iter().map(|span| span.lo).collect();
        loop {
            values.push(element(self.0.data(input), self.0.offset(input, &at).expect("inside its axes")));
            let Some(axis) = (0..at.len()).rev().find(|&axis| at[axis] < index[axis].hi) else { break };
            at[axis] += 1;
            for inner in axis + 1..at.len() {
                at[inner] = index[inner].lo;
            }
        }
        values.into_iter().map(single).reduce(union).unwrap_or(any)
    }
}

fn single(value: Value) -> Range {
    match value {
        Value::Bool(value) => Range::Bool { can_be_false: !value, can_be_true: value },
        Value::Int(value) => Range::Int(Span::point(value)),
        Value::Float(x) if x.is_nan() => Range::Float { lo: f64::INFINITY, hi: f64::NEG_INFINITY, nan: true },
        Value::Float(x) => Range::Float { lo: x, hi: x, nan: false },
    }
}

fn union(a: Range, b: Range) -> Range {
    match (a, b) {
        (Range::Bool { can_be_false: f, can_be_true: t }, Range::Bool { can_be_false, can_be_true }) => {
            Range::Bool { can_be_false: f || can_be_false, can_be_true: t || can_be_true }
        }
        (Range::Int(a), Range::Int(b)) => Range::Int(Span { lo: a.lo.min(b.lo), hi: a.hi.max(b.hi) }),
        (Range::Float { lo, hi, nan }, Range::Float { lo: l, hi: h, nan: n }) => {
            Range::Float { lo: lo.min(l), hi: hi.max(h), nan: nan || n }
        }
        _ => panic!("{a:?} and {b:?} differ in type"),
    }
}

/// Whether the range holds the value.
pub(crate) fn holds(range: Range, value: Value) -> bool {
    match (range, value) {
        (Range::Bool { can_be_false, can_be_true }, Value::Bool(value)) => {
            if value {
                can_be_true
            } else {
                can_be_false
            }
        }
        (Range::Int(span), Value::Int(value)) => span.lo <= value && value <= span.hi,
        (Range::Float { nan, .. }, Value::Float(x)) if x.is_nan() => nan,
        (Range::Float { lo, hi, .. }, Value::Float(x)) => lo <= x && x <= hi,
        _ => false,
    }
}

/// Every point of a region.
pub(crate) fn points(region: &Region) -> impl Iterator<Item = Point> {
    let each = |span: Span| span.lo..=span.hi;
    let Region { b, h, g, q, k, nq, nk } = *region;
    each(b).flat_map(move |b| {
        each(h).flat_map(move |h| {
            each(g).flat_map(move |g| {
                each(q).flat_map(move |q| each(k).map(move |k| Point { b, h, g, q, k, nq, nk }))
            })
        })
    })
}

/// Builds trees by hand.
#[derive(Default)]
pub(crate) struct Build {
    pub(crate) nodes: Vec<Node>,
}

impl Build {
    pub(crate) fn push(&mut self, op: Op, ty: Type, exact: bool) -> NodeId {
        self.nodes.push(Node { op, ty, exact });
        (self.nodes.len() - 1) as NodeId
    }

    pub(crate) fn int(&mut self, value: i32) -> NodeId {
        self.push(Op::Int(value), Type::Int, true)
    }

    pub(crate) fn var(&mut self, var: Var) -> NodeId {
        self.push(Op::Var(var), Type::Int, true)
    }

    pub(crate) fn arith(&mut self, op: Binary, a: NodeId, b: NodeId) -> NodeId {
        self.push(Op::Binary(op, a, b), Type::Int, true)
    }

    pub(crate) fn test(&mut self, op: Binary, a: NodeId, b: NodeId) -> NodeId {
        self.push(Op::Binary(op, a, b), Type::Bool, true)
    }

    pub(crate) fn not(&mut self, a: NodeId) -> NodeId {
        self.push(Op::Unary(Unary::Not, a), Type::Bool, true)
    }
}
