//! Types: each operation checked, widened where it must be, and added to the graph.

use regard_ir::expr::{Binary, MAX_AXES, NodeId, Op, Type, Unary, Var};
use regard_ir::variant::{Axis, Heads, InputShape, InputType};

use super::ast::{Operator, Span};
use super::facts::{self, Facts, Ints, OutOfRange};
use super::graph::{Graph, Limit, MAX_DEPTH, MAX_NODES};
use crate::codes::Code;

/// The value of an operand.
#[derive(Clone, Debug)]
pub(super) struct Value {
    /// `None` where it is not known: an error is reported, or it is a parameter.
    pub(super) ty: Option<Type>,
    /// `None` where it depends on something that is not known.
    pub(super) node: Option<NodeId>,
    /// Where it is written.
    pub(super) span: Span,
}

impl Value {
    /// A value of which nothing is known.
    pub(super) const fn unknown(span: Span) -> Self {
        Self { ty: None, node: None, span }
    }
}

/// What is wrong with an operation; the expander knows the file and the definition that it is in.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: Code,
    pub(super) span: Span,
    pub(super) message: String,
    pub(super) label: String,
}

impl Fault {
    pub(super) fn new(code: Code, span: &Span, message: impl Into<String>) -> Self {
        Self { code, span: span.clone(), message: message.into(), label: String::new() }
    }

    pub(super) fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }
}

/// What the label of an int outside its type says.
pub(super) const INTS_GO: &str = "ints go from -2147483648 to 2147483647";

/// The value, or what is wrong.
pub(super) type Checked<T = Value> = Result<T, Fault>;

/// Types operations and grows the graph.
pub(super) struct Checker {
    pub(super) graph: Graph,
    pub(super) heads: Option<Heads>,
}

impl Checker {
    pub(super) fn int(&mut self, value: i64, span: &Span) -> Checked {
        if i32::try_from(value).is_err() {
            return Err(Fault::new(Code::S019, span, format!("{value} is outside 32 bits")).label(INTS_GO));
        }
        self.add(Op::Int(value as i32), Type::Int, Facts::Int(Ints::point(value)), span)
    }

    pub(super) fn float(&mut self, value: f64, span: &Span) -> Checked {
        self.add(Op::Float(value), Type::Float, Facts::Float(Some(value as f32)), span)
    }

    pub(super) fn bool(&mut self, value: bool, span: &Span) -> Checked {
        self.add(Op::Bool(value), Type::Bool, Facts::Bool(Some(value)), span)
    }

    pub(super) fn var(&mut self, var: Var, span: &Span) -> Checked {
        self.add(Op::Var(var), var.ty(), Facts::var(var, self.heads.as_ref()), span)
    }

    /// `-a`
    pub(super) fn neg(&mut self, a: Value, span: &Span) -> Checked {
        number(&a, "-")?;
        self.unary(Unary::Neg, a, span)
    }

    /// `!a`
    pub(super) fn not(&mut self, a: Value, span: &Span) -> Checked {
        expect(&a, Type::Bool, "!")?;
        let a = Value { ty: Some(Type::Bool), ..a };
        self.unary(Unary::Not, a, span)
    }

    /// An operation of one operand that has been checked; it gives the operand's type.
    pub(super) fn unary(&mut self, op: Unary, a: Value, span: &Span) -> Checked {
        let ty = match op {
            Unary::ToFloat => Some(Type::Float),
            Unary::ToInt => Some(Type::Int),
            _ => a.ty,
        };
        let (Some(ty), Some(id)) = (ty, a.node) else {
            return Ok(Value { ty, node: None, span: span.clone() });
        };
        let facts = facts::unary(op, self.graph.node(id).facts).map_err(|range| overflow(range, span))?;
        self.add(Op::Unary(op, id), ty, facts, span)
    }

    /// `a op b`, for all but comparisons.
    pub(super) fn operator(&mut self, operator: Operator, a: Value, b: Value, span: &Span) -> Checked {
        let symbol = operator.symbol();
        match operator {
            Operator::And | Operator::Or => {
                let op = if operator == Operator::And { Binary::And } else { Binary::Or };
                expect(&a, Type::Bool, symbol)?;
                expect(&b, Type::Bool, symbol)?;
                self.logic(op, a, b, span)
            }
            Operator::FloorDiv | Operator::Rem => {
                let op = if operator == Operator::Rem { Binary::Rem } else { Binary::FloorDiv };
                expect(&a, Type::Int, symbol)?;
                expect(&b, Type::Int, symbol)?;
                if self.ints(&b) == Some(Ints::point(0)) {
                    return Err(Fault::new(
                        Code::S034,
                        &b.span,
                        format!("the divisor of `{symbol}` is always zero"),
                    )
                    .label("always 0"));
                }
                self.binary(op, Type::Int, a, b, span)
            }
            Operator::Div | Operator::Pow => {
                number(&a, symbol)?;
                number(&b, symbol)?;
                let op = if operator == Operator::Pow { Binary::Pow } else { Binary::Div };
                let (a, b) = (self.widen(a)?, self.widen(b)?);
                self.binary(op, Type::Float, a, b, span)
            }
            _ => {
                let op = match operator {
                    Operator::Add => Binary::Add,
                    Operator::Sub => Binary::Sub,
                    _ => Binary::Mul,
                };
                self.arithmetic(op, symbol, a, b, span)
            }
        }
    }

    /// An operation of two numbers that keeps ints.
    pub(super) fn arithmetic(&mut self, op: Binary, name: &str, a: Value, b: Value, span: &Span) -> Checked {
        number(&a, name)?;
        number(&b, name)?;
        let (Some(_), Some(_)) = (a.ty, b.ty) else {
            let float = [a.ty, b.ty].contains(&Some(Type::Float));
            return Ok(Value { ty: float.then_some(Type::Float), node: None, span: span.clone() });
        };
        let (ty, a, b) = self.alike(a, b)?;
        self.binary(op, ty, a, b, span)
    }

    /// `a op b` of a comparison; `chained` if it is one of several.
    pub(super) fn compare(&mut self, operator: Operator, a: Value, b: Value, chained: bool) -> Checked {
        let symbol = operator.symbol();
        let span = a.span.start.min(b.span.start)..b.span.end.max(a.span.end);
        let equality = matches!(operator, Operator::Eq | Operator::Ne);
        if !equality || chained {
            let bools = [&a, &b].into_iter().find(|value| value.ty == Some(Type::Bool));
            if let (true, Some(bool)) = (equality, bools) {
                let message = format!("`{symbol}` of bools cannot be chained");
                return Err(Fault::new(Code::S030, &bool.span, message).label("this is a bool"));
            }
            number(&a, symbol)?;
            number(&b, symbol)?;
        }
        if let (Some(left), Some(right)) = (a.ty, b.ty)
            && (left == Type::Bool) != (right == Type::Bool)
        {
            let message = format!("`{symbol}` compares {} with {}", type_name(left), type_name(right));
            return Err(
                Fault::new(Code::S030, &b.span, message).label(format!("this is {}", type_name(right)))
            );
        }
        let (a, b) = match (a.ty, b.ty) {
            (Some(_), Some(_)) => {
                let (_, a, b) = self.alike(a, b)?;
                (a, b)
            }
            _ => (a, b),
        };
        match operator {
            Operator::Lt => self.binary(Binary::Lt, Type::Bool, a, b, &span),
            Operator::Le => self.binary(Binary::Le, Type::Bool, a, b, &span),
            Operator::Gt => self.binary(Binary::Lt, Type::Bool, b, a, &span),
            Operator::Ge => self.binary(Binary::Le, Type::Bool, b, a, &span),
            Operator::Eq => self.binary(Binary::Eq, Type::Bool, a, b, &span),
            _ => self.binary(Binary::Ne, Type::Bool, a, b, &span),
        }
    }

    /// `if condition then a else b`
    pub(super) fn select(&mut self, condition: Value, a: Value, b: Value, span: &Span) -> Checked {
        expect(&condition, Type::Bool, "if")?;
        let (Some(left), Some(right)) = (a.ty, b.ty) else {
            return Ok(Value { ty: None, node: None, span: span.clone() });
        };
        if (left == Type::Bool) != (right == Type::Bool) {
            let message = format!("one side is {}, the other {}", type_name(left), type_name(right));
            return Err(
                Fault::new(Code::S032, &b.span, message).label(format!("this is {}", type_name(right)))
            );
        }
        let (ty, a, b) = self.alike(a, b)?;
        let (Some(condition), Some(yes), Some(no)) = (condition.node, a.node, b.node) else {
            return Ok(Value { ty: Some(ty), node: None, span: span.clone() });
        };
        match self.graph.node(condition).op {
            Op::Bool(true) => Ok(Value { span: span.clone(), ..a }),
            Op::Bool(false) => Ok(Value { span: span.clone(), ..b }),
            _ => self.add(Op::Select(condition, yes, no), ty, Facts::any(ty), span),
        }
    }

    /// An element of an input, which has an index for each of its axes.
    pub(super) fn element(
        &mut self,
        input: u16,
        shape: &InputShape,
        indices: &[Value],
        guarded: bool,
        span: &Span,
    ) -> Checked {
        let mut index = [0; MAX_AXES];
        let mut known = true;
        for (i, (value, &axis)) in indices.iter().zip(shape.axes()).enumerate() {
            expect(value, Type::Int, "an index")?;
            if !guarded {
                self.in_axis(value, axis)?;
            }
            known &= value.node.is_some();
            index[i] = value.node.unwrap_or(0);
        }
        let ty = match shape.dtype {
            InputType::F32 => Type::Float,
            InputType::I32 => Type::Int,
            InputType::Bool => Type::Bool,
        };
        if !known {
            return Ok(Value { ty: Some(ty), node: None, span: span.clone() });
        }
        self.add(Op::Input { input, rank: shape.rank, index }, ty, Facts::any(ty), span)
    }

    /// The value as a float.
    pub(super) fn widen(&mut self, value: Value) -> Checked {
        match value.ty {
            Some(Type::Int) => {
                let span = value.span.clone();
                self.unary(Unary::ToFloat, value, &span)
            }
            _ => Ok(Value { ty: Some(Type::Float), ..value }),
        }
    }

    /// What is known of an int.
    pub(super) fn ints(&self, value: &Value) -> Option<Ints> {
        match self.graph.node(value.node?).facts {
            Facts::Int(ints) => Some(ints),
            _ => None,
        }
    }

    /// Whether and which constant a value is.
    pub(super) fn constant(&self, value: &Value) -> Option<Op> {
        let op = self.graph.node(value.node?).op;
        matches!(op, Op::Bool(_) | Op::Int(_)).then_some(op)
    }

    pub(super) fn add(&mut self, op: Op, ty: Type, facts: Facts, span: &Span) -> Checked {
        match self.graph.add(op, ty, facts, span) {
            Ok(node) => Ok(Value { ty: Some(ty), node: Some(node), span: span.clone() }),
            Err(Limit::Nodes) => {
                let message = format!("more than {MAX_NODES} nodes after expansion");
                Err(Fault::new(Code::S022, span, message).label("too large"))
            }
            Err(Limit::Depth) => Err(too_deep(span)),
        }
    }

    /// Two numbers or two bools as values of one type.
    fn alike(&mut self, a: Value, b: Value) -> Checked<(Type, Value, Value)> {
        match (a.ty, b.ty) {
            (Some(Type::Float), _) | (_, Some(Type::Float)) => {
                Ok((Type::Float, self.widen(a)?, self.widen(b)?))
            }
            (ty, _) => Ok((ty.unwrap_or(Type::Int), a, b)),
        }
    }

    fn logic(&mut self, op: Binary, a: Value, b: Value, span: &Span) -> Checked {
        let left = a.node.map(|id| self.graph.node(id).op);
        match left {
            Some(Op::Bool(value)) if value == (op == Binary::And) => Ok(Value { span: span.clone(), ..b }),
            Some(Op::Bool(_)) => Ok(Value { span: span.clone(), ..a }),
            _ => self.binary(op, Type::Bool, a, b, span),
        }
    }

    /// An operation of two operands that have been checked and are alike.
    pub(super) fn binary(&mut self, op: Binary, ty: Type, a: Value, b: Value, span: &Span) -> Checked {
        let (Some(left), Some(right)) = (a.node, b.node) else {
            return Ok(Value { ty: Some(ty), node: None, span: span.clone() });
        };
        let facts = facts::binary(op, self.graph.node(left).facts, self.graph.node(right).facts)
            .map_err(|range| overflow(range, span))?;
        self.add(Op::Binary(op, left, right), ty, facts, span)
    }

    /// Refuses an index that provably leaves its axis.
    fn in_axis(&self, value: &Value, axis: Axis) -> Checked<()> {
        let Some(ints) = self.ints(value) else { return Ok(()) };
        let len = match (axis, self.heads) {
            (Axis::Len(len), _) => Some(i64::from(len)),
            (Axis::Head, Some(heads)) => Some(i64::from(heads.query)),
            (Axis::KvHead, Some(heads)) => Some(i64::from(heads.kv)),
            _ => None,
        };
        let never = ints.hi < 0 || len.is_some_and(|len| ints.lo >= len);
        let not_always = ints.attained && (ints.lo < 0 || len.is_some_and(|len| ints.hi >= len));
        if !never && !not_always {
            return Ok(());
        }
        let found = if ints.lo == ints.hi {
            format!("is {}", ints.lo)
        } else if ints.attained {
            format!("runs from {} to {}", ints.lo, ints.hi)
        } else if ints.hi < 0 {
            format!("is at most {}", ints.hi)
        } else {
            format!("is at least {}", ints.lo)
        };
        let axis = len.map_or("from 0 up".to_string(), |len| format!("from 0 to {}", len - 1));
        Err(Fault::new(Code::S036, &value.span, format!("the index {found}, its axis goes {axis}"))
            .label("leaves its axis"))
    }
}

/// Refuses what is known to be no number.
pub(super) fn number(value: &Value, of: &str) -> Checked<()> {
    if value.ty != Some(Type::Bool) {
        return Ok(());
    }
    Err(mismatch(value, "a number", of))
}

/// Refuses what is known not to be of this type; a float takes ints.
pub(super) fn expect(value: &Value, ty: Type, of: &str) -> Checked<()> {
    match value.ty {
        None => Ok(()),
        Some(found) if found == ty => Ok(()),
        Some(Type::Int) if ty == Type::Float => Ok(()),
        Some(_) => Err(mismatch(value, type_name(ty), of)),
    }
}

fn mismatch(value: &Value, expected: &str, of: &str) -> Fault {
    let found = value.ty.map_or("unknown", type_name);
    let of = if of.contains(' ') { of.to_string() } else { format!("`{of}`") };
    Fault::new(Code::S030, &value.span, format!("{of} needs {expected}, found {found}"))
        .label(format!("this is {found}"))
}

/// A type with its article.
pub(super) const fn type_name(ty: Type) -> &'static str {
    match ty {
        Type::Bool => "a bool",
        Type::Int => "an int",
        Type::Float => "a float",
    }
}

/// An expression passes [`MAX_DEPTH`].
pub(super) fn too_deep(span: &Span) -> Fault {
    let message = format!("nested more than {MAX_DEPTH} deep after expansion");
    Fault::new(Code::S023, span, message).label("too deep")
}

fn overflow(range: OutOfRange, span: &Span) -> Fault {
    let found = if range.lo == range.hi {
        format!("this is {}", range.lo)
    } else {
        format!("this is from {} to {}", range.lo, range.hi)
    };
    let message = format!("{found}, outside 32 bits");
    Fault::new(Code::S033, span, message).label(INTS_GO)
}
