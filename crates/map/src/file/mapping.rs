//! A file as memory: the one place of this crate that is unsafe.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::sync::atomic::{Ordering, compiler_fence};

use memmap2::{MmapMut, MmapOptions};

/// A file that nobody else has, as far as they ask.
#[derive(Debug)]
pub(super) struct Locked(File);

impl Locked {
    /// Takes the exclusive lock of a file, which is kept for as long as the file is.
    pub(super) fn new(file: File) -> Result<Self, TryLockError> {
        file.try_lock()?;
        Ok(Self(file))
    }

    pub(super) fn file(&self) -> &File {
        &self.0
    }

    /// Its first bytes as memory.
    ///
    /// # Errors
    /// If the system does not map it.
    pub(super) fn map(self, len: usize) -> io::Result<Mapping> {
        // SAFETY: the bytes of a map must not change, or go, behind its back. `new`, the one way to a `Locked`, took the file's
        // exclusive lock, and `Mapping` keeps it for longer than the map: no `CacheFile`, of this process or another, has the
        // file too. The lock does not hold whoever never asks for it; what comes of that is said in the docs of `CacheFile`.
        let map = unsafe { MmapOptions::new().len(len).map_mut(&self.0)? };
        Ok(Mapping { map, file: self })
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Said aloud: a process that another thread is just starting has the file too until it runs its own program, and a
        // lock that is not given back is kept until all have closed the file.
        let _ = self.0.unlock();
    }
}

/// A locked file in memory.
#[derive(Debug)]
pub(super) struct Mapping {
    // Before the lock, so that it goes first.
    map: MmapMut,
    file: Locked,
}

impl Mapping {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }

    /// Keeps all stores so far before all that follow, so that a process that ends between two has done the first. The
    /// compiler is all that must be told: what a processor has retired reaches memory, whatever becomes of the process.
    pub(super) fn in_order(&self) {
        compiler_fence(Ordering::SeqCst);
    }

    /// Waits until bytes are on the disk.
    pub(super) fn flush(&self, range: Range<usize>) -> io::Result<()> {
        self.map.flush_range(range.start, range.len())?;
        if cfg!(target_vendor = "apple") {
            // There the disk may keep what it was given in memory of its own until it is asked.
            self.file.0.sync_data()?;
        }
        Ok(())
    }

    /// How long the file is now.
    pub(super) fn file_len(&self) -> io::Result<u64> {
        self.file.0.metadata().map(|metadata| metadata.len())
    }
}
