//! Every shipped spec in every storage type on every engine, against the oracle.
//!
//! Sizes are nothing, one, and each tile and block of the plan less one, exact and one more; positions start where the
//! language puts them and elsewhere. Most run with fewer and narrower heads, a few with the spec's own. Presets of models run
//! with their own heads, on the first engine at the plan's own sizes and on the others at a small one. Emulated units leave out
//! what takes them longest: many queries of many keys. Engines after the first have some rows of larger problems compared: the first
//! and last, both sides of blocks, and 64 that are drawn.

use regard::{Dtype, Kernel, Pool, Problem, SHIPPED, Shipped};
use regard_engine::catalog::Entry;
use regard_ir::variant::Source;
use regard_oracle::sample::Sample;
use regard_testkit::{Case, Failure, Layout};
use regard_tests::run::{self, Disagreement, Judge};
use regard_tests::{engines, specs};

#[test]
fn mechanisms_of_f32() {
    every_spec(Dtype::F32, |shipped| !specs::is_preset(shipped));
}

#[test]
fn mechanisms_of_f16() {
    every_spec(Dtype::F16, |shipped| !specs::is_preset(shipped));
}

#[test]
fn mechanisms_of_bf16() {
    every_spec(Dtype::Bf16, |shipped| !specs::is_preset(shipped));
}

#[test]
fn presets_of_f32() {
    every_spec(Dtype::F32, specs::is_preset);
}

#[test]
fn presets_of_f16() {
    every_spec(Dtype::F16, specs::is_preset);
}

#[test]
fn presets_of_bf16() {
    every_spec(Dtype::Bf16, specs::is_preset);
}

/// Sequences, queries and keys of a problem, and where its queries start if not where the language puts them.
type Size = (usize, usize, usize, Option<i64>);

fn every_spec(dtype: Dtype, is_of: impl Fn(&Shipped) -> bool) {
    let pool = Pool::new(2).expect("two threads");
    let (mut seed, mut cancelling) = (0, 0);
    for (nth, entry) in engines::serving(dtype).into_iter().enumerate() {
        for shipped in SHIPPED.iter().filter(|shipped| is_of(shipped)) {
            let skipped = specs::is_many(shipped) && nth > 0;
            // Their own tests hold lookahead keys against emulated units.
            let skipped = skipped || entry.emulated && specs::has_lookahead(&specs::shipped(shipped));
            if skipped || !run::serves(&specs::shipped(shipped), entry, dtype) {
                continue;
            }
            let is_preset = specs::is_preset(shipped);
            let mut check = |kernel: &Kernel, size: Size| {
                seed += 1;
                let (batch, queries, ..) = size;
                let for_each_key = specs::pairs_queries(kernel.spec());
                let size = if for_each_key { (batch, queries, queries, None) } else { size };
                let all_pairs = if nth == 0 { u64::MAX } else { MOST_PAIRS };
                cancelling += u64::from(check((shipped.name, entry), kernel, size, &pool, (seed, all_pairs)));
            };
            if !is_preset {
                let narrow = run::compile(&specs::narrow(shipped, 20, 12), entry, dtype);
                let sizes = sizes(&narrow, entry).into_iter();
                let quick = sizes.filter(|&size| !entry.emulated || products(&narrow, size) <= MOST_EMULATED);
                quick.for_each(|size| check(&narrow, size));
            }
            let own = run::compile(&specs::shipped(shipped), entry, dtype);
            match is_preset && nth > 0 || entry.emulated {
                true => check(&own, SMALL),
                // The oracle takes a state for each head and token; their own tests have sizes and heads of all kinds.
                false if specs::has_states(own.spec()) => check(&own, SOME_CHUNKS),
                false => own_sizes(&own).into_iter().for_each(|size| check(&own, size)),
            }
        }
    }
    println!("{cancelling} of {seed} cases cancel");
    assert!(cancelling * 500 < seed, "{cancelling} of {seed} cancel");
}

/// A few queries over two mask steps.
const SMALL: Size = (1, 3, 37, None);

/// More tokens than a chunk has.
const SOME_CHUNKS: Size = (1, 70, 70, None);

/// Pairs of a case whose rows are all compared on engines after the first.
const MOST_PAIRS: u64 = 1 << 16;

/// Products of a case at most on an emulated unit, which is slower by a hundred times.
const MOST_EMULATED: u64 = 40_000_000;

/// Products of queries and keys, wherever a mask leaves them.
fn products(kernel: &Kernel, (batch, queries, keys, _): Size) -> u64 {
    let variant = kernel.variant();
    let (heads, per_token) = (variant.heads, u64::from(variant.per_token()));
    let pairs = (batch * queries * keys) as u64 * per_token * per_token;
    pairs * u64::from(heads.query) * u64::from(heads.dim + heads.value_dim)
}

/// Each length that a tile or block makes special, on each side, and positions out of the ordinary.
fn sizes(kernel: &Kernel, entry: &Entry) -> Vec<Size> {
    let blocks = kernel.plan().prefill;
    let around = |n: u32| [n as usize - 1, n as usize, n as usize + 1];
    let mut queries = vec![0, 1];
    let tiles = [entry.tile.rows, 2 * entry.tile.rows, blocks.query_block, 2 * blocks.query_block];
    queries.extend(tiles.into_iter().flat_map(around));
    let mut keys = vec![0, 1];
    let tiles = [entry.tile.keys, blocks.mask_step, blocks.key_block, blocks.key_cell];
    keys.extend(tiles.into_iter().flat_map(around));
    // 3 is coprime to the 14 of each, so that every one occurs and the pairs do not go up together.
    let pairs =
        (0..queries.len().max(keys.len())).map(|i| (queries[i % queries.len()], keys[3 * i % keys.len()]));
    let mut sizes: Vec<Size> = pairs.map(|(queries, keys)| (1, queries, keys, None)).collect();
    let block = blocks.key_block as usize;
    sizes.extend([
        // Aligned with the first key, before it, and past the last one.
        (2, 7, block + 3, Some(0)),
        (1, 30, block - 1, Some(-11)),
        (1, 9, 21, Some(17)),
        // More queries than keys, and far more keys than queries.
        (2, 2 * block + 5, 33, None),
        (1, 3, 4200, None),
        (1, 1, 2 * 4096 + 1, None),
    ]);
    sizes
}

/// With the spec's own heads: one past a query block and a key block, and a few queries over one past a cell.
fn own_sizes(kernel: &Kernel) -> [Size; 2] {
    let blocks = kernel.plan().prefill;
    let heads = kernel.spec().heads.query as usize;
    let queries = (blocks.query_block as usize + 1).min(400 / heads);
    [(1, queries, blocks.key_block as usize + 1, None), (1, 1, blocks.key_cell as usize + 1, None)]
}

/// Whether the sums of a case cancel so far that f32 cannot tell them; if they do not, they must be within their bound.
fn check(
    (name, entry): (&str, &Entry),
    kernel: &Kernel,
    size: Size,
    pool: &Pool,
    (seed, all_pairs): (u64, u64),
) -> bool {
    let (batch, queries, keys, q_offset) = size;
    let variant = kernel.variant();
    let problem = Problem::prefill(variant.source, batch, queries, keys).expect("short");
    let problem = q_offset.map_or(problem, |offset| problem.with_q_offset(offset).expect("near"));
    let layout = Layout::ALL[seed as usize % Layout::ALL.len()];
    let case = Case { variant, problem, dtype: kernel.plan().dtype, layout, seed };
    let inputs = case.inputs();
    let result = run::run(kernel, &case, &inputs, pool);
    let heads = &variant.heads;
    let sample = Sample::new(&problem, heads, kernel.plan().prefill.query_block, seed);
    let sample = sample.all_up_to(all_pairs, &problem, heads);
    match Judge::new(&case, &inputs).judge_rows(result, kernel.plan(), &sample) {
        Ok(()) => false,
        Err(Disagreement::Outputs(Failure::Bound(report))) if run::cancels(&case, &inputs, &report) => {
            println!("cancels: {}: {report}", run::describe(name, entry, &case));
            true
        }
        Err(error) => panic!("{}: {error}", run::describe(name, entry, &case)),
    }
}

#[test]
fn the_queries_of_cross_attention_start_at_position_0() {
    for entry in engines::serving(Dtype::F32) {
        let spec = specs::parse("heads = { query = 2, dim = 8 }\nsource = 'cross'\nmask = 'k <= q + 3'");
        assert_eq!(spec.source, Source::Cross);
        let kernel = run::compile(&spec, entry, Dtype::F32);
        let pool = Pool::new(1).expect("no thread");
        assert!(!check(("cross with a mask", entry), &kernel, (1, 5, 40, None), &pool, (1, u64::MAX)));
    }
}
