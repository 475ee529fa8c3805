//! Random typed expressions.

use regard_ir::expr::{Binary, MAX_AXES, NodeId, Op, Type, Unary, Var};

use crate::scalar::Build;

/// Random typed trees, drawn from a list of numbers so that a failure shrinks.
pub(crate) struct Random<'a> {
    draws: core::slice::Iter<'a, u32>,
    pub(crate) tree: Build,
}

/// The captured inputs that random trees read: `f32[q]`, `i32[b, k]`, `bool[4]`.
pub(crate) const RANKS: [(Type, u8); 3] = [(Type::Float, 1), (Type::Int, 2), (Type::Bool, 1)];

impl<'a> Random<'a> {
    pub(crate) fn new(draws: &'a [u32]) -> Self {
        Self { draws: draws.iter(), tree: Build::default() }
    }

    fn draw(&mut self, choices: usize) -> usize {
        // Without draws the first choice is taken, which is a leaf everywhere.
        self.draws.next().map_or(0, |&draw| draw as usize % choices)
    }

    pub(crate) fn bool(&mut self, depth: u32) -> NodeId {
        let choices = if depth == 0 { 2 } else { 12 };
        match self.draw(choices) {
            0 => {
                let value = self.draw(2) == 1;
                self.tree.push(Op::Bool(value), Type::Bool, true)
            }
            1 => self.input(2, depth.min(1)),
            2 => {
                let a = self.bool(depth - 1);
                self.tree.not(a)
            }
            3 => self.select(Type::Bool, true, depth),
            4 | 5 => {
                let op = [Binary::And, Binary::Or, Binary::Eq, Binary::Ne][self.draw(4)];
                let (a, b) = (self.bool(depth - 1), self.bool(depth - 1));
                self.tree.test(op, a, b)
            }
            6 | 7 => {
                let op = [Binary::Lt, Binary::Le, Binary::Eq, Binary::Ne][self.draw(4)];
                let (a, b) = (self.float(depth - 1, true), self.float(depth - 1, true));
                self.tree.test(op, a, b)
            }
            _ => {
                let op = [Binary::Lt, Binary::Le, Binary::Eq, Binary::Ne][self.draw(4)];
                let (a, b) = (self.int(depth - 1), self.int(depth - 1));
                self.tree.test(op, a, b)
            }
        }
    }

    pub(crate) fn int(&mut self, depth: u32) -> NodeId {
        let choices = if depth == 0 { 5 } else { 13 };
        match self.draw(choices) {
            0 | 1 => {
                const LITERALS: [i32; 12] =
                    [0, 1, 2, 3, 5, 8, -1, -3, i32::MIN, i32::MAX, i32::MAX - 7, 1 << 16];
                let value = LITERALS[self.draw(LITERALS.len())];
                self.tree.int(value)
            }
            2 | 3 => {
                let var = [Var::Q, Var::K, Var::B, Var::H, Var::G, Var::Nq, Var::Nk][self.draw(7)];
                self.tree.var(var)
            }
            4 => self.input(1, depth.min(1)),
            5 => {
                let a = self.float(depth - 1, true);
                self.tree.push(Op::Unary(Unary::ToInt, a), Type::Int, true)
            }
            6 => {
                let op = [Unary::Neg, Unary::Abs][self.draw(2)];
                let a = self.int(depth - 1);
                self.tree.push(Op::Unary(op, a), Type::Int, true)
            }
            7 => self.select(Type::Int, true, depth),
            _ => {
                const OPS: [Binary; 7] = [
                    Binary::Add,
                    Binary::Sub,
                    Binary::Mul,
                    Binary::FloorDiv,
                    Binary::Rem,
                    Binary::Min,
                    Binary::Max,
                ];
                let op = OPS[self.draw(OPS.len())];
                let (a, b) = (self.int(depth - 1), self.int(depth - 1));
                self.tree.arith(op, a, b)
            }
        }
    }

    pub(crate) fn float(&mut self, depth: u32, exact: bool) -> NodeId {
        let choices = if depth == 0 { 2 } else { 14 };
        match self.draw(choices) {
            0 => {
                const LITERALS: [f64; 14] = [
                    0.0,
                    1.0,
                    -0.75,
                    0.1,
                    3.0,
                    2.0,
                    -2.0,
                    1e30,
                    1e-42,
                    100.0,
                    f64::INFINITY,
                    f64::NEG_INFINITY,
                    -0.0,
                    1.5,
                ];
                let value = LITERALS[self.draw(LITERALS.len())];
                self.tree.push(Op::Float(value), Type::Float, exact)
            }
            1 => self.input(0, depth.min(1)),
            2 | 3 => {
                let a = self.int(depth - 1);
                self.tree.push(Op::Unary(Unary::ToFloat, a), Type::Float, exact)
            }
            4 => self.select(Type::Float, exact, depth),
            5 => {
                let (head, heads) = (self.int(depth - 1), [1, 8, 12][self.draw(3)]);
                self.tree.push(Op::Alibi { head, heads }, Type::Float, exact)
            }
            6..=9 => {
                const OPS: [Unary; 15] = [
                    Unary::Neg,
                    Unary::Abs,
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
                    Unary::Floor,
                    Unary::Ceil,
                ];
                let op = OPS[self.draw(OPS.len())];
                let exact = exact || matches!(op, Unary::Floor | Unary::Ceil);
                let a = self.float(depth - 1, exact);
                self.tree.push(Op::Unary(op, a), Type::Float, exact)
            }
            _ => {
                const OPS: [Binary; 7] = [
                    Binary::Add,
                    Binary::Sub,
                    Binary::Mul,
                    Binary::Div,
                    Binary::Pow,
                    Binary::Min,
                    Binary::Max,
                ];
                let op = OPS[self.draw(OPS.len())];
                let (a, b) = (self.float(depth - 1, exact), self.float(depth - 1, exact));
                self.tree.push(Op::Binary(op, a, b), Type::Float, exact)
            }
        }
    }

    fn select(&mut self, ty: Type, exact: bool, depth: u32) -> NodeId {
        let condition = self.bool(depth - 1);
        let mut side = || match ty {
            Type::Bool => self.bool(depth - 1),
            Type::Int => self.int(depth - 1),
            Type::Float => self.float(depth - 1, exact),
        };
        let (a, b) = (side(), side());
        self.tree.push(Op::Select(condition, a, b), ty, exact)
    }

    fn input(&mut self, input: u16, depth: u32) -> NodeId {
        let (ty, rank) = RANKS[input as usize];
        let mut index = [0; MAX_AXES];
        for index in &mut index[..rank as usize] {
            *index = match self.draw(4) {
                0 => self.tree.var(Var::B),
                1 => self.tree.var(Var::Q),
                2 => self.tree.var(Var::K),
                _ if depth > 0 => self.int(0),
                _ => self.tree.int(1),
            };
        }
        self.tree.push(Op::Input { input, rank, index }, ty, true)
    }
}
