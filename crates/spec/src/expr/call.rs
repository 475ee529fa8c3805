//! Functions: their arguments checked, and what they stand for.

use regard_ir::expr::{Binary, Op, Type, Unary, Var};

use super::ast::{Operator, Span};
use super::check::{Checked, Checker, Fault, INTS_GO, Value, expect, number};
use super::facts::Facts;
use super::functions::{Function, Signature};
use crate::codes::Code;

impl Checker {
    /// A call with as many arguments as the function takes.
    pub(super) fn call(&mut self, signature: &Signature, args: &[Value], span: &Span) -> Checked {
        let name = signature.name;
        match (signature.function, args) {
            (Function::Abs, [a]) => {
                number(a, name)?;
                self.unary(Unary::Abs, a.clone(), span)
            }
            (Function::Int, [a]) => {
                number(a, name)?;
                match a.ty {
                    Some(Type::Float) => {
                        self.fits_an_int(a, span)?;
                        self.unary(Unary::ToInt, a.clone(), span)
                    }
                    _ => Ok(Value { ty: Some(Type::Int), node: a.node, span: span.clone() }),
                }
            }
            (Function::Float(unary), [a]) => {
                let a = self.float_arg(a, name)?;
                self.unary(unary, a, span)
            }
            (Function::Silu, [a]) => {
                let a = self.float_arg(a, name)?;
                let gate = self.unary(Unary::Sigmoid, a.clone(), span)?;
                self.binary(Binary::Mul, Type::Float, a, gate, span)
            }
            (Function::Relu, [a]) => {
                let a = self.float_arg(a, name)?;
                let zero = self.float(0.0, span)?;
                self.binary(Binary::Max, Type::Float, a, zero, span)
            }
            (Function::Softcap, [x, cap]) => {
                let (x, cap) = (self.float_arg(x, name)?, self.float_arg(cap, name)?);
                let ratio = self.binary(Binary::Div, Type::Float, x, cap.clone(), span)?;
                let bent = self.unary(Unary::Tanh, ratio, span)?;
                self.binary(Binary::Mul, Type::Float, cap, bent, span)
            }
            (Function::Min | Function::Max, [first, rest @ ..]) => {
                let op = if signature.function == Function::Min { Binary::Min } else { Binary::Max };
                rest.iter().try_fold(first.clone(), |a, b| self.arithmetic(op, name, a, b.clone(), span))
            }
            (Function::Select, [condition, a, b]) => {
                expect(condition, Type::Bool, name)?;
                self.select(condition.clone(), a.clone(), b.clone(), span)
            }
            (Function::Alibi, [head]) => self.alibi(head, span),
            (Function::T5Bucket, [relative, buckets, max_distance, bidirectional]) => {
                expect(relative, Type::Int, name)?;
                let settings = self.t5_settings(buckets, max_distance, bidirectional, name)?;
                match settings {
                    Some(settings) if relative.node.is_some() => self.t5_bucket(relative, settings, span),
                    _ => Ok(Value { ty: Some(Type::Int), node: None, span: span.clone() }),
                }
            }
            // Other numbers of arguments were refused where the name was resolved.
            _ => Ok(Value::unknown(span.clone())),
        }
    }

    fn float_arg(&mut self, a: &Value, name: &str) -> Checked {
        number(a, name)?;
        self.widen(a.clone())
    }

    /// Refuses a constant that no int is.
    fn fits_an_int(&self, a: &Value, span: &Span) -> Checked<()> {
        const INTS: std::ops::Range<f32> = i32::MIN as f32..-(i32::MIN as f32);
        match a.node.map(|id| self.graph.node(id).facts) {
            Some(Facts::Float(Some(value))) if !INTS.contains(&value) => {
                let message = format!("this is {}, outside 32 bits", f64::from(value));
                Err(Fault::new(Code::S033, span, message).label(INTS_GO))
            }
            _ => Ok(()),
        }
    }

    fn alibi(&mut self, head: &Value, span: &Span) -> Checked {
        let (Some(id), Some(heads)) = (head.node, self.heads) else {
            return Ok(Value { ty: Some(Type::Float), node: None, span: span.clone() });
        };
        if self.graph.node(id).op != Op::Var(Var::H) {
            return Err(Fault::new(Code::S037, &head.span, "`alibi` takes `h`, the query head, alone")
                .label("not `h`"));
        }
        self.add(Op::Alibi { head: id, heads: heads.query }, Type::Float, Facts::any(Type::Float), span)
    }

    /// The constant arguments of `t5_bucket`; `None` where one is not known.
    fn t5_settings(
        &self,
        buckets: &Value,
        max_distance: &Value,
        bidirectional: &Value,
        name: &str,
    ) -> Checked<Option<T5>> {
        expect(buckets, Type::Int, name)?;
        expect(max_distance, Type::Int, name)?;
        expect(bidirectional, Type::Bool, name)?;
        let constants = [buckets, max_distance, bidirectional].map(|value| self.constant(value));
        let [Some(Op::Int(total)), Some(Op::Int(distance)), Some(Op::Bool(two_sided))] = constants else {
            let varies = |value: &&&Value| value.node.is_some() && self.constant(value).is_none();
            return match [buckets, max_distance, bidirectional].iter().find(varies) {
                Some(value) => {
                    Err(Fault::new(Code::S037, &value.span, "this argument of `t5_bucket` is no constant")
                        .label("must be a constant"))
                }
                None => Ok(None),
            };
        };
        let per_side = if two_sided { total / 2 } else { total };
        let linear = per_side / 2;
        if linear < 1 {
            let least = if two_sided { 4 } else { 2 };
            let message = format!("`t5_bucket` needs at least {least} buckets, found {total}");
            return Err(Fault::new(Code::S037, &buckets.span, message).label("too few"));
        }
        if distance <= linear {
            let message = format!("the maximum distance must be more than {linear}, found {distance}");
            return Err(Fault::new(Code::S037, &max_distance.span, message)
                .label(format!("distances below {linear} have buckets of their own")));
        }
        Ok(Some(T5 { per_side, linear, distance, two_sided }))
    }

    /// The bucket of a relative position, with the reference's binary32 logarithm and truncation.
    ///
    /// Distances below `linear` have buckets of their own; those above share the rest by their logarithm. With two
    /// sides, later keys take the upper half. Source: Raffel et al., *Exploring the Limits of Transfer Learning
    /// with a Unified Text-to-Text Transformer*, and its reference code.
    fn t5_bucket(&mut self, relative: &Value, t5: T5, span: &Span) -> Checked {
        let T5 { per_side, linear, distance, two_sided } = t5;
        let zero = self.int(0, span)?;
        let n = if two_sided {
            self.unary(Unary::Abs, relative.clone(), span)?
        } else {
            let before = self.unary(Unary::Neg, relative.clone(), span)?;
            self.binary(Binary::Max, Type::Int, before, zero.clone(), span)?
        };
        let edge = self.int(linear.into(), span)?;
        let ratio = {
            let (n, edge) = (self.widen(n.clone())?, self.float(linear.into(), span)?);
            self.binary(Binary::Div, Type::Float, n, edge, span)?
        };
        let log = self.unary(Unary::Log, ratio, span)?;
        let whole_log = self.float(libm::log(f64::from(distance) / f64::from(linear)), span)?;
        let share = self.binary(Binary::Div, Type::Float, log, whole_log, span)?;
        let shared_buckets = self.float((per_side - linear).into(), span)?;
        let past_edge = self.binary(Binary::Mul, Type::Float, share, shared_buckets, span)?;
        let past_edge = self.unary(Unary::ToInt, past_edge, span)?;
        let shared = self.binary(Binary::Add, Type::Int, edge.clone(), past_edge, span)?;
        let last = self.int((per_side - 1).into(), span)?;
        let shared = self.binary(Binary::Min, Type::Int, shared, last, span)?;
        let near = self.compare(Operator::Lt, n.clone(), edge, false)?;
        let bucket = self.select(near, n, shared, span)?;
        if !two_sided {
            return Ok(bucket);
        }
        let later = self.compare(Operator::Lt, zero.clone(), relative.clone(), false)?;
        let half = self.int(per_side.into(), span)?;
        let side = self.select(later, half, zero, span)?;
        self.binary(Binary::Add, Type::Int, side, bucket, span)
    }
}

/// How `t5_bucket` divides distances, all at least 1.
#[derive(Clone, Copy)]
struct T5 {
    /// Buckets of one direction.
    per_side: i32,
    /// Distances with a bucket of their own.
    linear: i32,
    /// From here on all is in the last bucket.
    distance: i32,
    /// Whether later keys have buckets too.
    two_sided: bool,
}
