//! `latent`: keys and values compressed to one vector a token.

use regard_ir::variant::{Latent, LatentForm};

use super::extends::Chain;
use super::fields;
use super::key::{Absent, Key, Takes};
use super::table::Table;
use super::tables::{COUNT, MAX_HEADS};
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink};

/// The keys of `latent`.
pub(crate) const KEYS: [Key; 5] = [
    Key::new("rank", COUNT, Absent::Required, "width of the latent vector `c_kv` of a token"),
    Key::new(
        "nope_dim",
        COUNT,
        Absent::Required,
        "width of the rows that `w_uk` makes of it: keys without position",
    ),
    Key::new(
        "rope_dim",
        COUNT,
        Absent::Required,
        "width of `q_rope` and of `k_rope`, which all heads share and `position` turns",
    ),
    Key::new("value_dim", COUNT, Absent::Required, "width of the rows that `w_uv` makes of it: values"),
    Key::new(
        "form",
        Takes::OneOf(&FORMS),
        Absent::Value("\"auto\""),
        "whether keys and values are formed of the latents, or queries are brought to these; by cost, unless it is said",
    ),
];

/// In the order of [`LatentForm::ALL`].
const FORMS: [&str; 3] = [LatentForm::ALL[0].name(), LatentForm::ALL[1].name(), LatentForm::ALL[2].name()];

/// What `latent` says.
pub(super) enum Given {
    /// There is no such table.
    No,
    /// Its numbers.
    Yes(Latent),
    /// Something that is reported.
    Wrong,
}

/// The latent, where there is one.
pub(super) fn read(chain: &Chain, sink: &mut Sink) -> Given {
    let Some(value) = chain.value("latent") else { return Given::No };
    let Some(table) = Table::read(chain, value, "latent", &KEYS, sink) else { return Given::Wrong };
    let mut read = |key: &str| {
        let value = table.required(key, None, sink)?;
        fields::integer(value, &table.what(key), 1..=MAX_HEADS, sink)
    };
    let widths = ["rank", "nope_dim", "rope_dim", "value_dim"].map(&mut read);
    let form = table.choice("form", &FORMS, sink).map(|i| LatentForm::ALL[i]);
    refuse(chain, sink);
    match (widths, form) {
        ([Some(rank), Some(nope_dim), Some(rope_dim), Some(value_dim)], Some(form)) => {
            Given::Yes(Latent { rank, nope_dim, rope_dim, value_dim, form })
        }
        _ => Given::Wrong,
    }
}

/// Refuses the tables that say something of what there is not.
fn refuse(chain: &Chain, sink: &mut Sink) {
    if let Some(entry) = chain.entry("qk_norm") {
        let error =
            Diagnostic::new(Code::S043, &entry.key.token(), "`qk_norm` has no meaning beside `latent`");
        let label = "keys are never formed where queries are brought to the latents";
        sink.push(error.label(label).help("norm `c_kv` before it is given".to_owned()));
    }
}
