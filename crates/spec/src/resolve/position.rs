//! `position`: how positions enter the rows of q and k.

use regard_ir::rows::{Frequencies, Position, RopeLayout, RopeScaling};
use regard_ir::variant::{Axis, InputShape, InputType, Source};

use super::captured::named;
use super::extends::Chain;
use super::fields;
use super::key::{Absent, Key, Least, Takes};
use super::scaling;
use super::table::Table;
use super::tables::MAX_HEADS;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink};
use crate::expr::Input;

/// The keys of `position`.
pub(crate) const KEYS: [Key; 3] = [
    Key::new("rope", Takes::Words("a table"), Absent::Required, "rotary positions: see below"),
    Key::new(
        "scaling",
        Takes::Words("a table"),
        Absent::Words("none"),
        "how frequencies are stretched past the trained length: see below; beside `theta`",
    ),
    Key::new(
        "ids",
        Takes::Words("the name of an input `i32[b, k]`"),
        Absent::Words("the absolute positions"),
        "the positions that rows are turned by; self-attention alone",
    ),
];

/// The keys of `position.rope`.
pub(crate) const ROPE_KEYS: [Key; 5] = [
    Key::new(
        "theta",
        Takes::Number(Least::Above(0.0)),
        Absent::Words("required, unless `freqs` is given"),
        "the base of the frequencies: pair `i` turns by `theta^(-2i / dim)` radians a position",
    ),
    Key::new(
        "freqs",
        Takes::Words("the name of an input `f32[dim / 2]`"),
        Absent::Words("made of `theta`"),
        "the frequencies themselves, in radians a position",
    ),
    Key::new(
        "dim",
        Takes::Integer { from: 2, to: MAX_HEADS },
        Absent::Words("`heads.dim`, or `latent.rope_dim`"),
        "channels that are turned, an even number",
    ),
    Key::new(
        "layout",
        Takes::OneOf(&LAYOUTS),
        Absent::Value("\"half\""),
        "which channels are a pair: `i` with `i + dim / 2`, or `2i` with `2i + 1`",
    ),
    Key::new(
        "offset",
        Takes::Integer { from: 0, to: MAX_HEADS },
        Absent::Value("0"),
        "the first channel that is turned",
    ),
];

const LAYOUTS: [&str; 2] = ["half", "interleaved"];

/// Rotary positions of rows of a width, where there are some and nothing is wrong with them.
pub(super) fn read(
    chain: &Chain,
    width: Option<u32>,
    source: Source,
    inputs: &[Input],
    sink: &mut Sink,
) -> Option<Position> {
    let table = Table::read(chain, chain.value("position")?, "position", &KEYS, sink)?;
    let rope = table.required("rope", Some("for example `rope = { theta = 10000 }`"), sink);
    let rope = rope.and_then(|value| Table::read(chain, value, "position.rope", &ROPE_KEYS, sink));
    if source == Source::Cross {
        let why = "they are of one sequence, its queries and its keys";
        table.refuse("ids", "beside `source = \"cross\"`", why, None, sink);
    }
    let shape = InputShape::new(InputType::I32, &[Axis::Batch, Axis::Key]);
    let ids = table.get("ids").map(|_| named(&table, "ids", inputs, Some(shape), sink));
    let Some(rope) = rope else {
        // A scaling by itself is checked as far as that goes.
        table.get("scaling").and_then(|value| scaling::read(chain, value, None, sink));
        return None;
    };
    let layout = match rope.choice("layout", &LAYOUTS, sink) {
        Some(1) => Some(RopeLayout::Interleaved),
        other => other.map(|_| RopeLayout::Half),
    };
    let channels = channels(&rope, width, sink);
    let frequencies = match rope.get("freqs") {
        Some(_) => {
            let why = "the input holds the frequencies as they are";
            rope.refuse("theta", "beside `freqs`", why, None, sink);
            table.refuse("scaling", "beside `freqs`", why, None, sink);
            let shape = |(dim, _)| InputShape::new(InputType::F32, &[Axis::Len(dim / 2)]);
            named(&rope, "freqs", inputs, channels.map(shape), sink).map(Frequencies::Input)
        }
        None => {
            let help = "`theta = 10000` in the paper; or `freqs`, the name of an input with the frequencies";
            let theta = rope.required("theta", Some(help), sink);
            let theta =
                theta.and_then(|value| fields::number(value, &rope.what("theta"), Least::Above(0.0), sink));
            let scaling = match table.get("scaling") {
                Some(value) => scaling::read(chain, value, theta, sink),
                None => Some(RopeScaling::None),
            };
            theta.zip(scaling).map(|(theta, scaling)| Frequencies::Theta { theta, scaling })
        }
    };
    let (dim, offset) = channels?;
    let ids = match ids {
        Some(found) => Some(found?),
        None => None,
    };
    Some(Position { frequencies: frequencies?, dim, layout: layout?, offset, ids })
}

/// How many channels are turned, and the first of them.
fn channels(rope: &Table<'_>, width: Option<u32>, sink: &mut Sink) -> Option<(u32, u32)> {
    let mut read = |key: &str, default: Option<u32>, least: u32| match rope.get(key) {
        Some(value) => fields::integer(value, &rope.what(key), least..=MAX_HEADS, sink),
        None => default,
    };
    let (dim, offset) = (read("dim", width, 2), read("offset", Some(0), 0));
    let dim = dim?;
    let said = |key: &str| rope.get(key).map(|value| &value.location);
    if !dim.is_multiple_of(2) {
        let location = said("dim").unwrap_or(&rope.value.location);
        sink.push(
            Diagnostic::new(Code::S044, location, format!("{dim} rotary channels do not pair up"))
                .label("channels are turned in pairs")
                .help(
                    (dim < MAX_HEADS && dim > 1)
                        .then(|| format!("`dim = {}` leaves the last one as it is", dim - 1)),
                ),
        );
        return None;
    }
    let (offset, width) = (offset?, width?);
    if offset + dim > width {
        let location = said("offset").or(said("dim")).unwrap_or(&rope.value.location);
        let message = format!("{dim} rotary channels from channel {offset} on do not fit a head of {width}");
        let room = width.saturating_sub(offset) & !1;
        sink.push(
            Diagnostic::new(Code::S044, location, message)
                .label(format!("{offset} + {dim} is more than {width}"))
                .help((room >= 2).then(|| format!("`dim` can be {room} at most"))),
        );
        return None;
    }
    Some((dim, offset))
}
