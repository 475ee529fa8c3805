//! Who does what: a problem cut into tasks of about equal live area.
//!
//! A task is some query rows of one key head of one sequence. Tasks partition all rows, also rows that attend to
//! nothing, because their outputs are written too. Where there are many query blocks for each thread, tasks are whole
//! blocks; where there are few, whole vectors of rows, so that the threads end together though some blocks are cut in
//! two and their keys packed twice. No row's result depends on the rows beside it, so the schedule never shows in one.
//!
//! The cut needs to know where the work is, not what it is: the live area is taken over at most [`MAX_GRAINS`] strips
//! of queries by recursive halving and interpolated between them. A mask that does not read the heads or the sequence
//! is looked at once for all of them. Nothing here allocates, and a million queries by a million keys are cut in a
//! fraction of a millisecond.

use core::cmp::Reverse;
use core::fmt;

pub use regard_engine::grid::{MAX_TASKS, Task};
use regard_ir::expr::Var;
use regard_ir::interval::{InputRanges, Region, Span};
use regard_ir::plan::Plan;
use regard_ir::problem::Problem;
use regard_ir::tiles::{self, Tiles};
use regard_ir::variant::{Mechanism, Variant};

use crate::latent;

/// The most strips of queries whose live area is taken apart from each other.
pub const MAX_GRAINS: usize = 256;

/// Strips over all profiles of a call, where each head or sequence has a profile of its own.
const GRAIN_BUDGET: u64 = 1024;

/// Boxes that [`Work::count_tiles`] looks at before it counts the rest as partial: a fraction of a second.
pub(crate) const MAX_LOOKS: u64 = 1 << 21;

/// Query blocks for each thread that are so many that whole ones even out.
const AMPLE_BLOCKS: u64 = 8;

/// What a query row costs beside its keys, in pairs: packing its query, writing its output.
const ROW_PAIRS: u64 = 32;

/// Heads that so many threads work on: one each, and one that the first to end goes on with.
pub(crate) const fn heads_at_once(threads: usize) -> usize {
    if threads > 1 { threads.saturating_add(1) } else { 1 }
}

/// The number of a task's head among those of all sequences.
pub(crate) const fn head_number(task: &Task, kv_heads: u32) -> u32 {
    task.sequence.saturating_mul(kv_heads).saturating_add(task.kv_head)
}

/// Whether tasks keep the few packed blocks that their passes see. Virtual tokens are many: no head's are all in memory then.
pub(crate) fn keep_their_own(variant: &Variant<'_>, plan: &Plan) -> bool {
    variant.pseudo().is_some() && plan.kept_blocks().is_some()
}

/// Whole heads are so few that some threads may wait for others.
pub(crate) const fn are_few(heads: usize, threads: usize) -> bool {
    heads < threads.saturating_mul(2) && threads > 1
}

/// Whether few whole heads would keep threads waiting, so that these share their keys out.
pub(crate) const fn keep_waiting(heads: usize, threads: usize) -> bool {
    are_few(heads, threads) && !heads.is_multiple_of(threads)
}

/// A problem cut into tasks, in borrowed memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule<'a> {
    /// All tasks, by sequence, key head and query; each begins where the one before it ends.
    pub tasks: &'a [Task],
    /// Indices of the tasks, in the order in which they are given out: head by head, of each those with most live pairs first.
    pub order: &'a [u32],
    /// The number of threads that it was cut for.
    pub threads: u32,
}

/// What is to be cut.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The variant that it was made for.
    pub variant: &'a Variant<'a>,
    /// The sizes.
    pub problem: &'a Problem<'a>,
    /// What is known of the captured inputs.
    pub inputs: &'a dyn InputRanges,
    /// Threads that will share the tasks; 0 counts as 1.
    pub threads: u32,
    /// Which sequences it is of.
    pub of: Share,
}

/// Some sequences of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All.
    All,
    /// Those whose keys and values are made of latents.
    Expanded,
    /// Those whose queries are brought to latents.
    Absorbed,
}

/// A problem that cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleError {
    /// More sequences times key heads than tasks can be.
    TooManyHeads {
        /// Sequences.
        batch: u32,
        /// Key heads.
        kv_heads: u32,
    },
    /// Memory for fewer tasks than the cut may need.
    Memory {
        /// What [`Work::max_tasks`] says.
        needed: usize,
        /// The shorter of the slices.
        found: usize,
    },
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScheduleError::TooManyHeads { batch, kv_heads } => write!(
                f,
                "{batch} sequences of {kv_heads} key heads need a task each, and a schedule has at most {MAX_TASKS}: \
                 at most {} sequences fit one call",
                MAX_TASKS / (*kv_heads).max(1)
            ),
            ScheduleError::Memory { needed, found } => {
                write!(f, "the schedule may have {needed} tasks, there is memory for {found}")
            }
        }
    }
}

impl core::error::Error for ScheduleError {}

impl Schedule<'static> {
    /// One without tasks.
    pub const EMPTY: Self = Self { tasks: &[], order: &[], threads: 1 };
}

impl Work<'_> {
    /// The most tasks that [`Work::cut`] makes of it.
    ///
    /// # Errors
    /// If a task for each key head of each sequence is more than [`MAX_TASKS`].
    pub fn max_tasks(&self) -> Result<usize, ScheduleError> {
        if self.has_states() {
            return Ok(self.head_runs()? as usize);
        }
        let per_head = self.problem.queries.div_ceil(self.unit()) as u64;
        if per_head == 0 {
            return Ok(0);
        }
        let heads = self.head_runs()?;
        Ok((heads + self.wanted(heads)).min(heads * per_head) as usize)
    }

    /// Cuts the problem into tasks and orders them.
    ///
    /// The slices hold at least [`Work::max_tasks`] entries.
    ///
    /// # Errors
    /// As `max_tasks`, and if a slice is shorter.
    pub fn cut<'m>(
        &self,
        tasks: &'m mut [Task],
        order: &'m mut [u32],
    ) -> Result<Schedule<'m>, ScheduleError> {
        let needed = self.max_tasks()?;
        let found = tasks.len().min(order.len());
        if found < needed {
            return Err(ScheduleError::Memory { needed, found });
        }
        let n = match needed {
            0 => 0,
            _ if self.has_states() => self.name_heads(tasks),
            _ => self.cut_heads(tasks)?,
        };
        let (tasks, order) = (&tasks[..n], &mut order[..n]);
        for (i, place) in order.iter_mut().enumerate() {
            *place = i as u32;
        }
        order.sort_unstable_by_key(|&i| (self.turn(&tasks[i as usize]), Reverse(tasks[i as usize].live), i));
        Ok(Schedule { tasks, order, threads: self.threads.max(1) })
    }

    /// When a task's head has its turn. Heads are worked on one after the other, so that caches hold what their tasks read; those
    /// that come last together, so that these end together. Where each head is one task, or tasks share nothing, all are.
    fn turn(&self, task: &Task) -> u64 {
        let is_one_task =
            matches!(self.variant.mechanism, Mechanism::Recurrence(_) | Mechanism::Lookahead(_));
        if is_one_task || keep_their_own(self.variant, self.plan) {
            return 0;
        }
        let kv_heads = u64::from(self.variant.heads.kv);
        let last = heads_at_once(self.threads as usize) as u64;
        let before_last = (u64::from(self.problem.batch) * kv_heads).saturating_sub(last);
        u64::from(head_number(task, self.variant.heads.kv)).min(before_last)
    }

    /// How many tiles of the plan's query block by its key block the mask makes dead, full and partial, over all key
    /// heads. For people: this looks at the boundary of what is live tile by tile.
    pub fn count_tiles(&self) -> Tiles {
        let blocks = self.plan.prefill;
        let mut sum = Tiles::default();
        if self.problem.queries == 0 {
            return sum;
        }
        let mut looks = MAX_LOOKS;
        self.for_each_profile(|sequence, kv_head, heads| {
            let region = self.region(sequence, kv_head, self.problem.sequence(sequence).query_span());
            let tile = (blocks.query_block, blocks.key_block);
            let one = tiles::count(self.variant.allow, &region, tile, self.inputs, &mut looks);
            sum.dead = sum.dead.saturating_add(one.dead.saturating_mul(heads));
            sum.full = sum.full.saturating_add(one.full.saturating_mul(heads));
            sum.partial = sum.partial.saturating_add(one.partial.saturating_mul(heads));
        });
        sum
    }

    /// Whether heads have states, which are handed from one token to the next: each is a task, also one without queries, whose
    /// keys still leave a state.
    const fn has_states(&self) -> bool {
        matches!(self.variant.mechanism, Mechanism::Recurrence(_))
    }

    /// A task for each head, of all its queries. Its time goes by its tokens.
    fn name_heads(&self, tasks: &mut [Task]) -> usize {
        let heads = (0..self.problem.batch).flat_map(|b| (0..self.variant.heads.kv).map(move |g| (b, g)));
        let mut n = 0;
        for (task, (sequence, kv_head)) in tasks.iter_mut().zip(heads) {
            let of = self.problem.sequence(sequence);
            let live = of.queries.max(of.keys).into();
            *task = Task { sequence, kv_head, query_begin: 0, query_end: of.queries, live };
            n += 1;
        }
        n
    }

    /// Queries of a sequence, if it is one of them.
    fn queries(&self, sequence: u32) -> u32 {
        let is_of = |expanded| latent::expands(self.variant, self.plan, self.problem, sequence) == expanded;
        match self.of {
            Share::Expanded if !is_of(true) => 0,
            Share::Absorbed if !is_of(false) => 0,
            _ => self.problem.sequence(sequence).queries,
        }
    }

    fn cut_heads(&self, tasks: &mut [Task]) -> Result<usize, ScheduleError> {
        let (mut profile, unit) = (Profile::EMPTY, self.unit());
        let mut total = 0u128;
        self.for_each_profile(|sequence, kv_head, heads| {
            self.fill(&mut profile, unit, sequence, kv_head);
            total += profile.cost() as u128 * heads as u128;
        });
        let wanted = self.wanted(self.head_runs()?) as u128;
        let (by_sequence, by_head) = self.profile_reads();
        let (mut n, mut before) = (0, 0u128);
        for sequence in 0..self.problem.batch {
            let queries = self.queries(sequence);
            if queries == 0 {
                continue;
            }
            for kv_head in 0..self.variant.heads.kv {
                // Where all share one profile, it is still the one that the total was made of.
                if by_head || by_sequence && kv_head == 0 {
                    self.fill(&mut profile, unit, sequence, kv_head);
                }
                // Rounded over all heads together, so that there are no more pieces than wanted.
                let pieces_before = |cost: u128| cost * wanted / total.max(1);
                let after = before + profile.cost() as u128;
                let share = pieces_before(after) - pieces_before(before);
                before = after;
                let pieces = (share as u64).clamp(1, profile.units as u64) as u32;
                for task in profile.pieces(pieces, queries) {
                    tasks[n] = Task { sequence, kv_head, ..task };
                    n += 1;
                }
            }
        }
        Ok(n)
    }

    /// Query blocks of all key heads of all sequences.
    fn blocks(&self) -> u64 {
        let of = |b| self.queries(b).div_ceil(self.plan.prefill.query_block) as u64;
        let (batch, kv) = (self.problem.batch, self.variant.heads.kv as u64);
        match self.problem.packed {
            None if batch > 0 && self.of == Share::All => of(0) * batch as u64 * kv,
            _ => (0..batch).map(of).sum::<u64>() * kv,
        }
    }

    /// Whether tasks of whole query blocks can be even.
    fn is_ample(&self) -> bool {
        self.threads <= 1 || self.blocks() >= AMPLE_BLOCKS * self.threads as u64
    }

    /// Positions that a head is cut at multiples of: a query block, or the fewest that fill vectors. Lookahead keys learn from
    /// one block after the other, so a head of them is not cut.
    fn unit(&self) -> u32 {
        if let Mechanism::Lookahead(_) = self.variant.mechanism {
            return self.problem.queries.max(1);
        }
        let (block, group) = (self.plan.prefill.query_block, self.variant.heads.group());
        let lanes = self.plan.isa.f32_lanes();
        if self.is_ample() { block } else { lanes.div_ceil(group).min(block) }
    }

    /// Key heads over all sequences, each of which is a task at least.
    fn head_runs(&self) -> Result<u64, ScheduleError> {
        let (batch, kv_heads) = (self.problem.batch, self.variant.heads.kv);
        let heads = batch as u64 * kv_heads as u64;
        if heads > MAX_TASKS as u64 {
            Err(ScheduleError::TooManyHeads { batch, kv_heads })
        } else {
            Ok(heads)
        }
    }

    /// Pieces to aim for; each head is one at least, and all fit [`MAX_TASKS`].
    fn wanted(&self, heads: u64) -> u64 {
        let threads = self.threads.max(1) as u64;
        let most = self.plan.tasks_per_thread.max(1) as u64;
        // Two at least, so that a long one can go with a short one.
        let few = || self.blocks().div_ceil(threads).max(2).min(most);
        let per_thread = if self.is_ample() { most } else { few() };
        (threads * per_thread).min(MAX_TASKS as u64 - heads)
    }

    /// Whether what is live differs between sequences, and between heads.
    fn profile_reads(&self) -> (bool, bool) {
        let allow = self.variant.allow;
        let apart = self.problem.packed.is_some() || self.of != Share::All;
        (allow.reads(Var::B) || apart, allow.reads(Var::H) || allow.reads(Var::G))
    }

    /// Calls `f` with the first sequence and key head of each profile, and how many heads share it in a row.
    fn for_each_profile(&self, mut f: impl FnMut(u32, u32, u64)) {
        let (batch, kv) = (self.problem.batch, self.variant.heads.kv);
        let is_of = |b: &u32| self.of == Share::All || self.queries(*b) > 0;
        match self.profile_reads() {
            (_, true) => (0..batch).filter(is_of).for_each(|b| (0..kv).for_each(|g| f(b, g, 1))),
            (true, false) => (0..batch).filter(is_of).for_each(|b| f(b, 0, kv as u64)),
            (false, false) if batch > 0 => f(0, 0, batch as u64 * kv as u64),
            (false, false) => {}
        }
    }

    /// What the rows at positions `q` of one key head cover, over all keys.
    pub(crate) fn region(&self, sequence: u32, kv_head: u32, q: Span) -> Region {
        Region { q, ..self.problem.sequence(sequence).region(sequence, &self.variant.heads, kv_head) }
    }

    /// Live pairs of one query head of a key head, as estimated by its query blocks, for people.
    pub(crate) fn live_pairs(&self, sequence: u32, kv_head: u32) -> u64 {
        let mut profile = Profile::EMPTY;
        if self.problem.queries > 0 {
            self.fill(&mut profile, self.plan.prefill.query_block, sequence, kv_head);
        }
        profile.live[profile.grains()]
    }

    /// Takes the live area of each strip of queries of one key head, which is cut at multiples of `unit`.
    fn fill(&self, profile: &mut Profile, unit: u32, sequence: u32, kv_head: u32) {
        let profiles = match self.profile_reads() {
            (_, true) => self.problem.batch as u64 * self.variant.heads.kv as u64,
            (true, false) => self.problem.batch as u64,
            (false, false) => 1,
        };
        let grains = (GRAIN_BUDGET / profiles.max(1)).clamp(4, MAX_GRAINS as u64) as u32;
        let of = self.problem.sequence(sequence);
        let units = of.queries.div_ceil(unit);
        let grain_units = units.div_ceil(grains).max(1);
        *profile = Profile { units, unit, grain_units, ..Profile::EMPTY };
        let queries = of.query_span();
        let grain_rows = grain_units as u64 * unit as u64;
        // At most 8 × 8 boxes of a strip are told apart, however long it is.
        let side = (grain_rows.min(queries.len()) * of.held.len() as u64).isqrt() / 8;
        let floor = (side as u32).max(self.plan.prefill.mask_step);
        for grain in 0..profile.grains() {
            let lo = queries.lo as i64 + (grain as u64 * grain_rows) as i64;
            let hi = (lo + grain_rows as i64 - 1).min(queries.hi as i64);
            let rows = Span { lo: lo as i32, hi: hi as i32 };
            let area = tiles::live_area(
                self.variant.allow,
                &self.region(sequence, kv_head, rows),
                floor,
                self.inputs,
            );
            profile.live[grain + 1] = profile.live[grain] + area.live();
            profile.rows[grain + 1] = profile.rows[grain] + rows.len();
        }
    }
}

/// The live area of one key head, summed from the first query, by strips.
struct Profile {
    units: u32,
    unit: u32,
    grain_units: u32,
    live: [u64; MAX_GRAINS + 1],
    rows: [u64; MAX_GRAINS + 1],
}

impl Profile {
    const EMPTY: Profile =
        Profile { units: 0, unit: 1, grain_units: 1, live: [0; MAX_GRAINS + 1], rows: [0; MAX_GRAINS + 1] };

    fn grains(&self) -> usize {
        self.units.div_ceil(self.grain_units) as usize
    }

    fn cost_before(&self, grain: usize) -> u64 {
        self.live[grain] + ROW_PAIRS * self.rows[grain]
    }

    fn cost(&self) -> u64 {
        self.cost_before(self.grains())
    }

    /// Cuts the head into `n` runs of units of about equal cost, none of them empty.
    fn pieces(&self, n: u32, queries: u32) -> impl Iterator<Item = Task> {
        let mut begin = 0;
        let mut grain = 0;
        (1..=n).map(move |i| {
            let target = (self.cost() as u128 * i as u128 / n as u128) as u64;
            while grain + 1 < self.grains() && self.cost_before(grain + 1) <= target {
                grain += 1;
            }
            let (least, most) = (begin + 1, self.units - (n - i));
            let end = if i == n { self.units } else { self.unit_at(grain, target).clamp(least, most) };
            let row = |unit: u32| (unit as u64 * self.unit as u64).min(queries as u64) as u32;
            let live = self.live_before(end) - self.live_before(begin);
            let task = Task { query_begin: row(begin), query_end: row(end), live, ..Task::default() };
            begin = end;
            task
        })
    }

    /// The boundary of units nearest to where the cost reaches `target`, which it does in `grain`.
    fn unit_at(&self, grain: usize, target: u64) -> u32 {
        let (before, after) = (self.cost_before(grain), self.cost_before(grain + 1));
        let inside = target.saturating_sub(before) as u128 * 2 * self.grain_units as u128;
        let units = (inside / (after - before).max(1) as u128).div_ceil(2) as u32;
        (grain as u32 * self.grain_units).saturating_add(units).min(self.units)
    }

    /// Live pairs before a unit, interpolated inside its strip.
    fn live_before(&self, unit: u32) -> u64 {
        let grain = (unit / self.grain_units) as usize;
        let inside = (unit % self.grain_units) as u128;
        if inside == 0 || grain >= self.grains() {
            return self.live[grain.min(self.grains())];
        }
        let units = (self.units - grain as u32 * self.grain_units).min(self.grain_units) as u128;
        let step = (self.live[grain + 1] - self.live[grain]) as u128;
        self.live[grain] + (step * inside / units) as u64
    }
}

#[cfg(feature = "alloc")]
pub use owned::OwnedSchedule;

#[cfg(feature = "alloc")]
mod owned {
    use alloc::collections::BinaryHeap;
    use alloc::vec;
    use alloc::vec::Vec;

    use regard_ir::plan::{RecurrenceShares, ScheduleOverview};

    use super::{Mechanism, Reverse, Schedule, ScheduleError, Task, Work, keep_waiting};
    use crate::recurrent::Share;

    /// A schedule that owns its memory.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OwnedSchedule {
        tasks: Vec<Task>,
        order: Vec<u32>,
        threads: u32,
    }

    impl OwnedSchedule {
        /// Cuts `work` into memory of its own.
        ///
        /// # Errors
        /// As [`Work::max_tasks`].
        pub fn new(work: &Work<'_>) -> Result<Self, ScheduleError> {
            let n = work.max_tasks()?;
            let (mut tasks, mut order) = (vec![Task::default(); n], vec![0; n]);
            let Schedule { tasks: cut, threads, .. } = work.cut(&mut tasks, &mut order)?;
            let n = cut.len();
            tasks.truncate(n);
            order.truncate(n);
            Ok(Self { tasks, order, threads })
        }

        /// One without tasks.
        pub const fn empty(threads: u32) -> Self {
            Self { tasks: Vec::new(), order: Vec::new(), threads }
        }

        /// The view that a run takes.
        pub fn view(&self) -> Schedule<'_> {
            Schedule { tasks: &self.tasks, order: &self.order, threads: self.threads }
        }
    }

    impl Schedule<'_> {
        /// What a person wants to know of it, for the work that it was cut from.
        pub fn overview(&self, work: &Work<'_>) -> ScheduleOverview {
            let heads = &work.variant.heads;
            let mut live = 0u128;
            work.for_each_profile(|sequence, kv_head, heads| {
                live += work.live_pairs(sequence, kv_head) as u128 * heads as u128;
            });
            let pairs = work.problem.head_pairs() as f64 * heads.kv as f64;
            ScheduleOverview {
                tasks: self.tasks.len() as u32,
                threads: self.threads,
                live_share: if pairs > 0.0 { live as f64 / pairs } else { 0.0 },
                tiles: work.count_tiles(),
                imbalance: self.imbalance(work),
                recurrence: self.shares(work),
            }
        }

        /// How a recurrence is shared out.
        fn shares(&self, work: &Work<'_>) -> Option<RecurrenceShares> {
            let recurrence = work.variant.recurrence()?;
            let Work { variant, plan, problem, .. } = work;
            Some(Share::new((variant, &recurrence), plan, problem, self.threads as usize).overview(plan))
        }

        /// How much longer the busiest thread works than the average, as a fraction, if each thread takes the next
        /// task of the order when it has done its last and time goes by live pairs.
        ///
        /// Where whole heads are shared out, threads take cells of their keys instead, whose pairs are taken to be those of a
        /// causal mask; of recurrences equal parts of their heads and channels.
        fn imbalance(&self, work: &Work<'_>) -> f64 {
            let [.., keys] = work.problem.extents();
            let (pieces, are_equal) = match &work.variant.mechanism {
                Mechanism::Lookahead(_) if keep_waiting(self.tasks.len(), self.threads as usize) => {
                    (u128::from(keys.div_ceil(work.plan.prefill.key_cell.max(1))).max(1), false)
                }
                Mechanism::Recurrence(_) => match self.shares(work) {
                    Some(RecurrenceShares { parts, wave, .. }) => {
                        (u128::from(parts / (self.tasks.len() as u32).max(1) * wave.max(1)), true)
                    }
                    None => (1, true),
                },
                _ => (1, true),
            };
            let threads = (self.threads as usize).min(self.tasks.len().saturating_mul(pieces as usize));
            let mut loads: BinaryHeap<Reverse<u128>> = vec![Reverse(0); threads].into();
            for (&i, piece) in self.order.iter().flat_map(|i| (0..pieces).map(move |piece| (i, piece))) {
                let share = if are_equal { pieces } else { 2 * (pieces - piece) - 1 };
                if let Some(mut least) = loads.peek_mut() {
                    least.0 += self.tasks[i as usize].live as u128 * share / (pieces * pieces);
                }
            }
            let total: u128 = loads.iter().map(|load| load.0).sum();
            let most = loads.iter().map(|load| load.0).max().unwrap_or(0);
            if total == 0 { 0.0 } else { most as f64 * self.threads as f64 / total as f64 - 1.0 }
        }
    }
}
