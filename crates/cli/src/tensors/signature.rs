//! What a spec takes from a tensor file.

use regard_ir::inputs::InputData;
use regard_ir::operands::{Operand, Rows, operands};
use regard_ir::plan::Dtype;
use regard_ir::problem::{OwnedProblem, Problem, ProblemError};
use regard_ir::rows::Gate;
use regard_ir::spec::Spec;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Mechanism, Source};
use safetensors::Dtype as FileDtype;
use std::borrow::Cow;

use super::Tensors;
use super::mismatch::{BindError, BindErrors, Dim, Expected, mismatches};
use super::stored::{CapturedElements, Stored, StoredElements, StoredStates};

/// Order of the head and token axes of q, k, v, o, lse and a gate. Captured inputs have the axes that they are declared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Heads outside: `[batch, head, token, channel]`.
    Bhnd,
    /// Tokens outside: `[batch, token, head, channel]`.
    Bnhd,
    /// Sequences of their own lengths, one after the other: `[token, head, channel]`. A file with [`CU_Q`] and [`CU_K`]
    /// has it, whatever is asked for.
    Packed,
}

/// Where the sequences of packed queries begin, and past the last of all.
const CU_Q: &str = "cu_q";

/// Where the sequences of packed keys begin, and past the last of all.
const CU_K: &str = "cu_k";

/// States of a recurrence.
const STATE: &str = "state";

/// Their sums of features.
const NORM: &str = "norm";

impl Layout {
    /// The orders of sequences of one length.
    pub(crate) const ALL: [Layout; 2] = [Layout::Bhnd, Layout::Bnhd];

    /// As it is written on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Layout::Bhnd => "bhnd",
            Layout::Bnhd => "bnhd",
            Layout::Packed => "packed",
        }
    }

    /// The axes of a file, of those of batch, head, token and channel.
    pub(crate) fn file_axes<T: Copy>(self, [b, h, n, d]: [T; 4]) -> Vec<T> {
        match self {
            Layout::Bhnd => vec![b, h, n, d],
            Layout::Bnhd => vec![b, n, h, d],
            Layout::Packed => vec![n, h, d],
        }
    }

    /// The same of a tensor that may have no axis of heads.
    fn axes_of(self, batch: Dim, heads: Option<Dim>, tokens: Dim, width: Dim) -> Vec<Dim> {
        match heads {
            Some(heads) => self.file_axes([batch, heads, tokens, width]),
            None if self == Layout::Packed => vec![tokens, width],
            None => vec![batch, tokens, width],
        }
    }

    /// The lengths of batch, head, token and channel, of those of a file's axes.
    fn lens(self, axes: &[usize]) -> Option<[usize; 4]> {
        Some(match (self, axes) {
            (Layout::Bhnd, &[b, h, n, d]) | (Layout::Bnhd, &[b, n, h, d]) => [b, h, n, d],
            (Layout::Packed, &[n, h, d]) => [1, h, n, d],
            _ => return None,
        })
    }

    fn other(self) -> Self {
        match self {
            Layout::Bhnd => Layout::Bnhd,
            Layout::Bnhd => Layout::Bhnd,
            Layout::Packed => Layout::Packed,
        }
    }

    /// Elements from one index of batch, head, token and channel to the next.
    pub(crate) fn strides(self, [_, h, n, d]: [usize; 4]) -> [usize; 4] {
        let rows = h.saturating_mul(n).saturating_mul(d);
        match self {
            Layout::Bhnd => [rows, n.saturating_mul(d), d, 1],
            Layout::Bnhd | Layout::Packed => [rows, d, h.saturating_mul(d), 1],
        }
    }
}

/// What a spec takes from a tensor file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signature<'a> {
    /// Head counts and widths.
    pub(crate) heads: Heads,
    /// What turns q, k and v into o.
    pub(crate) mechanism: Mechanism<'a>,
    /// Whose keys and values.
    pub(crate) source: Source,
    /// Heads of o and of the gate.
    pub(crate) output_heads: u32,
    /// The gate, if there is one.
    pub(crate) gate: Option<Gate>,
    /// Names of the captured inputs: the declared ones and those of learned tables.
    pub(crate) names: &'a [String],
    /// Their types and axes.
    pub(crate) shapes: &'a [InputShape],
    /// Storage type of q, k and v.
    pub(crate) dtype: Dtype,
    /// Order of their axes in the file.
    pub(crate) layout: Layout,
}

impl<'a> Signature<'a> {
    /// The signature of a spec of the softmax family.
    pub(crate) fn new(spec: &'a Spec, dtype: Dtype, layout: Layout) -> Self {
        let Spec { heads, source, output, ref inputs, .. } = *spec;
        let variant = spec.variant();
        Self {
            heads,
            mechanism: variant.mechanism,
            source,
            output_heads: variant.output_heads(),
            gate: output.gate,
            names: &inputs.names,
            shapes: &inputs.shapes,
            dtype,
            layout,
        }
    }

    /// Takes the tensors from a file, and from q and k the sizes of the problem.
    ///
    /// # Errors
    /// With all tensors that are missing, extra, misnamed, misshapen or of another type at once.
    pub(crate) fn bind<'t>(&self, tensors: &'t Tensors) -> Result<Bound<'t>, BindErrors> {
        // No input of a spec has these names: the language keeps them.
        if [CU_Q, CU_K].into_iter().any(|name| tensors.get(name).is_some()) {
            Self { layout: Layout::Packed, ..*self }.bind_laid_out(tensors)
        } else {
            self.bind_laid_out(tensors)
        }
    }

    fn bind_laid_out<'t>(&self, tensors: &'t Tensors) -> Result<Bound<'t>, BindErrors> {
        let sizes = Sizes::guess(self, tensors);
        let mut expected = self.expected(&sizes);
        expected.extend(self.expected_states(&sizes, tensors));
        let mut errors = mismatches(&expected, tensors);
        let swapped = Self { layout: self.layout.other(), ..*self };
        let other_layout = !errors.is_empty() && swapped.fits_operands(tensors);
        match sizes.problem(self.source) {
            Ok(problem) if errors.is_empty() => {
                Ok(self.take(tensors, problem).expect("every tensor was found with its type and shape"))
            }
            Ok(_) => Err(BindErrors { path: tensors.path().to_owned(), errors, other_layout }),
            Err(error) => {
                errors.push(BindError::Problem(error));
                Err(BindErrors { path: tensors.path().to_owned(), errors, other_layout })
            }
        }
    }

    /// Takes an output `o` of the same problem; a file may hold other tensors beside it.
    ///
    /// # Errors
    /// If it is missing, or has another shape or type.
    pub(crate) fn bind_output<'t>(
        &self,
        problem: &Problem<'_>,
        tensors: &'t Tensors,
    ) -> Result<Stored<'t>, BindErrors> {
        let layout = if problem.packed.is_some() { Layout::Packed } else { self.layout };
        let [batch, queries, _] = problem.extents();
        let dim = |what, len: u32, origin| Dim { what, len: Some(len as usize), origin };
        let axes = layout.file_axes([
            dim("sequences", batch, "in the input"),
            dim("output heads", self.output_heads, "in the spec"),
            dim("queries", queries, "in the input"),
            dim("channels", self.heads.value_dim, "in the spec"),
        ]);
        let dtypes = vec![storage(self.dtype)];
        let expected = Expected { name: "o".to_owned(), dtypes, axes };
        let mut errors = mismatches(&[expected], tensors);
        errors.retain(|error| !matches!(error, BindError::Extra { .. }));
        match (Self { layout, ..*self }).stored(tensors, "o", self.dtype) {
            Some(output) if errors.is_empty() => Ok(output),
            _ => Err(BindErrors { path: tensors.path().to_owned(), errors, other_layout: false }),
        }
    }

    /// Takes the declared inputs at `wanted`, in declaration order, for a problem whose sizes are known; a file may hold
    /// other tensors beside them.
    ///
    /// # Errors
    /// If one is missing, or has another shape or type.
    pub(crate) fn bind_inputs<'t>(
        &self,
        problem: &Problem<'_>,
        wanted: &[usize],
        tensors: &'t Tensors,
    ) -> Result<Vec<CapturedElements<'t>>, BindErrors> {
        let expected = self.expected_inputs(&Sizes::of(problem));
        let expected: Vec<_> = expected.into_iter().enumerate().filter(|(i, _)| wanted.contains(i)).collect();
        let (places, expected): (Vec<_>, Vec<_>) = expected.into_iter().unzip();
        let mut errors = mismatches(&expected, tensors);
        errors.retain(|error| !matches!(error, BindError::Extra { .. }));
        if !errors.is_empty() {
            return Err(BindErrors { path: tensors.path().to_owned(), errors, other_layout: false });
        }
        let taken = places.into_iter().map(|i| self.captured(tensors, i)).collect::<Option<_>>();
        Ok(taken.expect("every tensor was found with its type and shape"))
    }

    fn expected(&self, sizes: &Sizes) -> Vec<Expected> {
        let Self { heads, layout, .. } = *self;
        let [batch, queries, keys] = sizes.dims();
        let row = |name: &str, n_heads, tokens, width| Expected {
            name: name.to_owned(),
            dtypes: vec![storage(self.dtype)],
            axes: layout.file_axes([batch, n_heads, tokens, width]),
        };
        let operand = |Operand { name, heads, rows, width }| {
            let width = fixed("channels", width);
            let what = match rows {
                Rows::Keys if name == "v" => "value heads",
                Rows::Keys => "key heads",
                Rows::Queries | Rows::Matrix(_) => "query heads",
            };
            let heads = heads.map(|heads| fixed(what, heads));
            let dtypes = vec![storage(self.dtype)];
            let axes = match (rows, heads) {
                (Rows::Queries, heads) => layout.axes_of(batch, heads, queries, width),
                (Rows::Keys, heads) => layout.axes_of(batch, heads, keys, width),
                (Rows::Matrix(rows), heads) => {
                    heads.into_iter().chain([fixed("rows", rows), width]).collect()
                }
            };
            Expected { name: name.to_owned(), dtypes, axes }
        };
        let mut expected: Vec<_> = self.operands().map(operand).collect();
        expected.extend(self.expected_inputs(sizes));
        if layout == Layout::Packed {
            let len = sizes.batch.map(|n| n + 1);
            expected.extend([CU_Q, CU_K].map(|name| Expected {
                name: name.to_owned(),
                dtypes: vec![FileDtype::I32],
                axes: vec![Dim { what: "offsets", len, origin: "of sequences and their end" }],
            }));
        }
        expected.extend(self.gate.map(|gate| {
            let n_heads = fixed("output heads", self.output_heads);
            let mut gate_row = row("gate", n_heads, queries, fixed("channels", heads.value_dim));
            if gate.per_head {
                gate_row.axes.pop();
            }
            if self.dtype != Dtype::F32 {
                gate_row.dtypes.push(FileDtype::F32);
            }
            gate_row
        }));
        expected
    }

    /// The declared inputs.
    fn expected_inputs(&self, sizes: &Sizes) -> Vec<Expected> {
        let Self { heads, source, .. } = *self;
        let [batch, queries, keys] = sizes.dims();
        let positions = match source {
            Source::SelfAttention => keys,
            Source::Cross => queries,
        };
        let axis = |axis: &Axis| match *axis {
            Axis::Batch => batch,
            Axis::Head => fixed("query heads", heads.query),
            Axis::KvHead => fixed("key heads", heads.kv),
            Axis::Query => positions,
            Axis::Key => keys,
            Axis::Len(len) => fixed("elements", len),
        };
        let input = |(name, shape): (&String, &InputShape)| Expected {
            name: name.clone(),
            dtypes: vec![captured(shape.dtype)],
            axes: match sizes.longest {
                Some(longest) => packed_axes(shape, axis, longest, source),
                None => shape.axes().iter().map(axis).collect(),
            },
        };
        self.names.iter().zip(self.shapes).map(input).collect()
    }

    /// The states before the first tokens, of which there need be none in a file, but all that a recurrence has or none.
    fn expected_states(&self, sizes: &Sizes, tensors: &Tensors) -> Vec<Expected> {
        let Mechanism::Recurrence(recurrence) = self.mechanism else { return Vec::new() };
        if [STATE, NORM].into_iter().all(|name| tensors.get(name).is_none()) {
            return Vec::new();
        }
        let [batch, ..] = sizes.dims();
        let Heads { value, dim, value_dim, .. } = self.heads;
        let heads = fixed("value heads", value);
        let of = |name: &str, rest: Vec<Dim>| Expected {
            name: name.to_owned(),
            dtypes: vec![FileDtype::F32],
            axes: [batch, heads].into_iter().chain(rest).collect(),
        };
        let state = of(STATE, vec![fixed("key channels", dim), fixed("channels", value_dim)]);
        let norm = recurrence.normalize_eps.map(|_| of(NORM, vec![fixed("key channels", dim)]));
        [Some(state), norm].into_iter().flatten().collect()
    }

    /// The states of a file that fits.
    fn start<'t>(&self, tensors: &'t Tensors) -> Option<StoredStates<'t>> {
        let Mechanism::Recurrence(_) = self.mechanism else { return None };
        let of = |name, rows: Option<usize>| {
            let tensor = tensors.get(name)?;
            let shape = match (tensor.shape, rows) {
                (&[b, h, d], Some(rows)) => [b, h, rows, d],
                (&[b, h, n, d], None) => [b, h, n, d],
                _ => return None,
            };
            let elements = self.elements(tensors, name, Dtype::F32)?;
            Some(Stored { elements, shape, strides: Layout::Bhnd.strides(shape) })
        };
        Some(StoredStates { state: of(STATE, None)?, norm: of(NORM, Some(1)) })
    }

    /// The tensors that the mechanism computes on.
    fn operands(&self) -> impl Iterator<Item = Operand> + use<> {
        operands(&self.heads, &self.mechanism)
    }

    fn fits_operands(&self, tensors: &Tensors) -> bool {
        let expected = self.expected(&Sizes::guess(self, tensors));
        expected.iter().take(self.operands().count()).all(|expected| {
            tensors.get(&expected.name).is_some_and(|tensor| expected.reasons(&tensor).is_empty())
        })
    }

    /// The tensors of a file that fits.
    fn take<'t>(&self, tensors: &'t Tensors, problem: OwnedProblem) -> Option<Bound<'t>> {
        let stored = |name| self.stored(tensors, name, self.dtype);
        let captured = (0..self.names.len()).map(|i| self.captured(tensors, i)).collect::<Option<_>>()?;
        let gate = match self.gate {
            Some(_) => Some(stored("gate").or_else(|| self.stored(tensors, "gate", Dtype::F32))?),
            None => None,
        };
        Some(Bound {
            problem,
            layout: self.layout,
            operands: self
                .operands()
                .map(|operand| self.operand(tensors, &operand))
                .collect::<Option<_>>()?,
            captured,
            gate,
            start: self.start(tensors),
        })
    }

    /// An operand, in the storage type: with axes of batch and head that it does not have.
    fn operand<'t>(&self, tensors: &'t Tensors, operand: &Operand) -> Option<Stored<'t>> {
        let Operand { name, heads, rows, .. } = *operand;
        let layout = self.layout;
        let shape = match (rows, heads, tensors.get(name)?.shape) {
            (Rows::Matrix(_), _, &[h, n, d]) => [1, h, n, d],
            (_, None, &[b, n, d]) if layout != Layout::Packed => [b, 1, n, d],
            (_, None, &[n, d]) => [1, 1, n, d],
            (_, _, axes) => layout.lens(axes)?,
        };
        // A matrix has no tokens that could lie outside of its heads.
        let of_matrix = matches!(rows, Rows::Matrix(_));
        let strides = if of_matrix { Layout::Bhnd.strides(shape) } else { layout.strides(shape) };
        Some(Stored { elements: self.elements(tensors, name, self.dtype)?, shape, strides })
    }

    /// A captured input, in its type.
    fn captured<'t>(&self, tensors: &'t Tensors, input: usize) -> Option<CapturedElements<'t>> {
        let tensor = tensors.get(&self.names[input])?;
        Some(match self.shapes[input].dtype {
            InputType::F32 => CapturedElements::F32(tensor.elements()?),
            InputType::I32 => CapturedElements::I32(tensor.elements()?),
            InputType::Bool => CapturedElements::Bool(tensor.elements()?),
        })
    }

    /// A tensor in a storage type; without an axis of channels it has one.
    fn stored<'t>(&self, tensors: &'t Tensors, name: &str, dtype: Dtype) -> Option<Stored<'t>> {
        let tensor = tensors.get(name)?;
        let one_channel = || self.layout.lens(&[tensor.shape, &[1]].concat());
        let shape = self.layout.lens(tensor.shape).or_else(one_channel)?;
        let elements = self.elements(tensors, name, dtype)?;
        Some(Stored { elements, shape, strides: self.layout.strides(shape) })
    }

    fn elements<'t>(&self, tensors: &'t Tensors, name: &str, dtype: Dtype) -> Option<StoredElements<'t>> {
        let tensor = tensors.get(name)?;
        Some(match dtype {
            Dtype::F32 => StoredElements::F32(tensor.elements()?),
            Dtype::F16 => StoredElements::F16(tensor.elements()?),
            Dtype::Bf16 => StoredElements::Bf16(tensor.elements()?),
        })
    }
}

/// The tensors of a problem, as they lie in the file.
#[derive(Debug)]
pub(crate) struct Bound<'t> {
    /// Batch, queries and keys; query offsets are the default of the source.
    pub(crate) problem: OwnedProblem,
    /// Order of the axes of its tensors.
    pub(crate) layout: Layout,
    /// What the mechanism computes on, in the order of [`regard_ir::operands::operands`].
    pub(crate) operands: Vec<Stored<'t>>,
    /// Captured inputs: the declared ones in the order of their declaration, then those of learned tables.
    pub(crate) captured: Vec<CapturedElements<'t>>,
    /// The gate of the outputs, with one channel where it is per head.
    pub(crate) gate: Option<Stored<'t>>,
    /// States before the first tokens; zeros where there are none.
    pub(crate) start: Option<StoredStates<'t>>,
}

impl Bound<'_> {
    /// Batch, queries, keys, and where the queries stand.
    pub(crate) fn problem(&self) -> Problem<'_> {
        self.problem.view()
    }

    /// The captured inputs as a problem binds them.
    pub(crate) fn captured(&self) -> Vec<InputData<'_>> {
        self.captured.iter().map(CapturedElements::data).collect()
    }
}

/// The lengths of a problem, as far as they are known.
struct Sizes {
    /// Sequences.
    batch: Option<usize>,
    /// Queries along the tensors' token axis.
    queries: Option<usize>,
    /// Keys along it.
    keys: Option<usize>,
    /// Where each is from.
    origins: [&'static str; 3],
    /// Queries and keys of the longest sequence, where sequences are packed and their offsets are to be had.
    longest: Option<[Option<usize>; 2]>,
    /// The offsets of packed sequences.
    cumulative: [Vec<i32>; 2],
}

impl Sizes {
    fn guess(signature: &Signature<'_>, tensors: &Tensors) -> Self {
        let first = |rows| signature.operands().find(|operand| operand.rows == rows);
        let lens = |operand: Option<Operand>| {
            let operand = operand?;
            let shape = tensors.get(operand.name)?.shape;
            match (operand.heads, shape) {
                (None, &[b, n, d]) if signature.layout != Layout::Packed => Some([b, 1, n, d]),
                (None, &[n, d]) if signature.layout == Layout::Packed => Some([1, 1, n, d]),
                (None, _) => None,
                _ => signature.layout.lens(shape),
            }
        };
        let (of_queries, of_keys) = (first(Rows::Queries), first(Rows::Keys));
        let (q, k) = (lens(of_queries), lens(of_keys));
        let (queries, keys) = (q.map(|s| s[2]), k.map(|s| s[2]));
        let origin = |operand: Option<Operand>| operand.map_or("", |operand| origin(operand.name));
        let [in_q, in_k] = [origin(of_queries), origin(of_keys)];
        if signature.layout == Layout::Packed {
            let offsets = |name| tensors.get(name)?.elements::<i32>();
            let given = [offsets(CU_Q), offsets(CU_K)];
            let longest = |offsets: &Option<Cow<'_, [i32]>>| {
                let lens = offsets.as_ref()?.windows(2).map(|pair| i64::from(pair[1]) - i64::from(pair[0]));
                usize::try_from(lens.max().unwrap_or(0)).ok()
            };
            let len = |offsets: &Option<Cow<'_, [i32]>>| offsets.as_ref()?.len().checked_sub(1);
            return Self {
                batch: len(&given[0]).or(len(&given[1])),
                queries,
                keys,
                origins: ["in `cu_q`", in_q, in_k],
                longest: Some([longest(&given[0]), longest(&given[1])]),
                cumulative: given.map(|offsets| offsets.map_or(Vec::new(), Cow::into_owned)),
            };
        }
        let batch_origin = if q.is_some() { in_q } else { in_k };
        let batch = q.or(k).map(|s| s[0]);
        Self::equal([batch, queries, keys], [batch_origin, in_q, in_k])
    }

    fn of(problem: &Problem<'_>) -> Self {
        let lens = [problem.batch, problem.queries, problem.keys].map(|len| Some(len as usize));
        Self::equal(lens, ["in --batch", "in --q", "in --k"])
    }

    fn equal([batch, queries, keys]: [Option<usize>; 3], origins: [&'static str; 3]) -> Self {
        Self { batch, queries, keys, origins, longest: None, cumulative: [Vec::new(), Vec::new()] }
    }

    fn dims(&self) -> [Dim; 3] {
        let [batch, queries, keys] = self.origins;
        [
            Dim { what: "sequences", len: self.batch, origin: batch },
            Dim { what: "queries", len: self.queries, origin: queries },
            Dim { what: "keys", len: self.keys, origin: keys },
        ]
    }

    fn problem(&self, source: Source) -> Result<OwnedProblem, ProblemError> {
        let len = Option::unwrap_or_default;
        let problem = match &self.cumulative {
            [cu_q, cu_k] if self.longest.is_some() => {
                let problem = Problem::packed(source, cu_q, cu_k)?;
                let [_, queries, keys] = problem.extents().map(|n| n as usize);
                for (what, end, rows) in [(CU_Q, queries, self.queries), (CU_K, keys, self.keys)] {
                    if rows.is_some_and(|rows| rows != end) {
                        return Err(ProblemError::Rows { what, end, rows: len(rows) });
                    }
                }
                problem
            }
            _ => Problem::prefill(source, len(self.batch), len(self.queries), len(self.keys))?,
        };
        Ok((&problem).into())
    }
}

/// The axes of an input where sequences are packed: see [`regard_ir::inputs::Captured`].
fn packed_axes(
    shape: &InputShape,
    axis: impl Fn(&Axis) -> Dim,
    [queries, keys]: [Option<usize>; 2],
    source: Source,
) -> Vec<Dim> {
    let is_token = |axis: &Axis| matches!(axis, Axis::Query | Axis::Key);
    let longest = |at: &Axis| match at {
        Axis::Query if source == Source::Cross => {
            Dim { what: "queries", len: queries, origin: "of the longest sequence" }
        }
        Axis::Query | Axis::Key => Dim { what: "keys", len: keys, origin: "of the longest sequence" },
        other => axis(other),
    };
    let token = shape.axes().iter().position(is_token).filter(|_| shape.axes().contains(&Axis::Batch));
    let Some(token) = token else { return shape.axes().iter().map(longest).collect() };
    let others = shape.axes().iter().enumerate();
    let others = others.filter(|&(i, at)| i != token && *at != Axis::Batch).map(|(_, at)| longest(at));
    [axis(&shape.axes()[token])].into_iter().chain(others).collect()
}

/// Who says how long an axis is: an operand.
fn origin(name: &str) -> &'static str {
    match name {
        "q" => "in `q`",
        "k" => "in `k`",
        "q_c" => "in `q_c`",
        "k_c" => "in `k_c`",
        "q_nope" => "in `q_nope`",
        "c_kv" => "in `c_kv`",
        _ => "in another tensor",
    }
}

/// A length that the spec fixes.
fn fixed(what: &'static str, len: u32) -> Dim {
    Dim { what, len: Some(len as usize), origin: "in the spec" }
}

fn storage(dtype: Dtype) -> FileDtype {
    match dtype {
        Dtype::F32 => FileDtype::F32,
        Dtype::F16 => FileDtype::F16,
        Dtype::Bf16 => FileDtype::BF16,
    }
}

fn captured(dtype: InputType) -> FileDtype {
    match dtype {
        InputType::F32 => FileDtype::F32,
        InputType::I32 => FileDtype::I32,
        InputType::Bool => FileDtype::BOOL,
    }
}
