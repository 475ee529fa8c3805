//! One kernel on one problem's tensors: scheduled, run, timed.

use std::time::Instant;

use half::{bf16, f16};
use regard::{
    Dtype, Gate, Inputs, Kernel, KeyRows, LatentQueries, LookaheadKeys, Outputs, Pool, QueryRows, RunError,
    Schedule, ScheduleError, Spec, States, Threads, View, ViewMut, Workspace,
};
use regard_ir::expr::{Op, Tree, Var};
use regard_ir::inputs::InputData;
use regard_ir::operands::Rows;
use regard_ir::problem::Problem;
use regard_ir::variant::{Axis, Mechanism, Source};

use crate::failure::Failure;
use crate::memory;
use crate::progress::Progress;
use crate::storage::Storage;
use crate::tensors::signature::{Bound, Layout};
use crate::tensors::stored::{Stored, StoredElements, StoredStates};

/// A kernel and what it runs with.
#[derive(Clone, Copy)]
pub(crate) struct Execution<'a> {
    /// The kernel.
    pub(crate) kernel: &'a Kernel,
    /// Who does the work.
    pub(crate) pool: &'a Pool,
    /// Timed runs after one that does not count; a single one that counts where absent.
    pub(crate) repeat: Option<u32>,
}

/// What a kernel wrote, and how long it took.
pub(crate) struct Outcome {
    /// The output, axes as the layout orders them.
    pub(crate) o: Stored<'static>,
    /// The log of the weights' sum, `[batch, head, query, 1]`, where the spec has it.
    pub(crate) lse: Option<Stored<'static>>,
    /// The lookahead keys after the last token, where the spec has them.
    pub(crate) u: Option<Stored<'static>>,
    /// The states after the last token, where the spec has them.
    pub(crate) states: Option<StoredStates<'static>>,
    /// The time of each run.
    pub(crate) seconds: Vec<f64>,
}

impl Execution<'_> {
    /// Runs the kernel on tensors.
    ///
    /// # Errors
    /// If there is no memory, the problem cannot be scheduled, or a query's position or an expression reads outside a
    /// tensor.
    pub(crate) fn run(&self, bound: &Bound<'_>) -> Result<Outcome, Failure> {
        let problem = bound.problem();
        check_positions(self.kernel.spec(), &problem)?;
        let captured = bound.captured();
        let fail = |error| self.schedule_failure(error);
        let schedule = self.kernel.schedule(&problem, &captured, self.pool.count()).map_err(fail)?;
        let mut workspace = Workspace::default();
        workspace.try_grow(&schedule).map_err(|_| memory::OutOfMemory {
            what: "the workspace",
            bytes: schedule.workspace_bytes() as u128,
        })?;
        let mut call = Call { execution: self, schedule, captured: &captured, workspace };
        match self.kernel.plan().dtype {
            Dtype::F32 => call.run::<f32>(bound),
            Dtype::F16 => call.run::<f16>(bound),
            Dtype::Bf16 => call.run::<bf16>(bound),
        }
    }

    fn schedule_failure(&self, error: ScheduleError) -> Failure {
        Failure::Schedule { spec: self.kernel.spec().name.clone(), error }
    }
}

/// Why a run of a spec did not happen.
pub(crate) fn run_failure(spec: &Spec, error: RunError) -> Failure {
    match error.index_fault().and_then(|input| spec.inputs.names.get(input)) {
        Some(input) => Failure::Index { spec: spec.name.clone(), input: input.clone() },
        None => Failure::Run { spec: spec.name.clone(), error },
    }
}

/// The captured input that gives the positions of queries and keys, where there is one: every query must be among the
/// keys then, which by default it is not where there are more queries than keys.
pub(crate) fn positions_of_queries(spec: &Spec) -> Option<u16> {
    spec.position.and_then(|position| position.ids).filter(|_| spec.source == Source::SelfAttention)
}

/// Whether each query must be among the keys: their positions come from a tensor, or an expression reads one at a query's
/// place.
pub(crate) fn queries_have_places(spec: &Spec) -> bool {
    let reads = |tree: Tree<'_>| {
        tree.nodes().iter().any(|node| match node.op {
            Op::Input { input, rank, index } => {
                let axes = spec.inputs.shapes[usize::from(input)].axes();
                axes.iter().zip(&index[..usize::from(rank)]).any(|(axis, &at)| {
                    matches!(axis, Axis::Query | Axis::Key) && tree.node(at).op == Op::Var(Var::Q)
                })
            }
            _ => false,
        })
    };
    let by_expressions = spec.source == Source::SelfAttention
        && [spec.allow.tree(), spec.modify.tree()].into_iter().any(reads);
    positions_of_queries(spec).is_some() || by_expressions
}

fn check_positions(spec: &Spec, problem: &Problem<'_>) -> Result<(), Failure> {
    let Some(input) = positions_of_queries(spec) else { return Ok(()) };
    let distinct = if problem.packed.is_some() { problem.batch } else { problem.batch.min(1) };
    for sequence in (0..distinct).map(|i| problem.sequence(i)) {
        let (queries, keys) = (sequence.query_span(), sequence.keys);
        if sequence.queries > 0 && (queries.lo < 0 || i64::from(queries.hi) >= keys.into()) {
            let input = spec.inputs.names.get(usize::from(input)).cloned().unwrap_or_default();
            return Err(Failure::Positions { spec: spec.name.clone(), input, queries, keys });
        }
    }
    Ok(())
}

/// A call whose storage type is known.
struct Call<'a> {
    execution: &'a Execution<'a>,
    schedule: Schedule,
    captured: &'a [InputData<'a>],
    workspace: Workspace,
}

impl Call<'_> {
    fn run<T: Storage>(&mut self, bound: &Bound<'_>) -> Result<Outcome, Failure> {
        let Execution { kernel, pool, repeat } = *self.execution;
        let (q, kv) = operands::<T>(kernel, bound)?;
        let gate = bound.gate.as_ref().map(gate).transpose()?;
        let inputs = Inputs { gate, ..Inputs::of(q, kv).captured(self.captured) };
        timed(kernel, bound, repeat, |outputs, left| {
            let (schedule, workspace) = (&self.schedule, &mut self.workspace);
            match left {
                Left::Keys(u) => kernel.run_lookahead(schedule, pool, inputs, (outputs, u), workspace),
                Left::States(states) => {
                    kernel.run_recurrence(schedule, pool, inputs, (outputs, states), workspace)
                }
                Left::Nothing => kernel.run(schedule, pool, inputs, outputs, workspace),
            }
        })
    }
}

/// What a mechanism leaves behind its last token.
pub(crate) enum Left<'a> {
    /// Nothing.
    Nothing,
    /// Lookahead keys.
    Keys(ViewMut<'a, f32>),
    /// States, which are read first.
    States(States<'a>),
}

/// States of a problem in memory of their own.
struct OwnStates {
    state: Vec<f32>,
    norm: Option<Vec<f32>>,
    /// Shapes of both.
    shapes: [[usize; 4]; 2],
}

impl OwnStates {
    /// Those of a kernel, where its spec has some.
    fn new(kernel: &Kernel, bound: &Bound<'_>) -> Result<Option<Self>, Failure> {
        let variant = kernel.variant();
        let Mechanism::Recurrence(recurrence) = variant.mechanism else { return Ok(None) };
        let of = |rows, width| [bound.problem().batch, variant.heads.value, rows, width].map(|n| n as usize);
        let shapes = [of(variant.heads.dim, variant.heads.value_dim), of(1, variant.heads.dim)];
        let [state, norm] = shapes.map(|shape| memory::zeroed::<f32>("the states", elements(shape)));
        let norm = recurrence.normalize_eps.map(|_| norm).transpose()?;
        Ok(Some(Self { state: state?, norm, shapes }))
    }

    /// As they are before the first tokens.
    fn begin(&mut self, bound: &Bound<'_>) {
        let copy = |to: &mut [f32], from: Option<&Stored<'_>>| match from.map(|from| &from.elements) {
            Some(StoredElements::F32(from)) => to.copy_from_slice(from),
            _ => to.fill(0.0),
        };
        let start = bound.start.as_ref();
        copy(&mut self.state, start.map(|start| &start.state));
        if let Some(norm) = &mut self.norm {
            copy(norm, start.and_then(|start| start.norm.as_ref()));
        }
    }

    fn view(&mut self) -> Result<States<'_>, Failure> {
        let [state, norm] = self.shapes;
        Ok(States {
            state: view_mut(&mut self.state, state, Layout::Bhnd)?,
            norm: self.norm.as_deref_mut().map(|data| view_mut(data, norm, Layout::Bhnd)).transpose()?,
        })
    }

    fn stored(self) -> StoredStates<'static> {
        let stored = |elements: Vec<f32>, shape| Stored {
            elements: f32::store(elements),
            shape,
            strides: Layout::Bhnd.strides(shape),
        };
        let [state, norm] = self.shapes;
        StoredStates { state: stored(self.state, state), norm: self.norm.map(|data| stored(data, norm)) }
    }
}

/// Calls what writes the outputs of a problem: so often after a call that does not count, once where `repeat` is absent.
///
/// # Errors
/// If there is no memory for the outputs, and as `run`.
pub(crate) fn timed<T: Storage>(
    kernel: &Kernel,
    bound: &Bound<'_>,
    repeat: Option<u32>,
    mut run: impl FnMut(Outputs<'_, T>, Left<'_>) -> Result<(), RunError>,
) -> Result<Outcome, Failure> {
    let layout = bound.layout;
    let variant = kernel.variant();
    let o_shape = output_shape(&bound.problem(), variant.output_heads(), variant.heads.value_dim);
    let lse_shape = output_shape(&bound.problem(), variant.heads.query, 1);
    let mut o = memory::zeroed::<T>("the output", elements(o_shape))?;
    let mut lse = match variant.output.lse {
        true => Some(memory::zeroed::<f32>("the lse", elements(lse_shape))?),
        false => None,
    };
    let [batch, _, keys] = bound.problem().extents();
    let u_shape = [batch, variant.heads.query, keys, variant.heads.dim].map(|n| n as usize);
    let mut u = match variant.mechanism {
        Mechanism::Lookahead(_) => Some(memory::zeroed::<f32>("the lookahead keys", elements(u_shape))?),
        _ => None,
    };
    let mut states = OwnStates::new(kernel, bound)?;
    let warm_ups = usize::from(repeat.is_some());
    let n_runs = repeat.unwrap_or(1) as usize + warm_ups;
    let mut seconds = memory::reserved("the times", n_runs as u128)?;
    let progress = Progress::new("runs", n_runs as u64);
    for _ in 0..n_runs {
        let lse = lse.as_deref_mut().map(|lse| view_mut(lse, lse_shape, layout)).transpose()?;
        let outputs = Outputs { o: view_mut(&mut o, o_shape, layout)?, lse };
        let left = match (u.as_deref_mut(), &mut states) {
            (Some(u), _) => Left::Keys(view_mut(u, u_shape, layout)?),
            (None, Some(states)) => {
                states.begin(bound);
                Left::States(states.view()?)
            }
            (None, None) => Left::Nothing,
        };
        let start = Instant::now();
        run(outputs, left).map_err(|error| run_failure(kernel.spec(), error))?;
        seconds.push(start.elapsed().as_secs_f64());
        progress.advance();
    }
    let stored = |elements, shape| Stored { elements, shape, strides: layout.strides(shape) };
    let o = stored(T::store(o), o_shape);
    let lse = lse.map(|lse| stored(f32::store(lse), lse_shape));
    let u = u.map(|u| stored(f32::store(u), u_shape));
    let states = states.map(OwnStates::stored);
    Ok(Outcome { o, lse, u, states, seconds: seconds.split_off(warm_ups) })
}

/// `[batch, heads, queries, width]`.
fn output_shape(problem: &Problem<'_>, heads: u32, width: u32) -> [usize; 4] {
    let [batch, queries, _] = problem.extents();
    [batch, heads, queries, width].map(|n| n as usize)
}

fn elements(shape: [usize; 4]) -> u128 {
    shape.iter().fold(1, |product: u128, &n| product.saturating_mul(n as u128))
}

/// The operands of a problem, as kernels take them.
///
/// # Errors
/// As [`view`], or if they are those of no mechanism.
pub(crate) fn operands<'a, T: Storage>(
    kernel: &Kernel,
    bound: &'a Bound<'_>,
) -> Result<(QueryRows<'a, T>, KeyRows<'a, T>), Failure> {
    let of_keys = kernel.variant().operands().map(|operand| operand.rows == Rows::Keys);
    let (keys, queries): (Vec<_>, Vec<_>) = bound.operands.iter().zip(of_keys).partition(|(_, keys)| *keys);
    let stored = |of: Vec<(&'a Stored<'_>, bool)>| of.into_iter().map(|(stored, _)| view(stored));
    let (queries, keys) =
        (stored(queries).collect::<Result<Vec<_>, _>>()?, stored(keys).collect::<Result<Vec<_>, _>>()?);
    Ok((query_rows(kernel, &queries)?, key_rows(kernel, &keys)?))
}

/// What a kernel's queries, and its matrices, are in.
///
/// # Errors
/// If they are those of no mechanism.
pub(crate) fn query_rows<'a, T: Storage>(
    kernel: &Kernel,
    views: &[View<'a, T>],
) -> Result<QueryRows<'a, T>, Failure> {
    match (kernel.variant().mechanism, views) {
        (Mechanism::Latent(_), &[q_nope, q_rope, w_uk, w_uv]) => {
            Ok(QueryRows::Latent(LatentQueries { q_nope, q_rope, w_uk, w_uv }))
        }
        (Mechanism::Latent(_), _) => Err(of_no_mechanism(views.len())),
        (_, &[q]) => Ok(QueryRows::Plain(q)),
        _ => Err(of_no_mechanism(views.len())),
    }
}

/// What a kernel's keys are in.
///
/// # Errors
/// If they are those of no mechanism.
pub(crate) fn key_rows<'a, T: Storage>(
    kernel: &Kernel,
    views: &[View<'a, T>],
) -> Result<KeyRows<'a, T>, Failure> {
    match (kernel.variant().mechanism, views) {
        (Mechanism::Plain | Mechanism::Pseudo(_) | Mechanism::Recurrence(_), &[k, v]) => {
            Ok(KeyRows::Plain { k, v })
        }
        (Mechanism::Lookahead(_), &[k_c, v_c, q_u, k_u, v_u]) => {
            Ok(KeyRows::Lookahead(LookaheadKeys { k_c, v_c, q_u, k_u, v_u }))
        }
        (Mechanism::Latent(_), &[c_kv, k_rope]) => Ok(KeyRows::Latent { c_kv, k_rope }),
        _ => Err(of_no_mechanism(views.len())),
    }
}

fn of_no_mechanism(tensors: usize) -> Failure {
    Failure::Bug(format!("{tensors} tensors are of no mechanism"))
}

/// A view of stored elements, in their type.
///
/// # Errors
/// If they are of another type than `T`, or fewer than their shape says, which what is bound rules out.
pub(crate) fn view<'a, T: Storage>(stored: &'a Stored<'_>) -> Result<View<'a, T>, Failure> {
    let ([b, h, n, width], [sb, sh, sn, _]) = (stored.shape, stored.strides);
    let Some(elements) = T::of(&stored.elements) else {
        return Err(Failure::Bug("a tensor was bound in another storage type than the kernel's".to_owned()));
    };
    View::new(elements, [b, h, n], [sb, sh, sn], width).map_err(|error| Failure::Bug(error.to_string()))
}

/// A gate in the kernel's storage type or in f32.
///
/// # Errors
/// As [`view`].
pub(crate) fn gate<'a, T: Storage>(stored: &'a Stored<'_>) -> Result<Gate<'a, T>, Failure> {
    match T::of(&stored.elements) {
        Some(_) => Ok(Gate::Stored(view(stored)?)),
        None => Ok(Gate::Floats(view(stored)?)),
    }
}

/// A view of an output.
///
/// # Errors
/// If there are fewer elements than the shape says, which what is allocated rules out.
pub(crate) fn view_mut<T>(
    elements: &mut [T],
    shape: [usize; 4],
    layout: Layout,
) -> Result<ViewMut<'_, T>, Failure> {
    let ([b, h, n, width], [sb, sh, sn, _]) = (shape, layout.strides(shape));
    ViewMut::new(elements, [b, h, n], [sb, sh, sn], width).map_err(|error| Failure::Bug(error.to_string()))
}

#[cfg(test)]
mod tests {
    use regard_ir::rows::{Frequencies, Position, RopeLayout, RopeScaling};

    use super::*;

    #[test]
    fn queries_that_have_no_position_are_told() {
        let mut spec = regard::shipped("gqa").unwrap().spec;
        spec.inputs.names.push("pos".to_owned());
        let frequencies = Frequencies::Theta { theta: 1e4, scaling: RopeScaling::None };
        let position = Position { frequencies, dim: 128, layout: RopeLayout::Half, offset: 0, ids: Some(0) };
        let check = |spec: &Spec, queries, q_offset: Option<i64>| {
            let problem = Problem::prefill(spec.source, 2, queries, 3).unwrap();
            let problem = q_offset.map_or(problem, |offset| problem.with_q_offset(offset).unwrap());
            check_positions(spec, &problem).map_err(|error| error.to_string())
        };
        assert_eq!(check(&spec, 5, None), Ok(()));
        spec.position = Some(position);
        assert_eq!(check(&spec, 3, None), Ok(()));
        assert_eq!(check(&spec, 0, Some(-7)), Ok(()));
        let told = |queries| {
            Err(format!(
                "error: spec {}: `pos` has positions for the 3 keys, the queries are numbers {queries}: give as many keys, \
                 or another --q-offset",
                spec.name
            ))
        };
        assert_eq!(check(&spec, 5, None), told("-2 to 2"));
        assert_eq!(check(&spec, 2, Some(2)), told("2 to 3"));
        spec.source = Source::Cross;
        assert_eq!(check(&spec, 5, None), Ok(()));
    }
}
