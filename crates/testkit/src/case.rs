//! A variant on one problem: its inputs, its outputs, and the judgement.

use core::fmt;

use regard_ir::inputs::{Captured, InputData};
use regard_ir::operands::Rows;
use regard_ir::plan::{Dtype, Precision};
use regard_ir::problem::{OwnedProblem, Problem};
use regard_ir::variant::{Mechanism, Variant};
use regard_oracle::compare::{self, CompareError, Report, compare};
use regard_oracle::random::{self, CapturedBuffer};
use regard_oracle::sample::Sample;
use regard_oracle::{Keys, Known, Oracle, Tensor4, Tensors};

use crate::place::Layout;
use crate::poison::{Input, Output, PoisonError};

/// A variant on one problem, in one storage type and layout.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The variant.
    pub variant: Variant<'a>,
    /// The problem.
    pub problem: Problem<'a>,
    /// Storage type of q, k, v and o.
    pub dtype: Dtype,
    /// Where the elements of q, k, v, o and lse lie.
    pub layout: Layout,
    /// What the inputs are drawn from.
    pub seed: u64,
}

/// The inputs of a case.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The variant's operands, in the order of [`Variant::operands`]: rows are N(0, 1), matrices as [`random::operand`] has them.
    pub operands: Vec<Input>,
    /// Whether they are those of lookahead keys, which are as many as those of latents.
    pub of_lookahead: bool,
    /// Captured inputs in the variant's order; see [`random::captured`].
    pub captured: Vec<CapturedBuffer>,
    /// The gate of the outputs, N(0, 1), if the variant has one: `[batch, output heads, queries, value_dim]`, or 1 in
    /// the last place where it is per head.
    pub gate: Option<Input>,
    /// Whether keys and values are as a cache holds them, and as which: the oracle takes them as they are.
    pub keys: Keys,
}

impl Inputs {
    /// The same with other operands, each made by what its rows are.
    pub fn map(&self, variant: &Variant<'_>, mut make: impl FnMut(Rows, &Input) -> Input) -> Self {
        let operands = variant.operands().zip(&self.operands).map(|(of, tensor)| make(of.rows, tensor));
        Self { operands: operands.collect(), ..self.clone() }
    }

    /// The same with the rows of keys of others.
    pub fn with_keys_of(&self, variant: &Variant<'_>, others: &Self) -> Self {
        let mut given = others.operands.iter();
        self.map(variant, |rows, tensor| {
            let other = given.next().expect("as many operands");
            if rows == Rows::Keys { other.clone() } else { tensor.clone() }
        })
    }

    /// The operands as the oracle takes them.
    pub fn views(&self) -> Vec<Tensor4<'_>> {
        self.operands.iter().map(Input::view).collect()
    }

    /// The captured inputs as a problem binds them.
    pub fn captured(&self) -> Vec<InputData<'_>> {
        self.captured.iter().map(CapturedBuffer::data).collect()
    }
}

/// The outputs of a case.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The output, `[batch, output heads, queries, value_dim]`.
    pub o: Output,
    /// The log of the weights' sum, `[batch, query heads, queries, 1]` in f32, if the variant has it.
    pub lse: Option<Output>,
}

/// Why a kernel's outputs are not accepted.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// A write too many or too few in the output of that name.
    Poison(&'static str, PoisonError),
    /// The outputs could not be compared.
    Compare(CompareError),
    /// An error past its bound.
    Bound(Box<Report>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Poison(name, error) => write!(f, "`{name}`: {error}"),
            Failure::Compare(error) => error.fmt(f),
            Failure::Bound(report) => report.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl Case<'_> {
    /// Seeded inputs.
    pub fn inputs(&self) -> Inputs {
        let heads = &self.variant.heads;
        let [batch, queries, keys] = self.problem.extents();
        // Each tensor draws from a seed of its own.
        let seed = |tensor: u64| self.seed.wrapping_mul(64).wrapping_add(tensor);
        let operands = self.variant.operands().enumerate().map(|(i, operand)| {
            let (batch, rows) = match operand.rows {
                Rows::Queries => (batch, queries),
                Rows::Keys => (batch, keys),
                Rows::Matrix(rows) => (1, rows),
            };
            let shape = [batch, operand.heads.unwrap_or(1), rows, operand.width].map(|n| n as usize);
            Input::new(
                self.dtype,
                shape,
                self.layout,
                random::operand(&operand, self.problem.keys, seed(i as u64)),
            )
        });
        let n_operands = self.variant.operands().count();
        let n_captured = self.variant.inputs.len();
        let positions = self.positions();
        let captured = (0..n_captured).map(|input| {
            random::captured(&self.variant, &positions.view(), input, seed((n_operands + input) as u64))
        });
        let gate = self.variant.output.gate.map(|gate| {
            let width = if gate.per_head { 1 } else { heads.value_dim };
            let shape = [batch, self.variant.output_heads(), queries, width].map(|n| n as usize);
            Input::normal(self.dtype, shape, self.layout, seed((n_operands + n_captured) as u64))
        });
        Inputs {
            operands: operands.collect(),
            of_lookahead: matches!(self.variant.mechanism, Mechanism::Lookahead(_)),
            captured: captured.collect(),
            gate,
            keys: Keys::Given,
        }
    }

    /// Unwritten outputs.
    pub fn outputs(&self) -> Outputs {
        let heads = &self.variant.heads;
        let [batch, queries, _] = self.problem.extents();
        let output = |dtype, n_heads, width| {
            let shape = [batch, n_heads, queries, width].map(|n| n as usize);
            Output::new(dtype, shape, self.layout)
        };
        Outputs {
            o: output(self.dtype, self.variant.output_heads(), heads.value_dim),
            lse: self.variant.output.lse.then(|| output(Dtype::F32, heads.query, 1)),
        }
    }

    /// Accepts the outputs if every element was written, nothing else was, and the rows of `sample` are within
    /// their bounds.
    ///
    /// # Errors
    /// With the first reason that they are not accepted.
    ///
    /// # Panics
    /// If `inputs` are not of this case.
    pub fn judge(&self, inputs: &Inputs, outputs: &Outputs, sample: &Sample) -> Result<Report, Failure> {
        self.judge_as(Precision::Exact, inputs, outputs, sample)
    }

    /// As [`Case::judge`], by the bounds of some precision.
    ///
    /// # Errors
    /// As `judge`.
    ///
    /// # Panics
    /// As `judge`.
    pub fn judge_as(
        &self,
        precision: Precision,
        inputs: &Inputs,
        outputs: &Outputs,
        sample: &Sample,
    ) -> Result<Report, Failure> {
        self.judge_knowing(&Known::default(), precision, inputs, outputs, sample)
    }

    /// As [`Case::judge_as`], where `known` are rows of the same case on the same inputs; those that were not are added.
    ///
    /// # Errors
    /// As `judge`.
    ///
    /// # Panics
    /// As `judge`.
    pub fn judge_knowing(
        &self,
        known: &Known,
        precision: Precision,
        inputs: &Inputs,
        outputs: &Outputs,
        sample: &Sample,
    ) -> Result<Report, Failure> {
        outputs.o.check().map_err(|error| Failure::Poison("o", error))?;
        if let Some(lse) = &outputs.lse {
            lse.check().map_err(|error| Failure::Poison("lse", error))?;
        }
        let data = inputs.captured();
        let (operands, positions) = (inputs.views(), self.positions());
        let oracle = self.oracle(inputs, &operands, &data, &positions).with_precision(precision);
        let oracle = oracle.knowing(known);
        let lse = outputs.lse.as_ref().map(Output::view);
        let outputs = compare::Outputs { o: outputs.o.view(), lse, u: None, state: None };
        let report = compare(&oracle, &outputs, sample).map_err(Failure::Compare)?;
        if report.passed() { Ok(report) } else { Err(Failure::Bound(Box::new(report))) }
    }

    /// The problem in positions, as captured inputs and kernels see it.
    ///
    /// # Panics
    /// If it has no positions of 32 bits.
    pub fn positions(&self) -> OwnedProblem {
        OwnedProblem::spread(&self.problem, self.variant.per_token()).expect("a case is short")
    }

    pub(crate) fn oracle<'a>(
        &'a self,
        inputs: &'a Inputs,
        operands: &'a [Tensor4<'a>],
        captured: &'a [InputData<'a>],
        positions: &'a OwnedProblem,
    ) -> Oracle<'a> {
        let Self { variant, problem, .. } = *self;
        let captured =
            Captured::bind(variant.inputs, captured, &variant.heads, variant.source, &positions.view())
                .expect("the captured inputs of a case fit it");
        let gate = inputs.gate.as_ref().map(Input::view);
        Oracle::on(inputs.keys, variant, problem, Tensors { operands, captured, gate })
            .expect("the inputs of a case fit it")
    }
}
