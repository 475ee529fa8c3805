//! What never changes a bit: threads, their order, batch neighbours, aligned cuts of the prefill, and what the workspace
//! held before.

use std::thread;

use regard::ir::operands::Rows;
use regard::{Dtype, Kernel, Pool, Problem, Solo, Threads, Workspace};
use regard_engine::catalog::Entry;
use regard_ir::plan::Blocks;
use regard_oracle::random::CapturedBuffer;
use regard_testkit::{Case, Input, Inputs, Layout, Outputs};
use regard_tests::run::{self, Direct};
use regard_tests::{engines, specs};

const SPECS: [&str; 4] = [
    "heads = { query = 6, kv = 2, dim = 40, value_dim = 24 }\nmask = 'causal'\noutput = { lse = true }",
    "heads = { query = 4, kv = 1, dim = 16 }\nmask = 'chunk(100)'\nscore = { modify = 'softcap(s, 9) + alibi(h)' }",
    "heads = { query = 4, kv = 2, dim = 24 }\ninputs = { doc = 'i32[b, k]' }\nmask = 'causal & same(doc)'\n\
     output = { lse = true }",
    "heads = { query = 3, kv = 1, dim = 9 }\nmask = 'causal & window(50)'\nscore = { modify = 's + 0.3 * (k - q)' }",
];

fn each_kernel(check: impl Fn(&str, &Entry, &Kernel)) {
    for entry in engines::available() {
        for (text, dtype) in SPECS.iter().zip([Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F32]) {
            let spec = specs::parse(text);
            if run::serves(&spec, entry, dtype) {
                check(text, entry, &run::compile(&spec, entry, dtype));
            }
        }
    }
}

fn case<'a>(kernel: &'a Kernel, problem: Problem<'static>) -> Case<'a> {
    Case { variant: kernel.variant(), problem, dtype: kernel.plan().dtype, layout: Layout::Bnhd, seed: 11 }
}

fn problem(kernel: &Kernel, batch: usize, queries: usize, keys: usize) -> Problem<'static> {
    Problem::prefill(kernel.spec().source, batch, queries, keys).expect("short")
}

/// The bits of an output and its lse, row by row: sequence, head, query.
fn rows(outputs: &Outputs) -> Vec<(Vec<u64>, Option<u64>)> {
    let [batch, heads, queries, _] = outputs.o.shape();
    let row = |b, h, i| {
        let o = outputs.o.view().row(b, h, i).iter().map(|x| x.to_bits()).collect();
        (o, outputs.lse.as_ref().map(|lse| lse.view().row(b, h, i)[0].to_bits()))
    };
    let heads = (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h)));
    heads.flat_map(|(b, h)| (0..queries).map(move |i| (b, h, i))).map(|(b, h, i)| row(b, h, i)).collect()
}

/// Workers of a caller's own, one after the other from the last to the first, each on a thread of its own.
struct Backwards(usize);

impl Threads for Backwards {
    fn count(&self) -> usize {
        self.0
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        for worker in (0..self.0).rev() {
            thread::scope(|scope| {
                scope.spawn(|| work(worker));
            });
        }
    }
}

/// Workers of a caller's own, all at once, the even ones first, every third after a pause.
struct Scattered(usize);

impl Threads for Scattered {
    fn count(&self) -> usize {
        self.0
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        thread::scope(|scope| {
            for worker in (0..self.0).step_by(2).chain((1..self.0).step_by(2)) {
                scope.spawn(move || {
                    if worker % 3 == 0 {
                        thread::sleep(std::time::Duration::from_millis(1));
                    }
                    work(worker);
                });
            }
        });
    }
}

/// Runs every worker's share on the caller's thread, and one of them twice.
struct OneTooMany(usize);

impl Threads for OneTooMany {
    fn count(&self) -> usize {
        self.0
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        (0..self.0).chain([0]).for_each(work);
    }
}

#[test]
fn any_number_of_threads_in_any_order() {
    let pools: Vec<Pool> = [1, 2, 3, 5, 64].map(|n| Pool::new(n).expect("threads")).into();
    each_kernel(|name, entry, kernel| {
        let case = case(kernel, problem(kernel, 2, 290, 311));
        let inputs = case.inputs();
        let threads = pools.iter().map(|pool| pool as &dyn Threads);
        let own: [&dyn Threads; 4] = [&Backwards(3), &Scattered(5), &Scattered(64), &OneTooMany(2)];
        let run = |threads| {
            run::run(kernel, &case, &inputs, threads)
                .unwrap_or_else(|error| panic!("{}: {error}", run::describe(name, entry, &case)))
        };
        let alone = run(&Solo);
        let judged = run::judge(&case, &inputs, Ok(alone.clone()), kernel.plan());
        judged.unwrap_or_else(|error| panic!("{}: {error}", run::describe(name, entry, &case)));
        let expected = rows(&alone);
        for threads in threads.chain(own) {
            let found = rows(&run(threads));
            assert!(
                found == expected,
                "{} threads change a bit: {}",
                threads.count(),
                run::describe(name, entry, &case)
            );
        }
    });
}

/// There is a task for each of several workers, or the test above shows nothing.
#[test]
fn work_is_shared_out() {
    let entry = engines::serving(Dtype::F32)[0];
    let kernel = run::compile(&specs::parse(SPECS[0]), entry, Dtype::F32);
    let case = case(&kernel, problem(&kernel, 2, 290, 311));
    let schedule = kernel.schedule(&case.problem, &[], 5).expect("small");
    let overview = kernel.overview(&schedule, &[]).expect("it was scheduled");
    assert!(overview.tasks >= 5, "{overview}");
}

#[test]
fn a_sequence_alone_or_among_others() {
    each_kernel(|name, entry, kernel| {
        let together = case(kernel, problem(kernel, 3, 77, 140));
        let inputs = together.inputs();
        let all = rows(&run::run(kernel, &together, &inputs, &Solo).expect("it runs"));
        let per_sequence = all.len() / 3;
        for sequence in 0..3 {
            let alone = case(kernel, problem(kernel, 1, 77, 140));
            let part = sequence_of(&alone, &inputs, sequence);
            let found = rows(&run::run(kernel, &alone, &part, &Solo).expect("it runs"));
            let expected = &all[sequence * per_sequence..][..per_sequence];
            assert!(found == expected, "sequence {sequence}: {}", run::describe(name, entry, &together));
        }
    });
}

/// The inputs of one sequence, as those of a problem of its own.
fn sequence_of(alone: &Case<'_>, all: &Inputs, sequence: usize) -> Inputs {
    let captured = all.captured.iter().map(|input| {
        let CapturedBuffer::I32(ids) = input else { panic!("only documents are captured") };
        let len = ids.len() / 3;
        CapturedBuffer::I32(ids[sequence * len..][..len].to_vec())
    });
    let own = |tensor: &Input| {
        let [_, heads, tokens, width] = tensor.view().shape();
        part(alone, tensor, sequence, 0..tokens, [1, heads, tokens, width])
    };
    let operands = all.map(&alone.variant, |rows, tensor| match rows {
        Rows::Queries | Rows::Keys => own(tensor),
        Rows::Matrix(_) => tensor.clone(),
    });
    Inputs { captured: captured.collect(), gate: all.gate.as_ref().map(own), ..operands }
}

/// Some tokens of one sequence of a tensor.
fn part(
    case: &Case<'_>,
    tensor: &Input,
    sequence: usize,
    tokens: std::ops::Range<usize>,
    shape: [usize; 4],
) -> Input {
    let rows = (0..shape[1]).flat_map(|head| tokens.clone().map(move |token| (head, token)));
    // Elements are exact in f64 and in f32, and rounding to their own type changes nothing.
    let values = rows.flat_map(|(head, token)| tensor.view().row(sequence, head, token));
    Input::new(case.dtype, shape, case.layout, values.map(|x| x as f32))
}

#[test]
fn aligned_cuts_of_the_prefill() {
    each_kernel(|name, entry, kernel| {
        let block = kernel.plan().prefill.query_block as usize;
        let queries = 4 * block + block / 2 + 1;
        let whole = case(kernel, problem(kernel, 1, queries, queries + 70));
        let inputs = whole.inputs();
        let expected = rows(&run::run(kernel, &whole, &inputs, &Solo).expect("it runs"));
        let heads = kernel.spec().heads.query as usize;
        for cuts in [vec![0, block], vec![0, 3 * block], vec![0, block, 2 * block, 4 * block]] {
            for (i, &begin) in cuts.iter().enumerate() {
                let end = cuts.get(i + 1).copied().unwrap_or(queries);
                let problem = problem(kernel, 1, end - begin, queries + 70);
                let offset = i64::from(whole.problem.q_offset) + begin as i64;
                let piece = case(kernel, problem.with_q_offset(offset).expect("near"));
                let inputs = regard_tests::with_queries(&piece, &inputs, piece.dtype, begin..end);
                let found = rows(&run::run(kernel, &piece, &inputs, &Solo).expect("it runs"));
                for head in 0..heads {
                    let found = &found[head * (end - begin)..][..end - begin];
                    let expected = &expected[head * queries + begin..][..end - begin];
                    assert!(
                        found == expected,
                        "queries {begin}..{end}, head {head}: {}",
                        run::describe(name, entry, &whole)
                    );
                }
            }
        }
    });
}

/// Where references stand, and whether anyone looks for the largest score, is each row's own business. Scores are as products
/// give them, and the first blocks of keys seen by all, so that nobody looks beside short rows.
#[test]
fn beside_a_row_of_large_scores() {
    let spec = specs::parse("heads = { query = 6, kv = 2, dim = 40, value_dim = 24 }\nmask = 'causal'");
    let pairs = engines::available().into_iter().flat_map(|entry| Dtype::ALL.map(|dtype| (entry, dtype)));
    for (entry, dtype) in pairs.filter(|&(entry, dtype)| run::serves(&spec, entry, dtype)) {
        const LONG: usize = 33;
        let kernel = &run::compile(&spec, entry, dtype);
        let case = case(kernel, problem(kernel, 1, 70, 250));
        let mut inputs = case.inputs();
        let expected = rows(&run::run(kernel, &case, &inputs, &Solo).expect("it runs"));
        let [_, heads, queries, _] = inputs.operands[0].view().shape();
        for head in 0..heads {
            let row = inputs.operands[0].view().row(0, head, LONG);
            for (channel, x) in row.into_iter().enumerate() {
                inputs.operands[0].set([0, head, LONG, channel], 100.0 * x as f32);
            }
        }
        let found = rows(&run::run(kernel, &case, &inputs, &Solo).expect("it runs"));
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let is_long = at % queries == LONG;
            let (head, query) = (at / queries, at % queries);
            assert!(
                is_long || found == expected,
                "head {head}, query {query}: {}",
                run::describe(&spec.name, entry, &case)
            );
        }
    }
}

#[test]
fn a_workspace_that_others_used() {
    each_kernel(|name, entry, kernel| {
        let (large, small) =
            (case(kernel, problem(kernel, 2, 200, 260)), case(kernel, problem(kernel, 1, 19, 90)));
        let mut workspace = Workspace::default();
        let mut run = |case: &Case<'_>, spoil: Option<f32>| {
            let mut inputs = case.inputs();
            if let Some(bad) = spoil {
                let [batch, heads, keys, width] = inputs.operands[2].view().shape();
                for at in 0..batch * heads * keys {
                    inputs.operands[2]
                        .set([at / keys / heads, at / keys % heads, at % keys, at % width], bad);
                }
            }
            let schedule = kernel.schedule(&case.problem, &inputs.captured(), 1).expect("small");
            workspace.grow(&schedule);
            let mut outputs = case.outputs();
            run::run_scheduled(kernel, &schedule, &inputs, &mut outputs, &Solo, &mut workspace)
                .expect("it runs");
            rows(&outputs)
        };
        let expected = run(&small, None);
        for spoil in [None, Some(f32::NAN), Some(f32::INFINITY)] {
            run(&large, spoil);
            assert!(run(&small, None) == expected, "after {spoil:?}: {}", run::describe(name, entry, &small));
        }
    });
}

#[test]
fn a_workspace_full_of_nan() {
    each_kernel(|name, entry, kernel| {
        let case = case(kernel, problem(kernel, 2, 100, 140));
        let inputs = case.inputs();
        let zeroed = rows(&run::run(kernel, &case, &inputs, &Solo).expect("it runs"));
        let blocks = kernel.plan().prefill;
        let dirty = Direct { case: &case, entry, blocks, pack_ahead_bytes: u64::MAX }
            .run(&inputs, &Solo)
            .expect("it runs");
        assert!(rows(&dirty) == zeroed, "{}", run::describe(name, entry, &case));
    });
}

/// Keys and values that are packed once a run, by whoever comes first, and those that each pass packs for itself.
#[test]
fn packed_ahead_or_in_passes() {
    let pool = Pool::new(5).expect("threads");
    each_kernel(|name, entry, kernel| {
        let case = case(kernel, problem(kernel, 2, 60, 150));
        let inputs = case.inputs();
        let blocks = Blocks { query_block: 24, key_block: 32, key_cell: 64, mask_step: 8, channel_chain: 16 };
        let run = |pack_ahead_bytes, threads: &dyn Threads| {
            let direct = Direct { case: &case, entry, blocks, pack_ahead_bytes };
            rows(&direct.run(&inputs, threads).expect("it runs"))
        };
        let expected = run(0, &Solo);
        // A packed head takes 16 to 64 KiB: there is room for none of them, for one that other threads find occupied, and for all.
        for bytes in [1 << 14, 1 << 15, 1 << 16, 1 << 17, u64::MAX] {
            for threads in [&Solo as &dyn Threads, &pool, &pool] {
                assert!(run(bytes, threads) == expected, "{bytes} B: {}", run::describe(name, entry, &case));
            }
        }
    });
}

/// Block sizes that leave the grid of cells and chains alone only change who is beside whom.
#[test]
fn query_blocks_and_tasks() {
    each_kernel(|name, entry, kernel| {
        let case = case(kernel, problem(kernel, 1, 60, 150));
        let inputs = case.inputs();
        let run = |query_block| {
            let blocks = Blocks { query_block, key_block: 32, key_cell: 64, mask_step: 8, channel_chain: 16 };
            let direct = Direct { case: &case, entry, blocks, pack_ahead_bytes: u64::MAX };
            rows(&direct.run(&inputs, &Backwards(3)).expect("it runs"))
        };
        let expected = run(60);
        for query_block in [1, 2, 7, 24] {
            assert!(run(query_block) == expected, "{query_block}: {}", run::describe(name, entry, &case));
        }
    });
}
