//! One pass: a query block over the keys that it can see.

mod blocks;
mod edges;
pub(super) mod strip;
mod sums;
mod sweep;

use core::ops::Range;

use regard_engine::engine::GROUP;
use regard_engine::grid::{Claim, Shelf, Task, Visit};
use regard_engine::stairs::Stairs;
use regard_engine::{Engine, Step, pack};
use regard_ir::inputs::Captured;
use regard_ir::interval::{Liveness, Region, Span};
use regard_ir::problem::{KeyRange, Sequence};
use regard_ir::tiles;
use regard_ir::variant::Weights;

use self::blocks::{Packed, visit};
use self::sweep::{KeyBlock, Lesson};
use super::Parts;
use super::fold::{Learned, Steps, Sums, TileFold, Units};
use super::keys::Keys;
use super::lookahead::Learning;
use super::memory::{Layout, Memory};
use crate::called;
use crate::code::{Code, Fault, Keys as LaneKeys, Place};
use crate::finish::Finish;
use crate::lines;
use crate::mix::{Known, Mixed, MixedRows, Mixes, Sources, Which};
use crate::rows::{Change, Changed, Side, Tensor};
use crate::summary::Summaries;

/// What all workers read.
pub(super) struct Shared<'a, E: Engine> {
    pub engine: E,
    pub parts: Parts<'a>,
    pub code: &'a dyn Code<E::Lanes>,
    pub q: Tensor<'a>,
    pub captured: &'a Captured<'a>,
    pub ranges: &'a Summaries<'a>,
    pub fault: &'a Fault,
    pub layout: &'a Layout,
    /// How rows of q and of k change before they are packed.
    pub changes: [Option<Change<'a>>; 2],
    pub keys: Keys<'a>,
    /// How heads are mixed first, where they are.
    pub mixes: Option<Mixes<'a>>,
    /// Packed keys and values, where they are kept for all.
    pub shelf: Option<Shelf<'a>>,
    /// What keys learn, of variants whose keys do.
    pub learning: Option<Learning<'a, E>>,
    /// Whether sums are written as they are, to be merged with those of other keys.
    pub is_part: bool,
    /// What happens to output rows; nothing here where heads are mixed first.
    pub finish: Option<Finish<'a>>,
}

/// The queries of one pass: `queries` from `first_query` on, for each query head of key head `kv_head`.
#[derive(Clone, Copy)]
struct Block {
    sequence: u32,
    /// Its lengths, and where its rows lie.
    of: Sequence,
    kv_head: u32,
    first_query: u32,
    queries: u32,
}

/// One row tile of a pass.
#[derive(Clone, Copy)]
struct RowTile {
    /// Its first row.
    first: usize,
    /// Rows that exist; the lanes past them repeat the last.
    rows: usize,
    /// Lanes: whole vectors.
    width: usize,
}

/// A task: its queries, block by block.
#[inline(always)]
pub(super) fn task<E: Engine>(shared: &Shared<'_, E>, claim: &mut Claim<'_>, memory: &mut Memory<'_>) {
    let Task { sequence, kv_head, query_begin, query_end, .. } = claim.task();
    let visit = visit(shared, &claim.task());
    let step = shared.parts.plan.prefill.query_block;
    let of = shared.parts.problem.sequence(sequence);
    let mut own = memory.learning.take();
    let learning = shared.learning.as_ref().zip(shared.layout.learning.as_ref());
    let mut lesson = learning.zip(own.as_mut()).map(|((of, layout), own)| Lesson { of, layout, own });
    if let Some(lesson) = &mut lesson {
        let first = of.q_offset as u32;
        lesson.begin(claim, first + query_begin..first + query_end);
    }
    let mut first_query = query_begin;
    while first_query < query_end {
        let queries = step.min(query_end - first_query);
        let block = Block { sequence, of, kv_head, first_query, queries };
        Pass { shared, block, visit: visit.as_ref() }.run(claim, memory, &mut lesson);
        first_query += queries;
    }
    memory.learning = own;
}

struct Pass<'a, E: Engine> {
    shared: &'a Shared<'a, E>,
    block: Block,
    /// Its head's packed blocks, where they are kept for all.
    visit: Option<&'a Visit<'a>>,
}

impl<E: Engine> Pass<'_, E> {
    #[inline(always)]
    fn run(&self, claim: &mut Claim<'_>, memory: &mut Memory<'_>, lesson: &mut Option<Lesson<'_, '_, E>>) {
        self.prepare(memory);
        if let Some(lesson) = lesson {
            self.prepare_tokens(lesson, memory);
        }
        let KeyRange { begin, end } = self.block.of.held;
        let end = if lesson.is_some() { self.taught_to() } else { end };
        self.sweep(begin..end, claim, memory, lesson);
        self.write_rows(claim, memory);
    }

    /// The keys that the block's tokens teach, where keys learn, are those before this one.
    fn taught_to(&self) -> u32 {
        self.block.of.q_offset as u32 + self.block.first_query + self.block.queries
    }

    /// Takes the block over some keys, whose sums are those of a cell and of the cells before it then.
    #[inline(always)]
    fn sweep(
        &self,
        keys: Range<u32>,
        claim: &mut Claim<'_>,
        memory: &mut Memory<'_>,
        lesson: &mut Option<Lesson<'_, '_, E>>,
    ) {
        let Parts { variant, plan, .. } = self.shared.parts;
        let (blocks, ranges) = (&plan.prefill, self.shared.ranges);
        let region = self.region(0, self.rows());
        let teaches = lesson.as_ref().map(|lesson| lesson.of.allow);
        let seen = |keys| tiles::liveness(variant.allow, &Region { k: keys, ..region }, ranges);
        let taught = |keys| {
            teaches
                .map_or(Liveness::Dead, |allow| tiles::liveness(allow, &Region { k: keys, ..region }, ranges))
        };
        // Runs of keys are those of the mask; where keys learn, of what either mask leaves.
        let classify = |keys| match (seen(keys), teaches) {
            (Liveness::Dead, Some(_)) if taught(keys) == Liveness::Dead => Liveness::Dead,
            (_, Some(_)) => Liveness::Partial,
            (seen, None) => seen,
        };
        let mut cell = keys.start / blocks.key_cell;
        // Blocks lie on a grid of absolute positions, whichever keys are held.
        let cut = |(keys, liveness): (Range<u32>, Liveness)| {
            let first = move |number: u32| (number * blocks.key_block).clamp(keys.start, keys.end);
            let numbers = keys.start / blocks.key_block..keys.end.div_ceil(blocks.key_block);
            numbers.map(move |number| (first(number)..first(number + 1), liveness))
        };
        let mut coming = tiles::runs(keys, blocks.key_block, classify).flat_map(cut).peekable();
        while let Some((keys, liveness)) = coming.next() {
            if keys.start / blocks.key_cell != cell {
                cell = keys.start / blocks.key_cell;
                self.close_cells(memory);
            }
            let span = Span { lo: keys.start as i32, hi: keys.end as i32 - 1 };
            let seen = if teaches.is_some() { seen(span) } else { liveness };
            let then = coming.peek().map(|(keys, _)| keys.start);
            let block = KeyBlock {
                first: keys.start,
                count: keys.end - keys.start,
                seen,
                taught: taught(span),
                then,
            };
            self.key_block(block, claim, memory, lesson);
        }
    }

    fn rows(&self) -> usize {
        (self.shared.parts.variant.heads.group() * self.block.queries) as usize
    }

    /// The row tiles of the pass, the last one no wider than it must be.
    ///
    /// Loops over them are written out: a closure that works on lanes would be a function of its own, compiled
    /// without the door's instruction set wherever it is not inlined.
    fn tiles(&self) -> impl Iterator<Item = RowTile> + use<E> {
        let (tile, all) = (self.shared.layout.tile, self.rows());
        (0..all).step_by(tile.rows).map(move |first| {
            let rows = tile.rows.min(all - first);
            RowTile { first, rows, width: rows.next_multiple_of(tile.step) }
        })
    }

    /// The head in the group and the query of a row.
    fn place(&self, row: usize) -> (u32, u32) {
        let (row, queries) = (row as u32, self.block.queries);
        (row / queries, self.block.first_query + row % queries)
    }

    /// Where a query lies along the token axis of q and o.
    #[inline(always)]
    fn query_row(&self, query: u32) -> usize {
        self.block.of.first_query as usize + query as usize
    }

    /// What rows `first..first + count` cover, over all keys.
    fn region(&self, first: usize, count: usize) -> Region {
        let Parts { variant, .. } = self.shared.parts;
        let Block { sequence, of, kv_head, first_query, queries } = self.block;
        let ((first_head, first_row), (last_head, last_row)) =
            (self.place(first), self.place(first + count - 1));
        let (first_query, last_query) = if first_head == last_head {
            (first_row, last_row)
        } else {
            (first_query, first_query + queries - 1)
        };
        let all = of.region(sequence, &variant.heads, kv_head);
        let position = |query: u32| of.q_offset + query as i32;
        Region {
            h: Span { lo: all.h.lo + first_head as i32, hi: all.h.lo + last_head as i32 },
            q: Span { lo: position(first_query), hi: position(last_query) },
            ..all
        }
    }

    /// What packed queries are multiplied by, and what scores are then.
    #[inline(always)]
    fn units(&self) -> (f32, Units) {
        let Shared { parts, code, .. } = self.shared;
        let variant = parts.variant;
        let log2_e = core::f64::consts::LOG2_E;
        // In log2 units from the start, unless a modifier or an activation must see natural ones.
        let softmax = matches!(variant.weights, Weights::Softmax { .. });
        let natural = !softmax || code.modifies() || self.shared.learning.is_some();
        let unit = if natural { 1.0 } else { log2_e };
        if E::UNSCALED {
            let scale = variant.scale as f32;
            // A mask writes −inf before scores are in log2 units, so what makes them such must be positive.
            let (scale, log2) = if natural || scale <= 0.0 {
                (Some(scale), log2_e as f32)
            } else {
                (None, (variant.scale * log2_e) as f32)
            };
            return (1.0, Units { scale, log2, slack: E::SLACK });
        }
        let log2 = if natural { log2_e as f32 } else { 1.0 };
        ((variant.scale * unit) as f32, Units { scale: None, log2, slack: E::SLACK })
    }

    /// Packs the queries and clears the sums.
    #[inline(always)]
    fn prepare(&self, memory: &mut Memory<'_>) {
        let &Shared { engine, parts, q, layout, .. } = self.shared;
        let (factor, _) = self.units();
        let Parts { variant, .. } = parts;
        let Sequence { batch, q_offset, .. } = self.block.of;
        let group = variant.heads.group();
        let mut coming = self.tiles();
        self.ask_queries(coming.next());
        for tile in self.tiles() {
            self.ask_queries(coming.next());
            let RowTile { first, rows, width } = tile;
            let to = &mut memory.query[layout.queries(first)];
            let at = |i: usize| {
                let (head, query) = self.place(first + i);
                [batch as usize, (self.block.kv_head * group + head) as usize, self.query_row(query)]
            };
            let (counts, shape) = ([rows, width], &layout.shape);
            match (self.shared.changes[Side::Query as usize], q) {
                (change, Tensor::One(q)) if let Some(mixes) = self.shared.mixes => {
                    // Each query head has keys of its own, so that the rows of a pass are one head's.
                    let [batch, head, first] = at(0);
                    let sources = Sources::Given { rows: q, batch };
                    let mixed = Mixed { mixes, which: Which::Query, sources, head };
                    let known = Known { batch, first };
                    let change = change.map(|change| (change, known));
                    let rows = MixedRows::new(mixed, first, change, memory.kept[0]);
                    called::pack_queries(engine, shape, &rows, counts, factor, memory.rows, to);
                }
                (None, Tensor::One(q)) => {
                    let rows = pack::AsStored(|i| {
                        let [batch, head, query] = at(i);
                        q.row(batch, head, query)
                    });
                    called::pack_queries(engine, shape, &rows, counts, factor, memory.rows, to);
                }
                (change, tensor) => {
                    let rows = Changed { change, tensor, at };
                    called::pack_queries(engine, shape, &rows, counts, factor, memory.rows, to);
                }
            }
            for lane in 0..width {
                let (head, query) = self.place(first + lane.min(rows - 1));
                memory.positions[first + lane] = q_offset + query as i32;
                memory.heads[first + lane] = (self.block.kv_head * group + head) as i32;
            }
            memory.cell_reference[first..][..width].fill(f32::NEG_INFINITY);
            memory.cell_sum[first..][..width].fill(EMPTY);
            memory.total_reference[first..][..width].fill(f32::NEG_INFINITY);
            memory.total_sum[first..][..width].fill(EMPTY);
        }
    }

    /// Asks for the queries of a row tile, where they are rows of a tensor.
    #[inline(always)]
    fn ask_queries(&self, tile: Option<RowTile>) {
        let Shared { engine, q, mixes: None, parts, keys: Keys { asks: true, .. }, .. } = self.shared else {
            return;
        };
        let (Some(RowTile { first, rows, .. }), Some(q)) = (tile, q.one()) else { return };
        let (batch, head) = (self.block.of.batch, self.block.kv_head * parts.variant.heads.group());
        for row in first..first + rows {
            let (of_group, query) = self.place(row);
            let row = q.row(batch as usize, (head + of_group) as usize, self.query_row(query));
            lines::ask(engine.lanes(), row);
        }
    }

    /// Packs a key block and takes every row tile through it; where keys learn, the block's tokens teach them after that.
    #[inline(always)]
    fn key_block(
        &self,
        block: KeyBlock,
        claim: &mut Claim<'_>,
        memory: &mut Memory<'_>,
        lesson: &mut Option<Lesson<'_, '_, E>>,
    ) {
        let KeyBlock { first, count, seen, taught, then } = block;
        let is_taught = taught != Liveness::Dead;
        if let (Some(lesson), true) = (&mut *lesson, is_taught) {
            self.ask(lesson, block);
        }
        if seen != Liveness::Dead {
            let packed = self.packed_block(first, memory);
            if let Some(lesson) = lesson {
                self.pack_found(lesson, block, claim);
            }
            let allow = self.shared.parts.variant.allow;
            for tile in self.tiles() {
                if let Some(then) = then {
                    self.ask_block(then, tile, memory);
                }
                let Some((live, steps)) = self.live_steps(allow, tile, first, count, seen) else { continue };
                let stairs = self.stairs(allow, tile, first, &live, steps);
                let mut learned = None;
                if let Some(lesson) = lesson {
                    self.find(lesson, block, (tile, live.clone(), stairs), memory);
                    learned = Some(Learned { scores: lesson.own.scores, scale: self.scale() });
                }
                self.step(tile, first, (live, steps, stairs), (packed, learned), memory);
            }
        }
        if let (Some(lesson), true) = (lesson, is_taught) {
            self.teach(lesson, block, claim);
        }
    }

    /// One row tile against the live keys of one packed key block. Lookahead scores are those of the live keys.
    #[inline(always)]
    fn step(
        &self,
        tile: RowTile,
        first: u32,
        (live, steps, stairs): (Range<u32>, Steps, Option<Stairs>),
        (packed, learned): (Packed<'_>, Option<Learned<'_>>),
        memory: &mut Memory<'_>,
    ) {
        let Shared { engine, parts, code, captured, fault, layout, .. } = self.shared;
        let RowTile { first: row, width, .. } = tile;
        let step_keys = parts.plan.prefill.mask_step as usize;
        let place = Place {
            b: self.block.sequence as i32,
            g: self.block.kv_head as i32,
            heads: parts.variant.heads.query,
            nq: self.block.of.queries as i32,
            nk: self.block.of.keys as i32,
            q: &memory.positions[row..][..width],
            h: &memory.heads[row..][..width],
            first_key: (first + live.start) as i32,
            keys: LaneKeys::Rows,
            captured,
            fault,
        };
        let packed = match packed {
            Packed::Shared(packed) => packed,
            Packed::Own(at) => &memory.packed[at..],
        };
        let odd = |group: usize| E::odd_keys(&layout.shape, packed, group);
        let groups = live.start as usize / GROUP..(live.end as usize).div_ceil(GROUP);
        // Where the weights of odd keys are wanted, no more keys at a time than have theirs kept.
        let has_odd = groups.clone().any(|group| odd(group) != 0);
        let most = if has_odd { E::WEIGHTS_KEPT } else { usize::MAX };
        let output = &mut memory.cell_output[row * layout.value_width..][..width * layout.value_width];
        let stairs = stairs.filter(|_| !has_odd);
        let mut begin = live.start as usize;
        while begin < live.end as usize {
            let end = (live.end as usize).min((begin / most + 1).saturating_mul(most));
            let before = begin - live.start as usize;
            let steps = steps.after(before / step_keys);
            let place = Place { first_key: (first as usize + begin) as i32, ..place };
            let fresh = memory.cell_sum[row] == EMPTY;
            let (reference, total) =
                (&mut memory.cell_reference[row..][..width], &mut memory.cell_sum[row..][..width]);
            if fresh {
                total.fill(0.0);
            }
            let mut fold = TileFold {
                code: *code,
                weights: parts.variant.weights,
                place,
                steps,
                step_keys,
                width,
                units: self.units().1,
                learned: learned.map(|it| Learned { scores: &it.scores[before * width..], ..it }),
                fresh,
                sums: Sums { reference, total },
                factors: &mut memory.factors[..width],
                scratch: memory.code,
            };
            let step = Step {
                shape: &layout.shape,
                query: &memory.query[layout.queries(row)],
                packed,
                first_key: begin,
                live_keys: end - begin,
                scratch: memory.scratch,
                output,
                width,
                stairs,
            };
            called::step(*engine, step, &mut fold);
            if has_odd {
                for at in begin..end {
                    if odd(at / GROUP) >> (at % GROUP) & 1 == 0 {
                        continue;
                    }
                    let masked = (steps.partial | steps.dead) >> ((at - begin) / step_keys) & 1 != 0;
                    let mut weights = [0.0; MAX_TILE_ROWS];
                    let weights = &mut weights[..width];
                    E::weights(&layout.shape, memory.scratch, at - begin, weights);
                    let place = Place { first_key: (first as usize + at) as i32, ..place };
                    self.add_odd_value(&place, masked, weights, memory.code, output);
                }
            }
            begin = end;
        }
    }

    /// Adds what a value that is not finite does to the rows that may see its key: the product left it out.
    #[cold]
    fn add_odd_value(
        &self,
        place: &Place<'_>,
        masked: bool,
        weights: &[f32],
        scratch: &mut [i32],
        output: &mut [f32],
    ) {
        let Shared { engine, code, keys, .. } = self.shared;
        let (width, value_dim) = (weights.len(), self.shared.layout.shape.value_dim);
        let of = [self.block.sequence, self.block.kv_head];
        let mut allowed = [1i32; MAX_TILE_ROWS];
        if masked {
            code.allow(engine.lanes(), place, &mut allowed[..width], scratch);
        }
        for (channel, output) in output.chunks_exact_mut(width).take(value_dim).enumerate() {
            let value = keys.value(engine.lanes(), of, place.first_key as u32, channel);
            if !value.is_finite() {
                for ((o, &weight), &allowed) in output.iter_mut().zip(weights).zip(&allowed) {
                    if allowed != 0 {
                        *o += weight * value;
                    }
                }
            }
        }
    }
}

/// The most rows of a row tile: 3 vectors of 16 lanes.
const MAX_TILE_ROWS: usize = 48;

/// A sum of weights that no key has entered: sums are never negative.
const EMPTY: f32 = -1.0;
