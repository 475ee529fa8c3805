//! The functions of the language, and the names that are not to be taken.

use regard_ir::expr::{Unary, Var};

/// What a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    /// Keeps an int.
    Abs,
    Min,
    Max,
    /// A function of one float.
    Float(Unary),
    Int,
    Select,
    Silu,
    Relu,
    Softcap,
    Alibi,
    T5Bucket,
}

/// A function and how it is called.
#[derive(Debug)]
pub(crate) struct Signature {
    pub(crate) name: &'static str,
    /// The parameters as help shows them.
    pub(crate) params: &'static str,
    pub(crate) min_args: usize,
    pub(crate) max_args: usize,
    pub(crate) function: Function,
}

const fn one(name: &'static str, function: Function) -> Signature {
    Signature { name, params: "x", min_args: 1, max_args: 1, function }
}

const fn float(name: &'static str, unary: Unary) -> Signature {
    one(name, Function::Float(unary))
}

const fn of(name: &'static str, params: &'static str, n_args: usize, function: Function) -> Signature {
    Signature { name, params, min_args: n_args, max_args: n_args, function }
}

const fn two_or_more(name: &'static str, function: Function) -> Signature {
    Signature { name, params: "a, b, …", min_args: 2, max_args: usize::MAX, function }
}

/// Every function.
pub(crate) const FUNCTIONS: [Signature; 23] = [
    one("abs", Function::Abs),
    two_or_more("min", Function::Min),
    two_or_more("max", Function::Max),
    float("floor", Unary::Floor),
    float("ceil", Unary::Ceil),
    float("sqrt", Unary::Sqrt),
    float("exp", Unary::Exp),
    float("exp2", Unary::Exp2),
    float("log", Unary::Log),
    float("tanh", Unary::Tanh),
    float("sigmoid", Unary::Sigmoid),
    one("silu", Function::Silu),
    one("relu", Function::Relu),
    float("gelu", Unary::Gelu),
    float("softplus", Unary::Softplus),
    float("elu", Unary::Elu),
    float("sin", Unary::Sin),
    float("cos", Unary::Cos),
    one("int", Function::Int),
    of("select", "cond, a, b", 3, Function::Select),
    of("softcap", "x, c", 2, Function::Softcap),
    of("alibi", "h", 1, Function::Alibi),
    of("t5_bucket", "k - q, buckets, max_distance, bidirectional", 4, Function::T5Bucket),
];

/// Every variable.
pub(crate) const VARIABLES: [(&str, Var); 9] = [
    ("b", Var::B),
    ("h", Var::H),
    ("g", Var::G),
    ("q", Var::Q),
    ("k", Var::K),
    ("nq", Var::Nq),
    ("nk", Var::Nk),
    ("s", Var::S),
    ("x", Var::X),
];

/// A name for a number that is known when the spec is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Constant {
    Heads,
    KvHeads,
    Dim,
    ValueDim,
    Pi,
    Inf,
}

/// Every constant.
pub(crate) const CONSTANTS: [(&str, Constant); 6] = [
    ("heads", Constant::Heads),
    ("kv_heads", Constant::KvHeads),
    ("dim", Constant::Dim),
    ("value_dim", Constant::ValueDim),
    ("pi", Constant::Pi),
    ("inf", Constant::Inf),
];

pub(crate) fn function(name: &str) -> Option<&'static Signature> {
    FUNCTIONS.iter().find(|signature| signature.name == name)
}

pub(crate) fn variable(name: &str) -> Option<Var> {
    VARIABLES.iter().find(|(other, _)| *other == name).map(|&(_, var)| var)
}

pub(crate) fn constant(name: &str) -> Option<Constant> {
    CONSTANTS.iter().find(|(other, _)| *other == name).map(|&(_, constant)| constant)
}

/// What a name already is in every expression, if it is anything.
pub(crate) fn taken(name: &str) -> Option<&'static str> {
    if variable(name).is_some() {
        Some("a variable")
    } else if constant(name).is_some() {
        Some("a constant")
    } else if function(name).is_some() {
        Some("a function")
    } else if super::lex::KEYWORDS.contains(&name) {
        Some("a keyword")
    } else {
        None
    }
}
