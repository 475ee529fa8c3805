//! What a file says it is, and where its parts lie.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::error::Fault;
use super::record::SLOTS;
use super::table::PAGE_ENTRIES_BYTES;

/// What the parts of a file begin at multiples of, in bytes: a page of most systems.
pub(super) const STEP: usize = 4096;

/// The most numbers of a description.
pub const MAX_NUMBERS: usize = 64;

/// How a file begins.
const MAGIC: [u8; 8] = *b"regardCF";

/// The layout that this build reads and writes.
const LAYOUT: u32 = 1;

/// Its bytes in memory tell the order of a word's bytes.
const BYTE_ORDER: u32 = 0x0403_0201;

/// Where the numbers begin.
const NUMBERS_AT: usize = 52;

/// Where the header's checksum lies: over all before it.
const CHECK_AT: usize = STEP - 8;

/// What a file must be of, to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description<'a> {
    /// Whose file it is.
    pub identity: [u8; 16],
    /// The version of what its pages hold.
    pub version: u32,
    /// Words of a page, at least 1.
    pub page_words: u32,
    /// Tokens of a page, at least 1.
    pub page_tokens: u32,
    /// Further numbers that must be the same, at most [`MAX_NUMBERS`], with what messages call them.
    pub numbers: &'a [(&'static str, u32)],
}

impl Description<'_> {
    /// The header of a file of so many pages.
    pub(super) fn header(&self, pages: u32) -> [u8; STEP] {
        let mut bytes = [0; STEP];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[16..32].copy_from_slice(&self.identity);
        let mut put = |at: usize, number: [u8; 4]| bytes[at..at + 4].copy_from_slice(&number);
        put(8, LAYOUT.to_le_bytes());
        put(12, BYTE_ORDER.to_ne_bytes());
        let words = [self.version, self.page_words, self.page_tokens, pages, self.numbers.len() as u32];
        let numbers = self.numbers.iter().map(|&(_, number)| number);
        for (i, number) in words.into_iter().chain(numbers).enumerate() {
            put(32 + 4 * i, number.to_le_bytes());
        }
        let check = xxh3_64(&bytes[..CHECK_AT]);
        bytes[CHECK_AT..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads the pages of a file that begins so, if it is of this description. `bytes` may be cut short.
    pub(super) fn pages_of(&self, bytes: &[u8], len: u64) -> Result<u32, Fault> {
        if !bytes.starts_with(&MAGIC) {
            return Err(Fault::NotACache);
        }
        let Some(bytes) = bytes.first_chunk::<STEP>() else {
            return Err(Fault::Length { found: len, expected: STEP as u64 });
        };
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        // Of another layout nothing else can be judged, not even the checksum.
        if number(8) != LAYOUT {
            return Err(Fault::Layout { found: number(8), expected: LAYOUT });
        }
        if bytes[CHECK_AT..] != xxh3_64(&bytes[..CHECK_AT]).to_le_bytes() {
            return Err(Fault::Header);
        }
        let found: [u8; 16] = bytes[16..32].try_into().expect("16 bytes");
        if found != self.identity {
            return Err(Fault::Identity { found, expected: self.identity });
        }
        if number(32) != self.version {
            return Err(Fault::Version { found: number(32), expected: self.version });
        }
        let count = number(48) as usize;
        if count != self.numbers.len() || count > MAX_NUMBERS {
            return Err(Fault::Numbers { found: count, expected: self.numbers.len() });
        }
        let order = u32::from_le_bytes(BYTE_ORDER.to_ne_bytes());
        let ours = [("order of bytes", 12, order), ("tokens of a page", 40, self.page_tokens)];
        // Last, because it follows from the others and says less.
        let words = ("words of a page", 36, self.page_words);
        let numbers = self.numbers.iter().enumerate();
        let numbers = numbers.map(|(i, &(name, expected))| (name, NUMBERS_AT + 4 * i, expected));
        for (name, at, expected) in ours.into_iter().chain(numbers).chain([words]) {
            if number(at) != expected {
                return Err(Fault::Number { name, found: number(at), expected });
            }
        }
        Ok(number(44))
    }
}

/// Where the parts of a file lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) page_words: usize,
    pub(super) page_tokens: u32,
    pub(super) pages: u32,
    data_at: usize,
    /// Bytes of the file.
    pub(super) len: usize,
}

impl Layout {
    /// That of a file of so many pages.
    pub(super) fn new(description: &Description<'_>, pages: u32) -> Result<Self, Fault> {
        let Description { page_words, page_tokens, numbers, .. } = *description;
        if numbers.len() > MAX_NUMBERS {
            return Err(Fault::Numbers { found: numbers.len(), expected: MAX_NUMBERS });
        }
        let layout = || {
            let table = (pages as usize).checked_mul(PAGE_ENTRIES_BYTES)?;
            let data_at = Self::table_at().checked_add(table)?.checked_next_multiple_of(STEP)?;
            let data = (pages as usize).checked_mul(page_words as usize)?.checked_mul(size_of::<u32>())?;
            let len = data_at.checked_add(data).filter(|&len| len <= isize::MAX as usize)?;
            Some(Self { page_words: page_words as usize, page_tokens, pages, data_at, len })
        };
        let counts = page_words > 0 && page_tokens > 0 && pages > 0;
        layout().filter(|_| counts).ok_or(Fault::Sizes { page_words, page_tokens, pages })
    }

    /// Where a record lies: each in a page of its own, so that writing one cannot harm another.
    pub(super) const fn slot_at(slot: usize) -> usize {
        STEP * (1 + slot)
    }

    /// Where the table of pages begins.
    pub(super) const fn table_at() -> usize {
        Self::slot_at(SLOTS)
    }

    /// The bytes of the table.
    pub(super) const fn table(&self) -> Range<usize> {
        Self::table_at()..self.data_at
    }

    /// The bytes of all pages.
    pub(super) const fn data(&self) -> Range<usize> {
        self.data_at..self.len
    }

    /// The words of a page, of all.
    pub(super) const fn page(&self, page: u32) -> Range<usize> {
        page as usize * self.page_words..(page as usize + 1) * self.page_words
    }
}
