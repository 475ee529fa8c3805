//! The blocks that one key head reads of a sequence's pages.

use core::ops::Range;

use regard_ir::cache::PageShape;

use super::CachedSequence;

/// Which parts of pages a key head reads, computed once for all pages.
pub(crate) struct Blocks<'a> {
    cache: CachedSequence<'a>,
    /// Tokens of a page, and its words.
    page: [usize; 2],
    /// Which words of a page are keys.
    keys: Range<usize>,
    values: Range<usize>,
}

impl<'a> Blocks<'a> {
    #[inline(always)]
    pub(super) fn new(cache: CachedSequence<'a>, shape: &PageShape, head: usize) -> Self {
        Self {
            cache,
            page: [shape.tokens, shape.len()],
            keys: shape.keys_at(head),
            values: shape.values_at(shape.value_head(head)),
        }
    }

    /// Whether what a page of the sequence has lies behind what the page before it has.
    #[inline(always)]
    pub fn follows(&self, page: usize) -> bool {
        let [_, words] = self.page;
        let place = |page| self.cache.pages.place(page, words);
        place(page).follows(place(page - 1))
    }

    /// The keys of some pages of the sequence, each of which follows the one before.
    ///
    /// # Panics
    /// If they lie outside the memory.
    #[inline(always)]
    pub fn keys(&self, pages: Range<usize>) -> &'a [u32] {
        self.blocks(pages, &self.keys)
    }

    /// The values of some pages.
    ///
    /// # Panics
    /// As [`Self::keys`].
    #[inline(always)]
    pub fn values(&self, pages: Range<usize>) -> &'a [u32] {
        self.blocks(pages, &self.values)
    }

    /// The keys of the page of a token, to be read soon: none where the sequence has no such token or page.
    #[inline(always)]
    pub fn keys_ahead(&self, token: usize) -> &'a [u32] {
        let [tokens, _] = self.page;
        let page = token / tokens;
        if token < self.cache.len as usize && self.cache.pages.has(page) {
            self.keys(page..page + 1)
        } else {
            &[]
        }
    }

    #[inline(always)]
    fn blocks(&self, pages: Range<usize>, part: &Range<usize>) -> &'a [u32] {
        debug_assert!(pages.clone().skip(1).all(|page| self.follows(page)), "pages that lie together");
        let [_, words] = self.page;
        let first = self.cache.pages.place(pages.start, words).part(part.clone());
        &self.cache.memory[first.start..][..pages.len() * part.len()]
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use regard_ir::cache::{Codec, PageFormat};
    use regard_ir::variant::Heads;

    use super::*;
    use crate::cache::Pages;

    #[test]
    fn only_keys_that_are_somewhere_are_read_ahead() {
        let format = PageFormat { tokens: 16, k: Codec::F32, v: Codec::F32, mixed: false };
        let shape = format.of_heads(&Heads { query: 2, kv: 2, value: 2, dim: 3, value_dim: 5 });
        // Pages 2 and 3 of a sequence whose first two are nowhere.
        let memory: std::vec::Vec<u32> = (0..2 * shape.len() as u32).collect();
        let pages = Pages::From { begin: 2, first: 0 };
        let cache = CachedSequence { memory: &memory, pages, len: 50, written: 50 };
        let blocks = cache.blocks(&shape, 1);
        let first = |token| blocks.keys_ahead(token).first().map(|&word| word as usize);
        assert_eq!([0, 31].map(first), [None; 2]);
        assert_eq!([32, 47].map(first), [Some(shape.keys_at(1).start); 2]);
        assert_eq!([48, 49].map(first), [Some(shape.len() + shape.keys_at(1).start); 2]);
        assert_eq!([50, 64].map(first), [None; 2]);
        assert_eq!(blocks.values(2..3).len(), shape.values_len());
    }
}
