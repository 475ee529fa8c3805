//! `recurrence`: a running state in place of scores and weights. Linear attention.

use regard_ir::expr::{Binary, Expr, Op, Tree, Var};
use regard_ir::spec::CacheLayout;
use regard_ir::variant::{Axis, Decay, Heads, InputType, Recurrence, Source};

use super::captured::Learned;
use super::extends::Chain;
use super::fields;
use super::key::{Absent, Key, Least, Takes};
use super::table::Table;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink};
use crate::document::{Entry, Kind};
use crate::expr::Input;
use crate::source::Text;

/// The keys of `recurrence`.
pub(crate) const KEYS: [Key; 5] = [
    Key::new(
        "feature_map",
        Takes::Words("an expression in `x` that gives a float"),
        Absent::Value("\"x\""),
        "what each element of q and k becomes, after `qk_norm` and rope",
    ),
    Key::new(
        "normalize",
        Takes::Flag,
        Absent::Value("false"),
        "divides an output by the product of its query's features with the sum of those of all keys that it reads, which \
         decays as the state does; there is no scale then",
    ),
    Key::new(
        "eps",
        Takes::Number(Least::From(0.0)),
        Absent::Value("1e-6"),
        "what is added to that product; with `normalize`",
    ),
    Key::new(
        "decay",
        Takes::OneOf(&DECAYS),
        Absent::Value("\"none\""),
        "what the state forgets before each write: nothing, or what the f32 input `decay` has the natural logs of, none above \
         0, `[value]`, `[b, value, k]` or `[b, value, k, dim]`",
    ),
    Key::new(
        "update",
        Takes::OneOf(&UPDATES),
        Absent::Value("\"add\""),
        "what is written: k vᵀ, or β k (v − Sᵀk)ᵀ of the decayed state S, where the f32 input `beta[b, value, k]` has β",
    ),
];
const DECAYS: [&str; 4] = ["none", "head", "token", "channel"];
const UPDATES: [&str; 2] = ["add", "delta"];
const EPS: f64 = 1e-6;

/// What the table says.
pub(super) struct Said {
    pub(super) feature_map: Option<Text>,
    normalize_eps: Option<f64>,
    decay: Decay,
    delta: Option<u16>,
}

/// The table, where there is one; inside, `None` where something is wrong with it or beside it.
pub(super) fn read(
    chain: &Chain,
    heads: Option<Heads>,
    learned: &mut Learned,
    sink: &mut Sink,
) -> Option<Option<Said>> {
    let entry = chain.entry("recurrence")?;
    let Some(table) = Table::read(chain, &entry.value, "recurrence", &KEYS, sink) else { return Some(None) };
    let feature_map = table.get("feature_map");
    let feature_map =
        feature_map.map(|value| fields::string(value, &table.what("feature_map"), sink).cloned());
    let normalize = table.flag("normalize", false, sink);
    let eps = table.number("eps", Some(EPS), Least::From(0.0), sink);
    let decay = table.choice("decay", &DECAYS, sink);
    let update = table.choice("update", &UPDATES, sink);
    if normalize == Some(false) {
        let help = Some("`normalize = true` divides");
        table.refuse("eps", "without `normalize`", "it is added to a divisor", help, sink);
    }
    if (normalize, update) == (Some(true), Some(1)) {
        let why = "what is removed from the state was never added to the features' sum";
        table.refuse(
            "update",
            "beside `normalize`",
            why,
            Some("`output = { norm = \"rms\" }` is usual"),
            sink,
        );
        return Some(None);
    }
    refuse_others(chain, normalize == Some(true), sink);
    let said = || {
        let heads = heads?;
        let of_token = [Axis::Batch, Axis::Len(heads.value), Axis::Key];
        let of_channel = [Axis::Batch, Axis::Len(heads.value), Axis::Key, Axis::Len(heads.dim)];
        let decay = match decay? {
            0 => Decay::None,
            1 => Decay::Head(learned.add("decay", &[Axis::Len(heads.value)])),
            2 => Decay::Token(learned.add("decay", &of_token)),
            _ => Decay::Channel(learned.add("decay", &of_channel)),
        };
        let delta = (update? == 1).then(|| learned.add("beta", &of_token));
        let feature_map = match feature_map {
            None => None,
            Some(text) => Some(text?),
        };
        Some(Said { feature_map, normalize_eps: normalize?.then_some(eps?), decay, delta })
    };
    Some(said())
}

impl Said {
    /// The mechanism, of a mask that is one of the three that a state can follow.
    pub(super) fn compile(
        self,
        chain: &Chain,
        allow: &Expr,
        source: Source,
        inputs: &[Input],
        sink: &mut Sink,
    ) -> Option<Recurrence> {
        let Self { normalize_eps, decay, delta, .. } = self;
        let Some((causal, restart)) = followed(allow.tree(), inputs) else {
            let entry = chain.entry("mask")?;
            let message = "a state cannot follow this mask";
            sink.push(
                Diagnostic::new(Code::S043, &entry.value.location, message)
                    .label("beside `recurrence`, it is `causal`, `all` or `causal & same(ids)`")
                    .help("`ids` is an input `\"i32[b, k]\"`".to_owned()),
            );
            return None;
        };
        let mut refuse = |key: &str, why: &str| {
            if let Some(entry) = table_entry(chain, "recurrence", key) {
                let message = format!("`recurrence.{key}` has no meaning without `mask = \"causal\"`");
                sink.push(Diagnostic::new(Code::S043, &entry.key.token(), message).label(why));
            }
        };
        let order = "all keys are summed, none before another";
        let refused = [("decay", decay != Decay::None), ("update", delta.is_some())].map(|(key, given)| {
            let is_wrong = given && !causal;
            if is_wrong {
                refuse(key, order);
            }
            is_wrong
        });
        if refused.contains(&true) {
            return None;
        }
        if causal && source == Source::Cross {
            let entry = chain.entry("source")?;
            let message = "`source = \"cross\"` has no meaning beside `recurrence` and a causal mask";
            sink.push(
                Diagnostic::new(Code::S043, &entry.value.location, message)
                    .label("a query reads what its own token has written"),
            );
            return None;
        }
        Some(Recurrence { normalize_eps, decay, delta, causal, restart })
    }
}

/// Whether a mask is causal, and the input whose change it stops at; `None` of a mask that no state can follow.
fn followed(mask: Tree<'_>, inputs: &[Input]) -> Option<(bool, Option<u16>)> {
    let (mut causal, mut restart) = (false, None);
    let mut open = vec![mask.root()];
    while let Some(id) = open.pop() {
        match mask.node(id).op {
            Op::Bool(true) => {}
            Op::Binary(Binary::And, a, b) => open.extend([a, b]),
            Op::Binary(Binary::Le, k, q) if [(k, Var::K), (q, Var::Q)].iter().all(|it| is_var(mask, *it)) => {
                causal = true;
            }
            Op::Binary(Binary::Eq, a, b) => {
                let ids = [(a, b), (b, a)].into_iter().find_map(|(at_q, at_k)| {
                    let ids = input_at(mask, at_q, Var::Q)?;
                    (input_at(mask, at_k, Var::K)? == ids).then_some(ids)
                })?;
                let is_ids = inputs.get(usize::from(ids))?.shape.is_some_and(|shape| {
                    let tokens = [[Axis::Batch, Axis::Key], [Axis::Batch, Axis::Query]];
                    shape.dtype == InputType::I32 && tokens.iter().any(|axes| shape.axes() == axes)
                });
                if !is_ids || restart.is_some_and(|other| other != ids) {
                    return None;
                }
                restart = Some(ids);
            }
            _ => return None,
        }
    }
    (causal || restart.is_none()).then_some((causal, restart))
}

fn is_var(tree: Tree<'_>, (id, var): (u16, Var)) -> bool {
    tree.node(id).op == Op::Var(var)
}

/// The input that a node reads an element of, at the sequence and a position.
fn input_at(tree: Tree<'_>, id: u16, position: Var) -> Option<u16> {
    match tree.node(id).op {
        Op::Input { input, rank: 2, index }
            if is_var(tree, (index[0], Var::B)) && is_var(tree, (index[1], position)) =>
        {
            Some(input)
        }
        _ => None,
    }
}

fn table_entry<'a>(chain: &'a Chain, table: &str, key: &str) -> Option<&'a Entry> {
    match &chain.value(table)?.kind {
        Kind::Table(entries) => entries.iter().find(|entry| entry.name() == key),
        _ => None,
    }
}

/// Refuses what speaks of scores and weights, of cached keys and values, and of heads that share keys.
fn refuse_others(chain: &Chain, normalize: bool, sink: &mut Sink) {
    let mut refuse = |entry: Option<&Entry>, what: &str, why: &str| {
        if let Some(entry) = entry {
            let message = format!("`{what}` has no meaning beside `recurrence`");
            sink.push(Diagnostic::new(Code::S043, &entry.key.token(), message).label(why));
        }
    };
    refuse(chain.entry("weights"), "weights", "a state has no weights");
    let in_table = |table, key| table_entry(chain, table, key);
    let contiguous = CacheLayout::Contiguous.name();
    let other =
        |entry: &&Entry| !matches!(&entry.value.kind, Kind::String(text) if text.decoded == contiguous);
    let is_word = |entry: &&Entry| matches!(entry.value.kind, Kind::String(_));
    let pages = "a state is in one piece, however long the text: its layout is contiguous";
    refuse(chain.entry("cache").filter(is_word).filter(other), "cache", pages);
    refuse(in_table("cache", "layout").filter(other), "cache.layout", pages);
    for key in ["page", "k", "v", "dtype"] {
        let why = "a state in f32 takes the place of cached keys and values";
        refuse(in_table("cache", key), &format!("cache.{key}"), why);
    }
    refuse(in_table("score", "modify"), "score.modify", "there are no scores; `feature_map` changes q and k");
    if normalize {
        refuse(in_table("score", "scale"), "score.scale", "it would cancel: `normalize` divides by as much");
    }
    refuse(in_table("output", "mix"), "output.mix", "outputs of states are not mixed");
    let lse = in_table("output", "lse").filter(|entry| !matches!(entry.value.kind, Kind::Bool(false)));
    refuse(lse, "output.lse", "there is no sum of weights to take the log of");
    let is_all = || {
        let numbers = ["query", "kv"].map(|key| match in_table("heads", key)?.value.kind {
            Kind::Integer(number) => number,
            _ => None,
        });
        numbers[0] == numbers[1]
    };
    let kv = in_table("heads", "kv").filter(|_| !is_all());
    refuse(
        kv,
        "heads.kv",
        "a query head reads states of its own key head: `heads.value` may be a multiple of `heads.query`",
    );
}
