//! The tables of the softmax family: heads, score, mask, weights and output.

use regard_ir::variant::Heads;

use super::extends::Chain;
use super::fields::{self, unsupported};
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink};
use crate::document::{Kind, Value};
use crate::source::Text;

/// The most heads, and the widest rows.
const MAX_HEADS: u32 = 1 << 16;

/// `heads`, with its defaults; `None` where something is missing or wrong.
pub(super) fn heads(chain: &Chain, sink: &mut Sink) -> Option<Heads> {
    const KEYS: [&str; 5] = ["query", "kv", "dim", "value_dim", "value"];
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
    let entries = fields::table(Some(value), "heads", sink);
    let Kind::Table(_) = value.kind else { return None };
    fields::check_keys(entries, &KEYS, Some("heads"), sink);
    // Under `latent` the other widths come from there, and its own error is enough.
    let latent = chain.entry("latent").is_some();
    let mut read = |key: &str, required: bool| -> Option<Option<u32>> {
        match fields::get(entries, key) {
            Some(value) => fields::integer(value, &format!("`heads.{key}`"), 1..=MAX_HEADS, sink).map(Some),
            None if !required => Some(None),
            None => {
                if !fields::misspelt(entries, &KEYS, key) && !chain.may_say(key) {
                    let message = format!("`heads.{key}` is missing");
                    sink.push(Diagnostic::new(Code::S009, &value.location, message).label("it is required"));
                }
                None
            }
        }
    };
    let (query, kv) = (read("query", true), read("kv", false));
    let (dim, value_dim, values) = (read("dim", !latent), read("value_dim", false), read("value", false));
    let (query, dim) = (query??, dim??);
    let (kv, value_dim) = (kv?.unwrap_or(query), value_dim?.unwrap_or(dim));
    if !query.is_multiple_of(kv) {
        let location = &fields::get(entries, "kv").unwrap_or(value).location;
        let message = format!("{query} query heads do not split over {kv} key/value heads");
        sink.push(
            Diagnostic::new(Code::S011, location, message)
                .label(format!("{query} is not a multiple of {kv}")),
        );
        return None;
    }
    let values = values?.unwrap_or(kv);
    if values != kv {
        let location = &fields::get(entries, "value").unwrap_or(value).location;
        if kv.is_multiple_of(values) {
            unsupported(location, "heads.value", sink);
        } else {
            let message = format!("{kv} key heads do not split over {values} value heads");
            sink.push(
                Diagnostic::new(Code::S011, location, message)
                    .label(format!("{kv} is not a multiple of {values}")),
            );
        }
        return None;
    }
    Some(Heads { query, kv, value: values, dim, value_dim })
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
    let entries = fields::table(value, "score", sink);
    fields::check_keys(entries, &["scale", "modify"], Some("score"), sink);
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
            fields::check_keys(entries, &["allow"], Some("mask"), sink);
            fields::string(fields::get(entries, "allow")?, "`mask.allow`", sink).cloned()
        }
        _ => {
            fields::wrong_type(value, "`mask`", "an expression in a string, or a table", sink);
            None
        }
    }
}

/// Accepts the weights that are supported: a softmax without sink.
pub(super) fn weights(value: Option<&Value>, sink: &mut Sink) {
    const KINDS: [&str; 3] = ["softmax", "sigmoid", "relu"];
    const SINKS: [&str; 3] = ["none", "learned", "one"];
    let Some(value) = value else { return };
    let Kind::Table(entries) = &value.kind else {
        return only_default(value, "weights", &KINDS, sink);
    };
    fields::check_keys(entries, &["kind", "bias", "sink"], Some("weights"), sink);
    if let Some(kind) = fields::get(entries, "kind") {
        only_default(kind, "weights.kind", &KINDS, sink);
    }
    if let Some(of_sink) = fields::get(entries, "sink") {
        only_default(of_sink, "weights.sink", &SINKS, sink);
    }
    if let Some(bias) = fields::get(entries, "bias") {
        unsupported(&bias.location, "weights.bias", sink);
    }
}

/// Whether `output` asks for the log of the weights' sum, all that it can ask for yet.
pub(super) fn output(value: Option<&Value>, sink: &mut Sink) -> bool {
    const KEYS: [&str; 7] = ["mix", "norm", "norm_eps", "norm_learned", "gate", "gate_act", "lse"];
    let entries = fields::table(value, "output", sink);
    fields::check_keys(entries, &KEYS, Some("output"), sink);
    for entry in entries {
        match entry.name() {
            "mix" if matches!(entry.value.kind, Kind::Integer(_)) => {
                unsupported(&entry.value.location, "output.mix", sink);
            }
            "mix" => only_default(&entry.value, "output.mix", &["none", "learned"], sink),
            "norm" => only_default(&entry.value, "output.norm", &["none", "rms"], sink),
            "gate" => only_default(&entry.value, "output.gate", &["none", "elementwise", "head"], sink),
            other @ ("norm_eps" | "norm_learned" | "gate_act") => {
                unsupported(&entry.key.token(), &format!("output.{other}"), sink);
            }
            _ => {}
        }
    }
    fields::get(entries, "lse").and_then(|value| fields::bool(value, "`output.lse`", sink)).unwrap_or(false)
}

/// Refuses all of `options` but the first as not supported yet, and what is none of them.
fn only_default(value: &Value, what: &str, options: &[&str], sink: &mut Sink) {
    if let Some(at @ 1..) = fields::choice(value, &format!("`{what}`"), options, sink) {
        unsupported(&value.location, &format!("{what} = \"{}\"", options[at]), sink);
    }
}
