//! The walk through a tree and the definitions that it uses.
//!
//! A definition is a macro: its body is walked at each use, with a frame that says what its parameters stand for.
//! A parameter is walked in the frame of the use, so a name in an argument never meets one of the body. Errors
//! inside a body are reported at the use, in the text of the spec.

use regard_ir::expr::{Type, Var};

use super::ast::{AstId, AstNode, Operator, Span, Syntax};
use super::check::{Checked, Checker, Fault, INTS_GO, Value, expect, too_deep};
use super::define::Definition;
use super::functions::{Constant, Function, Signature};
use super::graph::{Graph, MAX_DEPTH, MAX_NODES};
use super::names::{self, Target};
use super::{Body, Env, Place};
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink, quote};

/// Nodes that all expressions of a spec may make together, unused definitions included.
const MAX_WORK: u32 = 1_000_000;

/// Expands one expression.
pub(super) struct Expander<'a, 's> {
    place: Place,
    env: &'a Env<'a>,
    sink: &'s mut Sink,
    checker: Checker,
    frames: Vec<Frame<'a>>,
    /// Definitions and parameters that were walked into.
    uses: u32,
    depth: u32,
}

/// One use of a definition, or the expression itself.
struct Frame<'a> {
    body: &'a Body,
    /// The definition, where it is used.
    definition: Option<&'a Definition>,
    /// What the parameters stand for; none where the definition is checked by itself.
    args: Vec<Arg>,
    /// The use in the text of the expression itself.
    site: Span,
}

/// An argument: a node of the frame in which it was written.
#[derive(Clone, Copy)]
struct Arg {
    frame: usize,
    node: AstId,
}

/// A limit is passed and reported: the walk ends.
pub(super) struct Stop;

type Walked = Result<Value, Stop>;

impl<'a, 's> Expander<'a, 's> {
    pub(super) fn new(body: &'a Body, place: Place, env: &'a Env<'a>, sink: &'s mut Sink) -> Self {
        let root = Frame { body, definition: None, args: Vec::new(), site: 0..0 };
        let checker = Checker { graph: Graph::default(), heads: env.heads };
        Self { place, env, sink, checker, frames: vec![root], uses: 0, depth: 0 }
    }

    /// Walks all of it; `None` past a limit.
    pub(super) fn root(&mut self) -> Option<Value> {
        let root = self.frames[0].body.ast.root();
        self.walk(0, root, false).ok()
    }

    /// The graph with the value as its root, which must have this type; `None` where something was reported.
    pub(super) fn finish(mut self, value: Value, ty: Type) -> Option<Graph> {
        let root = self.frames[0].body;
        if let Err(fault) = expect(&value, ty, self.place.name()) {
            let location = root.text.token();
            self.sink.push(Diagnostic::new(Code::S031, &location, fault.message).label(fault.label));
            return None;
        }
        let typed = if ty == Type::Float { self.checker.widen(value) } else { Ok(value) };
        let value = self.settle(0, typed).ok()?;
        self.checker.graph.root = value.node?;
        Some(self.checker.graph)
    }

    fn walk(&mut self, frame: usize, id: AstId, guarded: bool) -> Walked {
        let body = self.frames[frame].body;
        let node = body.ast.node(id);
        let span = self.site(frame, &node.span);
        if self.depth == MAX_DEPTH {
            return self.stop(frame, too_deep(&span));
        }
        self.depth += 1;
        let value = match &node.syntax {
            Syntax::Int(_) | Syntax::Float(_) | Syntax::Bool(_) => self.literal(frame, node, &span),
            Syntax::Name | Syntax::Call(_) | Syntax::Index(_) => self.named(frame, id, node, &span, guarded),
            Syntax::Not(a) => {
                let a = self.walk(frame, *a, guarded)?;
                let value = self.checker.not(a, &span);
                self.settle(frame, value)
            }
            Syntax::Neg(a) => self.negation(frame, *a, &span, guarded),
            Syntax::Pow(a, b) => {
                let (a, b) = (self.walk(frame, *a, guarded)?, self.walk(frame, *b, guarded)?);
                let value = self.checker.operator(Operator::Pow, a, b, &span);
                self.settle(frame, value)
            }
            Syntax::If(condition, a, b) => {
                let condition = self.walk(frame, *condition, guarded)?;
                let (a, b) = (self.walk(frame, *a, true)?, self.walk(frame, *b, true)?);
                let value = self.checker.select(condition, a, b, &span);
                self.settle(frame, value)
            }
            Syntax::Chain(first, rest) if is_comparison(rest[0].0) => {
                self.comparisons(frame, *first, rest, &span, guarded)
            }
            Syntax::Chain(first, rest) => self.chain(frame, *first, rest, node.span.start, guarded),
        };
        self.depth -= 1;
        value
    }

    fn literal(&mut self, frame: usize, node: &AstNode, span: &Span) -> Walked {
        let value = match node.syntax {
            Syntax::Int(Some(value)) if i64::try_from(value).is_ok() => self.checker.int(value as i64, span),
            Syntax::Float(value) => self.checker.float(value, span),
            Syntax::Bool(value) => self.checker.bool(value, span),
            _ => {
                let written = quote(self.frames[frame].body.written(&node.span));
                Err(Fault::new(Code::S019, span, format!("{written} is outside 32 bits")).label(INTS_GO))
            }
        };
        self.settle(frame, value)
    }

    fn negation(&mut self, frame: usize, operand: AstId, span: &Span, guarded: bool) -> Walked {
        // The smallest int is written as the negation of one that does not exist.
        const TWO_TO_31: u64 = 1 << 31;
        let value = if self.frames[frame].body.ast.node(operand).syntax == Syntax::Int(Some(TWO_TO_31)) {
            self.checker.int(i32::MIN.into(), span)
        } else {
            let operand = self.walk(frame, operand, guarded)?;
            self.checker.neg(operand, span)
        };
        self.settle(frame, value)
    }

    fn chain(
        &mut self,
        frame: usize,
        first: AstId,
        rest: &[(Operator, AstId)],
        start: u32,
        guarded: bool,
    ) -> Walked {
        let mut left = self.walk(frame, first, guarded)?;
        for &(operator, operand) in rest {
            let guards = matches!(operator, Operator::And | Operator::Or);
            let right = self.walk(frame, operand, guarded || guards)?;
            let end = self.frames[frame].body.ast.node(operand).span.end;
            let span = self.site(frame, &(start..end));
            let value = self.checker.operator(operator, left, right, &span);
            left = self.settle(frame, value)?;
        }
        Ok(left)
    }

    fn comparisons(
        &mut self,
        frame: usize,
        first: AstId,
        rest: &[(Operator, AstId)],
        span: &Span,
        guarded: bool,
    ) -> Walked {
        let chained = rest.len() > 1;
        let mut left = self.walk(frame, first, guarded)?;
        let mut all: Option<Value> = None;
        for (i, &(operator, operand)) in rest.iter().enumerate() {
            let right = self.walk(frame, operand, guarded || i > 0)?;
            let value = self.checker.compare(operator, left, right.clone(), chained);
            let holds = self.settle(frame, value)?;
            all = Some(match all {
                None => holds,
                Some(before) => {
                    let value = self.checker.operator(Operator::And, before, holds, span);
                    self.settle(frame, value)?
                }
            });
            left = right;
        }
        Ok(all.unwrap_or(left))
    }

    fn named(&mut self, frame: usize, id: AstId, node: &'a AstNode, span: &Span, guarded: bool) -> Walked {
        let (args, index): (&[AstId], bool) = match &node.syntax {
            Syntax::Call(args) => (args, false),
            Syntax::Index(indices) => (indices, true),
            _ => (&[], false),
        };
        match self.frames[frame].body.targets[id as usize] {
            Target::Nothing | Target::Wrong => Ok(Value::unknown(span.clone())),
            Target::Var(var) if !self.place.allows(var) => {
                let name = quote(self.frames[frame].body.written(&node.name));
                let message = format!("{name} cannot be read in {}", self.place.name());
                let why = match (self.place, var) {
                    (Place::Scale, _) => "only constants",
                    (Place::FeatureMap, _) => "only `x` and constants",
                    (_, Var::X) => "only a feature map has it",
                    _ => "only a score modifier has it",
                };
                self.report(frame, Fault::new(Code::S026, span, message).label(why))
            }
            Target::Var(var) => {
                let value = self.checker.var(var, span);
                self.settle(frame, value)
            }
            Target::Constant(constant) => {
                let value = self.constant(constant, span);
                self.settle(frame, value)
            }
            Target::Function(signature) => self.function(frame, signature, args, span, guarded),
            Target::Input(input) => self.element(frame, input, args, span, guarded),
            Target::Param(param) => match self.frames[frame].args.get(param).copied() {
                None => Ok(Value::unknown(span.clone())),
                Some(_) if index => match self.input_of(frame, param) {
                    Ok(Some(input)) => self.element(frame, input, args, span, guarded),
                    Ok(None) => Ok(Value::unknown(span.clone())),
                    Err(fault) => self.report(frame, fault),
                },
                Some(arg) => {
                    self.count_use(frame, span)?;
                    self.walk(arg.frame, arg.node, guarded)
                }
            },
            Target::Definition(definition) => {
                let definition = self.env.definitions.get(definition);
                let Some(body) = definition.body.as_ref().filter(|_| !definition.broken.get()) else {
                    return Ok(Value::unknown(span.clone()));
                };
                self.count_use(frame, span)?;
                let args = args.iter().map(|&node| Arg { frame, node }).collect();
                self.frames.push(Frame { body, definition: Some(definition), args, site: span.clone() });
                let value = self.walk(self.frames.len() - 1, body.ast.root(), guarded)?;
                Ok(Value { span: span.clone(), ..value })
            }
        }
    }

    fn constant(&mut self, constant: Constant, span: &Span) -> Checked {
        let heads = self.env.heads;
        let of_heads = match constant {
            Constant::Pi => return self.checker.float(std::f64::consts::PI, span),
            Constant::Inf => return self.checker.float(f64::INFINITY, span),
            Constant::Heads => heads.map(|heads| heads.query),
            Constant::KvHeads => heads.map(|heads| heads.kv),
            Constant::Dim => heads.map(|heads| heads.dim),
            Constant::ValueDim => heads.map(|heads| heads.value_dim),
        };
        match of_heads {
            Some(value) => self.checker.int(value.into(), span),
            None => Ok(Value { ty: Some(Type::Int), ..Value::unknown(span.clone()) }),
        }
    }

    fn element(
        &mut self,
        frame: usize,
        input: usize,
        indices: &[AstId],
        span: &Span,
        guarded: bool,
    ) -> Walked {
        let declared = &self.env.inputs[input];
        let mut values = Vec::new();
        for &index in indices {
            values.push(self.walk(frame, index, guarded)?);
        }
        let Some(shape) = declared.shape else { return Ok(Value::unknown(span.clone())) };
        if !self.place.allows_inputs() {
            let message = format!("input {} cannot be read in {}", quote(&declared.name), self.place.name());
            return self.report(frame, Fault::new(Code::S026, span, message).label("only constants"));
        }
        let rank = shape.axes().len();
        if rank != values.len() {
            let axes = names::count(rank, "axis", "axes");
            let name = quote(&declared.name);
            let fault = if indices.is_empty() {
                let message = format!("input {name} has {axes} and is used as a number");
                Fault::new(Code::S025, span, message).label("read an element, one index for each axis")
            } else {
                Fault::new(Code::S035, span, format!("input {name} has {axes}, not {}", values.len()))
                    .label("one index for each axis")
            };
            return self.report(frame, fault);
        }
        let value = self.checker.element(input as u16, &shape, &values, guarded, span);
        self.settle(frame, value)
    }

    /// The input that a parameter stands for; `None` where that is not known.
    fn input_of(&self, mut frame: usize, mut param: usize) -> Checked<Option<usize>> {
        let name = |frame: usize, param: usize| {
            self.frames[frame].definition.map_or("", |definition| definition.params[param].as_str())
        };
        let first = name(frame, param).to_string();
        loop {
            let Some(arg) = self.frames[frame].args.get(param) else { return Ok(None) };
            let body = self.frames[arg.frame].body;
            let node = body.ast.node(arg.node);
            match body.targets[arg.node as usize] {
                Target::Input(input) if node.syntax == Syntax::Name => return Ok(Some(input)),
                Target::Param(outer) if node.syntax == Syntax::Name => (frame, param) = (arg.frame, outer),
                Target::Wrong => return Ok(None),
                _ => {
                    let span = self.site(arg.frame, &node.span);
                    let message = format!("{} must be the name of an input", quote(&first));
                    return Err(Fault::new(Code::S037, &span, message).label("not the name of an input"));
                }
            }
        }
    }

    fn function(
        &mut self,
        frame: usize,
        signature: &Signature,
        args: &[AstId],
        span: &Span,
        guarded: bool,
    ) -> Walked {
        let mut values = Vec::new();
        for (i, &arg) in args.iter().enumerate() {
            let guarded = guarded || (signature.function == Function::Select && i > 0);
            values.push(self.walk(frame, arg, guarded)?);
        }
        let value = self.checker.call(signature, &values, span);
        self.settle(frame, value)
    }

    /// The place, in the expression itself, of something in a frame.
    fn site(&self, frame: usize, span: &Span) -> Span {
        if frame == 0 { span.clone() } else { self.frames[frame].site.clone() }
    }

    fn count_use(&mut self, frame: usize, span: &Span) -> Result<(), Stop> {
        self.uses += 1;
        self.env.work.set(self.env.work.get() + 1);
        let message = if self.uses > MAX_NODES {
            format!("more than {MAX_NODES} uses of definitions and parameters")
        } else if self.env.work.get() > MAX_WORK {
            format!("more than {MAX_WORK} nodes in all expressions together")
        } else {
            return Ok(());
        };
        self.stop(frame, Fault::new(Code::S022, span, message)).map(drop)
    }

    /// The value of an operation, or its fault reported.
    fn settle(&mut self, frame: usize, value: Checked) -> Walked {
        self.env.work.set(self.env.work.get() + 1);
        match value {
            Ok(value) => Ok(value),
            Err(fault) if matches!(fault.code, Code::S022 | Code::S023) => self.stop(frame, fault),
            Err(fault) => self.report(frame, fault),
        }
    }

    fn stop(&mut self, frame: usize, fault: Fault) -> Walked {
        let _ = self.report(frame, fault);
        Err(Stop)
    }

    fn report(&mut self, frame: usize, fault: Fault) -> Walked {
        let location = self.frames[0].body.locate(&fault.span);
        let within = self.frames[frame].definition.map(|definition| {
            let body = self.frames[frame].body;
            format!("`{}` stands for {}", definition.head(), quote(&body.text.decoded))
        });
        self.sink.push(Diagnostic::new(fault.code, &location, fault.message).label(fault.label).help(within));
        Ok(Value::unknown(fault.span))
    }
}

fn is_comparison(operator: Operator) -> bool {
    use Operator::{Eq, Ge, Gt, Le, Lt, Ne};
    matches!(operator, Lt | Le | Gt | Ge | Eq | Ne)
}
