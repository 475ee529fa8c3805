//! The interval reading of expressions: what a mask can be over a whole box of queries and keys.
//!
//! Every result is sound: a value outside it never occurs, also where ints wrap and floats round. It is tight
//! where each variable occurs once in a term, as in `q - k` or `q // n == k // n`, which is what masks are made of.
//! Nothing is remembered between nodes, so the cost is that of the expression written out as a tree.

mod floats;

use crate::exact;
use crate::expr::{Binary, Node, NodeId, Op, Tree, Type, Unary, Var};
use crate::variant::{InputShape, InputType};
use floats::Floats;

/// The ints from `lo` to `hi`, both included. Empty where `lo > hi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Span {
    /// The smallest.
    pub lo: i32,
    /// The largest.
    pub hi: i32,
}

impl Span {
    /// One int.
    pub const fn point(at: i32) -> Self {
        Self { lo: at, hi: at }
    }

    /// Every int.
    pub const ALL: Span = Span { lo: i32::MIN, hi: i32::MAX };

    /// How many ints it holds.
    pub const fn len(self) -> u64 {
        if self.lo > self.hi { 0 } else { (self.hi as i64 - self.lo as i64 + 1) as u64 }
    }

    /// Whether it holds none.
    pub const fn is_empty(self) -> bool {
        self.lo > self.hi
    }
}

/// A box: what each variable can be. `s` and `x` can be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Batch indices.
    pub b: Span,
    /// Query heads.
    pub h: Span,
    /// Key heads.
    pub g: Span,
    /// Query positions.
    pub q: Span,
    /// Key positions.
    pub k: Span,
    /// Number of queries.
    pub nq: i32,
    /// Number of keys.
    pub nk: i32,
}

/// What a value can be over a region. Sound, not always tight: a value outside it never occurs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// A bool.
    Bool {
        /// Whether it may be false.
        can_be_false: bool,
        /// Whether it may be true.
        can_be_true: bool,
    },
    /// An int.
    Int(Span),
    /// A float from `lo` to `hi`, or NaN if `nan`.
    Float {
        /// The smallest.
        lo: f64,
        /// The largest.
        hi: f64,
        /// Whether it may be NaN.
        nan: bool,
    },
}

/// What a mask is over a whole tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// False everywhere: never visited.
    Dead,
    /// True everywhere: needs no mask code.
    Full,
    /// Perhaps both: tested lane by lane.
    Partial,
}

/// What is known about the elements of captured inputs.
pub trait InputRanges {
    /// What an element can be whose index along each axis lies in `index`.
    ///
    /// Where an index may leave its axis the answer must be every value of the input's type: then no tile is decided
    /// by what is not there, and the lanes that read it can report it.
    fn range(&self, input: usize, index: &[Span]) -> Range;
}

/// Inputs of which only the declared types are known.
#[derive(Clone, Copy, Debug)]
pub struct Unknown<'a>(pub &'a [InputShape]);

impl InputRanges for Unknown<'_> {
    fn range(&self, input: usize, _index: &[Span]) -> Range {
        Range::any(self.0[input].dtype)
    }
}

impl Range {
    /// Every value that an input's element can have.
    pub const fn any(dtype: InputType) -> Self {
        match dtype {
            InputType::F32 => Range::Float { lo: f64::NEG_INFINITY, hi: f64::INFINITY, nan: true },
            InputType::I32 => Range::Int(Span::ALL),
            InputType::Bool => Range::Bool { can_be_false: true, can_be_true: true },
        }
    }
}

impl Region {
    /// Whether some variable has no value, so that nothing is evaluated here.
    pub const fn is_empty(&self) -> bool {
        self.b.is_empty() || self.h.is_empty() || self.g.is_empty() || self.q.is_empty() || self.k.is_empty()
    }
}

/// What `tree` can be over `region`, which must not be empty.
///
/// Recursive from the root, without allocation; sides that `&`, `|`, `if` and `select` cannot reach are not looked
/// at.
pub fn eval(tree: Tree<'_>, region: &Region, inputs: &dyn InputRanges) -> Range {
    let reading = Reading { nodes: tree.nodes(), region, inputs };
    let root = tree.root();
    match tree.ty() {
        Type::Bool => {
            let Truth { can_be_false, can_be_true } = reading.truth(root);
            Range::Bool { can_be_false, can_be_true }
        }
        Type::Int => Range::Int(reading.int(root)),
        Type::Float => {
            let Floats { lo, hi, nan } = reading.float(root);
            Range::Float { lo, hi, nan }
        }
    }
}

/// What a bool can be. Never neither.
#[derive(Clone, Copy)]
struct Truth {
    can_be_false: bool,
    can_be_true: bool,
}

impl Truth {
    const BOTH: Truth = Truth { can_be_false: true, can_be_true: true };

    const fn of(value: bool) -> Self {
        Self { can_be_false: !value, can_be_true: value }
    }

    const fn not(self) -> Self {
        Self { can_be_false: self.can_be_true, can_be_true: self.can_be_false }
    }

    const fn or(self, other: Self) -> Self {
        Self {
            can_be_false: self.can_be_false && other.can_be_false,
            can_be_true: self.can_be_true || other.can_be_true,
        }
    }

    const fn and(self, other: Self) -> Self {
        self.not().or(other.not()).not()
    }

    const fn union(self, other: Self) -> Self {
        Self {
            can_be_false: self.can_be_false || other.can_be_false,
            can_be_true: self.can_be_true || other.can_be_true,
        }
    }

    const fn equal(self, other: Self) -> Self {
        Self {
            can_be_true: self.can_be_true && other.can_be_true || self.can_be_false && other.can_be_false,
            can_be_false: self.can_be_true && other.can_be_false || self.can_be_false && other.can_be_true,
        }
    }
}

struct Reading<'a> {
    nodes: &'a [Node],
    region: &'a Region,
    inputs: &'a dyn InputRanges,
}

/// One function for each type, so that bools and ints stay in registers. An operation that does not give the type
/// asked for, which the compiler never makes, reads as anything.
impl Reading<'_> {
    fn truth(&self, id: NodeId) -> Truth {
        match self.nodes[id as usize].op {
            Op::Bool(value) => Truth::of(value),
            Op::Unary(Unary::Not, a) => self.truth(a).not(),
            Op::Binary(Binary::And, a, b) => {
                let left = self.truth(a);
                if left.can_be_true { left.and(self.truth(b)) } else { left }
            }
            Op::Binary(Binary::Or, a, b) => {
                let left = self.truth(a);
                if left.can_be_false { left.or(self.truth(b)) } else { left }
            }
            Op::Binary(op, a, b) => match self.nodes[a as usize].ty {
                Type::Bool => {
                    let equal = self.truth(a).equal(self.truth(b));
                    match op {
                        Binary::Eq => equal,
                        Binary::Ne => equal.not(),
                        _ => Truth::BOTH,
                    }
                }
                Type::Int => compare_ints(op, self.int(a), self.int(b)),
                Type::Float => compare_floats(op, self.float(a), self.float(b)),
            },
            Op::Select(condition, a, b) => match self.truth(condition) {
                Truth { can_be_false: false, .. } => self.truth(a),
                Truth { can_be_true: false, .. } => self.truth(b),
                _ => self.truth(a).union(self.truth(b)),
            },
            Op::Input { input, rank, ref index } => match self.input(input, &index[..rank as usize]) {
                Range::Bool { can_be_false, can_be_true } => Truth { can_be_false, can_be_true },
                _ => Truth::BOTH,
            },
            _ => Truth::BOTH,
        }
    }

    fn int(&self, id: NodeId) -> Span {
        match self.nodes[id as usize].op {
            Op::Int(value) => Span::point(value),
            Op::Var(var) => self.var(var),
            Op::Unary(op, a) => match op {
                Unary::Neg => {
                    let a = self.int(a);
                    fit(-(a.hi as i64), -(a.lo as i64))
                }
                Unary::Abs => abs(self.int(a)),
                Unary::ToInt => self.float(a).to_int(),
                _ => Span::ALL,
            },
            Op::Binary(op, a, b) => {
                let (a, b) = (self.int(a), self.int(b));
                match op {
                    Binary::Add => fit(a.lo as i64 + b.lo as i64, a.hi as i64 + b.hi as i64),
                    Binary::Sub => fit(a.lo as i64 - b.hi as i64, a.hi as i64 - b.lo as i64),
                    Binary::Mul => corners(a, b, |a, b| a * b),
                    Binary::FloorDiv => floor_div(a, b),
                    Binary::Rem => floor_rem(a, b),
                    Binary::Min => Span { lo: a.lo.min(b.lo), hi: a.hi.min(b.hi) },
                    Binary::Max => Span { lo: a.lo.max(b.lo), hi: a.hi.max(b.hi) },
                    _ => Span::ALL,
                }
            }
            Op::Select(condition, a, b) => match self.truth(condition) {
                Truth { can_be_false: false, .. } => self.int(a),
                Truth { can_be_true: false, .. } => self.int(b),
                _ => union(self.int(a), self.int(b)),
            },
            Op::Input { input, rank, ref index } => match self.input(input, &index[..rank as usize]) {
                Range::Int(span) => span,
                _ => Span::ALL,
            },
            _ => Span::ALL,
        }
    }

    fn float(&self, id: NodeId) -> Floats {
        let Node { ref op, exact, .. } = self.nodes[id as usize];
        match *op {
            Op::Float(value) => Floats::literal(value, exact),
            Op::Unary(Unary::ToFloat, a) => Floats::of_ints(self.int(a), exact),
            Op::Unary(op, a) => self.float(a).unary(op, exact),
            Op::Binary(op, a, b) => self.float(a).binary(op, self.float(b), exact),
            Op::Select(condition, a, b) => match self.truth(condition) {
                Truth { can_be_false: false, .. } => self.float(a),
                Truth { can_be_true: false, .. } => self.float(b),
                _ => self.float(a).union(self.float(b)),
            },
            Op::Alibi { head, heads } => {
                let head = self.int(head);
                if head.lo == head.hi {
                    Floats::literal(exact::alibi_slope(head.lo, heads), exact)
                } else {
                    Floats { lo: 0.0, hi: 1.0, nan: false }
                }
            }
            Op::Input { input, rank, ref index } => match self.input(input, &index[..rank as usize]) {
                Range::Float { lo, hi, nan } => Floats { lo, hi, nan },
                _ => Floats::ANY,
            },
            _ => Floats::ANY,
        }
    }

    fn var(&self, var: Var) -> Span {
        match var {
            Var::B => self.region.b,
            Var::H => self.region.h,
            Var::G => self.region.g,
            Var::Q => self.region.q,
            Var::K => self.region.k,
            Var::Nq => Span::point(self.region.nq),
            Var::Nk => Span::point(self.region.nk),
            Var::S | Var::X => Span::ALL,
        }
    }

    fn input(&self, input: u16, index: &[NodeId]) -> Range {
        let mut spans = [Span::point(0); crate::expr::MAX_AXES];
        for (span, &id) in spans.iter_mut().zip(index) {
            *span = self.int(id);
        }
        self.inputs.range(input as usize, &spans[..index.len()])
    }
}

fn compare_ints(op: Binary, a: Span, b: Span) -> Truth {
    match op {
        Binary::Lt => Truth { can_be_true: a.lo < b.hi, can_be_false: a.hi >= b.lo },
        Binary::Le => Truth { can_be_true: a.lo <= b.hi, can_be_false: a.hi > b.lo },
        Binary::Eq => equal_ints(a, b),
        Binary::Ne => equal_ints(a, b).not(),
        _ => Truth::BOTH,
    }
}

fn equal_ints(a: Span, b: Span) -> Truth {
    Truth {
        can_be_true: a.lo <= b.hi && b.lo <= a.hi,
        can_be_false: a.lo != a.hi || b.lo != b.hi || a.lo != b.lo,
    }
}

fn compare_floats(op: Binary, a: Floats, b: Floats) -> Truth {
    let nan = a.nan || b.nan;
    let equal = Truth {
        can_be_true: a.lo <= b.hi && b.lo <= a.hi,
        can_be_false: nan || a.lo != a.hi || b.lo != b.hi || a.lo != b.lo,
    };
    match op {
        Binary::Lt => Truth { can_be_true: a.lo < b.hi, can_be_false: nan || a.hi >= b.lo },
        Binary::Le => Truth { can_be_true: a.lo <= b.hi, can_be_false: nan || a.hi > b.lo },
        Binary::Eq => equal,
        Binary::Ne => equal.not(),
        _ => Truth::BOTH,
    }
}

/// The span where it fits 32 bits; every int where something in it wraps.
fn fit(lo: i64, hi: i64) -> Span {
    match (i32::try_from(lo), i32::try_from(hi)) {
        (Ok(lo), Ok(hi)) => Span { lo, hi },
        _ => Span::ALL,
    }
}

fn union(a: Span, b: Span) -> Span {
    Span { lo: a.lo.min(b.lo), hi: a.hi.max(b.hi) }
}

fn abs(a: Span) -> Span {
    let (lo, hi) = ((a.lo as i64).abs(), (a.hi as i64).abs());
    let least = if a.lo <= 0 && a.hi >= 0 { 0 } else { lo.min(hi) };
    fit(least, lo.max(hi))
}

/// The span of a function that is monotone in each argument while the other is fixed.
fn corners(a: Span, b: Span, f: impl Fn(i64, i64) -> i64) -> Span {
    let at = |a: i32, b: i32| f(a as i64, b as i64);
    let (w, x, y, z) = (at(a.lo, b.lo), at(a.lo, b.hi), at(a.hi, b.lo), at(a.hi, b.hi));
    fit(w.min(x).min(y.min(z)), w.max(x).max(y.max(z)))
}

/// Divisors of each sign apart, and 0 where the divisor can be 0.
fn floor_div(a: Span, b: Span) -> Span {
    let quotient = |a: i64, b: i64| {
        let rounds_up = a % b != 0 && (a < 0) != (b < 0);
        a / b - rounds_up as i64
    };
    let positive = (b.hi > 0).then(|| corners(a, Span { lo: b.lo.max(1), hi: b.hi }, quotient));
    let negative = (b.lo < 0).then(|| corners(a, Span { lo: b.lo, hi: b.hi.min(-1) }, quotient));
    let zero = (b.lo <= 0 && b.hi >= 0).then_some(Span::point(0));
    [negative, zero]
        .into_iter()
        .flatten()
        .fold(positive, |all, part| match all {
            Some(all) => Some(union(all, part)),
            None => Some(part),
        })
        .unwrap_or(Span::ALL)
}

/// Exact by one divisor where the quotient is the same at both ends; else as wide as the divisors allow.
fn floor_rem(a: Span, b: Span) -> Span {
    if b.lo == b.hi && exact::floor_div(a.lo, b.lo) == exact::floor_div(a.hi, b.lo) {
        return if b.lo == 0 {
            Span::point(0)
        } else {
            Span { lo: exact::floor_rem(a.lo, b.lo), hi: exact::floor_rem(a.hi, b.lo) }
        };
    }
    Span { lo: b.lo.saturating_add(1).min(0), hi: b.hi.saturating_sub(1).max(0) }
}
