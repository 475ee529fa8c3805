//! Norms, positions, weights, outputs and caches in words: a clause each, without a capital or a full stop.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::lookahead::turned;
use crate::rows::{
    Frequencies, Gate, Mix, NormKind, Output, OutputNorm, Position, QkNorm, RopeLayout, RopeScaling,
};
use crate::spec::{Cache, CacheFormat, CacheLayout, Mechanism, Spec};
use crate::variant::{Sink, Weights};

/// What happens to rows before they meet, if anything.
pub fn rows(spec: &Spec) -> Option<String> {
    let (names, norm) = (&spec.inputs.names, spec.qk_norm);
    let tensors = match &spec.mechanism {
        Mechanism::Lookahead(lookahead) => turned(spec, lookahead),
        _ => Vec::from(["q", "k"]),
    };
    let (last, others) = tensors.split_last()?;
    let tensors =
        if others.is_empty() { String::from(*last) } else { format!("{} and {last}", others.join(", ")) };
    let norm_step = norm.map(|norm| qk_norm(norm, names));
    let mut steps: Vec<String> =
        [norm_step, spec.position.map(|it| rope(it, names))].into_iter().flatten().collect();
    if norm.is_some_and(|norm| norm.after_rope) {
        steps.reverse();
    }
    clause(&format!("rows of {tensors} are"), &steps)
}

/// How scores become weights, if not by a plain softmax.
pub fn weights(weights: Weights, names: &[String]) -> Option<String> {
    match weights {
        Weights::Softmax { sink: Sink::None } => None,
        Weights::Softmax { sink: Sink::One } => Some("weights are a softmax with 1 added to its sum".into()),
        Weights::Softmax { sink: Sink::Learned { input } } => {
            Some(format!("weights are a softmax with `exp({}[h])` added to its sum", name(input, names)))
        }
        Weights::Sigmoid => Some("weights are `sigmoid(s)`, not divided by their sum".into()),
        Weights::Relu => Some("weights are `max(s, 0)`, not divided by their sum".into()),
    }
}

/// What happens to rows of o, if anything; that the log of the weights' sum is an output is for the caller to say.
pub fn output(output: Output, names: &[String]) -> Option<String> {
    let Output { mix, norm, gate, lse: _ } = output;
    let mix =
        mix.map(|Mix { heads, input }| format!("mixed over heads by `{}` into {heads}", name(input, names)));
    let norm = norm.map(|OutputNorm { eps, learned }| {
        normalised(NormKind::Rms, eps, "", learned.map(|input| format!("`{}`", name(input, names))))
    });
    let gate = gate.map(|Gate { per_head, silu }| {
        let activation = if silu { "silu" } else { "sigmoid" };
        let each = if per_head { "one gate for each row" } else { "one gate for each element" };
        format!("multiplied by `{activation}(gate)`, {each}")
    });
    clause("rows of o are", &[mix, norm, gate].into_iter().flatten().collect::<Vec<_>>())
}

/// How keys and values are cached, if not as they are and in one block.
pub fn cache(cache: Cache) -> Option<String> {
    let Cache { k, v, .. } = cache;
    let stored = |format: CacheFormat| match format {
        CacheFormat::Same => "as they are".into(),
        other => format!("in {}", other.name()),
    };
    let formats = match (k, v) {
        (CacheFormat::Same, CacheFormat::Same) => None,
        (k, v) if k == v => Some(format!("keys and values are cached {}", stored(k))),
        (k, v) => Some(format!("keys are cached {} and values {}", stored(k), stored(v))),
    };
    match (formats, cache_layout(cache)) {
        (None, layout) => layout.map(|layout| format!("keys and values are cached {layout}")),
        (Some(formats), None) => Some(formats),
        (Some(formats), Some(layout)) => Some(format!("{formats}, {layout}")),
    }
}

/// Where cached tokens lie, if not in one block of memory.
pub fn cache_layout(cache: Cache) -> Option<String> {
    let layout = match (cache.layout, cache.page) {
        (CacheLayout::Contiguous, _) => None,
        (CacheLayout::Paged, Some(page)) => Some(format!("in pages of {page} tokens")),
        (CacheLayout::Paged, None) => Some("in pages".into()),
        (CacheLayout::Ring, _) => Some("in a ring".into()),
    };
    let file = cache.file.then(|| "in a memory-mapped file".into());
    let places: Vec<String> = [layout, file].into_iter().flatten().collect();
    (!places.is_empty()).then(|| places.join(", "))
}

fn clause(subject: &str, steps: &[String]) -> Option<String> {
    (!steps.is_empty()).then(|| format!("{subject} {}", steps.join(", then ")))
}

fn qk_norm(norm: QkNorm, names: &[String]) -> String {
    let QkNorm { kind, eps, learned, all_heads, after_rope: _ } = norm;
    let over = if all_heads { " over all heads" } else { "" };
    let factors = learned.map(|[q, k]| format!("`{}` and `{}`", name(q, names), name(k, names)));
    normalised(kind, eps, over, factors)
}

fn normalised(kind: NormKind, eps: f64, over: &str, factors: Option<String>) -> String {
    let by = match kind {
        NormKind::Rms => "root mean square",
        NormKind::L2 => "length",
    };
    let scaled = factors.map_or(String::new(), |factors| format!(" and scaled by {factors}"));
    format!("divided by their {by}{over} (eps {}){scaled}", number(eps))
}

fn rope(position: Position, names: &[String]) -> String {
    let Position { frequencies, dim, layout, offset, ids } = position;
    let pairs = match layout {
        RopeLayout::Half => "",
        RopeLayout::Interleaved => " in adjacent pairs",
    };
    let from = if offset == 0 { String::new() } else { format!(" from {offset} on") };
    let at = ids.map_or(String::new(), |input| format!(" at positions `{}`", name(input, names)));
    let frequencies = match frequencies {
        Frequencies::Input(input) => format!("frequencies `{}`", name(input, names)),
        Frequencies::Theta { theta, scaling } => format!("theta {}{}", number(theta), self::scaling(scaling)),
    };
    let factor = position.factor();
    let times = if factor == 1.0 { String::new() } else { format!(", rows times {}", number(factor)) };
    format!("turned by rope in {dim} channels{from}{pairs}{at} ({frequencies}{times})")
}

/// How rotary frequencies are stretched, after a comma; nothing where they are not.
pub fn scaling(scaling: RopeScaling) -> String {
    match scaling {
        RopeScaling::None => String::new(),
        RopeScaling::Linear { factor } => format!(", stretched by {}", number(factor)),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: trained,
        } => format!(
            ", llama3 by {} past {trained} positions between {} and {} turns",
            number(factor),
            number(low_freq_factor),
            number(high_freq_factor)
        ),
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            attention_factor: _,
            original_max_position_embeddings: trained,
            truncate,
        } => format!(
            ", yarn by {} past {trained} positions between {} and {} turns{}",
            number(factor),
            number(beta_slow),
            number(beta_fast),
            if truncate { "" } else { " unrounded" },
        ),
    }
}

fn name(input: u16, names: &[String]) -> &str {
    names.get(usize::from(input)).map_or("input", String::as_str)
}

/// To seven digits, with an exponent where it would begin with zeros or be longer.
pub fn number(x: f64) -> String {
    let scientific = format!("{x:.6e}");
    let rounded: f64 = scientific.parse().unwrap_or(x);
    if rounded == 0.0 || (1e-3..1e7).contains(&rounded.abs()) {
        format!("{rounded}")
    } else {
        format!("{rounded:e}")
    }
}
