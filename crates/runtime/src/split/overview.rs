//! What a call on caches will do, told before there are any: for people, and for who predicts its time.
//!
//! Cells and pages are found as a call finds them. Sequences and heads that the mask does not tell apart are looked at once;
//! where it tells apart more than can be looked at in a fraction of a second, some stand for the others.

use alloc::collections::BinaryHeap;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::Range;

use regard_ir::expr::Var;
use regard_ir::interval::Liveness;
use regard_ir::plan::SplitOverview;
use regard_ir::variant::{Lookahead, Mechanism};

use super::live::{LiveCells, dead_pages};
use crate::cache::WAITING;
use crate::schedule::Work;
use crate::sight::Sight;

/// Pages that are looked at, over all sequences and heads that are told apart.
const MAX_LOOKS: u64 = 1 << 21;

/// Passes that are handed out one by one. Of more, no thread has so much more than the others that it shows.
const MAX_HANDED_OUT: u64 = 1 << 22;

/// What passes over one cell read.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    /// Keys of live pages.
    keys: u64,
    /// Those of chunks that the mask is asked about.
    masked: u64,
}

/// Looks at a call whose keys are cached: `work` has as many threads as will share it.
pub fn overview(work: &Work<'_>) -> SplitOverview {
    let Work { plan, variant, problem, inputs, threads, .. } = *work;
    let heads = &variant.heads;
    let sight = Sight { variant, problem, ranges: inputs };
    let cells = LiveCells { plan, sight };
    let apart = Apart::of(work);
    let mut sum = SplitOverview {
        sequences: problem.batch,
        rows: heads.group().saturating_mul(problem.queries),
        live_cells: 0,
        cells: 0,
        chunks: plan.decode.key_cell / plan.decode.key_chunk.max(1),
        passes: 0,
        keys: 0,
        pairs: 0,
        masked_pairs: 0,
        learners: 0,
        read_bytes: 0,
        threads: threads.max(1),
        imbalance: 0.0,
    };
    let mut shares = Shares::new(sum.threads);
    let (mut live, mut reads) = (Vec::new(), Vec::new());
    for (sequence, alike) in apart.sequences() {
        let of = problem.sequence(sequence);
        live.clear();
        cells.of(sequence as usize, |cell| live.push(cell));
        sum.live_cells += alike * live.len() as u64;
        sum.cells += alike * u64::from(of.keys.div_ceil(plan.decode.key_cell));
        // The cells of one head after those of the other, or of all heads alike.
        reads.clear();
        for head in 0..apart.heads {
            let liveness = |keys: Range<u32>| match apart.heads {
                1 => sight.of(sequence as usize, keys),
                _ => sight.of_head(sequence, head, keys),
            };
            reads.extend(live.iter().map(|&cell| read(work, of.keys, cell, liveness)));
        }
        let times = alike * u64::from(heads.kv / apart.heads);
        let rows = u64::from(heads.group()) * u64::from(of.queries);
        for &Read { keys, masked } in &reads {
            sum.passes += times;
            sum.keys += times * keys;
            sum.pairs = sum.pairs.saturating_add((times * keys).saturating_mul(rows));
            sum.masked_pairs = sum.masked_pairs.saturating_add((times * masked).saturating_mul(rows));
        }
        let learns = |window: u32| u64::from(window).saturating_add(WAITING as u64);
        sum.learners += match variant.mechanism {
            Mechanism::Lookahead(Lookahead { window, .. }) => {
                let read: u64 = reads.iter().map(|read| read.keys).sum();
                times * read.min(window.map_or(read, |window| u64::from(apart.heads) * learns(window)))
            }
            _ => 0,
        };
        shares.hand_out(&reads, times);
    }
    let k = plan.cache.k.row_bytes(heads.dim);
    let v = if plan.cache.shape(variant).shared { 0 } else { plan.cache.v.row_bytes(heads.value_dim) };
    // Lookahead keys are read in f32.
    let learned = if plan.cache.shape(variant).asks { 4 * u64::from(heads.dim) } else { 0 };
    sum.read_bytes = sum.keys.saturating_mul(k + v + learned);
    sum.imbalance = shares.imbalance(sum.keys);
    sum
}

/// What a pass reads of a cell of a sequence of `len` keys.
fn read(work: &Work<'_>, len: u32, cell: u32, liveness: impl Fn(Range<u32>) -> Liveness) -> Read {
    let (split, page) = (work.plan.decode, work.plan.cache.tokens);
    let begin = cell * split.key_cell;
    let end = len.min(begin.saturating_add(split.key_cell));
    let mut read = Read::default();
    for first in (begin..end).step_by(split.key_chunk.max(1) as usize) {
        let chunk = first..end.min(first.saturating_add(split.key_chunk));
        let of_chunk = liveness(chunk.clone());
        if of_chunk == Liveness::Dead {
            continue;
        }
        let mut dead = dead_pages(chunk.clone(), page, of_chunk, &liveness);
        let mut keys = u64::from(chunk.end - chunk.start);
        while dead != 0 {
            let begin = chunk.start + dead.trailing_zeros() * page;
            keys -= u64::from(page.min(chunk.end - begin));
            dead &= dead - 1;
        }
        read.keys += keys;
        if of_chunk == Liveness::Partial {
            read.masked += keys;
        }
    }
    read
}

/// What the mask tells apart.
struct Apart {
    /// All sequences.
    batch: u32,
    /// Sequences that are looked at.
    sequences: u32,
    /// Heads that are looked at: all key heads or one for all.
    heads: u32,
}

impl Apart {
    fn of(work: &Work<'_>) -> Self {
        let (allow, problem) = (work.variant.allow, work.problem);
        let (batch, kv) = (problem.batch, work.variant.heads.kv);
        let pages = problem.keys.div_ceil(work.plan.cache.tokens.max(1)).max(1);
        let most = (MAX_LOOKS / u64::from(pages)).max(1);
        let reads = |var| allow.reads(var);
        let heads = if (reads(Var::H) || reads(Var::G)) && u64::from(kv) <= most { kv } else { 1 };
        let of_each = u64::from(heads.max(1));
        let sequences = if reads(Var::B) || problem.packed.is_some() {
            u64::from(batch).min((most / of_each).max(1)) as u32
        } else {
            batch.min(1)
        };
        Self { batch, sequences, heads: heads.max(1) }
    }

    /// The sequences that are looked at, and how many each stands for, itself included.
    fn sequences(&self) -> impl Iterator<Item = (u32, u64)> + use<> {
        let (batch, n) = (u64::from(self.batch), u64::from(self.sequences));
        (0..n).map(move |i| {
            let (begin, end) = (i * batch / n, (i + 1) * batch / n);
            (begin as u32, end - begin)
        })
    }
}

/// What each thread has to do.
struct Shares {
    loads: BinaryHeap<Reverse<u64>>,
    left: u64,
    /// Keys of the longest pass.
    longest: u64,
}

impl Shares {
    fn new(threads: u32) -> Self {
        Self { loads: vec![Reverse(0); threads as usize].into(), left: MAX_HANDED_OUT, longest: 0 }
    }

    /// Hands some passes out in their order, to whoever is free first, and again, so many times in all.
    fn hand_out(&mut self, passes: &[Read], times: u64) {
        self.longest = passes.iter().map(|pass| pass.keys).fold(self.longest, u64::max);
        let all = times.saturating_mul(passes.len() as u64);
        if all == 0 {
            return;
        }
        self.left = self.left.saturating_sub(all);
        if self.left == 0 {
            return;
        }
        for pass in (0..times).flat_map(|_| passes) {
            if let Some(mut least) = self.loads.peek_mut() {
                least.0 += pass.keys;
            }
        }
    }

    /// How much more than the average the busiest has, of so many keys in all.
    fn imbalance(&self, all: u64) -> f64 {
        if all == 0 {
            return 0.0;
        }
        let (all, threads) = (all as f64, self.loads.len() as f64);
        let most = self.loads.iter().map(|load| load.0).max().unwrap_or(0) as f64;
        match self.left {
            // Whoever takes the last pass had no more than the average before.
            0 => (threads - 1.0) * self.longest as f64 / all,
            _ => most * threads / all - 1.0,
        }
    }
}
