//! `weights`: how scores become weights.

use regard_ir::variant::{Axis, Sink as WeightSink, Weights};

use super::captured::Learned;
use super::extends::Chain;
use super::fields;
use super::key::{Absent, Key, Takes};
use super::table::Table;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink};
use crate::document::Kind;
use crate::expr::Bias;

/// The keys of `weights`.
pub(crate) const KEYS: [Key; 3] = [
    Key::new("kind", Takes::OneOf(&KINDS), Absent::Value("\"softmax\""), "how a score becomes a weight"),
    Key::new(
        "bias",
        Takes::Words("a finite number, or an expression that does not read `s`"),
        Absent::Value("0"),
        "added to every modified score; sigmoid and relu alone",
    ),
    Key::new(
        "sink",
        Takes::OneOf(&SINKS),
        Absent::Value("\"none\""),
        "what joins the sum of weights with no value of its own: nothing, exp of the learned `sink[query]`, or 1; \
         softmax alone",
    ),
];
const KINDS: [&str; 3] = ["softmax", "sigmoid", "relu"];
const SINKS: [&str; 3] = ["none", "learned", "one"];

/// The weights, and what they add to a score; `None` for what is wrong.
pub(super) fn read(chain: &Chain, learned: &mut Learned, sink: &mut Sink) -> (Option<Weights>, Option<Bias>) {
    let kind = |i: usize, sink: WeightSink| match i {
        0 => Weights::Softmax { sink },
        1 => Weights::Sigmoid,
        _ => Weights::Relu,
    };
    let Some(value) = chain.value("weights") else { return (Some(kind(0, WeightSink::None)), None) };
    match value.kind {
        Kind::Table(_) => {}
        Kind::String(_) => {
            let given = fields::choice(value, "`weights`", &KINDS, sink);
            return (given.map(|i| kind(i, WeightSink::None)), None);
        }
        _ => {
            fields::wrong_type(value, "`weights`", "a kind of weights in a string, or a table", sink);
            return (None, None);
        }
    }
    let Some(table) = Table::read(chain, value, "weights", &KEYS, sink) else { return (None, None) };
    let given = table.choice("kind", &KINDS, sink);
    let of_sink = table.choice("sink", &SINKS, sink);
    let bias = bias(&table, sink);
    if given == Some(0) {
        let help = Some("add it in `score.modify`: `modify = \"s + …\"`");
        table.refuse("bias", "beside softmax weights", "only sigmoid and relu take a bias", help, sink);
    }
    if let (Some(i @ 1..), Some(1..)) = (given, of_sink) {
        let beside = format!("beside {} weights", KINDS[i]);
        table.refuse("sink", &beside, "no sum is divided by that it could join", None, sink);
    }
    let of_sink = of_sink.map(|i| match i {
        0 => WeightSink::None,
        1 => WeightSink::Learned { input: learned.add("sink", &[Axis::Head]) },
        _ => WeightSink::One,
    });
    (given.zip(of_sink).map(|(i, sink)| kind(i, sink)), bias)
}

/// `bias`; none where it is nothing.
fn bias(table: &Table<'_>, sink: &mut Sink) -> Option<Bias> {
    let value = table.get("bias")?;
    let number = match value.kind {
        Kind::String(ref text) => return Some(Bias::Expression(text.clone())),
        Kind::Integer(Some(number)) => number as f64,
        Kind::Float(Some(number)) if number.is_finite() => number,
        Kind::Integer(None) | Kind::Float(_) => {
            let error = Diagnostic::new(Code::S010, &value.location, "`weights.bias` must be finite");
            sink.push(error.label("out of range"));
            return None;
        }
        _ => {
            fields::wrong_type(value, "`weights.bias`", "a number or an expression", sink);
            return None;
        }
    };
    (number != 0.0).then_some(Bias::Number(number))
}
