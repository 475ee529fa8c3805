//! Parts: sums over some of the keys, merged with those of the others and finished once.
//!
//! A part keeps what a run has before it divides: the weighted sums of values, the sum of the weights, and the reference
//! that both are relative to, an integer in log2 units. Merging multiplies by powers of two and adds. A part
//! that ends where a key cell does, with those of the cells after it merged in one by one, gives the bits of a run over all
//! keys: sums over cells are added in that order there too. Not where queries are brought to latents: each part is brought back
//! by itself, and only near the whole.

use core::fmt;

use regard_engine::Engine;
use regard_engine::Op;
use regard_engine::grid::{Bands, Lots};
use regard_engine::isa::Door;
use regard_engine::threads::Threads;
use regard_ir::inputs::{Captured, InputData};
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::variant::{Heads, Sink, Variant, Weights};

use super::{Outputs, RunError, check_outputs};
use crate::carve::{ALIGN, align};
use crate::finish::{self, BAND, Finish, Mixing, Sums};
use crate::mix::Combination;
use crate::split::Cells;
use crate::sums::{log_sum, logit, sunk_inverse};
use crate::view::View;

/// Floats beside each row of sums: what its weights add up to, and their reference.
pub(crate) const STATS: usize = 2;

/// Sums over some of the keys, to be written.
#[derive(Debug)]
pub struct PartMut<'a> {
    /// Weighted sums of values, `[sequence][query head][query]` rows of `value_dim`.
    pub sums: &'a mut [f32],
    /// The sum of the weights of each row, and its reference: a power of two; −inf where no key was seen.
    pub stats: &'a mut [f32],
}

/// Sums over some of the keys.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// As [`PartMut::sums`].
    pub sums: &'a [f32],
    /// As [`PartMut::stats`].
    pub stats: &'a [f32],
}

/// How much memory a part takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartLen {
    /// Elements of [`Part::sums`].
    pub sums: usize,
    /// Elements of [`Part::stats`].
    pub stats: usize,
}

impl PartLen {
    /// Of a problem's parts, whichever keys they hold; saturates.
    pub fn new(heads: &Heads, problem: &Problem<'_>) -> Self {
        let [batch, queries, _] = problem.extents();
        let rows =
            [batch, heads.query, queries].into_iter().fold(1, |n: usize, len| n.saturating_mul(len as usize));
        Self { sums: rows.saturating_mul(heads.value_dim as usize), stats: rows.saturating_mul(STATS) }
    }
}

impl fmt::Display for PartLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sums and {} numbers beside them", self.sums, self.stats)
    }
}

impl PartMut<'_> {
    /// The same, to be read.
    pub const fn view(&self) -> Part<'_> {
        Part { sums: self.sums, stats: self.stats }
    }

    /// How long it is.
    pub const fn len(&self) -> PartLen {
        self.view().len()
    }

    /// Whether it has no rows.
    pub const fn is_empty(&self) -> bool {
        self.stats.is_empty()
    }
}

impl Part<'_> {
    /// How long it is.
    pub const fn len(&self) -> PartLen {
        PartLen { sums: self.sums.len(), stats: self.stats.len() }
    }

    /// Whether it has no rows.
    pub const fn is_empty(&self) -> bool {
        self.stats.is_empty()
    }
}

/// Adds `from`, a part over other keys of the same problem, to `into`. A part over no keys, or none that the mask allows,
/// changes no bit.
///
/// # Errors
/// If the parts are not equally long, or no parts.
pub fn merge(into: PartMut<'_>, from: Part<'_>) -> Result<(), RunError> {
    let rows = into.stats.len() / STATS;
    let width = into.sums.len().checked_div(rows).unwrap_or(0);
    let (needed, found) = (into.len(), from.len());
    if needed != found || width * rows != needed.sums || rows * STATS != needed.stats {
        return Err(RunError::Part { needed, found });
    }
    if width == 0 {
        return Ok(());
    }
    let stats = into.stats.as_chunks_mut::<STATS>().0.iter_mut().zip(from.stats.as_chunks::<STATS>().0);
    let sums = into.sums.chunks_exact_mut(width).zip(from.sums.chunks_exact(width));
    for ((to_stats, &from_stats), (to, from)) in stats.zip(sums) {
        add_row((to, to_stats), (from, from_stats));
    }
    Ok(())
}

/// Adds the sums of a row, and what is beside them, to those of the same row over the keys before.
#[inline(always)]
pub(crate) fn add_row(
    (to, to_stats): (&mut [f32], &mut [f32; STATS]),
    (from, from_stats): (&[f32], [f32; STATS]),
) {
    let ([total, reference], [other_total, other_reference]) = (to_stats, from_stats);
    // A sum that is NaN though no score was is no empty one: it spreads.
    let is_empty = |total: f32, reference: f32| reference == f32::NEG_INFINITY && total == 0.0;
    if is_empty(other_total, other_reference) {
        return;
    }
    if is_empty(*total, *reference) {
        (*total, *reference) = (other_total, other_reference);
        to.copy_from_slice(from);
        return;
    }
    let common = reference.max(other_reference);
    let (old, new) = (libm::exp2f(*reference - common), libm::exp2f(other_reference - common));
    (*total, *reference) = (*total * old + other_total * new, common);
    for (to, from) in to.iter_mut().zip(from) {
        *to = *to * old + from * new;
    }
}

/// What finishes parts: all that [`super::Inputs`] has beside q, k and v.
#[derive(Clone, Copy, Debug)]
pub struct Ending<'a> {
    /// Captured tensors: the declared ones in the order of their declaration, then those of learned tables.
    pub captured: &'a [InputData<'a>],
    /// The gate of the outputs, for variants that have one.
    pub gate: Option<View<'a>>,
}

/// Floats that [`finish`] works in with `threads` workers; no more than a run of the problem does.
pub fn finish_len(heads: &Heads, threads: usize) -> usize {
    let of_one = finish::len(heads.value_dim as usize);
    threads.max(1).saturating_mul(of_one).saturating_add(ALIGN)
}

/// Makes outputs of merged parts: divides by the sums, with the sink, mixes, norms and gates.
///
/// The same bits come out whatever the count of threads, and, of a single part over all keys, those of a whole run.
///
/// # Errors
/// As [`RunError`] lists. Outputs are untouched then.
pub fn finish<E: Engine>(
    engine: E,
    (variant, plan, problem): (&Variant<'_>, &Plan, &Problem<'_>),
    part: Part<'_>,
    ending: Ending<'_>,
    outputs: Outputs<'_>,
    threads: &dyn Threads,
    floats: &mut [f32],
) -> Result<(), RunError> {
    check_outputs((variant, plan.dtype), problem, ending.gate.as_ref(), &outputs)?;
    let heads = &variant.heads;
    let (needed, found) = (PartLen::new(heads, problem), part.len());
    if needed != found {
        return Err(RunError::Part { needed, found });
    }
    let floats_needed = finish_len(heads, threads.count());
    if floats.len() < floats_needed {
        let workspace = |floats| super::WorkspaceLen { floats, spans: 0 };
        return Err(RunError::Workspace { needed: workspace(floats_needed), found: workspace(floats.len()) });
    }
    let captured = Captured::bind(variant.inputs, ending.captured, heads, variant.source, problem)
        .map_err(RunError::Captured)?;
    let [_, queries, _] = problem.extents();
    let rows = RowsOf::Part { part, query_heads: heads.query as usize, queries: queries as usize };
    let of = Of { rows, captured: &captured, weights: variant.weights };
    finish_of(engine, (variant, problem), of, ending.gate, outputs, threads, floats)
}

/// Makes outputs of sums, whose shapes were checked; `floats` are as many as [`finish_len`] says.
pub(crate) fn finish_of<E: Engine>(
    engine: E,
    (variant, problem): (&Variant<'_>, &Problem<'_>),
    of: Of<'_>,
    gate: Option<View<'_>>,
    outputs: Outputs<'_>,
    threads: &dyn Threads,
    floats: &mut [f32],
) -> Result<(), RunError> {
    let heads = &variant.heads;
    let [_, queries, _] = problem.extents();
    let mixing = Mixing {
        combination: Combination::new(variant, of.captured).map_err(RunError::Captured)?,
        sums: Sums::Part(of),
        query_heads: heads.query as usize,
        queries: queries as usize,
        value_dim: heads.value_dim as usize,
        finish: Finish::new(variant, of.captured, gate),
    };
    let bands = Bands::new(outputs.o.0, BAND).map_err(RunError::Output)?;
    let lse = outputs.lse.map(|lse| Bands::new(lse.0, BAND)).transpose().map_err(RunError::Output)?;
    let lots = Lots::new(align(floats), finish::len(heads.value_dim as usize));
    threads.run(&|_| {
        if let Some((_, memory)) = lots.take() {
            engine.enter(Ends { lanes: engine.lanes(), mixing: &mixing, bands: &bands, memory });
        }
    });
    while let Some(mut band) = lse.as_ref().and_then(Bands::claim) {
        for head in 0..heads.query as usize {
            for query in band.queries() {
                let lse = of.lse([band.sequence, head, query]);
                band.row(head, query).write(engine.lanes(), &[lse]);
            }
        }
    }
    Ok(())
}

/// One worker's share of what is finished, inside the engine's instruction set.
struct Ends<'a, L> {
    lanes: L,
    mixing: &'a Mixing<'a>,
    bands: &'a Bands<'a>,
    memory: &'a mut [f32],
}

impl<L: Door> Op for Ends<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.mixing.run(self.lanes, self.bands, self.memory);
    }
}

/// Sums of rows, and what they are divided by.
#[derive(Clone, Copy)]
pub(crate) struct Of<'a> {
    pub rows: RowsOf<'a>,
    pub captured: &'a Captured<'a>,
    pub weights: Weights,
}

/// Where sums of rows lie.
#[derive(Clone, Copy)]
pub(crate) enum RowsOf<'a> {
    /// In a part of so many heads and queries.
    Part { part: Part<'a>, query_heads: usize, queries: usize },
    /// In the first slots of cells that were added up.
    Cells(Cells<'a>),
}

impl<'a> RowsOf<'a> {
    /// The sums of a row, `width` of them, and what is beside them.
    #[inline(always)]
    pub fn row(&self, [batch, head, query]: [usize; 3], width: usize) -> (&'a [f32], [f32; STATS]) {
        match *self {
            RowsOf::Part { part, query_heads, queries } => {
                let row = (batch * query_heads + head) * queries + query;
                let stats = &part.stats[row * STATS..];
                (&part.sums[row * width..][..width], [stats[0], stats[1]])
            }
            RowsOf::Cells(cells) => {
                let (row, stats) = cells.row([batch, head, query]);
                (&row[..width], stats)
            }
        }
    }
}

impl<'a> Of<'a> {
    /// The sums of a row, and what they are multiplied by.
    #[inline(always)]
    pub fn row(&self, at: [usize; 3], width: usize) -> (&'a [f32], f32) {
        let (sums, [total, reference]) = self.rows.row(at, width);
        let factor = match self.weights {
            Weights::Sigmoid | Weights::Relu => 1.0,
            _ if total == 0.0 => 0.0,
            Weights::Softmax { sink: Sink::None } => 1.0 / total,
            Weights::Softmax { sink } => {
                sunk_inverse(total, reference, logit(sink, at[1] as i32, self.captured))
            }
        };
        (sums, factor)
    }

    fn lse(&self, at: [usize; 3]) -> f32 {
        let (_, [total, reference]) = self.rows.row(at, 0);
        match self.weights {
            Weights::Softmax { sink } => log_sum(total, reference, logit(sink, at[1] as i32, self.captured)),
            Weights::Sigmoid | Weights::Relu => 0.0,
        }
    }
}
