//! Keys and values kept between calls.

use std::fmt;

use regard_ir::cache::{PageFormat, PageShape};
use regard_ir::identity::Identity;
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::reach::Reach;
use regard_ir::spec::CacheLayout;
use regard_map::Words;
use regard_runtime::cache::{CachedSequence, Caches, Capacity, RowOf, SequenceId, Store, StoreError};
use regard_runtime::split::{self, Tokens};

use crate::error::RunError;
use crate::kernel::Kernel;
use crate::launch::{Append, Element};

/// Tokens that are written at a time: what is known of them fits the memory that a cache has for it.
const AT_ONCE: usize = 64;

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
    /// of them sees when the last is there.
    pub at_once: usize,
}

impl CacheLimits {
    /// So many sequences of so many tokens, one query at a time.
    pub const fn new(sequences: usize, tokens: usize) -> Self {
        Self { sequences, tokens, all_tokens: None, at_once: 1 }
    }
}

/// A cache that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheError {
    /// The limits ask for nothing, or for more than can be counted.
    Limits(CacheLimits),
    /// The system does not give the memory.
    Memory {
        /// How much.
        bytes: usize,
    },
    /// The spec asks for a cache that this build does not have.
    Unsupported(&'static str),
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheError::Limits(CacheLimits { sequences, tokens, .. }) => write!(
                f,
                "a cache of {sequences} sequences of {tokens} tokens: both are at least 1, and tokens at most {}",
                i32::MAX
            ),
            CacheError::Memory { bytes } => write!(f, "the system does not give {bytes} bytes for the cache"),
            CacheError::Unsupported(what) => write!(f, "a cache with {what} is not in this build yet"),
        }
    }
}

impl std::error::Error for CacheError {}

/// The ring that holds what a plan's queries see.
fn ring(plan: &Plan, limits: CacheLimits) -> Option<Capacity> {
    let Reach { first, back } = plan.reach?;
    let (page, at_once) = (plan.cache.tokens, u32::try_from(limits.at_once.max(1)).ok()?);
    let kept = first.div_ceil(page);
    // The page that is written to may have but one token.
    let turning = back.checked_add(at_once)?.div_ceil(page).checked_add(1)?;
    Some(Capacity::Ring { kept, pages: kept.checked_add(turning)?, back })
}

/// The keys and values of some sequences, as a kernel's spec keeps them.
///
/// Memory is taken once, in huge pages where the system has them. Sequences are opened, grow by
/// [`Kernel::append`], are cut, forked and closed.
#[derive(Debug)]
pub struct Cache {
    pub(crate) identity: Identity,
    pub(crate) format: PageFormat,
    pub(crate) limits: CacheLimits,
    shape: PageShape,
    store: Store,
    memory: Words,
    /// What tokens are turned in on their way.
    floats: Vec<f32>,
}

impl Cache {
    pub(crate) fn new(kernel: &Kernel, limits: CacheLimits) -> Result<Self, CacheError> {
        let refused = CacheError::Limits(limits);
        let fit = |n: usize| u32::try_from(n).ok().filter(|&n| n > 0 && n <= i32::MAX as u32).ok_or(refused);
        let (sequences, tokens) = (fit(limits.sequences)?, fit(limits.tokens)?);
        let (variant, plan, spec) = (kernel.variant(), kernel.plan(), kernel.spec());
        let shape = plan.cache.shape(&variant.heads);
        let pages = tokens.div_ceil(plan.cache.tokens);
        let capacity = match spec.cache.layout {
            CacheLayout::Contiguous => Capacity::Contiguous { pages },
            CacheLayout::Paged => {
                let all = match limits.all_tokens {
                    Some(all) => fit(all)?.div_ceil(plan.cache.tokens),
                    None => pages.checked_mul(sequences).ok_or(refused)?,
                };
                Capacity::Paged { pages, all }
            }
            CacheLayout::Ring => ring(plan, limits).ok_or(refused)?,
        };
        if spec.cache.file {
            return Err(CacheError::Unsupported("file = true"));
        }
        let store = Store::new(capacity, sequences, tokens, plan.cache.tokens, shape.len());
        let words = store.words().ok_or(refused)?;
        let memory = CacheError::Memory { bytes: words.saturating_mul(size_of::<u32>()) };
        let memory = Words::new(words).map_err(|_| memory)?;
        let problem = Problem::prefill(spec.source, 1, 0, AT_ONCE).map_err(|_| refused)?;
        let floats = vec![0.0; split::append_len(&variant, &problem)];
        Ok(Self { identity: spec.identity, format: plan.cache, limits, shape, store, memory, floats })
    }

    /// Cells of a sequence that a call can see at most.
    pub(crate) fn cells(&self, key_cell: u32) -> usize {
        let held = self.store.held_tokens().min(self.limits.tokens);
        // Held tokens may begin and end within a cell, and those that stay lie apart.
        held.div_ceil(key_cell as usize) + 3
    }

    /// Bytes of keys and values that it has room for.
    pub fn bytes(&self) -> usize {
        size_of_val(self.memory.as_slice())
    }

    /// Opens a sequence without tokens.
    ///
    /// # Errors
    /// If as many are open as there is room for.
    pub fn open(&mut self) -> Result<SequenceId, StoreError> {
        self.store.open()
    }

    /// Ends a sequence.
    ///
    /// # Errors
    /// If there is no such sequence.
    pub fn close(&mut self, sequence: SequenceId) -> Result<(), StoreError> {
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

    /// Takes the last tokens of a sequence back, so that `tokens` are left: as after guesses that were wrong.
    ///
    /// # Errors
    /// If there is no such sequence, or it has fewer.
    pub fn truncate(&mut self, sequence: SequenceId, tokens: usize) -> Result<(), StoreError> {
        self.store.truncate(sequence, u32::try_from(tokens).unwrap_or(u32::MAX))
    }

    /// Opens a sequence with the tokens of another. A paged cache shares their pages until one of the two writes to them.
    ///
    /// # Errors
    /// If there is no such sequence, or no room for a further one.
    pub fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId, StoreError> {
        self.store.fork(self.memory.as_mut_slice(), sequence)
    }

    /// Reads a row of a cached token, widened, for who wants to see what the cache made of it: turned, normed and rounded. `to`
    /// is as long as the row. Whether the sequence has the token.
    ///
    /// # Errors
    /// If there is no such sequence.
    ///
    /// # Panics
    /// If there is no such head, or the row has another length.
    pub fn read(
        &self,
        sequence: SequenceId,
        token: usize,
        row: RowOf,
        to: &mut [f32],
    ) -> Result<bool, StoreError> {
        let view = self.store.sequence(self.memory.as_slice(), sequence)?;
        let there = token < view.len as usize
            && !view.pages.lost(view.written, self.format.tokens).contains(&(token as u32));
        if there {
            view.read_into(&self.shape, token, row, to);
        }
        Ok(there)
    }

    /// Appends tokens that fit kernel and cache.
    pub(crate) fn append<T: Element>(
        &mut self,
        kernel: &Kernel,
        sequence: SequenceId,
        tokens: Tokens<'_, T>,
    ) -> Result<(), RunError> {
        let Self { store, memory, floats, .. } = self;
        let len = store.len(sequence).map_err(RunError::Store)? as usize;
        let [_, _, count] = tokens.k.counts();
        let problem = Problem::prefill(kernel.spec().source, 1, 0, len + count).map_err(RunError::Problem)?;
        let room = u32::try_from(count).unwrap_or(u32::MAX);
        for begin in (0..count.max(1)).step_by(AT_ONCE) {
            let range = begin..count.min(begin + AT_ONCE);
            let cache = store.reserve(memory.as_mut_slice(), sequence, room).map_err(RunError::Store)?;
            let problem = problem.partial(len + range.start..len + range.end).map_err(RunError::Problem)?;
            let within = |counts: [usize; 3]| range.end <= counts[2];
            if !within(tokens.v.counts()) {
                // Told with the shapes that were expected.
                let whole = problem.partial(len..len + count).map_err(RunError::Problem)?;
                return T::append(Append { kernel, problem: whole, tokens, cache, floats });
            }
            let tokens = Tokens {
                k: tokens.k.tokens(range.clone()),
                v: tokens.v.tokens(range),
                captured: tokens.captured,
            };
            T::append(Append { kernel, problem, tokens, cache, floats })?;
        }
        store.commit(sequence, room).map_err(RunError::Store)
    }

    /// The caches of a call's sequences.
    pub(crate) fn chosen<'a>(&'a self, sequences: &'a [SequenceId]) -> Chosen<'a> {
        Chosen { cache: self, sequences }
    }
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
        store
            .sequence(memory.as_slice(), self.sequences[sequence])
            .expect("the call looked for each sequence")
    }
}
