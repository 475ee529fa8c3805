//! Sizes of decoding, and of what it lives on: the pages of a cache.

use regard_ir::cache::{Codec, PAGE_STEP, PageFormat};
use regard_ir::machine::Machine;
use regard_ir::plan::{Dtype, Split};
use regard_ir::spec::{CacheFormat, CacheLayout, Mechanism, Spec};
use regard_ir::variant::{Latent, Pseudo};

use crate::inequality::{Inequality, Limit, Unit, factor, term};
use crate::report::{Choice, Reason, Rejected};

/// The most rows of a head, of tokens, in a page that nobody asked for: four panels of keys fill the registers, and a page that is
/// begun wastes little.
const MOST_TOKENS: u32 = 64;

/// Keys that are scored before their values are added up: enough that a row's largest score is found once for many.
const CHUNK: u32 = 512;

/// The fewest rows of sequences that share a prefix in one pass, as far as one sequence has no more, and the most: past them
/// nothing is gained, as keys are read from a near cache then.
const FEWEST_ROWS: u32 = 8;
const MOST_ROWS: u32 = 64;

/// Rows of pseudo-heads that are mixed at once, unless a head has more.
const MIXED_ROWS: u32 = 8;

/// Keys that one thread takes at a time: few, so that short sequences are shared out evenly, and so many that what they leave
/// behind is little beside what is read.
const CELL: u32 = 1024;

/// The same where one head has all keys: nothing but cells is there to be shared out.
const CELL_OF_ONE: u32 = 512;

/// The pages of a spec's cache and the sizes of decoding on it, with the reason for each.
///
/// Where heads are mixed into pseudo-heads, `mixed` says that they are before they are cached.
pub(crate) fn choose(
    spec: &Spec,
    machine: &Machine,
    dtype: Dtype,
    mixed: bool,
) -> (PageFormat, Split, Vec<Choice>) {
    let codec = |format| match format {
        CacheFormat::Same => Codec::of(dtype),
        CacheFormat::Dtype(dtype) => Codec::of(dtype),
        CacheFormat::Int8 => Codec::Int8,
        CacheFormat::Int4 => Codec::Int4,
    };
    let (k, v) = (codec(spec.cache.k), codec(spec.cache.v));
    let pseudo = match &spec.mechanism {
        Mechanism::Pseudo(pseudo) => Some(pseudo),
        _ => None,
    };
    // Positions of a token, and how many of them have rows in a cache.
    let per_token = pseudo.map_or(1, |pseudo| pseudo.heads.max(1));
    let rows = if mixed { per_token } else { 1 };
    // Tokens of so many positions.
    let tokens = |positions: u32, per_token: u32| (positions / per_token).max(1);
    let page = match spec.cache.page {
        Some(tokens) => Choice::fixed("page", tokens.into(), Reason::PageAsAsked),
        None => page(spec, machine, rows),
    };
    let cache = PageFormat { tokens: page.value as u32, k, v, mixed };
    let whole = |most: u32, unit: u32| most.next_multiple_of(unit).min((most / unit).max(1) * unit);
    let chunk = match &spec.mechanism {
        Mechanism::Latent(latent) => latent_chunk(latent, machine, &cache),
        Mechanism::Pseudo(pseudo) if !mixed => mixed_chunk(spec, pseudo, machine, &cache),
        _ => {
            let chunk = whole(tokens(CHUNK, rows), cache.tokens);
            Choice::fixed("decode_chunk", chunk.into(), Reason::DecodeChunk)
        }
    };
    let key_chunk = chunk.value as u32;
    // Of pseudo-heads that are mixed as they are read, queries that share a token have rows enough.
    let is_read_mixed = pseudo.is_none() || mixed;
    let is_stacked = spec.cache.layout == CacheLayout::Paged && is_read_mixed;
    let stack = is_stacked.then(|| stack(spec, machine, key_chunk.saturating_mul(rows)));
    let stack_rows = stack.as_ref().map_or(0, |choice| choice.value as u32);
    let unit = if is_read_mixed { key_chunk } else { cache.tokens };
    let has_one_head = spec.heads.kv == 1 || matches!(spec.mechanism, Mechanism::Latent(_));
    let most = if has_one_head { CELL_OF_ONE } else { CELL };
    let key_cell = whole(tokens(most, per_token), unit);
    let decode = Split { key_cell, key_chunk, stack_rows };
    let reason = Reason::DecodeCell { of_one_head: has_one_head };
    let sizes = [page, chunk, Choice::fixed("decode_cell", decode.key_cell.into(), reason)];
    (cache, decode, sizes.into_iter().chain(stack).collect())
}

/// The most keys, in whole pages that double, whose latents stay in a part of the cache that a pass lives in until they are read again
/// as values.
fn latent_chunk(latent: &Latent, machine: &Machine, cache: &PageFormat) -> Choice {
    let (what, bytes) = machine.pass_cache();
    let row = cache.k.row_bytes(latent.rank + latent.rope_dim);
    let bound = |keys: u32| Inequality {
        terms: vec![term("latents", &[factor(keys.into(), "keys"), factor(row, "B")])],
        limit: Limit { what, value: bytes.into(), numerator: 1, denominator: 2 },
        unit: Unit::Bytes,
    };
    let (mut keys, mut rejected) = (cache.tokens, Vec::new());
    while 2 * keys <= CHUNK {
        let next = bound(2 * keys);
        if !next.holds() {
            rejected.push(Rejected { value: (2 * keys).into(), violates: vec![next] });
            break;
        }
        keys *= 2;
    }
    let (value, bounds) = (keys.into(), vec![bound(keys)]);
    Choice { name: "decode_chunk", value, reason: Reason::LatentChunk, bounds, rejected }
}

/// The most tokens, doubled as far as they divide a page, whose cached keys stay in a part of the cache that a pass lives in until
/// all heads have mixed theirs of them: each is read from memory once for all heads.
fn mixed_chunk(spec: &Spec, pseudo: &Pseudo, machine: &Machine, cache: &PageFormat) -> Choice {
    let (what, bytes) = machine.pass_cache();
    let heads = &spec.heads;
    let mixed = pseudo.heads.max(MIXED_ROWS);
    let row = heads.dim.max(heads.value_dim);
    let bound = |tokens: u32| Inequality {
        terms: vec![
            term(
                "cached rows",
                &[factor(tokens.into(), "tokens"), factor((heads.kv * row).into(), ""), factor(4, "B")],
            ),
            term(
                "mixed rows",
                &[factor(tokens.into(), "tokens"), factor((mixed * row).into(), ""), factor(4, "B")],
            ),
        ],
        limit: Limit { what, value: bytes.into(), numerator: 1, denominator: 2 },
        unit: Unit::Bytes,
    };
    let (mut tokens, mut rejected) = (PAGE_STEP, Vec::new());
    while 2 * tokens <= MOST_TOKENS && cache.tokens.is_multiple_of(2 * tokens) {
        let next = bound(2 * tokens);
        if !next.holds() {
            rejected.push(Rejected { value: (2 * tokens).into(), violates: vec![next] });
            break;
        }
        tokens *= 2;
    }
    let (value, bounds) = (tokens.into(), vec![bound(tokens)]);
    Choice { name: "decode_chunk", value, reason: Reason::MixedChunk, bounds, rejected }
}

/// The most rows, in powers of two, that sequences stack on a prefix which they share: what a pass keeps of them is to stay
/// in a part of the cache that it lives in, beside the keys and values that stream through it. More rows read keys less often,
/// but a row tile takes the same time whichever sequences its rows are of.
fn stack(spec: &Spec, machine: &Machine, key_chunk: u32) -> Choice {
    let (what, bytes) = machine.pass_cache();
    let bound = |rows: u32| Inequality {
        terms: vec![term(
            "scores, queries and sums of a pass",
            &[factor(rows.into(), "rows"), factor((key_chunk + width(spec)).into(), ""), factor(4, "B")],
        )],
        limit: Limit { what, value: bytes.into(), numerator: 1, denominator: 4 },
        unit: Unit::Bytes,
    };
    let (mut rows, mut rejected) = (FEWEST_ROWS, Vec::new());
    while rows < MOST_ROWS {
        let next = bound(2 * rows);
        if !next.holds() {
            rejected.push(Rejected { value: (2 * rows).into(), violates: vec![next] });
            break;
        }
        rows *= 2;
    }
    Choice {
        name: "decode_stack",
        value: rows.into(),
        reason: Reason::DecodeStack,
        bounds: vec![bound(rows)],
        rejected,
    }
}

/// Channels of what a cache has of a key head: of latents, which are keys and values both, one row.
fn width(spec: &Spec) -> u32 {
    match &spec.mechanism {
        Mechanism::Latent(latent) => latent.rank + latent.rope_dim,
        _ => spec.heads.dim + spec.heads.value_dim,
    }
}

/// The most tokens, in powers of two, whose keys and values of a head, so many rows of each, fit a small part of the cache that a
/// pass lives in. Latents may fill the part that a chunk of them does: the longer a page is, the fewer tiles their outputs are cut into.
fn page(spec: &Spec, machine: &Machine, rows: u32) -> Choice {
    let (what, bytes) = machine.pass_cache();
    let (name, part) = match spec.mechanism {
        Mechanism::Latent(_) => ("latents", 2),
        _ => ("K and V of a head", 8),
    };
    let per_row = [factor(width(spec).into(), ""), factor(4, "B")];
    let of_token = (rows > 1).then(|| factor(rows.into(), "rows"));
    let factors = |tokens: u32| -> Vec<_> {
        [factor(tokens.into(), "tokens")].into_iter().chain(of_token).chain(per_row).collect()
    };
    let bound = |tokens: u32| Inequality {
        terms: vec![term(name, &factors(tokens))],
        limit: Limit { what, value: bytes.into(), numerator: 1, denominator: part },
        unit: Unit::Bytes,
    };
    let (mut tokens, mut rejected) = (PAGE_STEP, Vec::new());
    while (2 * tokens).saturating_mul(rows) <= MOST_TOKENS {
        let next = bound(2 * tokens);
        if !next.holds() {
            rejected.push(Rejected { value: (2 * tokens).into(), violates: vec![next] });
            break;
        }
        tokens *= 2;
    }
    Choice { name: "page", value: tokens.into(), reason: Reason::Page, bounds: vec![bound(tokens)], rejected }
}
