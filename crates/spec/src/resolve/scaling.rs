//! `position.scaling`: how rotary frequencies are stretched past the trained length.
//!
//! Names, meanings and defaults are those of `rope_scaling` in Hugging Face model configs, so that a config's numbers
//! can be copied. What they would silently ignore is refused.

use regard_ir::rows::RopeScaling;

use super::extends::Chain;
use super::fields;
use super::key::{self, Absent, Key, Least, Takes};
use super::table::Table;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink};
use crate::document::Value;

const NAME: &str = "position.scaling";
const KINDS: [&str; 3] = ["linear", "llama3", "yarn"];

/// The keys of each kind.
const KEYS: [&[&str]; 3] = [
    &["kind", "factor"],
    &["kind", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
    &[
        "kind",
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ],
];

/// The keys of all kinds.
pub(crate) const ALL_KEYS: [Key; 11] = [
    Key::new(
        "kind",
        Takes::OneOf(&KINDS),
        Absent::Required,
        "which rule; in model configs it is `rope_type`",
    ),
    Key::new(
        "factor",
        Takes::Number(Least::From(1.0)),
        Absent::Required,
        "how many times longer sequences may be than the trained ones: what stretched frequencies are divided by",
    ),
    Key::new(
        "low_freq_factor",
        Takes::Number(Least::Above(0.0)),
        Absent::Required,
        "waves longer than the trained length over this are stretched by `factor`",
    ),
    Key::new(
        "high_freq_factor",
        Takes::Number(Least::Above(0.0)),
        Absent::Required,
        "waves shorter than the trained length over this stay; at least `low_freq_factor`, between them it is blended",
    ),
    Key::new(
        "original_max_position_embeddings",
        Takes::Integer { from: 1, to: i32::MAX as u32 },
        Absent::Required,
        "the trained length",
    ),
    Key::new(
        "beta_fast",
        Takes::Number(Least::Above(0.0)),
        Absent::Value("32"),
        "waves that turn more often than this in the trained length stay",
    ),
    Key::new(
        "beta_slow",
        Takes::Number(Least::Above(0.0)),
        Absent::Value("1"),
        "waves that turn less often than this are stretched by `factor`; at most `beta_fast`, a ramp lies between",
    ),
    Key::new(
        "attention_factor",
        Takes::Number(Least::Above(0.0)),
        Absent::Words("0.1 · ln(`factor`) + 1, or of `mscale` and `mscale_all_dim`"),
        "what turned channels of q and k are multiplied by",
    ),
    Key::new(
        "mscale",
        Takes::Number(Least::Above(0.0)),
        Absent::Words("none"),
        "as in DeepSeek's configs: the attention factor is (0.1 · `mscale` · ln(`factor`) + 1) over the same of \
         `mscale_all_dim`; both or neither",
    ),
    Key::new("mscale_all_dim", Takes::Number(Least::Above(0.0)), Absent::Words("none"), "see `mscale`"),
    Key::new(
        "truncate",
        Takes::Flag,
        Absent::Value("true"),
        "whether the ends of the ramp are rounded outwards to whole channels",
    ),
];

/// The keys of each kind, by its name.
pub(crate) fn kinds() -> impl Iterator<Item = (&'static str, Vec<Key>)> {
    let of = |names: &[&str]| ALL_KEYS.into_iter().filter(|key| names.contains(&key.name)).collect();
    KINDS.into_iter().zip(KEYS.map(of))
}

/// The scaling of frequencies of base `theta`, if nothing is wrong with it.
pub(super) fn read(chain: &Chain, value: &Value, theta: Option<f64>, sink: &mut Sink) -> Option<RopeScaling> {
    let table = Table::unchecked(chain, value, NAME, &ALL_KEYS, sink)?;
    let renamed = table.entries.iter().find(|entry| ["rope_type", "type"].contains(&entry.name()));
    let kind = match renamed {
        // It is not missing too.
        Some(_) => table.get("kind"),
        None => table.required("kind", Some("`linear`, `llama3` or `yarn`"), sink),
    };
    let kind = kind.and_then(|value| fields::choice(value, &table.what("kind"), &KINDS, sink));
    check_keys(&table, kind, sink);
    let kind = kind?;
    let factor = table.number("factor", None, Least::From(1.0), sink);
    match kind {
        0 => Some(RopeScaling::Linear { factor: factor? }),
        1 => llama3(&table, factor, sink),
        _ => yarn(&table, factor, theta, sink),
    }
}

/// Refuses the keys that this kind has not.
fn check_keys(table: &Table<'_>, kind: Option<usize>, sink: &mut Sink) {
    for entry in table.entries {
        let name = entry.name();
        let of = KEYS.iter().position(|keys| keys.contains(&name));
        let help = match (name, kind, of) {
            ("rope_type" | "type", ..) => "it is called `kind` here".to_string(),
            (_, None, Some(_)) => continue,
            (_, Some(kind), _) if KEYS[kind].contains(&name) => continue,
            (_, Some(kind), Some(of)) => {
                format!("it is a key of `{}`, this is `{}`", KINDS[of], KINDS[kind])
            }
            (_, kind, None) => {
                let known = kind.map_or_else(|| key::names(&ALL_KEYS), |kind| KEYS[kind].to_vec());
                fields::check_keys(std::slice::from_ref(entry), &known, Some(NAME), sink);
                continue;
            }
        };
        fields::unknown_key(entry, Some(NAME), Some(help), sink);
    }
}

fn llama3(table: &Table<'_>, factor: Option<f64>, sink: &mut Sink) -> Option<RopeScaling> {
    let low = table.number("low_freq_factor", None, Least::Above(0.0), sink);
    let high = table.number("high_freq_factor", None, Least::Above(0.0), sink);
    let len = trained_len(table, sink);
    let (low_freq_factor, high_freq_factor) = (low?, high?);
    // Where they are equal nothing is blended.
    if high_freq_factor < low_freq_factor {
        let expected = format!("at least `low_freq_factor`, {low_freq_factor:?}");
        out_of_order(table, "high_freq_factor", &expected, high_freq_factor, sink);
        return None;
    }
    Some(RopeScaling::Llama3 {
        factor: factor?,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings: len?,
    })
}

fn yarn(table: &Table<'_>, factor: Option<f64>, theta: Option<f64>, sink: &mut Sink) -> Option<RopeScaling> {
    let len = trained_len(table, sink);
    let fast = table.number("beta_fast", Some(32.0), Least::Above(0.0), sink);
    let slow = table.number("beta_slow", Some(1.0), Least::Above(0.0), sink);
    let truncate = table.flag("truncate", true, sink);
    let attention_factor = attention_factor(table, factor, sink);
    if let Some(theta) = theta.filter(|&theta| theta <= 1.0) {
        sink.push(
            Diagnostic::new(
                Code::S010,
                &table.value.location,
                format!("yarn needs a theta above 1, found {theta:?}"),
            )
            .label("its ramp runs over falling frequencies"),
        );
        return None;
    }
    let (beta_fast, beta_slow) = (fast?, slow?);
    if beta_fast < beta_slow {
        // The one that is given, if one is left to its default.
        let (key, expected, found) = match table.get("beta_fast") {
            Some(_) => ("beta_fast", format!("at least `beta_slow`, {beta_slow:?}"), beta_fast),
            None => ("beta_slow", format!("at most `beta_fast`, {beta_fast:?}"), beta_slow),
        };
        out_of_order(table, key, &expected, found, sink);
        return None;
    }
    Some(RopeScaling::Yarn {
        factor: factor?,
        beta_fast,
        beta_slow,
        attention_factor: attention_factor?,
        original_max_position_embeddings: len?,
        truncate: truncate?,
    })
}

/// What turned channels are multiplied by: as given, or by the rule of the paper or of DeepSeek's configs.
fn attention_factor(table: &Table<'_>, factor: Option<f64>, sink: &mut Sink) -> Option<f64> {
    let mut of = |key: &str| match table.get(key) {
        Some(value) => fields::number(value, &table.what(key), Least::Above(0.0), sink).map(Some),
        None => Some(None),
    };
    let (given, mscale, all_dim) = (of("attention_factor"), of("mscale"), of("mscale_all_dim"));
    let stretched = |mscale: f64| Some(0.1 * mscale * libm::log(factor?) + 1.0);
    if table.get("attention_factor").is_some() {
        for key in ["mscale", "mscale_all_dim"] {
            table.refuse(key, "beside `attention_factor`", "the factor is given", None, sink);
        }
        return given?;
    }
    for (key, other) in [("mscale", "mscale_all_dim"), ("mscale_all_dim", "mscale")] {
        if table.get(other).is_none() {
            let beside = format!("without `{other}`");
            table.refuse(key, &beside, "the attention factor is made of both", None, sink);
        }
    }
    match (mscale?, all_dim?) {
        (Some(mscale), Some(all_dim)) => Some(stretched(mscale)? / stretched(all_dim)?),
        _ => stretched(1.0),
    }
}

fn trained_len(table: &Table<'_>, sink: &mut Sink) -> Option<u32> {
    const KEY: &str = "original_max_position_embeddings";
    let value = table.required(KEY, Some("the length that the model was trained for"), sink)?;
    fields::integer(value, &table.what(KEY), 1..=i32::MAX as u32, sink)
}

/// Reports a number that must be on the other side of one beside it.
fn out_of_order(table: &Table<'_>, key: &str, expected: &str, found: f64, sink: &mut Sink) {
    let location = table.get(key).map_or(&table.value.location, |value| &value.location);
    let message = format!("{} must be {expected}, found {found:?}", table.what(key));
    sink.push(Diagnostic::new(Code::S010, location, message).label("out of range"));
}
