//! Instructions that are run as one.
//!
//! An instruction costs as much for reading and writing its slots as for its arithmetic. Chains that distances and
//! biases are made of take one pass instead of two or three; nothing is rounded less often.

use alloc::vec;
use alloc::vec::Vec;

use regard_ir::expr::{Binary, Type, Unary};
use regard_ir::lanes::{Kind, LaneOp, Lowered, ValueId};

/// What a step does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work<T> {
    /// One instruction.
    One(LaneOp<T>),
    /// The difference of two ints, as a float.
    Difference { a: T, b: T },
    /// a · b + c.
    Product { a: T, b: T, c: T },
    /// (key − row) · slope + score, of two ints: a bias that grows with the distance. Each operand depends on what its
    /// name says, the slope on rows.
    Slope { key: T, row: T, slope: T, score: T },
    /// tanh(x · scale) · cap, of two numbers that are the same everywhere: a soft cap.
    Cap { x: T, scale: T, cap: T },
}

impl<T: Copy> Work<T> {
    pub fn map<U: Copy + Default>(self, mut f: impl FnMut(T) -> U) -> Work<U> {
        match self {
            Work::One(op) => Work::One(op.map(f)),
            Work::Difference { a, b } => Work::Difference { a: f(a), b: f(b) },
            Work::Product { a, b, c } => Work::Product { a: f(a), b: f(b), c: f(c) },
            Work::Slope { key, row, slope, score } => {
                Work::Slope { key: f(key), row: f(row), slope: f(slope), score: f(score) }
            }
            Work::Cap { x, scale, cap } => Work::Cap { x: f(x), scale: f(scale), cap: f(cap) },
        }
    }
}

impl Work<ValueId> {
    pub fn operands(&self) -> Vec<ValueId> {
        match *self {
            Work::One(op) => op.operands().into_iter().collect(),
            Work::Difference { a, b } => vec![a, b],
            Work::Product { a, b, c } => vec![a, b, c],
            Work::Slope { key, row, slope, score } => vec![key, row, slope, score],
            Work::Cap { x, scale, cap } => vec![x, scale, cap],
        }
    }
}

/// What is run for each instruction; `None` where another does its work too.
pub(super) fn fuse(lowered: &Lowered) -> Vec<Option<Work<ValueId>>> {
    let mut uses = vec![0u32; lowered.instrs.len()];
    uses[lowered.result as usize] += 1;
    for operand in lowered.instrs.iter().flat_map(|instr| instr.op.operands()) {
        uses[operand as usize] += 1;
    }
    let work = lowered.instrs.iter().map(|instr| Some(Work::One(instr.op))).collect();
    let mut chains = Chains { lowered, uses, work };
    for id in 0..lowered.instrs.len() {
        if let Some((fused, done)) = chains.ending_with(lowered.instrs[id].op) {
            chains.work[id] = Some(fused);
            done.into_iter().for_each(|done| chains.work[done as usize] = None);
        }
    }
    chains.work
}

/// The instructions of a program, those before the one at hand fused.
struct Chains<'a> {
    lowered: &'a Lowered,
    /// How many instructions read each value.
    uses: Vec<u32>,
    work: Vec<Option<Work<ValueId>>>,
}

/// A fused step, and the values that need no step of their own any more.
type Fused = (Work<ValueId>, Vec<ValueId>);

impl Chains<'_> {
    fn kind(&self, value: ValueId) -> Kind {
        self.lowered.instrs[value as usize].kind
    }

    /// What makes a value that one instruction reads, of every score: nothing is run more often than before.
    fn own(&self, value: ValueId) -> Option<Work<ValueId>> {
        let is_own = self.uses[value as usize] == 1 && self.kind(value) == Kind::Full;
        self.work[value as usize].filter(|_| is_own)
    }

    /// The factors of a product of its own.
    fn product(&self, value: ValueId) -> Option<(ValueId, ValueId)> {
        match self.own(value)? {
            Work::One(LaneOp::Binary { op: Binary::Mul, of: Type::Float, a, b }) => Some((a, b)),
            _ => None,
        }
    }

    fn ending_with(&self, op: LaneOp<ValueId>) -> Option<Fused> {
        match op {
            LaneOp::Unary { op: Unary::ToFloat, a: of, .. } => match self.own(of)? {
                Work::One(LaneOp::Binary { op: Binary::Sub, of: Type::Int, a, b }) => {
                    Some((Work::Difference { a, b }, vec![of]))
                }
                _ => None,
            },
            LaneOp::Binary { op: Binary::Add, of: Type::Float, a, b } => {
                self.sum(b, a).or_else(|| self.sum(a, b))
            }
            LaneOp::Binary { op: Binary::Mul, of: Type::Float, a, b } => {
                self.cap(a, b).or_else(|| self.cap(b, a))
            }
            _ => None,
        }
    }

    /// A product and `c`.
    fn sum(&self, product: ValueId, c: ValueId) -> Option<Fused> {
        let (a, b) = self.product(product)?;
        let slope = |distance: ValueId, slope: ValueId| match self.own(distance)? {
            Work::Difference { a: key, b: row } => {
                let kinds = [key, row, slope, c].map(|operand| self.kind(operand));
                let step = (Work::Slope { key, row, slope, score: c }, vec![product, distance]);
                (kinds == [Kind::Key, Kind::Row, Kind::Row, Kind::Full]).then_some(step)
            }
            _ => None,
        };
        slope(a, b).or_else(|| slope(b, a)).or_else(|| Some((Work::Product { a, b, c }, vec![product])))
    }

    /// `cap` and a tanh of a product.
    fn cap(&self, tanh: ValueId, cap: ValueId) -> Option<Fused> {
        let Work::One(LaneOp::Unary { op: Unary::Tanh, exact: false, a: product, .. }) = self.own(tanh)?
        else {
            return None;
        };
        let (a, b) = self.product(product)?;
        let (x, scale) = if self.kind(b) == Kind::Uniform { (a, b) } else { (b, a) };
        let kinds = [x, scale, cap].map(|operand| self.kind(operand));
        let step = (Work::Cap { x, scale, cap }, vec![product, tanh]);
        (kinds == [Kind::Full, Kind::Uniform, Kind::Uniform]).then_some(step)
    }
}
