//! One cell: the queries of a key head over a run of its cached keys.

use core::ops::Range;

use regard_engine::Op;
use regard_engine::cached::{self, Ahead, Before, Columns, LANES, Target, Weights, Words};
use regard_engine::grid::LotRuns;
use regard_engine::isa::Door;
use regard_engine::pack::Rows;
use regard_ir::cache::{Block, Codec, PageShape};
use regard_ir::inputs::Captured;
use regard_ir::interval::{Liveness, Region, Span};
use regard_ir::plan::EngineKind;
use regard_ir::tiles;
use regard_ir::variant::{Mechanism, Weights as Kind};

use super::Parts;
use super::learn::{Finding, Taught, Teachers};
use super::live::dead_pages;
use super::memory::{Layout, Memory, STATS};
use super::runs::{ChunkPages, Runs};
use super::stacks::{Pass, Stacks};
use super::weigh::{Row, Units};
use crate::cache::{Blocks, Learned};
use crate::code::{Code, Fault, Keys, Place};
use crate::rows::{Change, Changed, Tensor};
use crate::sight::Sight;
use crate::softmax::subtract_silu;
use crate::summary::Summaries;

/// Keys whose weighted values are one chain of sums.
pub(super) const VALUE_CHAIN: usize = 64;

/// What all workers read.
pub(super) struct Shared<'a, D: Door> {
    pub q: Tensor<'a>,
    /// How rows of q change before they are packed.
    pub change: Option<Change<'a>>,
    pub call: Call<'a, D>,
}

/// The same without what depends on the storage of q.
pub(super) struct Call<'a, D: Door> {
    pub parts: Parts<'a>,
    pub code: &'a dyn Code<D>,
    pub captured: &'a Captured<'a>,
    pub ranges: &'a Summaries<'a>,
    pub fault: &'a Fault,
    pub layout: &'a Layout,
    pub stacks: Stacks<'a>,
}

/// A row of a pass: one query of one query head of one sequence.
#[derive(Clone, Copy)]
struct Of {
    sequence: usize,
    /// Query head.
    head: usize,
    query: usize,
}

impl<D: Door> Call<'_, D> {
    /// What a row of a pass is: sequences one after the other, in each the heads of a group, of each its queries.
    fn row(&self, pass: Pass<'_>, row: usize) -> Of {
        let group = self.parts.variant.heads.group() as usize;
        let queries = self.rows(pass) / pass.sequences.len() / group;
        let (sequence, head) = (row / (group * queries), row / queries % group);
        Of {
            sequence: pass.sequences[sequence] as usize,
            head: pass.head * group + head,
            query: row % queries,
        }
    }

    /// Where the scores of a row stand, apart from the first key; fills tables of its query head and of its query's position.
    fn place_of<'p>(&'p self, pass: Pass<'_>, row: usize, [h, q]: [&'p mut [i32]; 2]) -> Place<'p> {
        let Of { sequence, head, query } = self.row(pass, row);
        let of = self.parts.problem.sequence(sequence as u32);
        h.fill(head as i32);
        q.fill(of.q_offset + query as i32);
        Place {
            b: sequence as i32,
            g: pass.head as i32,
            heads: self.parts.variant.heads.query,
            nq: of.queries as i32,
            nk: of.keys as i32,
            q,
            h,
            first_key: 0,
            keys: Keys::Lanes(&UP),
            captured: self.captured,
            fault: self.fault,
        }
    }

    /// The lookahead keys of a pass, which is of one sequence: each has its own.
    fn learned(&self, pass: Pass<'_>) -> Learned<'_> {
        self.parts.caches.learned(pass.sequences[0] as usize).expect("the call looked for them")
    }

    /// Rows of a pass.
    fn rows(&self, pass: Pass<'_>) -> usize {
        let queries = self.parts.problem.sequence(pass.sequences[0]).queries;
        (self.parts.variant.heads.group() * queries) as usize * pass.sequences.len()
    }

    /// Whether bf16 is multiplied in pairs.
    fn pairs(&self) -> bool {
        self.parts.plan.engine == EngineKind::DotBf16
    }

    /// What packed queries are multiplied by, and what scores are then.
    fn units(&self) -> (f32, Units) {
        let variant = self.parts.variant;
        let (scale, log2_e) = (variant.scale, core::f64::consts::LOG2_E);
        let coarse = match self.layout.page.values.codec {
            Codec::Bf16 => self.pairs(),
            Codec::Int8 | Codec::Int4 => true,
            Codec::F32 | Codec::F16 => false,
        };
        let units = |scale, log2: f64| Units { weights: variant.weights, scale, log2: log2 as f32, coarse };
        // In log2 units from the start, unless a modifier or an activation must see natural ones.
        let softmax = matches!(variant.weights, Kind::Softmax { .. });
        let natural = !softmax || self.code.modifies() || self.layout.learning.is_some();
        if self.pairs() && self.layout.page.keys.codec == Codec::Bf16 {
            // Queries stay as they are: a factor would round them. A mask writes −inf before scores are in log2 units, so
            // what makes them such must be positive.
            return if natural || scale <= 0.0 {
                (1.0, units(Some(scale as f32), log2_e))
            } else {
                (1.0, units(None, scale * log2_e))
            };
        }
        let (factor, log2) = if natural { (scale, log2_e) } else { (scale * log2_e, 1.0) };
        (factor as f32, units(None, log2))
    }
}

impl<D: Door> Shared<'_, D> {
    /// Packs the queries of a pass.
    #[inline(always)]
    pub fn pack(&self, lanes: D, pass: Pass<'_>, memory: &mut Memory<'_>) {
        let Call { parts, layout, .. } = &self.call;
        let dim = layout.page.keys.channels;
        let (factor, _) = self.call.units();
        let product = (&layout.page.keys, self.call.pairs());
        for i in 0..self.call.rows(pass) {
            let at = self.call.row(pass, i);
            let of = parts.problem.sequence(at.sequence as u32);
            let (batch, query) = (of.batch as usize, of.first_query as usize + at.query);
            let to = &mut memory.unpacked[..dim];
            let row = |_| [batch, at.head, query];
            Changed { change: self.change, tensor: self.q, at: row }.row(lanes, i, to);
            if let (Some(layout), Some(learning)) = (&layout.learning, &mut memory.learning) {
                let learned = (&self.call.learned(pass), pass.head);
                let position = of.q_offset as u32 + at.query as u32;
                layout.pack(lanes, learned, (i, position), (to, parts.variant.scale as f32), learning);
            }
            to.iter_mut().for_each(|x| *x *= factor);
            let packed = &mut memory.query[i * layout.packed_row..][..layout.packed_row];
            cached::pack_query(lanes, product, to, packed);
        }
    }
}

/// One cell, whose queries are packed.
pub(super) struct Cell<'a, 'm, D: Door> {
    pub lanes: D,
    pub call: &'a Call<'a, D>,
    pub pass: Pass<'a>,
    /// What is yet to be given out.
    pub slots: &'a LotRuns<'a, f32>,
    pub memory: &'a mut Memory<'m>,
    /// Weighted values of the rows, and what is beside them.
    pub sums: (&'a mut [f32], &'a mut [[f32; STATS]]),
}

/// Some pages of a cell that are scored before their values are added up.
#[derive(Clone, Copy)]
struct Chunk {
    /// Position of its first key.
    first: u32,
    /// Keys that the sequence has there.
    keys: usize,
    liveness: Liveness,
    /// Whether no chunk of the cell comes after it.
    is_last: bool,
}

impl<D: Door> Op for Cell<'_, '_, D> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let Call { parts, layout, .. } = *self.call;
        // The same for all.
        let cache = parts.caches.get(self.pass.sequences[0] as usize);
        let blocks = cache.blocks(&layout.page, self.pass.head);
        let (cell, chunk) = (parts.plan.decode.key_cell, layout.chunk as u32);
        let rows = self.call.rows(self.pass);
        self.memory.references[..rows].fill(f32::NEG_INFINITY);
        self.memory.totals[..rows * D::WIDTH].fill(0.0);
        self.memory.factors[rows..].fill(1.0);
        let mut fresh = true;
        let begin = self.pass.cell * cell;
        let end = cache.len.min(begin + cell);
        for first in (begin..end).step_by(chunk as usize) {
            let keys = chunk.min(end - first);
            let liveness = self.liveness(first..first + keys);
            if liveness != Liveness::Dead {
                let is_last = first + keys == end;
                self.chunk(&blocks, Chunk { first, keys: keys as usize, liveness, is_last }, &mut fresh);
            }
        }
        let (outputs, stats) = self.sums;
        if fresh {
            outputs.fill(0.0);
        } else if let Some(whole) = layout.column_rows(rows) {
            let columns = (&self.memory.columns[..whole * layout.page.values.channels], whole);
            let width = layout.slot.width;
            cached::turn_columns(self.lanes, columns, &mut outputs[..rows * width], width);
        }
        for (r, stats) in stats.iter_mut().enumerate().take(rows) {
            let mut total = 0.0;
            for lane in &self.memory.totals[r * D::WIDTH..][..D::WIDTH] {
                total += lane;
            }
            *stats = [total, self.memory.references[r]];
        }
    }
}

impl<'a, D: Door> Cell<'a, '_, D> {
    /// What the mask is over some keys for all rows.
    fn liveness(&self, keys: Range<u32>) -> Liveness {
        let Parts { variant, problem, .. } = self.call.parts;
        let sight = Sight { variant, problem, ranges: self.call.ranges };
        let head = self.pass.head as u32;
        let each = self.pass.sequences.iter().map(|&sequence| sight.of_head(sequence, head, keys.clone()));
        each.reduce(|all, one| if all == one { all } else { Liveness::Partial }).unwrap_or(Liveness::Dead)
    }

    #[inline(always)]
    fn chunk(&mut self, blocks: &Blocks<'a>, chunk: Chunk, fresh: &mut bool) {
        let shape = &self.call.layout.page;
        let first = chunk.first as usize / shape.tokens;
        let pages = ChunkPages { blocks, shape, first, key_count: chunk.keys };
        let range = chunk.first..chunk.first + chunk.keys as u32;
        let dead = dead_pages(range, shape.tokens as u32, chunk.liveness, |keys| self.liveness(keys));
        if dead.count_ones() as usize == pages.count() {
            // The sums, if they are still fresh, are what another call left behind.
            return;
        }
        let runs = pages.runs(dead);
        self.score(&pages, &runs, chunk);
        let moved = self.weigh(chunk, dead);
        self.add_values(&pages, &runs, chunk, (*fresh, moved));
        *fresh = false;
    }

    /// Scores the keys of a chunk.
    #[inline(always)]
    fn score(&mut self, pages: &ChunkPages<'_, 'a>, runs: &Runs, chunk: Chunk) {
        let (layout, rows) = (self.call.layout, self.call.rows(self.pass));
        let shape = pages.shape;
        let finding = layout.learning.as_ref().map(|_| self.finding(chunk));
        let are_alone =
            !cached::is_of_runs(&shape.keys) || finding.as_ref().is_some_and(|finding| !finding.is_of_runs());
        let first_run = runs.clone().next();
        for run in runs.alone(if are_alone { u64::MAX } else { 0 }) {
            let next = match &first_run {
                _ if run.end < pages.count() => Ahead::keys(shape, pages.keys(run.end..run.end + 1)),
                Some(first) if !shape.shared => {
                    Ahead::values(shape, pages.values(first.start..first.start + 1))
                }
                _ => Ahead::NOTHING,
            };
            let keys = pages.keys_of(&run);
            let (begin, count) = (keys.start, keys.len());
            let first = chunk.first as usize + begin;
            let learned =
                finding.as_ref().map(|finding| (finding, finding.learned.keys(self.pass.head, first, count)));
            let ahead = learned.map_or(next, |(_, keys)| Ahead::rows(pulp::bytemuck::cast_slice(keys)));
            let words = Words {
                block: &shape.keys,
                tokens: shape.tokens,
                pages: run.len(),
                pairs: self.call.pairs(),
                words: pages.keys(run),
                ahead: Some(ahead),
            };
            let target = Target { to: &mut self.memory.scores[begin..], stride: layout.chunk };
            let chain = self.call.parts.plan.prefill.channel_chain as usize;
            let queries = (&*self.memory.query, rows);
            cached::scores(self.lanes, words, queries, (chain, count), target);
            if let Some((finding, keys)) = learned {
                self.find(finding, (keys, next), (first, count), begin);
            }
        }
    }

    /// Adds the values of a chunk, weighed, to the sums, which may be fresh or must be multiplied by their factors first.
    #[inline(always)]
    fn add_values(
        &mut self,
        pages: &ChunkPages<'_, 'a>,
        runs: &Runs,
        chunk: Chunk,
        (fresh, moved): (bool, bool),
    ) {
        let (layout, rows) = (self.call.layout, self.call.rows(self.pass));
        let (shape, tokens, pairs) = (pages.shape, pages.shape.tokens, self.call.pairs());
        let after = self.after(pages.blocks, chunk);
        let mut before = match (fresh, moved) {
            (true, _) => Before::Nothing,
            (false, false) => Before::Kept,
            (false, true) => Before::Scaled(&self.memory.factors[..]),
        };
        let has_odd = |page| cached::has_odd(shape.odd_at(), tokens, pages.values(page..page + 1));
        let are_alone = shape.shared || !cached::is_of_runs(&shape.values);
        for run in runs.alone(if are_alone { u64::MAX } else { runs.bits(has_odd) }) {
            let page = run.start;
            let ahead = match run.end < pages.count() {
                true if shape.shared => Ahead::NOTHING,
                true => Ahead::values(shape, pages.values(run.end..run.end + 1)),
                false => after,
            };
            let keys = pages.keys_of(&run);
            let weights = Weights {
                numbers: &self.memory.scores[keys.start..],
                stride: layout.chunk,
                rows,
                count: keys.len(),
                chain: VALUE_CHAIN,
            };
            let (stored, mended) = (pages.values(run.clone()), &mut *self.memory.mended);
            let scratch = &mut *self.memory.weights;
            let is_odd = if let Some(rows) = layout.column_rows(rows) {
                let (block, words, is_odd) = first_channels(shape, [pages.keys(run), stored], mended);
                let words = Words { block: &block, tokens, pages: 1, pairs, words, ahead: Some(ahead) };
                let to = &mut self.memory.columns[..rows * shape.values.channels];
                cached::columns(self.lanes, words, weights, scratch, before, Columns { to, rows });
                is_odd
            } else {
                let count = run.len();
                let (words, is_odd) = match shape.shared {
                    true => turned(self.lanes, shape, [pages.keys(run), stored], mended),
                    false if count == 1 && has_odd(page) => {
                        (cached::sanitise(&shape.values, tokens, stored, mended), true)
                    }
                    false => (stored, false),
                };
                let block = &shape.values;
                let words = Words { block, tokens, pages: count, pairs, words, ahead: Some(ahead) };
                let target = Target { to: &mut *self.sums.0, stride: layout.slot.width };
                cached::outputs(self.lanes, words, weights, scratch, before, target);
                is_odd
            };
            before = Before::Kept;
            if is_odd {
                self.add_odd_values([pages.keys(page..page + 1), stored], chunk, page);
            }
        }
    }

    /// The keys that are read after a chunk: of the next one, or of the cell that the worker will probably take next.
    fn after(&self, blocks: &Blocks<'a>, chunk: Chunk) -> Ahead<'a> {
        let Call { parts, layout, stacks, .. } = self.call;
        if !chunk.is_last {
            return Ahead::keys(&layout.page, blocks.keys_ahead(chunk.first as usize + layout.chunk));
        }
        let Some(pass) = self.slots.upcoming().map(|number| stacks.pass(number)) else {
            return Ahead::NOTHING;
        };
        let cache = parts.caches.get(pass.sequences[0] as usize);
        let begin = (pass.cell * parts.plan.decode.key_cell) as usize;
        Ahead::keys(&layout.page, cache.blocks(&layout.page, pass.head).keys_ahead(begin))
    }

    /// What the queries of a chunk find lookahead keys by.
    fn finding(&self, chunk: Chunk) -> Finding<'a> {
        let of = self.call.parts.problem.sequence(self.pass.sequences[0]);
        let queries = (of.q_offset as u32, of.queries as usize);
        let finding = Finding { learned: self.call.learned(self.pass), queries, teachers: None };
        let (first, waiting) = (chunk.first as usize, finding.waiting());
        // Most chunks are long past, so that all tokens teach all of their keys.
        let teachers = match self.teaching(&finding, 0..waiting, first..first + chunk.keys) {
            Liveness::Partial => None,
            whole => Some(Teachers::new(waiting, |_| whole)),
        };
        Finding { teachers, ..finding }
    }

    /// Whether tokens that wait, by number, teach some keys.
    fn teaching(&self, finding: &Finding<'_>, tokens: Range<usize>, keys: Range<usize>) -> Liveness {
        let Parts { variant, problem, .. } = self.call.parts;
        let Mechanism::Lookahead(lookahead) = &variant.mechanism else { return Liveness::Dead };
        let (sequence, head) = (self.pass.sequences[0], self.pass.head as u32);
        let all = problem.sequence(sequence).region(sequence, &variant.heads, head);
        let at = |token: usize| (finding.learned.taught as usize + token) as i32;
        let q = Span { lo: at(tokens.start), hi: at(tokens.end) - 1 };
        let k = Span { lo: keys.start as i32, hi: keys.end as i32 - 1 };
        tiles::liveness(lookahead.allow, &Region { q, k, ..all }, self.call.ranges)
    }

    /// Finds what the queries find at lookahead keys, so many from one on, which are number `begin` of the chunk and after.
    #[inline(always)]
    fn find(
        &mut self,
        finding: &Finding<'_>,
        (keys, ahead): (&[f32], Ahead<'_>),
        (first, count): (usize, usize),
        begin: usize,
    ) {
        let teachers = finding.teachers.unwrap_or_else(|| {
            Teachers::new(finding.waiting(), |tokens| self.teaching(finding, tokens, first..first + count))
        });
        let layout = self.call.layout;
        let (Some(learning), Some(memory)) = (&layout.learning, &mut self.memory.learning) else { return };
        let keys = Taught { first, count, keys, teachers, ahead };
        let learned = (&finding.learned, self.pass.head);
        learning.find(self.lanes, learned, keys, finding.queries, (begin, layout.chunk), memory);
    }

    /// Makes weights of a chunk's scores. Says whether the sums so far must be multiplied by their factors.
    #[inline(always)]
    fn weigh(&mut self, chunk: Chunk, dead: u64) -> bool {
        let (layout, rows) = (self.call.layout, self.call.rows(self.pass));
        let (_, units) = self.call.units();
        let masked = chunk.liveness == Liveness::Partial;
        // Most chunks are seen whole, by variants that leave scores as they are.
        let shaped = masked || self.call.code.modifies();
        let learns = layout.learning.is_some();
        let plain = !shaped && !learns && units.scale.is_none() && dead == 0;
        let pages = if plain { 0 } else { chunk.keys.div_ceil(layout.page.tokens) };
        let whole = chunk.keys.next_multiple_of(LANES);
        let mut moved = false;
        for r in 0..rows {
            let begin = r * layout.chunk;
            for page in 0..pages {
                let keys = page * layout.page.tokens..chunk.keys.min((page + 1) * layout.page.tokens);
                if dead >> page & 1 != 0 {
                    self.memory.scores[begin..][keys].fill(f32::NEG_INFINITY);
                    continue;
                }
                if let Some(scale) = units.scale {
                    self.memory.scores[begin..][keys.clone()].iter_mut().for_each(|x| *x *= scale);
                }
                if let Some(learning) = self.memory.learning.as_ref().filter(|_| learns) {
                    let keys = begin + keys.start..begin + keys.end.next_multiple_of(LANES);
                    let found = &learning.found[keys.clone()];
                    subtract_silu(self.lanes, &mut self.memory.scores[keys], found, None);
                }
                if shaped {
                    self.shape(chunk.first + keys.start as u32, r, begin + keys.start, keys.len(), masked);
                }
            }
            let scores = &mut self.memory.scores[begin..][..whole];
            scores[chunk.keys..].fill(f32::NEG_INFINITY);
            let mut row = Row {
                lanes: self.lanes,
                units,
                reference: &mut self.memory.references[r],
                factor: &mut self.memory.factors[r],
                total: &mut self.memory.totals[r * D::WIDTH..][..D::WIDTH],
            };
            moved |= row.weigh(scores);
        }
        moved
    }

    /// Modifies and masks the scores of a row with `count` keys from position `first` on, which begin at `begin`.
    #[inline(always)]
    fn shape(&mut self, first: u32, row: usize, begin: usize, count: usize, masked: bool) {
        let Memory { scores, lanes: [h, q, _], code: scratch, .. } = &mut *self.memory;
        let place = self.call.place_of(self.pass, row, [&mut h[..D::WIDTH], &mut q[..D::WIDTH]]);
        let place = Place { first_key: first as i32, ..place };
        apply(self.lanes, self.call.code, place, &mut scores[begin..], (count, masked), scratch);
    }

    /// Adds what the values of a page that are not finite do to the rows that may see them: the product left them out.
    #[cold]
    fn add_odd_values(&mut self, [keys, stored]: [&[u32]; 2], chunk: Chunk, page: usize) {
        let layout = self.call.layout;
        let shape = &layout.page;
        let (begin, rows) = (page * shape.tokens, self.call.rows(self.pass));
        let columns = layout.column_rows(rows);
        for token in 0..shape.tokens.min(chunk.keys - begin) {
            if !cached::is_odd_at(shape.odd_at(), token, stored) {
                continue;
            }
            let Memory { scores, lanes: [h, q, allowed], code: scratch, value, columns: sums, .. } =
                &mut *self.memory;
            let value = &mut value[..shape.values.channels];
            if shape.shared {
                cached::read_key(&shape.keys, token, keys, value);
            } else {
                cached::read_value(&shape.values, shape.tokens, token, stored, value);
            }
            let first_key = (chunk.first as usize + begin + token) as i32;
            for row in 0..rows {
                let allowed = &mut allowed[..D::WIDTH];
                allowed.fill(1);
                if chunk.liveness == Liveness::Partial {
                    let place = self.call.place_of(self.pass, row, [&mut h[..D::WIDTH], &mut q[..D::WIDTH]]);
                    // Every lane is of this key.
                    let place = Place { first_key, keys: Keys::Rows, ..place };
                    self.call.code.allow(self.lanes, &place, allowed, scratch);
                }
                if allowed[0] == 0 {
                    continue;
                }
                let weight = scores[row * layout.chunk + begin + token];
                for (channel, &x) in value.iter().enumerate().filter(|(_, x)| !x.is_finite()) {
                    match columns {
                        Some(rows) => sums[channel * rows + row] += weight * x,
                        None => self.sums.0[row * layout.slot.width + channel] += weight * x,
                    }
                }
            }
        }
    }
}

/// Applies code to the scores of so many keys of one row, which end with a whole vector: lanes are keys.
#[inline(always)]
pub(super) fn apply<D: Door>(
    lanes: D,
    code: &dyn Code<D>,
    place: Place<'_>,
    scores: &mut [f32],
    (count, masked): (usize, bool),
    scratch: &mut [i32],
) {
    let whole = count / D::WIDTH * D::WIDTH;
    if whole > 0 {
        code.apply(lanes, &place, &mut scores[..whole], masked, scratch);
    }
    if whole < count {
        // No lane is of a key that is not there: those past the last one repeat it.
        let mut after = UP;
        after.iter_mut().for_each(|after| *after = (*after).min((count - whole - 1) as i32));
        let first_key = place.first_key + whole as i32;
        let place = Place { first_key, keys: Keys::Lanes(&after), ..place };
        code.apply(lanes, &place, &mut scores[whole..whole + D::WIDTH], masked, scratch);
    }
}

/// The words of a page of keys whose first channels are values, how they lie, and whether some value is not finite: of such pages a
/// copy is read that has zeros there.
#[inline(always)]
fn first_channels<'a>(
    shape: &PageShape,
    [keys, odd]: [&'a [u32]; 2],
    to: &'a mut [u32],
) -> (Block, &'a [u32], bool) {
    if !cached::has_odd(0, shape.tokens, odd) {
        return (shape.keys, keys, false);
    }
    let block = cached::mend_keys(&shape.keys, &shape.values, keys, to);
    (block, to, true)
}

/// The values of a page that are the first channels of its keys, with zeros in place of what is not finite, and whether some is
/// not, as their bits say.
#[inline(always)]
fn turned<'a, D: Door>(
    lanes: D,
    shape: &PageShape,
    [keys, odd]: [&[u32]; 2],
    to: &'a mut [u32],
) -> (&'a [u32], bool) {
    cached::turn_keys(lanes, (&shape.keys, &shape.values), shape.tokens, keys, to);
    let bits = shape.tokens.div_ceil(u32::BITS as usize);
    to[shape.values.scaled_words(shape.tokens)..][..bits].copy_from_slice(&odd[..bits]);
    let is_odd = cached::has_odd(0, shape.tokens, odd);
    if is_odd {
        cached::mend(&shape.values, shape.tokens, to);
    }
    (to, is_odd)
}

/// A lane's own number.
pub(super) static UP: [i32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
