//! Ends of the process and of the machine, at any point.

mod common;

use std::fs;
use std::io::{self, BufRead, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{
    DESCRIPTION, Random, TOKENS, append, assert_histories, assert_whole, create, folder, has, open, pages,
    write_some,
};
use regard_map::CacheFile;
use regard_map::file::{Cut, Held};

/// The parts of a small file in the order in which a commit stores: pages, the table, records.
fn store_order(len: usize) -> [Range<usize>; 3] {
    const DATA: usize = 20480 + 4096;
    [DATA..len, 20480..DATA, 4096..20480]
}

/// A commit that is stopped after each of the bytes that it changes loses nothing of the one before.
fn stop_anywhere(path: &Path, before: &[u8], after: &[u8], lens: [u32; 2]) {
    let mut bytes = before.to_vec();
    for at in store_order(bytes.len()).into_iter().flatten().filter(|&at| before[at] != after[at]) {
        bytes[at] = after[at];
        fs::write(path, &bytes).unwrap();
        let (mut file, opened) = open(path).unwrap();
        assert_eq!(opened.cut, None, "byte {at}");
        assert!(lens.contains(&opened.len), "byte {at}: {} of {lens:?}", opened.len);
        assert_whole(&mut file, 0);
        // What the stopped commit left does not get into later ones.
        let mut histories = vec![0; opened.len as usize];
        histories.push(9);
        append(&mut file, 9, 1);
        drop(file);
        let (mut file, opened) = open(path).unwrap();
        assert_eq!((opened.len as usize, opened.cut), (histories.len(), None), "byte {at}");
        assert_histories(&mut file, &histories);
    }
    fs::write(path, after).unwrap();
}

#[test]
fn a_commit_stopped_after_any_byte() {
    let folder = folder();
    let path = folder.path().join("cache");
    let mut file = create(&path, 6);
    let mut before = fs::read(&path).unwrap();
    for (round, count) in [3, 2, 3, 1, 1, 5, 4].into_iter().enumerate() {
        let len = file.len();
        append(&mut file, 0, count);
        drop(file);
        let after = fs::read(&path).unwrap();
        stop_anywhere(&path, &before, &after, [len, len + count]);
        (file, _) = open(&path).unwrap();
        if round == 2 {
            file.sync().unwrap();
        }
        before = fs::read(&path).unwrap();
    }
}

#[test]
fn tokens_being_written_after_a_sync_take_none_with_them() {
    let folder = folder();
    let path = folder.path().join("cache");
    let mut file = create(&path, 6);
    append(&mut file, 0, 6);
    file.sync().unwrap();
    append(&mut file, 0, 1);
    for held in pages(7, 12) {
        write_some(&mut file, 5, held, held.first.max(7));
    }
    drop(file);
    let (mut file, opened) = open(&path).unwrap();
    assert_eq!((opened.len, opened.cut), (7, None));
    assert_whole(&mut file, 0);
}

#[test]
fn without_a_way_to_clear_pages_new_tokens_take_all_of_theirs() {
    let folder = folder();
    let path = folder.path().join("cache");
    let mut file = CacheFile::create(&path, &DESCRIPTION, 6, |_, _| {}).unwrap();
    append(&mut file, 0, 6);
    append(&mut file, 0, 1);
    drop(file);
    let (mut file, opened) = CacheFile::open(&path, &DESCRIPTION, |_, _| {}).unwrap();
    assert_eq!((opened.len, opened.cut), (7, None));
    write_some(&mut file, 0, Held { page: 1, first: 4, tokens: 4 }, 7);
    drop(file);
    let (mut file, opened) = CacheFile::open(&path, &DESCRIPTION, |_, _| {}).unwrap();
    assert_eq!(opened.cut, Some(Cut { committed: 7, left: 4, page: Some(1) }));
    assert_whole(&mut file, 0);
}

/// The file as it may be after the machine ended: each sector as it was at some time since the last sync. The record of a later
/// sync is not there: it is written when all else is on the disk.
fn mixed(states: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = states[0].clone();
    // Now and then most sectors are of one time.
    let (share, favourite) = (random.below(101), random.below(states.len() as u64) as usize);
    for begin in (0..bytes.len()).step_by(512) {
        let end = bytes.len().min(begin + 512);
        let state =
            if random.below(100) < share { favourite } else { random.below(states.len() as u64) as usize };
        bytes[begin..end].copy_from_slice(&states[state][begin..end]);
    }
    bytes[12288..20480].copy_from_slice(&states[0][12288..20480]);
    bytes
}

#[test]
fn sectors_of_any_time_since_the_last_sync() {
    let folder = folder();
    let path = folder.path().join("cache");
    let mut random = Random(3);
    let (mut cuts, mut kept) = (0, 0);
    for _ in 0..60 {
        let _ = fs::remove_file(&path);
        let mut file = create(&path, 40);
        append(&mut file, 0, 1 + random.below(30) as u32);
        append(&mut file, 0, 1 + random.below(30) as u32);
        let durable = file.sync().unwrap();
        let mut states = vec![fs::read(&path).unwrap()];
        for _ in 0..1 + random.below(6) {
            let count = 1 + random.below(12) as u32;
            // Stores of a commit to come, then the commit.
            let (len, next) = (file.len(), file.len() + count);
            for held in pages(len, next) {
                write_some(&mut file, 0, held, held.first.max(len));
            }
            states.push(fs::read(&path).unwrap());
            append(&mut file, 0, count);
            states.push(fs::read(&path).unwrap());
        }
        let newest = file.len();
        drop(file);
        for _ in 0..30 {
            fs::write(&path, mixed(&states, &mut random)).unwrap();
            let (mut file, opened) = open(&path).unwrap();
            assert!((durable..=newest).contains(&opened.len), "{durable} {} {newest}", opened.len);
            assert_whole(&mut file, 0);
            match opened.cut {
                Some(cut) => {
                    cuts += 1;
                    assert!(cut.left <= cut.committed && file.durable() == cut.left);
                }
                None => kept += 1,
            }
            // It can be gone on with, in another way.
            append(&mut file, 0, 3);
            file.sync().unwrap();
            drop(file);
            let (mut file, again) = open(&path).unwrap();
            assert_eq!((again.len, again.cut), (opened.len + 3, None));
            assert_whole(&mut file, 0);
        }
    }
    assert!(cuts > 100 && kept > 100, "{cuts} cuts, {kept} without");
}

/// What was cut off, or never committed, does not come back when the machine ends again, though it may still be on the disk.
#[test]
fn one_end_of_the_machine_after_the_other() {
    let folder = folder();
    let path = folder.path().join("cache");
    let mut random = Random(6);
    for _ in 0..150 {
        let _ = fs::remove_file(&path);
        drop(create(&path, 30));
        let mut disk = fs::read(&path).unwrap();
        let (mut histories, mut durable) = (Vec::new(), 0);
        for history in 0..8 {
            fs::write(&path, &disk).unwrap();
            let (mut file, opened) = open(&path).unwrap();
            assert!(opened.len >= durable && opened.len as usize <= histories.len());
            histories.truncate(opened.len as usize);
            assert_histories(&mut file, &histories);
            let now = fs::read(&path).unwrap();
            // Of what opening wrote, the table is waited for, and all if anything was cut.
            if opened.cut.is_some() {
                durable = opened.len;
                disk = now;
            } else {
                disk[20480..24576].copy_from_slice(&now[20480..24576]);
            }
            let mut states = vec![disk];
            for _ in 0..1 + random.below(5) {
                let count = random.below(9) as u32;
                let (len, next) = (file.len(), file.len() + count);
                for held in pages(len, next) {
                    write_some(&mut file, history, held, held.first.max(len));
                }
                states.push(fs::read(&path).unwrap());
                if next > 110 {
                    break;
                }
                append(&mut file, history, count);
                histories.resize(next as usize, history);
                states.push(fs::read(&path).unwrap());
                let back = match random.below(6) {
                    0 => random.below(u64::from(next) + 1) as u32,
                    1 => next,
                    _ => continue,
                };
                let written = file.written();
                file.commit(back, written, &[]).unwrap();
                durable = file.sync().unwrap();
                assert_eq!(durable, back);
                histories.truncate(back as usize);
                states = vec![fs::read(&path).unwrap()];
            }
            drop(file);
            disk = mixed(&states, &mut random);
        }
    }
}

#[test]
fn pages_of_a_ring_that_were_synced_away_before_they_were_used_anew() {
    let folder = folder();
    let path = folder.path().join("cache");
    let mut random = Random(4);
    for rounds in 1..12 {
        let _ = fs::remove_file(&path);
        let mut file = create(&path, 3);
        let mut states = Vec::new();
        for page in 0..rounds {
            let held = Held { page: page % 3, first: page * TOKENS, tokens: TOKENS };
            let next = held.first + TOKENS;
            let len = file.len();
            file.commit(len, next, &[Held { tokens: 0, ..held }]).unwrap();
            file.sync().unwrap();
            states = vec![fs::read(&path).unwrap()];
            common::write(&mut file, 0, held);
            states.push(fs::read(&path).unwrap());
            file.commit(next, next, &[held]).unwrap();
            states.push(fs::read(&path).unwrap());
        }
        drop(file);
        let next = rounds * TOKENS;
        for _ in 0..100 {
            fs::write(&path, mixed(&states, &mut random)).unwrap();
            let (mut file, opened) = open(&path).unwrap();
            assert!(opened.written == next && [next - TOKENS, next].contains(&opened.len));
            let held: Vec<_> = (0..3).filter_map(|page| file.held(page)).collect();
            assert!(held.iter().all(|&held| has(&file, 0, held)));
            let tokens: u32 = held.iter().map(|held| held.tokens).sum();
            let page_is_lost = opened.len < next;
            assert_eq!(
                tokens,
                if page_is_lost { (next - TOKENS).min(2 * TOKENS) } else { next.min(3 * TOKENS) }
            );
            file.check().unwrap();
        }
    }
}

/// Appends and commits until it is killed; the path is the first line of its input. Not a test, but started by one.
#[test]
#[ignore = "run by the test below, and killed"]
fn writes_until_killed() {
    let mut path = String::new();
    io::stdin().lock().read_line(&mut path).unwrap();
    let Ok((mut file, _)) = open(Path::new(path.trim())) else { return };
    let mut random = Random(u64::from(file.len()));
    let most = file.pages() * TOKENS - 8;
    loop {
        if file.len() >= most {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        append(&mut file, 0, 1 + random.below(6) as u32);
        if random.below(300) == 0 {
            file.sync().unwrap();
        }
        if random.below(300) == 0 {
            let (len, written) = (file.len().saturating_sub(5), file.written());
            file.commit(len, written, &[]).unwrap();
        }
    }
}

#[test]
fn a_process_killed_at_any_time() {
    let folder = folder();
    let path = folder.path().join("cache");
    let mut random = Random(5);
    let mut file: CacheFile = create(&path, 8000);
    let mut last = 0;
    for round in 0..25 {
        drop(file);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_until_killed", "--ignored"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        writeln!(child.stdin.take().unwrap(), "{}", path.display()).unwrap();
        std::thread::sleep(Duration::from_micros(10_000 + random.below(20_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let (opened_file, opened) = open(&path).unwrap();
        file = opened_file;
        assert_eq!(opened.cut, None, "round {round}");
        assert!(opened.len + 5 >= last, "round {round}: {} after {last}", opened.len);
        assert_whole(&mut file, 0);
        last = opened.len;
        if last > 20_000 {
            let written = file.written();
            file.commit(0, written, &[]).unwrap();
            last = 0;
        }
    }
    assert!(file.written() > 100, "{}", file.written());
}
