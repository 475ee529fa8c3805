//! A part of a task: some heads' states from the first chunk to the last.

use core::ops::Range;

use regard_engine::Engine;
use regard_engine::element::Element;
use regard_engine::engine::LINE;
use regard_engine::grid::{Claim, Row};
use regard_engine::product::{Before, Matrix, Sizes};
use regard_ir::inputs::Captured;
use regard_ir::plan::Plan;
use regard_ir::problem::{Problem, Sequence};
use regard_ir::variant::{Decay, Recurrence, Variant};

use super::ahead::Ahead;
use super::chunk::{self, Decays, Rule};
use super::memory::{BLOCK, CELL, Layout, Memory};
use super::rows::{are_finite, dot, scale};
use super::{channels, ids, leaves_each};
use crate::code::{Code, Fault, Keys, Place};
use crate::finish::Finish;
use crate::lines;
use crate::rows::Change;
use crate::view::View;

/// What all parts of a call share.
pub(super) struct Shared<'a, E: Engine, T> {
    pub engine: E,
    pub variant: &'a Variant<'a>,
    pub recurrence: Recurrence,
    pub problem: &'a Problem<'a>,
    pub code: &'a dyn Code<E::Lanes>,
    pub q: View<'a, T>,
    pub k: View<'a, T>,
    pub v: View<'a, T>,
    /// How rows of queries and keys change.
    pub changes: [Option<Change<'a>>; 2],
    pub captured: &'a Captured<'a>,
    pub fault: &'a Fault,
    pub layout: &'a Layout,
    pub plan: &'a Plan,
    /// How many of its last states are kept of each sequence.
    pub depth: usize,
    pub finish: Option<Finish<'a, T>>,
}

impl<E: Engine, T: Element> Shared<'_, E, T> {
    /// Where the state of a head lies before a token of its sequence and after it, if states are kept.
    pub fn addresses(&self, claim: &Claim<'_, T>, head: usize, token: usize) -> Option<[*const f32; 2]> {
        let of = self.problem.sequence(claim.task().sequence);
        let address = |token| claim.state_address(head, self.state_number(&of, token) * self.layout.dim);
        Some([address(token)?, address(token + 1)?])
    }

    /// Tokens of a sequence that came before its first, and are in its state.
    const fn before(&self, of: &Sequence) -> usize {
        if self.recurrence.causal { of.q_offset as usize } else { 0 }
    }

    /// Which of the kept states of a head is that before a token of its sequence.
    pub const fn state_number(&self, of: &Sequence, token: usize) -> usize {
        (self.before(of) + token) % self.depth
    }
}

/// Some tokens of a sequence.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub first: usize,
    pub count: usize,
    /// Whether its rows are no factors of products, so that nothing is to fill up a block.
    is_alone: bool,
}

impl Span {
    /// Tokens of a chunk.
    const fn chunk(first: usize, count: usize) -> Self {
        Self { first, count, is_alone: false }
    }

    /// One token.
    pub(super) const fn token(first: usize) -> Self {
        Self { first, count: 1, is_alone: true }
    }

    /// Its rows and those that fill up a block.
    fn rows(self) -> usize {
        self.count.next_multiple_of(BLOCK)
    }

    /// Rows of queries, keys and values that are written for it.
    fn written(self) -> usize {
        if self.is_alone { self.count } else { self.rows() }
    }
}

/// What a part is of.
pub(super) struct Part<'s, 'a, E: Engine, T> {
    pub shared: &'s Shared<'a, E, T>,
    sequence: usize,
    pub of: Sequence,
    kv_head: usize,
    /// Value heads, counted in the task.
    pub heads: Range<usize>,
    /// Channels of their values.
    pub channels: Range<usize>,
    pub rule: Rule,
    /// Where the state lies that the worker takes next, and what comes of it after a token.
    pub ahead: Option<[*const f32; 2]>,
}

/// Takes some heads and channels of a task from its first token to its last.
#[inline(always)]
pub(super) fn run<E: Engine, T: Element>(
    shared: &Shared<'_, E, T>,
    claim: &mut Claim<'_, T>,
    (heads, channels): (Range<usize>, Range<usize>),
    (memory, ahead): (&mut Memory<'_>, Option<[*const f32; 2]>),
) {
    let task = claim.task();
    let Recurrence { normalize_eps, delta, causal, .. } = shared.recurrence;
    let rule = Rule {
        delta: delta.is_some(),
        has_given_keys: shared.changes[1].is_none() && !shared.code.modifies(),
        normalize_eps: normalize_eps.map(|eps| eps as f32),
        scale: if normalize_eps.is_some() { 1.0 } else { shared.variant.scale as f32 },
    };
    let (sequence, of) = (task.sequence as usize, shared.problem.sequence(task.sequence));
    let part = Part { shared, sequence, of, kv_head: task.kv_head as usize, heads, channels, rule, ahead };
    let is_kept = claim.has_states();
    let tokens = part.of.keys as usize;
    if causal && leaves_each(shared.plan, tokens, shared.depth) {
        if !is_kept {
            part.begin(claim, memory);
        }
        return part.one_by_one(claim, memory, 0..tokens, is_kept);
    }
    part.begin(claim, memory);
    if causal {
        part.causal(claim, memory)
    } else {
        part.all_keys(claim, memory)
    }
    part.end(claim, memory);
}

impl<E: Engine, T: Element> Part<'_, '_, E, T> {
    /// Tokens that came before the first, and are in its state.
    const fn before(&self) -> usize {
        self.shared.before(&self.of)
    }

    /// Which of the kept states of a head is that before a token.
    pub(super) const fn state_number(&self, token: usize) -> usize {
        self.shared.state_number(&self.of, token)
    }

    /// Rows of all states that are kept of a head.
    pub(super) const fn all_rows(&self) -> Range<usize> {
        0..self.shared.depth * self.shared.layout.dim
    }

    /// The state of each head before the first token.
    #[inline(always)]
    fn begin(&self, claim: &mut Claim<'_, T>, memory: &mut Memory<'_>) {
        let Layout { dim, dims, width, .. } = *self.shared.layout;
        self.clear(memory);
        let number = self.state_number(0);
        for (at, head) in self.heads.clone().enumerate() {
            if let Some(mut state) = claim.state(head, number * dim..(number + 1) * dim) {
                for (c, to) in
                    memory.states[at * dims * width..].chunks_exact_mut(width).take(dim).enumerate()
                {
                    to[..self.channels.len()].copy_from_slice(state.row(c));
                }
            }
            if self.rule.normalize_eps.is_some()
                && let Some(mut norm) = claim.norm(head, number..number + 1)
            {
                memory.norms[at * dims..][..dim].copy_from_slice(norm.row(0));
            }
        }
    }

    /// Forgets all.
    fn clear(&self, memory: &mut Memory<'_>) {
        memory.states.fill(0.0);
        memory.norms.fill(0.0);
        memory.lost.iter_mut().for_each(|lost| lost.fill(0.0));
    }

    /// Gives the states back.
    #[inline(always)]
    fn end(&self, claim: &mut Claim<'_, T>, memory: &mut Memory<'_>) {
        let Layout { dim, dims, width, .. } = *self.shared.layout;
        let number = self.state_number(self.of.keys as usize);
        for (at, head) in self.heads.clone().enumerate() {
            if let Some(mut state) = claim.state(head, number * dim..(number + 1) * dim) {
                for (c, from) in memory.states[at * dims * width..].chunks_exact(width).take(dim).enumerate()
                {
                    state.row(c).copy_from_slice(&from[..self.channels.len()]);
                }
            }
            if self.rule.normalize_eps.is_some()
                && let Some(mut norm) = claim.norm(head, number..number + 1)
            {
                norm.row(0).copy_from_slice(&memory.norms[at * dims..][..dim]);
            }
        }
    }

    /// Chunk by chunk, each on the grid of absolute positions and inside one document.
    #[inline(always)]
    fn causal(&self, claim: &mut Claim<'_, T>, memory: &mut Memory<'_>) {
        let (tokens, chunk, before) = (self.of.keys as usize, self.shared.layout.chunk, self.before());
        let mut first = 0;
        while first < tokens {
            let position = before + first;
            let end = (first + chunk - position % chunk).min(tokens);
            let end = self.document_end(first, end);
            if self.restarts(first) {
                self.clear(memory);
            } else if position.is_multiple_of(CELL * chunk) {
                memory.lost.iter_mut().for_each(|lost| lost.fill(0.0));
            }
            let span = Span::chunk(first, end - first);
            // What is no number would reach rows before its own, by factors of zero.
            if span.count > self.shared.layout.one_by_one && self.load(memory, span) {
                self.step(claim, memory, span);
            } else {
                self.one_by_one(claim, memory, first..end, false);
            }
            first = end;
        }
    }

    /// Where the document of a token ends, if before an end.
    fn document_end(&self, token: usize, end: usize) -> usize {
        match self.shared.recurrence.restart {
            None => end,
            Some(_) => (token + 1..end).find(|&token| self.restarts(token)).unwrap_or(end),
        }
    }

    /// Whether a token is the first of a document that is not the sequence's first.
    pub(super) fn restarts(&self, token: usize) -> bool {
        let Some(input) = self.shared.recurrence.restart.filter(|_| token > 0) else { return false };
        let captured = self.shared.captured;
        let id = |t: usize| {
            let offset = captured.offset(input.into(), &[self.sequence as i32, t as i32]);
            offset.and_then(|offset| ids(captured, input).get(offset).copied())
        };
        id(token) != id(token - 1)
    }

    /// Loads queries and keys of some tokens, and says whether keys, and values of all heads, are numbers.
    #[inline(always)]
    fn load(&self, memory: &mut Memory<'_>, span: Span) -> bool {
        let Shared { engine, layout, .. } = self.shared;
        let lanes = engine.lanes();
        self.features(0, memory, span);
        self.features(1, memory, span);
        let mut finite = are_finite(lanes, &memory.k[..span.rows() * layout.dims]);
        for (at, head) in self.heads.clone().enumerate() {
            let values = self.values(memory, (at, head), span);
            finite &= are_finite(lanes, values);
        }
        finite
    }

    /// Writes features of queries (0) or keys (1) to their rows of `memory`; rows past the last token are zero.
    #[inline(always)]
    pub(super) fn features(&self, side: usize, memory: &mut Memory<'_>, span: Span) {
        let Shared { engine, layout, q, k, changes, code, .. } = self.shared;
        let (lanes, Layout { dim, dims, .. }) = (engine.lanes(), **layout);
        let (tensor, first, to) = match side {
            0 => (q, self.of.first_query, &mut *memory.q),
            _ => (k, self.of.first_key, &mut *memory.k),
        };
        let to = &mut to[..span.written() * dims];
        let (own, rest) = to.split_at_mut(span.count * dims);
        rest.fill(0.0);
        let token = first as usize + span.first;
        let at = [self.of.batch as usize, self.kv_head, token];
        read_rows::<E, T>(*engine, tensor, (at, span.count), 0..dim, (own, dims));
        if let Some(change) = &changes[side] {
            change.apply_all(at, dim, own, dims);
        }
        if code.modifies() {
            let zeros = [0; LINE];
            let place = Place {
                b: self.sequence as i32,
                g: self.kv_head as i32,
                nq: self.of.queries as i32,
                nk: self.of.keys as i32,
                q: &zeros,
                h: &zeros,
                first_key: 0,
                keys: Keys::Rows,
                captured: self.shared.captured,
                fault: self.shared.fault,
            };
            code.apply(lanes, &place, own, false, memory.code);
            own.chunks_exact_mut(dims).for_each(|row| row[dim..].fill(0.0));
        }
    }

    /// Writes values of a head of the part, with its number among the task's, to their rows; those past the last token are zero.
    #[inline(always)]
    pub(super) fn values<'m>(
        &self,
        memory: &'m mut Memory<'_>,
        (at, head): (usize, usize),
        span: Span,
    ) -> &'m [f32] {
        let Shared { engine, layout, v, variant, .. } = self.shared;
        let stride = layout.width;
        let all = &mut memory.values[at * layout.chunk * stride..][..span.written() * stride];
        let (own, rest) = all.split_at_mut(span.count * stride);
        rest.fill(0.0);
        let token = self.of.first_key as usize + span.first;
        let at = [self.of.batch as usize, self.value_head(variant, head), token];
        read_rows::<E, T>(*engine, v, (at, span.count), self.channels.clone(), (own, stride));
        all
    }

    /// A value head of the task, counted over all.
    fn value_head(&self, variant: &Variant<'_>, head: usize) -> usize {
        self.kv_head * (variant.heads.value / variant.heads.kv) as usize + head
    }

    /// One chunk, whose queries and keys are loaded.
    #[inline(always)]
    fn step(&self, claim: &mut Claim<'_, T>, memory: &mut Memory<'_>, span: Span) {
        let Shared { engine, layout, recurrence, .. } = self.shared;
        let (lanes, rows) = (engine.lanes(), span.rows());
        let by_channel = matches!(recurrence.decay, Decay::Channel(_));
        let mut ahead = self.ahead(span.first + span.count);
        // As often as `ask` is called: for each block of each product, and between products.
        let calls = (rows / BLOCK + 2) * self.heads.len() + if by_channel { 0 } else { rows / BLOCK };
        let tokens = layout.chunk.div_ceil(calls);
        let mut ask = || ahead.ask(lanes, tokens);
        if !by_channel {
            chunk::products(*engine, layout, memory, (rows, self.rule.delta), &mut ask);
        }
        for (at, head) in self.heads.clone().enumerate() {
            self.ask_outputs(claim, head, span);
            self.strengths(memory, head, span);
            let decays = self.decays(memory, head, span);
            if decays == Decays::Channels {
                channels::pairs(*engine, layout, memory, rows, self.rule);
                channels::rows(lanes, layout, memory, rows, self.rule.delta);
            } else {
                chunk::weigh(lanes, layout, memory, rows, (decays, self.rule));
            }
            let width = self.channels.len().next_multiple_of(LINE);
            chunk::step(*engine, layout, memory, (rows, at, width), (decays, self.rule), &mut ask);
            self.write(claim, memory, head, span);
        }
    }

    /// Asks for the rows that outputs of a chunk go to.
    #[inline(always)]
    fn ask_outputs(&self, claim: &mut Claim<'_, T>, head: usize, span: Span) {
        for query in span.first..span.first + span.count {
            if let Row::Stored(row) = claim.output(head, query as u32) {
                lines::ask(self.shared.engine.lanes(), row);
            }
        }
    }

    /// The chunk that begins with a token.
    fn ahead(&self, token: usize) -> Ahead<'_, T> {
        let Shared { layout, q, k, v, variant, .. } = self.shared;
        let (queries, keys) = (self.of.first_query as usize, self.of.first_key as usize);
        let sequence = self.of.batch as usize;
        Ahead {
            tensors: [*q, *k, *v],
            places: [
                [sequence, self.kv_head, queries],
                [sequence, self.kv_head, keys],
                [sequence, self.value_head(variant, self.heads.start), keys],
            ],
            heads: self.heads.len(),
            tokens: token..(token + layout.chunk).min(self.of.keys as usize),
        }
    }

    /// How strongly a delta rule writes each row.
    #[inline(always)]
    pub(super) fn strengths(&self, memory: &mut Memory<'_>, head: usize, span: Span) {
        let Some(input) = self.shared.recurrence.delta else { return };
        let [.., betas] = &mut memory.factors;
        betas.fill(0.0);
        for (row, to) in betas[..span.count].iter_mut().enumerate() {
            *to = self.of_token(input, head, span.first + row).first().copied().unwrap_or(0.0);
        }
    }

    /// Elements of an input from those of a token of a head on.
    #[inline(always)]
    fn of_token(&self, input: u16, head: usize, token: usize) -> &[f32] {
        let Shared { captured, variant, .. } = self.shared;
        let index = [self.sequence as i32, self.value_head(variant, head) as i32, token as i32, 0];
        let offset = captured.offset(input.into(), &index);
        offset.zip(captured.floats(input)).and_then(|(offset, data)| data.get(offset..)).unwrap_or_default()
    }

    /// Reads the decays of a head's rows; those past the last token have none.
    #[inline(always)]
    pub(super) fn decays(&self, memory: &mut Memory<'_>, head: usize, span: Span) -> Decays {
        let Shared { engine, layout, captured, variant, recurrence, .. } = self.shared;
        let (lanes, rows) = (engine.lanes(), span.rows());
        match recurrence.decay {
            Decay::None => return Decays::None,
            Decay::Head(input) => {
                let of_head =
                    captured.floats(input).and_then(|data| data.get(self.value_head(variant, head)));
                let log = of_head.copied().unwrap_or(0.0);
                chunk::scalar(lanes, memory, rows, |row| if row < span.count { log } else { 0.0 });
            }
            Decay::Token(input) => chunk::scalar(lanes, memory, rows, |row| {
                let log = |row| self.of_token(input, head, span.first + row).first().copied().unwrap_or(0.0);
                if row < span.count { log(row) } else { 0.0 }
            }),
            Decay::Channel(input) => {
                channels::sums(lanes, layout, memory, rows, |row, to| {
                    to.fill(0.0);
                    if row < span.count {
                        let (logs, dim) = (self.of_token(input, head, span.first + row), layout.dim);
                        to[..dim].copy_from_slice(&logs[..dim]);
                    }
                });
                return Decays::Channels;
            }
        }
        Decays::Tokens
    }

    /// Finishes and stores the outputs of a chunk.
    #[inline(always)]
    pub(super) fn write(&self, claim: &mut Claim<'_, T>, memory: &mut Memory<'_>, head: usize, span: Span) {
        let Shared { engine, layout, variant, finish, .. } = self.shared;
        for (row, o) in memory.o.chunks_exact_mut(layout.width).take(span.count).enumerate() {
            let (query, o) = (span.first + row, &mut o[..self.channels.len()]);
            if let Some(finish) = finish {
                let token = self.of.first_query as usize + query;
                let at = [self.of.batch as usize, self.value_head(variant, head), token];
                finish.apply(engine.lanes(), at, o, memory.finish);
            }
            claim.output(head, query as u32).write(engine.lanes(), o);
        }
    }

    /// Without a mask: the state of all keys, and then what each query reads of it.
    #[inline(always)]
    fn all_keys(&self, claim: &mut Claim<'_, T>, memory: &mut Memory<'_>) {
        let Shared { engine, layout, .. } = self.shared;
        let Layout { chunk, dims, width: stride, .. } = **layout;
        let (lanes, width) = (engine.lanes(), self.channels.len().next_multiple_of(LINE));
        let spans = |tokens: u32| {
            let tokens = tokens as usize;
            (0..tokens).step_by(chunk).map(move |first| Span::chunk(first, chunk.min(tokens - first)))
        };
        for span in spans(self.of.keys) {
            self.features(1, memory, span);
            for (at, head) in self.heads.clone().enumerate() {
                self.values(memory, (0, head), span);
                let rule = (Decays::None, self.rule);
                chunk::write(*engine, layout, memory, (span.rows(), (at, 0), width), rule);
                if self.rule.normalize_eps.is_some() {
                    chunk::sum_features(lanes, layout, memory, (span.rows(), at), Decays::None);
                }
            }
        }
        for span in spans(self.of.queries) {
            self.features(0, memory, span);
            for (at, head) in self.heads.clone().enumerate() {
                let Memory { q, o, states, norms, right: [_, room, _], left, .. } = &mut *memory;
                let state = &states[at * dims * stride..][..dims * stride];
                let state = engine.right(Matrix::rows(state, stride), [dims, width], room);
                let sizes = Sizes { rows: span.rows(), depth: dims, columns: width };
                engine.multiply(sizes, (Matrix::rows(q, dims), state), (o, stride), Before::Replaced, left);
                for (query, o) in q.chunks_exact(dims).zip(o.chunks_exact_mut(stride)).take(span.count) {
                    let o = &mut o[..width];
                    match self.rule.normalize_eps {
                        Some(eps) => {
                            let divisor = dot(lanes, query, &norms[at * dims..][..dims]) + eps;
                            scale(lanes, o, 1.0 / divisor);
                        }
                        None => scale(lanes, o, self.rule.scale),
                    }
                }
                self.write(claim, memory, head, span);
            }
        }
    }
}

/// Writes some channels of rows, of which the first is given, to rows so far apart; what of these is left is zero.
#[inline(always)]
fn read_rows<E: Engine, T: Element>(
    engine: E,
    from: &View<'_, T>,
    (at, count): ([usize; 3], usize),
    channels: Range<usize>,
    (to, stride): (&mut [f32], usize),
) {
    let lanes = engine.lanes();
    if channels == (0..stride)
        && from.width() == stride
        && let Some(block) = from.block(at, count)
    {
        return T::widen_into(lanes, block, to);
    }
    let [sequence, head, token] = at;
    for (row, to) in to.chunks_exact_mut(stride).enumerate() {
        let (to, padding) = to.split_at_mut(channels.len());
        T::widen_into(lanes, &from.row(sequence, head, token + row)[channels.clone()], to);
        padding.fill(0.0);
    }
}
