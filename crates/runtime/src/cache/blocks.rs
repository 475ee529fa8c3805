//! The blocks that one key head reads of a sequence's pages.

use regard_ir::cache::PageShape;

use super::CachedSequence;

/// Where the keys and values of a key head lie, computed once for all pages.
#[derive(Clone, Copy)]
pub(crate) struct Blocks<'a> {
    cache: CachedSequence<'a>,
    /// Tokens of a page, and its words.
    page: [usize; 2],
    /// Where in a page keys begin, and how many words they are.
    keys: [usize; 2],
    values: [usize; 2],
    /// Where what keys ask of later tokens begins, where they do.
    asks: Option<usize>,
}

impl<'a> Blocks<'a> {
    #[inline(always)]
    pub(super) fn new(cache: CachedSequence<'a>, shape: &PageShape, head: usize) -> Self {
        Self {
            cache,
            page: [shape.tokens, shape.len()],
            keys: [shape.keys_at(head), shape.keys_len()],
            values: [shape.values_at(shape.value_head(head)), shape.values_len()],
            asks: shape.asks.then(|| shape.asks_at(head)),
        }
    }

    /// The keys of a page of the sequence.
    ///
    /// # Panics
    /// If the page lies outside the memory.
    #[inline(always)]
    pub fn keys(&self, page: usize) -> &'a [u32] {
        self.block(page, self.keys)
    }

    /// The values of a page.
    ///
    /// # Panics
    /// As [`Self::keys`].
    #[inline(always)]
    pub fn values(&self, page: usize) -> &'a [u32] {
        self.block(page, self.values)
    }

    /// What the keys of a page ask of later tokens, where they do.
    ///
    /// # Panics
    /// As [`Self::keys`].
    #[inline(always)]
    pub fn asks(&self, page: usize) -> Option<&'a [u32]> {
        self.asks.map(|at| self.block(page, [at, self.keys[1]]))
    }

    /// The keys of the page of a token, to be read soon: none where the sequence has no such token or page.
    #[inline(always)]
    pub fn keys_ahead(&self, token: usize) -> &'a [u32] {
        let [tokens, _] = self.page;
        if token < self.cache.len as usize && self.cache.pages.has(token / tokens) {
            self.keys(token / tokens)
        } else {
            &[]
        }
    }

    #[inline(always)]
    fn block(&self, page: usize, [at, len]: [usize; 2]) -> &'a [u32] {
        let [_, words] = self.page;
        &self.cache.memory[self.cache.pages.place(page) * words..][at..at + len]
    }
}
