//! `qk_norm`: how the rows of q and k are normalised.

use regard_ir::rows::{NormKind, QkNorm};
use regard_ir::variant::{Axis, Heads};

use super::captured::{Learned, all_channels};
use super::extends::Chain;
use super::fields;
use super::key::{Absent, Key, Least, Takes};
use super::table::Table;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink};
use crate::document::Kind;

/// The keys of `qk_norm`.
pub(crate) const KEYS: [Key; 5] = [
    Key::new(
        "kind",
        Takes::OneOf(&KINDS),
        Absent::Required,
        "a row is divided by √(mean of its squares + eps), or by √(sum of its squares + eps)",
    ),
    Key::new("eps", Takes::Number(Least::From(0.0)), Absent::Value("1e-6"), "added under the root"),
    Key::new(
        "learned",
        Takes::Flag,
        Absent::Value("false"),
        "whether rows are then multiplied by the learned `q_norm` and `k_norm`",
    ),
    Key::new(
        "axis",
        Takes::OneOf(&AXES),
        Absent::Value("\"head\""),
        "what is one row: the channels of a head, or of all heads together; `q_norm` and `k_norm` are as long",
    ),
    Key::new(
        "after_rope",
        Takes::Flag,
        Absent::Value("false"),
        "whether rows are normalised after they are turned; with `position`",
    ),
];
const KINDS: [&str; 2] = ["rms", "l2"];
const AXES: [&str; 2] = ["head", "all"];

/// What is added under the root, unless the spec says otherwise.
pub(super) const EPS: f64 = 1e-6;

/// The norm, where there is one and nothing is wrong with it.
pub(super) fn read(
    chain: &Chain,
    heads: Option<Heads>,
    learned: &mut Learned,
    sink: &mut Sink,
) -> Option<QkNorm> {
    let value = chain.value("qk_norm")?;
    let kind = |i: usize| if i == 0 { NormKind::Rms } else { NormKind::L2 };
    match value.kind {
        Kind::Table(_) => {}
        Kind::String(_) => {
            let kind = kind(fields::choice(value, "`qk_norm`", &KINDS, sink)?);
            return Some(QkNorm { kind, eps: EPS, learned: None, all_heads: false, after_rope: false });
        }
        _ => {
            fields::wrong_type(value, "`qk_norm`", "a kind of norm in a string, or a table", sink);
            return None;
        }
    }
    let table = Table::read(chain, value, "qk_norm", &KEYS, sink)?;
    let given = table.required("kind", Some("`kind = \"rms\"` or `kind = \"l2\"`"), sink);
    let given = given.and_then(|value| fields::choice(value, &table.what("kind"), &KINDS, sink));
    let eps = table.number("eps", Some(EPS), Least::From(0.0), sink);
    let is_learned = table.flag("learned", false, sink);
    let all_heads = table.choice("axis", &AXES, sink).map(|i| i == 1);
    let after_rope = table.flag("after_rope", false, sink);
    if after_rope == Some(true) && chain.entry("position").is_none() {
        let help = Some("`position = { rope = … }` turns the rows");
        table.refuse("after_rope", "without `position`", "nothing is turned", help, sink);
    }
    let (heads, all_heads) = (heads?, all_heads?);
    let mut factors = |name: &str, n_heads: u32| -> Option<u16> {
        let axis = if all_heads { all_channels(n_heads, heads.dim) } else { Some(Axis::Len(heads.dim)) };
        if axis.is_none() {
            let message = format!("`{name}` of {n_heads} heads of {} channels is too long", heads.dim);
            sink.push(
                Diagnostic::new(Code::S010, &table.value.location, message)
                    .label(format!("an axis has at most {} elements", i32::MAX)),
            );
        }
        Some(learned.add(name, &[axis?]))
    };
    let learned = match is_learned? {
        true => Some([factors("q_norm", heads.query)?, factors("k_norm", heads.kv)?]),
        false => None,
    };
    Some(QkNorm { kind: kind(given?), eps: eps?, learned, all_heads, after_rope: after_rope? })
}
