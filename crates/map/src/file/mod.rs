//! Pages of a cache in a file.
//!
//! # Layout
//!
//! Numbers are little-endian, but words of pages are as the machine has them, which the header tells. Checksums are XXH3 of
//! 64 bits. A file has these parts, each from a multiple of 4096 bytes on:
//!
//! | bytes from | what |
//! |---|---|
//! | 0 | the header |
//! | 4096, 8192 | records of commits, written by turns |
//! | 12288, 16384 | records of syncs, written by turns |
//! | 20480 | the table: 96 bytes for each page |
//! | the next multiple of 4096 | the pages, one after the other, to the end of the file |
//!
//! The header, which never changes:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `regardCF` |
//! | 8..12 | the layout: 1 |
//! | 12..16 | `0x04030201` in the order of the machine |
//! | 16..32 | the identity |
//! | 32..36 | the version of what pages hold |
//! | 36..40, 40..44, 44..48 | words of a page, tokens of a page, pages |
//! | 48..52 | the count of further numbers |
//! | 52.. | the numbers, 4 bytes each, then zeros |
//! | 4088..4096 | the checksum of all before it |
//!
//! A record, 32 bytes and zeros behind them:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | the commit, counted from 1 |
//! | 8..12, 12..16 | tokens, and the most tokens that there ever were |
//! | 16..24 | exclusive or of the checksums of all entries that count |
//! | 24..32 | the checksum of 0..24, seeded with the record's place, 0 to 3 |
//!
//! An entry of the table, of which each page has three:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | the commit |
//! | 8..12, 12..16 | the first token in the page, and how many there are |
//! | 16..24 | the checksum of the page, seeded with its place; 0 without tokens |
//! | 24..32 | the checksum of 0..24, seeded with the page's place |
//!
//! Of a page's entries the newest that is not newer than a commit counts for it. A page that is not full is summed with what
//! lies behind its tokens cleared, in a copy: tokens that are written but not committed do not change what a page is.
//!
//! # What survives what
//!
//! The caller's part is one rule: **what a commit counts is not written over.** Before it is, a commit must count it no longer:
//! with fewer tokens, or with [`Held::tokens`] of 0 for a page that is to be used anew. That is enough for a process that ends. If
//! the machine may end too, a [`CacheFile::sync`] must follow that commit; one with fewer tokens syncs by itself.
//!
//! * **The process is killed**, at any instruction: what it stored is in the memory of the system. The next
//!   [`CacheFile::open`] finds the last commit that ended, complete.
//! * **The machine ends**: the tokens of the last sync are there. Of what came later, any part may have reached the disk;
//!   `open` reads the pages that were changed since that sync, and keeps the tokens up to the first that is not whole. It
//!   is taken for granted that a sector of 512 bytes is either old or new.
//! * **The disk is full**: [`CacheFile::create`] takes the room for the whole file, or fails and leaves none; [`CacheFile::open`]
//!   fills the holes of a copy that has some, on Linux. Where the file system has no such call zeros are written; one that
//!   compresses or copies on write may still run out later, which ends the process as below.
//! * **A sync fails**: the tokens of the last one that did not are there. Systems tell of an error once and may then forget
//!   what was to be written, so that no later commit or sync of this `CacheFile` is taken, and what came after that sync
//!   should be written to another file.
//! * **Others change the file.** The file is locked, so that a second `CacheFile` is refused, in this process or another. A
//!   program that asks for no lock is not stopped. If it cuts the file or writes other records, [`CacheFile::probe`], which
//!   `commit` and `sync` begin with, says so. If it cuts the file during a call, the next touch of what is gone ends the
//!   process (SIGBUS; an exception on Windows). If it writes to pages, words change under the hands of whoever reads them; later
//!   [`CacheFile::check`] finds it. Over network file systems locks may hold on one machine only.
//! * **Bits rot**: header, records and table are verified at `open`; pages that were synced only by `check`, because they
//!   may be many gigabytes.

mod commit;
mod error;
mod header;
#[allow(unsafe_code, reason = "a file is mapped")]
mod mapping;
mod open;
mod record;
mod recover;
mod reserve;
mod state;
mod table;

use std::fmt;
use std::path::{Path, PathBuf};

use self::header::Layout;
use self::mapping::Mapping;
use self::record::Record;
use self::table::{Entries, Entry, Sums};

pub use self::error::{Fault, FileError};
pub use self::header::{Description, MAX_NUMBERS};
pub use self::open::{Cut, Opened};
pub use self::state::StateFile;
pub use self::table::Held;

/// Pages of words in a file, and how many tokens in them are complete.
///
/// Words are read and written where they lie. [`commit`](Self::commit) says what is complete, [`sync`](Self::sync) waits
/// until it is on the disk. What is committed survives the process, and what is synced the machine, if nothing that a commit
/// counts is written over; [the module](self) has the rule, and how a file is laid out.
///
/// The file is locked for as long as this is there. **A program that asks for no lock must not touch it meanwhile**: if it
/// cuts the file, the next touch of what is gone ends the process.
pub struct CacheFile {
    path: PathBuf,
    layout: Layout,
    sums: Sums,
    map: Mapping,
    /// The newest commit, and where its record is.
    record: Record,
    slot: usize,
    /// The newest commit that is durable.
    durable: Record,
    /// Whether a sync failed.
    unsynced: bool,
    /// The entries of a commit, before they are written.
    entries: Vec<Entry>,
}

impl CacheFile {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Pages of the file.
    pub fn pages(&self) -> u32 {
        self.layout.pages
    }

    /// Tokens that are committed.
    pub fn len(&self) -> u32 {
        self.record.len
    }

    /// Whether none is committed.
    pub fn is_empty(&self) -> bool {
        self.record.len == 0
    }

    /// The most tokens that there ever were, as committed.
    pub fn written(&self) -> u32 {
        self.record.written
    }

    /// Tokens that an end of the machine leaves.
    pub fn durable(&self) -> u32 {
        self.durable.len
    }

    /// What a page holds of the tokens that are committed, if there is such a page.
    pub fn held(&self, page: u32) -> Option<Held> {
        let none = Held { page, first: 0, tokens: 0 };
        (page < self.layout.pages).then(|| {
            let entry = Entries::read(&self.map, &self.layout, page).until(self.record.seq);
            entry.map(|entry| entry.held).filter(|held| held.first < self.record.len).unwrap_or(none)
        })
    }

    /// The words of all pages.
    pub fn words(&self) -> &[u32] {
        table::words(&self.map, &self.layout)
    }

    /// The words of all pages, to be written. Nothing that a commit counts may be changed.
    pub fn words_mut(&mut self) -> &mut [u32] {
        let data = self.layout.data();
        bytemuck::cast_slice_mut(&mut self.map.bytes_mut()[data])
    }

    /// Whether the file has its length and its record: what can be asked at the begin of each call.
    ///
    /// # Errors
    /// If another program cut the file or wrote to its records.
    pub fn probe(&self) -> Result<(), FileError> {
        self.probed().map_err(|fault| fault.at(&self.path))
    }

    fn probed(&self) -> Result<(), Fault> {
        let (found, expected) =
            (self.map.file_len().map_err(Fault::io("looking at it"))?, self.layout.len as u64);
        if found != expected {
            return Err(Fault::Length { found, expected });
        }
        match Record::read(&self.map, self.slot) {
            Some(record) if record == self.record => Ok(()),
            _ => Err(Fault::Changed { commit: self.record.seq }),
        }
    }
}

impl fmt::Debug for CacheFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, layout, record, durable, .. } = self;
        let mut file = f.debug_struct("CacheFile");
        file.field("path", path).field("layout", layout).field("record", record).field("durable", durable);
        file.finish_non_exhaustive()
    }
}
