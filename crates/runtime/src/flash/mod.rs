//! The flash skeleton: blocks of queries pass over blocks of keys, and no score outlives its block.
//!
//! A task is some queries of one sequence for one key head; it takes them in query blocks. All query heads that share
//! the key head are rows of one *pass*: the pass packs its queries once, then for each live key block packs keys and
//! values once and takes every row tile through scores, softmax and output while the block is in cache. Sums run in
//! cells of absolute key positions, each from zero, merged in order, so that no bit depends on how work was cut.
//!
//! Source: Dao et al., *FlashAttention*, with the loop order of its second version (queries outside, keys inside).

mod check;
mod error;
pub(crate) mod expand;
mod fold;
mod keys;
mod lookahead;
mod memory;
pub(crate) mod part;
mod pass;
mod places;
mod plain;

use regard_engine::grid::{Bands, Grid, Lots, Rows, RowsMut, Tasks};
use regard_engine::isa::Door;
use regard_engine::pack::MAX_DIM;
use regard_engine::threads::Threads;
use regard_engine::{Engine, Op};
use regard_ir::inputs::{self, Captured, InputData};
use regard_ir::interval::Span;
use regard_ir::plan::Plan;
use regard_ir::problem::{Packed, Problem};
use regard_ir::variant::{Mechanism, Variant};

use self::check::check;
pub(crate) use self::check::{check_caches, check_outputs, check_storage, check_tokens, covers, is_stored};
pub use self::error::RunError;
pub(crate) use self::keys::Source;
pub use self::lookahead::extend_lookahead;
pub(crate) use self::memory::KeysFrom;
pub use self::part::{Ending, Part, PartLen, PartMut, finish, finish_len, merge};
pub use self::plain::{PlainRows, plain_fold};

use crate::cache::{Caches, InPositions};
use crate::carve::align;
use crate::code::{Code, Fault};
use crate::finish::{BAND, Finish, Mixing, Sums};
use crate::latent;
use crate::mix::{Combination, Mixes};
use crate::operands::{self, KeyRows, LookaheadKeys, QueryRows};
use crate::recurrent::{self, CachedStates};
use crate::rows::{Change, Side, Tensor, turns};
use crate::schedule::Schedule;
use crate::sight::Sight;
use crate::split::Queries;
use crate::summary::Summaries;
use crate::tokens;
use crate::view::{View, ViewMut, contiguous_strides};

/// What a run reads.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Queries.
    pub q: QueryRows<'a>,
    /// Keys and values.
    pub kv: KeyRows<'a>,
    /// Captured tensors: the declared ones in the order of their declaration, then those of learned tables.
    pub captured: &'a [InputData<'a>],
    /// The gate of the outputs, for variants that have one: `[sequence][output head][query]` rows of `value_dim`, or of 1 where it
    /// is per head, stored as q is or in f32.
    pub gate: Option<View<'a>>,
}

impl<'a> Inputs<'a> {
    /// Inputs of a variant that captures nothing and has no gate.
    pub const fn new(q: View<'a>, k: View<'a>, v: View<'a>) -> Self {
        Self::of(QueryRows::Plain(q), KeyRows::Plain { k, v })
    }

    /// Inputs of any mechanism, of a variant that captures nothing and has no gate.
    pub const fn of(q: QueryRows<'a>, kv: KeyRows<'a>) -> Self {
        Self { q, kv, captured: &[], gate: None }
    }

    /// With captured tensors: the declared ones in the order of their declaration, then those of learned tables.
    pub fn captured(self, captured: &'a [InputData<'a>]) -> Self {
        Self { captured, ..self }
    }

    /// With the gate of the outputs.
    pub fn gate(self, gate: View<'a>) -> Self {
        Self { gate: Some(gate), ..self }
    }
}

/// What a run writes.
#[derive(Debug)]
pub struct Outputs<'a> {
    /// Outputs, `[sequence][query head][query]` rows of `value_dim`.
    pub o: ViewMut<'a>,
    /// Logs of the weights' sums, natural, `[sequence][query head][query]` rows of 1; for variants that have it, and
    /// only where the caller wants it.
    pub lse: Option<ViewMut<'a>>,
}

/// The rows of logs of sums, which are floats.
fn logs(lse: Option<ViewMut<'_>>) -> Result<Option<RowsMut<'_, f32>>, RunError> {
    lse.map(|lse| lse.floats("lse")).transpose()
}

/// Where a run's results go.
#[derive(Debug)]
pub enum Target<'a> {
    /// Outputs, of a problem with all its keys.
    Whole(Outputs<'a>),
    /// Sums to be merged with those of other keys. No sink, mix, norm or gate has a part in them.
    Part(PartMut<'a>),
}

impl<'a> From<Outputs<'a>> for Target<'a> {
    fn from(outputs: Outputs<'a>) -> Self {
        Target::Whole(outputs)
    }
}

/// What a kernel is made of, beside its engine and its code.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The variant.
    pub variant: &'a Variant<'a>,
    /// Block sizes, and what operands are made of.
    pub plan: &'a Plan,
    /// Sizes of this call.
    pub problem: &'a Problem<'a>,
    /// Its tasks.
    pub schedule: Schedule<'a>,
    /// Of latents, the tasks of the sequences whose queries are brought to them; [`Parts::schedule`] has the others.
    pub absorbed: Schedule<'a>,
}

/// Memory that a run works in; [`workspace`] says how much.
#[derive(Debug)]
pub struct Workspace<'a> {
    /// What the workers compute in.
    pub floats: &'a mut [f32],
    /// Summaries of captured tensors that the mask reads.
    pub spans: &'a mut [Span],
}

/// How much memory a run works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkspaceLen {
    /// Elements of [`Workspace::floats`].
    pub floats: usize,
    /// Elements of [`Workspace::spans`].
    pub spans: usize,
}

impl WorkspaceLen {
    /// The same in bytes; saturates.
    pub const fn bytes(&self) -> usize {
        let floats = self.floats.saturating_mul(size_of::<f32>());
        floats.saturating_add(self.spans.saturating_mul(size_of::<Span>()))
    }
}

/// How much memory a run of `problem` needs with `threads` workers.
pub fn workspace<E: Engine>(
    _: E,
    variant: &Variant<'_>,
    plan: &Plan,
    code: &dyn Code<E::Lanes>,
    problem: &Problem<'_>,
    threads: usize,
) -> WorkspaceLen {
    if let Mechanism::Recurrence(recurrence) = &variant.mechanism {
        return recurrent::workspace_len::<E>((variant, recurrence), plan, code, problem, threads);
    }
    if let Mechanism::Latent(latent) = &variant.mechanism {
        return latent::workspace::<E>((variant, latent), plan, code, problem, threads);
    }
    core_len::<E>(&variant.scored(), plan, code, problem, KeysFrom::Tensors, threads)
}

/// As [`workspace`], of what the skeleton itself works in.
pub(crate) fn core_len<E: Engine>(
    variant: &Variant<'_>,
    plan: &Plan,
    code: &dyn Code<E::Lanes>,
    problem: &Problem<'_>,
    keys: KeysFrom<'_>,
    threads: usize,
) -> WorkspaceLen {
    let layout = memory::Layout::new::<E>(variant, problem, plan, code, keys);
    let lens = inputs::lens(variant.inputs, &variant.heads, variant.source, problem);
    WorkspaceLen { floats: layout.workspace_len(threads), spans: Summaries::len(variant.masks(), lens) }
}

/// Runs a variant over one problem, or over some of its keys.
///
/// `memory` is as large as [`workspace`] says for the count of `threads`. Nothing is allocated and no lock is taken. The
/// same bits come out whatever the count of threads.
///
/// # Errors
/// As [`RunError`] lists. After [`RunError::Index`] outputs are written but mean nothing; before any other error they
/// are untouched.
pub fn run<E: Engine>(
    engine: E,
    parts: Parts<'_>,
    code: &dyn Code<E::Lanes>,
    inputs: Inputs<'_>,
    target: Target<'_>,
    threads: &dyn Threads,
    memory: Workspace<'_>,
) -> Result<(), RunError> {
    check_storage::<E>(parts.plan.dtype)?;
    let Inputs { q, kv, captured, gate } = inputs;
    operands::check((parts.variant, parts.plan.dtype), parts.problem, Some(&q), Some(&kv))?;
    if let Mechanism::Recurrence(recurrence) = parts.variant.mechanism {
        // Known when this is compiled, so that loops that no plan asks for are left out.
        if const { E::STATES.is_empty() } || !E::STATES.contains(&parts.plan.dtype) {
            return Err(RunError::Mechanism);
        }
        let Target::Whole(outputs) = target else { return Err(RunError::Mechanism) };
        let (of, results) = ((parts, &recurrence), (outputs, None));
        return recurrent::run(engine, of, code, inputs, results, threads, memory);
    }
    match (q, kv) {
        (QueryRows::Plain(q), KeyRows::Plain { k, v }) => {
            let source = Source::Given { k, v };
            let feed = Feed { q: Tensor::One(q), captured, gate, source, lookahead: None };
            run_plain(engine, parts, code, feed, target, threads, memory)
        }
        (QueryRows::Latent(queries), kv) => {
            let feed = latent::Feed { queries, captured, gate, kv: latent::Keys::Given(kv) };
            latent::run(engine, parts, code, feed, target, threads, memory)
        }
        // They are an output too, for which there is no place here.
        (QueryRows::Plain(_), KeyRows::Lookahead(_)) => Err(RunError::Mechanism),
        (QueryRows::Plain(_), KeyRows::Latent { .. }) => Err(RunError::Schedule),
    }
}

/// As [`run`], of a variant with lookahead keys, which are written to `u` as they are after the last token:
/// `[sequence][head][token]` rows of `dim`. Every task of its schedule is a whole head.
///
/// # Errors
/// As `run`, and if there is not a query for each key, from the first position on.
pub fn run_lookahead<E: Engine>(
    engine: E,
    parts: Parts<'_>,
    code: &dyn Code<E::Lanes>,
    inputs: Inputs<'_>,
    (outputs, u): (Outputs<'_>, ViewMut<'_>),
    threads: &dyn Threads,
    memory: Workspace<'_>,
) -> Result<(), RunError> {
    check_storage::<E>(parts.plan.dtype)?;
    let Inputs { q, kv, captured, gate } = inputs;
    operands::check((parts.variant, parts.plan.dtype), parts.problem, Some(&q), Some(&kv))?;
    let (QueryRows::Plain(q), KeyRows::Lookahead(LookaheadKeys { k_c, v_c, q_u, k_u, v_u })) = (q, kv) else {
        return Err(RunError::Mechanism);
    };
    lookahead::check(&parts, &u, 0)?;
    let lookahead = Some((lookahead::Given { q_u: Some(q_u), k_u, v_u }, u));
    let feed =
        Feed { q: Tensor::One(q), captured, gate, source: Source::Given { k: k_c, v: v_c }, lookahead };
    run_plain(engine, parts, code, feed, outputs.into(), threads, memory)
}

/// As [`run`], of a recurrence, whose states are given, and given back as the last tokens have left them.
///
/// # Errors
/// As `run`.
pub fn run_recurrence<E: Engine>(
    engine: E,
    parts: Parts<'_>,
    code: &dyn Code<E::Lanes>,
    inputs: Inputs<'_>,
    (outputs, states): (Outputs<'_>, CachedStates<'_>),
    threads: &dyn Threads,
    memory: Workspace<'_>,
) -> Result<(), RunError> {
    check_storage::<E>(parts.plan.dtype)?;
    if const { E::STATES.is_empty() } || !E::STATES.contains(&parts.plan.dtype) {
        return Err(RunError::Mechanism);
    }
    operands::check((parts.variant, parts.plan.dtype), parts.problem, Some(&inputs.q), Some(&inputs.kv))?;
    let Mechanism::Recurrence(recurrence) = parts.variant.mechanism else { return Err(RunError::Mechanism) };
    let (of, results) = ((parts, &recurrence), (outputs, Some(states)));
    recurrent::run(engine, of, code, inputs, results, threads, memory)
}

/// As [`run`], over cached keys and values: the problem's keys are those of the caches, one for each sequence.
///
/// # Errors
/// As `run`, and if a cache does not fit its sequence, or has written over keys that a query sees.
pub fn run_cached<E: Engine>(
    engine: E,
    parts: Parts<'_>,
    code: &dyn Code<E::Lanes>,
    (caches, queries): (&dyn Caches, Queries<'_>),
    outputs: Outputs<'_>,
    threads: &dyn Threads,
    memory: Workspace<'_>,
) -> Result<(), RunError> {
    check_storage::<E>(parts.plan.dtype)?;
    let Queries { q, captured, gate } = queries;
    if let Mechanism::Lookahead(_) | Mechanism::Recurrence(_) = parts.variant.mechanism {
        // Keys learn from queries' tokens, which are not given here, and a state is no cache of keys.
        return Err(RunError::Mechanism);
    }
    operands::check((parts.variant, parts.plan.dtype), parts.problem, Some(&q), None)?;
    let page = parts.plan.cache.shape(parts.variant);
    check_caches(caches, &parts.plan.cache, (parts.variant, parts.problem))?;
    let per_token = parts.plan.cache.rows_of_token(parts.variant);
    let caches: &dyn Caches = &InPositions { caches, per_token };
    let target = outputs.into();
    match q {
        QueryRows::Plain(q) => {
            let source = Source::Cached { caches, page };
            let feed = Feed { q: Tensor::One(q), captured, gate, source, lookahead: None };
            run_plain(engine, parts, code, feed, target, threads, memory)
        }
        QueryRows::Latent(queries) => {
            let feed = latent::Feed { queries, captured, gate, kv: latent::Keys::Cached { caches, page } };
            latent::run(engine, parts, code, feed, target, threads, memory)
        }
    }
}

/// A variant of the plain mechanism, whose operands fit.
fn run_plain<E: Engine>(
    engine: E,
    parts: Parts<'_>,
    code: &dyn Code<E::Lanes>,
    feed: Feed<'_>,
    target: Target<'_>,
    threads: &dyn Threads,
    memory: Workspace<'_>,
) -> Result<(), RunError> {
    let tasks = parts.schedule.tasks;
    if !covers(&[(tasks, parts.variant.scored().heads.kv)], parts.problem) {
        return Err(RunError::Schedule);
    }
    run_from(engine, parts, code, feed, target, threads, memory)
}

/// What a run reads, wherever its keys and values come from; shapes fit variant and problem.
pub(crate) struct Feed<'a> {
    pub q: Tensor<'a>,
    pub captured: &'a [InputData<'a>],
    pub gate: Option<View<'a>>,
    pub source: Source<'a>,
    /// What lookahead keys learn from, and where these are kept.
    pub lookahead: Option<(lookahead::Given<'a>, ViewMut<'a>)>,
}

/// Runs the tasks of a schedule that does not overlap itself.
pub(crate) fn run_from<E: Engine>(
    engine: E,
    parts: Parts<'_>,
    code: &dyn Code<E::Lanes>,
    feed: Feed<'_>,
    target: Target<'_>,
    threads: &dyn Threads,
    memory: Workspace<'_>,
) -> Result<(), RunError> {
    let Feed { q, captured: data, gate, source, lookahead } = feed;
    check::<E>(&parts, gate.as_ref(), &target)?;
    let given = parts.variant;
    let parts = Parts { variant: &given.scored(), ..parts };
    let Parts { variant, plan, problem, schedule, .. } = parts;
    let heads = &variant.heads;
    let captured =
        Captured::bind(variant.inputs, data, heads, variant.source, problem).map_err(RunError::Captured)?;
    let mixes = Mixes::new(given, &captured).map_err(RunError::Captured)?;
    let is_mixed = matches!(source, Source::Cached { .. }) && plan.cache.mixed;
    let keys_mixes = mixes.filter(|_| !is_mixed);
    let combination = Combination::new(given, &captured).map_err(RunError::Captured)?;
    let keys_from = match &source {
        // Keys are turned and normed as they are read, wherever they come from.
        _ if keys_mixes.is_some() => KeysFrom::Tensors,
        Source::Latents { expansion, .. } => KeysFrom::Latents(&expansion.latent),
        Source::Cached { page, .. } if page.shared => KeysFrom::Rows(page.keys.channels),
        Source::Cached { .. } => KeysFrom::Pages,
        Source::Given { .. } => KeysFrom::Tensors,
    };
    let layout = memory::Layout::new::<E>(variant, problem, plan, code, keys_from);
    if let Some(width) = layout.learning.as_ref().map(|it| it.width()).filter(|&width| width > MAX_DIM) {
        return Err(RunError::TooWide { width, most: MAX_DIM });
    }
    let needed = WorkspaceLen {
        floats: layout.workspace_len(threads.count()),
        spans: Summaries::len(variant.masks(), captured.lens()),
    };
    let found = WorkspaceLen { floats: memory.floats.len(), spans: memory.spans.len() };
    if found.floats < needed.floats || found.spans < needed.spans {
        return Err(RunError::Workspace { needed, found });
    }
    let ranges = Summaries::build(variant.masks(), captured, &mut memory.spans[..needed.spans]);
    if let Source::Cached { caches, page } | Source::Latents { caches, page, .. } = source {
        Sight { variant, problem, ranges: &ranges }
            .check_lost(caches, (page.tokens as u32, if is_mixed { 1 } else { given.per_token() }))?;
    }
    let memory::Common { frequencies, table, packed, marks, sums, strips: cells, workers } =
        layout.share(align(memory.floats), threads.count());

    let finish = Finish::new(variant, &captured, gate);
    let [batch, queries, _] = problem.extents();
    let counts = [batch, heads.query, queries].map(|n| n as usize);
    let floats = |data, width| RowsMut { data, counts, strides: contiguous_strides(counts, width), width };
    let value_dim = heads.value_dim as usize;
    let is_part = matches!(target, Target::Part(_));
    let (rows, stats, mut mixing) = match (target, combination) {
        (Target::Part(PartMut { sums, stats }), _) => {
            (Rows::F32(floats(sums, value_dim)), Some(floats(stats, part::STATS)), None)
        }
        (Target::Whole(Outputs { o, lse }), None) => (o.0, logs(lse)?, None),
        (Target::Whole(Outputs { o, lse }), Some(_)) => {
            let bands = Bands::new(o.0, BAND).map_err(RunError::Output)?;
            (Rows::F32(floats(&mut *sums, value_dim)), logs(lse)?, Some(bands))
        }
    };
    let group = heads.group() as usize;
    let starts = problem.packed.as_ref().map(Packed::cu_q);
    let tasks = Tasks { tasks: schedule.tasks, order: schedule.order, group, starts };
    let mut grid = Grid::new(tasks, rows, stats).map_err(RunError::Output)?;
    let mut learned_by = None;
    if let Some((given, u)) = lookahead {
        grid = grid.keeping(u.floats("u")?).map_err(RunError::Output)?;
        learned_by = Some(given);
    }

    let fault = Fault::new();
    let k = match source {
        Source::Given { k, .. } => Some(k),
        Source::Cached { .. } | Source::Latents { .. } => None,
    };
    if let Some(position) = &variant.position {
        tokens::frequencies(position, &captured, frequencies);
    }
    let fill = tokens::Fill {
        layout: layout.tokens,
        variant,
        problem,
        rows: tokens::Rows { q: q.one(), k },
        captured: &captured,
        fault: &fault,
        frequencies,
    };
    let tokens = tokens::fill(engine, fill, table, threads);
    let change = |side| Change::new(variant, side, &captured, tokens).filter(|_| turns(variant, side));
    let changes = [change(Side::Query), change(Side::Key)];
    let change = changes[Side::Key as usize];
    let asks = keys::asks(heads, problem, plan.dtype);
    let keys = keys::Keys { variant, problem, source, change, mixes: keys_mixes, asks };
    let learning = learned_by
        .map(|given| lookahead::Learning::new(variant, code, given, &keys.source, &captured, tokens))
        .transpose()?;
    let shared = pass::Shared {
        engine,
        parts,
        code,
        q,
        captured: &captured,
        ranges: &ranges,
        fault: &fault,
        layout: &layout,
        changes,
        keys,
        mixes,
        shelf: layout.places.shelf(threads.count(), packed, marks),
        learning,
        is_part,
        finish: finish.filter(|_| mixing.is_none() && !is_part),
    };
    if let Some(strips) = layout.strips.filter(|strips| strips.serve(threads.count())) {
        pass::strip::run(&shared, &strips, &mut grid, threads, (cells, workers));
    } else {
        let lots = Lots::new(&mut *workers, layout.worker_len());
        threads.run(&|_| {
            // More calls than lots mean a `Threads` that calls more often than it counts: the others do the work.
            if let Some((_, memory)) = lots.take() {
                engine.enter(Attend { shared: &shared, grid: &grid, memory });
            }
        });
    }
    if let Some(bands) = mixing.take() {
        let mixing = Mixing {
            combination,
            sums: Sums::Whole(sums),
            query_heads: heads.query as usize,
            queries: queries as usize,
            value_dim,
            finish,
        };
        let lots = Lots::new(workers, layout.worker_len());
        threads.run(&|_| {
            if let Some((_, memory)) = lots.take() {
                engine.enter(Finishing {
                    lanes: engine.lanes(),
                    mixing: &mixing,
                    bands: &bands,
                    layout: &layout,
                    memory,
                });
            }
        });
    }
    fault.input().map_or(Ok(()), |input| Err(RunError::Index { input }))
}

/// One worker's share of the passes.
struct Attend<'a, E: Engine> {
    shared: &'a pass::Shared<'a, E>,
    grid: &'a Grid<'a>,
    memory: &'a mut [f32],
}

impl<E: Engine> Op for Attend<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut memory = self.shared.layout.carve(self.memory);
        while let Some(mut claim) = self.grid.claim() {
            pass::task(self.shared, &mut claim, &mut memory);
        }
    }
}

/// One worker's share of the mixing of heads.
struct Finishing<'a, L> {
    lanes: L,
    mixing: &'a Mixing<'a>,
    bands: &'a Bands<'a>,
    layout: &'a memory::Layout,
    memory: &'a mut [f32],
}

impl<L: Door> Op for Finishing<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.mixing.run(self.lanes, self.bands, self.layout.carve(self.memory).finish);
    }
}
