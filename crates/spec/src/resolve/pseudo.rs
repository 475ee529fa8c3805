//! `pseudo`: heads mixed into pseudo-heads, whose rows are virtual tokens. IHA.

use regard_ir::variant::{Axis, Heads, Pseudo, PseudoForm};

use super::captured::{Learned, all_channels};
use super::extends::Chain;
use super::fields;
use super::key::{Absent, Key, Takes};
use super::table::Table;
use super::tables::COUNT;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink, quote};
use crate::document::{Entry, Kind};
use crate::expr::Input;

/// The keys of `pseudo`.
pub(crate) const KEYS: [Key; 4] = [
    Key::new(
        "heads",
        COUNT,
        Absent::Required,
        "pseudo-heads of each head, P: token n is the virtual tokens n·P to n·P + P − 1, whose rows the learned \
         `mix_q[query, query, P]`, `mix_k[kv, query, P]` and `mix_v[kv, query, P]` make of all heads' rows, and whose \
         outputs the learned `collapse[query, query·P]` adds up; q, k, nq, nk, axes and rope count virtual tokens",
    ),
    Key::new(
        "causal",
        Takes::OneOf(&CAUSAL),
        Absent::Value("\"flat\""),
        "what the prelude's `causal` means: virtual tokens up to one's own, or all of tokens up to one's own",
    ),
    Key::new(
        "window_unit",
        Takes::OneOf(&UNITS),
        Absent::Value("\"virtual\""),
        "what the prelude's `window(w)` counts: virtual tokens, or tokens",
    ),
    Key::new(
        "form",
        Takes::OneOf(&FORMS),
        Absent::Value("\"auto\""),
        "what a cache keeps of a token: the rows of all pseudo-heads, or keys and values as they were given, which are mixed \
         whenever they are read; `auto` is whichever is predicted to decode faster",
    ),
];
/// In the order of [`PseudoForm::ALL`].
const FORMS: [&str; 3] = [PseudoForm::ALL[0].name(), PseudoForm::ALL[1].name(), PseudoForm::ALL[2].name()];
const CAUSAL: [&str; 2] = ["flat", "token"];
const UNITS: [&str; 2] = ["virtual", "token"];

/// Pseudo-heads, where there are some and nothing is wrong with them.
pub(super) fn read(
    chain: &Chain,
    heads: Option<Heads>,
    inputs: &[Input],
    learned: &mut Learned,
    sink: &mut Sink,
) -> Option<Pseudo> {
    let table = Table::read(chain, chain.value("pseudo")?, "pseudo", &KEYS, sink)?;
    let count = table.required("heads", Some("for example `heads = 4`"), sink);
    let count = count.and_then(|value| {
        let Takes::Integer { from, to } = COUNT else { return None };
        fields::integer(value, &table.what("heads"), from..=to, sink)
    });
    let causal = table.choice("causal", &CAUSAL, sink);
    let window = table.choice("window_unit", &UNITS, sink);
    let form = table.choice("form", &FORMS, sink).map(|i| PseudoForm::ALL[i]);
    refuse_others(chain, sink);
    refuse_kv_axes(chain, inputs, sink);
    let (heads, count) = (heads?, count?);
    let Some(pseudo_heads) = all_channels(heads.query, count) else {
        let message = format!("{count} pseudo-heads of {} heads are too many", heads.query);
        sink.push(
            Diagnostic::new(Code::S010, &table.value.location, message)
                .label(format!("an axis has at most {} elements", i32::MAX)),
        );
        return None;
    };
    let mut mix = |name: &str, sources: u32| {
        learned.add(name, &[Axis::Len(sources), Axis::Len(heads.query), Axis::Len(count)])
    };
    let mix = [mix("mix_q", heads.query), mix("mix_k", heads.kv), mix("mix_v", heads.kv)];
    let collapse = learned.add("collapse", &[Axis::Len(heads.query), pseudo_heads]);
    Some(Pseudo {
        heads: count,
        causal_by_token: causal? == 1,
        window_in_tokens: window? == 1,
        mix,
        collapse,
        form: form?,
    })
}

/// Refuses what other tables say that has no meaning here.
fn refuse_others(chain: &Chain, sink: &mut Sink) {
    let said = |kind: &Kind, nothing: &str| !matches!(kind, Kind::String(text) if text.decoded == nothing);
    let mut refuse = |table: &str, key: &str, why: &str, has_meaning: &dyn Fn(&Kind) -> bool| {
        if let Some(Kind::Table(entries)) = chain.value(table).map(|value| &value.kind)
            && let Some(entry) = entries.iter().find(|entry| entry.name() == key)
            && !has_meaning(&entry.value.kind)
        {
            let message = format!("`{table}.{key}` has no meaning beside `pseudo`");
            sink.push(Diagnostic::new(Code::S043, &entry.key.token(), message).label(why));
        }
    };
    refuse("heads", "value", "each head's values are mixed from those of `kv` heads", &|_| false);
    refuse("qk_norm", "axis", "the heads are mixed before", &|kind| !said(kind, "head"));
    refuse("output", "mix", "`collapse` mixes them", &|kind| !said(kind, "none"));
    let why = "a row of `o` is a sum over rows with sums of their own";
    refuse("output", "lse", why, &|kind| matches!(kind, Kind::Bool(false)));
}

/// Refuses declared inputs by key heads: each head has keys of its own.
fn refuse_kv_axes(chain: &Chain, inputs: &[Input], sink: &mut Sink) {
    let entries: &[Entry] = match chain.value("inputs").map(|value| &value.kind) {
        Some(Kind::Table(entries)) => entries,
        _ => &[],
    };
    for input in inputs {
        let by_kv = input.shape.is_some_and(|shape| shape.axes().contains(&Axis::KvHead));
        let entry = entries.iter().find(|entry| entry.name() == input.name);
        if let (true, Some(entry)) = (by_kv, entry) {
            let message =
                format!("the axis `g` of input {} has no meaning beside `pseudo`", quote(&input.name));
            sink.push(
                Diagnostic::new(Code::S043, &entry.value.location, message)
                    .label("each query head has keys of its own")
                    .help("write `h`, which `g` is the same as".to_string()),
            );
        }
    }
}
