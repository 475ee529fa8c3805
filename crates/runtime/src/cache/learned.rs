//! Lookahead keys of cached sequences, and the tokens that they are still to learn from for good.
//!
//! What a token teaches is added to the keys before it [`LESSON`] tokens at a time, and until then is added up by each call that
//! reads them: of the tokens that wait, `v_u` is kept, and what each weighs for each key. So a step of decoding writes nothing,
//! keys are written once in so many steps instead of in each, what they ask is read once for a token, when it is appended, and
//! tokens that wait can be taken back.

#[cfg(feature = "alloc")]
use alloc::vec;
#[cfg(feature = "alloc")]
use alloc::vec::Vec;

use regard_engine::cached::{LANES, packed_row};
use regard_engine::grid::GridError;
use regard_ir::cache::PageShape;
use regard_ir::problem::MAX_FEW;

use crate::view::ViewMut;

/// Keys learn for good from the tokens before a multiple of so many.
pub const LESSON: usize = 16;

/// The most tokens that wait: those since the last lesson, and those of one call.
pub const WAITING: usize = LESSON + MAX_FEW as usize;

/// Sizes of what a sequence has beside its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedShape {
    /// Heads.
    pub heads: usize,
    /// Numbers from one row to the next: channels in whole panels, those past the last zero.
    pub stride: usize,
    /// Tokens that each head has room for, whole pages.
    pub room: usize,
    /// Tokens of a page.
    pub page: usize,
    /// Numbers of a packed row of `k_u`.
    pub packed: usize,
}

impl LearnedShape {
    /// Of sequences of so many tokens in pages of a shape.
    pub fn new(page: &PageShape, tokens: usize) -> Self {
        Self {
            heads: page.key_head_count(),
            stride: page.keys.channels.next_multiple_of(LANES),
            room: tokens.next_multiple_of(page.tokens),
            page: page.tokens,
            packed: packed_row(&page.keys),
        }
    }

    /// Numbers of a sequence's lookahead keys; saturates.
    pub const fn keys_len(&self) -> usize {
        self.heads.saturating_mul(self.room).saturating_mul(self.stride)
    }

    /// Numbers of what the tokens that wait weigh for a sequence's keys; saturates.
    pub const fn weights_len(&self) -> usize {
        self.heads.saturating_mul(self.room).saturating_mul(WAITING)
    }

    /// Numbers of both; saturates.
    pub const fn memory_len(&self) -> usize {
        self.keys_len().saturating_add(self.weights_len())
    }

    /// Which row of a page's weights is of the token at a position: those that wait have rows of their own.
    pub(crate) const fn weights_row(position: usize) -> usize {
        position % WAITING
    }

    /// Numbers of the tokens of a sequence that wait.
    pub const fn waiting_len(&self) -> usize {
        self.heads * self.head_len()
    }

    const fn head_len(&self) -> usize {
        WAITING * (self.packed + self.stride)
    }
}

/// What a sequence has beside its pages, to be read.
#[derive(Clone, Copy, Debug)]
pub struct Learned<'a> {
    /// How it lies.
    pub shape: LearnedShape,
    /// Lookahead keys, `[head][token]` rows.
    pub keys: &'a [f32],
    /// What the tokens that wait weigh for them, `[page][head][WAITING][key]`.
    pub weights: &'a [f32],
    /// Of each head the `k_u` of the tokens that wait, packed, and then their `v_u`.
    pub waiting: &'a [f32],
    /// How many tokens the keys have learned from.
    pub taught: u32,
}

impl<'a> Learned<'a> {
    /// The keys of a head at some tokens, as the last lesson left them.
    #[inline(always)]
    pub fn keys(&self, head: usize, first: usize, count: usize) -> &'a [f32] {
        let LearnedShape { stride, room, .. } = self.shape;
        &self.keys[(head * room + first) * stride..][..count * stride]
    }

    /// What the tokens that wait weigh for the keys of the page that begins with token `first`; none past the last page.
    #[inline(always)]
    pub fn weights(&self, head: usize, first: usize) -> &'a [f32] {
        let LearnedShape { heads, room, page, .. } = self.shape;
        let begin = (first * heads + head * page) * WAITING;
        if first < room { &self.weights[begin..][..page * WAITING] } else { &[] }
    }

    /// The packed `k_u` of the tokens of a head that wait, from one of them on.
    #[inline(always)]
    pub fn askers(&self, head: usize, from: usize) -> &'a [f32] {
        let packed = self.shape.packed;
        &self.waiting[head * self.shape.head_len()..][from * packed..WAITING * packed]
    }

    /// The `v_u` of all of them.
    #[inline(always)]
    pub fn values(&self, head: usize) -> &'a [f32] {
        let behind = WAITING * self.shape.packed;
        &self.waiting[head * self.shape.head_len() + behind..][..WAITING * self.shape.stride]
    }
}

/// What a sequence has beside its pages, to be written.
#[derive(Debug)]
pub struct LearnedMut<'a> {
    /// How it lies.
    pub shape: LearnedShape,
    /// As [`Learned::keys`].
    pub keys: &'a mut [f32],
    /// As [`Learned::weights`].
    pub weights: &'a mut [f32],
    /// As [`Learned::waiting`].
    pub waiting: &'a mut [f32],
    /// How many tokens the keys have learned from.
    pub taught: &'a mut u32,
    /// The tokens that can be taken back; none where those that are appended wait for no lesson, as a prefill gives it.
    pub kept: Option<u32>,
}

impl LearnedMut<'_> {
    /// The same for a while; whether tokens wait.
    pub(crate) fn reborrow(&mut self, waits: bool) -> LearnedMut<'_> {
        let Self { shape, keys, weights, waiting, taught, kept } = self;
        LearnedMut { shape: *shape, keys, weights, waiting, taught, kept: kept.filter(|_| waits) }
    }

    /// The first keys of each head, of so many channels: `[1][head][token]`.
    pub(crate) fn rows(&mut self, tokens: usize, dim: usize) -> Result<ViewMut<'_>, GridError> {
        let LearnedShape { heads, stride, room, .. } = self.shape;
        ViewMut::new(self.keys, [1, heads, tokens], [0, room * stride, stride], dim)
    }

    /// How many tokens the keys are to have learned from before `count` more follow `len`, if that is more than they have.
    pub fn due(&self, len: u32, count: u32) -> Option<u32> {
        let until = match self.kept {
            None => len,
            Some(kept) => {
                let until = (len + count).saturating_sub(kept.max(count));
                until - until % LESSON as u32
            }
        };
        (until > *self.taught).then_some(until)
    }

    /// Drops the first of the tokens that wait: keys have learned from all before `until`.
    pub(crate) fn drop_until(&mut self, until: u32) {
        let LearnedShape { heads, stride, packed, .. } = self.shape;
        let count = (until - *self.taught) as usize;
        for head in 0..heads {
            let of_head = &mut self.waiting[head * self.shape.head_len()..][..self.shape.head_len()];
            let (askers, values) = of_head.split_at_mut(WAITING * packed);
            askers.copy_within(count * packed.., 0);
            values.copy_within(count * stride.., 0);
        }
        *self.taught = until;
    }

    /// The row of a token's key in a head.
    pub(crate) fn key_mut(&mut self, head: usize, token: usize) -> &mut [f32] {
        let LearnedShape { stride, room, .. } = self.shape;
        &mut self.keys[(head * room + token) * stride..][..stride]
    }

    /// Where a token of a head that waits has its packed `k_u` and its `v_u`.
    pub(crate) fn waiting_mut(&mut self, head: usize, token: usize) -> [&mut [f32]; 2] {
        let LearnedShape { stride, packed, .. } = self.shape;
        let at = token - *self.taught as usize;
        let of_head = &mut self.waiting[head * self.shape.head_len()..][..self.shape.head_len()];
        let (askers, values) = of_head.split_at_mut(WAITING * packed);
        [&mut askers[at * packed..][..packed], &mut values[at * stride..][..stride]]
    }
}

/// What all sequences of a cache have beside their pages, but for the keys, whose memory is given.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug)]
pub struct Lessons {
    shape: LearnedShape,
    /// Tokens that can be taken back.
    kept: u32,
    taught: Vec<u32>,
    waiting: Vec<f32>,
}

#[cfg(feature = "alloc")]
impl Lessons {
    /// Of so many sequences, whose last `kept` tokens, at most [`MAX_FEW`], can be taken back.
    pub fn new(shape: LearnedShape, sequences: usize, kept: u32) -> Self {
        Self {
            shape,
            kept: kept.clamp(1, MAX_FEW),
            taught: vec![0; sequences],
            waiting: vec![0.0; sequences * shape.waiting_len()],
        }
    }

    /// How many tokens the keys of a sequence have learned from: it cannot be cut to fewer.
    pub fn taught(&self, sequence: usize) -> u32 {
        self.taught[sequence]
    }

    /// Begins a sequence anew.
    pub fn clear(&mut self, sequence: usize) {
        self.taught[sequence] = 0;
    }

    /// Gives a sequence what another has, which is `len` tokens long.
    pub fn fork(&mut self, memory: &mut [f32], [from, to]: [usize; 2], len: usize) {
        let LearnedShape { heads, stride, room, page, .. } = self.shape;
        let [begin, end] = [from, to].map(|sequence| sequence * self.shape.memory_len());
        for head in 0..heads {
            let keys = head * room * stride;
            memory.copy_within(begin + keys..begin + keys + len * stride, end + keys);
        }
        let (weights, all) = (self.shape.keys_len(), len.next_multiple_of(page) * heads * WAITING);
        memory.copy_within(begin + weights..begin + weights + all, end + weights);
        let waiting = self.shape.waiting_len();
        self.waiting.copy_within(from * waiting..(from + 1) * waiting, to * waiting);
        self.taught[to] = self.taught[from];
    }

    /// What a sequence has.
    pub fn learned<'a>(&'a self, memory: &'a [f32], sequence: usize) -> Learned<'a> {
        let (len, waiting) = (self.shape.memory_len(), self.shape.waiting_len());
        let (keys, weights) = memory[sequence * len..][..len].split_at(self.shape.keys_len());
        Learned {
            shape: self.shape,
            keys,
            weights,
            waiting: &self.waiting[sequence * waiting..][..waiting],
            taught: self.taught[sequence],
        }
    }

    /// The same, to be written.
    pub fn learned_mut<'a>(&'a mut self, memory: &'a mut [f32], sequence: usize) -> LearnedMut<'a> {
        let (len, waiting) = (self.shape.memory_len(), self.shape.waiting_len());
        let (keys, weights) = memory[sequence * len..][..len].split_at_mut(self.shape.keys_len());
        LearnedMut {
            shape: self.shape,
            keys,
            weights,
            waiting: &mut self.waiting[sequence * waiting..][..waiting],
            taught: &mut self.taught[sequence],
            kept: Some(self.kept),
        }
    }
}
