//! One state in a file, which each commit writes anew.
//!
//! The file is one of [three pages](CacheFile) that are written by turns: one has the newest state, one that of the last sync, and
//! the third is free to be written. What the file counts as its tokens are its commits, each of which counts more than the one before;
//! how many tokens a state is of stands in the first word of its page.

use std::path::Path;

use super::{CacheFile, Cut, Description, Fault, FileError, Held, Opened};

/// Pages of a file.
const TURNS: u32 = 3;

/// Words before those of the state, so that these begin with a line of a cache.
const HEAD: u32 = 16;

/// Commits of a file at most.
const COMMITS: u32 = i32::MAX as u32;

/// A state in a file, and how many tokens it is of.
///
/// [`commit`](Self::commit) writes a state, [`sync`](Self::sync) waits until it is on the disk. What is committed survives the process,
/// what is synced the machine. The file is locked, as a [`CacheFile`] is, which says the rest.
#[derive(Debug)]
pub struct StateFile {
    file: CacheFile,
    /// The page of the newest state, if there is one.
    newest: Option<u32>,
    /// The page of the newest state that is on the disk.
    durable: Option<u32>,
}

/// What the file of such states must be of: `page_words` are those of a state.
fn described<'a>(description: &Description<'a>) -> Result<Description<'a>, Fault> {
    let Description { page_words, .. } = *description;
    let sizes = Fault::Sizes { page_words, page_tokens: COMMITS, pages: TURNS };
    Ok(Description {
        page_words: page_words.checked_add(HEAD).ok_or(sizes)?,
        page_tokens: COMMITS,
        ..*description
    })
}

impl StateFile {
    /// Makes a file without a state, and waits until it is on the disk.
    ///
    /// # Errors
    /// As [`CacheFile::create`].
    pub fn create(path: impl AsRef<Path>, description: &Description<'_>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let description = described(description).map_err(|fault| fault.at(path))?;
        let file = CacheFile::create(path, &description, TURNS, |_, _| {})?;
        Ok(Self { file, newest: None, durable: None })
    }

    /// Opens a file that was made with the same description, and says of how many tokens its state is.
    ///
    /// # Errors
    /// As [`CacheFile::open`].
    pub fn open(path: impl AsRef<Path>, description: &Description<'_>) -> Result<(Self, Opened), FileError> {
        let path = path.as_ref();
        let description = described(description).map_err(|fault| fault.at(path))?;
        let (mut file, Opened { len, written, cut }) = CacheFile::open(path, &description, |_, _| {})?;
        // What the next commits leave alone is on the disk.
        file.sync()?;
        let is_newest = |&page: &u32| file.held(page).is_some_and(|held| held.tokens == len);
        let newest = (0..TURNS).find(is_newest).filter(|_| len > 0);
        if newest.is_none() && len > 0 {
            return Err(Fault::Table { commit: len.into() }.at(path));
        }
        let state = Self { file, newest, durable: newest };
        let tokens = state.tokens();
        let committed =
            |Cut { committed, page, .. }| Cut { committed: written - committed, left: tokens, page };
        Ok((state, Opened { len: tokens, written: tokens, cut: cut.map(committed) }))
    }

    /// Tokens of the newest state.
    pub fn tokens(&self) -> u32 {
        self.newest.map_or(0, |page| self.page(page)[0])
    }

    /// The words of the newest state, if one was ever written.
    pub fn state(&self) -> Option<&[u32]> {
        self.newest.map(|page| &self.page(page)[HEAD as usize..])
    }

    fn page(&self, page: u32) -> &[u32] {
        &self.file.words()[self.file.layout.page(page)]
    }

    /// A page that does not count: there is one, as no commit leaves more than two that do.
    fn free_page(&self) -> u32 {
        let counts = |page: u32| self.file.held(page).is_some_and(|held| held.tokens > 0);
        let kept = [self.newest, self.durable];
        let unused = (0..TURNS).filter(|&page| !kept.contains(&Some(page)));
        unused.min_by_key(|&page| counts(page)).expect("two of three are kept at most")
    }

    /// Has `write` write a state of so many tokens, all of its words, and says that it is complete. If the process ends at any point,
    /// either this one or the one before is what the file holds.
    ///
    /// # Errors
    /// As [`CacheFile::commit`].
    pub fn commit(&mut self, tokens: u32, write: impl FnOnce(&mut [u32])) -> Result<(), FileError> {
        self.file.probe()?;
        let free = self.free_page();
        let page = self.file.layout.page(free);
        let (head, state) = self.file.words_mut()[page].split_at_mut(HEAD as usize);
        head[0] = tokens;
        write(state);
        let commit = self.file.len().saturating_add(1);
        // What is neither this state nor on the disk counts no longer, so that the next commit can write over it.
        let others = (0..TURNS).filter(|&page| page != free && Some(page) != self.durable);
        let held = Held { page: free, first: 0, tokens: commit };
        let changed: Vec<Held> =
            others.map(|page| Held { page, first: 0, tokens: 0 }).chain([held]).collect();
        self.file.commit(commit, commit.saturating_add(tokens), &changed)?;
        self.newest = Some(free);
        Ok(())
    }

    /// Makes the newest state durable, and says of how many tokens it is.
    ///
    /// # Errors
    /// As [`CacheFile::sync`].
    pub fn sync(&mut self) -> Result<u32, FileError> {
        self.file.sync()?;
        self.durable = self.newest;
        Ok(self.tokens())
    }

    /// Reads all states that count, and compares them with their checksums. How many they are.
    ///
    /// # Errors
    /// As [`CacheFile::check`].
    pub fn check(&mut self) -> Result<u32, FileError> {
        self.file.check()
    }

    /// Whether the file has its length and its record.
    ///
    /// # Errors
    /// As [`CacheFile::probe`].
    pub fn probe(&self) -> Result<(), FileError> {
        self.file.probe()
    }
}
