//! Instructions that are run as one.
//!
//! An instruction costs as much for reading and writing its slots as for its arithmetic. Two chains that distances and
//! biases are made of take one pass instead of two; nothing is rounded less often.

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
}

impl<T: Copy> Work<T> {
    pub fn map<U: Copy + Default>(self, mut f: impl FnMut(T) -> U) -> Work<U> {
        match self {
            Work::One(op) => Work::One(op.map(f)),
            Work::Difference { a, b } => Work::Difference { a: f(a), b: f(b) },
            Work::Product { a, b, c } => Work::Product { a: f(a), b: f(b), c: f(c) },
        }
    }
}

impl Work<ValueId> {
    pub fn operands(&self) -> Vec<ValueId> {
        match *self {
            Work::One(op) => op.operands().into_iter().collect(),
            Work::Difference { a, b } => vec![a, b],
            Work::Product { a, b, c } => vec![a, b, c],
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
    let mut work: Vec<_> = lowered.instrs.iter().map(|instr| Some(Work::One(instr.op))).collect();
    for (id, instr) in lowered.instrs.iter().enumerate() {
        // What is made here alone and of every score, so that nothing is run more often than before.
        let own = |value: ValueId| {
            let instr = &lowered.instrs[value as usize];
            (uses[value as usize] == 1 && instr.kind == Kind::Full).then_some(instr.op)
        };
        let product = |value: ValueId| match own(value) {
            Some(LaneOp::Binary { op: Binary::Mul, of: Type::Float, a, b }) => Some((a, b)),
            _ => None,
        };
        let (fused, done) = match instr.op {
            LaneOp::Unary { op: Unary::ToFloat, a: of, .. } => match own(of) {
                Some(LaneOp::Binary { op: Binary::Sub, of: Type::Int, a, b }) => {
                    (Work::Difference { a, b }, of)
                }
                _ => continue,
            },
            LaneOp::Binary { op: Binary::Add, of: Type::Float, a: left, b: right } => {
                match (product(left), product(right)) {
                    (_, Some((a, b))) => (Work::Product { a, b, c: left }, right),
                    (Some((a, b)), None) => (Work::Product { a, b, c: right }, left),
                    (None, None) => continue,
                }
            }
            _ => continue,
        };
        work[id] = Some(fused);
        work[done as usize] = None;
    }
    work
}
