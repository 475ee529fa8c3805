//! Who has which page: sequences that grow, shrink, fork and end in one memory.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::{CachedSequence, CachedSequenceMut, Pages, RowOf};

/// How many pages there are, and how sequences get them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// Each sequence has a run of pages of its own.
    Contiguous {
        /// Pages of a sequence.
        pages: u32,
    },
    /// As in a file: each sequence has whole pages of its own, one after the other.
    Whole {
        /// Pages of a sequence.
        pages: u32,
    },
    /// Sequences take pages as they grow, and share those that they have in common.
    Paged {
        /// Pages of a sequence at most.
        pages: u32,
        /// Pages of all together.
        all: u32,
    },
    /// Each sequence has a run of pages of its own, in which new ones take the place of old ones.
    Ring {
        /// First pages that stay.
        kept: u32,
        /// Pages of a sequence, those that stay included.
        pages: u32,
        /// Tokens that a query sees before and with its own, past those that stay.
        back: u32,
    },
}

impl Capacity {
    /// Pages that a sequence has at once, at most.
    pub const fn pages(&self) -> u32 {
        match *self {
            Capacity::Contiguous { pages } | Capacity::Whole { pages } => pages,
            Capacity::Paged { pages, .. } | Capacity::Ring { pages, .. } => pages,
        }
    }

    /// Pages of so many sequences together; `None` where they are more than can be counted.
    pub const fn all_pages(&self, sequences: usize) -> Option<usize> {
        match *self {
            Capacity::Paged { all, .. } => Some(all as usize),
            _ => sequences.checked_mul(self.pages() as usize),
        }
    }
}

/// Names a sequence of a cache, until it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId {
    index: u32,
    generation: u32,
}

/// What a cache cannot do. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// All sequences that it has room for are open.
    Sequences {
        /// How many.
        open: u32,
    },
    /// The sequence is the only one of its memory, which is there for it alone.
    Only,
    /// The sequence was closed, or is of another cache.
    Unknown,
    /// A sequence would be longer than it may be.
    TooLong {
        /// Tokens that it would have.
        tokens: u64,
        /// The most.
        most: u32,
    },
    /// There are not enough free pages.
    Pages {
        /// Pages that are needed.
        needed: u32,
        /// Pages that are free.
        free: u32,
    },
    /// It was to be cut so short that its next query would see keys that were written over.
    Lost {
        /// Tokens that it was to have.
        tokens: u32,
        /// The fewest that it can be cut to.
        least: u32,
    },
    /// It was to be cut so short that its lookahead keys would have to forget what later tokens taught them for good.
    Taught {
        /// Tokens that it was to have.
        tokens: u32,
        /// The fewest that it can be cut to.
        least: u32,
    },
    /// It was to be cut to tokens whose state is not kept any more.
    Overwritten {
        /// Tokens that it was to have.
        tokens: u32,
        /// The fewest that it can be cut to, beside none.
        least: u32,
    },
    /// It was to be cut to more tokens than it has.
    Short {
        /// Tokens that it was to have.
        tokens: u32,
        /// Tokens that it has.
        len: u32,
    },
    /// A row was to be read of a head that the cache does not have.
    Head {
        /// The row.
        row: RowOf,
        /// How many heads have such rows.
        heads: usize,
    },
    /// A row was to be read that is not as long as the room for it.
    Width {
        /// The row.
        row: RowOf,
        /// Its elements.
        expected: usize,
        /// Elements of the room.
        found: usize,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Sequences { open } => {
                write!(f, "{open} sequences are open, and the cache has room for no more: close one")
            }
            StoreError::Only => {
                write!(
                    f,
                    "the sequence of a file cannot be closed or forked: drop the cache, and open the file again"
                )
            }
            StoreError::Unknown => {
                write!(f, "the cache has no such sequence: it was closed, or is of another cache")
            }
            StoreError::TooLong { tokens, most } => {
                write!(f, "a sequence of {tokens} tokens: the cache was made for at most {most}")
            }
            StoreError::Pages { needed, free } => {
                write!(f, "{needed} pages are needed and {free} are free: close or truncate a sequence")
            }
            StoreError::Lost { tokens, least } => write!(
                f,
                "a sequence cut to {tokens} tokens would need keys that its ring has written over; it can be cut to {least}"
            ),
            StoreError::Taught { tokens, least } => write!(
                f,
                "a sequence cut to {tokens} tokens: its keys have learned from {least} for good, and it can be cut to these"
            ),
            StoreError::Overwritten { tokens, least } => write!(
                f,
                "a sequence cut to {tokens} tokens: the state after them is not kept any more, only those after {least} and later ones; \
                 `at_once` of a cache says how many are, and a fork keeps one for good"
            ),
            StoreError::Short { tokens, len } => {
                write!(f, "a sequence of {len} tokens cannot be cut to {tokens}")
            }
            StoreError::Head { row, heads } => {
                write!(f, "there is no {row} in the cache: {heads} heads have such rows")
            }
            StoreError::Width { row, expected, found } => {
                write!(f, "a {row} has {expected} elements, room for {found} was given")
            }
        }
    }
}

impl core::error::Error for StoreError {}

/// The sequences of a cache, and the pages that they have in its memory.
#[derive(Clone, Debug)]
pub struct Store {
    capacity: Capacity,
    /// Which words of a page are parts that may lie apart from the others.
    parts: Vec<Range<usize>>,
    /// Words of a page.
    page_words: usize,
    /// Tokens of a page.
    page_tokens: u32,
    /// Tokens of a sequence at most.
    most: u32,
    sequences: Vec<Sequence>,
    /// Pages that nobody has; of paged caches alone.
    free: Vec<u32>,
    /// How many sequences have each page; of paged caches alone.
    uses: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Sequence {
    generation: u32,
    is_open: bool,
    len: u32,
    written: u32,
    /// Its pages; of paged caches alone, with room for as many as it may have.
    table: Vec<u32>,
}

impl Store {
    /// Room for `sequences` sequences of at most `most` tokens, in pages of `page_tokens` tokens. A page is `parts`, which words
    /// each is, as in [`PageShape::parts`](regard_ir::cache::PageShape::parts).
    pub fn new(
        capacity: Capacity,
        sequences: u32,
        most: u32,
        page_tokens: u32,
        parts: impl IntoIterator<Item = Range<usize>>,
    ) -> Self {
        let parts: Vec<_> = parts.into_iter().collect();
        let page_words = parts.iter().map(ExactSizeIterator::len).sum();
        let (all, table) = match capacity {
            Capacity::Paged { pages, all } => (all, pages),
            _ => (0, 0),
        };
        let sequence = |_| Sequence {
            generation: 0,
            is_open: false,
            len: 0,
            written: 0,
            table: Vec::with_capacity(table as usize),
        };
        Self {
            capacity,
            parts,
            page_words,
            page_tokens,
            most,
            sequences: (0..sequences).map(sequence).collect(),
            free: (0..all).rev().collect(),
            uses: vec![0; all as usize],
        }
    }

    /// Words of memory that its pages take; `None` where that is more than can be counted.
    pub fn words(&self) -> Option<usize> {
        self.capacity.all_pages(self.sequences.len())?.checked_mul(self.page_words)
    }

    /// Tokens of a sequence that are held at once, at most.
    pub fn held_tokens(&self) -> usize {
        self.capacity.pages() as usize * self.page_tokens as usize
    }

    /// Opens a sequence without tokens.
    ///
    /// # Errors
    /// If all are open.
    pub fn open(&mut self) -> Result<SequenceId, StoreError> {
        let open = self.sequences.len() as u32;
        let index = self.sequences.iter().position(|it| !it.is_open).ok_or(StoreError::Sequences { open })?;
        let sequence = &mut self.sequences[index];
        (sequence.is_open, sequence.len, sequence.written) = (true, 0, 0);
        Ok(SequenceId { index: index as u32, generation: sequence.generation })
    }

    /// Ends a sequence and gives its pages back.
    ///
    /// # Errors
    /// If there is no such sequence.
    pub fn close(&mut self, id: SequenceId) -> Result<(), StoreError> {
        let index = self.find(id)?;
        self.release(index, 0);
        let sequence = &mut self.sequences[index];
        sequence.is_open = false;
        sequence.generation = sequence.generation.wrapping_add(1);
        Ok(())
    }

    /// Tokens of a sequence.
    ///
    /// # Errors
    /// If there is no such sequence.
    pub fn len(&self, id: SequenceId) -> Result<u32, StoreError> {
        Ok(self.sequences[self.find(id)?].len)
    }

    /// Free pages; `None` where each sequence has its own.
    pub fn free_pages(&self) -> Option<u32> {
        matches!(self.capacity, Capacity::Paged { .. }).then_some(self.free.len() as u32)
    }

    /// Whether a sequence may have `count` more tokens.
    ///
    /// # Errors
    /// If there is no such sequence, or it would be too long.
    pub fn check_room(&self, id: SequenceId, count: u32) -> Result<(), StoreError> {
        let tokens = u64::from(self.len(id)?) + u64::from(count);
        if tokens > u64::from(self.most) {
            return Err(StoreError::TooLong { tokens, most: self.most });
        }
        Ok(())
    }

    /// Makes room for `count` more tokens of a sequence, which may then be written to what this gives. They count once they
    /// are [committed](Store::commit).
    ///
    /// A page that other sequences have too is copied before it is written to.
    ///
    /// # Errors
    /// If there is no such sequence, or no room. Nothing is changed then.
    pub fn reserve<'a>(
        &'a mut self,
        memory: &'a mut [u32],
        id: SequenceId,
        count: u32,
    ) -> Result<CachedSequenceMut<'a>, StoreError> {
        let index = self.find(id)?;
        self.check_room(id, count)?;
        let Sequence { len, ref table, .. } = self.sequences[index];
        let tokens = u64::from(len) + u64::from(count);
        if let Capacity::Paged { .. } = self.capacity {
            let pages = (tokens as u32).div_ceil(self.page_tokens) as usize;
            let shared = self.shared_page(index).filter(|_| count > 0);
            let needed = pages.saturating_sub(table.len()) + usize::from(shared.is_some());
            if needed > self.free.len() {
                return Err(StoreError::Pages { needed: needed as u32, free: self.free.len() as u32 });
            }
            if let Some(at) = shared {
                self.copy_page(memory, index, at);
            }
            while self.sequences[index].table.len() < pages {
                let page = self.take();
                self.sequences[index].table.push(page);
            }
        }
        Ok(CachedSequenceMut { memory, pages: self.pages(index), learned: None })
    }

    /// Counts tokens that were written.
    ///
    /// # Errors
    /// If there is no such sequence, or no room was made for them.
    pub fn commit(&mut self, id: SequenceId, count: u32) -> Result<(), StoreError> {
        let index = self.find(id)?;
        self.check_room(id, count)?;
        let sequence = &mut self.sequences[index];
        sequence.len += count;
        sequence.written = sequence.written.max(sequence.len);
        Ok(())
    }

    /// Takes the last tokens back, so that `tokens` are left.
    ///
    /// # Errors
    /// If there is no such sequence, or it has fewer.
    pub fn truncate(&mut self, id: SequenceId, tokens: u32) -> Result<(), StoreError> {
        let index = self.find(id)?;
        let len = self.sequences[index].len;
        if tokens > len {
            return Err(StoreError::Short { tokens, len });
        }
        if let Capacity::Ring { back, .. } = self.capacity {
            let lost = self.pages(index).lost(self.sequences[index].written, self.page_tokens);
            // The next query, at `tokens`, sees no key at `tokens − back` or before, but the first ones.
            let least = (lost.end + back).saturating_sub(1);
            if !lost.is_empty() && tokens < least && tokens < len && tokens > lost.start {
                return Err(StoreError::Lost { tokens, least });
            }
        }
        self.sequences[index].len = tokens;
        self.release(index, tokens.div_ceil(self.page_tokens) as usize);
        Ok(())
    }

    /// Opens a sequence with the same tokens. Pages of a paged cache are shared until one of them is written to; others are
    /// copied.
    ///
    /// # Errors
    /// If there is no such sequence, or all are open.
    pub fn fork(&mut self, memory: &mut [u32], id: SequenceId) -> Result<SequenceId, StoreError> {
        let from = self.find(id)?;
        let forked = self.open()?;
        let to = forked.index as usize;
        let Sequence { len, written, .. } = self.sequences[from];
        let pages = len.div_ceil(self.page_tokens) as usize;
        match self.capacity {
            Capacity::Paged { .. } => {
                for at in 0..pages {
                    let page = self.sequences[from].table[at];
                    self.uses[page as usize] += 1;
                    self.sequences[to].table.push(page);
                }
            }
            Capacity::Contiguous { .. } | Capacity::Whole { .. } => self.copy_own(memory, [from, to], pages),
            Capacity::Ring { pages: own, .. } => self.copy_own(memory, [from, to], own as usize),
        }
        (self.sequences[to].len, self.sequences[to].written) = (len, written);
        Ok(forked)
    }

    /// The number of a sequence among those that there is room for.
    ///
    /// # Errors
    /// If there is no such sequence.
    pub fn index(&self, id: SequenceId) -> Result<usize, StoreError> {
        self.find(id)
    }

    /// A sequence, to be read.
    ///
    /// # Errors
    /// If there is no such sequence.
    pub fn sequence<'a>(
        &'a self,
        memory: &'a [u32],
        id: SequenceId,
    ) -> Result<CachedSequence<'a>, StoreError> {
        let index = self.find(id)?;
        let Sequence { len, written, .. } = self.sequences[index];
        Ok(CachedSequence { memory, pages: self.pages(index), len, written })
    }

    fn find(&self, id: SequenceId) -> Result<usize, StoreError> {
        let index = id.index as usize;
        let is_it = |it: &Sequence| it.is_open && it.generation == id.generation;
        self.sequences.get(index).filter(|it| is_it(it)).map(|_| index).ok_or(StoreError::Unknown)
    }

    fn pages(&self, index: usize) -> Pages<'_> {
        match self.capacity {
            Capacity::Contiguous { pages } => Pages::Run { first: index as u32 * pages, pages },
            Capacity::Whole { pages } => Pages::From { begin: 0, first: index as u32 * pages },
            Capacity::Paged { .. } => Pages::Table(&self.sequences[index].table),
            Capacity::Ring { kept, pages, .. } => Pages::Ring { first: index as u32 * pages, kept, pages },
        }
    }

    /// The page of a sequence that its next token goes to, where there is one and others have it too.
    fn shared_page(&self, index: usize) -> Option<usize> {
        let Sequence { len, ref table, .. } = self.sequences[index];
        let at = (len / self.page_tokens) as usize;
        let page = *table.get(at)?;
        (self.uses[page as usize] > 1).then_some(at)
    }

    /// Gives a sequence a copy of its own of a page.
    fn copy_page(&mut self, memory: &mut [u32], index: usize, at: usize) {
        let from = self.sequences[index].table[at] as usize;
        let to = self.take();
        let begin = from * self.page_words;
        memory.copy_within(begin..begin + self.page_words, to as usize * self.page_words);
        self.uses[from] -= 1;
        self.sequences[index].table[at] = to;
    }

    /// Copies the first `count` pages of a sequence's own room to another's.
    fn copy_own(&self, memory: &mut [u32], [from, to]: [usize; 2], count: usize) {
        let of = [from, to].map(|index| self.pages(index));
        for part in &self.parts {
            for page in 0..count {
                let [from, to] = of.map(|pages| pages.place(page, self.page_words).part(part.clone()));
                memory.copy_within(from, to.start);
            }
        }
    }

    /// A free page; there is one.
    fn take(&mut self) -> u32 {
        let page = self.free.pop().expect("free pages were counted");
        self.uses[page as usize] = 1;
        page
    }

    /// Gives back the pages of a sequence from number `kept` on.
    fn release(&mut self, index: usize, kept: usize) {
        while self.sequences[index].table.len() > kept {
            let Some(page) = self.sequences[index].table.pop() else { break };
            self.uses[page as usize] -= 1;
            if self.uses[page as usize] == 0 {
                self.free.push(page);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sequences of up to 64 tokens, in pages of 16 that are a part of 32 words and one of 16.
    fn store(capacity: Capacity) -> (Store, SequenceId) {
        let mut store = Store::new(capacity, 2, 64, 16, [0..32, 32..48]);
        let id = store.open().unwrap();
        (store, id)
    }

    #[test]
    fn sequences_have_runs_of_their_own_but_whole_pages_in_files_and_where_they_are_shared() {
        for (capacity, pages) in [
            (Capacity::Contiguous { pages: 4 }, Pages::Run { first: 4, pages: 4 }),
            (Capacity::Ring { kept: 1, pages: 3, back: 16 }, Pages::Ring { first: 3, kept: 1, pages: 3 }),
            (Capacity::Whole { pages: 4 }, Pages::From { begin: 0, first: 4 }),
            (Capacity::Paged { pages: 4, all: 8 }, Pages::Table(&[0, 1])),
        ] {
            let (mut store, _) = store(capacity);
            let second = store.open().unwrap();
            assert_eq!(store.reserve(&mut [0; 8 * 48], second, 20).unwrap().pages, pages);
        }
    }

    #[test]
    fn a_fork_has_the_pages_that_have_tokens() {
        for capacity in [Capacity::Contiguous { pages: 4 }, Capacity::Whole { pages: 4 }] {
            let (mut store, id) = store(capacity);
            let mut memory: Vec<u32> = (1..=8 * 48).collect();
            store.commit(id, 20).unwrap();
            let forked = store.fork(&mut memory, id).unwrap();
            assert_eq!(store.len(forked), Ok(20));
            let of = [id, forked].map(|id| store.sequence(&memory, id).unwrap().pages);
            for part in &store.parts {
                for page in 0..4 {
                    let [from, to] = of.map(|pages| pages.place(page, 48).part(part.clone()));
                    // Where nothing was copied to, each word still is its own number.
                    let begin = if page < 2 { from.start } else { to.start } as u32;
                    assert!(memory[to].iter().copied().eq((begin + 1..).take(part.len())));
                }
            }
        }
    }
}
