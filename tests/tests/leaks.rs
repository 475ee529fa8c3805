//! What a mask hides from a query has no way into its output, whatever it holds.

use regard::ir::operands::Rows;
use regard::{Dtype, Kernel, Problem, SHIPPED, Shipped, Solo, Source, Spec};
use regard_engine::catalog::Entry;
use regard_testkit::{Case, Inputs, Layout, Outputs};
use regard_tests::{engines, hidden, run, specs};

/// Queries whose hidden keys are spoilt: the first and last, in the middle of a tile and of a later one.
const QUERIES: [u32; 4] = [0, 13, 90, 111];

/// Keys that a NaN or an infinity replaces, and values that would show in a sum as soon as their weight is not 0.
const SPOILT: [(f32, f32); 3] = [(f32::NAN, 3e38), (f32::INFINITY, -3e38), (f32::NEG_INFINITY, f32::NAN)];

/// Specs that hide nothing: without a mask, or with one that is wider than the sequence.
const HIDE_NOTHING: [&str; 10] = [
    "chunked",
    "cross",
    "global",
    "mha",
    "models/bigbird",
    "models/longformer",
    "models/vit",
    "models/whisper_cross",
    "models/whisper_encoder",
    "self_attention",
];

/// Where the mechanisms are cut in two tests, which two threads run.
const HALF: &str = "iha_global";

#[test]
fn no_mechanism_of_the_first_half_leaks() {
    no_spec_leaks(|shipped| !specs::is_preset(shipped) && shipped.name < HALF);
}

#[test]
fn no_mechanism_of_the_second_half_leaks() {
    no_spec_leaks(|shipped| !specs::is_preset(shipped) && shipped.name >= HALF);
}

#[test]
fn no_preset_leaks() {
    no_spec_leaks(specs::is_preset);
}

/// Spoils what each shipped spec of some hides, and looks that no other hides nothing.
fn no_spec_leaks(is_of: impl Fn(&Shipped) -> bool) {
    // Emulated units are a hundred times slower: few narrow heads for them, where the spec allows others than its own.
    let (emulated, real): (Vec<&Entry>, Vec<&Entry>) =
        engines::available().into_iter().partition(|entry| entry.emulated);
    let few = SHIPPED.iter().filter(|shipped| is_of(shipped));
    let few = few.filter(|shipped| !specs::is_many(shipped) && !specs::is_wide(shipped));
    // Some need as many queries as keys: their own tests spoil what is hidden. A state that all keys write hides none.
    let few = few.filter(|shipped| {
        let spec = specs::shipped(shipped);
        !specs::pairs_queries(&spec) && !specs::has_states(&spec)
    });
    let hides_nothing = |shipped: &&Shipped| {
        let mut rows = check(&specs::shipped(shipped), &real, &[Dtype::F32]);
        if !specs::is_preset(shipped) {
            rows += check(&specs::narrow(shipped, 24, 16), &emulated, &[Dtype::F32]);
        }
        rows == 0
    };
    let names: Vec<_> = few.filter(hides_nothing).map(|shipped| shipped.name).collect();
    let expected = SHIPPED.iter().filter(|shipped| is_of(shipped) && HIDE_NOTHING.contains(&shipped.name));
    assert_eq!(names, expected.map(|shipped| shipped.name).collect::<Vec<_>>());
}

/// The mask comes after the modifier, so a modifier that makes a number of anything makes none of what is masked.
#[test]
fn no_modifier_leaks() {
    for modify in [
        "min(max(s, -1.0), 1.0)",
        "if s == s then s else 3.0",
        "softcap(s, 5) + bias[h, k]",
        "s + alibi(h) * (k - q)",
        "-7.5",
    ] {
        let softmax = "{ sink = 'one' }\noutput = { lse = true }";
        for weights in ["'softmax'", "'sigmoid'", "'relu'", softmax] {
            let spec = specs::parse(&format!(
                "heads = {{ query = 4, kv = 2, dim = 24 }}\ninputs = {{ bias = 'f32[h, k]', doc = 'i32[b, k]' }}\n\
                 mask = '(causal & window(30) | first(3)) & (same(doc) | k % 7 == h)'\n\
                 score = {{ modify = '{modify}' }}\nweights = {weights}"
            ));
            assert!(check(&spec, &engines::available(), &Dtype::ALL) > 0);
        }
    }
}

/// Spoils what is hidden from single queries, on each of some engines, generated and loaded; gives how many queries had
/// something hidden.
fn check(spec: &Spec, entries: &[&Entry], dtypes: &[Dtype]) -> usize {
    let mut rows = 0;
    for entry in entries {
        for (&dtype, layout) in dtypes.iter().zip(Layout::ALL) {
            for source in Source::ALL {
                let Ok(kernel) = run::compile_from(Some(source), spec, entry, dtype) else { continue };
                let problem = Problem::prefill(spec.source, 1, 112, 130).expect("short");
                let case = Case { variant: kernel.variant(), problem, dtype, layout, seed: 3 };
                rows += check_kernel(&kernel, &case, || run::describe(&spec.name, entry, &case));
            }
        }
    }
    rows
}

fn check_kernel(kernel: &Kernel, case: &Case<'_>, told: impl Fn() -> String) -> usize {
    let clean = case.inputs();
    let run = |inputs: &Inputs| {
        run::run(kernel, case, inputs, &Solo).unwrap_or_else(|error| panic!("{}: {error}", told()))
    };
    let expected = run(&clean);
    let mut rows = 0;
    for (query, (key, value)) in QUERIES.into_iter().zip(SPOILT.into_iter().cycle()) {
        let hidden = hidden::keys(case, &clean, query);
        if hidden.is_empty() {
            continue;
        }
        rows += 1;
        let mut inputs = clean.clone();
        let kinds: Vec<Rows> = case.variant.operands().map(|operand| operand.rows).collect();
        let of_keys = inputs.operands.iter_mut().zip(kinds).filter(|(_, rows)| *rows == Rows::Keys);
        for ((tensor, _), bad) in of_keys.zip([key, value]) {
            let [_, heads, _, width] = tensor.view().shape();
            for (head, at) in (0..heads).flat_map(|head| hidden.iter().map(move |&at| (head, at))) {
                (0..width).for_each(|channel| tensor.set([0, head, at, channel], bad));
            }
        }
        assert_eq!(
            bits(&run(&inputs), query),
            bits(&expected, query),
            "query {query}, keys of {key} and values of {value}: {}",
            told()
        );
    }
    rows
}

/// The bits of a query's outputs, of all heads.
fn bits(outputs: &Outputs, query: u32) -> Vec<u64> {
    let tensors = [Some(&outputs.o), outputs.lse.as_ref()];
    let rows = tensors.into_iter().flatten().flat_map(|tensor| {
        let view = tensor.view();
        (0..view.shape()[1]).flat_map(|head| view.row(0, head, query as usize)).collect::<Vec<_>>()
    });
    rows.map(f64::to_bits).collect()
}
