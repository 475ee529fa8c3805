//! Captured inputs that tables read: declared ones that they name, and learned ones that they imply.

use regard_ir::text;
use regard_ir::variant::{Axis, InputShape, InputType};

use super::fields;
use super::table::Table;
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Sink, did_you_mean, quote};
use crate::expr::Input;
use crate::expr::boundary::is_boundary;
use crate::expr::functions::taken;

/// The most elements of an axis, as in a declaration.
const MAX_LEN: u32 = i32::MAX as u32;

/// The declared input that a table names under `key`; its type and axes must be these, where they are known.
pub(super) fn named(
    table: &Table<'_>,
    key: &str,
    inputs: &[Input],
    expected: Option<InputShape>,
    sink: &mut Sink,
) -> Option<u16> {
    let name = fields::string(table.get(key)?, &table.what(key), sink)?;
    let location = name.locate(0..name.decoded.len());
    let Some(input) = inputs.iter().position(|input| input.name == name.decoded) else {
        // Some names cannot be declared.
        let example = expected.filter(|_| !is_boundary(&name.decoded) && taken(&name.decoded).is_none());
        let example =
            example.map(|shape| format!("declare it: `\"{}\"` in `inputs`", text::declaration(&shape)));
        let near = did_you_mean(&name.decoded, inputs.iter().map(|input| input.name.as_str()));
        sink.push(
            Diagnostic::new(Code::S014, &location, format!("unknown name {}", quote(&name.decoded)))
                .label("no such input")
                .help(near.or(example)),
        );
        return None;
    };
    let found = inputs[input].shape?;
    let expected = expected?;
    if found != expected {
        let message = format!(
            "input {} is {}, not {}",
            quote(&name.decoded),
            text::declaration(&found),
            text::declaration(&expected)
        );
        sink.push(Diagnostic::new(Code::S045, &location, message).label(format!(
            "{} is {}",
            table.what(key),
            text::declaration(&expected)
        )));
        return None;
    }
    Some(input as u16)
}

/// Inputs that tables imply, named as the language names them; they follow the declared ones.
#[derive(Debug)]
pub(super) struct Learned {
    n_declared: usize,
    pub(super) inputs: Vec<Input>,
}

impl Learned {
    /// None yet, beside so many declared inputs.
    pub(super) const fn new(n_declared: usize) -> Self {
        Self { n_declared, inputs: Vec::new() }
    }

    /// Adds an f32 input, and gives its index among all.
    pub(super) fn add(&mut self, name: &str, axes: &[Axis]) -> u16 {
        let index = self.n_declared + self.inputs.len();
        let shape = Some(InputShape::new(InputType::F32, axes));
        self.inputs.push(Input { name: name.to_string(), shape });
        index as u16
    }
}

/// An axis for the channels of all heads together; `None` if they are too many for one.
pub(super) fn all_channels(n_heads: u32, dim: u32) -> Option<Axis> {
    n_heads.checked_mul(dim).filter(|&len| len <= MAX_LEN).map(Axis::Len)
}
