//! What a pass does beside where keys learn: each block of them is read by the queries, then taught by their tokens.

use core::ops::Range;

use regard_engine::grid::Claim;
use regard_engine::pack::Rows;
use regard_engine::stairs::Stairs;
use regard_engine::{Engine, Shape, Step, pack};
use regard_ir::interval::{Liveness, Region, Span};
use regard_ir::tiles;
use regard_simd::{F32, Lanes, load_f32, sigmoid, vectors, vectors_mut};

use super::super::keys::CachedRows;
use super::super::lookahead::Learning;
use super::super::lookahead::memory::{Layout, Memory as Own};
use super::super::lookahead::rows::{AskRows, Asks, Behind, Halves, Joined, NoValues, Tensor, TokenRows};
use super::super::memory::Memory;
use super::{Pass, RowTile, Shared, Steps};
use crate::cache::RowOf;
use crate::called;
use crate::code::{Keys as LaneKeys, Place};
use crate::rows::{Changed, Side};

/// What a pass works with beside, where keys learn.
pub(super) struct Lesson<'a, 'm, E: Engine> {
    pub of: &'a Learning<'a, E>,
    pub layout: &'a Layout,
    pub own: &'a mut Own<'m>,
}

impl<E: Engine> Lesson<'_, '_, E> {
    /// Begins with keys of another head: some have learned nothing yet, the others are as earlier calls left them.
    pub(super) fn begin(&mut self, claim: &mut Claim<'_>, fresh: Range<u32>) {
        self.own.asked_blocks.fill(-1);
        for token in fresh {
            claim.kept_mut(0, token).unwrap_or_default().fill(0.0);
        }
    }
}

/// A key block, and how alive it is.
#[derive(Clone, Copy)]
pub(super) struct KeyBlock {
    pub first: u32,
    pub count: u32,
    /// To the queries.
    pub seen: Liveness,
    /// To the tokens.
    pub taught: Liveness,
    /// Where the block begins that comes next.
    pub then: Option<u32>,
}

impl<E: Engine> Pass<'_, E> {
    /// Whether no query of the block sees some keys, and none of its tokens teaches them.
    pub(super) fn is_dead(&self, keys: Range<u32>, lesson: &Option<Lesson<'_, '_, E>>) -> bool {
        let k = Span { lo: keys.start as i32, hi: keys.end as i32 - 1 };
        let region = Region { k, ..self.region(0, self.rows()) };
        let is_dead = |allow| tiles::liveness(allow, &region, self.shared.ranges) == Liveness::Dead;
        is_dead(self.shared.parts.variant.allow) && lesson.as_ref().is_none_or(|it| is_dead(it.of.allow))
    }

    /// What becomes of scores as an engine gives them, so that they are scaled.
    #[inline(always)]
    pub(super) fn scale(&self) -> Option<f32> {
        E::UNSCALED.then_some(self.shared.parts.variant.scale as f32)
    }

    /// Packs what the block's tokens are asked by and what they teach, and finds what its queries find in them.
    #[inline(always)]
    pub(super) fn prepare_tokens(&self, lesson: &mut Lesson<'_, '_, E>, memory: &mut Memory<'_>) {
        let Lesson { of: learning, layout, own } = lesson;
        let (engine, lanes) = (self.shared.engine, self.shared.engine.lanes());
        let (dim, tokens, count) = (layout.dim, layout.tokens, self.block.queries as usize);
        let (factor, _) = self.units();
        let asked_by = self.token_rows(&learning.k_u);
        for RowTile { first, rows, width } in self.tiles() {
            let rows_of_tile = Behind { rows: &asked_by, first };
            let to = &mut own.askers[layout.asker(first)];
            called::pack_queries(engine, &layout.ask, &rows_of_tile, [rows, width], factor, own.pack, to);
        }

        let values = self.token_rows(&learning.v_u);
        own.turned.fill(0.0);
        own.has_odd_values = false;
        for (token, to) in own.rows.chunks_exact_mut(dim).enumerate().take(count) {
            to.copy_from_slice(values.row(lanes, token, own.pack));
            let is_odd = to.iter().any(|x| !x.is_finite());
            own.odd[token] = is_odd.into();
            own.has_odd_values |= is_odd;
            for (channel, x) in to.iter_mut().enumerate() {
                if !x.is_finite() {
                    *x = 0.0;
                }
                own.turned[channel * tokens + token] = *x;
            }
        }
        let row = |token: usize| &own.rows[token * dim..][..dim];
        self.pack_rows(&layout.own, &Joined::all(&row), count, own.pack, own.own);
        for first in (0..dim).step_by(E::ROWS) {
            let channels = E::ROWS.min(dim - first);
            let width = channels.next_multiple_of(E::ROW_STEP);
            let once = |channel: usize| &own.turned[(first + channel) * tokens..][..tokens];
            let again = |channel| if layout.halves == 2 { once(channel) } else { &[] };
            let rows = Joined { first: &once, rest: &again, cleans: false };
            let to = &mut own.left[layout.channels(first)];
            called::pack_queries(engine, &layout.leave, &rows, [channels, width], 1.0, own.pack, to);
        }

        own.own_scores.fill(0.0);
        for RowTile { first, rows, width } in self.tiles() {
            let step = step(
                &layout.own,
                [&memory.query[self.shared.layout.queries(first)], own.own],
                (0..count, width),
                own.scratch,
            );
            called::scores(engine, step, own.scores);
            for row in 0..rows {
                let to = &mut own.own_scores[(first + row) * tokens..][..tokens];
                for (token, to) in to.iter_mut().enumerate().take(first + row + 1) {
                    *to = own.scores[token * width + row];
                }
            }
        }
        for RowTile { first, rows, width } in self.tiles() {
            let row = |row: usize| &own.own_scores[(first + row) * tokens..][..tokens];
            let to = &mut own.finders[layout.finder(first)];
            let rows_of_tile = Joined::all(&row);
            called::pack_queries(engine, &layout.add, &rows_of_tile, [rows, width], 1.0, own.pack, to);
        }
    }

    /// The rows of a tensor of the block's tokens.
    #[inline(always)]
    fn token_rows<'a>(&self, tensor: &Tensor<'a>) -> TokenRows<'a> {
        let first = self.query_row(self.block.first_query);
        tensor.rows(self.block.of.batch as usize, self.block.kv_head as usize, first)
    }

    /// The rows of what keys ask of later tokens, from a key on.
    #[inline(always)]
    fn ask_rows<'a>(&self, asks: &Asks<'a>, first: u32) -> AskRows<'a> {
        let (of, head) = (self.block.of, self.block.kv_head as usize);
        match *asks {
            Asks::Given(tensor) => {
                AskRows::Given(tensor.rows(of.batch as usize, head, (of.first_key + first) as usize))
            }
            Asks::Cached { caches, page } => {
                let cache = caches.get(self.block.sequence as usize);
                AskRows::Cached(CachedRows { cache, page, row: RowOf::Asks(head), first: first as usize })
            }
        }
    }

    /// Packs rows as keys without values, unit by unit.
    #[inline(always)]
    fn pack_rows<'t>(
        &self,
        shape: &Shape,
        rows: &impl Rows<'t>,
        count: usize,
        scratch: &mut [f32],
        to: &mut [f32],
    ) {
        let unit = E::unit_keys(shape);
        for (first, to) in (0..count).step_by(unit).zip(to.chunks_exact_mut(E::packed_len(shape))) {
            let rows = Behind { rows, first };
            called::pack(self.shared.engine, shape, (&rows, &NoValues), unit.min(count - first), scratch, to);
        }
    }

    /// What the block's tokens will teach a key block.
    #[inline(always)]
    pub(super) fn ask(&self, lesson: &mut Lesson<'_, '_, E>, block: KeyBlock) {
        let Lesson { of, layout, own } = lesson;
        let (kept, packed) = layout.kept(block.first);
        if own.asked_blocks[kept] != block.first as i32 {
            // Whole: the query blocks after this one ask of more of it.
            let whole = (self.block.of.keys - block.first).min(self.shared.parts.plan.prefill.key_block);
            let asking = self.ask_rows(&of.q_u, block.first);
            self.pack_rows(&layout.ask, &asking, whole as usize, own.pack, &mut own.asked[packed.clone()]);
            own.asked_blocks[kept] = block.first as i32;
        }
        self.weigh((of, layout), block, packed, own);
        let row = |key: usize| &own.weights[key * layout.tokens..][..layout.tokens];
        let weights = Joined { cleans: own.has_odd_weights, ..Joined::all(&row) };
        self.pack_rows(&layout.add, &weights, block.count as usize, own.pack, own.weighed);
    }

    /// What each token of the block weighs in what it teaches each key.
    #[inline(always)]
    fn weigh(
        &self,
        (learning, layout): (&Learning<'_, E>, &Layout),
        block: KeyBlock,
        asked: Range<usize>,
        own: &mut Own<'_>,
    ) {
        let Shared { engine, .. } = self.shared;
        let lanes = engine.lanes();
        let (tokens, queries) = (layout.tokens, self.block.queries as usize);
        let KeyBlock { first, count, taught, .. } = block;
        let mut odd = F32::splat(lanes, 0.0);
        let (zero, never) = (odd, F32::splat(lanes, f32::NEG_INFINITY));
        let missing = queries.next_multiple_of(E::ROW_STEP);
        if missing < tokens {
            for weights in own.weights.chunks_exact_mut(tokens).take(count as usize) {
                weights[missing..].fill(0.0);
            }
        }
        for tile in self.tiles() {
            let RowTile { first: row, rows, width } = tile;
            let columns = row..row + width;
            let (live, steps) = self
                .live_steps(learning.allow, tile, first, count, taught)
                .unwrap_or((0..0, Steps::default()));
            let (begin, end) = (live.start as usize, live.end as usize);
            for (key, weights) in own.weights.chunks_exact_mut(tokens).enumerate().take(count as usize) {
                if !(begin..end).contains(&key) {
                    weights[columns.clone()].fill(0.0);
                }
            }
            if live.is_empty() {
                continue;
            }
            let step = step(
                &layout.ask,
                [&own.askers[layout.asker(row)], &own.asked[asked.clone()]],
                (begin..end, width),
                own.scratch,
            );
            let stairs = self.stairs(learning.allow, tile, first, &live, steps);
            called::scores(*engine, Step { stairs, ..step }, own.scores);
            let scores = &mut own.scores[..(end - begin) * width];
            if let Some(scale) = self.scale() {
                pack::scale(lanes, scores, scale);
            }
            self.mask(learning, tile, (first + live.start, steps), scores, own.code);
            let all = scores.chunks_exact(width).zip(own.weights.chunks_exact_mut(tokens).skip(begin));
            for (scores, weights) in all {
                let to = vectors_mut(lanes, &mut weights[columns.clone()]);
                for (to, &score) in to.iter_mut().zip(vectors(lanes, scores)) {
                    let score = F32::from_raw(lanes, score);
                    let weight = score.eq(never).select(zero, sigmoid(score));
                    odd = odd + weight * zero;
                    *to = weight.raw();
                }
                // Lanes past the rows repeat the last one.
                weights[columns.start + rows..columns.end].fill(0.0);
            }
        }
        own.has_odd_weights = odd.sum().is_nan();
    }

    /// Makes scores of tokens that do not teach a key −inf; `first` is the position of the first key.
    #[inline(always)]
    fn mask(
        &self,
        learning: &Learning<'_, E>,
        tile: RowTile,
        (first, steps): (u32, Steps),
        scores: &mut [f32],
        scratch: &mut [i32],
    ) {
        if steps == Steps::default() {
            return;
        }
        let Shared { engine, parts, captured, fault, .. } = self.shared;
        let RowTile { first: row, rows, width } = tile;
        let mut positions = [0; super::MAX_TILE_ROWS];
        for (lane, position) in positions[..width].iter_mut().enumerate() {
            let query = self.block.first_query as usize + row + lane.min(rows - 1);
            *position = self.block.of.q_offset + query as i32;
        }
        let heads = [self.block.kv_head as i32; super::MAX_TILE_ROWS];
        let keys = scores.len() / width;
        let step_keys = parts.plan.prefill.mask_step as usize;
        let mut key = 0;
        while key < keys {
            let (class, end) = steps.run(step_keys, 0, key, keys);
            let scores = &mut scores[key * width..end * width];
            match class {
                Liveness::Dead => scores.fill(f32::NEG_INFINITY),
                Liveness::Full => {}
                Liveness::Partial => {
                    let place = Place {
                        b: self.block.sequence as i32,
                        g: self.block.kv_head as i32,
                        heads: parts.variant.heads.query,
                        nq: self.block.of.queries as i32,
                        nk: self.block.of.keys as i32,
                        q: &positions[..width],
                        h: &heads[..width],
                        first_key: first as i32 + key as i32,
                        keys: LaneKeys::Rows,
                        captured,
                        fault,
                    };
                    learning.code.apply(engine.lanes(), &place, scores, true, scratch);
                }
            }
            key = end;
        }
    }

    /// Packs the keys as tokens before the block left them.
    #[inline(always)]
    pub(super) fn pack_found(&self, lesson: &mut Lesson<'_, '_, E>, block: KeyBlock, claim: &Claim<'_>) {
        let Lesson { layout, own, .. } = lesson;
        let left = |key: usize| claim.kept(0, block.first + key as u32).unwrap_or_default();
        self.pack_rows(&layout.ask, &Joined::all(&left), block.count as usize, own.pack, own.found);
    }

    /// What the queries of a row tile find at lookahead keys, unscaled where scores are, `[live key][width]`.
    #[inline(always)]
    pub(super) fn find(
        &self,
        lesson: &mut Lesson<'_, '_, E>,
        block: KeyBlock,
        (tile, live, stairs): (RowTile, Range<u32>, Option<Stairs>),
        memory: &Memory<'_>,
    ) {
        let Lesson { of: learning, layout, own } = lesson;
        let engine = self.shared.engine;
        let live_keys = live.start as usize..live.end as usize;
        let found = [&memory.query[self.shared.layout.queries(tile.first)], own.found];
        let all = step(&layout.ask, found, (live_keys.clone(), tile.width), own.scratch);
        called::scores(engine, Step { stairs, ..all }, own.scores);
        if block.taught == Liveness::Dead {
            return;
        }
        let taught = [&own.finders[layout.finder(tile.first)], own.weighed];
        let more = step(&layout.add, taught, (live_keys, tile.width), own.scratch);
        // Tokens teach nothing to queries before them.
        called::add_scores(engine, Step { stairs, ..more }, tile.first + tile.rows, own.scores);
        if own.has_odd_values || own.has_odd_weights {
            self.find_odd(learning, layout, tile, live, own);
        }
    }

    /// Adds what queries find of tokens whose weights or values are no numbers, which the product left out.
    #[cold]
    fn find_odd(
        &self,
        learning: &Learning<'_, E>,
        layout: &Layout,
        tile: RowTile,
        live: Range<u32>,
        own: &mut Own<'_>,
    ) {
        let Layout { dim, tokens, .. } = *layout;
        let (lanes, factor) = (self.shared.engine.lanes(), self.units().0);
        let values = self.token_rows(&learning.v_u);
        let batch = self.block.of.batch as usize;
        let at = |row| [batch, self.block.kv_head as usize, self.query_row(self.place(row).1)];
        let queries =
            Changed { change: self.shared.changes[Side::Query as usize], tensor: self.shared.q, at };
        for token in 0..self.block.queries as usize {
            let (pack, scratch) = own.pack.split_at_mut(dim);
            let value = values.row(lanes, token, pack);
            for row in token.saturating_sub(tile.first)..tile.rows {
                let query = queries.row(lanes, tile.first + row, scratch);
                let found: f32 = if own.odd[token] == 0 {
                    0.0
                } else {
                    let odd = query.iter().zip(value).filter(|(_, v)| !v.is_finite());
                    odd.map(|(q, v)| q * factor * v).sum()
                };
                for (scores, key) in own.scores.chunks_exact_mut(tile.width).zip(live.clone()) {
                    let weight = own.weights[key as usize * tokens + token];
                    if weight.is_nan() || weight != 0.0 && own.odd[token] != 0 {
                        scores[row] += weight * found;
                    }
                }
            }
        }
    }

    /// What the tokens leave at the keys that they teach.
    #[inline(always)]
    pub(super) fn teach(&self, lesson: &mut Lesson<'_, '_, E>, block: KeyBlock, claim: &mut Claim<'_>) {
        let Lesson { of: learning, layout, own } = lesson;
        let Shared { engine, .. } = self.shared;
        let lanes = engine.lanes();
        let Layout { dim, tokens, .. } = **layout;
        let KeyBlock { first, count, .. } = block;
        let packed = if layout.halves == 1 {
            &*own.weighed
        } else {
            let row = |key: usize| &own.weights[key * tokens..][..tokens];
            let rows = Halves { rows: row, cleans: own.has_odd_weights };
            self.pack_rows(&layout.leave, &rows, count as usize, own.pack, own.found);
            &*own.found
        };
        for channel in (0..dim).step_by(E::ROWS) {
            let channels = E::ROWS.min(dim - channel);
            let width = channels.next_multiple_of(E::ROW_STEP);
            let step = step(
                &layout.leave,
                [&own.left[layout.channels(channel)], packed],
                (0..count as usize, width),
                own.scratch,
            );
            called::scores(*engine, step, own.scores);
            for (key, left) in own.scores.chunks_exact(width).enumerate().take(count as usize) {
                let Some(row) = claim.kept_mut(0, first + key as u32) else { continue };
                let row = &mut row[channel..channel + channels];
                let whole = channels / E::Lanes::WIDTH * E::Lanes::WIDTH;
                let (vectors_of_row, rest) = row.split_at_mut(whole);
                for (at, to) in vectors_mut(lanes, vectors_of_row).iter_mut().enumerate() {
                    let left = load_f32(lanes, &left[at * E::Lanes::WIDTH..]);
                    *to = (F32::from_raw(lanes, *to) + left).raw();
                }
                for (to, left) in rest.iter_mut().zip(&left[whole..]) {
                    *to += left;
                }
            }
        }
        if own.has_odd_values || own.has_odd_weights {
            self.teach_odd(learning, layout, block, claim, own);
        }
    }

    /// Adds what tokens leave whose weights or values are no numbers.
    #[cold]
    fn teach_odd(
        &self,
        learning: &Learning<'_, E>,
        layout: &Layout,
        block: KeyBlock,
        claim: &mut Claim<'_>,
        own: &mut Own<'_>,
    ) {
        let values = self.token_rows(&learning.v_u);
        for token in 0..self.block.queries as usize {
            let value = values.row(self.shared.engine.lanes(), token, own.pack);
            for key in 0..block.count as usize {
                let weight = own.weights[key * layout.tokens + token];
                if !weight.is_nan() && (weight == 0.0 || own.odd[token] == 0) {
                    continue;
                }
                let Some(row) = claim.kept_mut(0, block.first + key as u32) else { continue };
                for (to, &v) in row.iter_mut().zip(value) {
                    if weight.is_nan() || !v.is_finite() {
                        *to += weight * v;
                    }
                }
            }
        }
    }
}

/// Scores alone: packed rows against some keys of a packed block.
#[inline(always)]
fn step<'a>(
    shape: &'a Shape,
    [query, packed]: [&'a [f32]; 2],
    (live, width): (Range<usize>, usize),
    scratch: &'a mut [f32],
) -> Step<'a> {
    let (first_key, live_keys) = (live.start, live.len());
    Step { shape, query, packed, first_key, live_keys, scratch, output: &mut [], width, stairs: None }
}
