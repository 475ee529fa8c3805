//! How a file comes to be, and how it is opened.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::Path;

use super::header::{Layout, STEP};
use super::mapping::{Locked, Mapping};
use super::record::{COMMITS, Record, SLOTS, SYNCS};
use super::table::Sums;
use super::{CacheFile, Description, Fault, FileError, record, recover, reserve};

/// What an opened file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Tokens that are complete.
    pub len: u32,
    /// The most tokens that there ever were, as last committed.
    pub written: u32,
    /// What was lost, if anything.
    pub cut: Option<Cut>,
}

/// Tokens that were committed and are not whole, as after an end of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Tokens that were committed.
    pub committed: u32,
    /// Tokens that are left.
    pub left: u32,
    /// The first page that is torn; none if only its entry in the table is.
    pub page: Option<u32>,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut { committed, left, page } = self;
        write!(f, "{left} of {committed} tokens are left: ")?;
        match page {
            Some(page) => write!(f, "page {page} was not written to the end"),
            None => f.write_str("the table of pages was not written to the end"),
        }
    }
}

impl CacheFile {
    /// Makes a file of so many pages, without tokens, and waits until it is on the disk. All words are zero.
    ///
    /// `clear` is given the words of a page and a number of tokens, and clears what does not belong to the first so many, always
    /// to the same. With one that does nothing the checksum of a page covers all of its words, and tokens that were being
    /// written when the process ended can take all others of their page with them.
    ///
    /// # Errors
    /// If the file is there, its sizes cannot be counted, the disk has no room, or the system refuses. No file is left then.
    pub fn create(
        path: impl AsRef<Path>,
        description: &Description<'_>,
        pages: u32,
        clear: impl Fn(&mut [u32], u32) + Send + Sync + 'static,
    ) -> Result<Self, FileError> {
        let path = path.as_ref();
        let make = || {
            let layout = Layout::new(description, pages)?;
            let file = match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Fault::Exists),
                file => file.map_err(Fault::io("creating it"))?,
            };
            let map = Self::lay_out(file, path, &layout, &description.header(pages));
            let map = map.inspect_err(|_| drop(fs::remove_file(path)))?;
            Ok(Self::new(path, layout, Sums::new(&layout, clear), map, (0, Record::FIRST)))
        };
        make().map_err(|fault: Fault| fault.at(path))
    }

    /// Opens a file that was made with the same description and `clear`, and verifies what was changed after its last sync.
    ///
    /// # Errors
    /// If it is not there, someone else has it open, it is not of this description, was cut, or is damaged beyond what the end of
    /// a machine does.
    pub fn open(
        path: impl AsRef<Path>,
        description: &Description<'_>,
        clear: impl Fn(&mut [u32], u32) + Send + Sync + 'static,
    ) -> Result<(Self, Opened), FileError> {
        let path = path.as_ref();
        let look = || {
            let file = OpenOptions::new().read(true).write(true).open(path);
            let file = file.map_err(Fault::io("opening it"))?;
            let (map, layout) = Self::look_at(file, description)?;
            let newest = record::newest(&map, 0..SLOTS).ok_or(Fault::Record)?;
            let sums = Sums::new(&layout, clear);
            Self::new(path, layout, sums, map, newest).recovered()
        };
        look().map_err(|fault: Fault| fault.at(path))
    }

    fn new(path: &Path, layout: Layout, sums: Sums, map: Mapping, newest: (usize, Record)) -> Self {
        let (slot, record) = newest;
        // Without a record of a sync nothing is known to be durable but that there was a first commit.
        let durable = record::newest(&map, SYNCS).map_or(Record::FIRST, |(_, record)| record);
        let path = path.to_owned();
        Self { path, layout, sums, map, record, slot, durable, unsynced: false, entries: Vec::new() }
    }

    /// Fills a new file. The header is written last: without it no file is taken for one of a cache.
    fn lay_out(file: File, path: &Path, layout: &Layout, header: &[u8; STEP]) -> Result<Mapping, Fault> {
        let locked = lock(file)?;
        reserve::reserve(locked.file(), layout.len as u64)?;
        let mut map = locked.map(layout.len).map_err(Fault::io("mapping it"))?;
        for slot in [COMMITS[0], SYNCS[0]] {
            Record::FIRST.write(&mut map, slot);
        }
        map.in_order();
        map.bytes_mut()[..STEP].copy_from_slice(header);
        map.flush(0..layout.len).map_err(Fault::io("writing it"))?;
        // The name is on the disk when its folder is, where folders are files.
        #[cfg(unix)]
        {
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(Fault::io("writing its folder"))?;
        }
        #[cfg(not(unix))]
        let _ = path;
        Ok(map)
    }

    /// Maps a file, if it is of a description.
    fn look_at(file: File, description: &Description<'_>) -> Result<(Mapping, Layout), Fault> {
        if !file.metadata().map_err(Fault::io("looking at it"))?.is_file() {
            return Err(Fault::NotACache);
        }
        let locked = lock(file)?;
        let len = locked.file().metadata().map_err(Fault::io("looking at it"))?.len();
        let mut begin = Vec::new();
        locked.file().take(STEP as u64).read_to_end(&mut begin).map_err(Fault::io("reading its header"))?;
        let layout = Layout::new(description, description.pages_of(&begin, len)?)?;
        if len != layout.len as u64 {
            return Err(Fault::Length { found: len, expected: layout.len as u64 });
        }
        reserve::fill_holes(locked.file(), layout.len as u64)?;
        Ok((locked.map(layout.len).map_err(Fault::io("mapping it"))?, layout))
    }

    /// Cuts a file that was just mapped to what is whole.
    fn recovered(mut self) -> Result<(Self, Opened), Fault> {
        let Self { record: newest, durable, layout, .. } = self;
        let found = recover::examine(&self.map, &layout, &mut self.sums, newest, durable)?;
        let opened = Opened { len: found.len, written: newest.written, cut: None };
        if found.stale || found.torn.is_some() {
            self.record.digest = recover::wipe(&mut self.map, &layout, &found, newest.seq, durable.seq);
            // Before any new commit, which what was wiped must not be taken for.
            self.map.flush(layout.table()).map_err(Fault::io("writing its table"))?;
        }
        let Some(torn) = found.torn else { return Ok((self, opened)) };
        self.commit_entries(found.len, newest.written, &[])?;
        self.sync_record()?;
        let cut = Cut { committed: newest.len, left: found.len, page: torn.page };
        Ok((self, Opened { cut: Some(cut), ..opened }))
    }
}

fn lock(file: File) -> Result<Locked, Fault> {
    Locked::new(file).map_err(|error| match error {
        TryLockError::WouldBlock => Fault::Locked,
        TryLockError::Error(error) => Fault::Io { doing: "locking it", error },
    })
}
