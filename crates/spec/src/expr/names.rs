//! What each name of an expression stands for, and whether it is used as that.

use regard_ir::expr::Var;

use super::ast::{AstNode, Syntax};
use super::boundary::is_boundary;
use super::define::Definitions;
use super::foreign;
use super::functions::{self, CONSTANTS, Constant, FUNCTIONS, Signature, VARIABLES};
use super::{Body, Input};
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink, did_you_mean, quote};

/// What a node's name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// The node has no name.
    Nothing,
    /// Its name or use is wrong, and that is reported.
    Wrong,
    Var(Var),
    Constant(Constant),
    Function(&'static Signature),
    /// By index into the spec's inputs.
    Input(usize),
    /// By index into the enclosing definition's parameters.
    Param(usize),
    /// By index into the definitions.
    Definition(usize),
}

/// Where names are looked up.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// Parameters of the definition that the expression is the body of.
    pub(crate) params: &'a [String],
    pub(crate) inputs: &'a [Input],
    pub(crate) definitions: &'a Definitions,
    /// Whether the expression belongs to the prelude, which knows nothing of the spec.
    pub(crate) prelude: bool,
}

/// Resolves all names of `body`, and reports those that are unknown or wrongly used.
pub(crate) fn resolve(body: &mut Body, scope: &Scope<'_>, sink: &mut Sink) {
    let mut targets = Vec::with_capacity(body.ast.nodes.len());
    for node in &body.ast.nodes {
        let name = Use { node, body, name: body.written(&node.name), scope, suggest: !sink.is_full() };
        let target = match &node.syntax {
            Syntax::Name => name.bare(),
            Syntax::Call(args) => name.call(args.len()),
            Syntax::Index(indices) => name.index(indices.len()),
            _ => Ok(Target::Nothing),
        };
        targets.push(target.unwrap_or_else(|error| {
            sink.push(*error);
            Target::Wrong
        }));
    }
    body.targets = targets;
}

type Checked = Result<Target, Box<Diagnostic>>;

/// One use of a name.
struct Use<'a> {
    node: &'a AstNode,
    body: &'a Body,
    name: &'a str,
    scope: &'a Scope<'a>,
    /// Whether to look for the nearest spelling.
    suggest: bool,
}

impl Use<'_> {
    fn bare(&self) -> Checked {
        let target = self.lookup().ok_or_else(|| self.unknown())?;
        match target {
            Target::Function(signature) => Err(self.wrong(
                format!("{} is a function", quote(self.name)),
                format!("write `{}({})`", signature.name, signature.params),
            )),
            Target::Definition(id) if !self.scope.definitions.get(id).params.is_empty() => {
                Err(self.arity(0, &self.scope.definitions.get(id).head()))
            }
            target => Ok(target),
        }
    }

    fn call(&self, n_args: usize) -> Checked {
        let what = match self.lookup().ok_or_else(|| self.unknown())? {
            Target::Function(signature) if (signature.min_args..=signature.max_args).contains(&n_args) => {
                return Ok(Target::Function(signature));
            }
            Target::Function(signature) => {
                return Err(self.arity(n_args, &format!("{}({})", signature.name, signature.params)));
            }
            Target::Definition(id) => {
                let definition = self.scope.definitions.get(id);
                if definition.params.is_empty() {
                    return Err(self.wrong(
                        format!("{} has no parameters", quote(self.name)),
                        format!("write `{}`", definition.head()),
                    ));
                }
                if definition.params.len() != n_args {
                    return Err(self.arity(n_args, &definition.head()));
                }
                return Ok(Target::Definition(id));
            }
            Target::Wrong => return Ok(Target::Wrong),
            Target::Input(_) => {
                let help = format!("an element is read with brackets: `{}[…]`", self.name);
                return Err(self.wrong(format!("{} is an input, not a function", quote(self.name)), help));
            }
            other => describe(other),
        };
        Err(self.wrong(format!("{} is {what}, not a function", quote(self.name)), None))
    }

    fn index(&self, n_indices: usize) -> Checked {
        let what = match self.lookup().ok_or_else(|| self.unknown())? {
            target @ (Target::Param(_) | Target::Wrong) => return Ok(target),
            Target::Input(id) => {
                let rank = self.scope.inputs[id].shape.map_or(n_indices, |shape| shape.axes().len());
                if rank == n_indices {
                    return Ok(Target::Input(id));
                }
                return Err(self.wrong_rank(rank, n_indices));
            }
            other => describe(other),
        };
        Err(self.wrong(format!("{} is {what}, not an input", quote(self.name)), None))
    }

    fn lookup(&self) -> Option<Target> {
        let Self { name, scope, .. } = *self;
        if let Some(var) = functions::variable(name) {
            return Some(Target::Var(var));
        }
        if let Some(constant) = functions::constant(name) {
            return Some(Target::Constant(constant));
        }
        if let Some(signature) = functions::function(name) {
            return Some(Target::Function(signature));
        }
        if let Some(param) = scope.params.iter().position(|param| param == name) {
            return Some(Target::Param(param));
        }
        if scope.definitions.is_unusable(name) && !scope.prelude {
            return Some(Target::Wrong);
        }
        let input = || scope.inputs.iter().position(|input| input.name == name).map(Target::Input);
        let definition = || scope.definitions.find(name, scope.prelude).map(Target::Definition);
        // An input may share a name with the prelude; brackets and parentheses then tell which is meant.
        match self.node.syntax {
            _ if scope.prelude => definition(),
            Syntax::Call(_) => definition().or_else(input),
            _ => input().or_else(definition),
        }
    }

    fn unknown(&self) -> Box<Diagnostic> {
        let Self { name, scope, .. } = *self;
        let location = self.body.locate(&self.node.name);
        let error = Diagnostic::new(Code::S014, &location, format!("unknown name {}", quote(name)));
        if is_boundary(name) {
            let why = "a tensor of the kernel, which expressions do not read";
            let help = "expressions read what `inputs` declares, under names of its own".to_string();
            return Box::new(error.label(why).help(help));
        }
        let what = match self.node.syntax {
            Syntax::Call(_) => "no such function or definition",
            Syntax::Index(_) => "no such input",
            _ => "no such variable, constant, definition or input",
        };
        let functions = FUNCTIONS.iter().map(|signature| signature.name);
        let variables = VARIABLES.iter().map(|variable| variable.name);
        let constants = CONSTANTS.iter().map(|constant| constant.name);
        let inputs = scope.inputs.iter().map(|input| input.name.as_str());
        let params = scope.params.iter().map(String::as_str);
        let definitions = scope.definitions.names();
        let help = match self.node.syntax {
            _ if !self.suggest => None,
            _ if foreign::name(name).is_some() => foreign::name(name).map(|ours| format!("write `{ours}`")),
            Syntax::Call(_) => did_you_mean(name, definitions.chain(functions)),
            Syntax::Index(_) => did_you_mean(name, inputs.chain(params)),
            _ => did_you_mean(
                name,
                params.chain(inputs).chain(definitions).chain(functions).chain(constants).chain(variables),
            ),
        };
        Box::new(error.label(what).help(help))
    }

    fn wrong(&self, message: String, help: impl Into<Option<String>>) -> Box<Diagnostic> {
        Box::new(Diagnostic::new(Code::S025, &self.body.locate(&self.node.name), message).help(help))
    }

    fn wrong_rank(&self, rank: usize, found: usize) -> Box<Diagnostic> {
        let location = self.body.locate(&self.node.span);
        let message = format!("input {} has {}, not {found}", quote(self.name), count(rank, "axis", "axes"));
        let error = Diagnostic::new(Code::S035, &location, message);
        Box::new(if rank == 0 {
            error.label("a scalar is read without brackets").help(format!("write `{}`", self.name))
        } else {
            let indices = vec!["…"; rank].join(", ");
            error.label("one index for each axis").help(format!("write `{}[{indices}]`", self.name))
        })
    }

    fn arity(&self, n_args: usize, head: &str) -> Box<Diagnostic> {
        let message = format!("{} is used with {}", quote(self.name), count(n_args, "argument", "arguments"));
        let location = self.body.locate(&self.node.span);
        Box::new(Diagnostic::new(Code::S024, &location, message).help(format!("it is `{head}`")))
    }
}

/// `1 axis`, `2 axes`.
pub(super) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn describe(target: Target) -> &'static str {
    match target {
        Target::Nothing | Target::Wrong => "something else",
        Target::Var(_) => "a variable",
        Target::Constant(_) => "a constant",
        Target::Function(_) => "a function",
        Target::Input(_) => "an input",
        Target::Param(_) => "a parameter",
        Target::Definition(_) => "a definition",
    }
}
