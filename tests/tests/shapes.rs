//! Widths and head counts: any width from 1 to 1024, odd ones too, any ratio of query to key heads, shared value heads
//! and batches.

use regard::{Dtype, Pool, Problem};
use regard_ir::variant::Heads;
use regard_testkit::{Case, Layout};
use regard_tests::{engines, run, specs};

/// Widths of a query and of a value row.
const WIDTHS: [(u32, u32); 34] = [
    (1, 1),
    (1, 64),
    (2, 2),
    (3, 1024),
    (7, 9),
    (8, 8),
    (9, 7),
    (15, 15),
    (16, 1),
    (17, 31),
    (31, 17),
    (33, 33),
    (40, 40),
    (63, 64),
    (64, 65),
    (65, 63),
    (80, 80),
    (96, 40),
    (100, 100),
    (112, 3),
    (127, 129),
    (128, 128),
    (129, 127),
    (192, 128),
    (256, 2),
    (256, 256),
    (500, 500),
    (576, 512),
    (1023, 16),
    (1, 1023),
    (1024, 1),
    (1024, 1024),
    (33, 576),
    (8, 192),
];

fn check(heads: Heads, mask: &str, (batch, queries, keys): (usize, usize, usize), seed: u64) {
    let pool = Pool::new(2).expect("two threads");
    let Heads { query, kv, value, dim, value_dim } = heads;
    let mut spec = specs::parse(&format!(
        "heads = {{ query = {query}, kv = {kv}, dim = {dim}, value_dim = {value_dim} }}\n\
         mask = '{mask}'\noutput = {{ lse = true }}"
    ));
    // The language has no word for it that a kernel reads, the kernel does.
    spec.heads.value = value;
    for entry in engines::available() {
        for (dtype, layout) in Dtype::ALL.into_iter().zip(Layout::ALL) {
            if !run::serves(&spec, entry, dtype) {
                continue;
            }
            let kernel = run::compile(&spec, entry, dtype);
            let variant = kernel.variant();
            let problem = Problem::prefill(variant.source, batch, queries, keys).expect("short");
            let case = Case { variant, problem, dtype, layout, seed };
            let inputs = case.inputs();
            let result = run::run(&kernel, &case, &inputs, &pool);
            if let Err(error) = run::judge(&case, &inputs, result, kernel.plan()) {
                panic!("{}: {error}", run::describe(mask, entry, &case));
            }
        }
    }
}

#[test]
fn any_width() {
    for (seed, (dim, value_dim)) in (1..).zip(WIDTHS) {
        check(Heads { query: 2, kv: 1, value: 1, dim, value_dim }, "causal", (1, 13, 27), seed);
    }
}

#[test]
fn any_ratio_of_query_to_key_heads() {
    for (seed, ratio) in (100..).zip([1, 2, 3, 5, 7, 8, 12, 32]) {
        let heads = Heads { query: 2 * ratio, kv: 2, value: 2, dim: 24, value_dim: 16 };
        check(heads, "causal & window(9)", (2, 17, 37), seed);
    }
}

#[test]
fn value_heads_shared_by_key_heads() {
    for (seed, (query, kv, value)) in (200..).zip([(6, 6, 1), (12, 6, 2), (12, 6, 3), (4, 4, 2), (8, 4, 4)]) {
        check(Heads { query, kv, value, dim: 8, value_dim: 11 }, "causal", (2, 11, 29), seed);
    }
}

#[test]
fn masks_that_differ_between_heads_and_sequences() {
    let heads = Heads { query: 6, kv: 2, value: 2, dim: 16, value_dim: 16 };
    for (seed, mask) in
        (300..).zip(["k < 5 * h", "k % (g + 2) == b", "k >= 20 * b & k <= q", "h == 3", "b == 1 | g == 0"])
    {
        check(heads, mask, (3, 30, 61), seed);
    }
}
