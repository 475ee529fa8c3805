//! What is known of the tensors that a mask reads: their contents from a file, made-up ones, or nothing.

use std::path::PathBuf;

use regard::{Dtype, Problem, Spec};
use regard_ir::inputs::{self, InputData};
use regard_ir::variant::InputType;

use crate::failure::Failure;
use crate::memory;
use crate::source;
use crate::tensors::Tensors;
use crate::tensors::signature::{Layout, Signature};
use crate::tensors::stored::CapturedElements;
use crate::verify::problem;

/// Where the contents come from.
pub(crate) enum Origin<'a> {
    /// A tensor file.
    File(&'a PathBuf),
    /// Made up.
    Example,
    /// Nowhere.
    Unknown,
}

impl Origin<'_> {
    /// How the contents are known. Says nothing of paths, so that a picture is the same wherever it is made.
    pub(crate) fn known(&self) -> &'static str {
        match self {
            Origin::File(_) => "as given in a tensor file",
            Origin::Example => "example data, made up",
            Origin::Unknown => "not known: what depends on it counts as partial",
        }
    }
}

/// Tensors that stay where they are while a mask is drawn.
pub(crate) struct Data {
    tensors: Option<Tensors>,
    example: bool,
}

impl Data {
    /// Reads the file, where there is one.
    ///
    /// # Errors
    /// If it is no tensor file.
    pub(crate) fn new(origin: &Origin<'_>) -> Result<Self, Failure> {
        let tensors = match origin {
            Origin::File(path) => Some(Tensors::read(path)?),
            Origin::Example | Origin::Unknown => None,
        };
        Ok(Self { tensors, example: matches!(origin, Origin::Example) })
    }

    /// The declared inputs of a problem; `None` where they are not known.
    ///
    /// # Errors
    /// If the file's tensors do not fit, or there is no memory for an example.
    pub(crate) fn inputs(
        &self,
        spec: &Spec,
        problem: &Problem<'_>,
    ) -> Result<Option<Vec<CapturedElements<'_>>>, Failure> {
        let read: Vec<usize> = source::read_by_mask(spec).collect();
        // A mask that reads nothing is known, whatever else the spec declares.
        if read.is_empty() || (self.tensors.is_none() && !self.example) {
            return Ok(None);
        }
        memory::ask("the tensors of this problem", problem::input_bytes(spec, problem))?;
        let mut given = match &self.tensors {
            Some(tensors) => {
                Signature::new(spec, Dtype::F32, Layout::Bhnd).bind_inputs(problem, &read, tensors)?
            }
            None => read.iter().map(|&at| problem::input(&spec.variant(), at, problem)).collect(),
        }
        .into_iter();
        let Spec { inputs, heads, source, .. } = spec;
        let lens = inputs::lens(&inputs.shapes, heads, *source, problem);
        let all = inputs.shapes.iter().zip(lens).enumerate().map(|(at, (shape, len))| {
            let given = if read.contains(&at) { given.next() } else { None };
            given.unwrap_or_else(|| zeros(shape.dtype, len))
        });
        Ok(Some(all.collect()))
    }
}

/// What stands for an input that the mask does not read.
fn zeros(dtype: InputType, len: usize) -> CapturedElements<'static> {
    match dtype {
        InputType::F32 => CapturedElements::F32(vec![0.0; len].into()),
        InputType::I32 => CapturedElements::I32(vec![0; len].into()),
        InputType::Bool => CapturedElements::Bool(vec![0; len].into()),
    }
}

/// Views of the inputs as a problem binds them.
pub(crate) fn views<'a>(inputs: &'a [CapturedElements<'_>]) -> Vec<InputData<'a>> {
    inputs.iter().map(CapturedElements::data).collect()
}
