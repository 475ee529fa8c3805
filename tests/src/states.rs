//! States of recurrences: what a run begins with, and what it leaves.

use regard::{Kernel, RunError, Threads, ViewMut, Workspace};
use regard_ir::inputs::Captured;
use regard_ir::problem::Problem;
use regard_ir::variant::Variant;
use regard_oracle::compare::{self, Report, compare};
use regard_oracle::sample::Sample;
use regard_oracle::{Elements, Oracle, Start, Tensor4, Tensors, random};
use regard_runtime::recurrent;
use regard_testkit::{Case, Inputs, Outputs};

use crate::views::{places, views};

/// States in memory of their own, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct States {
    /// `[sequence][value head][dim][value_dim]`.
    pub state: Vec<f32>,
    /// Sums of features, `[sequence][value head][dim]`.
    pub norm: Option<Vec<f32>>,
    shapes: [[usize; 4]; 2],
}

impl States {
    /// Zeros.
    ///
    /// # Panics
    /// If the variant has no states.
    pub fn zeros(variant: &Variant<'_>, problem: &Problem<'_>) -> Self {
        let recurrence = variant.recurrence().expect("a variant with states");
        let of = |rows, width| [problem.batch, variant.heads.value, rows, width].map(|n| n as usize);
        let shapes = [of(variant.heads.dim, variant.heads.value_dim), of(1, variant.heads.dim)];
        let [state, norm] = shapes.map(|shape| vec![0.0; shape.iter().product()]);
        Self { state, norm: recurrence.normalize_eps.map(|_| norm), shapes }
    }

    /// Seeded states of N(0, 1/16), and sums of features above 1.
    ///
    /// # Panics
    /// As [`States::zeros`].
    pub fn random(variant: &Variant<'_>, problem: &Problem<'_>, seed: u64) -> Self {
        let mut states = Self::zeros(variant, problem);
        let numbers = random::normal(seed ^ 0x5eed);
        states.state.iter_mut().zip(numbers).for_each(|(to, x)| *to = 0.25 * x);
        let numbers = random::normal(seed ^ 0xfeed);
        states.norm.iter_mut().flatten().zip(numbers).for_each(|(to, x)| *to = 1.0 + x.abs());
        states
    }

    /// As the runtime takes them.
    ///
    /// # Panics
    /// Never: they are as long as their shapes say.
    pub fn view(&mut self) -> recurrent::States<'_> {
        let [state, norm] = self.shapes;
        let view = |data, [b, h, rows, width]: [usize; 4]| {
            ViewMut::contiguous(data, [b, h, rows], width).expect("as long as its shape")
        };
        recurrent::States {
            state: view(&mut self.state, state),
            norm: self.norm.as_deref_mut().map(|data| view(data, norm)),
        }
    }

    /// As the oracle begins with them.
    pub fn start(&self) -> Start<'_> {
        let (state, norm) = self.tensors();
        Start { state, norm }
    }

    fn tensors(&self) -> (Tensor4<'_>, Option<Tensor4<'_>>) {
        let [state, norm] = self.shapes;
        let tensor = |data, shape| Tensor4::dense(Elements::F32(data), shape).expect("as long as its shape");
        (tensor(&self.state, state), self.norm.as_deref().map(|data| tensor(data, norm)))
    }
}

/// Runs a case whose states begin as they are, and end as its last tokens leave them.
///
/// # Errors
/// As [`Kernel::run_recurrence`] says.
///
/// # Panics
/// If the case cannot be scheduled or is not the kernel's.
pub fn run(
    kernel: &Kernel,
    case: &Case<'_>,
    inputs: &Inputs,
    states: &mut States,
    threads: &dyn Threads,
) -> Result<Outputs, RunError> {
    let captured = inputs.captured();
    let schedule = kernel.schedule(&case.problem, &captured, threads.count()).expect("a case is small");
    let mut outputs = case.outputs();
    let (given, places) = (views(inputs, &captured), places(&mut outputs));
    let mut workspace = Workspace::new(&schedule);
    kernel.run_recurrence(&schedule, threads, given, (places, states.view()), &mut workspace)?;
    Ok(outputs)
}

/// Holds outputs and the states that a run left, which it began with `start`, against the oracle.
///
/// # Errors
/// With what is wrong.
///
/// # Panics
/// If the inputs are not the case's.
pub fn judge(
    case: &Case<'_>,
    inputs: &Inputs,
    outputs: &Outputs,
    (start, end): (&States, &States),
) -> Result<Report, String> {
    outputs.o.check().map_err(|error| error.to_string())?;
    let Case { variant, problem, .. } = *case;
    let (operands, data, positions) = (inputs.views(), inputs.captured(), case.positions());
    let captured = Captured::bind(variant.inputs, &data, &variant.heads, variant.source, &positions.view())
        .expect("the captured inputs of a case fit it");
    let gate = inputs.gate.as_ref().map(regard_testkit::Input::view);
    let oracle = Oracle::new(variant, problem, Tensors { operands: &operands, captured, gate })
        .expect("the inputs of a case fit it")
        .starting(start.start());
    let state = Some(end.tensors());
    let outputs = compare::Outputs { o: outputs.o.view(), lse: None, u: None, state };
    let sample = Sample::new(&problem, &variant.heads, 1, case.seed);
    let report = compare(&oracle, &outputs, &sample).map_err(|error| error.to_string())?;
    if report.passed() { Ok(report) } else { Err(report.to_string()) }
}
