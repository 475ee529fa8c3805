//! The readings of one expression agree: scalar (the oracle's), intervals, and lanes on every instruction set.
//!
//! Bools, ints and floats that decide something agree to the bit; other floats within what each operation states, or,
//! in a tree of many, within the interval that is to hold every reading. A new operation does not compile here until it
//! says what it is held to.

mod faults;
mod lanes;
mod operations;
mod trees;

use regard_engine::catalog::Entry;
use regard_ir::expr::{Expr, Op, Tree, Type, Var};
use regard_ir::identity::Identity;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::interval::{InputRanges, Range, Region, Span};
use regard_ir::variant::{Heads, InputShape, Mechanism, Sink, Source, Variant, Weights};
use regard_oracle::eval::{Scope, Value};

/// A variant of these expressions alone.
fn variant<'a>(heads: Heads, allow: Tree<'a>, modify: Tree<'a>, inputs: &'a [InputShape]) -> Variant<'a> {
    Variant {
        identity: Identity(0),
        heads,
        source: Source::SelfAttention,
        scale: 1.0,
        modify,
        allow,
        weights: Weights::Softmax { sink: Sink::None },
        mechanism: Mechanism::Plain,
        position: None,
        qk_norm: None,
        output: regard_ir::rows::Output::default(),
        inputs,
    }
}

/// The modifier that leaves scores as they are.
fn score() -> Expr {
    Expr::leaf(Op::Var(Var::S), Type::Float)
}

/// The mask that allows all.
fn all() -> Expr {
    Expr::leaf(Op::Bool(true), Type::Bool)
}

/// Inputs of which every element is known, at single indices.
struct Pointwise<'a>(&'a Captured<'a>);

impl InputRanges for Pointwise<'_> {
    fn range(&self, input: usize, index: &[Span]) -> Range {
        let at: Vec<i32> = index.iter().map(|span| span.lo).collect();
        match self.0.offset(input, &at) {
            Some(offset) if index.iter().all(|span| span.lo == span.hi) => match self.0.data(input) {
                InputData::F32(data) if data[offset].is_nan() => {
                    Range::Float { lo: f64::INFINITY, hi: f64::NEG_INFINITY, nan: true }
                }
                InputData::F32(data) => {
                    Range::Float { lo: data[offset].into(), hi: data[offset].into(), nan: false }
                }
                InputData::I32(data) => Range::Int(Span::point(data[offset])),
                InputData::Bool(data) => {
                    Range::Bool { can_be_false: data[offset] == 0, can_be_true: data[offset] != 0 }
                }
            },
            _ => Range::any(self.0.shape(input).dtype),
        }
    }
}

/// The box of one point.
fn point(scope: &Scope) -> Region {
    Region {
        b: Span::point(scope.b),
        h: Span::point(scope.h),
        g: Span::point(scope.g),
        q: Span::point(scope.q),
        k: Span::point(scope.k),
        nq: scope.nq,
        nk: scope.nk,
    }
}

/// Whether a range holds a value.
fn holds(range: Range, value: Value) -> bool {
    match (range, value) {
        (Range::Bool { can_be_false, can_be_true }, Value::Bool(value)) => {
            value && can_be_true || !value && can_be_false
        }
        (Range::Int(span), Value::Int(value)) => span.lo <= value && value <= span.hi,
        (Range::Float { nan, .. }, Value::Float(x)) if x.is_nan() => nan,
        (Range::Float { lo, hi, .. }, Value::Float(x)) => lo <= x && x <= hi,
        _ => false,
    }
}

/// Whether a lane has the bits of an exact float; any NaN is as good as another.
fn same_bits(lane: f32, oracle: f64) -> bool {
    lane.to_bits() == (oracle as f32).to_bits() || lane.is_nan() && oracle.is_nan()
}

fn isa(entry: &Entry) -> &'static str {
    entry.isa.name()
}
