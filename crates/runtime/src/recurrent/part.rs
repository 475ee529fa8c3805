//! A part of a task: some heads' states from the first chunk to the last.

use core::ops::Range;

use regard_engine::engine::LINE;
use regard_engine::grid::{Claim, Task};
use regard_engine::isa::Door;
use regard_engine::product::{Before, Matrix, Sizes};
use regard_engine::{Engine, Op};
use regard_ir::inputs::Captured;
use regard_ir::plan::Plan;
use regard_ir::problem::{Problem, Sequence};
use regard_ir::variant::{Decay, Recurrence, Variant};

use super::ahead::Ahead;
use super::chunk::{self, Decays, Rule};
use super::memory::{BLOCK, Layout, Memory};
use super::rows::{dot, scale};
use super::step::At;
use super::{cell, channels, ids, leaves_each};
use crate::code::{Code, Fault};
use crate::finish::Finish;
use crate::lines;
use crate::rows::Change;
use crate::view::View;

/// What all parts of a call share.
pub(super) struct Shared<'a, E: Engine> {
    pub engine: E,
    pub variant: &'a Variant<'a>,
    pub recurrence: Recurrence,
    pub problem: &'a Problem<'a>,
    pub code: &'a dyn Code<E::Lanes>,
    pub q: View<'a>,
    pub k: View<'a>,
    pub v: View<'a>,
    /// How rows of queries and keys change.
    pub changes: [Option<Change<'a>>; 2],
    pub captured: &'a Captured<'a>,
    pub fault: &'a Fault,
    pub layout: &'a Layout,
    pub plan: &'a Plan,
    /// How many of its last states are kept of each sequence.
    pub depth: usize,
    pub finish: Option<Finish<'a>>,
}

impl<E: Engine> Shared<'_, E> {
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

    /// The token after its last.
    const fn end(self) -> usize {
        self.first + self.count
    }

    /// Its rows and those that fill up a block.
    pub(super) fn rows(self) -> usize {
        self.count.next_multiple_of(BLOCK)
    }

    /// Rows of queries, keys and values that are written for it.
    pub(super) fn written(self) -> usize {
        if self.is_alone { self.count } else { self.rows() }
    }
}

/// What a part is of.
pub(super) struct Part<'s, 'a, E: Engine> {
    pub shared: &'s Shared<'a, E>,
    pub sequence: usize,
    pub of: Sequence,
    pub kv_head: usize,
    /// Value heads, counted in the task.
    pub heads: Range<usize>,
    /// Channels of their values.
    pub channels: Range<usize>,
    pub rule: Rule,
}

/// Takes some heads and channels of a task from its first token to its last.
#[inline(always)]
pub(super) fn run<E: Engine>(
    shared: &Shared<'_, E>,
    claim: &mut Claim<'_>,
    (heads, channels): (Range<usize>, Range<usize>),
    memory: &mut Memory<'_>,
) {
    let part = Part::new(shared, &claim.task(), (heads, channels));
    let causal = shared.recurrence.causal;
    let is_kept = claim.has_states();
    let tokens = part.of.keys as usize;
    if causal && leaves_each(shared.plan, tokens, shared.depth) {
        if !is_kept {
            part.begin(claim, memory);
        }
        let at = if is_kept { At::Caller } else { At::Worker };
        return part.one_by_one(claim, memory, (part.heads.clone(), 0..tokens), at);
    }
    part.begin(claim, memory);
    if causal {
        part.causal(claim, memory, 0..tokens);
    } else {
        part.add_all(memory, 0..tokens);
        part.read_all(claim, memory, 0..part.of.queries as usize);
    }
    part.end(claim, memory);
}

impl<'s, 'a, E: Engine> Part<'s, 'a, E> {
    /// Some heads and channels of a task.
    pub fn new(
        shared: &'s Shared<'a, E>,
        task: &Task,
        (heads, channels): (Range<usize>, Range<usize>),
    ) -> Self {
        let Recurrence { normalize_eps, delta, .. } = shared.recurrence;
        let rule = Rule {
            delta: delta.is_some(),
            has_given_keys: shared.changes[1].is_none() && !shared.code.modifies(),
            normalize_eps: normalize_eps.map(|eps| eps as f32),
            scale: if normalize_eps.is_some() { 1.0 } else { shared.variant.scale as f32 },
        };
        let (sequence, of) = (task.sequence as usize, shared.problem.sequence(task.sequence));
        Self { shared, sequence, of, kv_head: task.kv_head as usize, heads, channels, rule }
    }

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
    pub(super) fn begin(&self, claim: &mut Claim<'_>, memory: &mut Memory<'_>) {
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
        cell::begin(memory);
    }

    /// Gives the states back.
    #[inline(always)]
    pub(super) fn end(&self, claim: &mut Claim<'_>, memory: &mut Memory<'_>) {
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

    /// Some tokens, cell by cell and in these chunk by chunk: on the grid of absolute positions, and each chunk inside one document.
    #[inline(always)]
    pub(super) fn causal(&self, claim: &mut Claim<'_>, memory: &mut Memory<'_>, tokens: Range<usize>) {
        let Layout { adds, .. } = *self.shared.layout;
        let mut first = tokens.start;
        while first < tokens.end {
            let cell = first..self.next_multiple(first, self.shared.layout.cell()).min(tokens.end);
            if adds {
                cell::begin(memory);
            }
            while let Some(span) = self.next_chunk(memory, first..cell.end) {
                self.call(Chunk { part: self, claim: Some(claim), memory, span });
                first = span.end();
            }
            if adds {
                cell::end(self.shared.engine.lanes(), self.shared.layout, memory, self.heads.len());
            }
        }
    }

    /// The next chunk of some tokens of a cell, if there are any. What came before a document is forgotten.
    fn next_chunk(&self, memory: &mut Memory<'_>, tokens: Range<usize>) -> Option<Span> {
        let Range { start: first, end } = tokens;
        if first >= end {
            return None;
        }
        if self.restarts(first) {
            self.clear(memory);
        }
        let end = self.next_multiple(first, self.shared.layout.chunk).min(end);
        Some(Span::chunk(first, self.document_end(first, end) - first))
    }

    /// Runs what is large and is called from several places as a function of its own.
    #[inline(always)]
    pub(super) fn call<O: Op<Output = ()>>(&self, op: O) {
        self.shared.engine.lanes().call(op);
    }

    /// The token after one whose position is the next multiple of a length.
    const fn next_multiple(&self, token: usize, length: usize) -> usize {
        token + length - (self.before() + token) % length
    }

    /// Outputs of a chunk, and what it leaves of the states.
    #[inline(always)]
    fn read(&self, claim: &mut Claim<'_>, memory: &mut Memory<'_>, span: Span) {
        // What is no number would reach rows before its own, by factors of zero.
        if span.count > self.shared.layout.one_by_one && self.load(memory, span) {
            return self.step(claim, memory, span);
        }
        let tokens = span.first..span.end();
        if !self.shared.layout.adds {
            return self.one_by_one(claim, memory, (self.heads.clone(), tokens), At::Worker);
        }
        for (at, head) in self.heads.clone().enumerate() {
            cell::enter(self.shared.engine.lanes(), self.shared.layout, memory, at);
            self.one_by_one(claim, memory, (head..head + 1, tokens.clone()), At::Entering);
        }
        self.add_each(memory, tokens);
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

    /// One chunk, whose queries and keys are loaded.
    #[inline(always)]
    fn step(&self, claim: &mut Claim<'_>, memory: &mut Memory<'_>, span: Span) {
        let Shared { engine, layout, recurrence, .. } = self.shared;
        let (lanes, rows) = (engine.lanes(), span.rows());
        let by_channel = matches!(recurrence.decay, Decay::Channel(_));
        let mut ahead = self.ahead(span.end());
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
                channels::reading(lanes, layout, memory, rows, self.rule.delta);
                channels::writing(lanes, layout, memory, rows);
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
    fn ask_outputs(&self, claim: &mut Claim<'_>, head: usize, span: Span) {
        for query in span.first..span.end() {
            lines::ask(self.shared.engine.lanes(), claim.output(head, query as u32).as_ref());
        }
    }

    /// The chunk that begins with a token.
    fn ahead(&self, token: usize) -> Ahead<'_> {
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

    /// Adds some tokens to the states, cell by cell.
    #[inline(always)]
    pub(super) fn add_all(&self, memory: &mut Memory<'_>, tokens: Range<usize>) {
        let Shared { engine, layout, .. } = self.shared;
        let mut first = tokens.start;
        while first < tokens.end {
            let cell = first..self.next_multiple(first, layout.cell()).min(tokens.end);
            self.add_cell(memory, cell.clone());
            cell::end(engine.lanes(), layout, memory, self.heads.len());
            first = cell.end;
        }
    }

    /// Sums up what the tokens of a cell add.
    #[inline(always)]
    pub(super) fn add_cell(&self, memory: &mut Memory<'_>, cell: Range<usize>) {
        cell::begin(memory);
        let mut first = cell.start;
        while let Some(span) = self.next_chunk(memory, first..cell.end) {
            self.call(Chunk { part: self, claim: None, memory, span });
            first = span.end();
        }
    }

    /// What a chunk adds, as [`Part::read`] does it.
    #[inline(always)]
    fn add(&self, memory: &mut Memory<'_>, span: Span) {
        let Shared { engine, layout, .. } = self.shared;
        if span.count <= layout.one_by_one || !self.load_keys(memory, span) {
            return self.add_each(memory, span.first..span.end());
        }
        let width = self.channels.len().next_multiple_of(LINE);
        for (at, head) in self.heads.clone().enumerate() {
            let decays = self.decays(memory, head, span);
            if decays == Decays::Channels {
                channels::writing(engine.lanes(), layout, memory, span.rows());
            }
            let rule = (decays, self.rule);
            chunk::leave(*engine, layout, memory, (span.rows(), at, width), rule);
        }
    }

    /// What some queries read of the states, without a mask.
    #[inline(always)]
    pub(super) fn read_all(&self, claim: &mut Claim<'_>, memory: &mut Memory<'_>, queries: Range<usize>) {
        let Shared { engine, layout, .. } = self.shared;
        let Layout { chunk, dims, width: stride, .. } = **layout;
        let (lanes, width) = (engine.lanes(), self.channels.len().next_multiple_of(LINE));
        for first in queries.clone().step_by(chunk) {
            let span = Span::chunk(first, chunk.min(queries.end - first));
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

/// A chunk, of which outputs are asked for or what it adds alone.
struct Chunk<'p, 's, 'a, 'c, 'g, 'm, E: Engine> {
    part: &'p Part<'s, 'a, E>,
    claim: Option<&'p mut Claim<'g>>,
    memory: &'c mut Memory<'m>,
    span: Span,
}

impl<E: Engine> Op for Chunk<'_, '_, '_, '_, '_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { part, claim, memory, span } = self;
        match claim {
            Some(claim) => part.read(claim, memory, span),
            None => part.add(memory, span),
        }
    }
}
