//! Block sizes are arguments: the skeleton with the smallest ones there are, where every edge is met many times.

use regard::{Dtype, Pool, Problem, Solo};
use regard_ir::plan::Blocks;
use regard_runtime::flash::RunError;
use regard_testkit::{Case, Layout};
use regard_tests::run::{self, Direct};
use regard_tests::{engines, specs};

/// Query block, key block, key cell.
const SIZES: [(u32, u32, u32); 8] =
    [(1, 8, 8), (2, 8, 8), (3, 8, 16), (1, 16, 32), (2, 16, 16), (3, 16, 32), (5, 32, 32), (3, 8, 1024)];

const SPECS: [&str; 6] = [
    "heads = { query = 1, dim = 12 }\noutput = { lse = true }",
    "heads = { query = 3, dim = 9 }\nmask = 'causal'\noutput = { lse = true }",
    "heads = { query = 10, kv = 2, dim = 17, value_dim = 5 }\nmask = 'causal & (window(5) | first(3))'",
    "heads = { query = 2, kv = 1, dim = 8 }\nmask = '(q - k) % 3 == 0'\nscore = { modify = 's + alibi(h) * (k - q)' }",
    "heads = { query = 4, kv = 2, dim = 16 }\nmask = 'chunk(11)'\nscore = { modify = 'softcap(s, 3)' }",
    "heads = { query = 4, kv = 2, dim = 8 }\ninputs = { doc = 'i32[b, k]' }\nmask = 'causal & same(doc)'",
];

fn blocks((query_block, key_block, key_cell): (u32, u32, u32)) -> Blocks {
    Blocks { query_block, key_block, key_cell, mask_step: 8, channel_chain: 8 }
}

#[test]
fn tiny_blocks() {
    let pool = Pool::new(2).expect("two threads");
    let mut seed = 0;
    for entry in engines::available() {
        for text in SPECS {
            let spec = specs::parse(text);
            let variant = spec.variant();
            for size in SIZES {
                for (queries, keys) in [(1, 1), (7, 8), (9, 33), (26, 26), (50, 71), (30, 17)] {
                    seed += 1;
                    let problem = Problem::prefill(spec.source, 2, queries, keys).expect("short");
                    let dtype = Dtype::ALL[seed as usize % 3];
                    if !run::serves(&spec, entry, dtype) {
                        continue;
                    }
                    let case = Case { variant, problem, dtype, layout: Layout::Gapped, seed };
                    let direct =
                        Direct { case: &case, entry, blocks: blocks(size), pack_ahead_bytes: u64::MAX };
                    let inputs = case.inputs();
                    if let Err(error) = run::judge(&case, &inputs, direct.run(&inputs, &pool), &direct.plan())
                    {
                        panic!("{} with {:?}: {error}", run::describe(text, entry, &case), direct.blocks);
                    }
                }
            }
        }
    }
}

#[test]
fn blocks_that_do_not_divide_each_other_are_refused() {
    let spec = specs::parse("heads = { query = 1, dim = 8 }");
    let variant = spec.variant();
    let problem = Problem::prefill(spec.source, 1, 3, 3).expect("short");
    let case = Case { variant, problem, dtype: Dtype::F32, layout: Layout::Bhnd, seed: 0 };
    let inputs = case.inputs();
    let good = blocks((1, 8, 16));
    for entry in engines::serving(Dtype::F32) {
        let run = |blocks| {
            Direct { case: &case, entry, blocks, pack_ahead_bytes: 0 }.run(&inputs, &Solo).map(|_| ())
        };
        assert_eq!(run(good), Ok(()));
        for bad in [
            Blocks { key_cell: 12, ..good },
            Blocks { key_block: 0, ..good },
            Blocks { mask_step: 4, ..good },
            Blocks { mask_step: 16, ..good },
            Blocks { mask_step: 0, ..good },
            Blocks { channel_chain: 0, ..good },
            // More steps than a word has bits.
            Blocks { key_block: 32 * 65, key_cell: 32 * 65, ..good },
        ] {
            let direct = Direct { case: &case, entry, blocks: bad, pack_ahead_bytes: u64::MAX };
            assert_eq!(run(bad), Err(RunError::Blocks(direct.plan().prefill)));
        }
    }
}
