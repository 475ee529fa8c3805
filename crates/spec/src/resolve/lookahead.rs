//! `lookahead`: keys that go on learning from later tokens.

use regard_ir::spec::Lookahead;
use regard_ir::variant::{Heads, Source, Turned};

use super::extends::Chain;
use super::fields;
use super::key::{Absent, Key, Takes};
use super::table::Table;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink, did_you_mean, one_of, quote};
use crate::document::{Kind, Value};
use crate::expr::{self, Comparison, Env};
use crate::source::Text;

/// The keys of `lookahead`.
pub(crate) const KEYS: [Key; 3] = [
    Key::new(
        "window",
        Takes::Integer { from: 0, to: MAX_WINDOW },
        Absent::Words("all later tokens"),
        "how many later tokens a key learns from",
    ),
    Key::new(
        "rotate",
        Takes::Words("a list of `\"q_c\"`, `\"k_c\"`, `\"q_u\"`, `\"k_u\"`, `\"v_u\"`"),
        Absent::Words("all of them"),
        "which tensors are turned by their positions; with `position`",
    ),
    Key::new(
        "allow",
        Takes::Words("an expression that gives a bool"),
        Absent::Value("\"all\""),
        "whether the later token `q` teaches key `k`: `same(ids)` where documents are packed",
    ),
];

/// The longest window.
const MAX_WINDOW: u32 = i32::MAX as u32;

/// The bits of all that can be turned.
const ALL_TURNED: u8 = (1 << Turned::ALL.len()) - 1;

/// What the table says.
pub(super) struct Said {
    window: Option<u32>,
    rotate: u8,
    allow: Option<Text>,
}

/// The table, where there is one; inside, `None` where something is wrong with it or beside it.
pub(super) fn read(
    chain: &Chain,
    heads: Option<Heads>,
    source: Source,
    sink: &mut Sink,
) -> Option<Option<Said>> {
    let entry = chain.entry("lookahead")?;
    refuse_others(chain, heads, sink);
    if source == Source::Cross {
        let message = "`lookahead` has no meaning beside `source = \"cross\"`";
        sink.push(
            Diagnostic::new(Code::S043, &entry.key.token(), message)
                .label("keys learn from later tokens of their own sequence"),
        );
    }
    let Some(table) = Table::read(chain, &entry.value, "lookahead", &KEYS, sink) else { return Some(None) };
    let window =
        table.get("window").map(|value| fields::integer(value, &table.what("window"), 0..=MAX_WINDOW, sink));
    if chain.entry("position").is_none() {
        let help = Some("`position = { rope = … }` turns the rows");
        table.refuse("rotate", "without `position`", "nothing is turned", help, sink);
    }
    let rotate = table.get("rotate").map_or(Some(ALL_TURNED), |value| rotate(value, sink));
    let allow = table.get("allow").map(|value| fields::string(value, &table.what("allow"), sink).cloned());
    let said = || Some(Said { window: flat(window)?, rotate: rotate?, allow: flat(allow)? });
    Some(said())
}

/// What is absent, or there and right.
fn flat<T>(given: Option<Option<T>>) -> Option<Option<T>> {
    given.map_or(Some(None), |given| given.map(Some))
}

impl Said {
    /// The mechanism: with all that decides whether a token teaches a key in one expression.
    pub(super) fn compile(self, env: &Env<'_>, sink: &mut Sink) -> Option<Lookahead> {
        let Said { window, rotate, allow } = self;
        let comparisons = [Comparison::Earlier, Comparison::Within(window.unwrap_or(0))];
        let comparisons = if window.is_some() { &comparisons[..] } else { &comparisons[..1] };
        Some(Lookahead { window, rotate, allow: expr::mask(allow, comparisons, env, sink)? })
    }
}

/// Refuses what speaks of other keys than the table does.
fn refuse_others(chain: &Chain, heads: Option<Heads>, sink: &mut Sink) {
    let mut refuse = |token, what: &str, why: &str| {
        let message = format!("{what} has no meaning beside `lookahead`");
        sink.push(Diagnostic::new(Code::S043, &token, message).label(why));
    };
    let entries = match chain.value("heads").map(|value| &value.kind) {
        Some(Kind::Table(entries)) => &entries[..],
        _ => &[],
    };
    for (key, count) in [("kv", heads.map(|it| it.kv)), ("value", heads.map(|it| it.value))] {
        let entry = entries.iter().find(|entry| entry.name() == key);
        if let (Some(entry), Some(heads)) = (entry, heads)
            && count != Some(heads.query)
        {
            let why = format!("each of {} query heads has keys and values of its own", heads.query);
            refuse(entry.key.token(), &format!("`heads.{key}`"), &why);
        }
    }
    if let Some(entry) = chain.entry("qk_norm") {
        refuse(entry.key.token(), "`qk_norm`", "there is no q and no k: six tensors take their place");
    }
}

/// A bit for each tensor of a list.
fn rotate(value: &Value, sink: &mut Sink) -> Option<u8> {
    let Kind::Array(values) = &value.kind else {
        fields::wrong_type(value, "`lookahead.rotate`", "a list of names", sink);
        return None;
    };
    let names = Turned::ALL.map(Turned::name);
    values.iter().try_fold(0, |bits, value| {
        let name = &fields::string(value, "what `lookahead.rotate` lists", sink)?.decoded;
        let tensor = Turned::ALL.into_iter().find(|tensor| tensor.name() == name);
        let (message, label) = match tensor {
            Some(tensor) if bits & tensor.bit() == 0 => return Some(bits | tensor.bit()),
            Some(_) => (format!("`lookahead.rotate` lists {} twice", quote(name)), "given before".to_owned()),
            None => {
                let message = format!("`lookahead.rotate` cannot list {}", quote(name));
                (message, format!("expected {}", one_of(&names)))
            }
        };
        let error = Diagnostic::new(Code::S007, &value.location, message).label(label);
        sink.push(error.help(did_you_mean(name, names).filter(|_| tensor.is_none())));
        None
    })
}
