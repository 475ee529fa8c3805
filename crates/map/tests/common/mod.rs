//! A cache whose tokens tell what they should be: four of a page, their words interleaved as those of real caches are.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::Path;

use regard_map::CacheFile;
use regard_map::file::{Description, FileError, Held, Opened};

/// Tokens of a page.
pub const TOKENS: u32 = 4;

/// Words of a page: 12 for each token.
pub const WORDS: u32 = 48;

pub const DESCRIPTION: Description<'static> = Description {
    identity: *b"identity of this",
    version: 3,
    page_words: WORDS,
    page_tokens: TOKENS,
    numbers: &[("codec of keys", 2), ("codec of values", 4)],
};

/// Clears what does not belong to the first tokens of a page.
pub fn clear(words: &mut [u32], tokens: u32) {
    for (i, word) in words.iter_mut().enumerate() {
        if i as u32 % TOKENS >= tokens {
            *word = 0;
        }
    }
}

/// A folder for files that are opened thousands of times: in memory where there is such a place.
pub fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

pub fn create(path: &Path, pages: u32) -> CacheFile {
    CacheFile::create(path, &DESCRIPTION, pages, clear).unwrap()
}

pub fn open(path: &Path) -> Result<(CacheFile, Opened), FileError> {
    CacheFile::open(path, &DESCRIPTION, clear)
}

/// Word `i` of a token, of one of several histories.
fn word(history: u32, token: u32, i: u32) -> u32 {
    (history * 0x0100_0000 + token * 64 + i + 1).wrapping_mul(0x9e37_79b1)
}

/// Writes tokens into a page, without a commit.
pub fn write(file: &mut CacheFile, history: u32, held: Held) {
    let at = (held.page * WORDS) as usize;
    let page = &mut file.words_mut()[at..][..WORDS as usize];
    for slot in 0..held.tokens {
        for i in 0..WORDS / TOKENS {
            page[(i * TOKENS + slot) as usize] = word(history, held.first + slot, i);
        }
    }
}

/// Whether a page has these tokens.
pub fn has(file: &CacheFile, history: u32, held: Held) -> bool {
    let at = (held.page * WORDS) as usize;
    let page = &file.words()[at..][..WORDS as usize];
    (0..held.tokens).all(|slot| {
        (0..WORDS / TOKENS).all(|i| page[(i * TOKENS + slot) as usize] == word(history, held.first + slot, i))
    })
}

/// The pages that tokens lie in, one page after the other, each from its begin on.
pub fn pages(from: u32, to: u32) -> Vec<Held> {
    let pages = from / TOKENS..to.div_ceil(TOKENS);
    pages.map(|page| Held { page, first: page * TOKENS, tokens: (to - page * TOKENS).min(TOKENS) }).collect()
}

/// Writes tokens behind those that are there, and commits them.
pub fn append(file: &mut CacheFile, history: u32, count: u32) {
    let (from, to) = (file.len(), file.len() + count);
    // Those of a page that are there already are written as they are.
    let changed = pages(from, to);
    for &held in &changed {
        let begin = held.first.max(from);
        write_some(file, history, held, begin);
    }
    let written = file.written().max(to);
    file.commit(to, written, &changed).unwrap();
}

/// Writes the tokens of a page from one on.
pub fn write_some(file: &mut CacheFile, history: u32, held: Held, from: u32) {
    let at = (held.page * WORDS) as usize;
    let page = &mut file.words_mut()[at..][..WORDS as usize];
    for token in from..held.first + held.tokens {
        for i in 0..WORDS / TOKENS {
            page[(i * TOKENS + token - held.first) as usize] = word(history, token, i);
        }
    }
}

/// Panics unless all tokens of the file are there and of this history.
pub fn assert_whole(file: &mut CacheFile, history: u32) {
    for held in pages(0, file.len()) {
        assert_eq!(file.held(held.page), Some(held));
        assert!(has(file, history, held), "{held}");
    }
    assert_eq!(file.check().unwrap(), file.len().div_ceil(TOKENS));
}

/// Panics unless all tokens of the file are there, each of the history that is named for it.
pub fn assert_histories(file: &mut CacheFile, histories: &[u32]) {
    for token in 0..file.len() {
        let (page, slot) = (token / TOKENS, token % TOKENS);
        let words = &file.words()[(page * WORDS) as usize..][..WORDS as usize];
        let history = histories[token as usize];
        let right =
            (0..WORDS / TOKENS).all(|i| words[(i * TOKENS + slot) as usize] == word(history, token, i));
        assert!(right, "token {token} of {} is not of history {history}", file.len());
    }
    assert_eq!(file.check().unwrap(), file.len().div_ceil(TOKENS));
}

/// Numbers that are the same in each run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}
