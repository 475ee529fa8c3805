//! Every way in which a tensor file does not give what a spec takes.

use std::fmt;
use std::path::PathBuf;

use regard_ir::problem::ProblemError;
use safetensors::Dtype;

use super::header::name as dtype_name;
use super::{Tensor, Tensors};

/// All tensors that are missing, misnamed, extra, misshapen or of another type.
pub(crate) fn mismatches(expected: &[Expected], tensors: &Tensors) -> Vec<BindError> {
    let mut errors = Vec::new();
    let mut absent = Vec::new();
    for expected in expected {
        let Some(tensor) = tensors.get(&expected.name) else {
            absent.push(expected);
            continue;
        };
        let reasons = expected.reasons(&tensor);
        if !reasons.is_empty() {
            let found = format!("{} {:?}", dtype_name(tensor.dtype), tensor.shape);
            let (name, expected) = (expected.name.clone(), expected.to_string());
            errors.push(BindError::Unfit { name, found, expected, reasons });
        }
    }
    let known = |name: &str| expected.iter().any(|expected| expected.name == name);
    let mut extra: Vec<String> =
        tensors.iter().filter(|tensor| !known(tensor.name)).map(|tensor| tensor.name.to_owned()).collect();
    for expected in absent {
        let nearest = extra.iter().position(|name| similar(&expected.name, name)).map(|at| extra.remove(at));
        errors.push(BindError::Missing {
            name: expected.name.clone(),
            expected: expected.to_string(),
            nearest,
        });
    }
    if !extra.is_empty() {
        let inputs = expected.iter().map(|expected| expected.name.clone()).collect();
        errors.push(BindError::Extra { names: extra, inputs });
    }
    errors
}

/// Everything in which a file does not fit a spec.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BindErrors {
    /// The file.
    pub(crate) path: PathBuf,
    /// At least one.
    pub(crate) errors: Vec<BindError>,
    /// Whether q, k and v would fit in the other layout.
    pub(crate) other_layout: bool,
}

/// One thing in which a file does not fit a spec.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BindError {
    /// No tensor of that name; `nearest` is one that no input has and that may be meant.
    Missing { name: String, expected: String, nearest: Option<String> },
    /// Tensors that the spec has no input for.
    Extra { names: Vec<String>, inputs: Vec<String> },
    /// Another type or shape.
    Unfit { name: String, found: String, expected: String, reasons: Vec<String> },
    /// Lengths that no problem has.
    Problem(ProblemError),
}

impl fmt::Display for BindErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for (i, error) in self.errors.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{path}: {error}")?;
        }
        if self.other_layout {
            write!(f, "\n{path}: q, k and v fit in the other --layout")?;
        }
        Ok(())
    }
}

impl std::error::Error for BindErrors {}

/// How many extra tensors are named.
const MAX_NAMES: usize = 8;

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::Missing { name, expected, nearest: None } => {
                write!(f, "tensor `{name}` is missing, expected {expected}")
            }
            BindError::Missing { name, expected, nearest: Some(nearest) } => {
                let nearest = nearest.escape_debug();
                write!(f, "tensor `{name}` is missing, expected {expected}: is `{nearest}` meant?")
            }
            BindError::Extra { names, inputs } => {
                let shown = names.iter().take(MAX_NAMES).map(|name| format!("`{}`", name.escape_debug()));
                write!(f, "no input of the spec: {}", shown.collect::<Vec<_>>().join(", "))?;
                if names.len() > MAX_NAMES {
                    write!(f, " and {} more", names.len() - MAX_NAMES)?;
                }
                write!(f, "; its inputs are `{}`", inputs.join("`, `"))
            }
            BindError::Unfit { name, found, expected, reasons } => {
                write!(f, "tensor `{name}`: found {found}, expected {expected}: {}", reasons.join(", "))
            }
            BindError::Problem(error) => error.fmt(f),
        }
    }
}

/// A tensor as the spec wants it.
pub(crate) struct Expected {
    /// Its name.
    pub(crate) name: String,
    /// The types that its elements may have, at least one.
    pub(crate) dtypes: Vec<Dtype>,
    /// Its axes.
    pub(crate) axes: Vec<Dim>,
}

/// One axis of it.
#[derive(Clone, Copy)]
pub(crate) struct Dim {
    /// What it counts.
    pub(crate) what: &'static str,
    /// How long it must be, where that is known.
    pub(crate) len: Option<usize>,
    /// Who says so.
    pub(crate) origin: &'static str,
}

impl Expected {
    /// Why a tensor does not fit; empty where it does.
    pub(crate) fn reasons(&self, tensor: &Tensor<'_>) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.dtypes.contains(&tensor.dtype) {
            reasons.push(format!("it is {}, not {}", dtype_name(tensor.dtype), self.types()));
        }
        if tensor.shape.len() != self.axes.len() {
            reasons.push(format!("it has {} axes, not {}", tensor.shape.len(), self.axes.len()));
            return reasons;
        }
        for (&found, Dim { what, len, origin }) in tensor.shape.iter().zip(&self.axes) {
            if let Some(len) = len.filter(|&len| len != found) {
                reasons.push(format!("{found} {what}, not {len} as {origin}"));
            }
        }
        reasons
    }

    fn types(&self) -> String {
        self.dtypes.iter().copied().map(dtype_name).collect::<Vec<_>>().join(" or ")
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axis = |dim: &Dim| dim.len.map_or_else(|| dim.what.to_owned(), |len| len.to_string());
        let axes: Vec<String> = self.axes.iter().map(axis).collect();
        write!(f, "{} [{}]", self.types(), axes.join(", "))
    }
}

/// Whether `found` may be a misspelling of `name`: another case, a longer word for a letter, or a few letters off.
fn similar(name: &str, found: &str) -> bool {
    let (name, found) = (name.to_lowercase(), found.to_lowercase());
    let (short, long) = (name.len().min(found.len()), name.len().max(found.len()));
    name == found
        || name.len() == 1 && found.starts_with(&name)
        || short > 2 && strsim::damerau_levenshtein(&name, &found) <= long / 3
}
