//! Lookahead keys of a cache, which change with each token.

use regard_engine::threads::Threads;
use regard_ir::cache::PageShape;
use regard_ir::problem::Problem;
use regard_ir::spec::{CacheLayout, Mechanism, Spec};
use regard_ir::variant::Recurrence;
use regard_launch::LaunchError;
use regard_map::Words;
use regard_runtime::cache::{CachedSequenceMut, LearnedShape, Lessons, SequenceId};
use regard_runtime::flash;

use crate::cache::{Cache, CacheError, CacheLimits};
use crate::error::RunError;
use crate::kernel::Kernel;

/// Lookahead keys, and what they are still to learn for good.
#[derive(Debug)]
pub(super) struct LookaheadKeys {
    pub(super) lessons: Lessons,
    pub(super) memory: Words,
    /// For how many threads there is memory to teach in.
    threads: usize,
}

impl LookaheadKeys {
    pub(super) fn new(shape: LearnedShape, limits: CacheLimits) -> Result<Self, CacheError> {
        let words = shape.memory_len().checked_mul(limits.sequences).ok_or(CacheError::Limits(limits))?;
        let bytes = words.saturating_mul(size_of::<f32>());
        let memory = Words::new(words).map_err(|_| CacheError::Memory { bytes })?;
        let kept = u32::try_from(limits.at_once).unwrap_or(u32::MAX);
        Ok(Self { lessons: Lessons::new(shape, limits.sequences, kept), memory, threads: 1 })
    }
}

/// Whether a mechanism can be cached as the spec says, or as it is asked to be.
pub(super) fn check_mechanism(spec: &Spec, asked: Option<&'static str>) -> Result<(), CacheError> {
    let layout = match spec.cache.layout {
        CacheLayout::Paged => Some("layout = \"paged\""),
        CacheLayout::Ring => Some("layout = \"ring\""),
        CacheLayout::Contiguous => None,
    };
    let file = spec.cache.file.then_some("file = true");
    match (&spec.mechanism, asked.or(file).or(layout)) {
        (Mechanism::Recurrence(Recurrence { causal: false, .. }), _) => Err(CacheError::AllKeys),
        (Mechanism::Recurrence(_), _) if let Some(asked) = layout => Err(CacheError::States { asked }),
        (Mechanism::Lookahead(_), Some(asked)) => Err(CacheError::Lookahead { asked }),
        _ => Ok(()),
    }
}

/// How large lookahead keys of sequences of so many tokens are; `None` where there are none.
pub(super) fn learned_shape(spec: &Spec, page: &PageShape, tokens: usize) -> Option<LearnedShape> {
    matches!(spec.mechanism, Mechanism::Lookahead(_)).then(|| LearnedShape::new(page, tokens))
}

impl Cache {
    /// Makes room for all threads to teach lookahead keys, where there are any.
    pub(super) fn make_room(&mut self, kernel: &Kernel, problem: &Problem<'_>, threads: &dyn Threads) {
        let Some(keys) = &mut self.lookahead else { return };
        // No more than there are pages of keys, which are at least so large.
        let page = self.shape.tokens.saturating_mul(self.shape.keys.channels).max(1);
        let threads = threads.count().min(keys.memory.as_slice().len() / page);
        if threads > keys.threads {
            keys.threads = threads;
            let needed = kernel.append_len(problem, threads);
            self.floats.resize(needed.max(self.floats.len()), 0.0);
        }
    }

    /// Makes room for the queries' tokens of a problem and has them written and attended by `run`; they count if it succeeds.
    pub(crate) fn extend(
        &mut self,
        kernel: &Kernel,
        threads: &dyn Threads,
        sequence: SequenceId,
        problem: &Problem<'_>,
        run: impl FnOnce(CachedSequenceMut<'_>, &mut [f32]) -> Result<(), LaunchError>,
    ) -> Result<(), RunError> {
        let len = self.store.len(sequence).map_err(RunError::Store)?;
        if problem.packed.is_some() || len.checked_add(problem.queries) != Some(problem.keys) {
            return Err(RunError::Runtime(flash::RunError::Caches));
        }
        self.make_room(kernel, problem, threads);
        let Self { store, memory, lookahead, floats, .. } = self;
        let index = store.index(sequence).map_err(RunError::Store)?;
        let mut cache =
            store.reserve(memory.words_mut(), sequence, problem.queries).map_err(RunError::Store)?;
        if let Some(LookaheadKeys { lessons, memory, .. }) = lookahead {
            cache.learned = Some(lessons.learned_mut(memory.floats_mut(), index));
        }
        run(cache, floats)?;
        store.commit(sequence, problem.queries).map_err(RunError::Store)
    }
}
