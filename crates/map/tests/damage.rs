//! Files that were changed: each is an error, or what was once committed.

mod common;

use std::fs;
use std::ops::Range;
use std::path::Path;

use common::{Random, WORDS, append, assert_whole, create, folder, has, open};
use regard_map::CacheFile;
use regard_map::file::{Cut, Fault, Held, Opened};

/// Where pages begin, of a file of few.
const DATA: usize = 20480 + 4096;

/// A file of 5 pages, with 10 durable tokens and 5 that are not, and its bytes.
fn sample(path: &Path) -> Vec<u8> {
    let mut file = create(path, 5);
    append(&mut file, 0, 7);
    append(&mut file, 0, 3);
    file.sync().unwrap();
    append(&mut file, 0, 2);
    append(&mut file, 0, 3);
    drop(file);
    fs::read(path).unwrap()
}

/// Opens a changed file. Its tokens, if it is what was committed at some time, as far as it says; else why not.
fn judge(path: &Path, history: u32) -> Result<u32, Fault> {
    let (mut file, opened) = open(path).map_err(|error| error.fault)?;
    assert_eq!(file.len(), opened.len);
    assert_eq!(opened.cut.map_or(opened.len, |cut| cut.left), opened.len);
    file.check().map_err(|error| error.fault)?;
    assert_whole(&mut file, history);
    Ok(opened.len)
}

#[test]
fn each_byte_of_header_and_tables_flipped() {
    let folder = folder();
    let path = folder.path().join("cache");
    let bytes = sample(&path);
    let mut lens = [0; 16];
    for at in 0..DATA {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&path, &changed).unwrap();
        match judge(&path, 0) {
            Ok(len) => lens[len as usize] += 1,
            Err(fault) if at < 4096 => {
                assert!(
                    matches!(fault, Fault::NotACache | Fault::Layout { .. } | Fault::Header),
                    "byte {at}: {fault}"
                );
            }
            Err(fault) => assert!(matches!(fault, Fault::Table { .. }), "byte {at}: {fault}"),
        }
        assert!(at >= 4096 || lens == [0; 16], "byte {at} of the header does not count");
    }
    let told: Vec<_> = (0..16).filter(|&len| lens[len] > 0).collect();
    assert_eq!(told, [10, 12, 15]);
    // 12: a record, and an entry of 3 tokens behind them. 10: an entry of 2.
    assert_eq!((lens[10], lens[12]), (32, 64));
}

#[test]
fn random_bytes_anywhere() {
    let folder = folder();
    let path = folder.path().join("cache");
    let bytes = sample(&path);
    let mut random = Random(1);
    for _ in 0..3000 {
        let mut changed = bytes.clone();
        // Half of them among pages, the others in a region that is not the header.
        let begin = if random.below(2) == 0 { DATA } else { 4096 };
        for _ in 0..1 + random.below(40) {
            let at = begin + random.below((bytes.len() - begin) as u64) as usize;
            changed[at] = random.below(256) as u8;
        }
        fs::write(&path, &changed).unwrap();
        // Cut anywhere, maybe: what is left is right.
        let len = judge(&path, 0).unwrap_or(0);
        assert!(len <= 15, "{len}");
    }
}

/// Changes some bytes of a file.
fn damage(path: &Path, bytes: Range<usize>) {
    let mut changed = fs::read(path).unwrap();
    changed[bytes].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(path, changed).unwrap();
}

/// The bytes of a page.
fn page(page: usize) -> Range<usize> {
    let bytes = WORDS as usize * 4;
    DATA + page * bytes..DATA + (page + 1) * bytes
}

#[test]
fn without_records_of_commits_that_of_the_sync_counts() {
    let folder = folder();
    let path = folder.path().join("cache");
    sample(&path);
    damage(&path, 4096..12288);
    let (mut file, opened) = open(&path).unwrap();
    assert_eq!(opened, Opened { len: 10, written: 10, cut: None });
    assert_whole(&mut file, 0);
    append(&mut file, 0, 5);
    drop(file);
    assert_eq!(judge(&path, 0).unwrap(), 15);
}

#[test]
fn without_records_of_syncs_all_is_verified() {
    let folder = folder();
    let path = folder.path().join("cache");
    sample(&path);
    damage(&path, 12288..20480);
    assert_eq!(judge(&path, 0).unwrap(), 15);
    sample_again(&path);
    damage(&path, 12288..20480);
    damage(&path, page(1));
    let (mut file, opened) = open(&path).unwrap();
    assert_eq!(
        opened,
        Opened { len: 4, written: 15, cut: Some(Cut { committed: 15, left: 4, page: Some(1) }) }
    );
    assert_eq!(opened.cut.unwrap().to_string(), "4 of 15 tokens are left: page 1 was not written to the end");
    assert_whole(&mut file, 0);
}

fn sample_again(path: &Path) {
    fs::remove_file(path).unwrap();
    sample(path);
}

#[test]
fn durable_tokens_that_a_fault_took_are_cut_too() {
    let folder = folder();
    let path = folder.path().join("cache");
    sample(&path);
    // With tokens of before and after the sync.
    damage(&path, page(2));
    let (mut file, opened) = open(&path).unwrap();
    assert_eq!(opened.cut, Some(Cut { committed: 15, left: 8, page: Some(2) }));
    assert_whole(&mut file, 0);
    append(&mut file, 0, 3);
    drop(file);
    assert_eq!(judge(&path, 0).unwrap(), 11);
}

#[test]
fn a_page_that_was_given_up_stays_so_when_another_is_torn() {
    let folder = folder();
    let path = folder.path().join("cache");
    let mut file = create(&path, 5);
    append(&mut file, 0, 8);
    file.sync().unwrap();
    file.commit(8, 12, &[Held { page: 0, first: 100, tokens: 0 }]).unwrap();
    append(&mut file, 0, 4);
    drop(file);
    damage(&path, page(2));
    let (mut file, opened) = open(&path).unwrap();
    assert_eq!(
        opened,
        Opened { len: 8, written: 12, cut: Some(Cut { committed: 12, left: 8, page: Some(2) }) }
    );
    assert_eq!(file.held(0), Some(Held { page: 0, first: 0, tokens: 0 }));
    assert_eq!(file.check().unwrap(), 1);
}

#[test]
fn noise_is_no_cache() {
    let folder = folder();
    let path = folder.path().join("cache");
    let bytes = sample(&path);
    let mut random = Random(2);
    for round in 0..500 {
        let mut noise: Vec<u8> = (0..bytes.len()).map(|_| random.below(256) as u8).collect();
        // Under a right header the rest is noise, or zeros.
        if round % 2 == 0 {
            noise[..4096].copy_from_slice(&bytes[..4096]);
        }
        if round % 4 == 0 {
            noise[4096..].fill(0);
        }
        fs::write(&path, &noise).unwrap();
        let fault = open(&path).unwrap_err().fault;
        assert!(matches!((round % 2, &fault), (0, Fault::Record) | (1, Fault::NotACache)), "{fault}");
    }
}

#[test]
fn each_other_length_is_refused() {
    let folder = folder();
    let path = folder.path().join("cache");
    let mut bytes = sample(&path);
    let whole = bytes.len();
    bytes.extend([0; 100]);
    for len in (0..bytes.len()).filter(|&len| len != whole) {
        fs::write(&path, &bytes[..len]).unwrap();
        match open(&path).unwrap_err().fault {
            Fault::NotACache => assert!(len < 8),
            Fault::Length { found, expected } => {
                let all = if len < 4096 { 4096 } else { whole };
                assert_eq!((found, expected), (len as u64, all as u64));
            }
            fault => panic!("{len} bytes: {fault}"),
        }
    }
}

/// Bytes of one state written over those of another, from the begin on, as by a copy that was stopped.
fn each_prefix(before: &[u8], after: &[u8], path: &Path, mut judge: impl FnMut(usize)) {
    let mut bytes = before.to_vec();
    for at in (0..before.len()).filter(|&at| before[at] != after[at]) {
        bytes[at] = after[at];
        fs::write(path, &bytes).unwrap();
        judge(at);
    }
}

#[test]
fn a_new_version_written_prefix_by_prefix() {
    let folder = folder();
    let path = folder.path().join("cache");
    for synced in [false, true] {
        let _ = fs::remove_file(&path);
        let before = sample(&path);
        let (mut file, _) = open(&path).unwrap();
        append(&mut file, 0, 4);
        if synced {
            file.sync().unwrap();
        }
        drop(file);
        let after = fs::read(&path).unwrap();
        let mut lens = Vec::new();
        each_prefix(&before, &after, &path, |at| match judge(&path, 0) {
            Ok(len) => lens.push(len),
            // What is said to be durable and is not, no end of a process or machine leaves.
            Err(Fault::Table { .. } | Fault::Page(_)) if synced => {}
            Err(fault) => panic!("byte {at}: {fault}"),
        });
        assert_eq!(lens.last(), Some(&19));
        lens.sort_unstable();
        lens.dedup();
        assert!(lens.iter().all(|len| [10, 12, 15, 16, 19].contains(len)), "{lens:?}");
    }
}

#[test]
fn another_history_written_prefix_by_prefix() {
    let folder = folder();
    let path = folder.path().join("cache");
    let before = sample(&path);
    fs::remove_file(&path).unwrap();
    let mut file = create(&path, 5);
    append(&mut file, 1, 18);
    file.sync().unwrap();
    drop(file);
    let after = fs::read(&path).unwrap();
    let held_by = |file: &CacheFile, history| {
        let held = (0..5).filter_map(|page| file.held(page)).collect::<Vec<Held>>();
        held.iter().all(|&held| has(file, history, held))
    };
    each_prefix(&before, &after, &path, |at| {
        let Ok((mut file, _)) = open(&path) else { return };
        if file.check().is_ok() {
            assert!(held_by(&file, 0) || held_by(&file, 1), "byte {at}");
        }
    });
    assert_eq!(judge(&path, 1).unwrap(), 18);
}
