//! Tensors held against the variant and the problem before anything is computed on them.

use core::fmt;

use regard_ir::operands::{Operand, Rows};
use regard_ir::plan::Dtype;
use regard_ir::problem::{OwnedProblem, Problem, ProblemError};
use regard_ir::rows::Frequencies;
use regard_ir::variant::{Decay, InputType, Recurrence, Sink, Variant, Weights};

use crate::formula::{Keys, Tensors};

/// A tensor that does not fit the variant and the problem.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    /// The problem has some of its keys alone.
    Part,
    /// Its virtual tokens have no positions.
    Positions(ProblemError),
    /// Another shape.
    Shape {
        /// Which tensor.
        name: &'static str,
        /// Its shape.
        found: [usize; 4],
        /// What heads and lengths make of it.
        expected: [usize; 4],
    },
    /// Another storage type.
    Dtype {
        /// Which tensor.
        name: &'static str,
        /// Its type.
        found: Dtype,
        /// The type that it should have: that of queries, or f32 for an lse.
        expected: Dtype,
    },
    /// Another number of operands than the mechanism has.
    Operands {
        /// How many are given.
        found: usize,
        /// How many there are.
        expected: usize,
    },
    /// A gate without a use, or the lack of one.
    Gate {
        /// Whether there is one.
        found: bool,
    },
    /// Another number of captured inputs than the variant has.
    Captured {
        /// How many are bound.
        found: usize,
        /// How many there are.
        expected: usize,
    },
    /// A captured input that a table reads is not what the table needs.
    Input {
        /// What the table calls it.
        name: &'static str,
        /// Type and number of elements; absent where the variant has no such input.
        found: Option<(InputType, usize)>,
        /// The same, as they should be.
        expected: (InputType, usize),
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Shape { name, found, expected } => {
                write!(f, "`{name}` has shape {found:?}, the variant and the problem make it {expected:?}")
            }
            Mismatch::Dtype { name, found, expected } => {
                write!(f, "`{name}` is {}, expected {}", found.name(), expected.name())
            }
            Mismatch::Positions(error) => write!(f, "in virtual tokens: {error}"),
            Mismatch::Operands { found, expected } => {
                write!(f, "{found} operands are given, the variant has {expected}")
            }
            Mismatch::Part => write!(f, "the problem has some of its keys alone, which have no outputs"),
            Mismatch::Gate { found: true } => write!(f, "`gate` is given, the variant has none"),
            Mismatch::Gate { found: false } => write!(f, "`gate` is missing, the variant has one"),
            Mismatch::Captured { found, expected } => {
                write!(f, "{found} captured inputs are bound, the variant has {expected}")
            }
            Mismatch::Input { name, found, expected: (dtype, len) } => {
                match found {
                    Some((dtype, len)) => write!(f, "`{name}` is {len} elements of {}", dtype.name())?,
                    None => write!(f, "`{name}` is not among the captured inputs")?,
                }
                write!(f, ", expected {len} of {}", dtype.name())
            }
        }
    }
}

impl std::error::Error for Mismatch {}

/// Checks the tensors against the variant and the problem.
///
/// # Errors
/// With the first that does not fit.
pub(crate) fn check(
    (variant, stored): (&Variant<'_>, Keys),
    problem: &Problem<'_>,
    tensors: &Tensors<'_>,
) -> Result<(), Mismatch> {
    if problem.part.is_some() {
        return Err(Mismatch::Part);
    }
    OwnedProblem::spread(problem, variant.per_token()).map_err(Mismatch::Positions)?;
    let heads = &variant.heads;
    let [batch, queries, keys] = problem.extents();
    let shape = |n_heads, tokens, width| [batch, n_heads, tokens, width].map(|n: u32| n as usize);
    let gate_width = |per_head| if per_head { 1 } else { heads.value_dim };
    let gate = match (variant.output.gate, tensors.gate) {
        (Some(gate), Some(tensor)) => {
            let expected = shape(variant.output_heads(), queries, gate_width(gate.per_head));
            Some(("gate", tensor, expected))
        }
        (None, None) => None,
        (_, tensor) => return Err(Mismatch::Gate { found: tensor.is_some() }),
    };
    let count = variant.operands().count();
    if tensors.operands.len() != count {
        return Err(Mismatch::Operands { found: tensors.operands.len(), expected: count });
    }
    let operands = variant.operands().zip(tensors.operands).map(|(operand, &tensor)| {
        let Operand { name, heads, rows, width } = operand;
        let heads = heads.unwrap_or(1);
        let expected = match rows {
            Rows::Queries => shape(heads, queries, width),
            Rows::Keys if stored == Keys::Mixed => {
                shape(variant.heads.query, keys.saturating_mul(variant.per_token()), width)
            }
            Rows::Keys => shape(heads, keys, width),
            Rows::Matrix(rows) => [1, heads, rows, width].map(|n| n as usize),
        };
        (name, tensor, expected)
    });
    for (name, tensor, expected) in operands.chain(gate) {
        if tensor.shape() != expected {
            return Err(Mismatch::Shape { name, found: tensor.shape(), expected });
        }
        let (found, expected) = (tensor.dtype(), tensors.operands[0].dtype());
        if found != expected && !(name == "gate" && found == Dtype::F32) {
            return Err(Mismatch::Dtype { name, found, expected });
        }
    }
    check_captured(variant, problem, tensors)
}

/// The inputs of tables are what the tables need; expressions were typed by the compiler.
fn check_captured(
    variant: &Variant<'_>,
    problem: &Problem<'_>,
    tensors: &Tensors<'_>,
) -> Result<(), Mismatch> {
    let captured = &tensors.captured;
    if captured.count() != variant.inputs.len() {
        let (found, expected) = (captured.count(), variant.inputs.len());
        return Err(Mismatch::Captured { found, expected });
    }
    let Variant { heads, position, qk_norm, weights, output, .. } = variant;
    let size = |n: u32| n as usize;
    let mut needed = Vec::new();
    if let Some(position) = position {
        if let Frequencies::Input(input) = position.frequencies {
            needed.push(("freqs", input, InputType::F32, size(position.dim) / 2));
        }
        if let Some(input) = position.ids {
            let len = problem.all_keys().saturating_mul(variant.per_token().into());
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            needed.push(("ids", input, InputType::I32, len));
        }
    }
    if let Some(norm) = qk_norm
        && let Some([q, k]) = norm.learned
    {
        let width = |n_heads| if norm.all_heads { size(n_heads) * size(heads.dim) } else { size(heads.dim) };
        needed.push(("q_norm", q, InputType::F32, width(heads.query)));
        needed.push(("k_norm", k, InputType::F32, width(heads.kv)));
    }
    if let Weights::Softmax { sink: Sink::Learned { input } } = *weights {
        needed.push(("sink", input, InputType::F32, size(heads.query)));
    }
    if let Some(pseudo) = variant.pseudo() {
        let [mix_q, mix_k, mix_v] = pseudo.mix;
        let targets = size(heads.query).saturating_mul(size(pseudo.heads));
        for (name, input, sources) in [
            ("mix_q", mix_q, heads.query),
            ("mix_k", mix_k, heads.kv),
            ("mix_v", mix_v, heads.kv),
            ("collapse", pseudo.collapse, heads.query),
        ] {
            needed.push((name, input, InputType::F32, size(sources).saturating_mul(targets)));
        }
    }
    if let Some(Recurrence { decay, delta, .. }) = variant.recurrence() {
        let tokens = usize::try_from(problem.all_keys()).unwrap_or(usize::MAX);
        let of_token = tokens.saturating_mul(size(heads.value));
        match decay {
            Decay::None => {}
            Decay::Head(input) => needed.push(("decay", input, InputType::F32, size(heads.value))),
            Decay::Token(input) => needed.push(("decay", input, InputType::F32, of_token)),
            Decay::Channel(input) => {
                needed.push(("decay", input, InputType::F32, of_token.saturating_mul(size(heads.dim))));
            }
        }
        needed.extend(delta.map(|input| ("beta", input, InputType::F32, of_token)));
    }
    if let Some(mix) = output.mix {
        needed.push(("mix", mix.input, InputType::F32, size(mix.heads) * size(heads.query)));
    }
    if let Some(input) = output.norm.and_then(|norm| norm.learned) {
        needed.push(("o_norm", input, InputType::F32, size(heads.value_dim)));
    }
    for (name, input, dtype, len) in needed {
        let input = size(input.into());
        let found =
            (input < captured.count()).then(|| captured.data(input)).map(|data| (data.dtype(), data.len()));
        if found != Some((dtype, len)) {
            return Err(Mismatch::Input { name, found, expected: (dtype, len) });
        }
    }
    Ok(())
}
