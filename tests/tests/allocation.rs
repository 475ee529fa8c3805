//! A run allocates nothing once its pool is there: counted over all threads by the allocator itself.

use std::alloc::System;

use regard::{
    CacheLimits, Dtype, InputData, Inputs, Kernel, KeyRows, LatentQueries, LookaheadKeys, Outputs, Pool,
    Problem, Queries, QueryRows, Solo, States, Threads, Tokens, View, ViewMut, Workspace,
};
use regard_engine::catalog::Entry;
use regard_ir::operands::Rows;
use regard_ir::spec::Spec;
use regard_ir::variant::Mechanism;
use regard_oracle::random::{self, CapturedBuffer};
use regard_tests::{engines, run, specs};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const LEN: usize = 300;

/// One test alone in its process: the allocator counts every thread, and so would count a neighbour's work.
#[test]
fn a_run_allocates_nothing() {
    let plain = specs::parse("heads = { query = 4, kv = 2, dim = 24 }");
    let masked = specs::parse(
        "heads = { query = 4, kv = 2, dim = 24 }\nmask = 'causal & window(90)'\nscore = { modify = 'softcap(s, 20)' }",
    );
    let captured = specs::parse(
        "heads = { query = 4, kv = 2, dim = 24 }\ninputs = { doc = 'i32[b, k]', bias = 'f32[h]' }\n\
         mask = 'causal & same(doc)'\nscore = { modify = 's + bias[h]' }",
    );
    let ids: Vec<i32> = (0..LEN as i32).map(|i| i / 70).collect();
    let data = [InputData::I32(&ids), InputData::F32(&[0.5, -0.5, 1.0, 0.0])];
    let pool = Pool::new(2).expect("two threads");
    // A thread that is yet starting allocates, whoever runs meanwhile.
    pool.run(&|_| ());
    for entry in engines::serving(Dtype::F32) {
        let specs = [
            ("plain", &plain, &data[..0]),
            ("masked", &masked, &data[..0]),
            ("captured", &captured, &data[..]),
        ];
        for (name, spec, data) in specs {
            for threads in [&Solo as &dyn Threads, &pool] {
                let kernel = run::compile(spec, entry, Dtype::F32);
                let allocations = count(spec, &kernel, data, threads);
                let (isa, count) = (entry.isa.name(), threads.count());
                assert_eq!(allocations, 0, "{name} on {isa} with {count} threads");
            }
        }
    }
    for entry in engines::serving(Dtype::F32) {
        for cache in [
            "'contiguous'",
            "{ layout = 'paged', dtype = 'int8' }",
            "{ layout = 'ring', k = 'f16', v = 'int4' }",
        ] {
            let text = format!(
                "heads = {{ query = 4, kv = 2, dim = 24 }}\nmask = 'causal & window(90)'\nposition = {{ rope = {{ theta = 10_000 }} }}\ncache = {cache}"
            );
            steps(&text, entry, &pool, STEPS);
        }
        let latent = "heads = { query = 4 }\nlatent = { rank = 40, nope_dim = 12, rope_dim = 8, value_dim = 16 }\n\
                      position = { rope = { theta = 10_000, layout = 'interleaved' } }\nmask = 'causal'";
        steps(latent, entry, &pool, STEPS / 4);
        for form in ["compact", "expanded"] {
            let pseudo = format!("pseudo = {{ heads = 3, form = '{form}' }}\nmask = 'causal & window(90)'");
            let text = format!("heads = {{ query = 4, kv = 2, dim = 24 }}\n{pseudo}");
            steps(&text, entry, &pool, STEPS / 20);
        }
        let lookahead =
            "heads = { query = 4, dim = 24 }\nlookahead = {}\nposition = { rope = { theta = 10_000 } }";
        steps(lookahead, entry, &pool, STEPS / 4);
        let recurrence = specs::parse(
            "heads = { query = 4, dim = 24 }\nmask = 'causal'\nqk_norm = 'l2'\nrecurrence = { decay = 'channel', update = 'delta' }",
        );
        if run::serves(&recurrence, entry, Dtype::F32) {
            let kernel = run::compile(&recurrence, entry, Dtype::F32);
            for threads in [&Solo as &dyn Threads, &pool] {
                assert_eq!(recur(&kernel, threads, LEN, 3), 0, "a prompt on {}", entry.isa.name());
                assert_eq!(recur(&kernel, threads, 1, STEPS), 0, "tokens on {}", entry.isa.name());
                assert_eq!(advance(&kernel, threads, STEPS), 0, "cached states on {}", entry.isa.name());
            }
        }
    }
    let region = Region::new(ALLOCATOR);
    drop(std::hint::black_box(vec![0u8; 100]));
    assert_eq!(region.change().allocations, 1, "the allocator counts");
}

/// Steps that are counted.
const STEPS: usize = 1000;

/// Counts so many steps of a spec, alone and with the pool.
fn steps(text: &str, entry: &Entry, pool: &Pool, steps: usize) {
    let kernel = run::compile(&specs::parse(text), entry, Dtype::F32);
    for threads in [&Solo as &dyn Threads, pool] {
        let (isa, count) = (entry.isa.name(), threads.count());
        assert_eq!(generate(&kernel, threads, steps), 0, "{text} on {isa} with {count} threads");
    }
}

/// Allocations of steps of two sequences, each a token appended and attended, after a first one.
fn generate(kernel: &Kernel, threads: &dyn Threads, steps: usize) -> usize {
    let mut cache = kernel.cache(CacheLimits::new(2, steps + 1)).expect("small");
    let sequences = [cache.open().expect("room for two"), cache.open().expect("room for two")];
    let mut step = kernel.step(&cache, 1, threads.count()).expect("small");
    let variant = kernel.variant();
    let problem = Problem::prefill(variant.source, 1, 1, 1).expect("short");
    let buffers = (0..variant.inputs.len()).map(|input| random::captured(&variant, &problem, input, 7));
    let buffers: Vec<CapturedBuffer> = buffers.collect();
    let captured: Vec<InputData<'_>> = buffers.iter().map(CapturedBuffer::data).collect();
    let numbers: Vec<_> = variant.operands().map(|it| vec![0.1; 4 * 2 * 24 * it.width as usize]).collect();
    let views = variant.operands().zip(&numbers).map(|(operand, numbers)| {
        let rows = match operand.rows {
            Rows::Queries => sequences.len(),
            Rows::Keys => 1,
            Rows::Matrix(rows) => rows as usize,
        };
        let (heads, width) = (operand.heads.unwrap_or(1) as usize, operand.width as usize);
        View::contiguous(&numbers[..heads * rows * width], [1, heads, rows], width).expect("it fits")
    });
    let (q, kv) = match views.collect::<Vec<_>>()[..] {
        [q, k, v] => (QueryRows::Plain(q), KeyRows::Plain { k, v }),
        [q_c, k_c, v_c, q_u, k_u, v_u] if matches!(variant.mechanism, Mechanism::Lookahead(_)) => {
            let keys = LookaheadKeys { k_c, v_c, q_u, k_u, v_u };
            (QueryRows::Plain(q_c), KeyRows::Lookahead(keys))
        }
        [q_nope, q_rope, c_kv, k_rope, w_uk, w_uv] => (
            QueryRows::Latent(LatentQueries { q_nope, q_rope, w_uk, w_uv }),
            KeyRows::Latent { c_kv, k_rope },
        ),
        _ => panic!("operands of no mechanism that has caches"),
    };
    let (heads, width) = (variant.output_heads() as usize, variant.heads.value_dim as usize);
    let mut o = vec![0.0f32; heads * sequences.len() * width];
    let mut run = || {
        for sequence in sequences {
            let tokens = Tokens { kv, captured: &captured };
            kernel.append_with(threads, &mut cache, sequence, tokens).expect("there is room");
        }
        let o = ViewMut::contiguous(&mut o, [1, heads, sequences.len()], width).expect("it fits");
        let (queries, outputs) = (Queries::of(q).captured(&captured), Outputs { o, lse: None });
        kernel.decode(&mut step, threads, &cache, &sequences, queries, outputs).expect("it runs");
    };
    run();
    let region = Region::new(ALLOCATOR);
    (0..steps).for_each(|_| run());
    let change = region.change();
    change.allocations + change.reallocations + change.deallocations
}

/// Allocations of runs of so many tokens, whose states go on from one to the next, after a first one.
fn recur(kernel: &Kernel, threads: &dyn Threads, tokens: usize, runs: usize) -> usize {
    let variant = kernel.variant();
    let problem = Problem::prefill(variant.source, 1, tokens, tokens).expect("short");
    let buffers = (0..variant.inputs.len()).map(|input| random::captured(&variant, &problem, input, 7));
    let buffers: Vec<CapturedBuffer> = buffers.collect();
    let captured: Vec<InputData<'_>> = buffers.iter().map(CapturedBuffer::data).collect();
    let schedule = kernel.schedule(&problem, &captured, threads.count()).expect("small");
    let mut workspace = Workspace::new(&schedule);
    let rows = vec![0.1; 4 * tokens * 24];
    let (mut o, mut state) = (rows.clone(), vec![0.0f32; 4 * 24 * 24]);
    let mut run = || {
        let rows = View::contiguous(&rows, [1, 4, tokens], 24).expect("it fits");
        let o = ViewMut::contiguous(&mut o, [1, 4, tokens], 24).expect("it fits");
        let state = ViewMut::contiguous(&mut state, [1, 4, 24], 24).expect("it fits");
        let outputs = (Outputs { o, lse: None }, States { state, norm: None });
        let inputs = Inputs::new(rows, rows, rows).captured(&captured);
        kernel.run_recurrence(&schedule, threads, inputs, outputs, &mut workspace).expect("it runs");
    };
    run();
    let region = Region::new(ALLOCATOR);
    (0..runs).for_each(|_| run());
    let change = region.change();
    change.allocations + change.reallocations + change.deallocations
}

/// Allocations of steps of two cached states, of which the last three of each are kept, after a first one.
fn advance(kernel: &Kernel, threads: &dyn Threads, steps: usize) -> usize {
    let variant = kernel.variant();
    let problem = Problem::packed(variant.source, &[0, 1, 2], &[0, 1, 2]).expect("two tokens");
    let buffers = (0..variant.inputs.len()).map(|input| random::captured(&variant, &problem, input, 7));
    let buffers: Vec<CapturedBuffer> = buffers.collect();
    let captured: Vec<InputData<'_>> = buffers.iter().map(CapturedBuffer::data).collect();
    let limits = CacheLimits { at_once: 3, ..CacheLimits::new(2, steps + 1) };
    let mut cache = kernel.cache(limits).expect("small");
    let sequences = [(); 2].map(|()| cache.open().expect("room for two"));
    let mut step = kernel.step(&cache, 1, threads.count()).expect("few");
    let rows = vec![0.1; 4 * 2 * 24];
    let mut o = rows.clone();
    let mut run = || {
        let rows = View::contiguous(&rows, [1, 4, 2], 24).expect("it fits");
        let o = ViewMut::contiguous(&mut o, [1, 4, 2], 24).expect("it fits");
        let (inputs, outputs) = (Inputs::new(rows, rows, rows).captured(&captured), Outputs { o, lse: None });
        kernel
            .decode_next(&mut step, threads, (&mut cache, &sequences), inputs, outputs)
            .expect("there is room");
    };
    run();
    let region = Region::new(ALLOCATOR);
    (0..steps).for_each(|_| run());
    let change = region.change();
    change.allocations + change.reallocations + change.deallocations
}

/// Allocations of three runs after a first one.
fn count(spec: &Spec, kernel: &Kernel, captured: &[InputData<'_>], threads: &dyn Threads) -> usize {
    let problem = Problem::prefill(spec.source, 1, LEN, LEN).expect("short");
    let schedule = kernel.schedule(&problem, captured, threads.count()).expect("small");
    let mut workspace = Workspace::new(&schedule);
    let (q, k, v) = (vec![0.1; 4 * LEN * 24], vec![0.2; 2 * LEN * 24], vec![0.3; 2 * LEN * 24]);
    let mut o = vec![0.0f32; 4 * LEN * 24];
    let mut run = || {
        let inputs = Inputs::new(
            View::contiguous(&q, [1, 4, LEN], 24).expect("it fits"),
            View::contiguous(&k, [1, 2, LEN], 24).expect("it fits"),
            View::contiguous(&v, [1, 2, LEN], 24).expect("it fits"),
        )
        .captured(captured);
        let o = ViewMut::contiguous(&mut o, [1, 4, LEN], 24).expect("it fits");
        kernel.run(&schedule, threads, inputs, Outputs { o, lse: None }, &mut workspace).expect("it runs");
    };
    run();
    let region = Region::new(ALLOCATOR);
    (0..3).for_each(|_| run());
    let change = region.change();
    change.allocations + change.reallocations + change.deallocations
}
