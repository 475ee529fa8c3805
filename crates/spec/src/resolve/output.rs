//! `output`: what happens to o after the weighted sum.

use regard_ir::rows::{Gate, Mix, Output, OutputNorm};
use regard_ir::variant::{Axis, Heads, Weights};

use super::captured::Learned;
use super::extends::Chain;
use super::fields;
use super::key::{Absent, Key, Least, Takes};
use super::qk_norm::EPS;
use super::table::Table;
use super::tables::MAX_HEADS;
use crate::diagnostic::Sink;
use crate::document::Kind;

/// The keys of `output`.
pub(crate) const KEYS: [Key; 7] = [
    Key::new(
        "mix",
        Takes::Words("`\"none\"`, `\"learned\"`, or a number of heads from 1 to 65536"),
        Absent::Value("\"none\""),
        "outputs of heads that are sums over all heads: as many as there are query heads, or this number; by the \
         learned `mix[to, from]`",
    ),
    Key::new(
        "norm",
        Takes::OneOf(&NORMS),
        Absent::Value("\"none\""),
        "each head's row divided by the root of the mean of its squares",
    ),
    Key::new(
        "norm_eps",
        Takes::Number(Least::From(0.0)),
        Absent::Value("1e-6"),
        "added to that mean; with a norm",
    ),
    Key::new(
        "norm_learned",
        Takes::Flag,
        Absent::Value("true"),
        "whether the row is multiplied by the learned `o_norm[value_dim]`; with a norm",
    ),
    Key::new(
        "gate",
        Takes::OneOf(&GATES),
        Absent::Value("\"none\""),
        "what the output is multiplied by: a tensor `gate` like `o`, or one number for each row of it",
    ),
    Key::new(
        "gate_act",
        Takes::OneOf(&ACTIVATIONS),
        Absent::Value("\"sigmoid\""),
        "what the gate passes through first; with a gate",
    ),
    Key::new(
        "lse",
        Takes::Flag,
        Absent::Value("false"),
        "whether the log of each row's sum of weights is an output; softmax alone",
    ),
];

const MIXES: [&str; 2] = ["none", "learned"];
const NORMS: [&str; 2] = ["none", "rms"];
const GATES: [&str; 3] = ["none", "elementwise", "head"];
const ACTIVATIONS: [&str; 2] = ["sigmoid", "silu"];

/// The output of these weights; `None` where something is wrong, or not known of the heads.
pub(super) fn read(
    chain: &Chain,
    heads: Option<Heads>,
    weights: Option<Weights>,
    learned: &mut Learned,
    sink: &mut Sink,
) -> Option<Output> {
    let Some(value) = chain.value("output") else { return Some(Output::default()) };
    let table = Table::read(chain, value, "output", &KEYS, sink)?;
    let mixed = mixed(&table, sink);
    let norm = norm(&table, sink);
    let gate = gate(&table, sink);
    let lse = table.flag("lse", false, sink);
    if let (Some(true), Some(weights @ (Weights::Sigmoid | Weights::Relu))) = (lse, weights) {
        let kind = if weights == Weights::Relu { "relu" } else { "sigmoid" };
        let why = "no sum is divided by that it could be the log of";
        table.refuse("lse", &format!("beside {kind} weights"), why, None, sink);
    }
    let heads = heads?;
    let mix = match mixed? {
        Mixed::No => None,
        to @ (Mixed::Alike | Mixed::To(_)) => {
            let to = if let Mixed::To(n) = to { n } else { heads.query };
            Some(Mix { heads: to, input: learned.add("mix", &[Axis::Len(to), Axis::Len(heads.query)]) })
        }
    };
    let norm = norm?.map(|(eps, is_learned)| OutputNorm {
        eps,
        learned: is_learned.then(|| learned.add("o_norm", &[Axis::Len(heads.value_dim)])),
    });
    Some(Output { mix, norm, gate: gate?, lse: lse? })
}

/// What `mix` says.
enum Mixed {
    No,
    /// To as many heads as there are.
    Alike,
    To(u32),
}

fn mixed(table: &Table<'_>, sink: &mut Sink) -> Option<Mixed> {
    let Some(value) = table.get("mix") else { return Some(Mixed::No) };
    match value.kind {
        Kind::String(_) => Some(match table.choice("mix", &MIXES, sink)? {
            0 => Mixed::No,
            _ => Mixed::Alike,
        }),
        Kind::Integer(_) => fields::integer(value, &table.what("mix"), 1..=MAX_HEADS, sink).map(Mixed::To),
        _ => {
            let expected = "`\"none\"`, `\"learned\"` or a number of heads";
            fields::wrong_type(value, &table.what("mix"), expected, sink);
            None
        }
    }
}

/// The norm's eps and whether it is learned, where there is a norm.
fn norm(table: &Table<'_>, sink: &mut Sink) -> Option<Option<(f64, bool)>> {
    let given = table.choice("norm", &NORMS, sink);
    let eps = table.number("norm_eps", Some(EPS), Least::From(0.0), sink);
    let is_learned = table.flag("norm_learned", true, sink);
    if given == Some(0) {
        for key in ["norm_eps", "norm_learned"] {
            let help = Some("`norm = \"rms\"` normalises each head's row");
            table.refuse(key, "without a norm", "`norm` is `none`", help, sink);
        }
        return Some(None);
    }
    Some(Some((given.and(eps)?, is_learned?)))
}

fn gate(table: &Table<'_>, sink: &mut Sink) -> Option<Option<Gate>> {
    let given = table.choice("gate", &GATES, sink);
    let silu = table.choice("gate_act", &ACTIVATIONS, sink).map(|i| i == 1);
    if given == Some(0) {
        let help = Some("`gate = \"elementwise\"` or `gate = \"head\"` gates the output");
        table.refuse("gate_act", "without a gate", "`gate` is `none`", help, sink);
        return Some(None);
    }
    Some(Some(Gate { per_head: given? == 2, silu: silu? }))
}
