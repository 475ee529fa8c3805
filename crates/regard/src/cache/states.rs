//! States of recurrences, in place of cached keys and values.

use std::iter::once;
use std::path::Path;

use regard_engine::threads::Threads;
use regard_ir::cache::VERSION;
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::spec::Spec;
use regard_launch::{Left, Run};
use regard_map::file::{Description, FileError, Opened};
use regard_map::{StateFile, Words};
use regard_runtime::cache::{Capacity, SequenceId, Store, StoreError};
use regard_runtime::flash::{self, Inputs, Outputs};
use regard_runtime::recurrent::{self, CachedStates, States};
use regard_runtime::schedule::MAX_TASKS;
use regard_runtime::view::{View, ViewMut, contiguous_strides};

use crate::cache::{Cache, CacheError, CacheLimits};
use crate::error::RunError;
use crate::kernel::Kernel;

/// How large the states of a sequence are.
#[derive(Clone, Copy, Debug)]
pub(super) struct StateShape {
    /// Value heads, rows of a state, and floats of each.
    size: [usize; 3],
    /// Floats of a head's sum of features; none where there is none.
    norm: usize,
    /// How many states of a sequence are kept: those after its last tokens.
    depth: usize,
}

impl StateShape {
    /// Those of a spec; `None` where it has none.
    pub(super) fn new(spec: &Spec, limits: CacheLimits) -> Option<Self> {
        let recurrence = spec.variant().recurrence()?;
        let heads = &spec.heads;
        let size = [heads.value, heads.dim, heads.value_dim].map(|n| n as usize);
        let norm = if recurrence.normalize_eps.is_some() { size[1] } else { 0 };
        Some(Self { size, norm, depth: limits.at_once.max(1) })
    }

    /// Floats of a sequence's states: whole lines. `None` where they are more than can be counted.
    pub(super) fn state_len(&self) -> Option<usize> {
        let floats = self.size.iter().try_fold(self.depth, |product, &n| product.checked_mul(n))?;
        floats.checked_next_multiple_of(16)
    }

    /// Floats of a sequence's sums of features.
    fn norm_len(&self) -> Option<usize> {
        self.depth.checked_mul(self.size[0])?.checked_mul(self.norm)
    }

    /// Bytes of a sequence.
    pub(super) fn bytes(&self) -> Option<usize> {
        self.state_len()?.checked_add(self.norm_len()?)?.checked_mul(size_of::<f32>())
    }

    /// Who has which state: one piece of memory for each sequence, however long it is.
    pub(super) fn store(&self, limits: CacheLimits) -> Result<Store, CacheError> {
        let fit = |n: usize| u32::try_from(n).ok().filter(|&n| n > 0 && n <= i32::MAX as u32);
        if limits.sequences > MAX_TASKS as usize {
            return Err(CacheError::Sequences { found: limits.sequences });
        }
        let numbers = fit(limits.sequences).zip(fit(limits.tokens)).zip(self.state_len());
        let ((sequences, tokens), len) = numbers.ok_or(CacheError::Limits(limits))?;
        Ok(Store::new(Capacity::Contiguous { pages: 1 }, sequences, tokens, tokens, once(0..len)))
    }
}

/// Beside the states of sequences, which lie in a cache's memory.
#[derive(Debug)]
pub(super) struct KeptStates {
    shape: StateShape,
    /// Sums of features.
    norms: Words,
    /// The fewest tokens that each sequence can be cut to, beside none.
    least: Vec<u32>,
    /// Which sequences a call has.
    of: Vec<u32>,
    /// Where the states of the only sequence are recorded, if they are.
    file: Option<StateFile>,
}

impl KeptStates {
    pub(super) fn new(shape: StateShape, limits: CacheLimits) -> Result<Self, CacheError> {
        let len = shape.norm_len().and_then(|len| len.checked_mul(limits.sequences));
        let len = len.ok_or(CacheError::Limits(limits))?;
        let norms = Words::new(len)
            .map_err(|_| CacheError::Memory { bytes: len.saturating_mul(size_of::<f32>()) })?;
        let (least, of) = (vec![0; limits.sequences], Vec::with_capacity(limits.sequences));
        Ok(Self { shape, norms, least, of, file: None })
    }

    /// Bytes of sums of features.
    pub(super) fn norm_bytes(&self) -> usize {
        size_of_val(self.norms.as_slice())
    }

    /// Forgets all of a sequence.
    pub(super) fn clear(&mut self, states: &mut [u32], index: usize) {
        let StateShape { norm, depth, size: [heads, dim, width] } = self.shape;
        let len = self.shape.state_len().unwrap_or(0);
        // The state without tokens is the first of each head.
        for head in states[index * len..][..len].chunks_exact_mut((depth * dim * width).max(1)) {
            head[..dim * width].fill(0);
        }
        let sums = heads * depth * norm;
        for head in self.norms.as_mut_slice()[index * sums..][..sums].chunks_exact_mut((depth * norm).max(1))
        {
            head[..norm].fill(0);
        }
        self.least[index] = 0;
    }

    /// Gives one sequence what beside its states is another's.
    pub(super) fn fork(&mut self, [from, to]: [usize; 2]) {
        let sums = self.shape.norm_len().unwrap_or(0);
        self.norms.as_mut_slice().copy_within(from * sums..(from + 1) * sums, to * sums);
        self.least[to] = self.least[from];
    }

    /// Whether a sequence can be cut to so many tokens, of which it has at least as many.
    pub(super) fn check_cut(&self, index: usize, tokens: u32) -> Result<(), StoreError> {
        let least = self.least[index];
        if tokens == 0 || tokens >= least { Ok(()) } else { Err(StoreError::Overwritten { tokens, least }) }
    }

    /// Counts tokens that were taken: whether states after each of them are there depends on how many they are.
    fn count(&mut self, plan: &Plan, index: usize, [before, taken]: [u32; 2]) {
        let depth = self.shape.depth as u32;
        let after = before.saturating_add(taken);
        let least = &mut self.least[index];
        *least = match recurrent::leaves_each(plan, taken as usize, self.shape.depth) {
            true => (*least).max((after + 1).saturating_sub(depth)),
            false => after,
        };
    }

    /// The states of a call.
    fn view<'a>(&'a mut self, states: &'a mut [f32]) -> Result<CachedStates<'a>, RunError> {
        let StateShape { norm, depth, size: [heads, dim, width] } = self.shape;
        let sequences = self.least.len();
        let state_len = self.shape.state_len().unwrap_or(0);
        let [_, head, row] = contiguous_strides([sequences, heads, depth * dim], width);
        let counts = [sequences, heads, depth * dim];
        let too_short = |_| RunError::Runtime(flash::RunError::Caches);
        let state = ViewMut::new(states, counts, [state_len, head, row], width).map_err(too_short)?;
        let norm = (norm > 0)
            .then(|| ViewMut::contiguous(self.norms.floats_mut(), [sequences, heads, depth], norm))
            .transpose()
            .map_err(too_short)?;
        Ok(CachedStates { states: States { state, norm }, of: Some(&self.of), depth })
    }
}

/// Calls `with` with what the file of a kernel's states must be of.
fn describe<R>(
    kernel: &Kernel,
    shape: &StateShape,
    with: impl FnOnce(&Description<'_>) -> Result<R, FileError>,
) -> Result<R, CacheError> {
    let &StateShape { size: [heads, dim, width], norm, .. } = shape;
    let one = StateShape { depth: 1, ..*shape };
    let words = one.bytes().map(|bytes| bytes / size_of::<f32>());
    let page_words = words.and_then(|words| u32::try_from(words).ok());
    let page_words = page_words.ok_or(CacheError::Page { tokens: 1, words: words.unwrap_or(usize::MAX) })?;
    let numbers = [
        ("value heads", heads as u32),
        ("the width of keys", dim as u32),
        ("the width of values", width as u32),
        ("sums of features of a head", norm as u32),
    ];
    let identity = kernel.spec().identity.0.to_be_bytes();
    let description =
        Description { identity, version: VERSION, page_words, page_tokens: 1, numbers: &numbers };
    with(&description).map_err(CacheError::File)
}

impl Cache {
    /// A cache of one sequence, whose state is recorded in a file that is not there yet, if its spec has states.
    pub(super) fn create_states(
        kernel: &Kernel,
        path: &Path,
        limits: CacheLimits,
    ) -> Option<Result<(Self, SequenceId), CacheError>> {
        let shape = StateShape::new(kernel.spec(), limits)?;
        let create = || {
            // Memory first: where there is none, no file is left.
            let (mut cache, sequence) = Self::with_one(kernel, limits)?;
            let file = describe(kernel, &shape, |description| StateFile::create(path, description))?;
            cache.record_in(file);
            Ok((cache, sequence))
        };
        Some(create())
    }

    /// As [`Cache::create_states`], of a file that is there.
    pub(super) fn open_states(
        kernel: &Kernel,
        path: &Path,
    ) -> Option<Result<(Self, SequenceId, Opened), CacheError>> {
        let limits = CacheLimits::new(1, i32::MAX as usize);
        let shape = StateShape::new(kernel.spec(), limits)?;
        let open = || {
            let (file, opened) = describe(kernel, &shape, |description| StateFile::open(path, description))?;
            let (mut cache, sequence) = Self::with_one(kernel, limits)?;
            cache.store.commit(sequence, opened.len).map_err(CacheError::Store)?;
            if let (Some(states), Some(recorded)) = (&mut cache.states, file.state()) {
                let (state, norms) = recorded.split_at(cache.memory.words().len());
                cache.memory.words_mut().copy_from_slice(state);
                states.norms.as_mut_slice().copy_from_slice(norms);
                states.least[0] = opened.len;
            }
            cache.record_in(file);
            Ok((cache, sequence, opened))
        };
        Some(open())
    }

    /// A cache in memory, and its only sequence.
    fn with_one(kernel: &Kernel, limits: CacheLimits) -> Result<(Self, SequenceId), CacheError> {
        let mut cache = Self::in_memory(kernel, limits)?;
        let sequence = cache.open().map_err(CacheError::Store)?;
        Ok((cache, sequence))
    }

    /// Has states recorded in a file from now on.
    fn record_in(&mut self, file: StateFile) {
        if let Some(states) = &mut self.states {
            states.file = Some(file);
        }
    }

    /// The file that states are recorded in, if they are.
    pub(super) fn state_file(&mut self) -> Option<&mut StateFile> {
        self.states.as_mut()?.file.as_mut()
    }

    /// The same, to be looked at.
    pub(super) fn recorded_in(&self) -> Option<&StateFile> {
        self.states.as_ref()?.file.as_ref()
    }

    /// Records the state of a sequence of so many tokens in the file of states, if there is one.
    pub(super) fn commit_state(&mut self, len: u32) -> Option<Result<(), CacheError>> {
        let Self { memory, states, .. } = self;
        let KeptStates { norms, file, .. } = states.as_mut()?;
        // The caches of files keep one state: the words are those of the file.
        let (state, norms) = (memory.words(), norms.as_slice());
        let write = |words: &mut [u32]| {
            let (to, to_norms) = words.split_at_mut(state.len());
            to.copy_from_slice(state);
            to_norms.copy_from_slice(norms);
        };
        Some(file.as_mut()?.commit(len, write).map_err(CacheError::File))
    }

    /// Takes tokens of some sequences, whose states become those after them. `problem` is of these tokens alone, each sequence's first
    /// at the position that it has.
    pub(crate) fn advance(
        &mut self,
        kernel: &Kernel,
        threads: &dyn Threads,
        (sequences, parts): (&[SequenceId], flash::Parts<'_>),
        (inputs, outputs): (Inputs<'_>, Outputs<'_>),
        workspace: flash::Workspace<'_>,
    ) -> Result<(), RunError> {
        let (store, problem) = (&self.store, parts.problem);
        let Some(states) = &mut self.states else {
            return Err(RunError::Runtime(flash::RunError::Mechanism));
        };
        if problem.batch as usize != sequences.len() {
            return Err(RunError::Runtime(flash::RunError::Caches));
        }
        states.of.clear();
        for (b, &sequence) in (0..).zip(sequences) {
            let of = problem.sequence(b);
            if i64::from(store.len(sequence).map_err(RunError::Store)?) != i64::from(of.q_offset) {
                return Err(RunError::Runtime(flash::RunError::Caches));
            }
            store.check_room(sequence, of.queries).map_err(RunError::Store)?;
            states.of.push(store.index(sequence).map_err(RunError::Store)? as u32);
        }
        let left = Left::States(states.view(self.memory.floats_mut())?);
        let target = outputs.into();
        Run { parts, code: &kernel.code, inputs, target, left, threads, workspace }.launch()?;
        for (b, &sequence) in (0..).zip(sequences) {
            let taken = problem.sequence(b).queries;
            let before = self.store.len(sequence).map_err(RunError::Store)?;
            states.count(kernel.plan(), states.of[b as usize] as usize, [before, taken]);
            self.store.commit(sequence, taken).map_err(RunError::Store)?;
        }
        Ok(())
    }

    /// The states of a sequence of a recurrence after its last token, in f32: of each value head, `[1][value head][dim]` rows of `value_dim`,
    /// and the sums of features that outputs are divided by, `[1][value head][1]` rows of `dim`, where they are. `None` where there are
    /// keys and values in place of states.
    ///
    /// # Errors
    /// If there is no such sequence.
    pub fn states(&self, sequence: SequenceId) -> Result<Option<(View<'_>, Option<View<'_>>)>, StoreError> {
        let (index, len) = (self.store.index(sequence)?, self.store.len(sequence)? as usize);
        let Some(KeptStates { shape, norms, .. }) = &self.states else { return Ok(None) };
        let StateShape { norm, depth, size: [heads, dim, width] } = *shape;
        let number = len % depth;
        let state = {
            let at = index * shape.state_len().unwrap_or(0) + number * dim * width;
            let rows = self.memory.floats().get(at..).unwrap_or_default();
            View::new(rows, [1, heads, dim], [0, depth * dim * width, width], width).ok()
        };
        let norm = {
            let at = (index * heads * depth + number) * norm;
            let rows = norms.floats().get(at..).filter(|_| norm > 0);
            rows.and_then(|rows| View::new(rows, [1, heads, 1], [0, depth * norm, norm], norm).ok())
        };
        Ok(state.map(|state| (state, norm)))
    }

    /// The problem of some tokens that a sequence takes next.
    pub(crate) fn next_problem(
        &self,
        kernel: &Kernel,
        sequence: SequenceId,
        tokens: usize,
    ) -> Result<Problem<'static>, RunError> {
        let len = self.store.len(sequence).map_err(RunError::Store)? as usize;
        let source = kernel.spec().source;
        let problem = match self.states {
            Some(_) => Problem::prefill(source, 1, tokens, tokens)
                .and_then(|problem| problem.with_q_offset(len as i64)),
            None => Problem::prefill(source, 1, tokens, len.saturating_add(tokens)),
        };
        problem.map_err(RunError::Problem)
    }
}
