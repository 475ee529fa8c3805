//! The table of pages: which tokens each holds, and a checksum of them.
//!
//! A page has three entries, of which at any time one is durable, one is that of the newest commit, and one is free to be
//! written by the next. So neither an end of the process in the middle of a commit nor one of the machine takes from a page
//! the entry that it falls back to.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::header::Layout;
use super::mapping::Mapping;

/// Bytes of an entry: 32, a power of two, so that none lies in two sectors of a disk.
const ENTRY_BYTES: usize = 32;

/// Entries of a page.
const TURNS: usize = 3;

/// Bytes of a page's entries.
pub(super) const PAGE_ENTRIES_BYTES: usize = TURNS * ENTRY_BYTES;

/// What a page of a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The page, counted along the file.
    pub page: u32,
    /// The first token in it.
    pub first: u32,
    /// Tokens in it, from its begin on; 0 gives the page up.
    pub tokens: u32,
}

impl Held {
    /// The token behind its last.
    pub(super) fn end(&self) -> u64 {
        u64::from(self.first) + u64::from(self.tokens)
    }
}

/// What a page held at a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The commit.
    pub(super) seq: u64,
    pub(super) held: Held,
    /// The checksum of the page with what lies behind its tokens cleared; 0 without tokens.
    pub(super) sum: u64,
    /// That of the entry itself.
    pub(super) check: u64,
}

impl Entry {
    pub(super) fn new(seq: u64, held: Held, sum: u64) -> Self {
        let check = check_of(&numbers(seq, held, sum), held.page);
        Self { seq, held, sum, check }
    }
}

/// The entries of a page that are whole, by turn.
pub(super) struct Entries([Option<Entry>; TURNS]);

impl Entries {
    pub(super) fn read(map: &Mapping, layout: &Layout, page: u32) -> Self {
        Self(std::array::from_fn(|turn| {
            let bytes: &[u8; ENTRY_BYTES] = map.bytes()[at(page, turn)..].first_chunk()?;
            let (numbers, check) = bytes.split_first_chunk::<24>()?;
            let check = u64::from_le_bytes(check.try_into().ok()?);
            let long = |at: usize| u64::from_le_bytes(numbers[at..at + 8].try_into().expect("8 bytes"));
            let (seq, tokens, sum) = (long(0), long(8), long(16));
            let held = Held { page, first: tokens as u32, tokens: (tokens >> 32) as u32 };
            let whole = seq > 0 && held.tokens <= layout.page_tokens && check == check_of(numbers, page);
            whole.then_some(Entry { seq, held, sum, check })
        }))
    }

    /// What counts for commit `seq`: the newest that is not newer.
    pub(super) fn until(&self, seq: u64) -> Option<Entry> {
        self.turn_until(seq).and_then(|turn| self.0[turn])
    }

    /// The newest of all.
    pub(super) fn last_seq(&self) -> u64 {
        self.0.iter().flatten().map(|entry| entry.seq).max().unwrap_or(0)
    }

    fn turn_until(&self, seq: u64) -> Option<usize> {
        let seq_of = |turn: usize| self.0[turn].map(|entry| entry.seq).filter(|&of| of <= seq);
        (0..TURNS).filter(|&turn| seq_of(turn).is_some()).max_by_key(|&turn| seq_of(turn))
    }

    /// Writes an entry where neither the durable nor the current one is, nor what the former falls back to.
    pub(super) fn write(&self, map: &mut Mapping, entry: &Entry, durable: u64, current: u64) {
        let kept = [self.turn_until(durable), self.turn_until(current)];
        let free = (0..TURNS).find(|&turn| !kept.contains(&Some(turn))).expect("two of three are kept");
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..24].copy_from_slice(&numbers(entry.seq, entry.held, entry.sum));
        bytes[24..].copy_from_slice(&entry.check.to_le_bytes());
        map.bytes_mut()[at(entry.held.page, free)..][..ENTRY_BYTES].copy_from_slice(&bytes);
    }

    /// Takes all entries of a page away that are newer than a commit. Whether there were any.
    pub(super) fn wipe_after(&self, map: &mut Mapping, page: u32, seq: u64) -> bool {
        let newer = (0..TURNS).filter(|&turn| self.0[turn].is_some_and(|entry| entry.seq > seq));
        newer.map(|turn| map.bytes_mut()[at(page, turn)..][..ENTRY_BYTES].fill(0)).count() > 0
    }
}

const fn at(page: u32, turn: usize) -> usize {
    Layout::table_at() + page as usize * PAGE_ENTRIES_BYTES + turn * ENTRY_BYTES
}

fn numbers(seq: u64, held: Held, sum: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    let tokens = u64::from(held.first) | u64::from(held.tokens) << 32;
    for (at, number) in [(0, seq), (8, tokens), (16, sum)] {
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// Of an entry; that of another page is not whole.
fn check_of(numbers: &[u8; 24], page: u32) -> u64 {
    xxh3_64_with_seed(numbers, u64::from(page))
}

/// Clears what does not belong to the first tokens of a page.
type Clear = Box<dyn Fn(&mut [u32], u32) + Send + Sync>;

/// What makes the checksums of pages.
pub(super) struct Sums {
    page_tokens: u32,
    /// A page, for what is cleared before it is summed.
    copy: Vec<u32>,
    clear: Clear,
}

impl Sums {
    pub(super) fn new(layout: &Layout, clear: impl Fn(&mut [u32], u32) + Send + Sync + 'static) -> Self {
        Self { page_tokens: layout.page_tokens, copy: vec![0; layout.page_words], clear: Box::new(clear) }
    }

    /// That of a page with so many tokens.
    pub(super) fn of(&mut self, map: &Mapping, layout: &Layout, held: Held) -> u64 {
        if held.tokens == 0 {
            return 0;
        }
        let words = &words(map, layout)[layout.page(held.page)];
        let words = if held.tokens == self.page_tokens {
            words
        } else {
            self.copy.copy_from_slice(words);
            (self.clear)(&mut self.copy, held.tokens);
            &self.copy
        };
        xxh3_64_with_seed(bytemuck::cast_slice(words), u64::from(held.page))
    }

    /// Whether a page is what an entry says.
    pub(super) fn is_whole(&mut self, map: &Mapping, layout: &Layout, entry: &Entry) -> bool {
        self.of(map, layout, entry.held) == entry.sum
    }
}

/// The words of all pages.
pub(super) fn words<'a>(map: &'a Mapping, layout: &Layout) -> &'a [u32] {
    // A map begins with a page of the system, and pages of a file with a multiple of 4096: words are aligned.
    bytemuck::cast_slice(&map.bytes()[layout.data()])
}
