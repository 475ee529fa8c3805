//! What of a file is whole when it is opened.

use super::error::Fault;
use super::header::Layout;
use super::mapping::Mapping;
use super::record::Record;
use super::table::{Entries, Held, Sums};

/// What was found.
pub(super) struct Recovered {
    /// The tokens that are whole.
    pub(super) len: u32,
    /// The first page that is not, or whose entry is gone. Without one nothing is amiss.
    pub(super) torn: Option<Torn>,
    /// Whether there are entries of a commit that did not end.
    pub(super) stale: bool,
    /// Pages that were changed after the last sync and are whole, or were given up.
    good: Vec<Held>,
}

/// Why a file is cut.
pub(super) struct Torn {
    /// The first page that is not whole, if it is not the table alone.
    pub(super) page: Option<u32>,
}

/// Verifies what was changed after the last sync, `durable`, up to the newest commit, `newest`.
///
/// Tokens of the sync are in place, by the rule of the caller that durable tokens are not written over. Those that came later
/// are whole as far as pages with a right checksum hold them without a gap: a gap is a page that is torn, or whose entry did not
/// reach the disk.
pub(super) fn examine(
    map: &Mapping,
    layout: &Layout,
    sums: &mut Sums,
    newest: Record,
    durable: Record,
) -> Result<Recovered, Fault> {
    let floor = newest.len.min(durable.len);
    let (mut digest, mut durable_digest) = (0, 0);
    let mut found = Recovered { len: floor, torn: None, stale: false, good: Vec::new() };
    for page in 0..layout.pages {
        let entries = Entries::read(map, layout, page);
        found.stale |= entries.last_seq() > newest.seq;
        let before = entries.until(durable.seq);
        durable_digest ^= before.map_or(0, |entry| entry.check);
        let Some(entry) = entries.until(newest.seq) else { continue };
        digest ^= entry.check;
        let given_up = entry.held.tokens == 0;
        if entry.seq <= durable.seq || (!given_up && entry.held.first >= newest.len) {
            continue;
        }
        if given_up || sums.is_whole(map, layout, &entry) {
            found.good.push(entry.held);
            continue;
        }
        found.torn.get_or_insert(Torn { page: Some(page) });
        // Its durable tokens are verified too, though only a fault of the disk or of the caller takes them.
        if let Some(before) = before.filter(|before| before.held.tokens > 0 && before.held.first < found.len)
            && !sums.is_whole(map, layout, &before)
        {
            found.len = before.held.first;
        }
    }
    if digest == newest.digest && found.torn.is_none() {
        found.len = newest.len;
        return Ok(found);
    }
    if durable_digest != durable.digest {
        return Err(Fault::Table { commit: newest.seq });
    }
    found.torn.get_or_insert(Torn { page: None });
    if found.len == floor {
        found.good.sort_unstable_by_key(|held| held.first);
        for held in &found.good {
            if held.first <= found.len {
                found.len = found.len.max(held.end().min(u64::from(newest.len)) as u32);
            }
        }
    }
    Ok(found)
}

/// Takes from the table what does not count. What is left is combined as in [`Record::digest`].
pub(super) fn wipe(map: &mut Mapping, layout: &Layout, found: &Recovered, newest: u64, durable: u64) -> u64 {
    let counts = |held: &&Held| held.tokens == 0 || held.first < found.len;
    let mut good: Vec<u32> = found.good.iter().filter(counts).map(|held| held.page).collect();
    good.sort_unstable();
    let mut digest = 0;
    for page in 0..layout.pages {
        let counts = found.torn.is_none() || good.binary_search(&page).is_ok();
        let until = if counts { newest } else { durable };
        let entries = Entries::read(map, layout, page);
        entries.wipe_after(map, page, until);
        digest ^= entries.until(until).map_or(0, |entry| entry.check);
    }
    digest
}
