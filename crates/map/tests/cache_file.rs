//! Files of caches as they are used.

mod common;

use std::fs;

use common::{DESCRIPTION, TOKENS, append, assert_whole, clear, create, has, open, pages, write};
use regard_map::CacheFile;
use regard_map::file::{Description, Fault, FileError, Held, MAX_NUMBERS, Opened};

fn fault<T>(result: Result<T, FileError>) -> Fault {
    match result {
        Ok(_) => panic!("not refused"),
        Err(error) => error.fault,
    }
}

#[test]
fn what_is_committed_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let mut file = create(&path, 5);
    assert_eq!((file.len(), file.pages(), file.words().len()), (0, 5, 240));
    assert!(file.is_empty() && file.words().iter().all(|&word| word == 0));
    for count in [1, 2, 3, 0, 7] {
        append(&mut file, 0, count);
        assert_whole(&mut file, 0);
    }
    assert_eq!(file.durable(), 0);
    assert_eq!(file.sync().unwrap(), 13);
    append(&mut file, 0, 2);
    assert_eq!((file.len(), file.durable()), (15, 13));
    // Not committed.
    write(&mut file, 7, Held { page: 4, first: 16, tokens: 4 });
    drop(file);

    let (mut file, opened) = open(&path).unwrap();
    assert_eq!(opened, Opened { len: 15, written: 15, cut: None });
    assert_eq!((file.len(), file.durable(), file.path()), (15, 13, path.as_path()));
    assert_whole(&mut file, 0);
    assert_eq!((file.held(4), file.held(5)), (Some(Held { page: 4, first: 0, tokens: 0 }), None));
    append(&mut file, 0, 5);
    assert_whole(&mut file, 0);
}

#[test]
fn pages_are_words_of_the_file_from_a_multiple_of_4096_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let mut file = create(&path, 43);
    file.words_mut()[0] = 0x0102_0304;
    file.words_mut()[43 * 48 - 1] = 0x0506_0708;
    assert_eq!(file.words().as_ptr().addr() % 4096, 0);
    file.sync().unwrap();
    drop(file);
    let bytes = fs::read(&path).unwrap();
    // The table has 43 × 96 bytes, which is more than 4096.
    let data = 20480 + 2 * 4096;
    assert_eq!(bytes.len(), data + 43 * 48 * 4);
    assert_eq!(bytes[data..][..4], 0x0102_0304_u32.to_ne_bytes());
    assert_eq!(bytes[bytes.len() - 4..], 0x0506_0708_u32.to_ne_bytes());
    assert_eq!(&bytes[..8], b"regardCF");
}

#[test]
fn a_file_is_made_once_and_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    assert!(matches!(fault(open(&path)), Fault::Io { doing: "opening it", .. }));
    let file = create(&path, 1);
    assert!(matches!(fault(CacheFile::create(&path, &DESCRIPTION, 1, clear)), Fault::Exists));
    let error = open(&path).unwrap_err();
    assert!(matches!(error.fault, Fault::Locked));
    assert!(error.to_string().starts_with(&format!("{}: someone else has", path.display())), "{error}");
    drop(file);
    open(&path).unwrap();
    assert!(open(folder.path()).is_err());
}

#[test]
fn another_description_is_refused_with_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    drop(create(&path, 2));
    let told = |description: &Description<'_>| {
        let error = CacheFile::open(&path, description, clear).unwrap_err();
        error.fault.to_string()
    };
    let identity = *b"identity of that";
    assert_eq!(
        told(&Description { identity, ..DESCRIPTION }),
        "a file of 6964656e74697479206f662074686973, and one of 6964656e74697479206f662074686174 was expected"
    );
    assert_eq!(
        told(&Description { version: 4, ..DESCRIPTION }),
        "pages of version 3, and version 4 was expected"
    );
    assert_eq!(
        told(&Description { page_words: 50, ..DESCRIPTION }),
        "words of a page: 48 in the file, and 50 was expected"
    );
    assert_eq!(
        told(&Description { page_tokens: 5, ..DESCRIPTION }),
        "tokens of a page: 4 in the file, and 5 was expected"
    );
    assert_eq!(
        told(&Description { numbers: &[("codec of keys", 2), ("codec of values", 0)], ..DESCRIPTION }),
        "codec of values: 4 in the file, and 0 was expected"
    );
    assert_eq!(
        told(&Description { numbers: &[], ..DESCRIPTION }),
        "a description with 2 numbers, and there should be 0"
    );
    assert_eq!(
        told(&Description { numbers: &[("n", 1); 2000], ..DESCRIPTION }),
        "a description with 2 numbers, and there should be 2000"
    );
    open(&path).unwrap();
}

#[test]
fn sizes_that_no_file_has_are_refused_and_leave_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let made = |description: &Description<'_>, pages| {
        let fault = fault(CacheFile::create(&path, description, pages, clear));
        assert!(!path.exists());
        fault
    };
    assert!(matches!(made(&DESCRIPTION, 0), Fault::Sizes { .. }));
    assert!(matches!(made(&Description { page_words: 0, ..DESCRIPTION }, 1), Fault::Sizes { .. }));
    assert!(matches!(made(&Description { page_tokens: 0, ..DESCRIPTION }, 1), Fault::Sizes { .. }));
    let large = Description { page_words: u32::MAX, ..DESCRIPTION };
    assert!(matches!(made(&large, u32::MAX), Fault::Sizes { .. }));
    let numbers = &[("n", 1); MAX_NUMBERS + 1];
    assert!(matches!(made(&Description { numbers, ..DESCRIPTION }, 1), Fault::Numbers { .. }));
    // 64 TiB; only Linux is asked what is free, and elsewhere this would be written.
    if cfg!(target_os = "linux") {
        let fault = made(&large, 4096);
        assert!(matches!(fault, Fault::Space { free: Some(_), .. }), "{fault}");
    }
}

#[test]
fn most_numbers_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let mut numbers = [("n", 7); MAX_NUMBERS];
    drop(CacheFile::create(&path, &Description { numbers: &numbers, ..DESCRIPTION }, 1, clear).unwrap());
    CacheFile::open(&path, &Description { numbers: &numbers, ..DESCRIPTION }, clear).unwrap();
    numbers[MAX_NUMBERS - 1] = ("the last", 8);
    let fault = fault(CacheFile::open(&path, &Description { numbers: &numbers, ..DESCRIPTION }, clear));
    assert_eq!(fault.to_string(), "the last: 7 in the file, and 8 was expected");
}

#[test]
fn commits_that_do_not_fit_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = create(&folder.path().join("cache"), 2);
    append(&mut file, 0, 5);
    let held = |page, first, tokens| Held { page, first, tokens };
    assert!(matches!(fault(file.commit(6, 5, &[])), Fault::Lengths { len: 6, written: 5 }));
    for odd in [held(2, 0, 1), held(0, 0, 5), held(0, 3, 4), held(0, u32::MAX, 4), held(9, 0, 0)] {
        assert!(matches!(fault(file.commit(6, 6, &[held(0, 0, 4), odd])), Fault::Held { .. }));
    }
    assert_eq!((file.len(), file.written()), (5, 5));
    assert_whole(&mut file, 0);
    // The same page twice is the page once.
    file.commit(5, 5, &[held(1, 4, 1), held(1, 4, 1), held(0, 0, 4)]).unwrap();
    assert_whole(&mut file, 0);
}

#[test]
fn tokens_are_taken_back_and_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let mut file = create(&path, 5);
    append(&mut file, 0, 18);
    file.commit(6, 18, &[]).unwrap();
    assert_eq!((file.len(), file.written(), file.durable()), (6, 18, 6));
    assert_whole(&mut file, 0);
    // Written over and not committed: the page is summed without.
    for held in pages(6, 12) {
        common::write_some(&mut file, 1, held, held.first.max(6));
    }
    assert_whole(&mut file, 0);
    drop(file);
    let (mut file, opened) = open(&path).unwrap();
    assert_eq!(opened, Opened { len: 6, written: 18, cut: None });
    assert_whole(&mut file, 0);
    append(&mut file, 0, 12);
    assert_eq!((file.len(), file.written()), (18, 18));
    assert_whole(&mut file, 0);
    file.commit(0, 18, &[]).unwrap();
    assert_eq!(file.check().unwrap(), 0);
    append(&mut file, 1, 20);
    assert_whole(&mut file, 1);
}

#[test]
fn pages_of_a_ring_are_given_up_and_used_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let mut file = create(&path, 3);
    // Seven rounds of a ring of three pages, a page at a time, and one that is not complete.
    for page in 0..22 {
        let (place, first) = (page % 3, page * TOKENS);
        let (len, next) = (file.len(), first + TOKENS);
        file.commit(len, next, &[Held { page: place, first: 0, tokens: 0 }]).unwrap();
        let held = Held { page: place, first, tokens: TOKENS };
        write(&mut file, 0, held);
        if page < 21 {
            file.commit(next, next, &[held]).unwrap();
        }
    }
    drop(file);
    let (mut file, opened) = open(&path).unwrap();
    assert_eq!(opened, Opened { len: 84, written: 88, cut: None });
    assert_eq!(file.held(0), Some(Held { page: 0, first: 0, tokens: 0 }));
    for (page, first) in [(1, 76), (2, 80)] {
        let held = Held { page, first, tokens: TOKENS };
        assert_eq!(file.held(page), Some(held));
        assert!(has(&file, 0, held));
    }
    assert_eq!(file.check().unwrap(), 2);
}

#[test]
fn a_page_that_was_changed_is_named_by_check() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = create(&folder.path().join("cache"), 3);
    append(&mut file, 0, 10);
    // The last page has two tokens, and words of a third do not count.
    file.words_mut()[2 * 48 + 2] ^= 1;
    file.check().unwrap();
    file.words_mut()[2 * 48 + 1] ^= 1;
    assert_eq!(fault(file.check()).to_string(), "page 2, with tokens 8 to 9 is not what was committed");
    file.words_mut()[48] ^= 1;
    assert!(matches!(fault(file.check()), Fault::Page(Held { page: 1, first: 4, tokens: 4 })));
}

#[cfg(unix)]
#[test]
fn what_others_do_to_an_open_file_is_told() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let mut file = create(&path, 3);
    append(&mut file, 0, 10);
    file.probe().unwrap();
    let other = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let len = other.metadata().unwrap().len();
    other.set_len(len + 1).unwrap();
    assert!(matches!(fault(file.probe()), Fault::Length { .. }));
    other.set_len(len - 1).unwrap();
    assert!(matches!(fault(file.commit(10, 10, &[])), Fault::Length { .. }));
    assert!(matches!(fault(file.sync()), Fault::Length { .. }));
    assert!(matches!(fault(file.check()), Fault::Length { .. }));
    other.set_len(len).unwrap();
    file.probe().unwrap();
    other.write_all_at(&[0; 4096], 4096).unwrap();
    other.write_all_at(&[0; 4096], 8192).unwrap();
    assert!(matches!(fault(file.sync()), Fault::Changed { .. }));
}

#[cfg(target_os = "linux")]
#[test]
fn a_copy_with_holes_gets_its_room() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("cache"), folder.path().join("copy"));
    let mut file = create(&path, 1000);
    append(&mut file, 0, 10);
    drop(file);
    let bytes = fs::read(&path).unwrap();
    let last = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    fs::write(&copy, &bytes[..=last]).unwrap();
    fs::OpenOptions::new().write(true).open(&copy).unwrap().set_len(bytes.len() as u64).unwrap();
    let (mut file, _) = open(&copy).unwrap();
    assert!(fs::metadata(&copy).unwrap().blocks() * 512 >= bytes.len() as u64);
    assert_whole(&mut file, 0);
}
