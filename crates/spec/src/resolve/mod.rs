//! From entries to a spec: parents merged, defaults filled in, expressions compiled.

pub(crate) mod cache;
mod captured;
mod extends;
mod fields;
mod inputs;
mod key;
pub(crate) mod latent;
pub(crate) mod lookahead;
mod misplaced;
pub(crate) mod output;
pub(crate) mod position;
pub(crate) mod pseudo;
pub(crate) mod qk_norm;
pub(crate) mod recurrence;
pub(crate) mod scaling;
mod table;
pub(crate) mod tables;
pub(crate) mod top;
pub(crate) mod weights;

use std::cell::Cell;

use regard_ir::identity::Identity;
use regard_ir::plan::{Dtype, Precision};
use regard_ir::spec::{Inputs, Mechanism, Spec};
use regard_ir::variant::{Axis, Sink as WeightSink, Source as KeySource, Weights};

use self::captured::Learned;
use self::extends::Chain;
use self::top::{DTYPES, KEYS, PRECISIONS, SOURCES};
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Diagnostics, Sink, one_of};
use crate::expr::define::{Definitions, Owner};
use crate::expr::{self, Comparison, Env};
use crate::{LoadError, Loader, Parsed, identity};

pub(crate) use self::extends::Origin;
pub use self::key::{Absent, Key, Least, Takes};

/// Compiles the spec whose bytes are given, if they could be read.
pub(crate) fn compile(
    origin: Origin,
    bytes: Result<Vec<u8>, LoadError>,
    loader: &dyn Loader,
) -> Result<Parsed, Diagnostics> {
    let mut sink = Sink::default();
    let stem = origin.stem();
    let chain = Chain::load(origin, bytes, loader, &mut sink);
    let spec = resolve(&chain, stem, &mut sink);
    let n_errors = sink.n_errors();
    // A name that seems unknown may have been declared where the file could not be read.
    sink.retain(|found| found.code != Code::S014 || !chain.may_say(&found.source.text[found.span.clone()]));
    match spec {
        Some(spec) if n_errors == 0 => Ok(Parsed { spec, notes: sink.finish() }),
        _ => Err(Diagnostics(sink.finish())),
    }
}

fn resolve(chain: &Chain, stem: String, sink: &mut Sink) -> Option<Spec> {
    chain
        .documents
        .iter()
        .for_each(|document| fields::check_keys(&document.entries, &key::names(&KEYS), None, sink));
    for key in KEYS.iter().filter(|key| key.takes == Takes::Unsupported) {
        if let Some(entry) = chain.entry(key.name) {
            fields::unsupported(&entry.key.token(), key.name, sink);
        }
    }
    one_mechanism(chain, sink);

    let name = own_line(chain, "name", sink).unwrap_or(stem);
    let summary = own_line(chain, "summary", sink).unwrap_or_default();
    let source = match chain.choice("source", &SOURCES, sink) {
        Some(1) => KeySource::Cross,
        _ => KeySource::SelfAttention,
    };
    let dtype = chain.choice("dtype", &DTYPES, sink).map_or(Dtype::F32, |i| Dtype::ALL[i]);
    let precision = match chain.choice("precision", &PRECISIONS, sink) {
        Some(1) => Precision::Fast,
        _ => Precision::Exact,
    };
    let latent = latent::read(chain, sink);
    let heads = tables::heads(chain, &latent, sink);
    // The widths of rows that are turned.
    let rows = match &latent {
        latent::Given::No => heads.map(|heads| heads.dim),
        latent::Given::Yes(latent) => Some(latent.rope_dim),
        latent::Given::Wrong => None,
    };
    let inputs = inputs::read(chain.value("inputs"), sink);
    let position = position::read(chain, rows, source, &inputs, sink);
    // The order of these is the order of the inputs that they imply.
    let mut learned = Learned::new(inputs.len());
    let qk_norm = qk_norm::read(chain, heads, &mut learned, sink);
    let (weights, bias) = weights::read(chain, &mut learned, sink);
    let pseudo = pseudo::read(chain, heads, &inputs, &mut learned, sink);
    let recurrence = recurrence::read(chain, heads, &mut learned, sink);
    let output = output::read(chain, heads, weights, &mut learned, sink);
    let cache = cache::read(chain, &latent, sink);
    let lookahead = lookahead::read(chain, heads, source, sink);

    let mut definitions = Definitions::prelude(pseudo.as_ref());
    for entry in fields::table(chain.value("define"), "define", sink) {
        let text = fields::string(&entry.value, "a definition", sink).cloned();
        definitions.add(&entry.key, text, Owner::Spec(&inputs), sink);
    }
    definitions.resolve(&inputs, sink);
    let scored = heads.map(|heads| pseudo.map_or(heads, |pseudo| pseudo.heads(heads)));
    let env = Env { heads: scored, inputs: &inputs, definitions: &definitions, work: Cell::new(0) };
    Definitions::check(&env, sink);

    let score = tables::score(chain.value("score"), sink);
    let scale = match score.scale {
        tables::Scale::Default => heads.map(|heads| 1.0 / f64::from(heads.dim).sqrt()),
        tables::Scale::Number(scale) => Some(scale),
        tables::Scale::Expression(text) => expr::scale(text, &env, sink),
        tables::Scale::Wrong => None,
    };
    let shiftless = matches!(weights, None | Some(Weights::Softmax { sink: WeightSink::None }));
    let modify = match &recurrence {
        Some(said) => expr::feature_map(said.as_ref().and_then(|said| said.feature_map.clone()), &env, sink),
        None => expr::modifier(score.modify, bias, shiftless, &env, sink),
    };
    let mask = tables::mask(chain.value("mask"), sink);
    let causal: &[Comparison] = if lookahead.is_some() { &[Comparison::NotLater] } else { &[] };
    let allow = expr::mask(mask, causal, &env, sink);
    let lookahead =
        lookahead.map(|said| said.and_then(|said| said.compile(&env, sink)).map(Mechanism::Lookahead));
    let pseudo = chain.entry("pseudo").map(|_| pseudo.map(Mechanism::Pseudo));
    let recurrence = recurrence.map(|said| {
        let recurrence = said?.compile(chain, allow.as_ref()?, source, env.inputs, sink);
        recurrence.map(Mechanism::Recurrence)
    });
    let latent = match latent {
        latent::Given::No => None,
        latent::Given::Yes(latent) => Some(Some(Mechanism::Latent(latent))),
        latent::Given::Wrong => Some(None),
    };
    // Where there are several, that was refused.
    let mechanism = recurrence.or(latent).or(lookahead).or(pseudo).unwrap_or(Some(Mechanism::Plain));

    let mut names = Vec::new();
    let mut shapes = Vec::new();
    for input in inputs.into_iter().chain(learned.inputs) {
        names.push(input.name);
        let mut shape = input.shape?;
        if let Some(Mechanism::Latent(_)) = mechanism {
            // One latent is all key heads, whichever of them a kernel makes of it.
            shape.axes.iter_mut().filter(|axis| **axis == Axis::KvHead).for_each(|axis| *axis = Axis::Len(1));
        }
        shapes.push(shape);
    }
    let mut spec = Spec {
        name,
        summary,
        identity: Identity(0),
        heads: heads?,
        source,
        position,
        qk_norm,
        scale: scale?,
        modify: modify?,
        allow: allow?,
        weights: weights?,
        mechanism: mechanism?,
        output: output?,
        project: None,
        cache: cache?,
        inputs: Inputs { names, shapes },
        dtype,
        precision,
    };
    spec.identity = identity::of(&spec);
    Some(spec)
}

/// The tables that say what turns q, k and v into o.
const MECHANISMS: [&str; 4] = ["recurrence", "latent", "lookahead", "pseudo"];

/// Refuses all of them but the first that is given.
fn one_mechanism(chain: &Chain, sink: &mut Sink) {
    let is_read = |key: &&&str| KEYS.iter().any(|it| it.name == **key && it.takes != Takes::Unsupported);
    let mut given = MECHANISMS.iter().filter(is_read).filter_map(|key| chain.entry(key).zip(Some(key)));
    let Some((_, first)) = given.next() else { return };
    for (entry, key) in given {
        let message = format!("`{key}` has no meaning beside `{first}`");
        let error = Diagnostic::new(Code::S043, &entry.key.token(), message);
        sink.push(error.label(format!("a spec has one of {}", one_of(&MECHANISMS))));
    }
}

/// A line that describes the file that says it, and so is not taken from a parent.
fn own_line(chain: &Chain, key: &str, sink: &mut Sink) -> Option<String> {
    let value = chain.documents.first()?.entries.iter().find(|entry| entry.name() == key)?;
    let text = fields::string(&value.value, &format!("`{key}`"), sink)?;
    let line = text.decoded.trim();
    if let Some((at, other)) = line.char_indices().find(|(_, c)| c.is_control()) {
        let at = text.decoded.len() - text.decoded.trim_start().len() + at;
        let location = text.locate(at..at + other.len_utf8());
        let error = Diagnostic::new(Code::S046, &location, format!("`{key}` is more than a line"));
        sink.push(error.label("a line break or another control character"));
        return None;
    }
    Some(line.to_string())
}
