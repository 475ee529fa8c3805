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
    /// What it gives, for the guide.
    pub(crate) meaning: &'static str,
    pub(crate) min_args: usize,
    pub(crate) max_args: usize,
    pub(crate) function: Function,
}

const fn one(name: &'static str, function: Function, meaning: &'static str) -> Signature {
    of(name, "x", 1, function, meaning)
}

const fn float(name: &'static str, unary: Unary, meaning: &'static str) -> Signature {
    one(name, Function::Float(unary), meaning)
}

const fn of(
    name: &'static str,
    params: &'static str,
    n_args: usize,
    function: Function,
    meaning: &'static str,
) -> Signature {
    Signature { name, params, meaning, min_args: n_args, max_args: n_args, function }
}

const fn two_or_more(name: &'static str, function: Function, meaning: &'static str) -> Signature {
    Signature { name, params: "a, b, …", meaning, min_args: 2, max_args: usize::MAX, function }
}

/// Every function.
pub(crate) const FUNCTIONS: [Signature; 23] = [
    one("abs", Function::Abs, "`x` without its sign; an int if `x` is one"),
    two_or_more("min", Function::Min, "the least; an int if all are"),
    two_or_more("max", Function::Max, "the greatest; an int if all are"),
    float("floor", Unary::Floor, "the greatest whole number that is not above `x`, as a float"),
    float("ceil", Unary::Ceil, "the least whole number that is not below `x`, as a float"),
    float("sqrt", Unary::Sqrt, "the square root; NaN below 0"),
    float("exp", Unary::Exp, "e to the power of `x`"),
    float("exp2", Unary::Exp2, "2 to the power of `x`"),
    float("log", Unary::Log, "the natural logarithm; −inf at 0, NaN below"),
    float("tanh", Unary::Tanh, "the hyperbolic tangent"),
    float("sigmoid", Unary::Sigmoid, "1 / (1 + exp(−x))"),
    one("silu", Function::Silu, "x · sigmoid(x)"),
    one("relu", Function::Relu, "the greater of `x` and 0, as a float"),
    float("gelu", Unary::Gelu, "x · Φ(x), where Φ is the normal distribution's by the error function"),
    float("softplus", Unary::Softplus, "log(1 + exp(x))"),
    float("elu", Unary::Elu, "`x` above 0, exp(x) − 1 below"),
    float("sin", Unary::Sin, "the sine of an angle in radians"),
    float("cos", Unary::Cos, "the cosine of an angle in radians"),
    one("int", Function::Int, "`x` without its fraction, as an int: `int(-2.7)` is −2"),
    of("select", "cond, a, b", 3, Function::Select, "`if cond then a else b`"),
    of(
        "softcap",
        "x, c",
        2,
        Function::Softcap,
        "c · tanh(x / c): about `x` while that is small, never past `c`",
    ),
    of(
        "alibi",
        "h",
        1,
        Function::Alibi,
        "the slope of query head `h`, which is its only argument: the series of ALiBi, with its rule for numbers of \
         heads that are no power of two",
    ),
    of(
        "t5_bucket",
        "k - q, buckets, max_distance, bidirectional",
        4,
        Function::T5Bucket,
        "the bucket, an int, of a key's distance as in T5: near distances have their own, far ones share by their \
         logarithm; the last three are constants",
    ),
];

/// What differs from pair to pair, or from sequence to sequence.
#[derive(Debug)]
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) var: Var,
    /// What it is, for the guide.
    pub(crate) meaning: &'static str,
}

const fn variable_of(name: &'static str, var: Var, meaning: &'static str) -> Variable {
    Variable { name, var, meaning }
}

/// Every variable.
pub(crate) const VARIABLES: [Variable; 9] = [
    variable_of("b", Var::B, "the sequence of the batch, from 0"),
    variable_of("h", Var::H, "the query head, from 0"),
    variable_of("g", Var::G, "the head of keys that query head `h` reads, from 0"),
    variable_of("q", Var::Q, "the absolute position of the query"),
    variable_of("k", Var::K, "the absolute position of the key, from 0"),
    variable_of("nq", Var::Nq, "how many queries the sequence has in this call"),
    variable_of("nk", Var::Nk, "how many keys the sequence has"),
    variable_of("s", Var::S, "the scaled score, a float; in `score.modify` alone"),
    variable_of("x", Var::X, "the element that a feature map is applied to, a float; no table has one yet"),
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

/// A constant by its name.
#[derive(Debug)]
pub(crate) struct NamedConstant {
    pub(crate) name: &'static str,
    pub(crate) constant: Constant,
    /// What it is, for the guide.
    pub(crate) meaning: &'static str,
}

const fn constant_of(name: &'static str, constant: Constant, meaning: &'static str) -> NamedConstant {
    NamedConstant { name, constant, meaning }
}

/// Every constant.
pub(crate) const CONSTANTS: [NamedConstant; 6] = [
    constant_of("heads", Constant::Heads, "`heads.query`, an int"),
    constant_of("kv_heads", Constant::KvHeads, "`heads.kv`, an int"),
    constant_of("dim", Constant::Dim, "`heads.dim`, an int"),
    constant_of("value_dim", Constant::ValueDim, "`heads.value_dim`, an int"),
    constant_of("pi", Constant::Pi, "π, a float"),
    constant_of("inf", Constant::Inf, "infinity, a float"),
];

pub(crate) fn function(name: &str) -> Option<&'static Signature> {
    FUNCTIONS.iter().find(|signature| signature.name == name)
}

pub(crate) fn variable(name: &str) -> Option<Var> {
    VARIABLES.iter().find(|variable| variable.name == name).map(|variable| variable.var)
}

pub(crate) fn constant(name: &str) -> Option<Constant> {
    CONSTANTS.iter().find(|constant| constant.name == name).map(|constant| constant.constant)
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
