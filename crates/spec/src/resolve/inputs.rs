//! Declarations of captured inputs: `doc = "i32[b, k]"`.

use std::ops::Range;

use regard_ir::expr::MAX_AXES;
use regard_ir::variant::{Axis, InputShape, InputType};

use super::fields;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink, did_you_mean, quote};
use crate::document::{Entry, Value};
use crate::expr::functions::taken;
use crate::expr::{Input, is_name};
use crate::source::Text;

/// The most inputs of one spec.
const MAX_INPUTS: usize = 256;

/// Tensors at the boundary of some variant, which no input may be named like.
const BOUNDARY: [&str; 39] = [
    "v",
    "o",
    "y",
    "lse",
    "sink",
    "gate",
    "mix",
    "o_norm",
    "q_norm",
    "k_norm",
    "q_nope",
    "q_rope",
    "c_kv",
    "c_kv_norm",
    "k_rope",
    "w_uk",
    "w_uv",
    "decay",
    "beta",
    "state",
    "norm",
    "q_u",
    "k_u",
    "v_u",
    "q_c",
    "k_c",
    "v_c",
    "u",
    "mix_q",
    "mix_k",
    "mix_v",
    "collapse",
    "context",
    "cu_q",
    "cu_k",
    "w_o",
    "b_o",
    "w_qkv",
    "b_qkv",
];

/// Activations whose projection has a weight `w_…` and a bias `b_…`.
const PROJECTED: [&str; 16] = [
    "q", "k", "v", "gate", "decay", "beta", "q_nope", "q_rope", "c_kv", "k_rope", "q_u", "k_u", "v_u", "q_c",
    "k_c", "v_c",
];

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

/// All names that [`is_boundary`] finds.
pub(crate) fn boundary() -> impl Iterator<Item = String> {
    let projection =
        |kind: &'static str| PROJECTED.iter().map(move |activation| format!("{kind}_{activation}"));
    BOUNDARY.into_iter().map(str::to_owned).chain(projection("w")).chain(projection("b"))
}

fn is_boundary(name: &str) -> bool {
    let activation = name.strip_prefix("w_").or(name.strip_prefix("b_"));
    BOUNDARY.contains(&name) || activation.is_some_and(|activation| PROJECTED.contains(&activation))
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
            let message = format!("{} is not an axis", quote(&declared[place.clone()]));
            return Err(wrong(place, message, "expected b, h, g, q, k or a positive number"));
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
