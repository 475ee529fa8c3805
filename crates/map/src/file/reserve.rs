//! Room on the disk, taken before it is needed: a store into a map has no way to say that the disk is full.

use std::fs::File;
use std::io::{self, Write};

use super::error::Fault;

/// Zeros that are written at once.
const CHUNK: usize = 1 << 20;

/// Makes an empty file so long, with room for each byte.
pub(super) fn reserve(file: &File, len: u64) -> Result<(), Fault> {
    if let Some(free) = free_bytes(file).filter(|&free| free < len) {
        return Err(Fault::Space { needed: len, free: Some(free) });
    }
    let reserved = allocate(file, len).and_then(|done| if done { Ok(()) } else { write_zeros(file, len) });
    reserved.map_err(|error| refused(file, len, error))
}

/// Takes the room that a file of its full length lacks, as a copy may whose zeros were left out, where the system can.
pub(super) fn fill_holes(file: &File, len: u64) -> Result<(), Fault> {
    if !has_holes(file, len) {
        return Ok(());
    }
    allocate(file, len).map(drop).map_err(|error| refused(file, len, error))
}

fn has_holes(file: &File, len: u64) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        // Blocks are of 512 bytes, whatever the disk's are.
        file.metadata().is_ok_and(|metadata| metadata.blocks().saturating_mul(512) < len)
    }
    #[cfg(not(unix))]
    {
        let _ = (file, len);
        false
    }
}

fn refused(file: &File, needed: u64, error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::StorageFull => Fault::Space { needed, free: free_bytes(file) },
        _ => Fault::Io { doing: "reserving its room", error },
    }
}

/// What the disk has left for us, where that can be told. Asked first, so that a file that cannot fit does not fill the disk
/// of others for as long as it takes to find out.
fn free_bytes(file: &File) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let disk = rustix::fs::fstatvfs(file).ok().filter(|disk| disk.f_blocks > 0)?;
        disk.f_bavail.checked_mul(disk.f_frsize)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        None
    }
}

/// Whether the system took the room.
fn allocate(file: &File, len: u64) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::{Errno, retry_on_intr};
        match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, len);
        Ok(false)
    }
}

fn write_zeros(mut file: &File, len: u64) -> io::Result<()> {
    let zeros = vec![0; CHUNK];
    let mut left = len;
    while left > 0 {
        let now = left.min(CHUNK as u64);
        file.write_all(&zeros[..now as usize])?;
        left -= now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_written_to_the_byte() {
        let file = tempfile::tempfile().unwrap();
        let len = CHUNK as u64 * 2 + 5;
        write_zeros(&file, len).unwrap();
        assert_eq!(file.metadata().unwrap().len(), len);
    }
}
