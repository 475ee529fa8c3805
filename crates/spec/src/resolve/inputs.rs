//! Declarations of captured inputs: `doc = "i32[b, k]"`.

use std::ops::Range;

use regard_ir::expr::MAX_AXES;
use regard_ir::variant::{Axis, InputShape, InputType};

use super::fields;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink, did_you_mean, quote};
use crate::document::{Entry, Value};
use crate::expr::boundary::is_boundary;
use crate::expr::functions::taken;
use crate::expr::{Input, is_name};
use crate::source::Text;

/// The most inputs of one spec.
const MAX_INPUTS: usize = 256;

/// Types of elements, by name.
const TYPES: [InputType; 3] = [InputType::F32, InputType::I32, InputType::Bool];

/// All declared inputs; one that is declared wrongly keeps its name, so that its uses are not errors too.
pub(super) fn read(value: Option<&Value>, sink: &mut Sink) -> Vec<Input> {
    let entries = fields::table(value, "inputs", sink);
    if let Some(first_over) = entries.get(MAX_INPUTS) {
        let message = format!("{} inputs are declared, at most {MAX_INPUTS} can be", entries.len());
        sink.push(Diagnostic::new(Code::S041, &first_over.key.token(), message).label("one too many"));
    }
    entries.iter().take(MAX_INPUTS).map(|entry| input(entry, sink)).collect()
}

fn input(entry: &Entry, sink: &mut Sink) -> Input {
    let name = entry.name().to_string();
    let boundary = is_boundary(&name).then_some("a tensor of the kernel's boundary");
    if let Some(what) = taken(&name).or(boundary) {
        let message = format!("{} is {what} and cannot name an input", quote(&name));
        sink.push(Diagnostic::new(Code::S029, &entry.key.token(), message).label("choose another name"));
    } else if !is_name(&name) {
        let message = format!("{} is not a name", quote(&name));
        sink.push(Diagnostic::new(Code::S039, &entry.key.token(), message).label("letters, digits and `_`"));
    }
    let shape = fields::string(&entry.value, "an input", sink).and_then(|text| match shape(text) {
        Ok(shape) => Some(shape),
        Err(error) => {
            sink.push(*error);
            None
        }
    });
    Input { name, shape }
}

/// `type[axis, …]`
fn shape(text: &Text) -> Result<InputShape, Box<Diagnostic>> {
    let declared = text.decoded.as_str();
    let wrong = |span: Range<usize>, message: String, label: &str| {
        Box::new(Diagnostic::new(Code::S039, &text.locate(span), message).label(label))
    };
    let open = declared.find('[').unwrap_or(declared.len());
    let name = word(declared, 0..open);
    let names = TYPES.map(InputType::name);
    if name.is_empty() {
        return Err(wrong(name, "the type is missing".to_string(), "expected f32, i32 or bool"));
    }
    let Some(dtype) = TYPES.into_iter().find(|dtype| dtype.name() == &declared[name.clone()]) else {
        let message = format!("{} is not the type of an input", quote(&declared[name.clone()]));
        let help = did_you_mean(&declared[name.clone()], names);
        return Err(Box::new(wrong(name, message, "expected f32, i32 or bool").help(help)));
    };
    if open == declared.len() {
        return Err(wrong(open..open, "the axes are missing".to_string(), "expected `[`, axes and `]`"));
    }
    let close = word(declared, open..declared.len()).end;
    if !declared[..close].ends_with(']') || close - open < 2 {
        return Err(wrong(close..close, "the axes are not closed".to_string(), "expected `]`"));
    }
    let mut axes = [Axis::Len(1); MAX_AXES];
    let mut rank = 0;
    let list = open + 1..close - 1;
    let mut start = list.start;
    while !declared[list.clone()].trim().is_empty() && start <= list.end {
        let end = declared[start..list.end].find(',').map_or(list.end, |at| start + at);
        let place = word(declared, start..end);
        if rank == MAX_AXES {
            let message = format!("an input has at most {MAX_AXES} axes");
            return Err(Box::new(
                Diagnostic::new(Code::S040, &text.locate(place), message).label("one too many"),
            ));
        }
        let Some(axis) = axis(&declared[place.clone()]) else {
            let message = match &declared[place.clone()] {
                "" => "an axis is missing".to_string(),
                other => format!("{} is not an axis", quote(other)),
            };
            return Err(wrong(place, message, "expected b, h, g, q, k or a number from 1 to 2147483647"));
        };
        axes[rank] = axis;
        rank += 1;
        start = end + 1;
    }
    Ok(InputShape { dtype, rank: rank as u8, axes })
}

fn axis(text: &str) -> Option<Axis> {
    Some(match text {
        "b" => Axis::Batch,
        "h" => Axis::Head,
        "g" => Axis::KvHead,
        "q" => Axis::Query,
        "k" => Axis::Key,
        _ => {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let len: i32 = text.parse().ok().filter(|&len| digits && len > 0)?;
            Axis::Len(len as u32)
        }
    })
}

/// A range without the white space at its ends.
fn word(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}
