//! Records of what is complete: two of commits and two of syncs, each pair written by turns.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::header::Layout;
use super::mapping::Mapping;

/// Records of a file: slots 0 and 1 for commits, 2 and 3 for syncs.
pub(super) const SLOTS: usize = 4;

/// The slots of commits.
pub(super) const COMMITS: [usize; 2] = [0, 1];

/// The slots of syncs. What is in one was a commit, and is on the disk.
pub(super) const SYNCS: [usize; 2] = [2, 3];

/// Bytes of a record: its numbers, then their checksum.
const BYTES: usize = 32;

/// A state of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The commit, counted from 1.
    pub(super) seq: u64,
    pub(super) len: u32,
    pub(super) written: u32,
    /// The checksums of all entries of the table that count, combined: whether the table is that of this commit.
    pub(super) digest: u64,
}

impl Record {
    /// That of a file without tokens.
    pub(super) const FIRST: Self = Self { seq: 1, len: 0, written: 0, digest: 0 };

    /// The record of a slot, if it is whole.
    pub(super) fn read(map: &Mapping, slot: usize) -> Option<Self> {
        let bytes: &[u8; BYTES] = map.bytes()[Layout::slot_at(slot)..].first_chunk()?;
        let (numbers, check) = bytes.split_first_chunk::<24>()?;
        if check != check_of(numbers, slot).to_le_bytes() {
            return None;
        }
        let long = |at: usize| u64::from_le_bytes(numbers[at..at + 8].try_into().expect("8 bytes"));
        let lengths = long(8);
        let record =
            Self { seq: long(0), len: lengths as u32, written: (lengths >> 32) as u32, digest: long(16) };
        (record.seq > 0 && record.len <= record.written).then_some(record)
    }

    pub(super) fn write(&self, map: &mut Mapping, slot: usize) {
        let mut bytes = [0; BYTES];
        let lengths = u64::from(self.len) | u64::from(self.written) << 32;
        for (at, number) in [(0, self.seq), (8, lengths), (16, self.digest)] {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let check = check_of(bytes.first_chunk().expect("24 bytes of 32"), slot);
        bytes[24..].copy_from_slice(&check.to_le_bytes());
        map.bytes_mut()[Layout::slot_at(slot)..][..BYTES].copy_from_slice(&bytes);
    }
}

fn check_of(numbers: &[u8; 24], slot: usize) -> u64 {
    xxh3_64_with_seed(numbers, slot as u64)
}

/// The newest whole record of some slots, and where it is.
pub(super) fn newest(map: &Mapping, slots: impl IntoIterator<Item = usize>) -> Option<(usize, Record)> {
    let records = slots.into_iter().filter_map(|slot| Some((slot, Record::read(map, slot)?)));
    records.max_by_key(|(_, record)| record.seq)
}

/// The slot of a pair that is written next: never that of the newer record.
pub(super) fn oldest(map: &Mapping, pair: [usize; 2]) -> usize {
    match newest(map, pair) {
        Some((slot, _)) if slot == pair[0] => pair[1],
        _ => pair[0],
    }
}
