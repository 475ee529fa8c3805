//! A spec planned for a machine, which need not be the one at hand.

use regard_ir::inputs::{Captured, InputData};
use regard_ir::interval::{Span, Unknown};
use regard_ir::machine::Machine;
use regard_ir::plan::{Plan, ScheduleOverview, SplitOverview};
use regard_ir::problem::{OwnedProblem, Problem};
use regard_ir::spec::Spec;
use regard_ir::variant::{Heads, Mechanism, Variant};
use regard_launch::Source;
use regard_planner::cost::{CachedCase, CachedPrediction, Case, Prediction, Sharing};
use regard_planner::{PlanReport, plan};
use regard_runtime::head::Head;
use regard_runtime::schedule::{OwnedSchedule, Share, Task, Work};
use regard_runtime::split;
use regard_runtime::summary::Summaries;

use crate::cache::{CacheError, CacheLimits, CacheSize};
use crate::error::{CompileError, ScheduleError};
use crate::kernel::Options;

/// A plan and its reasons: what can be known of a kernel without the processor that it is for.
#[derive(Clone, Debug)]
pub struct Planned {
    spec: Spec,
    plan: Plan,
    report: PlanReport,
    /// Where a kernel is to take its code from.
    source: Option<Source>,
}

/// A problem cut into tasks, not bound to a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Tasks {
    pub(crate) problem: OwnedProblem,
    /// The same in positions, of which a token may be several.
    pub(crate) positions: OwnedProblem,
    pub(crate) tasks: OwnedSchedule,
    /// Of latents, those of the sequences whose queries are brought to them.
    pub(crate) absorbed: OwnedSchedule,
    pub(crate) threads: usize,
}

/// In which form a variant is looked at, which differ where there are latents.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Tasks of all sequences; of latents, of those whose keys and values are made.
    Expanded,
    /// Of latents, tasks of the sequences whose queries are brought to them.
    Absorbed,
    /// A call on caches.
    Cached,
}

impl Planned {
    /// Plans `spec` for `machine`, with some choices taken.
    ///
    /// # Errors
    /// If it cannot be planned, or a choice cannot be had there.
    pub fn new(spec: &Spec, machine: &Machine, options: Options) -> Result<Self, CompileError> {
        let machine = match options.isa {
            None => *machine,
            Some(asked) => {
                machine.with_ceiling(asked).ok_or(CompileError::Ceiling { asked, machine: machine.isa })?
            }
        };
        let dtype = options.dtype.unwrap_or(spec.dtype);
        let (plan, report) = plan(spec, &machine, dtype, options.engine).map_err(CompileError::Plan)?;
        Ok(Self { spec: spec.clone(), plan, report, source: options.kernel })
    }

    /// The spec.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The variant as kernels and the oracle see it.
    pub fn variant(&self) -> Variant<'_> {
        self.spec.variant()
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Why the plan is as it is.
    pub fn report(&self) -> &PlanReport {
        &self.report
    }

    /// The same plan, for a kernel whose code comes from `source`.
    pub fn from_source(self, source: Source) -> Self {
        Self { source: Some(source), ..self }
    }

    pub(crate) fn source(&self) -> Option<Source> {
        self.source
    }

    /// Cuts a problem into tasks for `threads` workers.
    ///
    /// `captured` are the tensors that the spec declares, in that order. Without them a mask that reads them is taken to
    /// be able to do anything that their types allow.
    ///
    /// # Errors
    /// If a captured tensor does not fit its declaration, or there are more sequences than one call can hold.
    pub fn tasks(
        &self,
        problem: &Problem<'_>,
        captured: Option<&[InputData<'_>]>,
        threads: usize,
    ) -> Result<Tasks, ScheduleError> {
        let threads = threads.max(1);
        let cut = |form| {
            self.with_work(form, problem, captured, threads, |work| {
                OwnedSchedule::new(work).map_err(ScheduleError::Cut)
            })
        };
        let absorbed = match self.plan.latent {
            Some(_) => cut(Form::Absorbed)?,
            None => OwnedSchedule::empty(threads as u32),
        };
        let positions = self.positions(problem)?;
        Ok(Tasks { problem: problem.into(), positions, tasks: cut(Form::Expanded)?, absorbed, threads })
    }

    /// What a person wants to know of tasks: how many, live share, tiles, balance. Takes longer than to make them.
    ///
    /// # Errors
    /// As [`Planned::tasks`].
    pub fn overview(
        &self,
        tasks: &Tasks,
        captured: Option<&[InputData<'_>]>,
    ) -> Result<ScheduleOverview, ScheduleError> {
        let Tasks { problem, tasks, absorbed, threads, .. } = tasks;
        let of = |form, tasks: &OwnedSchedule| {
            self.with_work(form, &problem.view(), captured, *threads, |work| Ok(tasks.view().overview(work)))
        };
        // Where all sequences take one form, the other has nothing to tell.
        match (tasks.view().tasks.is_empty(), absorbed.view().tasks.is_empty()) {
            (true, false) => of(Form::Absorbed, absorbed),
            (_, true) => of(Form::Expanded, tasks),
            (false, false) => Ok(of(Form::Expanded, tasks)?.and(of(Form::Absorbed, absorbed)?)),
        }
    }

    /// The time that tasks will take on the machine that the plan is for, by its rates: measured ones where `regard calibrate`
    /// or a profile has them, else estimates. Takes as long as [`Planned::overview`], whose result it reads.
    ///
    /// # Errors
    /// As [`Planned::tasks`].
    pub fn predict(
        &self,
        tasks: &Tasks,
        captured: Option<&[InputData<'_>]>,
        overview: &ScheduleOverview,
    ) -> Result<Option<Prediction>, ScheduleError> {
        // What latents add, keys that are made and queries that are brought to them, has no rates yet.
        if self.plan.latent.is_some() {
            return Ok(None);
        }
        let Tasks { problem, tasks, threads, .. } = tasks;
        let block = self.plan.prefill.query_block;
        let passes = |task: &Task| u64::from((task.query_end - task.query_begin).div_ceil(block));
        let sharing = Sharing {
            threads: overview.threads,
            imbalance: overview.imbalance,
            passes: Some(tasks.view().tasks.iter().map(passes).sum()),
        };
        self.with_work(Form::Expanded, &problem.view(), captured, *threads, |work| {
            let Work { plan, variant, problem, inputs, .. } = *work;
            Ok(Case { plan, variant, machine: &self.report.machine, problem, inputs }.predict(&sharing))
        })
    }

    /// What a call on caches will do with `threads` workers: cells that are live, passes, what they read, balance. Sequences that
    /// share tokens in pages are taken to share none.
    ///
    /// `captured` as in [`Planned::tasks`].
    ///
    /// # Errors
    /// If a captured tensor does not fit its declaration.
    pub fn call(
        &self,
        problem: &Problem<'_>,
        captured: Option<&[InputData<'_>]>,
        threads: usize,
    ) -> Result<SplitOverview, ScheduleError> {
        let call =
            self.with_work(Form::Cached, problem, captured, threads, |work| Ok(split::overview(work)))?;
        let variant = self.variant();
        if variant.pseudo().is_none() || self.plan.cache.mixed {
            return Ok(call);
        }
        // What is read of several positions is the rows of one token, of all heads that they are mixed from.
        let read_bytes = call.read_bytes.saturating_mul(variant.heads.kv.into());
        Ok(SplitOverview { read_bytes: read_bytes / u64::from(variant.per_token().max(1)), ..call })
    }

    /// The time that a call on caches will take on the machine that the plan is for, as [`Planned::predict`] says that of tasks.
    pub fn predict_call(&self, call: &SplitOverview) -> Option<CachedPrediction> {
        let (variant, _) = match self.variant() {
            variant if variant.pseudo().is_some() => (variant, Share::All),
            _ => self.in_form(Form::Cached),
        };
        let (variant, machine) = (&variant, &self.report.machine);
        CachedCase { plan: &self.plan, variant, machine, call }.predict()
    }

    /// How large a cache with such limits is.
    ///
    /// # Errors
    /// If the limits ask for nothing, or for more than can be counted, or the spec's layout is none that a file has.
    pub fn cache_size(&self, limits: CacheLimits) -> Result<CacheSize, CacheError> {
        CacheSize::new(&self.spec, &self.plan, limits)
    }

    /// Calls `look` with key head `kv_head` of `sequence`, or with `None` where the problem has no such.
    ///
    /// `captured` as in [`Planned::tasks`].
    ///
    /// # Errors
    /// If a captured tensor does not fit its declaration.
    pub fn with_head<R>(
        &self,
        problem: &Problem<'_>,
        captured: Option<&[InputData<'_>]>,
        (sequence, kv_head): (u32, u32),
        look: impl FnOnce(Option<Head<'_>>) -> R,
    ) -> Result<R, ScheduleError> {
        self.with_work(Form::Expanded, problem, captured, 1, |work| {
            Ok(look(Head::new(work, sequence, kv_head)))
        })
    }

    /// A problem in positions: where heads are mixed into pseudo-heads, a token is as many.
    ///
    /// # Errors
    /// If a position leaves 32 bits.
    pub fn positions(&self, problem: &Problem<'_>) -> Result<OwnedProblem, ScheduleError> {
        OwnedProblem::spread(problem, self.variant().per_token()).map_err(ScheduleError::Positions)
    }

    /// The variant in a form, and which sequences take it.
    fn in_form(&self, form: Form) -> (Variant<'_>, Share) {
        let variant = self.variant();
        match (&variant.mechanism, form) {
            (Mechanism::Latent(latent), Form::Expanded) => (variant.expanded(latent), Share::Expanded),
            (Mechanism::Latent(latent), Form::Absorbed) => (variant.absorbed(latent), Share::Absorbed),
            (Mechanism::Latent(latent), Form::Cached) => (variant.absorbed(latent), Share::All),
            // All heads take one pass over what they are mixed from as it is read.
            (Mechanism::Pseudo(_), Form::Cached) if !self.plan.cache.mixed => {
                let heads = Heads { kv: 1, value: 1, ..variant.heads };
                (Variant { heads, mechanism: Mechanism::Plain, ..variant }, Share::All)
            }
            _ => (variant, Share::All),
        }
    }

    fn with_work<R>(
        &self,
        form: Form,
        problem: &Problem<'_>,
        captured: Option<&[InputData<'_>]>,
        threads: usize,
        f: impl FnOnce(&Work<'_>) -> Result<R, ScheduleError>,
    ) -> Result<R, ScheduleError> {
        let (variant, of) = self.in_form(form);
        let (variant, positions) = (variant.scored(), self.positions(problem)?);
        let problem = &positions.view();
        let plan = match (self.plan.latent, form) {
            (Some(latent), Form::Absorbed) => &Plan { prefill: latent.absorbed, ..self.plan },
            (None, Form::Cached) => &self.plan.in_positions(self.variant().per_token()),
            _ => &self.plan,
        };
        let threads = threads as u32;
        let Some(captured) = captured else {
            let inputs = &Unknown(variant.inputs);
            return f(&Work { plan, variant: &variant, problem, inputs, threads, of });
        };
        let Variant { inputs, heads, source, .. } = &variant;
        let captured =
            Captured::bind(inputs, captured, heads, *source, problem).map_err(ScheduleError::Captured)?;
        let mut spans = vec![Span::point(0); Summaries::len(variant.masks(), captured.lens())];
        let inputs = &Summaries::build(variant.masks(), captured, &mut spans);
        f(&Work { plan, variant: &variant, problem, inputs, threads, of })
    }
}

#[cfg(test)]
mod tests {
    use regard_ir::machine::Isa;
    use regard_ir::plan::Split;
    use regard_ir::problem::Phase;
    use regard_planner::Profile;

    use super::*;
    use crate::kernel::Kernel;
    use crate::machine;

    fn spec(text: &str) -> Spec {
        regard_spec::parse(text, "test.toml", &regard_spec::NoFiles).unwrap_or_else(|e| panic!("{e}")).spec
    }

    fn on_desktop(text: &str) -> Planned {
        let machine = Profile::built_in("desktop-avx2").expect("it ships").machine;
        Planned::new(&spec(text), &machine, Options::default()).expect("it plans")
    }

    fn planned(text: &str) -> Planned {
        let planned = on_desktop(text);
        let (split, page) = (planned.plan.decode, planned.plan.cache.tokens);
        assert_eq!((split.key_cell, split.key_chunk, page), (1024, 512, 64));
        planned
    }

    fn call(planned: &Planned, [batch, queries, keys]: [usize; 3], threads: usize) -> SplitOverview {
        planned
            .call(&problem(planned.spec(), [batch, queries, keys]), None, threads)
            .expect("nothing to bind")
    }

    fn problem(spec: &Spec, [batch, queries, keys]: [usize; 3]) -> Problem<'static> {
        let phase = if queries == 1 { Phase::Decode } else { Phase::Few };
        Problem { phase, ..Problem::prefill(spec.source, batch, queries, keys).expect("small") }
    }

    #[test]
    fn passes_of_a_call_are_counted() {
        let planned = planned("heads = { query = 8, kv = 2, dim = 64, value_dim = 32 }\nmask = 'causal'");
        let call = call(&planned, [3, 1, 2500], 2);
        assert_eq!((call.sequences, call.rows, call.chunks), (3, 4, 2));
        assert_eq!((call.live_cells, call.cells, call.passes), (9, 9, 18));
        assert_eq!((call.keys, call.pairs, call.masked_pairs), (15_000, 60_000, 0));
        assert_eq!(call.read_bytes, 15_000 * (64 + 32) * 4);
        // 1024 beside 1024, 452 and 1024 beside 1024 and 452: even after two heads.
        assert_eq!((call.threads, call.imbalance), (2, 0.0));
    }

    /// Pseudo-heads whose cache keeps what a form says.
    fn pseudo_heads(form: &str) -> Planned {
        on_desktop(&format!(
            "heads = {{ query = 8, kv = 2, dim = 64, value_dim = 32 }}\n\
             pseudo = {{ heads = 4, form = '{form}' }}\nmask = 'causal'"
        ))
    }

    #[test]
    fn each_head_takes_a_pass_over_rows_of_pseudo_heads() {
        let planned = pseudo_heads("expanded");
        let Split { key_cell, .. } = planned.plan().decode;
        let call = call(&planned, [3, 1, 2 * key_cell as usize + 100], 1);
        assert_eq!((call.live_cells, call.passes, call.rows), (9, 9 * 8, 4));
        let positions = 4 * 3 * (2 * u64::from(key_cell) + 100);
        assert_eq!((call.keys, call.pairs), (8 * positions, positions * 8 * 4));
        assert_eq!(call.read_bytes, positions * 8 * (64 + 32) * 4);
    }

    #[test]
    fn all_pseudo_heads_take_one_pass_over_what_they_are_mixed_from() {
        let planned = pseudo_heads("compact");
        let Split { key_cell, .. } = planned.plan().decode;
        let call = call(&planned, [3, 1, 2 * key_cell as usize + 100], 1);
        assert_eq!((call.live_cells, call.passes, call.rows), (9, 9, 8 * 4));
        let tokens = 3 * (2 * u64::from(key_cell) + 100);
        assert_eq!((call.keys, call.pairs), (4 * tokens, 4 * tokens * 8 * 4));
        assert_eq!(call.read_bytes, tokens * 2 * (64 + 32) * 4);
    }

    #[test]
    fn passes_go_in_order_to_whoever_is_free() {
        let planned = planned("heads = { query = 8, kv = 2, dim = 64 }\nmask = 'causal'");
        for threads in [1, 2, 3, 5, 8, 40] {
            for (batch, keys) in [(1, 700), (1, 5000), (3, 2500), (7, 1025)] {
                let mut loads = vec![0u64; threads];
                for _ in 0..2 * batch {
                    for begin in (0..keys).step_by(1024) {
                        let free = (0..threads).min_by_key(|&thread| loads[thread]).expect("a thread");
                        loads[free] += (keys - begin).min(1024) as u64;
                    }
                }
                let most = loads.iter().max().copied().unwrap_or(0) as f64;
                let expected = most * threads as f64 / (2 * batch * keys) as f64 - 1.0;
                let found = call(&planned, [batch, 1, keys], threads).imbalance;
                assert!((found - expected).abs() < 1e-9, "{batch}x{keys} by {threads}: {found}, {expected}");
            }
        }
        // More than are handed out one by one: less than a pass of each thread.
        let many = call(&planned, [1, 1, i32::MAX as usize], 1000);
        assert!(many.imbalance > 0.0 && many.imbalance < 1e-3, "{many:?}");
        assert_eq!((many.live_cells, many.keys), (1 << 21, 2 * i32::MAX as u64));
    }

    #[test]
    fn pages_that_no_query_sees_are_not_read() {
        // Queries at 4998 and 4999 see keys from 4899 on, which is in the page from 4864 on.
        let heads = "heads = { query = 8, kv = 2, dim = 64 }";
        let window = planned(&format!("{heads}\nmask = 'causal & window(100)'"));
        let seen = call(&window, [1, 2, 5000], 4);
        assert_eq!((seen.live_cells, seen.cells, seen.passes, seen.rows), (1, 5, 2, 8));
        assert_eq!((seen.keys, seen.masked_pairs), (2 * 136, 2 * 136 * 8));
        // A ring's gap makes no difference to what is seen.
        let ring = planned(&format!("{heads}\nmask = 'causal & window(100)'\ncache = 'ring'"));
        assert_eq!(call(&ring, [1, 2, 5000], 4), seen);
        // The second key head sees the last ten keys, which are in the page from 2944 on; it takes a pass over each cell.
        let heads = planned(&format!("{heads}\nmask = 'causal & (g == 0 | window(10))'"));
        let seen = call(&heads, [2, 1, 3000], 4);
        assert_eq!((seen.live_cells, seen.passes), (6, 12));
        assert_eq!((seen.keys, seen.masked_pairs), (2 * (3000 + 56), 2 * 56 * 4));
    }

    #[test]
    fn captured_tensors_say_what_is_live() {
        let planned = planned(
            "heads = { query = 8, kv = 2, dim = 64 }\ninputs = { doc = 'i32[b, k]' }\nmask = 'causal & same(doc)'",
        );
        let problem = problem(planned.spec(), [2, 1, 1000]);
        let unknown = planned.call(&problem, None, 2).expect("nothing to bind");
        assert_eq!((unknown.keys, unknown.masked_pairs), (2 * 2000, 2 * 2000 * 4));
        // The last document begins at 600 in the first sequence, in the page from 576 on; at 900 in the second, from 896 on.
        let doc: Vec<i32> = (0..2000).map(|at| i32::from(at % 1000 >= 600 + 300 * (at / 1000))).collect();
        let known = planned.call(&problem, Some(&[InputData::I32(&doc)]), 2).expect("it binds");
        assert_eq!((known.live_cells, known.keys), (2, 2 * (424 + 104)));
        let short = planned.call(&problem, Some(&[InputData::I32(&doc[1..])]), 2);
        assert!(matches!(short, Err(ScheduleError::Captured(_))), "{short:?}");
    }

    #[test]
    fn nothing_is_seen_of_nothing() {
        let planned = planned("heads = { query = 8, kv = 2, dim = 64 }\nmask = 'causal & q < 0'");
        for size in [[1, 1, 3000], [0, 1, 5], [3, 1, 0]] {
            let call = call(&planned, size, 3);
            assert_eq!((call.passes, call.keys, call.imbalance), (0, 0, 0.0), "{size:?}");
            assert!(planned.predict_call(&call).expect("in the catalog").seconds >= 0.0);
        }
    }

    #[test]
    fn more_to_do_is_never_predicted_to_take_less_time() {
        let specs = [
            "heads = { query = 8, kv = 2, dim = 128 }\nmask = 'causal'\ndtype = 'bf16'",
            "heads = { query = 4, kv = 4, dim = 64 }\nscore = { modify = 'softcap(s, 30.0)' }",
            "heads = { query = 4, dim = 64 }\nmask = 'causal & window(100)'\ncache = { dtype = 'int8', layout = 'ring' }",
            "heads = { query = 4, kv = 2, dim = 64 }\ninputs = { doc = 'i32[b, k]' }\nmask = 'same(doc)'\ncache = { dtype = 'int4' }",
            "heads = { query = 4, kv = 2, dim = 64 }\npseudo = { heads = 3, form = 'compact' }\ndtype = 'bf16'",
            "heads = { query = 4, kv = 2, dim = 64 }\npseudo = { heads = 3, form = 'expanded' }\ndtype = 'bf16'",
        ];
        // Where the busiest thread has as much to do, one of two equal times may be rounded down.
        let no_less = |more: f64, few: f64| more >= few * (1.0 - 1e-12);
        for name in ["server-avx512-bf16", "server-avx512-amx", "desktop-avx2", "cortex-a72", "cortex-m7"] {
            let machine = Profile::built_in(name).expect("it ships").machine;
            for text in specs {
                let planned = Planned::new(&spec(text), &machine, Options::default()).expect("it plans");
                for threads in [1, 3, 8, 64] {
                    let seconds = |size| {
                        let call = call(&planned, size, threads);
                        planned.predict_call(&call).expect("in the catalog").seconds
                    };
                    let lengths = [16, 17, 63, 64, 65, 500, 1024, 1025, 1500, 2049, 5000, 70_000, 1 << 20];
                    // A window of a longer sequence may lie in fewer pages.
                    let grows = |_: &&[usize]| planned.plan.reach.is_none();
                    for pair in lengths.windows(2).filter(grows) {
                        let (few, more) = (seconds([2, 1, pair[0]]), seconds([2, 1, pair[1]]));
                        assert!(
                            no_less(more, few),
                            "{pair:?} keys on {name} by {threads}, {text}: {few}, {more}"
                        );
                    }
                    for n in lengths {
                        let what = format!("{n} keys on {name} by {threads}, {text}");
                        let one = seconds([1, 1, n]);
                        assert!(one > 0.0 && one.is_finite(), "{what}");
                        let pairs = [
                            ([2, 1, n], [1, 1, n]),
                            ([5, 1, n], [4, 1, n]),
                            ([1, 2, n], [1, 1, n]),
                            ([1, 16, n], [1, 9, n]),
                        ];
                        for (more, few) in pairs {
                            let [longer, shorter] = [more, few].map(seconds);
                            assert!(no_less(longer, shorter), "{what}: {more:?} {longer}, {few:?} {shorter}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_cache_and_its_workspace_are_as_large_as_they_are_said_to_be() {
        let heads = "heads = { query = 6, kv = 2, dim = 40, value_dim = 24 }\nmask = 'causal & window(300)'";
        let scalar = Machine { isa: Isa::Scalar, ..machine::host() };
        for layout in ["contiguous", "paged", "ring"] {
            for codec in ["same", "int8", "int4"] {
                let spec = spec(&format!(
                    "{heads}\ncache = {{ layout = '{layout}', dtype = '{codec}', page = 32 }}"
                ));
                let kernel = Kernel::compile(&spec, &scalar).expect("every processor has it");
                for (sequences, tokens, queries, threads) in [(1, 1, 1, 1), (3, 2500, 4, 2), (7, 90, 16, 5)] {
                    let what = format!("{layout} {codec} {sequences}x{queries}x{tokens} by {threads}");
                    let limits = CacheLimits { at_once: queries, ..CacheLimits::new(sequences, tokens) };
                    let size = kernel.planned().cache_size(limits).expect("small");
                    let cache = kernel.cache(limits).expect("small");
                    assert_eq!(size.bytes, cache.bytes(), "{what}");
                    assert!(size.held_tokens >= tokens.min(300), "{what}");
                    let step = kernel.step(&cache, queries, threads).expect("small");
                    let problem = problem(&spec, [sequences, queries, tokens]);
                    let bytes = kernel.step_bytes(&problem, &size, threads).expect("it is here");
                    assert_eq!(bytes, step.workspace_bytes(), "{what}");
                }
            }
        }
    }
}
