//! Keys and values kept between calls.

mod error;
mod lookahead;
mod size;
mod states;

use std::ops::Range;
use std::path::Path;

use regard_engine::threads::Threads;
use regard_ir::cache::{PageFormat, PageShape, VERSION};
use regard_ir::identity::Identity;
use regard_ir::plan::Plan;
use regard_ir::problem::{Problem, ProblemError};
use regard_ir::reach::Reach;
use regard_ir::spec::{CacheLayout, Spec};
use regard_ir::variant::Heads;
use regard_launch::Append;
use regard_map::file::{Description, FileError, Held, Opened};
use regard_map::{CacheFile, StateFile, Words};
use regard_runtime::cache::{
    self, CachedSequence, Caches, Capacity, Learned, RowOf, SequenceId, Store, StoreError,
};
use regard_runtime::split::Tokens;

pub use self::error::CacheError;
pub use self::size::CacheSize;
use crate::cache::lookahead::{LookaheadKeys, check_mechanism, learned_shape};
use crate::cache::states::{KeptStates, StateShape};
use crate::error::RunError;
use crate::kernel::Kernel;

/// How much a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Sequences at once.
    pub sequences: usize,
    /// Tokens of a sequence at most.
    pub tokens: usize,
    /// Tokens of all sequences together, of a paged cache; each sequence as long as it may be where absent.
    pub all_tokens: Option<usize>,
    /// Queries of a sequence in one call at most, and tokens that may be taken back: of a ring, which must hold what the first
    /// of them sees when the last is there, and of lookahead keys, which learn from a token for good when it cannot be taken back any
    /// more; of these at most [`MAX_FEW`](crate::MAX_FEW). Of a recurrence so many states of each sequence are kept, those after its
    /// last tokens: all but the first token of a call can be taken back.
    pub at_once: usize,
}

impl CacheLimits {
    /// So many sequences of so many tokens, one query at a time.
    pub const fn new(sequences: usize, tokens: usize) -> Self {
        Self { sequences, tokens, all_tokens: None, at_once: 1 }
    }
}

/// Where pages lie.
#[derive(Debug)]
enum Memory {
    Words(Words),
    File(CacheFile),
}

impl Memory {
    fn words(&self) -> &[u32] {
        match self {
            Memory::Words(words) => words.as_slice(),
            Memory::File(file) => file.words(),
        }
    }

    fn words_mut(&mut self) -> &mut [u32] {
        match self {
            Memory::Words(words) => words.as_mut_slice(),
            Memory::File(file) => file.words_mut(),
        }
    }

    fn floats(&self) -> &[f32] {
        match self {
            Memory::Words(words) => words.floats(),
            Memory::File(_) => &[],
        }
    }

    fn floats_mut(&mut self) -> &mut [f32] {
        match self {
            Memory::Words(words) => words.floats_mut(),
            // Files are of keys and values alone.
            Memory::File(_) => &mut [],
        }
    }
}

/// What a page holds of a sequence of `len` tokens, if anything, with so many in a page.
fn held(len: u32, page_tokens: u32, page: u32) -> Option<Held> {
    let first = page * page_tokens;
    let tokens = len.saturating_sub(first).min(page_tokens);
    (tokens > 0).then_some(Held { page, first, tokens })
}

/// What clears the end of a page of a kernel's caches.
fn clear(kernel: &Kernel) -> impl Fn(&mut [u32], u32) + Send + Sync + 'static {
    let (format, variant) = (kernel.plan().cache, kernel.variant());
    let (shape, rows) = (format.shape(&variant), format.rows_of_token(&variant) as usize);
    move |page, tokens| cache::clear(&shape, page, tokens as usize * rows)
}

/// Calls `with` with what a file of a kernel's cache must be of.
fn describe<R>(
    kernel: &Kernel,
    with: impl FnOnce(&Description<'_>) -> Result<R, CacheError>,
) -> Result<R, CacheError> {
    let (spec, format) = (kernel.spec(), kernel.plan().cache);
    if spec.cache.layout != CacheLayout::Contiguous {
        return Err(CacheError::FileLayout(spec.cache.layout));
    }
    let PageFormat { tokens, k, v, mixed } = format;
    let shape = format.shape(&kernel.variant());
    let page_words =
        u32::try_from(shape.len()).map_err(|_| CacheError::Page { tokens, words: shape.len() })?;
    let Heads { kv, value, dim, value_dim, .. } = kernel.variant().cached_heads();
    let all = [
        ("the codec of keys (0 f32, 1 f16, 2 bf16, 3 int8, 4 int4)", k as u32),
        ("the codec of values (0 f32, 1 f16, 2 bf16, 3 int8, 4 int4)", v as u32),
        ("key heads", kv),
        ("value heads", value),
        ("the width of keys", dim),
        ("the width of values", value_dim),
        ("positions of a token that have rows", format.rows_of_token(&kernel.variant())),
    ];
    // Of other caches there is nothing to be said.
    let numbers = if mixed { &all[..] } else { &all[..all.len() - 1] };
    let identity = spec.identity.0.to_be_bytes();
    with(&Description { identity, version: VERSION, page_words, page_tokens: tokens, numbers })
}

/// The ring that holds what a plan's queries see.
fn ring(plan: &Plan, per_token: u32, limits: CacheLimits) -> Option<Capacity> {
    let Reach { first, back } = plan.reach?.in_tokens(per_token);
    let (page, at_once) = (plan.cache.tokens, u32::try_from(limits.at_once.max(1)).ok()?);
    let kept = first.div_ceil(page);
    // The page that is written to may have but one token.
    let turning = back.checked_add(at_once)?.div_ceil(page).checked_add(1)?;
    Some(Capacity::Ring { kept, pages: kept.checked_add(turning)?, back })
}

/// How the sequences of a cache get their pages.
fn capacity(spec: &Spec, plan: &Plan, limits: CacheLimits) -> Result<Capacity, CacheError> {
    let refused = || CacheError::Limits(limits);
    let fit = |n: usize| u32::try_from(n).ok().filter(|&n| n > 0 && n <= i32::MAX as u32).ok_or(refused());
    let (sequences, tokens) = (fit(limits.sequences)?, fit(limits.tokens)?);
    let pages = tokens.div_ceil(plan.cache.tokens);
    Ok(match spec.cache.layout {
        CacheLayout::Contiguous => Capacity::Contiguous { pages },
        CacheLayout::Paged => {
            let all = match limits.all_tokens {
                Some(all) => fit(all)?.div_ceil(plan.cache.tokens),
                None => pages.checked_mul(sequences).ok_or(refused())?,
            };
            Capacity::Paged { pages, all }
        }
        CacheLayout::Ring => {
            let per_token = spec.variant().per_token();
            ring(plan, per_token, limits).ok_or(refused())?
        }
    })
}

/// Cells of a sequence that a call can see at most, where so many of its tokens are held.
fn cells(held_tokens: usize, limits: CacheLimits, key_cell: u32) -> usize {
    // Held tokens may begin and end within a cell, and those that stay lie apart.
    held_tokens.min(limits.tokens).div_ceil(key_cell as usize) + 3
}

/// The keys and values of some sequences, as a kernel's spec keeps them, or the states of a recurrence.
///
/// Memory is taken once, in huge pages where the system has them. Sequences are opened, grow by
/// [`Kernel::prefill_next`] and [`Kernel::decode_next`] or by [`Kernel::append`], are cut, forked and closed.
#[derive(Debug)]
pub struct Cache {
    pub(crate) identity: Identity,
    pub(crate) format: PageFormat,
    pub(crate) limits: CacheLimits,
    shape: PageShape,
    /// Positions of a token that have rows.
    rows_of_token: usize,
    store: Store,
    memory: Memory,
    lookahead: Option<LookaheadKeys>,
    states: Option<KeptStates>,
    /// What tokens are turned in on their way.
    floats: Vec<f32>,
}

impl Cache {
    pub(crate) fn new(kernel: &Kernel, limits: CacheLimits) -> Result<Self, CacheError> {
        if kernel.spec().cache.file {
            check_mechanism(kernel.spec(), None)?;
            return Err(CacheError::WantsFile);
        }
        Self::in_memory(kernel, limits)
    }

    fn in_memory(kernel: &Kernel, limits: CacheLimits) -> Result<Self, CacheError> {
        let (plan, spec) = (kernel.plan(), kernel.spec());
        let shape = plan.cache.shape(&kernel.variant());
        check_mechanism(spec, None)?;
        let store = match StateShape::new(spec, limits) {
            Some(states) => states.store(limits)?,
            None => {
                let capacity = capacity(spec, plan, limits)?;
                // `capacity` saw that both fit.
                let (sequences, tokens) = (limits.sequences as u32, limits.tokens as u32);
                Store::new(capacity, sequences, tokens, plan.cache.tokens, shape.parts())
            }
        };
        let words = store.words().ok_or(CacheError::Limits(limits))?;
        let bytes = words.saturating_mul(size_of::<u32>());
        let memory = Words::new(words).map_err(|_| CacheError::Memory { bytes })?;
        Self::of(kernel, limits, store, Memory::Words(memory))
    }

    /// A cache in a file that is not there yet, with room for so many tokens, and its only sequence.
    pub(crate) fn create(
        kernel: &Kernel,
        path: &Path,
        tokens: usize,
    ) -> Result<(Self, SequenceId), CacheError> {
        let limits = CacheLimits::new(1, tokens);
        check_mechanism(kernel.spec(), Some("file = true"))?;
        if let Some(created) = Self::create_states(kernel, path, limits) {
            return created;
        }
        let pages = u32::try_from(tokens).ok().filter(|&n| n > 0 && n <= i32::MAX as u32);
        let pages = pages.ok_or(CacheError::Limits(limits))?.div_ceil(kernel.plan().cache.tokens);
        let described = |description: &Description<'_>| {
            CacheFile::create(path, description, pages, clear(kernel)).map_err(CacheError::File)
        };
        let file = describe(kernel, described)?;
        Self::in_file(kernel, file, 0)
    }

    /// A cache in a file that is there, its only sequence, and what the file holds.
    pub(crate) fn open_file(kernel: &Kernel, path: &Path) -> Result<(Self, SequenceId, Opened), CacheError> {
        check_mechanism(kernel.spec(), Some("file = true"))?;
        if let Some(opened) = Self::open_states(kernel, path) {
            return opened;
        }
        let described = |description: &Description<'_>| {
            CacheFile::open(path, description, clear(kernel)).map_err(CacheError::File)
        };
        let (file, opened) = describe(kernel, described)?;
        let (cache, sequence) = Self::in_file(kernel, file, opened.len)?;
        Ok((cache, sequence, opened))
    }

    /// A cache in a file that holds so many tokens.
    fn in_file(kernel: &Kernel, file: CacheFile, len: u32) -> Result<(Self, SequenceId), CacheError> {
        let (page, pages) = (kernel.plan().cache, file.pages());
        let tokens = pages.saturating_mul(page.tokens).min(i32::MAX as u32);
        let shape = page.shape(&kernel.variant());
        let mut store = Store::new(Capacity::Whole { pages }, 1, tokens, page.tokens, shape.parts());
        let sequence = store.open().map_err(CacheError::Store)?;
        store.commit(sequence, len).map_err(CacheError::Store)?;
        let limits = CacheLimits::new(1, tokens as usize);
        Ok((Self::of(kernel, limits, store, Memory::File(file))?, sequence))
    }

    fn of(kernel: &Kernel, limits: CacheLimits, store: Store, memory: Memory) -> Result<Self, CacheError> {
        let (variant, plan, spec) = (kernel.variant(), kernel.plan(), kernel.spec());
        let shape = plan.cache.shape(&variant);
        let states = StateShape::new(spec, limits).map(|shape| KeptStates::new(shape, limits)).transpose()?;
        // What cannot be counted is never appended.
        let most = i32::MAX as usize / plan.cache.rows_of_token(&variant).max(1) as usize;
        let whole = positions(kernel, 0..limits.tokens.min(most));
        let whole = whole.map_err(|_| CacheError::Limits(limits))?;
        let floats = if states.is_some() { Vec::new() } else { vec![0.0; kernel.append_len(&whole, 1)] };
        let learned = learned_shape(spec, &shape, limits.tokens);
        let lookahead = learned.map(|shape| LookaheadKeys::new(shape, limits)).transpose()?;
        Ok(Self {
            identity: spec.identity,
            format: plan.cache,
            limits,
            shape,
            rows_of_token: plan.cache.rows_of_token(&variant) as usize,
            store,
            memory,
            lookahead,
            states,
            floats,
        })
    }

    /// Cells of a sequence that a call can see at most.
    pub(crate) fn cells(&self, key_cell: u32) -> usize {
        cells(self.store.held_tokens(), self.limits, key_cell)
    }

    /// Bytes of keys and values that it has room for, or of states.
    pub fn bytes(&self) -> usize {
        let learned = self.lookahead.as_ref().map_or(0, |keys| size_of_val(keys.memory.as_slice()));
        let norms = self.states.as_ref().map_or(0, KeptStates::norm_bytes);
        size_of_val(self.memory.words()) + learned + norms
    }

    /// Opens a sequence without tokens.
    ///
    /// # Errors
    /// If as many are open as there is room for.
    pub fn open(&mut self) -> Result<SequenceId, StoreError> {
        let sequence = self.store.open()?;
        if let Some(keys) = &mut self.lookahead {
            keys.lessons.clear(self.store.index(sequence)?);
        }
        if let Some(states) = &mut self.states {
            states.clear(self.memory.words_mut(), self.store.index(sequence)?);
        }
        Ok(sequence)
    }

    /// Ends a sequence.
    ///
    /// # Errors
    /// If there is no such sequence.
    pub fn close(&mut self, sequence: SequenceId) -> Result<(), StoreError> {
        self.is_shared()?;
        self.store.close(sequence)
    }

    /// Tokens of a sequence.
    ///
    /// # Errors
    /// If there is no such sequence.
    pub fn len(&self, sequence: SequenceId) -> Result<usize, StoreError> {
        self.store.len(sequence).map(|len| len as usize)
    }

    /// Pages that no sequence has, of a paged cache.
    pub fn free_pages(&self) -> Option<usize> {
        self.store.free_pages().map(|pages| pages as usize)
    }

    /// Whether it is no file, which is there for one sequence alone.
    fn is_shared(&self) -> Result<(), StoreError> {
        match self.memory {
            Memory::Words(_) if self.recorded_in().is_none() => Ok(()),
            _ => Err(StoreError::Only),
        }
    }

    /// Takes the last tokens of a sequence back, so that `tokens` are left: as after guesses that were wrong. A file that was
    /// kept with more is told so, and waited for; one of states keeps what was recorded until the next commit.
    ///
    /// # Errors
    /// If there is no such sequence, it has fewer, the ring has written over what would be seen, lookahead keys have learned from
    /// others for good, the state after so many tokens is not kept any more, or the file is not what it was.
    pub fn truncate(&mut self, sequence: SequenceId, tokens: usize) -> Result<(), CacheError> {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        if let Some(LookaheadKeys { lessons, .. }) = &mut self.lookahead {
            let index = self.store.index(sequence).map_err(CacheError::Store)?;
            match lessons.taught(index) {
                _ if tokens == 0 => lessons.clear(index),
                least if tokens < least => {
                    return Err(CacheError::Store(StoreError::Taught { tokens, least }));
                }
                _ => {}
            }
        }
        if let Some(states) = &mut self.states {
            let (index, len) = (self.store.index(sequence), self.store.len(sequence));
            let index = index.map_err(CacheError::Store)?;
            if tokens < len.map_err(CacheError::Store)? {
                states.check_cut(index, tokens).map_err(CacheError::Store)?;
                if tokens == 0 {
                    states.clear(self.memory.words_mut(), index);
                }
            }
        }
        if let Memory::File(file) = &mut self.memory
            && tokens < file.len().min(self.store.len(sequence).map_err(CacheError::Store)?)
        {
            let held = held(tokens, self.format.tokens, tokens / self.format.tokens);
            file.commit(tokens, file.written(), held.as_slice()).map_err(CacheError::File)?;
        }
        self.store.truncate(sequence, tokens).map_err(CacheError::Store)
    }

    /// Records the tokens of a cache in a file: however the process ends, the next one that opens the file finds them. What was
    /// appended later is lost with the process.
    ///
    /// # Errors
    /// If the cache is in no file, or the file is not what it was.
    pub fn commit(&mut self, sequence: SequenceId) -> Result<(), CacheError> {
        let len = self.store.len(sequence).map_err(CacheError::Store)?;
        if let Some(committed) = self.commit_state(len) {
            return committed;
        }
        let Memory::File(file) = &mut self.memory else { return Err(CacheError::NoFile) };
        let tokens = self.format.tokens;
        // The page that the last commit ended in has more tokens now.
        let pages = file.len().min(len) / tokens..len.div_ceil(tokens);
        let changed: Vec<Held> = pages.filter_map(|page| held(len, tokens, page)).collect();
        file.commit(len, file.written().max(len), &changed).map_err(CacheError::File)
    }

    /// Records the tokens of a cache in a file and waits until they are on the disk: they outlive the machine. How many they are.
    ///
    /// # Errors
    /// As [`Cache::commit`], and if the system cannot write them.
    pub fn sync(&mut self, sequence: SequenceId) -> Result<usize, CacheError> {
        self.commit(sequence)?;
        if let Some(file) = self.state_file() {
            return file.sync().map(|tokens| tokens as usize).map_err(CacheError::File);
        }
        let Memory::File(file) = &mut self.memory else { return Err(CacheError::NoFile) };
        file.sync().map(|tokens| tokens as usize).map_err(CacheError::File)
    }

    /// Reads every page of a cache in a file that holds recorded tokens, or every recorded state, and compares it with its checksum: how
    /// many they are.
    ///
    /// # Errors
    /// If the cache is in no file, or names the first page that is not what was recorded.
    pub fn check(&mut self) -> Result<usize, CacheError> {
        if let Some(file) = self.state_file() {
            return file.check().map(|states| states as usize).map_err(CacheError::File);
        }
        let Memory::File(file) = &mut self.memory else { return Err(CacheError::NoFile) };
        file.check().map(|pages| pages as usize).map_err(CacheError::File)
    }

    /// Whether the file of a cache still has its length and its record; always so where the cache is in memory.
    ///
    /// [`Kernel::append`], [`Kernel::decode`] and [`Kernel::prefill`] begin with it, as what was cut cannot be touched: it ends the
    /// process. What another program cuts during a call still does. It costs one system call, `statx` or `fstat`, which took 0.34
    /// µs on a Zen 5 under Linux, and of a cache in memory nothing.
    ///
    /// # Errors
    /// If another program cut the file or wrote to its records.
    pub fn probe(&self) -> Result<(), CacheError> {
        self.probed().map_err(CacheError::File)
    }

    /// Whether it has keys, and not states in their place.
    pub(crate) fn check_has_keys(&self) -> Result<(), RunError> {
        if self.states.is_some() { Err(RunError::States) } else { Ok(()) }
    }

    pub(crate) fn probed(&self) -> Result<(), FileError> {
        match &self.memory {
            Memory::Words(_) => self.recorded_in().map_or(Ok(()), StateFile::probe),
            Memory::File(file) => file.probe(),
        }
    }

    /// Opens a sequence with the tokens of another. A paged cache shares their pages until one of the two writes to them. Of a
    /// recurrence this is a snapshot: of a prefix that others begin with, or to go back to.
    ///
    /// # Errors
    /// If there is no such sequence, or no room for a further one.
    pub fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId, StoreError> {
        self.is_shared()?;
        let forked = self.store.fork(self.memory.words_mut(), sequence)?;
        if let Some(LookaheadKeys { lessons, memory, .. }) = &mut self.lookahead {
            let of = [self.store.index(sequence)?, self.store.index(forked)?];
            lessons.fork(memory.floats_mut(), of, self.store.len(sequence)? as usize);
        }
        if let Some(states) = &mut self.states {
            let of = [self.store.index(sequence)?, self.store.index(forked)?];
            match self.store.len(sequence)? {
                // There are no tokens that their memory was copied with.
                0 => states.clear(self.memory.words_mut(), of[1]),
                _ => states.fork(of),
            }
        }
        Ok(forked)
    }

    /// Reads a row of a cached token, widened, for who wants to see what the cache made of it: turned, normed and rounded. `to`
    /// is as long as the row. Whether the sequence has the token. Of pseudo-heads whose rows are cached, they are those of virtual
    /// tokens.
    ///
    /// # Errors
    /// If there is no such sequence or head, or the row is longer or shorter.
    pub fn read(
        &self,
        sequence: SequenceId,
        token: usize,
        row: RowOf,
        to: &mut [f32],
    ) -> Result<bool, StoreError> {
        let view = self.store.sequence(self.memory.words(), sequence)?;
        if self.states.is_some() {
            return Ok(false);
        }
        row.check(&self.shape, to.len())?;
        let of = (token / self.rows_of_token) as u32;
        let there = of < view.len && !view.pages.lost(view.written, self.format.tokens).contains(&of);
        if there {
            view.read_into(&self.shape, token, row, to);
        }
        Ok(there)
    }

    /// Appends tokens that fit kernel and cache.
    pub(crate) fn append(
        &mut self,
        kernel: &Kernel,
        threads: &dyn Threads,
        sequence: SequenceId,
        tokens: Tokens<'_>,
    ) -> Result<(), RunError> {
        self.check_has_keys()?;
        let len = self.store.len(sequence).map_err(RunError::Store)? as usize;
        let [_, count] = tokens.kv.counts();
        let keys = len.saturating_add(count);
        let problem = positions(kernel, len..keys).map_err(RunError::Problem)?;
        // Before pages are taken and, of a ring, written over: what fails now has changed nothing.
        let variant = &kernel.variant();
        tokens.check((variant, kernel.plan()), &problem).map_err(RunError::Runtime)?;
        let count = count as u32;
        self.make_room(kernel, &problem, threads);
        let Self { store, memory, lookahead, floats, .. } = self;
        let index = store.index(sequence).map_err(RunError::Store)?;
        let mut cache = store.reserve(memory.words_mut(), sequence, count).map_err(RunError::Store)?;
        if let Some(LookaheadKeys { lessons, memory, .. }) = lookahead {
            cache.learned = Some(lessons.learned_mut(memory.floats_mut(), index));
        }
        let of = (variant, kernel.plan(), &problem);
        Append { of, code: &kernel.code, tokens, cache, threads, floats }.launch()?;
        store.commit(sequence, count).map_err(RunError::Store)
    }

    /// The caches of a call's sequences.
    pub(crate) fn chosen<'a>(&'a self, sequences: &'a [SequenceId]) -> Chosen<'a> {
        Chosen { cache: self, sequences }
    }
}

/// Some tokens of a sequence that are appended, in positions that have rows.
fn positions(kernel: &Kernel, tokens: Range<usize>) -> Result<Problem<'static>, ProblemError> {
    let rows = kernel.plan().cache.rows_of_token(&kernel.variant()) as usize;
    let [begin, end] = [tokens.start, tokens.end].map(|token| token.saturating_mul(rows));
    Problem::prefill(kernel.spec().source, 1, 0, end)?.partial(begin..end)
}

/// Some sequences of a cache, each of which it has.
pub(crate) struct Chosen<'a> {
    cache: &'a Cache,
    sequences: &'a [SequenceId],
}

impl Caches for Chosen<'_> {
    fn count(&self) -> usize {
        self.sequences.len()
    }

    fn get(&self, sequence: usize) -> CachedSequence<'_> {
        let Cache { store, memory, .. } = self.cache;
        store.sequence(memory.words(), self.sequences[sequence]).expect("the call looked for each sequence")
    }

    fn learned(&self, sequence: usize) -> Option<Learned<'_>> {
        let LookaheadKeys { lessons, memory, .. } = self.cache.lookahead.as_ref()?;
        let index = self.cache.store.index(self.sequences[sequence]);
        Some(lessons.learned(memory.floats(), index.expect("the call looked for each sequence")))
    }
}
