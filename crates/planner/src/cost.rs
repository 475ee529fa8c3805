//! What a problem will take: amounts of work by the rates of the machine.
//!
//! The amounts are those of the skeleton's loops. The pairs that are computed are whole steps of row tiles against keys,
//! found by halving as the runtime finds them; each costs its products, its share of the softmax, and the operations of the
//! score modifier. Each pass packs its queries and the key blocks that it visits, unless keys are packed once a run; each
//! row tile asks the mask about the steps of a partial block; each row's sums are merged at each cell of keys. What is packed
//! is also read, from the cache that holds it, and takes the longer of the two.
//!
//! A model of this kind is wrong by what it leaves out: how caches are shared, what other programs do, the first touch of
//! cold tensors. docs/measuring.md holds it against measurements (`cargo xtask model`).

use regard_engine::catalog::{self, Entry};
use regard_ir::expr::{Binary, Op, Tree, Unary, Var};
use regard_ir::interval::InputRanges;
use regard_ir::machine::Machine;
use regard_ir::plan::{EngineKind, Plan};
use regard_ir::problem::Problem;
use regard_ir::rates::{EngineRates, Origin};
use regard_ir::tiles;
use regard_ir::variant::{Heads, Mechanism, Recurrence, Variant};
use regard_ir::work;
use serde::Serialize;

use crate::estimate::Known;
use crate::recurrence;

pub use self::cached::{CachedBound, CachedCase, CachedPrediction};

mod cached;

/// Operations on a vector that make scores into weights: what a modifier's are counted against.
const SOFTMAX_OPERATIONS: f64 = 12.0;

/// The share of the rate of vectors that products of short chunks with a state reach, with what is done to rows beside them.
const STATE_RATE: f64 = 0.5;

/// The share of that time which is products, and which matrix tiles take over.
const STATE_PRODUCTS: f64 = 0.5;

/// The share of their rate that matrix tiles reach there: operands are packed for each product anew.
const STATE_TILE_RATE: f64 = 0.25;

/// Seconds to ask a mask about a step of a row tile.
const CLASSIFY_S: f64 = 30e-9;

/// Seconds to wake a pool of threads and see them all done.
const WAKE_S: f64 = 10e-6;

/// Boxes of a mask that are looked at before the rest counts as partial: some milliseconds.
const MAX_LOOKS: u64 = 1 << 15;

/// A problem, and the plan that it is to run by.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The variant that it was made for.
    pub variant: &'a Variant<'a>,
    /// The machine that it is to run on.
    pub machine: &'a Machine,
    /// The sizes.
    pub problem: &'a Problem<'a>,
    /// What is known of the captured inputs.
    pub inputs: &'a dyn InputRanges,
}

/// How a problem is shared out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sharing {
    /// Threads.
    pub threads: u32,
    /// How much longer the busiest works than the average, as a fraction.
    pub imbalance: f64,
    /// Passes that its tasks make; `None` where tasks are whole query blocks.
    pub passes: Option<u64>,
}

impl Sharing {
    /// All of it on one thread.
    pub const ALONE: Sharing = Sharing { threads: 1, imbalance: 0.0, passes: None };
}

/// The time of a problem, and what it is made of. The parts are of the busiest thread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// All of it.
    pub seconds: f64,
    /// Products of queries and keys, and of weights and values.
    pub products_s: f64,
    /// Scores made into weights, modifier and mask included.
    pub softmax_s: f64,
    /// Keys and values mixed, packed and read.
    pub keys_s: f64,
    /// Queries mixed and packed, sums merged, outputs mixed and written.
    pub rows_s: f64,
    /// Where the rates come from.
    pub rates: Origin,
}

impl Case<'_> {
    /// The time that the problem will take.
    ///
    /// More work is never predicted to take less time, and a faster machine never to take more. `None` where no engine of
    /// this build is the plan's.
    pub fn predict(&self, sharing: &Sharing) -> Option<Prediction> {
        let Plan { engine, isa, .. } = *self.plan;
        let entry = catalog::ENTRIES.iter().find(|entry| (entry.engine, entry.isa) == (engine, isa))?;
        Some(self.predict_by(&Known::of(self.machine, [entry]), entry, sharing))
    }

    /// The same, by rates that were chosen together with those of other engines.
    pub(crate) fn predict_by(&self, known: &Known<'_>, entry: &Entry, sharing: &Sharing) -> Prediction {
        if let Some(recurrence) = &self.variant.recurrence() {
            return self.predict_recurrence(recurrence, known, entry, sharing);
        }
        let amounts = self.amounts(entry, sharing.passes);
        let EngineRates { products, softmax, packing, .. } = known.engine(entry);
        let mixing = known.mixing(entry);
        let threads = sharing.threads.clamp(1, self.machine.cores.max(1));
        let busiest = (1.0 + sharing.imbalance.max(0.0)) / f64::from(threads);
        let per_thread = |amount: f64, giga: f64| busiest * amount / (giga * 1e9);
        let reading = |amount: f64, held: f64| per_thread(amount, known.read_gbs(held));
        let keys_s = per_thread(amounts.packed, packing).max(reading(amounts.key_bytes, amounts.head_bytes))
            + per_thread(amounts.mixed_keys, mixing);
        let rows_s = per_thread(amounts.row_elements, packing)
            .max(reading(amounts.row_bytes, amounts.row_bytes))
            + per_thread(amounts.mixed_rows, mixing)
            + busiest * amounts.classified * CLASSIFY_S;
        let products_s = per_thread(amounts.products, products);
        let softmax_s = per_thread(amounts.weighed, softmax);
        let wake_s = if threads > 1 { WAKE_S } else { 0.0 };
        let seconds = products_s + softmax_s + keys_s + rows_s + wake_s;
        Prediction { seconds, products_s, softmax_s, keys_s, rows_s, rates: known.origin }
    }

    /// Of a recurrence: its chunks' products, at the share of an engine's rate that they reach, and rows read and written. What is
    /// done to rows beside products is done on vectors, whatever the engine.
    fn predict_recurrence(
        &self,
        recurrence: &Recurrence,
        known: &Known<'_>,
        entry: &Entry,
        sharing: &Sharing,
    ) -> Prediction {
        let Self { plan, variant, problem, .. } = *self;
        let heads = &variant.heads;
        let vectors = known.engine(&catalog::vectors(entry)).products;
        let per_product = match plan.engine {
            EngineKind::SimdF32 => 1.0 / (STATE_RATE * vectors),
            _ => {
                let tiles = 1.0 / (STATE_TILE_RATE * known.engine(entry).products);
                tiles + (1.0 - STATE_PRODUCTS) / (STATE_RATE * vectors)
            }
        };
        let threads = sharing.threads.clamp(1, self.machine.cores.max(1));
        let busiest = (1.0 + sharing.imbalance.max(0.0)) / f64::from(threads);
        let tokens = problem.all_keys().max(problem.all_queries()) as f64;
        let of_token =
            recurrence::products(heads, recurrence, plan.recurrence.map_or(1, |it| it.chunk)) as f64;
        let products_s = busiest * tokens * f64::from(heads.value) * of_token * per_product / 1e9;
        let bytes = |rows: f64, width: u32| rows * f64::from(width) * f64::from(plan.dtype.size_bytes());
        let (queries, keys) = (problem.all_queries() as f64, problem.all_keys() as f64);
        let kept = work::state_bytes(variant, problem.batch);
        let key_bytes = bytes(keys * f64::from(heads.kv), heads.dim)
            + bytes(keys * f64::from(heads.value), heads.value_dim)
            + kept;
        let row_bytes = bytes(queries * f64::from(heads.query), heads.dim)
            + bytes(queries * f64::from(heads.value), heads.value_dim)
            + kept;
        let reading = |bytes: f64| busiest * bytes / (known.read_gbs(bytes) * 1e9);
        let (keys_s, rows_s) = (reading(key_bytes), reading(row_bytes));
        let wake_s = if threads > 1 { WAKE_S } else { 0.0 };
        let seconds = products_s + keys_s + rows_s + wake_s;
        Prediction { seconds, products_s, softmax_s: 0.0, keys_s, rows_s, rates: known.origin }
    }

    fn amounts(&self, entry: &Entry, passes: Option<u64>) -> Amounts {
        let scored = self.variant.scored();
        Case { variant: &scored, ..*self }.scored_amounts(entry, passes, self.variant)
    }

    /// The same, of the variant whose rows are scored; `given` is the one that they are mixed from.
    fn scored_amounts(&self, entry: &Entry, passes: Option<u64>, given: &Variant<'_>) -> Amounts {
        let mut amounts = Amounts::default();
        let mut looks = MAX_LOOKS;
        let (by_sequence, by_head) = {
            let reads = |var| self.variant.allow.reads(var);
            (reads(Var::B) || self.problem.packed.is_some(), reads(Var::H) || reads(Var::G))
        };
        let (batch, kv_heads) = (self.problem.batch, self.variant.heads.kv);
        let sequences = if by_sequence { batch } else { batch.min(1) };
        let heads = if by_head { kv_heads } else { 1 };
        let alike = f64::from(batch / sequences.max(1)) * f64::from(kv_heads / heads);
        for sequence in 0..sequences {
            for head in 0..heads {
                amounts.add(&self.of_head(entry, sequence, head, &mut looks), alike);
            }
        }
        if given.pseudo().is_some() {
            let Heads { query, kv, dim, value_dim, .. } = given.heads;
            let rows = self.problem.all_queries() as f64 * f64::from(query);
            amounts.mixed_keys = amounts.packed * f64::from(kv);
            amounts.mixed_rows = rows * f64::from(query) * (f64::from(dim) + f64::from(value_dim));
        }
        if let Some(passes) = passes
            && amounts.passes > 0.0
        {
            // A block that is cut in two packs what it visits twice.
            let more = (passes as f64 / amounts.passes).max(1.0);
            if self.packs_each_pass() {
                amounts.packed *= more;
                amounts.key_bytes *= more;
                amounts.mixed_keys *= more;
            }
        }
        amounts
    }

    /// Of the rows of one key head of a sequence.
    fn of_head(&self, entry: &Entry, sequence: u32, kv_head: u32, looks: &mut u64) -> Amounts {
        let Self { plan, variant, problem, inputs, .. } = *self;
        let (heads, blocks) = (&variant.heads, &plan.prefill);
        let of = problem.sequence(sequence);
        let (queries, keys) = (of.queries, of.held.len());
        if queries == 0 || keys == 0 {
            return Amounts { passes: 1.0, ..Amounts::default() };
        }
        let region = of.region(sequence, &variant.heads, kv_head);
        let group = heads.group();
        // A row tile of a long pass is of one head; one of a short pass spans all its positions.
        let span = entry.tile.rows.min(blocks.query_block);
        let mut count = |tile| tiles::count(variant.allow, &region, tile, inputs, looks);
        let visited = count((blocks.query_block, blocks.key_block));
        let steps = count((span, blocks.mask_step));
        // Products may leave out what single vectors of a tile do not see.
        let lanes = if entry.tile.stairs { entry.tile.row_step.min(span) } else { span };
        let seen = if lanes < span { count((lanes, blocks.mask_step)) } else { steps };

        let taught = match variant.mechanism {
            Mechanism::Lookahead(lookahead) => {
                let steps = tiles::count(lookahead.allow, &region, (span, blocks.mask_step), inputs, looks);
                Some((steps.full + steps.partial) as f64)
            }
            _ => None,
        };

        let passes = f64::from(queries.div_ceil(blocks.query_block));
        let row_step = u64::from(entry.tile.row_step);
        let padded = |queries: u32| (u64::from(queries) * u64::from(group)).next_multiple_of(row_step) as f64;
        let rows = f64::from(queries / blocks.query_block) * padded(blocks.query_block)
            + padded(queries % blocks.query_block);
        let step_keys = f64::from(blocks.mask_step.min(keys));
        let step_pairs = rows / f64::from(queries.div_ceil(span)) * step_keys;
        let pairs = (steps.full + steps.partial) as f64 * step_pairs;
        let multiplied =
            (seen.full + seen.partial) as f64 * rows / f64::from(queries.div_ceil(lanes)) * step_keys;
        let masked = steps.partial as f64 * step_pairs;
        let [score_products, output_products] = plan.pieces.products().map(f64::from);
        let (dim, value_dim) = (f64::from(heads.dim), f64::from(heads.value_dim));
        let width = dim + value_dim;
        let visited_keys = (visited.full + visited.partial) as f64 * f64::from(blocks.key_block.min(keys));
        let tiles_of_pass = rows / passes / f64::from(entry.tile.rows);
        let steps_of_block = f64::from(blocks.key_block / blocks.mask_step);
        let cells = visited_keys / passes / f64::from(blocks.key_cell);
        let stored = f64::from(plan.dtype.size_bytes());
        let packed_bytes = packed_bytes(plan);
        // One block that all passes visit stays packed from one to the next.
        let packings = if keys <= blocks.key_block { 1.0 } else { passes };
        let (packed, key_bytes, head_bytes) = if self.packs_each_pass() {
            let packed = visited_keys * packings / passes * width;
            (packed, packed * stored, f64::from(keys) * width * stored)
        } else {
            let packed = f64::from(keys) * width;
            (packed, visited_keys * width * packed_bytes, packed * packed_bytes)
        };
        let all_rows = f64::from(queries) * f64::from(group);
        let operations = weight(variant.modify);
        let learning = taught.map_or(Amounts::default(), |steps| {
            let (taught, tokens) = (steps * step_pairs, f64::from(blocks.query_block));
            Amounts {
                // What keys ask and tokens leave; what queries find, of earlier tokens and of their own block's.
                products: score_products * (taught * (2.0 * dim + tokens) + pairs * dim),
                // The sigmoid of each weight, and that of each score found.
                weighed: taught + pairs,
                packed: visited_keys * (2.0 * dim + 2.0 * tokens),
                ..Amounts::default()
            }
        });
        Amounts {
            passes,
            products: multiplied * (dim * score_products + value_dim * output_products) + learning.products,
            weighed: pairs * (1.0 + operations / SOFTMAX_OPERATIONS)
                + masked * weight(variant.allow) / SOFTMAX_OPERATIONS
                + learning.weighed,
            packed: packed + learning.packed,
            key_bytes,
            head_bytes,
            row_elements: all_rows * (width + (cells - 1.0).max(0.0) * value_dim),
            row_bytes: all_rows * width * stored,
            classified: visited.partial as f64 * tiles_of_pass * (1.0 + steps_of_block),
            ..Amounts::default()
        }
    }

    /// Whether keys and values are packed in each pass, not once a run: where no sequence has several, or where a head's
    /// would take too much memory.
    fn packs_each_pass(&self) -> bool {
        let Self { plan, variant, problem, .. } = *self;
        let heads = &variant.heads;
        let width = f64::from(heads.dim) + f64::from(heads.value_dim);
        let sequences = || (0..problem.batch).map(|i| problem.sequence(i));
        let longest = sequences().map(|of| of.held.len()).max().unwrap_or(0);
        let bytes = longest as f64 * width * packed_bytes(plan);
        let repeats = || sequences().any(|of| of.queries > plan.prefill.query_block);
        bytes > plan.pack_ahead_bytes as f64 && plan.kept_blocks().is_none() || !repeats()
    }
}

/// Bytes of a packed channel.
fn packed_bytes(plan: &Plan) -> f64 {
    match plan.engine {
        EngineKind::SimdF32 => 4.0,
        EngineKind::DotBf16 | EngineKind::AmxBf16 => {
            2.0 * f64::from(plan.pieces.scores.max(plan.pieces.values))
        }
    }
}

/// What there is to do, over all heads and sequences.
#[derive(Clone, Copy, Debug, Default)]
struct Amounts {
    /// Query blocks.
    passes: f64,
    /// Multiply-adds, padded rows and steps included.
    products: f64,
    /// Scores made into weights, and what modifier and mask add, as if they were scores.
    weighed: f64,
    /// Elements of keys and values that are packed.
    packed: f64,
    /// Bytes of keys and values that are read.
    key_bytes: f64,
    /// Bytes of the keys and values of one head, among which they are found.
    head_bytes: f64,
    /// Multiply-adds of mixing them from other heads.
    mixed_keys: f64,
    /// Multiply-adds of mixing queries, and outputs.
    mixed_rows: f64,
    /// Elements of queries packed, sums merged and outputs written.
    row_elements: f64,
    /// Bytes of queries read and outputs written.
    row_bytes: f64,
    /// Steps that the mask is asked about.
    classified: f64,
}

impl Amounts {
    /// Adds `times` as much.
    fn add(&mut self, other: &Self, times: f64) {
        self.passes += times * other.passes;
        self.products += times * other.products;
        self.weighed += times * other.weighed;
        self.packed += times * other.packed;
        self.key_bytes += times * other.key_bytes;
        self.head_bytes = self.head_bytes.max(other.head_bytes);
        self.mixed_keys += times * other.mixed_keys;
        self.mixed_rows += times * other.mixed_rows;
        self.row_elements += times * other.row_elements;
        self.row_bytes += times * other.row_bytes;
        self.classified += times * other.classified;
    }
}

/// Vector operations of an expression for each vector of scores.
fn weight(tree: Tree<'_>) -> f64 {
    tree.nodes().iter().map(|node| operations(&node.op)).sum()
}

/// Of one node: functions that are made of a polynomial count as ten, divisions as three.
const fn operations(op: &Op) -> f64 {
    match op {
        Op::Bool(_) | Op::Int(_) | Op::Float(_) | Op::Var(_) | Op::Alibi { .. } => 0.0,
        Op::Unary(
            Unary::Not | Unary::Neg | Unary::Abs | Unary::ToFloat | Unary::ToInt | Unary::Floor | Unary::Ceil,
            _,
        ) => 1.0,
        Op::Unary(Unary::Sqrt, _) | Op::Binary(Binary::Div | Binary::FloorDiv | Binary::Rem, ..) => 3.0,
        Op::Unary(..) | Op::Binary(Binary::Pow, ..) => 10.0,
        Op::Binary(..) | Op::Select(..) => 1.0,
        Op::Input { .. } => 4.0,
    }
}
