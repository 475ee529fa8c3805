//! The pages of a chunk, and which of them are read as one.
//!
//! What is done between two pages takes as long as some lines of memory, whatever it is, so pages that lie one after the other are
//! read in one call.

use core::ops::Range;

use regard_engine::cached::is_of_runs;
use regard_ir::cache::PageShape;

use crate::cache::Blocks;

/// The pages of a chunk, as a key head reads them.
pub(super) struct ChunkPages<'b, 'a> {
    pub blocks: &'b Blocks<'a>,
    pub shape: &'b PageShape,
    /// The first of them, counted over the sequence.
    pub first: usize,
    /// Keys of the chunk.
    pub key_count: usize,
}

impl<'a> ChunkPages<'_, 'a> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.key_count.div_ceil(self.shape.tokens)
    }

    /// Keys of a run, counted over the chunk.
    pub fn keys_of(&self, run: &Range<usize>) -> Range<usize> {
        let tokens = self.shape.tokens;
        run.start * tokens..self.key_count.min(run.end * tokens)
    }

    /// The keys of pages that lie one after the other.
    #[inline(always)]
    pub fn keys(&self, run: Range<usize>) -> &'a [u32] {
        self.blocks.keys(self.first + run.start..self.first + run.end)
    }

    /// Their values.
    #[inline(always)]
    pub fn values(&self, run: Range<usize>) -> &'a [u32] {
        self.blocks.values(self.first + run.start..self.first + run.end)
    }

    /// Runs of those that are not dead. Keys that are values too are read one page after the other, as each is read twice.
    #[inline(always)]
    pub fn runs(&self, dead: u64) -> Runs {
        let PageShape { keys, values, shared, .. } = self.shape;
        let are_of_runs = !shared && (is_of_runs(keys) || is_of_runs(values));
        Runs::new(self.count(), dead, |page| are_of_runs && self.blocks.follows(self.first + page))
    }
}

/// Runs of a chunk's pages that some query sees: pages that lie one after the other and are read as one.
#[derive(Clone, Debug)]
pub(super) struct Runs {
    /// Pages of the chunk.
    pages: usize,
    /// A bit for each that no query sees.
    dead: u64,
    /// A bit for each that begins a run.
    begins: u64,
    /// The first page that is not yet in a run.
    at: usize,
}

impl Runs {
    /// Of so many pages, those that are not dead, as far as each follows the one before. Nothing is asked of a dead one.
    #[inline(always)]
    pub fn new(pages: usize, dead: u64, follows: impl Fn(usize) -> bool) -> Self {
        let mut runs = Self { pages, dead, begins: 0, at: 0 };
        runs.begins = runs.bits(|page| page > 0 && dead >> (page - 1) & 1 == 0 && !follows(page));
        runs
    }

    /// A bit for each page that is not dead and of which something holds.
    #[inline(always)]
    pub fn bits(&self, holds: impl Fn(usize) -> bool) -> u64 {
        (0..self.pages)
            .filter(|&page| self.dead >> page & 1 == 0 && holds(page))
            .fold(0, |all, page| all | 1 << page)
    }

    /// The same runs, but that some pages are read alone.
    #[inline(always)]
    pub fn alone(&self, pages: u64) -> Self {
        Self { begins: self.begins | pages | pages << 1, ..self.clone() }
    }
}

impl Iterator for Runs {
    type Item = Range<usize>;

    #[inline(always)]
    fn next(&mut self) -> Option<Range<usize>> {
        let Self { pages, dead, begins, ref mut at } = *self;
        while *at < pages && dead >> *at & 1 != 0 {
            *at += 1;
        }
        let begin = *at;
        while *at < pages && (*at == begin || (dead | begins) >> *at & 1 == 0) {
            *at += 1;
        }
        (begin < *at).then_some(begin..*at)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    #[test]
    fn runs_are_of_live_pages_that_follow_each_other() {
        let runs = |pages, dead, follows: &dyn Fn(usize) -> bool| Runs::new(pages, dead, follows);
        let all = |runs: Runs| runs.collect::<Vec<_>>();
        assert_eq!(runs(8, 0, &|_| true).next(), Some(0..8));
        assert_eq!(all(runs(8, 0b1001_0011, &|_| true)), [2..4, 5..7]);
        assert_eq!(all(runs(3, 0b111, &|_| true)), []);
        // A page of which nothing is asked, as it may lie nowhere, is dead or comes after one that is.
        let asked = |page: usize| {
            assert!(![0, 1, 2, 5, 6].contains(&page), "page {page}");
            page != 4
        };
        assert_eq!(all(runs(8, 0b10_0011, &asked)), [2..4, 4..5, 6..8]);
    }

    #[test]
    fn some_pages_are_read_alone() {
        let runs = Runs::new(6, 0b1, |page| page != 4);
        let alone = |pages| runs.alone(pages).collect::<Vec<_>>();
        assert_eq!(alone(0), [1..4, 4..6]);
        assert_eq!(alone(0b100), [1..2, 2..3, 3..4, 4..6]);
        assert_eq!(alone(0b10_0001), [1..4, 4..5, 5..6]);
        assert_eq!(alone(u64::MAX), [1..2, 2..3, 3..4, 4..5, 5..6]);
        assert_eq!(runs.bits(|page| page % 2 == 0), 0b1_0100);
    }
}
