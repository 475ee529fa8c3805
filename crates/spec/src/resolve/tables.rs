//! The tables that every spec of the softmax family has, given or not: heads, score and mask.

use regard_ir::variant::{Heads, Latent};

use super::extends::Chain;
use super::fields;
use super::key::{self, Absent, Key, Takes};
use super::latent;
use super::table::Table;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink};
use crate::document::{Kind, Value};
use crate::source::Text;

/// The most heads, and the widest rows.
pub(super) const MAX_HEADS: u32 = 1 << 16;

/// A number of heads, or of channels of one.
pub(super) const COUNT: Takes = Takes::Integer { from: 1, to: MAX_HEADS };

/// The keys of `heads`.
pub(crate) const HEADS: [Key; 5] = [
    Key::new("query", COUNT, Absent::Required, "query heads"),
    Key::new(
        "kv",
        COUNT,
        Absent::Words("`query`"),
        "heads of keys; it divides `query`, and query head `h` reads key head `h // (query // kv)`",
    ),
    Key::new("dim", COUNT, Absent::Required, "width of a row of q and of k"),
    Key::new("value_dim", COUNT, Absent::Words("`dim`"), "width of a row of v"),
    Key::new(
        "value",
        COUNT,
        Absent::Words("`kv`"),
        "heads of values; it divides `kv`, and what reads key head `g` reads value head `g // (kv // value)`; of a \
         recurrence it is a multiple of `kv`, and value head `v` reads query and key head `v // (value // kv)`",
    ),
];

/// The keys of `score`.
pub(crate) const SCORE: [Key; 2] = [
    Key::new(
        "scale",
        Takes::Words("a finite number, or an expression in constants"),
        Absent::Words("1 / √dim"),
        "what the product of two rows is multiplied by",
    ),
    Key::new(
        "modify",
        Takes::Words("an expression that gives a float"),
        Absent::Value("\"s\""),
        "the score that counts, made of the scaled score `s` and of all else that expressions read",
    ),
];

/// The keys of `mask`.
pub(crate) const MASK: [Key; 1] = [Key::new(
    "allow",
    Takes::Words("an expression that gives a bool"),
    Absent::Value("\"all\""),
    "whether query `q` may attend to key `k`",
)];

/// `heads`, with its defaults; `None` where something is missing or wrong.
pub(super) fn heads(chain: &Chain, latent: &latent::Given, sink: &mut Sink) -> Option<Heads> {
    let Some(value) = chain.value("heads") else {
        let start = chain.start()?;
        if !chain.may_say("heads") && !chain.misspells("heads") {
            sink.push(
                Diagnostic::new(Code::S009, &start, "`heads` is missing")
                    .help("for example `heads = { query = 8, dim = 64 }`".to_string()),
            );
        }
        return None;
    };
    let table = Table::read(chain, value, "heads", &HEADS, sink)?;
    if !matches!(latent, latent::Given::No) {
        return of_latents(&table, latent, sink);
    }
    let mut read = |key: &str, required: bool| -> Option<Option<u32>> {
        let value = if required { Some(table.required(key, None, sink)?) } else { table.get(key) };
        let Some(value) = value else { return Some(None) };
        fields::integer(value, &table.what(key), 1..=MAX_HEADS, sink).map(Some)
    };
    let (query, kv) = (read("query", true), read("kv", false));
    let (dim, value_dim, values) = (read("dim", true), read("value_dim", false), read("value", false));
    let (query, dim) = (query??, dim??);
    let (kv, value_dim) = (kv?.unwrap_or(query), value_dim?.unwrap_or(dim));
    if !query.is_multiple_of(kv) {
        let location = &table.get("kv").unwrap_or(value).location;
        let message = format!("{query} query heads do not split over {kv} key/value heads");
        sink.push(
            Diagnostic::new(Code::S011, location, message)
                .label(format!("{query} is not a multiple of {kv}")),
        );
        return None;
    }
    let values = values?.unwrap_or(kv);
    let is_recurrence = chain.entry("recurrence").is_some();
    let (more, fewer) = if is_recurrence { (values, kv) } else { (kv, values) };
    if !more.is_multiple_of(fewer) {
        let location = &table.get("value").unwrap_or(value).location;
        let message = if is_recurrence {
            format!("{values} value heads do not split over {kv} key heads")
        } else {
            format!("{kv} key heads do not split over {values} value heads")
        };
        let label = format!("{more} is not a multiple of {fewer}");
        sink.push(Diagnostic::new(Code::S011, location, message).label(label));
        return None;
    }
    Some(Heads { query, kv, value: values, dim, value_dim })
}

/// The heads of a latent, which all query heads share: keys and values are one row a token.
fn of_latents(table: &Table<'_>, latent: &latent::Given, sink: &mut Sink) -> Option<Heads> {
    for key in ["kv", "dim", "value_dim", "value"] {
        let help = ["dim", "value_dim"].contains(&key).then_some("widths are said in `latent`");
        table.refuse(key, "beside `latent`", "all query heads read one latent of a token", help, sink);
    }
    let value = table.required("query", None, sink)?;
    let query = fields::integer(value, &table.what("query"), 1..=MAX_HEADS, sink)?;
    let &latent::Given::Yes(Latent { nope_dim, rope_dim, value_dim, .. }) = latent else { return None };
    Some(Heads { query, kv: 1, value: 1, dim: nope_dim + rope_dim, value_dim })
}

/// What `score` says.
pub(super) struct Score {
    pub(super) scale: Scale,
    /// The modifier, where there is one.
    pub(super) modify: Option<Text>,
}

/// What `score.scale` says.
pub(super) enum Scale {
    Default,
    Number(f64),
    Expression(Text),
    /// Something that is reported.
    Wrong,
}

pub(super) fn score(value: Option<&Value>, sink: &mut Sink) -> Score {
    // What works for a mask is tried here too.
    if let Some(value @ Value { kind: Kind::String(_), .. }) = value {
        let help = "write `score = { modify = \"…\" }`".to_string();
        sink.push(fields::mistyped(value, "`score`", "a table").help(help));
        return Score { scale: Scale::Default, modify: None };
    }
    let entries = fields::table(value, "score", sink);
    fields::check_keys(entries, &key::names(&SCORE), Some("score"), sink);
    let scale = match fields::get(entries, "scale").map(|value| (&value.kind, value)) {
        None => Scale::Default,
        Some((Kind::String(text), _)) => Scale::Expression(text.clone()),
        Some((&Kind::Integer(Some(scale)), _)) => Scale::Number(scale as f64),
        Some((&Kind::Float(Some(scale)), _)) if scale.is_finite() => Scale::Number(scale),
        Some((Kind::Integer(_) | Kind::Float(_), value)) => {
            sink.push(
                Diagnostic::new(Code::S038, &value.location, "the scale is not a finite number")
                    .label("infinite, or no number at all"),
            );
            Scale::Wrong
        }
        Some((_, value)) => {
            fields::wrong_type(value, "`score.scale`", "a number or an expression", sink);
            Scale::Wrong
        }
    };
    let modify = fields::get(entries, "modify");
    let modify = modify.and_then(|value| fields::string(value, "`score.modify`", sink).cloned());
    Score { scale, modify }
}

/// The expression of `mask`, where there is one.
pub(super) fn mask(value: Option<&Value>, sink: &mut Sink) -> Option<Text> {
    let value = value?;
    match &value.kind {
        Kind::String(text) => Some(text.clone()),
        Kind::Table(entries) => {
            fields::check_keys(entries, &key::names(&MASK), Some("mask"), sink);
            fields::string(fields::get(entries, "allow")?, "`mask.allow`", sink).cloned()
        }
        _ => {
            fields::wrong_type(value, "`mask`", "an expression in a string, or a table", sink);
            None
        }
    }
}
