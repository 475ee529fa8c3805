//! One kernel on one problem's tensors: scheduled, run, timed.

use std::time::Instant;

use regard::{
    Dtype, Inputs, Kernel, KeyRows, LatentQueries, LookaheadKeys, Outputs, Pool, QueryRows, RunError,
    ScheduleError, Spec, States, Threads, View, ViewMut, Workspace,
};
use regard_ir::expr::{Op, Tree, Var};
use regard_ir::operands::Rows;
use regard_ir::problem::Problem;
use regard_ir::variant::{Axis, Mechanism, Source};

use crate::failure::Failure;
use crate::memory;
use crate::progress::Progress;
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
        let Execution { kernel, pool, repeat } = *self;
        let problem = bound.problem();
        check_positions(kernel.spec(), &problem)?;
        let captured = bound.captured();
        let fail = |error| self.schedule_failure(error);
        let schedule = kernel.schedule(&problem, &captured, pool.count()).map_err(fail)?;
        let mut workspace = Workspace::default();
        workspace.try_grow(&schedule).map_err(|_| memory::OutOfMemory {
            what: "the workspace",
            bytes: schedule.workspace_bytes() as u128,
        })?;
        let (q, kv) = operands(kernel, bound)?;
        let gate = bound.gate.as_ref().map(Stored::rows).transpose()?;
        let inputs = Inputs { gate, ..Inputs::of(q, kv).captured(&captured) };
        let (schedule, workspace) = (&schedule, &mut workspace);
        timed(kernel, bound, repeat, |outputs, left| match left {
            Left::Keys(u) => kernel.run_lookahead(schedule, pool, inputs, (outputs, u), workspace),
            Left::States(states) => {
                kernel.run_recurrence(schedule, pool, inputs, (outputs, states), workspace)
            }
            Left::Nothing => kernel.run(schedule, pool, inputs, outputs, workspace),
        })
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

/// What a mechanism leaves behind its last token.
pub(crate) enum Left<'a> {
    /// Nothing.
    Nothing,
    /// Lookahead keys.
    Keys(ViewMut<'a>),
    /// States, which are read first.
    States(States<'a>),
}

impl StoredStates<'static> {
    /// Zeros for those of a kernel, where its spec has some.
    fn zeroed(kernel: &Kernel, bound: &Bound<'_>) -> Result<Option<Self>, Failure> {
        let variant = kernel.variant();
        let Mechanism::Recurrence(recurrence) = variant.mechanism else { return Ok(None) };
        let zeroed = |rows, width| {
            let shape = [bound.problem().batch, variant.heads.value, rows, width].map(|n| n as usize);
            Stored::zeroed("the states", Dtype::F32, shape, Layout::Bhnd)
        };
        let state = zeroed(variant.heads.dim, variant.heads.value_dim)?;
        let norm = recurrence.normalize_eps.map(|_| zeroed(1, variant.heads.dim)).transpose()?;
        Ok(Some(Self { state, norm }))
    }

    /// As they are before the first tokens.
    fn begin(&mut self, bound: &Bound<'_>) {
        let copy = |to: &mut Stored<'_>, from: Option<&Stored<'_>>| {
            let StoredElements::F32(to) = &mut to.elements else { return };
            match from.map(|from| &from.elements) {
                Some(StoredElements::F32(from)) => to.to_mut().copy_from_slice(from),
                _ => to.to_mut().fill(0.0),
            }
        };
        let start = bound.start.as_ref();
        copy(&mut self.state, start.map(|start| &start.state));
        if let Some(norm) = &mut self.norm {
            copy(norm, start.and_then(|start| start.norm.as_ref()));
        }
    }

    fn view(&mut self) -> Result<States<'_>, Failure> {
        let norm = self.norm.as_mut().map(Stored::rows_mut).transpose()?;
        Ok(States { state: self.state.rows_mut()?, norm })
    }
}

/// Calls what writes the outputs of a problem: so often after a call that does not count, once where `repeat` is absent.
///
/// # Errors
/// If there is no memory for the outputs, and as `run`.
pub(crate) fn timed(
    kernel: &Kernel,
    bound: &Bound<'_>,
    repeat: Option<u32>,
    mut run: impl FnMut(Outputs<'_>, Left<'_>) -> Result<(), RunError>,
) -> Result<Outcome, Failure> {
    let layout = bound.layout;
    let variant = kernel.variant();
    let o_shape = output_shape(&bound.problem(), variant.output_heads(), variant.heads.value_dim);
    let lse_shape = output_shape(&bound.problem(), variant.heads.query, 1);
    let mut o = Stored::zeroed("the output", kernel.plan().dtype, o_shape, layout)?;
    let floats = |what, shape| Stored::zeroed(what, Dtype::F32, shape, layout);
    let mut lse = variant.output.lse.then(|| floats("the lse", lse_shape)).transpose()?;
    let [batch, _, keys] = bound.problem().extents();
    let u_shape = [batch, variant.heads.query, keys, variant.heads.dim].map(|n| n as usize);
    let mut u = match variant.mechanism {
        Mechanism::Lookahead(_) => Some(floats("the lookahead keys", u_shape)?),
        _ => None,
    };
    let mut states = StoredStates::zeroed(kernel, bound)?;
    let warm_ups = usize::from(repeat.is_some());
    let n_runs = repeat.unwrap_or(1) as usize + warm_ups;
    let mut seconds = memory::reserved("the times", n_runs as u128)?;
    let progress = Progress::new("runs", n_runs as u64);
    for _ in 0..n_runs {
        let lse = lse.as_mut().map(Stored::rows_mut).transpose()?;
        let outputs = Outputs { o: o.rows_mut()?, lse };
        let left = match (u.as_mut(), &mut states) {
            (Some(u), _) => Left::Keys(u.rows_mut()?),
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
    Ok(Outcome { o, lse, u, states, seconds: seconds.split_off(warm_ups) })
}

/// `[batch, heads, queries, width]`.
fn output_shape(problem: &Problem<'_>, heads: u32, width: u32) -> [usize; 4] {
    let [batch, queries, _] = problem.extents();
    [batch, heads, queries, width].map(|n| n as usize)
}

/// The operands of a problem, as kernels take them.
///
/// # Errors
/// As [`Stored::rows`], or if they are those of no mechanism.
pub(crate) fn operands<'a>(
    kernel: &Kernel,
    bound: &'a Bound<'_>,
) -> Result<(QueryRows<'a>, KeyRows<'a>), Failure> {
    let of_keys = kernel.variant().operands().map(|operand| operand.rows == Rows::Keys);
    let (keys, queries): (Vec<_>, Vec<_>) = bound.operands.iter().zip(of_keys).partition(|(_, keys)| *keys);
    let stored = |of: Vec<(&'a Stored<'_>, bool)>| of.into_iter().map(|(stored, _)| stored.rows());
    let (queries, keys) =
        (stored(queries).collect::<Result<Vec<_>, _>>()?, stored(keys).collect::<Result<Vec<_>, _>>()?);
    Ok((query_rows(kernel, &queries)?, key_rows(kernel, &keys)?))
}

/// What a kernel's queries, and its matrices, are in.
///
/// # Errors
/// If they are those of no mechanism.
pub(crate) fn query_rows<'a>(kernel: &Kernel, views: &[View<'a>]) -> Result<QueryRows<'a>, Failure> {
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
pub(crate) fn key_rows<'a>(kernel: &Kernel, views: &[View<'a>]) -> Result<KeyRows<'a>, Failure> {
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
