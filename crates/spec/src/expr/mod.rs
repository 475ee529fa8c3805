//! Expressions: text to a typed tree.
//!
//! The phases, in order: [`lex`] and [`parse`] read the text; [`names`] says what each name stands for, and
//! [`define`] orders the definitions; [`expand`] walks the tree through the definitions and hands each operation to
//! [`check`], which types it and grows a [`graph`] of shared nodes; [`lower`] marks the floats that decide
//! something, folds constants and gives the tree that the readings take.

pub(crate) mod ast;
pub(crate) mod boundary;
mod call;
mod check;
pub(crate) mod define;
mod expand;
mod facts;
mod fold;
mod foreign;
pub(crate) mod functions;
pub(crate) mod graph;
pub(crate) mod lex;
mod lower;
pub(crate) mod names;
mod parse;

use std::cell::Cell;

use regard_ir::expr::{Expr, Op, Type, Var};
use regard_ir::variant::{Heads, InputShape};

use self::ast::{Ast, Span};
use self::define::Definitions;
use self::expand::Expander;
use self::facts::Facts;
use self::graph::Graph;
use self::names::Target;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink};
use crate::notes;
use crate::source::{Location, Text};

pub(crate) use self::lex::is_name;
pub(crate) use self::lower::Comparison;

/// What all expressions of a spec can read.
pub(crate) struct Env<'a> {
    /// `None` where they could not be read.
    pub(crate) heads: Option<Heads>,
    pub(crate) inputs: &'a [Input],
    pub(crate) definitions: &'a Definitions,
    /// Nodes made for all expressions so far.
    pub(crate) work: Cell<u32>,
}

/// A declared input.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) name: String,
    /// `None` where the declaration could not be read.
    pub(crate) shape: Option<InputShape>,
}

/// What an expression is for, which settles what it may read and must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Mask,
    Modifier,
    /// What sigmoid and relu weights add to a score.
    Bias,
    Scale,
    /// What elements of q and k become.
    FeatureMap,
    /// A definition by itself, which may be used anywhere.
    Definition,
}

impl Place {
    /// Where tables have expressions.
    pub(crate) const IN_TABLES: [(&str, Place); 6] = [
        ("mask.allow", Place::Mask),
        ("lookahead.allow", Place::Mask),
        ("score.modify", Place::Modifier),
        ("weights.bias", Place::Bias),
        ("score.scale", Place::Scale),
        ("recurrence.feature_map", Place::FeatureMap),
    ];

    const fn name(self) -> &'static str {
        match self {
            Place::Mask => "a mask",
            Place::Modifier => "a score modifier",
            Place::Bias => "a bias of weights",
            Place::Scale => "a scale",
            Place::FeatureMap => "a feature map",
            Place::Definition => "a definition",
        }
    }

    pub(crate) const fn allows(self, var: Var) -> bool {
        match (self, var) {
            (Place::Definition, _) | (Place::FeatureMap, Var::X) => true,
            (Place::Scale | Place::FeatureMap, _) | (_, Var::X) | (Place::Mask | Place::Bias, Var::S) => {
                false
            }
            (Place::Mask | Place::Modifier | Place::Bias, _) => true,
        }
    }

    /// Whether it may read inputs.
    pub(crate) const fn allows_inputs(self) -> bool {
        !matches!(self, Place::Scale | Place::FeatureMap)
    }
}

/// A parsed expression whose names are known.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) text: Text,
    ast: Ast,
    /// For each node, what its name stands for.
    targets: Vec<Target>,
}

impl Body {
    /// Parses an expression; names are for [`names::resolve`]. `None` if it is not one, which is then reported.
    pub(crate) fn parse(text: Text, sink: &mut Sink) -> Option<Self> {
        match parse::parse(&text.decoded) {
            Ok(ast) => Some(Self { text, ast, targets: Vec::new() }),
            Err(error) => {
                sink.push(error.at(&text));
                None
            }
        }
    }

    fn locate(&self, span: &Span) -> Location {
        self.text.locate(span.start as usize..span.end as usize)
    }

    fn written(&self, span: &Span) -> &str {
        &self.text.decoded[span.start as usize..span.end as usize]
    }
}

/// Compiles a mask, `all` where there is none, which is false wherever one of the comparisons is.
pub(crate) fn mask(
    text: Option<Text>,
    comparisons: &[Comparison],
    env: &Env<'_>,
    sink: &mut Sink,
) -> Option<Expr> {
    let Some(text) = text else { return Some(lower::lower_and(None, comparisons)) };
    let body = resolved(text, env, sink)?;
    let mut expander = Expander::new(&body, Place::Mask, env, sink);
    let value = expander.root()?;
    let graph = expander.finish(value, Type::Bool)?;
    Some(lower::lower_and(Some(&graph), comparisons))
}

/// What is added to every modified score.
#[derive(Clone, Debug)]
pub(crate) enum Bias {
    Number(f64),
    Expression(Text),
}

/// Compiles a score modifier, `s` where there is none, and adds a bias to it; notes what is odd about the modifier.
///
/// `shiftless` weights are those that a term which is the same for all keys does not change.
pub(crate) fn modifier(
    modify: Option<Text>,
    bias: Option<Bias>,
    shiftless: bool,
    env: &Env<'_>,
    sink: &mut Sink,
) -> Option<Expr> {
    let modified = match modify {
        None => Some(Graph::leaf(Op::Var(Var::S), Type::Float, Facts::any(Type::Float))),
        Some(text) => float(text, Place::Modifier, env, sink).map(|(body, graph)| {
            notes::modifier(&graph, shiftless, |span| body.locate(span), sink);
            graph
        }),
    };
    let bias = match bias {
        None => return modified.map(|modified| lower::lower(&modified)),
        Some(Bias::Number(bias)) => {
            Some(Graph::leaf(Op::Float(bias), Type::Float, Facts::Float(Some(bias as f32))))
        }
        Some(Bias::Expression(text)) => float(text, Place::Bias, env, sink).map(|(_, graph)| graph),
    };
    Some(lower::lower_sum(&modified?, &bias?))
}

/// Compiles a feature map, `x` where there is none.
pub(crate) fn feature_map(text: Option<Text>, env: &Env<'_>, sink: &mut Sink) -> Option<Expr> {
    let graph = match text {
        None => Graph::leaf(Op::Var(Var::X), Type::Float, Facts::any(Type::Float)),
        Some(text) => float(text, Place::FeatureMap, env, sink)?.1,
    };
    Some(lower::lower(&graph))
}

/// Parses an expression and checks that it is a float.
fn float(text: Text, place: Place, env: &Env<'_>, sink: &mut Sink) -> Option<(Body, Graph)> {
    let body = resolved(text, env, sink)?;
    let mut expander = Expander::new(&body, place, env, sink);
    let value = expander.root()?;
    let graph = expander.finish(value, Type::Float)?;
    Some((body, graph))
}

/// Computes a scale in f64.
pub(crate) fn scale(text: Text, env: &Env<'_>, sink: &mut Sink) -> Option<f64> {
    let body = resolved(text, env, sink)?;
    let mut expander = Expander::new(&body, Place::Scale, env, sink);
    let value = expander.root()?;
    let graph = expander.finish(value, Type::Float)?;
    match lower::lower(&graph).tree().nodes() {
        [node] if matches!(node.op, Op::Float(value) if value.is_finite()) => {
            let Op::Float(value) = node.op else { return None };
            Some(value)
        }
        _ => {
            sink.push(
                Diagnostic::new(Code::S038, &body.text.token(), "the scale is not a finite number")
                    .label("infinite, or no number at all"),
            );
            None
        }
    }
}

fn resolved(text: Text, env: &Env<'_>, sink: &mut Sink) -> Option<Body> {
    let mut body = Body::parse(text, sink)?;
    let scope =
        names::Scope { params: &[], inputs: env.inputs, definitions: env.definitions, prelude: false };
    names::resolve(&mut body, &scope, sink);
    Some(body)
}

/// An error of the text of one expression, not yet placed in a file.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    code: Code,
    span: Span,
    message: String,
    label: String,
    help: Option<String>,
}

impl SyntaxError {
    fn new(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self { code, span, message: message.into(), label: String::new(), help: None }
    }

    fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn at(self, text: &Text) -> Diagnostic {
        let location = text.locate(self.span.start as usize..self.span.end as usize);
        Diagnostic::new(self.code, &location, self.message).label(self.label).help(self.help)
    }
}
