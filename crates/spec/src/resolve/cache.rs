//! `cache`: how keys and values are kept between decoding steps.

use regard_ir::spec::{Cache, CacheFormat, CacheLayout};

use super::extends::Chain;
use super::fields;
use super::key::{Absent, Key, Takes};
use super::latent;
use super::table::Table;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink, one_of, quote};
use crate::document::{Kind, Value};
use crate::source::Text;

/// The keys of `cache`.
pub(crate) const KEYS: [Key; 6] = [
    Key::new(
        "layout",
        Takes::OneOf(&LAYOUTS),
        Absent::Value("\"contiguous\""),
        "where tokens lie: one after another, in pages, or in a ring of those that the mask can still reach",
    ),
    Key::new(
        "page",
        Takes::Words("a multiple of 16, from 16 to 1024"),
        Absent::Words("the plan's block of keys"),
        "tokens that lie together, whatever the layout",
    ),
    Key::new(
        "k",
        Takes::OneOf(&FORMATS),
        Absent::Value("\"same\""),
        "how keys are stored: as they come, in another type, in 8 bits with an f32 scale for each token and head, or \
         in 4 bits with an f16 scale for each 32 channels of these; the last scale is of fewer where the width is no \
         multiple of 32",
    ),
    Key::new("v", Takes::OneOf(&FORMATS), Absent::Value("\"same\""), "how values are stored; likewise"),
    Key::new(
        "dtype",
        Takes::OneOf(&FORMATS),
        Absent::Words("what `k` and `v` say"),
        "how keys and values are stored, both; without `k` and `v`",
    ),
    Key::new("file", Takes::Flag, Absent::Value("false"), "whether the cache is a file, mapped into memory"),
];

/// In the order of [`CacheLayout::ALL`].
const LAYOUTS: [&str; 3] =
    [CacheLayout::ALL[0].name(), CacheLayout::ALL[1].name(), CacheLayout::ALL[2].name()];

/// In the order of [`CacheFormat::ALL`].
const FORMATS: [&str; 6] = [
    CacheFormat::ALL[0].name(),
    CacheFormat::ALL[1].name(),
    CacheFormat::ALL[2].name(),
    CacheFormat::ALL[3].name(),
    CacheFormat::ALL[4].name(),
    CacheFormat::ALL[5].name(),
];

/// What divides the tokens of a page.
const PAGE_STEP: u32 = regard_ir::cache::PAGE_STEP;

/// The most tokens of a page.
const MAX_PAGE: u32 = regard_ir::cache::MAX_PAGE;

/// The cache; `None` where something is wrong.
pub(super) fn read(chain: &Chain, latent: &latent::Given, sink: &mut Sink) -> Option<Cache> {
    let Some(value) = chain.value("cache") else { return Some(Cache::DEFAULT) };
    match &value.kind {
        Kind::Table(_) => {}
        Kind::String(text) => {
            let layout = short(value, text, sink)?;
            return Some(Cache { layout, ..Cache::DEFAULT });
        }
        _ => {
            fields::wrong_type(value, "`cache`", "a layout in a string, or a table", sink);
            return None;
        }
    }
    let table = Table::read(chain, value, "cache", &KEYS, sink)?;
    let layout = table.choice("layout", &LAYOUTS, sink).map(|i| CacheLayout::ALL[i]);
    let page = page(&table, sink);
    let mut format = |key: &str| table.choice(key, &FORMATS, sink).map(|i| CacheFormat::ALL[i]);
    let (k, v, both) = (format("k"), format("v"), format("dtype"));
    let [k, v] = match table.get("dtype") {
        None => [k, v],
        Some(_) => {
            for key in ["k", "v"] {
                let help = Some("`dtype` is short for the same `k` and `v`: leave it out where they differ");
                table.refuse(key, "beside `dtype`", "`dtype` is for keys and values both", help, sink);
            }
            [both; 2]
        }
    };
    if !matches!(latent, latent::Given::No) {
        for key in ["k", "v"] {
            let help = Some("write `dtype`");
            table.refuse(key, "beside `latent`", "keys and values are made of one row a token", help, sink);
        }
    }
    let file = table.flag("file", false, sink);
    Some(Cache { layout: layout?, page: page?, k: k?, v: v?, file: file? })
}

/// The layout that stands for a table.
fn short(value: &Value, text: &Text, sink: &mut Sink) -> Option<CacheLayout> {
    let word = text.decoded.as_str();
    if FORMATS.contains(&word) {
        let message = format!("`cache` cannot be {}", quote(word));
        sink.push(
            Diagnostic::new(Code::S007, &value.location, message)
                .label(format!("expected {}", one_of(&LAYOUTS)))
                .help(format!("write `cache = {{ dtype = \"{word}\" }}`")),
        );
        return None;
    }
    fields::choice(value, "`cache`", &LAYOUTS, sink).map(|i| CacheLayout::ALL[i])
}

/// `page`, where it is given.
fn page(table: &Table<'_>, sink: &mut Sink) -> Option<Option<u32>> {
    let Some(value) = table.get("page") else { return Some(None) };
    let page = fields::integer(value, &table.what("page"), PAGE_STEP..=MAX_PAGE, sink)?;
    if !page.is_multiple_of(PAGE_STEP) {
        let below = page - page % PAGE_STEP;
        let message = format!("{} must be a multiple of {PAGE_STEP}, found {page}", table.what("page"));
        sink.push(
            Diagnostic::new(Code::S010, &value.location, message)
                .label(format!("{page} is {below} + {}", page - below))
                .help(format!("the nearest are {below} and {}", below + PAGE_STEP)),
        );
        return None;
    }
    Some(Some(page))
}
