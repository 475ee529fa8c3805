//! How a file comes to say what is complete.

use super::header::{Layout, STEP};
use super::record::{COMMITS, Record, SYNCS};
use super::table::{Entries, Entry};
use super::{CacheFile, Fault, FileError, Held, record};

impl CacheFile {
    /// Says that `len` tokens are complete, of `written` that there ever were, and what the pages hold that were changed since the
    /// last commit. If the process ends at any point, either this commit or the one before is what the file holds.
    ///
    /// Reads each changed page once. With fewer tokens than before it waits until that is on the disk, so that the others may
    /// be written over; a page that holds some of them need not be named.
    ///
    /// # Errors
    /// If the numbers do not fit the file, another program changed it, a sync failed before, or one fails now. Only in the last
    /// case the commit stands.
    pub fn commit(&mut self, len: u32, written: u32, changed: &[Held]) -> Result<(), FileError> {
        let backward = len < self.record.len;
        let commit = self.probed().and_then(|()| self.commit_entries(len, written, changed));
        commit
            .and_then(|()| if backward { self.sync_record() } else { Ok(()) })
            .map_err(|fault| fault.at(&self.path))
    }

    /// Makes all that is committed durable, and says how many tokens that is.
    ///
    /// # Errors
    /// If the disk or the system refuses, or another program changed the file. After a refusal each further commit and sync fails.
    pub fn sync(&mut self) -> Result<u32, FileError> {
        self.probed().and_then(|()| self.sync_record()).map_err(|fault| fault.at(&self.path))?;
        Ok(self.durable.len)
    }

    /// Reads all pages that hold tokens, and compares them with their checksums. Returns how many pages that were.
    ///
    /// # Errors
    /// If a page is not what was committed, the first is named; or the table was changed.
    pub fn check(&mut self) -> Result<u32, FileError> {
        self.probed().and_then(|()| self.checked()).map_err(|fault| fault.at(&self.path))
    }

    pub(super) fn commit_entries(&mut self, len: u32, written: u32, changed: &[Held]) -> Result<(), Fault> {
        let Layout { pages, page_tokens, .. } = self.layout;
        if self.unsynced {
            return Err(Fault::Unsynced { durable: self.durable.len });
        }
        if len > written {
            return Err(Fault::Lengths { len, written });
        }
        let fits = |held: &Held| {
            held.page < pages
                && held.tokens <= page_tokens
                && (held.tokens == 0 || held.end() <= u64::from(len))
        };
        if let Some(&held) = changed.iter().find(|held| !fits(held)) {
            return Err(Fault::Held { held, pages, page_tokens, len });
        }
        let seq = self.record.seq.checked_add(1).ok_or(Fault::Record)?;
        self.map.in_order();
        // All sums first: `clear` is not ours, and if it panics the file is as it was.
        self.entries.clear();
        for &held in changed {
            self.entries.push(Entry::new(seq, held, self.sums.of(&self.map, &self.layout, held)));
        }
        if len < self.record.len {
            self.shorten(seq, len);
        }
        let mut digest = self.record.digest;
        for entry in &self.entries {
            let entries = Entries::read(&self.map, &self.layout, entry.held.page);
            digest ^= entry.check ^ entries.until(seq).map_or(0, |before| before.check);
            entries.write(&mut self.map, entry, self.durable.seq, self.record.seq);
        }
        self.map.in_order();
        self.slot = record::oldest(&self.map, COMMITS);
        self.record = Record { seq, len, written, digest };
        self.record.write(&mut self.map, self.slot);
        self.map.in_order();
        Ok(())
    }

    /// Adds an entry for each page that holds tokens on both sides of a new end, and is not named already.
    fn shorten(&mut self, seq: u64, len: u32) {
        let named: Vec<u32> = self.entries.iter().map(|entry| entry.held.page).collect();
        for page in 0..self.layout.pages {
            let Some(held) = self.held(page) else { continue };
            if held.first < len && held.end() > u64::from(len) && !named.contains(&held.page) {
                let held = Held { tokens: len - held.first, ..held };
                self.entries.push(Entry::new(seq, held, self.sums.of(&self.map, &self.layout, held)));
            }
        }
    }

    pub(super) fn sync_record(&mut self) -> Result<(), Fault> {
        if self.durable == self.record {
            return Ok(());
        }
        if self.unsynced {
            return Err(Fault::Unsynced { durable: self.durable.len });
        }
        // Until it is known to have worked.
        self.unsynced = true;
        self.map.flush(0..self.layout.len).map_err(Fault::io("syncing it"))?;
        let slot = record::oldest(&self.map, SYNCS);
        self.record.write(&mut self.map, slot);
        let at = Layout::slot_at(slot);
        self.map.flush(at..at + STEP).map_err(Fault::io("syncing it"))?;
        self.durable = self.record;
        self.unsynced = false;
        Ok(())
    }

    fn checked(&mut self) -> Result<u32, Fault> {
        let (mut count, mut digest) = (0, 0);
        for page in 0..self.layout.pages {
            let entries = Entries::read(&self.map, &self.layout, page);
            let Some(entry) = entries.until(self.record.seq) else { continue };
            digest ^= entry.check;
            if entry.held.tokens == 0 || entry.held.first >= self.record.len {
                continue;
            }
            if !self.sums.is_whole(&self.map, &self.layout, &entry) {
                return Err(Fault::Page(entry.held));
            }
            count += 1;
        }
        if digest == self.record.digest { Ok(count) } else { Err(Fault::Table { commit: self.record.seq }) }
    }
}
