//! States in files: what is opened is a state that was written, and none older than the last that was synced.

mod common;

use std::fs;
use std::path::Path;

use common::{Random, folder};
use regard_map::StateFile;
use regard_map::file::{Description, Fault, Opened};

/// Words of a state.
const WORDS: usize = 300;

const DESCRIPTION: Description<'_> = Description {
    identity: [7; 16],
    version: 3,
    page_words: WORDS as u32,
    page_tokens: 1,
    numbers: &[("heads", 2)],
};

/// Where the table and the pages begin.
const TABLE: usize = 20480;
const PAGES: usize = TABLE + 4096;

fn commit(file: &mut StateFile, tokens: u32) {
    file.commit(tokens, |words| (0..).zip(words).for_each(|(i, word)| *word = tokens * 1000 + i)).unwrap();
}

/// Opens a file, whose state must be one that was committed. Its tokens.
fn open(path: &Path) -> (StateFile, Opened) {
    let (mut file, opened) = StateFile::open(path, &DESCRIPTION).unwrap();
    let tokens = file.tokens();
    assert_eq!((opened.len, opened.written), (tokens, tokens));
    assert!(opened.cut.is_none_or(|cut| cut.left == tokens));
    if let Some(words) = file.state() {
        assert!((0..).zip(words).all(|(i, &word)| word == tokens * 1000 + i), "a state of {tokens} tokens");
    }
    file.check().unwrap();
    (file, opened)
}

#[test]
fn a_state_is_there_again() {
    let folder = folder();
    let path = folder.path().join("state");
    let mut file = StateFile::create(&path, &DESCRIPTION).unwrap();
    assert_eq!((file.tokens(), file.state()), (0, None));
    // Forward and back, synced and not.
    for (turn, tokens) in [5, 9, 9, 2, 0, 70, 71, 72, 3].into_iter().enumerate() {
        commit(&mut file, tokens);
        if turn % 3 == 1 {
            assert_eq!(file.sync().unwrap(), tokens);
        }
        drop(file);
        let (again, opened) = open(&path);
        assert_eq!((opened.len, opened.cut), (tokens, None));
        file = again;
    }
    let locked = StateFile::open(&path, &DESCRIPTION).unwrap_err();
    assert!(matches!(locked.fault, Fault::Locked), "{locked}");
    drop(file);
    let other = Description { identity: [8; 16], ..DESCRIPTION };
    assert!(StateFile::open(&path, &other).is_err());
    let larger = Description { page_words: WORDS as u32 + 1, ..DESCRIPTION };
    assert!(StateFile::open(&path, &larger).is_err());
    let none =
        StateFile::create(folder.path().join("none"), &Description { page_words: u32::MAX, ..DESCRIPTION });
    assert!(matches!(none.unwrap_err().fault, Fault::Sizes { .. }));
}

/// A process that ends in the midst of a commit, after any byte of what it stores.
#[test]
fn a_commit_stopped_after_any_byte() {
    let folder = folder();
    let path = folder.path().join("state");
    let mut file = StateFile::create(&path, &DESCRIPTION).unwrap();
    commit(&mut file, 4);
    for (tokens, then) in [(4, 6), (6, 3), (3, 9)] {
        let before = fs::read(&path).unwrap();
        commit(&mut file, then);
        drop(file);
        let after = fs::read(&path).unwrap();
        let mut bytes = before.clone();
        let order = [PAGES..bytes.len(), TABLE..PAGES, 4096..TABLE];
        for at in order.into_iter().flatten().filter(|&at| before[at] != after[at]) {
            bytes[at] = after[at];
            fs::write(&path, &bytes).unwrap();
            let (mut file, opened) = open(&path);
            assert!(opened.cut.is_none() && [tokens, then].contains(&opened.len), "byte {at}: {opened:?}");
            // The next one goes on from there.
            commit(&mut file, 50);
            drop(file);
            assert_eq!(open(&path).1.len, 50, "byte {at}");
        }
        fs::write(&path, &after).unwrap();
        (file, _) = open(&path);
    }
}

/// A machine that ends: of what came after the last sync any sectors have reached the disk.
#[test]
fn a_machine_that_ends_leaves_what_was_synced_or_later() {
    let folder = folder();
    let path = folder.path().join("state");
    let mut random = Random(5);
    let mut kept = [0; 2];
    for round in 0..300 {
        let _ = fs::remove_file(&path);
        let mut file = StateFile::create(&path, &DESCRIPTION).unwrap();
        for tokens in 1..=random.below(4) as u32 {
            commit(&mut file, tokens);
        }
        let synced = file.sync().unwrap();
        let before = fs::read(&path).unwrap();
        let last = synced + 1 + random.below(3) as u32;
        for tokens in synced + 1..=last {
            commit(&mut file, tokens);
        }
        drop(file);
        let after = fs::read(&path).unwrap();
        let mut bytes = before.clone();
        for (to, from) in bytes.chunks_mut(512).zip(after.chunks(512)) {
            if random.below(2) == 0 {
                to.copy_from_slice(from);
            }
        }
        fs::write(&path, &bytes).unwrap();
        let (mut file, opened) = open(&path);
        assert!((synced..=last).contains(&opened.len), "round {round}: {opened:?}, {synced} to {last}");
        kept[usize::from(opened.len == synced)] += 1;
        commit(&mut file, 90);
        drop(file);
        let (_, opened) = open(&path);
        assert_eq!((opened.len, opened.cut), (90, None), "round {round}");
    }
    assert!(kept.iter().all(|&rounds| rounds > 10), "{kept:?}");
}
