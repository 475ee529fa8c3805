//! Schedules: every row once and in order, cuts at query blocks, live area first, threads even, fast and small.
#![cfg(feature = "alloc")]

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use regard_ir::cache::{Codec, PageFormat};
use regard_ir::expr::{Binary, Node, Op, Tree, Type, Var};
use regard_ir::identity::Identity;
use regard_ir::interval::Unknown;
use regard_ir::machine::Isa;
use regard_ir::plan::{Blocks, Dtype, EngineKind, Pieces, Plan, Split};
use regard_ir::problem::Problem;
use regard_ir::variant::{Heads, Mechanism, Sink, Source, Variant, Weights};
use regard_runtime::schedule::{MAX_TASKS, OwnedSchedule, Schedule, ScheduleError, Share, Task, Work};

const fn node(op: Op, ty: Type) -> Node {
    Node { op, ty, exact: true }
}

const SCORE: &[Node] = &[Node { op: Op::Var(Var::S), ty: Type::Float, exact: false }];
const ALL: &[Node] = &[node(Op::Bool(true), Type::Bool)];
const NONE: &[Node] = &[node(Op::Bool(false), Type::Bool)];
const CAUSAL: &[Node] = &[
    node(Op::Var(Var::K), Type::Int),
    node(Op::Var(Var::Q), Type::Int),
    node(Op::Binary(Binary::Le, 0, 1), Type::Bool),
];
/// `k <= q & q - k < 524`.
const WINDOW: &[Node] = &[
    node(Op::Var(Var::K), Type::Int),
    node(Op::Var(Var::Q), Type::Int),
    node(Op::Binary(Binary::Le, 0, 1), Type::Bool),
    node(Op::Binary(Binary::Sub, 1, 0), Type::Int),
    node(Op::Int(524), Type::Int),
    node(Op::Binary(Binary::Lt, 3, 4), Type::Bool),
    node(Op::Binary(Binary::And, 2, 5), Type::Bool),
];
/// `(q - k) % 2 == 0`: partial in every tile.
const STRIDED: &[Node] = &[
    node(Op::Var(Var::K), Type::Int),
    node(Op::Var(Var::Q), Type::Int),
    node(Op::Binary(Binary::Sub, 1, 0), Type::Int),
    node(Op::Int(2), Type::Int),
    node(Op::Binary(Binary::Rem, 2, 3), Type::Int),
    node(Op::Int(0), Type::Int),
    node(Op::Binary(Binary::Eq, 4, 5), Type::Bool),
];
/// `k < g * 100`: another profile for each key head; nothing is live in the first.
const BY_HEAD: &[Node] = &[
    node(Op::Var(Var::K), Type::Int),
    node(Op::Var(Var::G), Type::Int),
    node(Op::Int(100), Type::Int),
    node(Op::Binary(Binary::Mul, 1, 2), Type::Int),
    node(Op::Binary(Binary::Lt, 0, 3), Type::Bool),
];
/// `k < b * 100`: another for each sequence.
const BY_SEQUENCE: &[Node] = &[
    node(Op::Var(Var::K), Type::Int),
    node(Op::Var(Var::B), Type::Int),
    node(Op::Int(100), Type::Int),
    node(Op::Binary(Binary::Mul, 1, 2), Type::Int),
    node(Op::Binary(Binary::Lt, 0, 3), Type::Bool),
];

fn variant(allow: &'static [Node], query: u32, kv: u32) -> Variant<'static> {
    Variant {
        identity: Identity(0),
        heads: Heads { query, kv, value: kv, dim: 128, value_dim: 128 },
        source: Source::SelfAttention,
        scale: 1.0,
        modify: Tree::new(SCORE),
        allow: Tree::new(allow),
        weights: Weights::Softmax { sink: Sink::None },
        mechanism: Mechanism::Plain,
        position: None,
        qk_norm: None,
        output: regard_ir::rows::Output::default(),
        inputs: &[],
    }
}

fn plan(query_block: u32) -> Plan {
    Plan {
        identity: Identity(0),
        isa: Isa::Avx2,
        engine: EngineKind::SimdF32,
        dtype: Dtype::F32,
        pieces: Pieces::WHOLE,
        prefill: Blocks { query_block, key_block: 128, key_cell: 1024, mask_step: 8, channel_chain: 64 },
        decode: Split { key_cell: 32, key_chunk: 16, stack_rows: 0 },
        latent: None,
        recurrence: None,
        cache: PageFormat { tokens: 16, k: Codec::F32, v: Codec::F32, mixed: false },
        reach: None,
        pack_ahead_bytes: 0,
        tasks_per_thread: 32,
    }
}

struct Case {
    plan: Plan,
    variant: Variant<'static>,
    problem: Problem<'static>,
    threads: u32,
}

impl Case {
    fn new(
        allow: &'static [Node],
        heads: (u32, u32),
        sizes: (usize, usize, usize),
        block: u32,
        threads: u32,
    ) -> Self {
        let (batch, queries, keys) = sizes;
        let problem = Problem::prefill(Source::SelfAttention, batch, queries, keys).expect("small");
        Self { plan: plan(block), variant: variant(allow, heads.0, heads.1), problem, threads }
    }

    fn work(&self) -> Work<'_> {
        let Case { plan, variant, problem, threads } = self;
        Work { plan, variant, problem, inputs: &Unknown(&[]), threads: *threads, of: Share::All }
    }
}

/// Every row once, in natural order, cut at blocks where there are many for each thread and else at vectors of rows; the
/// order is a permutation: head by head, the last ones together, each time by live pairs.
fn check(case: &Case, schedule: Schedule<'_>) {
    let (mut at, block, queries) = ((0, 0, 0), case.plan.prefill.query_block, case.problem.queries);
    let blocks = (queries.div_ceil(block) * case.problem.batch * case.variant.heads.kv) as u64;
    let vector = 8u32.div_ceil(case.variant.heads.group()).min(block);
    let unit = if case.threads <= 1 || blocks >= 8 * case.threads as u64 { block } else { vector };
    for task in schedule.tasks {
        assert_eq!((task.sequence, task.kv_head, task.query_begin), at);
        assert!(task.query_begin < task.query_end && task.query_end <= queries, "{task:?}");
        assert!(task.query_end % unit == 0 || task.query_end == queries, "{task:?}");
        at.2 = task.query_end;
        if at.2 == queries {
            at = (at.0, at.1 + 1, 0);
            if at.1 == case.variant.heads.kv {
                at = (at.0 + 1, 0, 0);
            }
        }
    }
    let end = if queries == 0 { (0, 0, 0) } else { (case.problem.batch, 0, 0) };
    assert_eq!(at, end, "all rows are covered");
    let kv = case.variant.heads.kv;
    let together = if case.threads > 1 { case.threads.saturating_add(1) } else { 1 };
    let turns = schedule.order.iter().map(|&i| {
        let Task { sequence, kv_head, live, .. } = schedule.tasks[i as usize];
        let head = sequence * kv + kv_head;
        (head.min((case.problem.batch * kv).saturating_sub(together)), Reverse(live))
    });
    assert!(turns.is_sorted());
    let mut order = schedule.order.to_vec();
    order.sort_unstable();
    assert!(order.iter().copied().eq(0..schedule.tasks.len() as u32));
    assert!(schedule.tasks.len() <= case.work().max_tasks().expect("it was cut"));
}

#[test]
fn rows_are_partitioned_whatever_the_sizes() {
    for allow in [ALL, NONE, CAUSAL, WINDOW, STRIDED, BY_HEAD, BY_SEQUENCE] {
        for queries in [0, 1, 15, 16, 17, 1000, 5000] {
            for (keys, batch) in [(0, 1), (1, 3), (1000, 1), (5000, 2)] {
                for threads in [0, 1, 2, 7, 64] {
                    let case = Case::new(allow, (4, 2), (batch, queries, keys), 16, threads);
                    check(&case, OwnedSchedule::new(&case.work()).expect("few heads").view());
                }
            }
        }
    }
}

#[test]
fn the_number_of_tasks_is_bounded() {
    let case = Case::new(CAUSAL, (4, 4), (1, 1 << 22, 16), 1, u32::MAX);
    let schedule = OwnedSchedule::new(&case.work()).expect("few heads");
    assert!(schedule.view().tasks.len() <= MAX_TASKS as usize);
    check(&case, schedule.view());
    let case = Case::new(CAUSAL, (4, 4), (1 << 14, 1, 1), 1, 2);
    assert_eq!(OwnedSchedule::new(&case.work()).expect("as many as fit").view().tasks.len(), 1 << 16);
    let case = Case::new(CAUSAL, (4, 4), (1 << 15, 1, 1), 1, 2);
    let error = OwnedSchedule::new(&case.work()).expect_err("one head too many");
    assert_eq!(error, ScheduleError::TooManyHeads { batch: 1 << 15, kv_heads: 4 });
    assert!(error.to_string().ends_with("at most 16384 sequences fit one call"), "{error}");
}

#[test]
fn short_memory_is_an_error() {
    let case = Case::new(CAUSAL, (4, 4), (1, 1000, 1000), 16, 2);
    let needed = case.work().max_tasks().expect("few heads");
    let (mut tasks, mut order) = (vec![Task::default(); needed], vec![0; needed - 1]);
    let error = case.work().cut(&mut tasks, &mut order).expect_err("one too few");
    assert_eq!(error, ScheduleError::Memory { needed, found: needed - 1 });
}

#[test]
fn estimates_follow_the_live_area() {
    let case = Case::new(CAUSAL, (1, 1), (1, 4096, 4096), 16, 2);
    let schedule = OwnedSchedule::new(&case.work()).expect("few heads");
    for task in schedule.view().tasks {
        let exact: u64 = (task.query_begin..task.query_end).map(|q| q as u64 + 1).sum();
        assert!(task.live.abs_diff(exact) <= exact / 10 + 4096, "{task:?}: {exact} pairs");
    }
}

/// The slowest thread against the average, if each takes the next task of the order when it has done its last and
/// time goes by the pairs of a causal mask, counted row by row.
fn imbalance(schedule: Schedule<'_>) -> f64 {
    let mut loads = vec![0u64; schedule.threads as usize];
    for &i in schedule.order {
        let task = schedule.tasks[i as usize];
        let pairs: u64 = (task.query_begin..task.query_end).map(|q| q as u64 + 1).sum();
        *loads.iter_mut().min().expect("threads") += pairs;
    }
    let most = *loads.iter().max().expect("threads") as f64;
    most * loads.len() as f64 / loads.iter().sum::<u64>() as f64 - 1.0
}

#[test]
fn causal_work_is_even_over_64_threads() {
    // Query heads, key heads, positions, the query block and the imbalance to stay below. 1,024 positions of 8 heads are
    // fewer blocks than threads, and a vector of 16 rows is a quarter of what a task has to do.
    for (query, kv, positions, block, bound) in [
        (32, 32, 4096, 96, 0.01),
        (32, 8, 4096, 48, 0.015),
        (32, 8, 4096, 144, 0.01),
        (8, 8, 1024, 192, 0.1),
        (8, 8, 1024, 528, 0.1),
        (8, 2, 1024, 144, 0.1),
    ] {
        for isa in [Isa::Avx2, Isa::Avx512] {
            let mut case = Case::new(CAUSAL, (query, kv), (1, positions, positions), block, 64);
            case.plan.isa = isa;
            let schedule = OwnedSchedule::new(&case.work()).expect("few heads");
            let found = imbalance(schedule.view());
            let what =
                format!("{query} over {kv} heads of {positions} in blocks of {block} on {}", isa.name());
            assert!(found < bound, "{what}: {found:.4}");
            let said = schedule.view().overview(&case.work()).imbalance;
            assert!((said - found).abs() < 0.02, "{what}: the overview says {said:.4}, counted {found:.4}");
        }
    }
}

#[test]
fn a_million_by_a_million_is_cut_in_no_time() {
    for (allow, threads) in [(CAUSAL, 2), (CAUSAL, 64), (WINDOW, 64)] {
        let case = Case::new(allow, (32, 8), (1, 1 << 20, 1 << 20), 144, threads);
        let work = case.work();
        let needed = work.max_tasks().expect("few heads");
        assert!(needed * (size_of::<Task>() + 4) < 1 << 20, "{needed} tasks");
        let (mut tasks, mut order) = (vec![Task::default(); needed], vec![0; needed]);
        let mut best = Duration::MAX;
        for _ in 0..30 {
            let start = Instant::now();
            check_len(work.cut(&mut tasks, &mut order).expect("it fits"), threads);
            best = best.min(start.elapsed());
        }
        assert!(best < Duration::from_millis(1), "{best:?} for {threads} threads");
        check(&case, work.cut(&mut tasks, &mut order).expect("it fits"));
    }
}

fn check_len(schedule: Schedule<'_>, threads: u32) {
    assert!(schedule.tasks.len() as u32 >= threads * 8, "{} tasks", schedule.tasks.len());
}

#[test]
fn an_overview_counts_tiles() {
    let case = Case::new(CAUSAL, (4, 2), (1, 1024, 1024), 128, 2);
    let schedule = OwnedSchedule::new(&case.work()).expect("few heads");
    let text = schedule.view().overview(&case.work()).to_string();
    assert_eq!(
        text,
        "tasks     = 16 for 2 threads\n\
         live      = 50.00 % of the pairs\n\
         tiles     = 56 full, 16 partial, 56 dead and never visited\n\
         imbalance = 0.0 % above the average for the busiest thread\n"
    );
}
