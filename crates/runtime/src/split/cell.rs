//! One cell: the queries of a key head over a run of its cached keys.

use core::ops::Range;

use regard_engine::Op;
use regard_engine::cached::{self, Before, LANES, Target, Weights, Words, row_tiles};
use regard_engine::element::Element;
use regard_engine::isa::Door;
use regard_engine::pack::Rows;
use regard_ir::cache::Codec;
use regard_ir::inputs::Captured;
use regard_ir::interval::{Liveness, Region, Span};
use regard_ir::plan::EngineKind;
use regard_ir::problem::Sequence;
use regard_ir::tiles;
use regard_ir::variant::Weights as Kind;

use super::Parts;
use super::memory::{Layout, Memory};
use super::weigh::{Row, Units};
use crate::cache::CachedSequence;
use crate::code::{Code, Fault, Keys, Place};
use crate::rows::{Change, Changed};
use crate::summary::Summaries;
use crate::view::View;

/// Keys whose weighted values are one chain of sums.
const VALUE_CHAIN: usize = 64;

/// What all workers read.
pub(super) struct Shared<'a, D: Door, T> {
    pub q: View<'a, T>,
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
    /// As [`super::memory::Common`] has them.
    pub starts: &'a [u32],
    pub firsts: &'a [u32],
    pub live: &'a [u32],
}

/// Which cell.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub sequence: usize,
    pub head: usize,
    pub cell: u32,
}

impl<D: Door> Call<'_, D> {
    /// The cell whose sums go to slot number `slot`.
    pub fn at(&self, slot: usize) -> At {
        let heads = self.parts.variant.heads.kv as usize;
        // The last head whose slots begin here or before: those before it that begin here too have none.
        let head = self.starts.partition_point(|&start| start as usize <= slot) - 1;
        let sequence = head / heads;
        let cell = self.live[self.firsts[sequence] as usize + slot - self.starts[head] as usize];
        At { sequence, head: head % heads, cell }
    }

    /// The query head and the query of a row: heads of a group one after the other.
    fn place(&self, at: At, row: usize) -> (usize, usize) {
        let queries = self.parts.problem.sequence(at.sequence as u32).queries as usize;
        let group = self.parts.variant.heads.group() as usize;
        (at.head * group + row / queries, row % queries)
    }

    /// Where the scores of a row stand, apart from the first key; fills tables of its query head and of its query's position.
    fn place_of<'p>(&'p self, at: At, row: usize, [h, q]: [&'p mut [i32]; 2]) -> Place<'p> {
        let of = self.parts.problem.sequence(at.sequence as u32);
        let (head, query) = self.place(at, row);
        h.fill(head as i32);
        q.fill(of.q_offset + query as i32);
        Place {
            b: at.sequence as i32,
            g: at.head as i32,
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

    fn rows(&self, at: At) -> usize {
        let queries = self.parts.problem.sequence(at.sequence as u32).queries;
        (self.parts.variant.heads.group() * queries) as usize
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
        let natural = !matches!(variant.weights, Kind::Softmax { .. }) || self.code.modifies();
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

impl<D: Door, T: Element> Shared<'_, D, T> {
    /// Packs the queries of a sequence and key head.
    #[inline(always)]
    pub fn pack(&self, lanes: D, at: At, memory: &mut Memory<'_>) {
        let Call { parts, layout, .. } = &self.call;
        let of = parts.problem.sequence(at.sequence as u32);
        let (batch, dim) = (of.batch as usize, layout.page.keys.channels);
        let (factor, _) = self.call.units();
        let rows = self.call.rows(at);
        let row = |i: usize| {
            let (head, query) = self.call.place(at, i);
            (head, self.q.row(batch, head, of.first_query as usize + query))
        };
        let product = (&layout.page.keys, self.call.pairs());
        for (i, packed) in memory.query.chunks_exact_mut(layout.packed_row).take(rows).enumerate() {
            let to = &mut memory.unpacked[..dim];
            match self.change {
                None => T::widen_into(lanes, row(i).1, to),
                Some(change) => {
                    let token =
                        |i| change.tokens.query(batch, of.first_query as usize + self.call.place(at, i).1);
                    Changed::new(change, row, token).row(lanes, i, to);
                }
            }
            to.iter_mut().for_each(|x| *x *= factor);
            cached::pack_query(lanes, product, to, packed);
        }
        memory.packed = Some((at.sequence, at.head));
    }
}

/// One cell, whose queries are packed.
pub(super) struct Cell<'a, 'm, D: Door> {
    pub lanes: D,
    pub call: &'a Call<'a, D>,
    pub at: At,
    pub memory: &'a mut Memory<'m>,
    pub slot: &'a mut [f32],
}

/// Some pages of a cell that are scored before their values are added up.
#[derive(Clone, Copy)]
struct Chunk {
    /// Position of its first key.
    first: u32,
    /// Keys that the sequence has there.
    keys: usize,
    liveness: Liveness,
}

impl<D: Door> Op for Cell<'_, '_, D> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let Call { parts, layout, .. } = *self.call;
        let cache = &parts.caches.get(self.at.sequence);
        let (cell, chunk) = (parts.plan.decode.key_cell, layout.chunk as u32);
        let rows = self.call.rows(self.at);
        self.memory.references[..rows].fill(f32::NEG_INFINITY);
        self.memory.totals[..rows * D::WIDTH].fill(0.0);
        let mut fresh = true;
        let begin = self.at.cell * cell;
        let end = cache.len.min(begin + cell);
        for first in (begin..end).step_by(chunk as usize) {
            let keys = chunk.min(end - first);
            let liveness = self.liveness(first..first + keys);
            if liveness != Liveness::Dead {
                self.chunk(cache, Chunk { first, keys: keys as usize, liveness }, &mut fresh);
            }
        }
        let (outputs, stats) = layout.slot.split(self.slot);
        if fresh {
            outputs.fill(0.0);
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

impl<D: Door> Cell<'_, '_, D> {
    fn of(&self) -> Sequence {
        self.call.parts.problem.sequence(self.at.sequence as u32)
    }

    /// What the mask is over some keys for all rows.
    fn liveness(&self, keys: Range<u32>) -> Liveness {
        let variant = self.call.parts.variant;
        let all = self.of().region(self.at.sequence as u32, &variant.heads, self.at.head as u32);
        let k = Span { lo: keys.start as i32, hi: keys.end as i32 - 1 };
        tiles::liveness(variant.allow, &Region { k, ..all }, self.call.ranges)
    }

    #[inline(always)]
    fn chunk(&mut self, cache: &CachedSequence<'_>, chunk: Chunk, fresh: &mut bool) {
        let layout = self.call.layout;
        let shape = &layout.page;
        let (tokens, pairs) = (shape.tokens, self.call.pairs());
        let first_page = chunk.first as usize / tokens;
        let pages = chunk.keys.div_ceil(tokens);
        let keys_at = shape.keys_at(self.at.head);
        let values_at = shape.values_at(shape.value_head(self.at.head));
        let keys_of = |page: usize| &cache.page(shape, first_page + page)[keys_at..][..shape.keys_len()];
        let values_of =
            |page: usize| &cache.page(shape, first_page + page)[values_at..][..shape.values_len()];
        // The pages that are live: of a chunk that is partial, each is asked for.
        let mut dead = 0u64;
        if chunk.liveness == Liveness::Partial && pages > 1 {
            for page in 0..pages {
                let begin = chunk.first + (page * tokens) as u32;
                let end = (begin + tokens as u32).min(chunk.first + chunk.keys as u32);
                dead |= u64::from(self.liveness(begin..end) == Liveness::Dead) << page;
            }
        }
        let is_dead = |page: usize| dead >> page & 1 != 0;
        let count_of = |page: usize| tokens.min(chunk.keys - page * tokens);
        let rows = self.call.rows(self.at);
        for page in 0..pages {
            if is_dead(page) {
                continue;
            }
            let ahead = if page + 1 < pages { keys_of(page + 1) } else { values_of(0) };
            let mut words = Words { block: &shape.keys, tokens, pairs, words: keys_of(page), ahead };
            for tile in row_tiles(self.lanes, rows) {
                let packed = &self.memory.query[tile.first * layout.packed_row..];
                let to = &mut self.memory.scores[tile.first * layout.chunk + page * tokens..];
                let target = Target { to, stride: layout.chunk };
                let chain = self.call.parts.plan.prefill.channel_chain as usize;
                cached::scores(self.lanes, words, packed, tile, (chain, count_of(page)), target);
                words.ahead = &[];
            }
        }
        let moved = self.weigh(chunk, dead, rows);
        let next = chunk.first as usize + layout.chunk;
        let follows = next < (cache.len as usize)
            && !next.is_multiple_of(self.call.parts.plan.decode.key_cell as usize);
        let mut before = match (*fresh, moved) {
            (true, _) => Before::Nothing,
            (false, false) => Before::Kept,
            (false, true) => Before::Scaled(&self.memory.factors[..]),
        };
        for page in 0..pages {
            if is_dead(page) {
                continue;
            }
            let ahead = match page + 1 < pages {
                true => values_of(page + 1),
                false if follows => &cache.page(shape, next / tokens)[keys_at..][..shape.keys_len()],
                false => &[],
            };
            let stored = values_of(page);
            let mended = cached::sanitise(&shape.values, tokens, stored, self.memory.mended);
            let is_odd = mended.is_some();
            let mut words =
                Words { block: &shape.values, tokens, pairs, words: mended.unwrap_or(stored), ahead };
            let (outputs, _) = layout.slot.split(self.slot);
            for tile in row_tiles(self.lanes, rows) {
                let weights = Weights {
                    rows: &self.memory.scores[tile.first * layout.chunk + page * tokens..],
                    stride: layout.chunk,
                    count: count_of(page),
                    chain: VALUE_CHAIN,
                };
                let stride = layout.slot.width;
                let target = Target { to: &mut outputs[tile.first * stride..], stride };
                let before = match before {
                    Before::Scaled(factors) => Before::Scaled(&factors[tile.first..]),
                    before => before,
                };
                cached::outputs(self.lanes, words, (tile, weights), self.memory.weights, before, target);
                words.ahead = &[];
            }
            before = Before::Kept;
            if is_odd {
                self.add_odd_values(stored, chunk, page);
            }
        }
        *fresh = false;
    }

    /// Makes weights of a chunk's scores. Says whether the sums so far must be multiplied by their factors.
    #[inline(always)]
    fn weigh(&mut self, chunk: Chunk, dead: u64, rows: usize) -> bool {
        let layout = self.call.layout;
        let (_, units) = self.call.units();
        let masked = chunk.liveness == Liveness::Partial;
        let whole = chunk.keys.next_multiple_of(LANES);
        let mut moved = false;
        for r in 0..rows {
            let begin = r * layout.chunk;
            for page in 0..chunk.keys.div_ceil(layout.page.tokens) {
                let keys = page * layout.page.tokens..chunk.keys.min((page + 1) * layout.page.tokens);
                if dead >> page & 1 != 0 {
                    self.memory.scores[begin..][keys].fill(f32::NEG_INFINITY);
                    continue;
                }
                if let Some(scale) = units.scale {
                    self.memory.scores[begin..][keys.clone()].iter_mut().for_each(|x| *x *= scale);
                }
                if masked || self.call.code.modifies() {
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
        let place = self.call.place_of(self.at, row, [&mut h[..D::WIDTH], &mut q[..D::WIDTH]]);
        let code = self.call.code;
        let (whole, scores) = (count / D::WIDTH * D::WIDTH, &mut scores[begin..]);
        if whole > 0 {
            let place = Place { first_key: first as i32, ..place };
            code.apply(self.lanes, &place, &mut scores[..whole], masked, scratch);
        }
        if whole < count {
            // No lane is of a key that is not there: those past the last one repeat it.
            let mut after = UP;
            after.iter_mut().for_each(|after| *after = (*after).min((count - whole - 1) as i32));
            let first_key = first as i32 + whole as i32;
            let place = Place { first_key, keys: Keys::Lanes(&after), ..place };
            code.apply(self.lanes, &place, &mut scores[whole..whole + D::WIDTH], masked, scratch);
        }
    }

    /// Adds what the values of a page that are not finite do to the rows that may see them: the product left them out.
    #[cold]
    fn add_odd_values(&mut self, stored: &[u32], chunk: Chunk, page: usize) {
        let layout = self.call.layout;
        let shape = &layout.page;
        let (begin, rows) = (page * shape.tokens, self.call.rows(self.at));
        for token in 0..shape.tokens.min(chunk.keys - begin) {
            if !cached::is_odd(&shape.values, shape.tokens, token, stored) {
                continue;
            }
            let Memory { scores, lanes: [h, q, allowed], code: scratch, value, .. } = &mut *self.memory;
            let value = &mut value[..shape.values.channels];
            cached::read_value(&shape.values, shape.tokens, token, stored, value);
            let first_key = (chunk.first as usize + begin + token) as i32;
            for row in 0..rows {
                let allowed = &mut allowed[..D::WIDTH];
                allowed.fill(1);
                if chunk.liveness == Liveness::Partial {
                    let place = self.call.place_of(self.at, row, [&mut h[..D::WIDTH], &mut q[..D::WIDTH]]);
                    // Every lane is of this key.
                    let place = Place { first_key, keys: Keys::Rows, ..place };
                    self.call.code.allow(self.lanes, &place, allowed, scratch);
                }
                if allowed[0] == 0 {
                    continue;
                }
                let weight = scores[row * layout.chunk + begin + token];
                let (outputs, _) = layout.slot.split(self.slot);
                for (o, &x) in outputs[row * layout.slot.width..].iter_mut().zip(&*value) {
                    if !x.is_finite() {
                        *o += weight * x;
                    }
                }
            }
        }
    }
}

/// A lane's own number.
static UP: [i32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
