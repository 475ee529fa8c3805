//! One kernel on one problem's tensors: scheduled, run, timed.

use std::time::Instant;

use regard::{
    Inputs, Kernel, Outputs, Pool, RunError, Schedule, ScheduleError, Threads, View, ViewMut, Workspace,
};
use regard_ir::inputs::InputData;
use regard_ir::problem::Problem;

use crate::failure::Failure;
use crate::memory;
use crate::progress::Progress;
use crate::storage::Storage;
use crate::tensors::signature::{Bound, Layout, Stored, StoredElements};

/// A kernel and what it runs with.
#[derive(Clone, Copy)]
pub(crate) struct Execution<'a> {
    /// The kernel.
    pub(crate) kernel: &'a Kernel,
    /// Who does the work.
    pub(crate) pool: &'a Pool,
    /// Order of the axes of q, k, v, o and lse.
    pub(crate) layout: Layout,
    /// Timed runs after one that does not count; a single one that counts where absent.
    pub(crate) repeat: Option<u32>,
}

/// What a kernel wrote, and how long it took.
pub(crate) struct Outcome {
    /// The output, axes as the layout orders them.
    pub(crate) o: Stored<'static>,
    /// The log of the weights' sum, `[batch, head, query, 1]`, where the spec has it.
    pub(crate) lse: Option<Stored<'static>>,
    /// The time of each run.
    pub(crate) seconds: Vec<f64>,
    /// Pairs that the mask allows, over all heads, as the schedule estimates them.
    pub(crate) live_pairs: u64,
}

impl Execution<'_> {
    /// Runs the kernel on tensors.
    ///
    /// # Errors
    /// If there is no memory, the problem cannot be scheduled, or an expression reads outside a tensor.
    pub(crate) fn run(&self, bound: &Bound<'_>) -> Result<Outcome, Failure> {
        let captured = bound.captured();
        let fail = |error| self.schedule_failure(error);
        let schedule = self.kernel.schedule(&bound.problem, &captured, self.pool.count()).map_err(fail)?;
        let live_pairs = schedule.live_pairs();
        let mut workspace = Workspace::default();
        workspace.try_grow(&schedule).map_err(|_| memory::OutOfMemory {
            what: "the workspace",
            bytes: schedule.workspace_bytes() as u128,
        })?;
        let mut call = Call { execution: self, schedule, captured: &captured, workspace };
        let (o, lse, seconds) = match (&bound.q.elements, &bound.k.elements, &bound.v.elements) {
            (StoredElements::F32(q), StoredElements::F32(k), StoredElements::F32(v)) => {
                call.run(bound, [q, k, v])?
            }
            (StoredElements::F16(q), StoredElements::F16(k), StoredElements::F16(v)) => {
                call.run(bound, [q, k, v])?
            }
            (StoredElements::Bf16(q), StoredElements::Bf16(k), StoredElements::Bf16(v)) => {
                call.run(bound, [q, k, v])?
            }
            _ => return Err(Failure::Bug("q, k and v were bound in different storage types".to_owned())),
        };
        Ok(Outcome { o, lse, seconds, live_pairs })
    }

    fn schedule_failure(&self, error: ScheduleError) -> Failure {
        Failure::Schedule { spec: self.kernel.spec().name.clone(), error }
    }

    fn run_failure(&self, error: RunError) -> Failure {
        let spec = self.kernel.spec();
        match error.index_fault().and_then(|input| spec.inputs.names.get(input)) {
            Some(input) => Failure::Index { spec: spec.name.clone(), input: input.clone() },
            None => Failure::Run { spec: spec.name.clone(), error },
        }
    }
}

/// A call whose storage type is known.
struct Call<'a> {
    execution: &'a Execution<'a>,
    schedule: Schedule,
    captured: &'a [InputData<'a>],
    workspace: Workspace,
}

type Written = (Stored<'static>, Option<Stored<'static>>, Vec<f64>);

impl Call<'_> {
    fn run<T: Storage>(&mut self, bound: &Bound<'_>, [q, k, v]: [&[T]; 3]) -> Result<Written, Failure> {
        let Execution { kernel, pool, layout, repeat } = *self.execution;
        let variant = kernel.variant();
        let shape = |width| output_shape(&bound.problem, variant.heads.query, width);
        let (o_shape, lse_shape) = (shape(variant.heads.value_dim), shape(1));
        let mut o = memory::zeroed::<T>("the output", elements(o_shape))?;
        let mut lse = match variant.output.lse {
            true => Some(memory::zeroed::<f32>("the lse", elements(lse_shape))?),
            false => None,
        };
        let (q, k, v) = (view(q, &bound.q)?, view(k, &bound.k)?, view(v, &bound.v)?);
        let warm_ups = usize::from(repeat.is_some());
        let n_runs = repeat.unwrap_or(1) as usize + warm_ups;
        let mut seconds = memory::reserved("the times", n_runs as u128)?;
        let progress = Progress::new("runs", n_runs as u64);
        for _ in 0..n_runs {
            let inputs = Inputs::new(q, k, v).captured(self.captured);
            let lse = lse.as_deref_mut().map(|lse| view_mut(lse, lse_shape, layout)).transpose()?;
            let outputs = Outputs { o: view_mut(&mut o, o_shape, layout)?, lse };
            let start = Instant::now();
            kernel
                .run(&self.schedule, pool, inputs, outputs, &mut self.workspace)
                .map_err(|error| self.execution.run_failure(error))?;
            seconds.push(start.elapsed().as_secs_f64());
            progress.advance();
        }
        let stored = |elements, shape| Stored { elements, shape, strides: layout.strides(shape) };
        let o = stored(T::store(o), o_shape);
        let lse = lse.map(|lse| stored(f32::store(lse), lse_shape));
        Ok((o, lse, seconds.split_off(warm_ups)))
    }
}

/// `[batch, query heads, queries, width]`.
fn output_shape(problem: &Problem, heads: u32, width: u32) -> [usize; 4] {
    [problem.batch, heads, problem.queries, width].map(|n| n as usize)
}

fn elements(shape: [usize; 4]) -> u128 {
    shape.iter().fold(1, |product: u128, &n| product.saturating_mul(n as u128))
}

fn view<'a, T>(elements: &'a [T], stored: &Stored<'_>) -> Result<View<'a, T>, Failure> {
    let ([b, h, n, width], [sb, sh, sn, _]) = (stored.shape, stored.strides);
    View::new(elements, [b, h, n], [sb, sh, sn], width).map_err(|error| Failure::Bug(error.to_string()))
}

fn view_mut<T>(elements: &mut [T], shape: [usize; 4], layout: Layout) -> Result<ViewMut<'_, T>, Failure> {
    let ([b, h, n, width], [sb, sh, sn, _]) = (shape, layout.strides(shape));
    ViewMut::new(elements, [b, h, n], [sb, sh, sn], width).map_err(|error| Failure::Bug(error.to_string()))
}
