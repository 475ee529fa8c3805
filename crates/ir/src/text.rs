//! What a spec says, as text: expressions with all definitions expanded, heads in words, numbers.

mod lookahead;
mod recurrence;
mod tables;

use alloc::format;
use alloc::string::String;
use core::fmt::{self, Write};

use crate::expr::{Binary, NodeId, Op, Tree, Unary, Var};
use crate::variant::{Axis, Heads, InputShape, Latent};

pub use self::lookahead::{lookahead, score};
pub use self::recurrence::recurrence;
pub use self::tables::{cache, cache_layout, number, output, rows, scaling, weights};

/// How many heads there are, how wide, and who shares keys and values.
pub fn heads(heads: &Heads) -> String {
    let Heads { query, kv, value, dim, value_dim } = *heads;
    let plural = |n: u32| if n == 1 { "" } else { "s" };
    let mut words = format!("{query} query head{} of {dim}", plural(query));
    if kv != query {
        let _ = write!(words, " over {kv} kv head{}", plural(kv));
    }
    if value != kv {
        let _ = write!(words, " and {value} value head{}", plural(value));
    }
    if value_dim != dim {
        let _ = write!(words, ", values of {value_dim}");
    }
    words
}

/// Heads that make keys and values of latents.
pub fn latent(query: u32, latent: &Latent) -> String {
    let Latent { rank, nope_dim, rope_dim, value_dim, form: _ } = *latent;
    let plural = if query == 1 { "" } else { "s" };
    format!(
        "{query} query head{plural} of {nope_dim} + {rope_dim} over latents of {rank} and {rope_dim}, values of {value_dim}"
    )
}

/// A captured input as it is declared, `i32[b, k]`.
pub fn declaration(shape: &InputShape) -> String {
    let mut words = format!("{}[", shape.dtype.name());
    for (i, axis) in shape.axes().iter().enumerate() {
        words.push_str(if i == 0 { "" } else { ", " });
        match axis {
            Axis::Batch => words.push('b'),
            Axis::Head => words.push('h'),
            Axis::KvHead => words.push('g'),
            Axis::Query => words.push('q'),
            Axis::Key => words.push('k'),
            Axis::Len(len) => {
                let _ = write!(words, "{len}");
            }
        }
    }
    words.push(']');
    words
}

/// An expression as it would be written in a spec, its captured inputs called by `names`; past `room` characters it is
/// cut off with `…`: the compiler shares nodes, so a short spec can mean a very long text.
pub fn expression(tree: Tree<'_>, names: &[String], room: usize) -> String {
    let mut printer = Printer { tree, names, text: String::new(), room };
    if printer.node(tree.root(), Level::Choice).is_err() {
        printer.text.push('…');
    }
    printer.text
}

/// A number with its digits in threes: `-1,048,576`.
pub fn grouped(n: impl Into<i128>) -> String {
    let n: i128 = n.into();
    let digits = format!("{}", n.unsigned_abs());
    let mut text = String::from(if n < 0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How tightly operators bind, from the loosest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Choice,
    Or,
    And,
    Comparison,
    Sum,
    Product,
    Unary,
    Atom,
}

/// Writes nodes until its room is used up, which also ends the walk over shared nodes.
struct Printer<'a> {
    tree: Tree<'a>,
    names: &'a [String],
    text: String,
    room: usize,
}

impl Write for Printer<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        for c in piece.chars() {
            self.room = self.room.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(c);
        }
        Ok(())
    }
}

impl Printer<'_> {
    /// Writes a node where an operator binds as tightly as `around`.
    fn node(&mut self, id: NodeId, around: Level) -> fmt::Result {
        match self.tree.node(id).op {
            Op::Bool(value) => write!(self, "{value}"),
            Op::Int(value) => write!(self, "{value}"),
            Op::Float(value) => write!(self, "{value}"),
            Op::Var(var) => self.write_str(variable(var)),
            Op::Unary(Unary::ToFloat, a) => self.node(a, around),
            Op::Unary(Unary::Neg, a) => self.prefix("-", a, around),
            Op::Unary(Unary::Not, a) => self.prefix("!", a, around),
            Op::Unary(op, a) => self.call(unary(op), &[a]),
            Op::Binary(op, a, b) => self.binary(op, a, b, around),
            Op::Select(condition, a, b) => self.call("select", &[condition, a, b]),
            Op::Alibi { head, .. } => self.call("alibi", &[head]),
            Op::Input { input, rank, ref index } => {
                let names = self.names;
                self.write_str(names.get(input as usize).map_or("input", String::as_str))?;
                self.list("[", &index[..rank as usize], "]")
            }
        }
    }

    fn prefix(&mut self, sign: &str, operand: NodeId, around: Level) -> fmt::Result {
        self.enclosed(Level::Unary, around, |printer| {
            printer.write_str(sign)?;
            printer.node(operand, Level::Atom)
        })
    }

    fn binary(&mut self, op: Binary, a: NodeId, b: NodeId, around: Level) -> fmt::Result {
        let (level, sign) = match op {
            Binary::Min => return self.call("min", &[a, b]),
            Binary::Max => return self.call("max", &[a, b]),
            Binary::Or => (Level::Or, "|"),
            Binary::And => (Level::And, "&"),
            Binary::Lt => (Level::Comparison, "<"),
            Binary::Le => (Level::Comparison, "<="),
            Binary::Eq => (Level::Comparison, "=="),
            Binary::Ne => (Level::Comparison, "!="),
            Binary::Add => (Level::Sum, "+"),
            Binary::Sub => (Level::Sum, "-"),
            Binary::Mul => (Level::Product, "*"),
            Binary::Div => (Level::Product, "/"),
            Binary::FloorDiv => (Level::Product, "//"),
            Binary::Rem => (Level::Product, "%"),
            Binary::Pow => (Level::Unary, "^"),
        };
        // Chains associate to the left and need no parentheses there; a chained comparison means something else.
        let tighter = match level {
            Level::Or => Level::And,
            Level::And => Level::Comparison,
            Level::Comparison => Level::Sum,
            Level::Sum => Level::Product,
            Level::Product => Level::Unary,
            Level::Choice | Level::Unary | Level::Atom => Level::Atom,
        };
        let left = if matches!(level, Level::Comparison | Level::Unary) { tighter } else { level };
        self.enclosed(level, around, |printer| {
            printer.node(a, left)?;
            write!(printer, " {sign} ")?;
            printer.node(b, tighter)
        })
    }

    fn call(&mut self, name: &str, operands: &[NodeId]) -> fmt::Result {
        self.write_str(name)?;
        self.list("(", operands, ")")
    }

    fn list(&mut self, open: &str, operands: &[NodeId], close: &str) -> fmt::Result {
        self.write_str(open)?;
        for (i, &operand) in operands.iter().enumerate() {
            self.write_str(if i == 0 { "" } else { ", " })?;
            self.node(operand, Level::Choice)?;
        }
        self.write_str(close)
    }

    fn enclosed(
        &mut self,
        level: Level,
        around: Level,
        write: impl FnOnce(&mut Self) -> fmt::Result,
    ) -> fmt::Result {
        if level >= around {
            return write(self);
        }
        self.write_str("(")?;
        write(self)?;
        self.write_str(")")
    }
}

fn variable(var: Var) -> &'static str {
    match var {
        Var::B => "b",
        Var::H => "h",
        Var::G => "g",
        Var::Q => "q",
        Var::K => "k",
        Var::Nq => "nq",
        Var::Nk => "nk",
        Var::S => "s",
        Var::X => "x",
    }
}

fn unary(op: Unary) -> &'static str {
    match op {
        Unary::Not => "!",
        Unary::Neg => "-",
        Unary::Abs => "abs",
        Unary::ToFloat => "float",
        Unary::ToInt => "int",
        Unary::Floor => "floor",
        Unary::Ceil => "ceil",
        Unary::Sqrt => "sqrt",
        Unary::Exp => "exp",
        Unary::Exp2 => "exp2",
        Unary::Log => "log",
        Unary::Tanh => "tanh",
        Unary::Sigmoid => "sigmoid",
        Unary::Gelu => "gelu",
        Unary::Softplus => "softplus",
        Unary::Elu => "elu",
        Unary::Sin => "sin",
        Unary::Cos => "cos",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_threes() {
        assert_eq!([0, 999, 1000, -1_048_576].map(grouped), ["0", "999", "1,000", "-1,048,576"]);
    }
}
