//! Latents: keys and values compressed to one vector a token.
//!
//! There are two forms of one formula. *Expanded*, keys and values of each head are made of the latents, tile by tile, and attended
//! to as any others. *Absorbed*, queries are brought to the latents, all heads attend to these as to one head of keys whose first
//! channels are their values, and outputs are brought back. Many queries for each key are served by the former, few by the
//! latter: the plan has what each costs, and each sequence of a call takes the form that is cheaper for its own lengths.
//!
//! Either reads latents from pages, which a cache has; those of tensors are written to pages of the workspace first.

mod pages;
mod products;

use regard_engine::grid::Lots;
use regard_engine::isa::Door;
use regard_engine::threads::Threads;
use regard_engine::{Engine, Op};
use regard_ir::cache::{Codec, PageFormat, PageShape};
use regard_ir::inputs::{self, Captured, InputData};
use regard_ir::interval::{Region, Span, Unknown};
use regard_ir::plan::Plan;
use regard_ir::problem::{KeyRange, Packed, Problem, Sequence};
use regard_ir::tiles;
use regard_ir::variant::{Latent, LatentForm, Mechanism, Variant};

use self::pages::{Made, Places, Writing};
use self::products::{Matrix, absorb, bring_back, padded};
use crate::cache::Caches;
use crate::carve::{self, ALIGN, Carve, align};
use crate::code::{Code, Fault};
use crate::flash::expand::Expansion;
use crate::flash::part::{Of, RowsOf, STATS, finish_of};
use crate::flash::{
    self, KeysFrom, Outputs, Part, PartMut, Parts, RunError, Source, Target, Workspace, WorkspaceLen,
    core_len, covers, finish_len, run_from,
};
use crate::operands::{KeyRows, LatentQueries};
use crate::rows::Tensor;
use crate::split;
use crate::summary::Summaries;
use crate::view::View;

/// The smallest boxes of queries and keys that are told apart: of no plan's blocks, for each form has its own.
const FLOOR: u32 = 16;

/// Whether keys and values of a sequence are made of its latents; else its queries are brought to them. Lengths and mask decide
/// it, whatever captured tensors hold.
pub(crate) fn expands(variant: &Variant<'_>, plan: &Plan, problem: &Problem<'_>, sequence: u32) -> bool {
    let (Mechanism::Latent(latent), Some(of_plan)) = (&variant.mechanism, &plan.latent) else { return true };
    match latent.form {
        LatentForm::Expanded => return true,
        LatentForm::Absorbed => return false,
        LatentForm::Auto => {}
    }
    let of = problem.sequence(sequence);
    // Of all keys, whichever are held: a part takes the form of the whole.
    let of = Sequence { held: KeyRange { begin: 0, end: of.keys }, ..of };
    if of.queries == 0 || of.keys == 0 {
        return true;
    }
    let heads = latent.absorbed_heads(variant.heads.query);
    let region = of.region(sequence, &heads, 0);
    // At most 8 × 8 boxes are told apart, however long the sequence is.
    let side = (u64::from(of.queries) * u64::from(of.keys)).isqrt() / 8;
    let floor = (side as u32).max(FLOOR);
    let head = Region { h: Span::point(0), ..region };
    let pairs = tiles::live_area(variant.allow, &head, floor, &Unknown(variant.inputs)).live();
    of_plan.costs.expands(of.queries, of.keys, pairs)
}

/// Whether the queries of some sequence are brought to its latents, and whether keys and values of some are made.
fn forms(variant: &Variant<'_>, plan: &Plan, problem: &Problem<'_>) -> [bool; 2] {
    let mut forms = [false; 2];
    for sequence in (0..problem.batch).filter(|&i| problem.sequence(i).queries > 0) {
        forms[usize::from(expands(variant, plan, problem, sequence))] = true;
        if forms == [true; 2] {
            break;
        }
    }
    forms
}

/// What a call computes on; shapes fit variant and problem.
#[derive(Clone, Copy)]
pub(crate) struct Feed<'a> {
    pub queries: LatentQueries<'a>,
    pub captured: &'a [InputData<'a>],
    pub gate: Option<View<'a>>,
    pub kv: Keys<'a>,
}

/// Where latents are.
#[derive(Clone, Copy)]
#[allow(clippy::large_enum_variant)] // They are views, and nothing is allocated in a run.
pub(crate) enum Keys<'a> {
    /// In tensors.
    Given(KeyRows<'a>),
    /// In caches.
    Cached { caches: &'a dyn Caches, page: PageShape },
}

/// How much memory a run needs with `threads` workers.
pub(crate) fn workspace<E: Engine>(
    of: (&Variant<'_>, &Latent),
    plan: &Plan,
    code: &dyn Code<E::Lanes>,
    problem: &Problem<'_>,
    threads: usize,
) -> WorkspaceLen {
    Layout::new::<E>(of, plan, code, (problem, true), threads).len()
}

/// Sizes of what a run works in, in elements.
struct Layout {
    /// Pages of latents that are given in tensors.
    pages: usize,
    /// What they are written with.
    writing: usize,
    /// Queries that are brought to the latents.
    queries: usize,
    /// Their outputs, in channels of latents, and what is beside them.
    outputs: [usize; 2],
    /// The outputs of all queries, before they are finished, where some are brought back.
    part: [usize; 2],
    /// Products with matrices, or finishing, of all workers.
    products: usize,
    core: usize,
    spans: usize,
    /// Whether queries of some sequence are brought to latents, and whether keys of some are made.
    forms: [bool; 2],
}

impl Layout {
    fn new<E: Engine>(
        (variant, latent): (&Variant<'_>, &Latent),
        plan: &Plan,
        code: &dyn Code<E::Lanes>,
        (problem, given): (&Problem<'_>, bool),
        threads: usize,
    ) -> Self {
        let forms = forms(variant, plan, problem);
        let [absorbs, expands] = forms;
        let (absorbed, absorbed_plan) = (variant.absorbed(latent), absorbed_plan(plan));
        let expanded = variant.expanded(latent);
        let core = |there: bool, variant: &Variant<'_>, plan: &Plan, keys| match there {
            true => core_len::<E>(variant, plan, code, problem, keys, threads).floats,
            false => 0,
        };
        let rows_of_latents = KeysFrom::Rows(absorbed.heads.dim as usize);
        let of_absorbed = core(absorbs, &absorbed, &absorbed_plan, rows_of_latents);
        let of_expanded = core(expands, &expanded, plan, KeysFrom::Latents(latent));
        let rows = query_rows(variant, problem);
        let where_absorbed = |width: usize| if absorbs { rows.saturating_mul(width) } else { 0 };
        let places = Places { problem, shape: own_page(variant, plan) };
        let rank = latent.rank as usize;
        let products = products_len(rank, threads);
        Self {
            pages: if given { places.count().saturating_mul(places.shape.len()) } else { 0 },
            writing: if given { Writing::new(&absorbed, problem).len(threads) } else { 0 },
            queries: where_absorbed(absorbed.heads.dim as usize),
            outputs: [where_absorbed(rank), where_absorbed(STATS)],
            part: [where_absorbed(variant.heads.value_dim as usize), where_absorbed(STATS)],
            products: if absorbs { products.max(finish_len(&variant.heads, threads)) } else { 0 },
            core: of_absorbed.max(of_expanded),
            spans: Summaries::len(
                variant.masks(),
                inputs::lens(variant.inputs, &variant.heads, variant.source, problem),
            ),
            forms,
        }
    }

    fn pieces(&self) -> [usize; 9] {
        let &Self { pages, writing, queries, outputs: [sums, stats], part, products, core, .. } = self;
        [pages, writing, queries, sums, stats, part[0], part[1], products, core]
    }

    fn len(&self) -> WorkspaceLen {
        WorkspaceLen { floats: carve::len(self.pieces()).saturating_add(ALIGN), spans: self.spans }
    }
}

/// Rows of queries of all heads; saturates.
fn query_rows(variant: &Variant<'_>, problem: &Problem<'_>) -> usize {
    let [batch, queries, _] = problem.extents();
    let counts = [batch, variant.heads.query, queries];
    counts.into_iter().fold(1, |n: usize, count| n.saturating_mul(count as usize))
}

/// Pages of latents that are given in tensors: in their storage type, whatever a cache would keep.
fn own_page(variant: &Variant<'_>, plan: &Plan) -> PageShape {
    let codec = Codec::of(plan.dtype);
    PageFormat { tokens: plan.cache.tokens, k: codec, v: codec, mixed: false }.shape(variant)
}

/// The plan of the absorbed form.
pub(crate) fn absorbed_plan(plan: &Plan) -> Plan {
    Plan { prefill: plan.latent.map_or(plan.prefill, |latent| latent.absorbed), ..*plan }
}

/// Runs a variant with latents over one problem, or over some of its keys.
pub(crate) fn run<E: Engine>(
    engine: E,
    parts: Parts<'_>,
    code: &dyn Code<E::Lanes>,
    feed: Feed<'_>,
    target: Target<'_>,
    threads: &dyn Threads,
    memory: Workspace<'_>,
) -> Result<(), RunError> {
    let Parts { variant, plan, problem, schedule, absorbed: of_absorbed } = parts;
    let Mechanism::Latent(latent) = &variant.mechanism else { return Err(RunError::Schedule) };
    let lists = [(schedule.tasks, variant.heads.query), (of_absorbed.tasks, 1)];
    if !covers(&lists, problem) {
        return Err(RunError::Schedule);
    }
    let Feed { queries, captured: data, gate, kv } = feed;
    let given = matches!(kv, Keys::Given(_));
    let layout = Layout::new::<E>((variant, latent), plan, code, (problem, given), threads.count());
    let [absorbs, expands] = layout.forms;
    if absorbs == of_absorbed.tasks.is_empty() || expands == schedule.tasks.is_empty() {
        return Err(RunError::Schedule);
    }
    let found = WorkspaceLen { floats: memory.floats.len(), spans: memory.spans.len() };
    let needed = layout.len();
    if found.floats < needed.floats || found.spans < needed.spans {
        return Err(RunError::Workspace { needed, found });
    }
    let captured = Captured::bind(variant.inputs, data, &variant.heads, variant.source, problem)
        .map_err(RunError::Captured)?;
    let mut pieces = Carve::new(align(memory.floats), layout.pieces());
    let (pages, writing) = (pieces.next_as::<u32>(), pieces.next());
    let (q, sums, stats) = (pieces.next(), pieces.next(), pieces.next());
    let own_part = PartMut { sums: pieces.next(), stats: pieces.next() };
    let (products, core) = (pieces.next(), pieces.next());
    let spans = memory.spans;

    let (in_absorbed, in_expanded) = (variant.absorbed(latent), variant.expanded(latent));
    let fault = Fault::new();
    let places = Places { problem, shape: own_page(variant, plan) };
    if let Keys::Given(kv) = &kv {
        let writes = Writing::new(&in_absorbed, problem);
        let to = (places, &mut *pages);
        writes.write(engine, (&in_absorbed, &captured), kv, to, (threads, &fault), writing);
    }
    let made = Made { places, memory: pages };
    let (caches, page): (&dyn Caches, PageShape) = match kv {
        Keys::Given(_) => (&made, places.shape),
        Keys::Cached { caches, page } => (caches, page),
    };
    let LatentQueries { q_nope, q_rope, w_uk, w_uv } = queries;
    let expansion = Expansion { latent: *latent, w_uk, w_uv };
    let expand = |target: Target<'_>, gate, spans: &mut [Span], core: &mut [f32]| {
        let q = Tensor::Two([q_nope, q_rope]);
        let source = Source::Latents { caches, page, expansion };
        let feed = flash::Feed { q, captured: data, gate, source, lookahead: None };
        let parts = Parts { variant: &in_expanded, ..parts };
        run_from(engine, parts, code, feed, target, threads, Workspace { floats: core, spans })
    };
    let report = |fault: &Fault| fault.input().map_or(Ok(()), |input| Err(RunError::Index { input }));
    if !absorbs {
        // With no query at all there is neither form, nor anything to write.
        if expands {
            expand(target, gate, spans, core)?;
        }
        return report(&fault);
    }

    let (mut part, outputs) = match target {
        Target::Part(part) => (part, None),
        Target::Whole(outputs) => (own_part, Some(outputs)),
    };
    if expands {
        expand(Target::Part(PartMut { sums: part.sums, stats: part.stats }), None, spans, core)?;
    }
    let [batch, n_queries, _] = problem.extents().map(|n| n as usize);
    let counts = [batch, variant.heads.query as usize, n_queries];
    let width = in_absorbed.heads.dim as usize;
    let brought = Brought { q_nope, q_rope, w_uk, counts };
    brought.bring(engine, q, (threads, &mut *products));
    {
        let q: Tensor<'_> = Tensor::Made(View::contiguous(q, counts, width).map_err(|_| RunError::Schedule)?);
        let source = Source::Cached { caches, page };
        let feed = flash::Feed { q, captured: data, gate: None, source, lookahead: None };
        let plan = &absorbed_plan(plan);
        let parts =
            Parts { variant: &in_absorbed, plan, problem, schedule: of_absorbed, absorbed: of_absorbed };
        let target = Target::Part(PartMut { sums: &mut *sums, stats: &mut *stats });
        run_from(engine, parts, code, feed, target, threads, Workspace { floats: core, spans })?;
    }
    let is_absorbed = |batch: usize, query: usize| {
        let sequence = sequence_of(problem, batch, query);
        of_absorbed.tasks.binary_search_by_key(&sequence, |task| task.sequence).is_ok()
    };
    let rows = RowsOf::Part { part: Part { sums, stats }, query_heads: counts[1], queries: n_queries };
    let back = Back { rows, w_uv, counts, is_wanted: &is_absorbed };
    back.bring(engine, &mut part, (threads, &mut *products));
    report(&fault)?;
    let Some(outputs) = outputs else { return Ok(()) };
    let part = part.view();
    let rows = RowsOf::Part { part, query_heads: counts[1], queries: n_queries };
    let of = Of { rows, captured: &captured, weights: variant.weights };
    finish_of(engine, (variant, problem), of, gate, outputs, threads, products)
}

/// The sequence of a row of queries.
fn sequence_of(problem: &Problem<'_>, batch: usize, query: usize) -> u32 {
    match &problem.packed {
        None => batch as u32,
        Some(packed) => Packed::cu_q(packed).partition_point(|&start| start as usize <= query) as u32 - 1,
    }
}

/// Queries on their way to the latents.
pub(crate) struct Brought<'a> {
    pub q_nope: View<'a>,
    pub q_rope: View<'a>,
    pub w_uk: View<'a>,
    /// Sequences, heads and queries along their tensors.
    pub counts: [usize; 3],
}

impl Brought<'_> {
    /// Writes `[sequence][head][query]` rows of the latent's width and then the rotary part, not yet turned. `memory` is as long as
    /// [`products_len`] says.
    pub fn bring<E: Engine>(&self, engine: E, to: &mut [f32], (threads, memory): (&dyn Threads, &mut [f32])) {
        let [_, _, queries] = self.counts;
        let rank = self.w_uk.width();
        let stride = rank + self.q_rope.width();
        if queries == 0 {
            return;
        }
        let heads = Lots::new(to, queries * stride);
        let lots = Lots::new(memory, products_len(rank, 1));
        threads.run(&|_| {
            if let Some((_, memory)) = lots.take() {
                engine.enter(Bring { lanes: engine.lanes(), brought: self, heads: &heads, stride, memory });
            }
        });
    }
}

/// Elements that products with matrices of so many channels work in, with so many workers; saturates.
pub(crate) fn products_len(rank: usize, threads: usize) -> usize {
    threads.max(1).saturating_mul(padded(rank))
}

/// One worker's share of the heads whose queries are brought to the latents, inside the engine's instruction set.
struct Bring<'a, D> {
    lanes: D,
    brought: &'a Brought<'a>,
    heads: &'a Lots<'a, f32>,
    stride: usize,
    memory: &'a mut [f32],
}

impl<D: Door> Op for Bring<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, brought, heads, stride, memory } = self;
        let Brought { q_nope, q_rope, w_uk, counts: [_, n_heads, queries] } = *brought;
        while let Some((number, to)) = heads.take() {
            let [batch, head] = [number / n_heads, number % n_heads];
            let matrix = Matrix { rows: w_uk, head };
            absorb(lanes, matrix, q_nope, [batch, head], (&mut *to, stride), memory);
            for (query, to) in to.chunks_exact_mut(stride).enumerate().take(queries) {
                q_rope.row(batch, head, query).widen_into(lanes, &mut to[w_uk.width()..]);
            }
        }
    }
}

/// Outputs on their way back from the latents.
pub(crate) struct Back<'a> {
    /// Weighted sums of latents.
    pub rows: RowsOf<'a>,
    pub w_uv: View<'a>,
    /// Sequences, heads and queries along their tensors.
    pub counts: [usize; 3],
    /// Whether a row of queries, by sequence and query, is one of them; others stay as they are.
    pub is_wanted: &'a (dyn Fn(usize, usize) -> bool + Sync),
}

impl Back<'_> {
    /// Writes weighted sums of values, and what is beside them. `memory` is as long as [`products_len`] says.
    pub fn bring<E: Engine>(
        &self,
        engine: E,
        to: &mut PartMut<'_>,
        (threads, memory): (&dyn Threads, &mut [f32]),
    ) {
        let [batch, heads, queries] = self.counts;
        let value_dim = self.w_uv.counts()[2];
        if queries == 0 {
            return;
        }
        for (row, to) in
            to.stats.as_chunks_mut::<STATS>().0.iter_mut().enumerate().take(batch * heads * queries)
        {
            let [at, query] = [row / queries / heads, row % queries];
            if (self.is_wanted)(at, query) {
                *to = self.rows.row([at, row / queries % heads, query], 0).1;
            }
        }
        let heads = Lots::new(&mut *to.sums, queries * value_dim);
        let lots = Lots::new(memory, products_len(self.w_uv.width(), 1));
        threads.run(&|_| {
            if let Some((_, memory)) = lots.take() {
                engine.enter(BringBack { lanes: engine.lanes(), back: self, heads: &heads, memory });
            }
        });
    }
}

/// One worker's share of the heads whose outputs are brought back, inside the engine's instruction set.
struct BringBack<'a, D> {
    lanes: D,
    back: &'a Back<'a>,
    heads: &'a Lots<'a, f32>,
    memory: &'a mut [f32],
}

impl<D: Door> Op for BringBack<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, back, heads, memory } = self;
        let Back { rows, w_uv, counts: [_, n_heads, queries], is_wanted } = *back;
        let rank = w_uv.width();
        let row = &mut memory[..padded(rank)];
        while let Some((number, to)) = heads.take() {
            let [batch, head] = [number / n_heads, number % n_heads];
            let matrix = Matrix { rows: w_uv, head };
            for (query, to) in to.chunks_exact_mut(w_uv.counts()[2]).enumerate().take(queries) {
                if !is_wanted(batch, query) {
                    continue;
                }
                let (sums, _) = rows.row([batch, head, query], rank);
                row[..rank].copy_from_slice(sums);
                row[rank..].fill(0.0);
                bring_back(lanes, matrix, (&*row, query == 0), to);
            }
        }
    }
}

/// What a call on caches attends with; shapes fit variant and problem.
#[derive(Clone, Copy)]
pub(crate) struct Attended<'a> {
    pub queries: LatentQueries<'a>,
    pub captured: &'a [InputData<'a>],
    pub gate: Option<View<'a>>,
}

/// Sizes of what a call on caches works in beside the skeleton, in elements.
pub(crate) struct DecodeLayout {
    queries: usize,
    part: [usize; 2],
    products: usize,
}

impl DecodeLayout {
    pub fn new((variant, latent): (&Variant<'_>, &Latent), problem: &Problem<'_>, threads: usize) -> Self {
        let rows = query_rows(variant, problem);
        let products = products_len(latent.rank as usize, threads);
        Self {
            queries: rows.saturating_mul((latent.rank + latent.rope_dim) as usize),
            part: [variant.heads.value_dim as usize, STATS].map(|width| rows.saturating_mul(width)),
            products: products.max(finish_len(&variant.heads, threads)),
        }
    }

    fn pieces(&self) -> [usize; 4] {
        let &Self { queries, part: [sums, stats], products } = self;
        [queries, sums, stats, products]
    }

    /// Elements of all; saturates.
    pub fn len(&self) -> usize {
        carve::len(self.pieces()).saturating_add(ALIGN)
    }
}

/// Attends the queries of each sequence, brought to its latents, to those that are cached.
pub(crate) fn decode<E: Engine>(
    engine: E,
    parts: split::Parts<'_>,
    code: &dyn Code<E::Lanes>,
    feed: Attended<'_>,
    outputs: Outputs<'_>,
    threads: &dyn Threads,
    memory: Workspace<'_>,
) -> Result<(), RunError> {
    let split::Parts { variant, problem, .. } = parts;
    let Mechanism::Latent(latent) = &variant.mechanism else { return Err(RunError::Schedule) };
    let Attended { queries: LatentQueries { q_nope, q_rope, w_uk, w_uv }, captured: data, gate } = feed;
    let captured = Captured::bind(variant.inputs, data, &variant.heads, variant.source, problem)
        .map_err(RunError::Captured)?;
    let layout = DecodeLayout::new((variant, latent), problem, threads.count());
    let found = WorkspaceLen { floats: memory.floats.len(), spans: memory.spans.len() };
    if found.floats < layout.len() {
        let needed = WorkspaceLen { floats: layout.len(), spans: found.spans };
        return Err(RunError::Workspace { needed, found });
    }
    let mut pieces = Carve::new(align(memory.floats), layout.pieces());
    let q = pieces.next();
    let mut part = PartMut { sums: pieces.next(), stats: pieces.next() };
    let products = pieces.next();
    let [batch, n_queries, _] = problem.extents().map(|n| n as usize);
    let counts = [batch, variant.heads.query as usize, n_queries];
    Brought { q_nope, q_rope, w_uk, counts }.bring(engine, q, (threads, &mut *products));

    let absorbed = variant.absorbed(latent);
    let q = View::contiguous(q, counts, absorbed.heads.dim as usize).map_err(|_| RunError::Schedule)?;
    let inner = split::Feed { q: Tensor::Made(q), captured: data };
    let workspace = Workspace { floats: pieces.rest(), spans: memory.spans };
    let inner_parts = split::Parts { variant: &absorbed, ..parts };
    split::attend(engine, inner_parts, code, inner, threads, workspace, |Of { rows, .. }, _| {
        let back = Back { rows, w_uv, counts, is_wanted: &|_, _| true };
        back.bring(engine, &mut part, (threads, &mut *products));
        let part = part.view();
        let rows = RowsOf::Part { part, query_heads: counts[1], queries: n_queries };
        let of = Of { rows, captured: &captured, weights: variant.weights };
        finish_of(engine, (variant, problem), of, gate, outputs, threads, products)
    })
}
