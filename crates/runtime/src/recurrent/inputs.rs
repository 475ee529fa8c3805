//! What the tokens of a chunk are: rows of queries, keys and values, how strongly they write and decay; and where outputs go.

use core::ops::Range;

use regard_engine::Engine;
use regard_engine::engine::LINE;
use regard_engine::grid::Claim;
use regard_ir::variant::{Decay, Variant};

use super::chunk::{self, Decays};
use super::memory::{Layout, Memory};
use super::part::{Part, Shared, Span};
use super::rows::are_finite;
use super::{channels, kept};
use crate::code::{Keys, Place};
use crate::view::View;

impl<E: Engine> Part<'_, '_, E> {
    /// Loads queries and keys of some tokens, and says whether keys, and values of all heads, are numbers.
    #[inline(always)]
    pub(super) fn load(&self, memory: &mut Memory<'_>, span: Span) -> bool {
        self.features(0, memory, span);
        self.load_keys(memory, span)
    }

    /// The same of keys alone.
    #[inline(always)]
    pub(super) fn load_keys(&self, memory: &mut Memory<'_>, span: Span) -> bool {
        let Shared { engine, layout, .. } = self.shared;
        let lanes = engine.lanes();
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
        read_rows::<E>(*engine, tensor, (at, span.count), 0..dim, (own, dims));
        if let Some(change) = &changes[side] {
            change.apply_all(at, dim, own, dims);
        }
        if code.modifies() {
            let zeros = [0; LINE];
            let place = Place {
                b: self.sequence as i32,
                g: self.kv_head as i32,
                heads: self.shared.variant.heads.query,
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
        read_rows::<E>(*engine, v, (at, span.count), self.channels.clone(), (own, stride));
        all
    }

    /// A value head of the task, counted over all.
    pub(super) fn value_head(&self, variant: &Variant<'_>, head: usize) -> usize {
        self.kv_head * (variant.heads.value / variant.heads.kv) as usize + head
    }

    /// How strongly a delta rule writes each row.
    #[inline(always)]
    pub(super) fn strengths(&self, memory: &mut Memory<'_>, head: usize, span: Span) {
        let Some(input) = self.shared.recurrence.delta else { return };
        let [.., betas] = &mut memory.factors;
        betas.fill(0.0);
        let (given, apart) = self.of_tokens(input, head, span.first);
        for (row, to) in betas[..span.count].iter_mut().enumerate() {
            *to = given.get(row * apart).copied().unwrap_or(0.0);
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

    /// Elements of an input of one number a token, from that of a token of a head on, and how far apart tokens are: those of packed
    /// sequences have all heads between them.
    #[inline(always)]
    fn of_tokens(&self, input: u16, head: usize, token: usize) -> (&[f32], usize) {
        let (first, second) = (self.of_token(input, head, token), self.of_token(input, head, token + 1));
        // After the last there is none.
        (first, if second.is_empty() { 1 } else { first.len() - second.len() })
    }

    /// The log decay of a head.
    fn head_log(&self, input: u16, head: usize) -> f32 {
        let Shared { captured, variant, .. } = self.shared;
        let of_head = captured.floats(input).and_then(|data| data.get(self.value_head(variant, head)));
        of_head.copied().unwrap_or(0.0)
    }

    /// The log decay of a token of a head.
    fn token_log(&self, input: u16, head: usize, token: usize) -> f32 {
        self.of_token(input, head, token).first().copied().unwrap_or(0.0)
    }

    /// Reads the decays of a head's rows; those past the last token have none.
    #[inline(always)]
    pub(super) fn decays(&self, memory: &mut Memory<'_>, head: usize, span: Span) -> Decays {
        let Shared { engine, layout, recurrence, .. } = self.shared;
        let (lanes, rows) = (engine.lanes(), span.rows());
        match recurrence.decay {
            Decay::None => return Decays::None,
            Decay::Head(input) => {
                let log = self.head_log(input, head);
                chunk::scalar(lanes, memory, rows, |row| if row < span.count { log } else { 0.0 });
            }
            Decay::Token(input) => {
                let (given, apart) = self.of_tokens(input, head, span.first);
                let log = |row: usize| given.get(row * apart).copied().unwrap_or(0.0);
                chunk::scalar(lanes, memory, rows, |row| if row < span.count { log(row) } else { 0.0 });
            }
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

    /// Leaves what is left of the rows of a head's state after a single token.
    #[inline(always)]
    pub(super) fn keep(&self, memory: &mut Memory<'_>, head: usize, token: usize) {
        let Shared { engine, layout, recurrence, .. } = self.shared;
        let lanes = engine.lanes();
        let keep = &mut memory.keep;
        match recurrence.decay {
            Decay::None => kept::all(keep),
            Decay::Head(input) => kept::of_all(lanes, self.head_log(input, head), keep),
            Decay::Token(input) => kept::of_all(lanes, self.token_log(input, head, token), keep),
            Decay::Channel(input) => {
                keep[0].fill(0.0);
                keep[0][..layout.dim].copy_from_slice(&self.of_token(input, head, token)[..layout.dim]);
                kept::of_rows(lanes, keep);
            }
        }
    }

    /// Finishes and stores the outputs of a chunk.
    #[inline(always)]
    pub(super) fn write(&self, claim: &mut Claim<'_>, memory: &mut Memory<'_>, head: usize, span: Span) {
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
}

/// Writes some channels of rows, of which the first is given, to rows so far apart; what of these is left is zero.
#[inline(always)]
fn read_rows<E: Engine>(
    engine: E,
    from: &View<'_>,
    (at, count): ([usize; 3], usize),
    channels: Range<usize>,
    (to, stride): (&mut [f32], usize),
) {
    let lanes = engine.lanes();
    if channels == (0..stride)
        && from.width() == stride
        && let Some(block) = from.block(at, count)
    {
        return block.widen_into(lanes, to);
    }
    let [sequence, head, token] = at;
    for (row, to) in to.chunks_exact_mut(stride).enumerate() {
        let (to, padding) = to.split_at_mut(channels.len());
        from.row(sequence, head, token + row).part(channels.clone()).widen_into(lanes, to);
        padding.fill(0.0);
    }
}
