//! Where the pages of a sequence lie, and where in them what a head reads.
//!
//! A decode reads, for one key head, its keys of some pages and then its values of the same. Page after page it would read a small
//! part of each and leave the rest out, and a processor that looks ahead by itself would begin anew with every one. So runs of pages
//! are head-major: of [`STRETCH`] pages of a run, the keys of a head lie together, and its values. It is no more of them, as memory is
//! taken when it is written to, and a short sequence is to take little of a long run. Pages that several sequences have, and those that a
//! file sums one by one, stay whole: they are page-major.

use core::ops::Range;

use regard_ir::cache::PageShape;

/// Where the pages of a sequence lie in their memory. Pages are counted along the sequence.
///
/// Where pages are whole, page `n` of the memory is its words from `n · len` on, with pages of `len` words. A run has its pages in
/// stretches of 16, the last of as many as there are left. In a stretch of `pages` pages from number `first` of the memory on,
/// what would be the words `at..end` of a page is, of page `n` of the stretch, those from `first · len + pages · at + n · (end − at)` on:
/// parts lie in the order that they have in a page, and each is there once for every page of the stretch before the next part begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages<'a> {
    /// In a run of their own, head-major.
    Run {
        /// The first page of the memory that is the run's.
        first: u32,
        /// Pages of the run: as many as the sequence may ever have.
        pages: u32,
    },
    /// Whole, one after the other, from page `begin` of the sequence on; those before it are nowhere.
    From {
        /// The first page of the sequence.
        begin: u32,
        /// Which page of the memory it is.
        first: u32,
    },
    /// Whole, by a table of pages of the memory.
    Table(&'a [u32]),
    /// In a run of their own, head-major: the first `kept` pages of the sequence stay, and of the others the last ones take turns.
    Ring {
        /// The first page of the memory that is the run's.
        first: u32,
        /// Pages that stay.
        kept: u32,
        /// Pages of the run, those that stay included.
        pages: u32,
    },
}

/// Pages of a run whose parts lie together.
const STRETCH: usize = 16;

/// Where a page lies in its memory. One that is whole is a stretch of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The word that the stretch begins with.
    begin: usize,
    /// Pages of the stretch.
    pages: usize,
    /// Which of them it is.
    number: usize,
}

impl Place {
    /// Where the part of the page lies that would be these words of it if it were whole.
    #[inline(always)]
    pub(super) const fn part(&self, part: Range<usize>) -> Range<usize> {
        let len = part.end - part.start;
        let begin = self.begin + self.pages * part.start + self.number * len;
        begin..begin + len
    }

    /// Whether each part of the page lies behind the same one of another.
    #[inline(always)]
    pub(super) const fn follows(&self, other: Self) -> bool {
        self.begin == other.begin && self.number == other.number + 1
    }
}

/// A page of a sequence, to be read part by part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page<'a> {
    pub(super) memory: &'a [u32],
    pub(super) place: Place,
}

impl<'a> Page<'a> {
    /// A part, such as [`PageShape::keys_at`] and its like say.
    ///
    /// # Panics
    /// If it lies outside the memory.
    #[inline(always)]
    pub(crate) fn part(&self, part: Range<usize>) -> &'a [u32] {
        &self.memory[self.place.part(part)]
    }
}

impl Pages<'_> {
    /// Where page `page` of the sequence lies, or lay before it was written over, with so many words in each.
    #[inline(always)]
    pub(super) const fn place(&self, page: usize, words: usize) -> Place {
        let (first, pages, number) = match *self {
            Pages::Run { first, pages } => (first as usize, pages as usize, page),
            Pages::From { begin, first } => (first as usize + page - begin as usize, 1, 0),
            Pages::Table(table) => (table[page] as usize, 1, 0),
            Pages::Ring { first, kept, pages } => {
                let (kept, pages) = (kept as usize, pages as usize);
                let number = if page < kept { page } else { kept + (page - kept) % (pages - kept) };
                (first as usize, pages, number)
            }
        };
        debug_assert!(number < pages, "a page of the run");
        let (before, number) = (number / STRETCH * STRETCH, number % STRETCH);
        let left = pages - before;
        Place { begin: (first + before) * words, pages: if left < STRETCH { left } else { STRETCH }, number }
    }

    /// Whether a page that the sequence is long enough for lies somewhere.
    pub(super) const fn has(&self, page: usize) -> bool {
        match *self {
            Pages::From { begin, .. } => page >= begin as usize,
            Pages::Run { .. } | Pages::Table(_) | Pages::Ring { .. } => true,
        }
    }

    /// Whether the first `count` pages of the sequence, as far as they are somewhere, lie inside a memory of `words` words.
    pub(super) fn are_inside(&self, shape: &PageShape, count: usize, words: usize) -> bool {
        let most = words.checked_div(shape.len()).unwrap_or(0);
        match *self {
            Pages::Run { first, pages } => count <= pages as usize && first as usize + pages as usize <= most,
            Pages::From { begin, first } => {
                begin as usize <= count && first as usize + count - begin as usize <= most
            }
            Pages::Table(table) => {
                table.len() >= count && table[..count].iter().all(|&page| (page as usize) < most)
            }
            Pages::Ring { first, kept, pages } => kept < pages && first as usize + pages as usize <= most,
        }
    }

    /// The positions whose keys were written over, of a sequence that was once `written` tokens long, with so many of them in
    /// a page.
    pub const fn lost(&self, written: u32, tokens: u32) -> Range<u32> {
        match *self {
            Pages::Run { .. } | Pages::From { .. } | Pages::Table(_) => 0..0,
            Pages::Ring { kept, pages, .. } => {
                let last = written.div_ceil(tokens);
                let begin = kept * tokens;
                let held = last.saturating_sub(pages - kept) * tokens;
                if held > begin { begin..held } else { begin..begin }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use regard_ir::cache::{Codec, PageFormat};
    use regard_ir::variant::Heads;

    use super::*;

    /// Of two value heads that two key heads each read: keys alone, keys that ask, and values that are in keys.
    fn shapes() -> [PageShape; 3] {
        let format = PageFormat { tokens: 32, k: Codec::Int4, v: Codec::Bf16, mixed: false };
        let plain = format.of_heads(&Heads { query: 8, kv: 4, value: 2, dim: 40, value_dim: 24 });
        let (mut asks, mut shared) = (plain, plain);
        (asks.asks, shared.shared) = (true, true);
        [plain, asks, shared]
    }

    /// How often each word of a memory is a part of one of the first `count` pages of a sequence.
    fn uses(shape: &PageShape, pages: Pages<'_>, count: usize, words: usize) -> Vec<u32> {
        let mut uses = vec![0; words];
        for part in shape.parts() {
            for page in 0..count {
                let at = pages.place(page, shape.len()).part(part.clone());
                uses[at].iter_mut().for_each(|n| *n += 1);
            }
        }
        uses
    }

    #[test]
    fn parts_of_the_pages_of_a_run_follow_each_other() {
        for shape in shapes() {
            let (words, pages) = (shape.len(), Pages::Run { first: 3, pages: 5 });
            let mut end = 3 * words;
            for head in 0..shape.value_head_count() {
                let key_heads = (0..shape.key_head_count()).filter(|&key| shape.value_head(key) == head);
                let of_keys = key_heads.flat_map(|head| {
                    let asks = shape.asks.then(|| shape.asks_at(head));
                    [Some(shape.keys_at(head)), asks]
                });
                for part in of_keys.flatten().chain([shape.values_at(head)]) {
                    for page in 0..5 {
                        let at = pages.place(page, words).part(part.clone());
                        assert_eq!(at, end..end + part.len());
                        end = at.end;
                    }
                }
            }
            assert_eq!(end, 8 * words);
        }
    }

    #[test]
    fn a_long_run_has_stretches() {
        let [shape, ..] = shapes();
        let (words, pages) = (shape.len(), Pages::Run { first: 2, pages: 40 });
        let keys = shape.keys_at(1);
        let at = |page| pages.place(page, words).part(keys.clone()).start;
        let of = |stretch: usize, pages: usize, page: usize| {
            (2 + stretch) * words + pages * keys.start + page * keys.len()
        };
        assert_eq!([0, 15, 16, 31].map(at), [of(0, 16, 0), of(0, 16, 15), of(16, 16, 0), of(16, 16, 15)]);
        // The last has as many pages as are left.
        assert_eq!([32, 39].map(at), [of(32, 8, 0), of(32, 8, 7)]);
        assert_eq!(uses(&shape, pages, 40, 42 * words)[2 * words..], vec![1; 40 * words]);
    }

    #[test]
    fn pages_of_a_stretch_follow_each_other() {
        let follow = |pages: Pages<'_>, numbers: Range<usize>| -> Vec<usize> {
            let at = |page| pages.place(page, 64);
            numbers.filter(|&page| at(page).follows(at(page - 1))).collect()
        };
        let run = follow(Pages::Run { first: 2, pages: 40 }, 1..40);
        assert_eq!(run, (1..40).filter(|page| page % 16 != 0).collect::<Vec<_>>());
        // Of a ring the page that takes the place of the oldest does not.
        assert_eq!(follow(Pages::Ring { first: 8, kept: 2, pages: 5 }, 1..10), [1, 2, 3, 4, 6, 7, 9]);
        // Of those that are whole, parts of others lie between.
        assert_eq!(follow(Pages::From { begin: 0, first: 1 }, 1..4), []);
        assert_eq!(follow(Pages::Table(&[4, 5, 6]), 1..3), []);
    }

    #[test]
    fn each_word_of_a_sequences_pages_is_of_one_part() {
        for shape in shapes() {
            let words = shape.len();
            let uses_of = |pages, count| uses(&shape, pages, count, 7 * words);
            let those = |pages: &[usize]| {
                let of_page = |page| vec![u32::from(pages.contains(&page)); words];
                (0..7).flat_map(of_page).collect::<Vec<_>>()
            };
            assert_eq!(uses_of(Pages::Run { first: 2, pages: 4 }, 4), those(&[2, 3, 4, 5]));
            assert_eq!(uses_of(Pages::Ring { first: 3, kept: 1, pages: 4 }, 4), those(&[3, 4, 5, 6]));
            assert_eq!(uses_of(Pages::From { begin: 0, first: 1 }, 3), those(&[1, 2, 3]));
            assert_eq!(uses_of(Pages::Table(&[6, 0, 3]), 3), those(&[0, 3, 6]));
        }
    }

    #[test]
    fn the_last_pages_of_a_ring_take_turns() {
        let ring = Pages::Ring { first: 8, kept: 2, pages: 5 };
        let places: Vec<_> = (0..10).map(|page| ring.place(page, 16).number).collect();
        assert_eq!(places, [0, 1, 2, 3, 4, 2, 3, 4, 2, 3]);
    }

    #[test]
    fn pages_are_inside_of_a_memory_that_has_their_whole_run() {
        let [shape, ..] = shapes();
        let inside = |pages: Pages<'_>, count| pages.are_inside(&shape, count, 6 * shape.len());
        assert!(inside(Pages::Run { first: 2, pages: 4 }, 4));
        assert!(!inside(Pages::Run { first: 2, pages: 4 }, 5));
        // Its parts lie as far apart as its pages are many, however few there are yet.
        assert!(!inside(Pages::Run { first: 2, pages: 5 }, 1));
        assert!(inside(Pages::From { begin: 3, first: 2 }, 7));
        assert!(!inside(Pages::From { begin: 3, first: 2 }, 8));
    }
}
