//! Specs that tests run.

use regard::{NoFiles, Shipped, Spec};
use regard_ir::spec::Mechanism;

/// The spec of a text.
///
/// # Panics
/// With the diagnostics, if it is none.
pub fn parse(text: &str) -> Spec {
    match regard::parse(text, "test.toml", &NoFiles) {
        Ok(parsed) => parsed.spec,
        Err(diagnostics) => panic!("{text}\n{diagnostics}"),
    }
}

/// A shipped spec as it is.
///
/// # Panics
/// With the diagnostics, if it does not parse.
pub fn shipped(shipped: &Shipped) -> Spec {
    match regard::shipped(shipped.name) {
        Ok(parsed) => parsed.spec,
        Err(diagnostics) => panic!("{}: {diagnostics}", shipped.name),
    }
}

/// Whether a shipped spec is a model's: its tables are those of other specs, and its heads and numbers its own. It is
/// held against the model itself by a golden.
pub fn is_preset(shipped: &Shipped) -> bool {
    shipped.name.starts_with("models/")
}

/// Whether a shipped spec has so many heads that it is run where nothing else would show what is looked for: another has fewer of
/// the same.
pub fn is_many(shipped: &Shipped) -> bool {
    self::shipped(shipped).heads.query > 100
}

/// Whether a shipped spec has latents of a model's width, each of whose keys and values takes a hundred times as long: another has
/// narrower ones.
pub fn is_wide(shipped: &Shipped) -> bool {
    is_preset(shipped) && matches!(self::shipped(shipped).mechanism, Mechanism::Latent(_))
}

/// Whether a spec has lookahead keys: these need a query for each key, and learn no parts.
pub fn has_lookahead(spec: &Spec) -> bool {
    matches!(spec.mechanism, Mechanism::Lookahead(_))
}

/// Whether a spec has states in place of keys and values that are kept: it has no parts, and no cache.
pub fn has_states(spec: &Spec) -> bool {
    matches!(spec.mechanism, Mechanism::Recurrence(_))
}

/// Whether a spec needs a query for each key.
pub fn pairs_queries(spec: &Spec) -> bool {
    spec.variant().pairs_queries()
}

/// A shipped spec with the same sharing of keys and values, but at most 2 key heads of at most 5 query heads and
/// `dim` and `value_dim` channels, so that the oracle is quick; of latents, as wide as keys are, a part of whose channels is rotary.
///
/// # Panics
/// As [`shipped`].
pub fn narrow(shipped: &Shipped, dim: u32, value_dim: u32) -> Spec {
    let heads = self::shipped(shipped).heads;
    let kv = heads.kv.min(2);
    let query = kv * heads.group().min(5);
    let values = kv * (heads.value / heads.kv.max(1)).min(3);
    // Of a recurrence there may be more of them; elsewhere as many as by default.
    let value = if values > kv { format!("value = {values}, ") } else { String::new() };
    if let Mechanism::Latent(_) = self::shipped(shipped).mechanism {
        let (rope, nope) = (dim / 4 * 2, dim - dim / 4 * 2);
        return parse(&format!(
            "extends = \"{}\"\nheads = {{ query = {query} }}\n\
             latent = {{ rank = {dim}, nope_dim = {nope}, rope_dim = {rope}, value_dim = {value_dim} }}",
            shipped.name
        ));
    }
    parse(&format!(
        "extends = \"{}\"\nheads = {{ query = {query}, kv = {kv}, {value}dim = {dim}, value_dim = {value_dim} }}",
        shipped.name
    ))
}
