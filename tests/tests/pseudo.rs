//! Pseudo-heads on every engine: against the oracle, and where they must be plain attention.

use regard::{Dtype, Pool, Problem, Threads};
use regard_engine::catalog::Entry;
use regard_ir::plan::Blocks;
use regard_ir::spec::Spec;
use regard_oracle::random::CapturedBuffer;
use regard_testkit::{Case, Inputs, Layout, Outputs};
use regard_tests::run::{self, Direct};
use regard_tests::{engines, specs};

/// Small blocks, so that a sequence has several.
const BLOCKS: Blocks =
    Blocks { query_block: 20, key_block: 32, key_cell: 64, mask_step: 8, channel_chain: 32 };

/// Heads, their widths, and tables.
const SPECS: [(&str, &str); 7] = [
    ("query = 1, dim = 8", "pseudo.heads = 1"),
    ("query = 3, dim = 24, value_dim = 17", "pseudo.heads = 2\nmask = 'causal'"),
    (
        "query = 4, kv = 2, dim = 16",
        "pseudo.heads = 4\nmask = 'causal & window(9)'\nposition.rope.theta = 1e4",
    ),
    (
        "query = 6, kv = 3, dim = 34, value_dim = 40",
        "pseudo = { heads = 5, causal = 'token', window_unit = 'token' }\nmask = 'causal & window(7)'\n\
         position.rope.theta = 1e4\nqk_norm = { kind = 'rms', learned = true }",
    ),
    (
        "query = 2, dim = 12",
        "pseudo.heads = 3\nweights.sink = 'learned'\nmask = 'causal & same(doc)'\ninputs = { doc = 'i32[b, k]' }\n\
         score.modify = 's + alibi(h) * (k - q) + g'",
    ),
    (
        "query = 20, kv = 20, dim = 8",
        "pseudo.heads = 2\nmask = 'causal'\noutput = { norm = 'rms', gate = 'elementwise' }",
    ),
    (
        "query = 4, kv = 1, dim = 10",
        "pseudo.heads = 7\nweights = { kind = 'sigmoid', bias = -3 }\nmask = 'causal | first(5)'\n\
         inputs = { at = 'i32[b, k]' }\nposition = { rope = { theta = 100, layout = 'interleaved' }, ids = 'at' }",
    ),
];

fn spec(heads: &str, tables: &str) -> Spec {
    specs::parse(&format!("heads = {{ {heads} }}\n{tables}"))
}

/// Calls `check` with each engine that serves a spec, in a storage type and a layout that the turn decides.
fn each_engine(spec: &Spec, turn: usize, mut check: impl FnMut(&'static Entry, Dtype, Layout)) {
    for (i, entry) in engines::available().into_iter().enumerate() {
        let (dtype, layout) = (Dtype::ALL[(turn + i) % 3], Layout::ALL[turn % 3]);
        if run::serves(spec, entry, dtype) {
            check(entry, dtype, layout);
        }
    }
}

fn direct<'a>(case: &'a Case<'a>, entry: &'a Entry, pack_ahead_bytes: u64) -> Direct<'a> {
    Direct { case, entry, blocks: BLOCKS, pack_ahead_bytes }
}

fn bits(outputs: &Outputs) -> Vec<u64> {
    let o = outputs.o.view();
    let [batch, heads, tokens, _] = o.shape();
    let places = (0..batch * heads * tokens).map(|i| (i / tokens / heads, i / tokens % heads, i % tokens));
    places.flat_map(|(b, h, n)| o.row(b, h, n)).map(f64::to_bits).collect()
}

#[test]
fn every_engine_keeps_the_bounds_and_its_bits() {
    let pool = Pool::new(2).expect("two threads");
    for (i, (heads, tables)) in SPECS.into_iter().enumerate() {
        let spec = spec(heads, tables);
        let variant = spec.variant();
        for (j, (queries, keys)) in [(0, 3), (1, 1), (13, 13), (21, 40), (3, 70)].into_iter().enumerate() {
            let problem = Problem::prefill(variant.source, 2, queries, keys).expect("short");
            each_engine(&spec, i + j, |entry, dtype, layout| {
                let seed = (10 * i + j) as u64;
                let case = Case { variant, problem, dtype, layout, seed };
                let inputs = case.inputs();
                let told = || run::describe(tables, entry, &case);
                let mut expected = None;
                for (ahead, threads) in [(0, 1), (0, 2), (1 << 30, 2)] {
                    let direct = direct(&case, entry, ahead);
                    let threads: &dyn Threads = if threads == 1 { &regard::Solo } else { &pool };
                    let outputs =
                        direct.run(&inputs, threads).unwrap_or_else(|error| panic!("{}: {error}", told()));
                    let found = bits(&outputs);
                    if let Some(expected) = &expected {
                        assert!(found == *expected, "other bits: {}", told());
                    } else {
                        run::judge(&case, &inputs, Ok(outputs), &direct.plan())
                            .unwrap_or_else(|error| panic!("{}: {error}", told()));
                        expected = Some(found);
                    }
                }
            });
        }
    }
}

/// Factors of mixes that leave each pseudo-head its head, and a collapse to pseudo-head `p`.
fn identity(case: &Case<'_>, inputs: &mut Inputs, p: usize) {
    let pseudo = case.variant.pseudo().expect("pseudo-heads");
    let [n, kv, per_token] =
        [case.variant.heads.query, case.variant.heads.kv, pseudo.heads].map(|n| n as usize);
    let is = |yes: bool| if yes { 1.0 } else { 0.0 };
    for (input, sources) in pseudo.mix.into_iter().zip([n, kv, kv]) {
        let factor = |at: usize| is(at / per_token % n / (n / sources) == at / per_token / n);
        inputs.captured[usize::from(input)] =
            CapturedBuffer::F32((0..sources * n * per_token).map(factor).collect());
    }
    let factor = |at: usize| is(at % (n * per_token) == at / (n * per_token) * per_token + p);
    inputs.captured[usize::from(pseudo.collapse)] =
        CapturedBuffer::F32((0..n * n * per_token).map(factor).collect());
}

#[test]
fn one_pseudo_head_that_is_its_head_has_the_bits_of_plain_attention() {
    let heads = "query = 6, kv = 6, dim = 16, value_dim = 24";
    let tables = "mask = 'causal'\nposition.rope.theta = 1e4";
    let (spec_plain, spec_mixed) = (spec(heads, tables), spec(heads, &format!("pseudo.heads = 1\n{tables}")));
    let [plain, mixed] = [&spec_plain, &spec_mixed].map(|spec| spec.variant());
    let problem = Problem::prefill(plain.source, 1, 45, 77).expect("short");
    for entry in engines::available() {
        if !run::serves(&spec_mixed, entry, Dtype::F32) {
            continue;
        }
        let of = |variant| Case { variant, problem, dtype: Dtype::F32, layout: Layout::Bhnd, seed: 5 };
        let (plain, mixed) = (of(plain), of(mixed));
        if direct(&plain, entry, 0).plan().pieces != direct(&mixed, entry, 0).plan().pieces {
            continue;
        }
        let mut inputs = mixed.inputs();
        identity(&mixed, &mut inputs, 0);
        let found = direct(&mixed, entry, 0).run(&inputs, &regard::Solo).expect("it runs");
        inputs.captured.clear();
        let expected = direct(&plain, entry, 0).run(&inputs, &regard::Solo).expect("it runs");
        assert!(bits(&found) == bits(&expected), "{} {}", entry.engine.name(), entry.isa.name());
    }
}
