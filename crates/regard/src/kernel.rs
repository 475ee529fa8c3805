//! A spec compiled for a machine.

mod next;

use std::path::Path;

use regard_engine::any::{self, Unavailable};
use regard_engine::threads::{Solo, Threads};
use regard_ir::inputs::InputData;
use regard_ir::machine::{Isa, Machine};
use regard_ir::plan::{Dtype, EngineKind, Plan, ScheduleOverview};
use regard_ir::problem::{MAX_FEW, Problem};
use regard_ir::spec::Spec;
use regard_ir::variant::Variant;
use regard_launch::{Decode, Finish, Left, Prefill, Run, Sizes, Source, VariantCode};
use regard_map::file::Opened;
use regard_planner::PlanReport;
use regard_planner::cost::{CachedPrediction, Prediction};
use regard_runtime::cache::SequenceId;
use regard_runtime::flash::{Ending, Inputs, Outputs, PartLen, Target, WorkspaceLen};
use regard_runtime::recurrent::States;
use regard_runtime::split::{self, Queries, Tokens};
use regard_runtime::view::ViewMut;

use crate::cache::{Cache, CacheError, CacheLimits, CacheSize};
use crate::error::{CompileError, RunError, ScheduleError};
use crate::planned::Planned;
use crate::schedule::{Part, Schedule, Workspace};
use crate::step::{Call, Step};

/// What a caller may want otherwise than the planner would choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Storage type of q, k, v and o; the spec's where absent.
    pub dtype: Option<Dtype>,
    /// The most capable instruction set to use; the machine's where absent.
    pub isa: Option<Isa>,
    /// The engine to use; the fastest where absent.
    pub engine: Option<EngineKind>,
    /// Where mask and modifier come from; generated where absent and this build has a module of the same ones, else loaded.
    pub kernel: Option<Source>,
}

/// An attention variant, planned for a machine and ready to run.
#[derive(Clone, Debug)]
pub struct Kernel {
    planned: Planned,
    pub(crate) code: VariantCode,
}

impl Kernel {
    /// Plans `spec` for `machine`, in the spec's storage type.
    ///
    /// # Errors
    /// If it cannot be planned, or this processor lacks the instructions that the plan uses.
    pub fn compile(spec: &Spec, machine: &Machine) -> Result<Self, CompileError> {
        Self::compile_with(spec, machine, Options::default())
    }

    /// As [`Kernel::compile`], with some choices taken.
    ///
    /// # Errors
    /// As `compile`, and if a choice cannot be had.
    pub fn compile_with(spec: &Spec, machine: &Machine, options: Options) -> Result<Self, CompileError> {
        Self::build(Planned::new(spec, machine, options)?)
    }

    /// Makes a plan runnable.
    ///
    /// # Errors
    /// If this processor lacks the instructions that the plan uses, or there is no code from the source that was asked
    /// for.
    pub fn build(planned: Planned) -> Result<Self, CompileError> {
        let Plan { engine, isa, .. } = *planned.plan();
        if !any::available(engine, isa) {
            return Err(CompileError::Unavailable(Unavailable { engine, isa }));
        }
        let code = VariantCode::new(&planned.variant(), planned.source())
            .ok_or_else(|| CompileError::NotGenerated { name: planned.spec().name.clone() })?;
        Ok(Self { planned, code })
    }

    /// The plan with its reasons, and what can be told from it of calls.
    pub const fn planned(&self) -> &Planned {
        &self.planned
    }

    /// The spec.
    pub fn spec(&self) -> &Spec {
        self.planned.spec()
    }

    /// The variant as kernels and the oracle see it.
    pub fn variant(&self) -> Variant<'_> {
        self.planned.variant()
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        self.planned.plan()
    }

    /// Why the plan is as it is.
    pub fn report(&self) -> &PlanReport {
        self.planned.report()
    }

    /// Where the variant's code comes from.
    pub fn source(&self) -> Source {
        self.code.source()
    }

    /// Cuts a problem into tasks for `threads` workers.
    ///
    /// `captured` are the tensors that the spec declares, in that order: where a mask reads them, they say which tiles
    /// are live.
    ///
    /// # Errors
    /// If a captured tensor does not fit its declaration, or there are more sequences than one call can hold.
    pub fn schedule(
        &self,
        problem: &Problem<'_>,
        captured: &[InputData<'_>],
        threads: usize,
    ) -> Result<Schedule, ScheduleError> {
        let tasks = self.planned.tasks(problem, Some(captured), threads)?;
        let positions = &tasks.positions.view();
        let workspace = self.workspace(positions, tasks.threads);
        let part = PartLen::new(&self.spec().heads, positions);
        Ok(Schedule { identity: self.plan().identity, workspace, part, tasks })
    }

    /// What a person wants to know of a schedule: tasks, live share, tiles, balance. Takes longer than to make it.
    ///
    /// # Errors
    /// As [`Kernel::schedule`].
    pub fn overview(
        &self,
        schedule: &Schedule,
        captured: &[InputData<'_>],
    ) -> Result<ScheduleOverview, ScheduleError> {
        self.planned.overview(&schedule.tasks, Some(captured))
    }

    /// The time that a run of a schedule will take, by the rates of the machine that the kernel was compiled for.
    ///
    /// # Errors
    /// As [`Kernel::schedule`].
    pub fn predict(
        &self,
        schedule: &Schedule,
        captured: &[InputData<'_>],
    ) -> Result<Option<Prediction>, ScheduleError> {
        let overview = self.overview(schedule, captured)?;
        self.planned.predict(&schedule.tasks, Some(captured), &overview)
    }

    /// The time that a call on caches will take with `threads` workers, by the rates of the machine that the kernel was compiled
    /// for. `problem` has the sequences' lengths, `captured` are the tensors that the spec declares.
    ///
    /// # Errors
    /// If a captured tensor does not fit its declaration.
    pub fn predict_call(
        &self,
        problem: &Problem<'_>,
        captured: &[InputData<'_>],
        threads: usize,
    ) -> Result<Option<CachedPrediction>, ScheduleError> {
        let call = self.planned.call(problem, Some(captured), threads)?;
        Ok(self.planned.predict_call(&call))
    }

    /// Bytes of workspace that a run of a problem needs with `threads` workers; saturates.
    pub fn workspace_bytes(&self, problem: &Problem<'_>, threads: usize) -> usize {
        let positions = self.planned.positions(problem);
        positions.map_or(usize::MAX, |positions| self.workspace(&positions.view(), threads.max(1)).bytes())
    }

    fn workspace(&self, problem: &Problem<'_>, threads: usize) -> WorkspaceLen {
        let of = (&self.variant(), self.plan(), problem);
        // `compile_with` saw that the engine is there.
        Sizes { of, code: &self.code, threads }.run().unwrap_or(WorkspaceLen { floats: 0, spans: 0 })
    }

    /// Runs the kernel over a scheduled problem.
    ///
    /// Nothing is allocated. The same bits come out whatever the count of `threads`, which is at most the schedule's.
    ///
    /// # Errors
    /// If a tensor does not fit spec, plan or problem, the workspace is too small, or a mask or modifier indexes a
    /// captured tensor outside its axes.
    pub fn run(
        &self,
        schedule: &Schedule,
        threads: &dyn Threads,
        inputs: Inputs<'_>,
        outputs: Outputs<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), RunError> {
        self.launch(schedule, threads, inputs, (outputs.into(), Left::Nothing), workspace)
    }

    /// As [`Kernel::run`], of a spec with lookahead keys, which are written to `u` as they are after the last token:
    /// `[sequence][head][token]` rows of `dim`.
    ///
    /// # Errors
    /// As `run`, and if there is not a query for each key, from the first position on.
    pub fn run_lookahead(
        &self,
        schedule: &Schedule,
        threads: &dyn Threads,
        inputs: Inputs<'_>,
        (outputs, u): (Outputs<'_>, ViewMut<'_>),
        workspace: &mut Workspace,
    ) -> Result<(), RunError> {
        self.launch(schedule, threads, inputs, (outputs.into(), Left::Keys(u)), workspace)
    }

    /// As [`Kernel::run`], of a spec with a recurrence: `states` are those before the first tokens, and become those after the last.
    /// [`Kernel::run`] begins with zeros.
    ///
    /// # Errors
    /// As `run`, and if a causal recurrence has not a query for each key. Where others came before the first, `Problem::with_q_offset`
    /// says so.
    pub fn run_recurrence(
        &self,
        schedule: &Schedule,
        threads: &dyn Threads,
        inputs: Inputs<'_>,
        (outputs, states): (Outputs<'_>, States<'_>),
        workspace: &mut Workspace,
    ) -> Result<(), RunError> {
        self.launch(schedule, threads, inputs, (outputs.into(), Left::States(states.into())), workspace)
    }

    /// As [`Kernel::run`], over some of the keys ([`Problem::partial`]) or all of them: the sums go to `part`, whatever it
    /// held. Merge it with those of the other keys, then [`Kernel::finish`] it. `inputs` have no gate.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_part(
        &self,
        schedule: &Schedule,
        threads: &dyn Threads,
        inputs: Inputs<'_>,
        part: &mut Part,
        workspace: &mut Workspace,
    ) -> Result<(), RunError> {
        self.launch(schedule, threads, inputs, (Target::Part(part.view_mut()), Left::Nothing), workspace)
    }

    /// A run of any kind.
    fn launch(
        &self,
        schedule: &Schedule,
        threads: &dyn Threads,
        inputs: Inputs<'_>,
        (target, left): (Target<'_>, Left<'_>),
        workspace: &mut Workspace,
    ) -> Result<(), RunError> {
        self.check(schedule, threads)?;
        let (variant, problem) = (&self.variant(), &schedule.positions());
        let parts = schedule.parts(variant, self.plan(), problem);
        Ok(Run { parts, code: &self.code, inputs, target, left, threads, workspace: workspace.view() }
            .launch()?)
    }

    /// Makes outputs of a merged part: divides by its sums, with the sink, and mixes, norms and gates where the spec does.
    ///
    /// `schedule` is that of any of its problems, over some keys or all.
    ///
    /// # Errors
    /// As `run`.
    pub fn finish(
        &self,
        schedule: &Schedule,
        threads: &dyn Threads,
        part: &Part,
        ending: Ending<'_>,
        outputs: Outputs<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), RunError> {
        self.check(schedule, threads)?;
        let of = (&self.variant(), self.plan(), &schedule.positions());
        let (part, workspace) = (part.view(), workspace.view());
        Ok(Finish { of, part, ending, outputs, threads, workspace }.launch()?)
    }

    /// Room for the keys and values of sequences, as the spec's table `cache` says, or for the states of a recurrence.
    ///
    /// # Errors
    /// If the limits ask for nothing, or for more than the system gives, or a recurrence is asked for pages or has no causal mask.
    pub fn cache(&self, limits: CacheLimits) -> Result<Cache, CacheError> {
        Cache::new(self, limits)
    }

    /// A cache of one sequence in a file that is not there yet, with room for so many tokens. See [`Cache::commit`] and
    /// [`Cache::sync`].
    ///
    /// # Errors
    /// If the file is there, the disk has no room for it, or the spec's layout is not contiguous.
    pub fn create_cache(
        &self,
        path: impl AsRef<Path>,
        tokens: usize,
    ) -> Result<(Cache, SequenceId), CacheError> {
        Cache::create(self, path.as_ref(), tokens)
    }

    /// Opens the file of a cache, with the tokens that were recorded in it, and says how many they are and whether some were
    /// lost. Nothing is copied.
    ///
    /// # Errors
    /// If the file is not of this kernel's spec and format, is open elsewhere, or is damaged.
    pub fn open_cache(&self, path: impl AsRef<Path>) -> Result<(Cache, SequenceId, Opened), CacheError> {
        Cache::open_file(self, path.as_ref())
    }

    /// Appends tokens to a sequence of a cache: their keys are normed and turned as the spec says, and stored as its cache does.
    ///
    /// # Errors
    /// If a tensor does not fit, the cache has no room, or its file is not what it was ([`Cache::probe`]). The cache is as it was
    /// then.
    pub fn append(
        &self,
        cache: &mut Cache,
        sequence: SequenceId,
        tokens: Tokens<'_>,
    ) -> Result<(), RunError> {
        self.append_with(&Solo, cache, sequence, tokens)
    }

    /// As [`Kernel::append`], with the same bits, on threads: all of them work out what the tokens weigh for lookahead keys, for which
    /// what all of these ask is read, and have these learn, which every sixteenth token of a sequence has them do. The first call
    /// with more threads than before takes memory.
    ///
    /// # Errors
    /// As [`Kernel::append`].
    pub fn append_with(
        &self,
        threads: &dyn Threads,
        cache: &mut Cache,
        sequence: SequenceId,
        tokens: Tokens<'_>,
    ) -> Result<(), RunError> {
        self.check_cache(cache)?;
        cache.append(self, threads, sequence, tokens)
    }

    /// Memory for calls on a cache of at most so many queries of each sequence, which are [`MAX_FEW`] or fewer, and as many
    /// sequences and tokens as it has room for. Of more queries [`Kernel::prefill`] is the call.
    ///
    /// # Errors
    /// If the queries are more, the cache is of another kernel, or its limits pass what one call can take.
    pub fn step(&self, cache: &Cache, queries: usize, threads: usize) -> Result<Step, RunError> {
        if cache.identity != self.plan().identity {
            return Err(RunError::Identity { expected: self.plan().identity, found: cache.identity });
        }
        if queries > MAX_FEW as usize {
            return Err(RunError::Queries { found: queries, most: MAX_FEW as usize });
        }
        let (sequences, tokens) = (cache.limits.sequences, cache.limits.tokens);
        // A state stands for all tokens before.
        let (keys, tasks) = match self.variant().recurrence() {
            Some(_) => (queries, sequences.saturating_mul(self.spec().heads.kv as usize)),
            None => (tokens, 0),
        };
        let starts = |len: usize| -> Vec<i32> {
            (0..=sequences).map(|i| i32::try_from(i.saturating_mul(len)).unwrap_or(i32::MAX)).collect()
        };
        let (cu_q, cu_k) = (starts(queries), starts(keys));
        let problem = Problem::packed(self.spec().source, &cu_q, &cu_k).map_err(RunError::Problem)?;
        let cells = cache.cells(self.plan().decode.key_cell);
        let len = self.step_len(&problem, cells, threads).map_err(RunError::Unavailable)?;
        Ok(Step::new(self.plan().identity, (sequences, queries), threads.max(1), (len, tasks)))
    }

    /// Bytes of workspace that [`Kernel::step`] takes for calls like `problem` on a cache of a size.
    ///
    /// # Errors
    /// If this processor lacks the instructions that the plan uses.
    pub fn step_bytes(
        &self,
        problem: &Problem<'_>,
        cache: &CacheSize,
        threads: usize,
    ) -> Result<usize, Unavailable> {
        self.step_len(problem, cache.cells, threads).map(|len| len.bytes())
    }

    /// Floats that tokens are appended in by so many threads, of a sequence as long as that of `problem`.
    pub(crate) fn append_len(&self, problem: &Problem<'_>, threads: usize) -> usize {
        let of = (&self.variant(), self.plan(), problem);
        Sizes { of, code: &self.code, threads }.append().unwrap_or(0)
    }

    fn step_len(
        &self,
        problem: &Problem<'_>,
        cells: usize,
        threads: usize,
    ) -> Result<WorkspaceLen, Unavailable> {
        // More positions than 32 bits hold: no call comes so far.
        let Ok(positions) = self.planned.positions(problem) else {
            return Ok(WorkspaceLen { floats: 0, spans: 0 });
        };
        let of = (&self.variant(), self.plan(), &positions.view());
        Sizes { of, code: &self.code, threads }.step(cells)
    }

    /// Attends queries to the cached keys of their sequences: the queries are the last tokens of each.
    ///
    /// `queries.q` are `[1][query head][query]` rows, those of one sequence after those of the other, as many of each; captured
    /// tensors and outputs are as those of packed sequences. Nothing is allocated. The same bits come out whatever the count of
    /// threads and whichever other sequences there are.
    ///
    /// # Errors
    /// If a tensor does not fit, `step` was made for fewer sequences, queries or threads, the file of the cache is not what it
    /// was ([`Cache::probe`]), or a mask or modifier indexes a captured tensor outside its axes.
    pub fn decode(
        &self,
        step: &mut Step,
        threads: &dyn Threads,
        cache: &Cache,
        sequences: &[SequenceId],
        queries: Queries<'_>,
        outputs: Outputs<'_>,
    ) -> Result<(), RunError> {
        self.check_step(step, threads, cache)?;
        cache.check_has_keys()?;
        let [_, _, count] = queries.q.counts();
        let of_each = count.checked_div(sequences.len()).unwrap_or(0);
        let variant = &self.variant();
        let of = (variant.source, variant.per_token());
        let Call { ref problem, workspace } = step.call(of, cache, sequences, of_each)?;
        let (caches, code) = (&cache.chosen(sequences), &self.code);
        let parts = split::Parts { variant, plan: self.plan(), problem, caches };
        Ok(Decode { parts, code, queries, outputs, threads, workspace }.launch()?)
    }

    /// Attends many queries to the cached keys of their sequences: a prefill, or a piece of one, whose tokens were appended.
    ///
    /// `schedule` is of a problem whose keys are the sequences' tokens: [`Problem::prefill`] of one sequence, or
    /// [`Problem::packed`]. A prompt that is appended and attended piece by piece, with queries that are the last tokens of
    /// each, gives the bits that it gives in one piece.
    ///
    /// # Errors
    /// As [`Kernel::run`], and if a sequence has another number of tokens, or the file of the cache is not what it was
    /// ([`Cache::probe`]).
    pub fn prefill(
        &self,
        schedule: &Schedule,
        threads: &dyn Threads,
        (cache, sequences): (&Cache, &[SequenceId]),
        queries: Queries<'_>,
        outputs: Outputs<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), RunError> {
        self.check(schedule, threads)?;
        self.check_cache(cache)?;
        cache.check_has_keys()?;
        for &sequence in sequences {
            cache.len(sequence).map_err(RunError::Store)?;
        }
        let (caches, workspace) = (&cache.chosen(sequences), workspace.view());
        let (variant, problem) = (&self.variant(), &schedule.positions());
        let parts = schedule.parts(variant, self.plan(), problem);
        Ok(Prefill { parts, code: &self.code, caches, queries, outputs, threads, workspace }.launch()?)
    }

    /// Whether a cache is this kernel's, and the file of a cache is whole.
    fn check_cache(&self, cache: &Cache) -> Result<(), RunError> {
        let Plan { identity, cache: format, .. } = *self.plan();
        if cache.identity != identity {
            return Err(RunError::Identity { expected: identity, found: cache.identity });
        }
        if cache.format != format {
            return Err(RunError::Format { expected: format, found: cache.format });
        }
        cache.probed().map_err(RunError::File)
    }

    /// Whether a step, so many threads and a cache are this kernel's.
    fn check_step(&self, step: &Step, threads: &dyn Threads, cache: &Cache) -> Result<(), RunError> {
        self.check_cache(cache)?;
        if step.identity != cache.identity {
            return Err(RunError::Identity { expected: cache.identity, found: step.identity });
        }
        if threads.count() > step.threads {
            return Err(RunError::Threads { scheduled: step.threads, found: threads.count() });
        }
        Ok(())
    }

    /// Whether a schedule and so many threads are this kernel's.
    fn check(&self, schedule: &Schedule, threads: &dyn Threads) -> Result<(), RunError> {
        let identity = self.plan().identity;
        if schedule.identity != identity {
            return Err(RunError::Identity { expected: identity, found: schedule.identity });
        }
        let scheduled = schedule.tasks.threads;
        if threads.count() > scheduled {
            return Err(RunError::Threads { scheduled, found: threads.count() });
        }
        Ok(())
    }
}
