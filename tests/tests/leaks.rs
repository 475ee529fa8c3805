//! What a mask hides from a query has no way into its output, whatever it holds.

use regard::{Dtype, Kernel, Options, Problem, SHIPPED, Shipped, Solo, Source, Spec, machine};
use regard_engine::catalog::Entry;
use regard_ir::expr::Var;
use regard_ir::inputs::Captured;
use regard_oracle::eval::{Scope, Value, eval};
use regard_testkit::{Case, Inputs, Layout, Outputs};
use regard_tests::{engines, run, specs};

/// Queries whose hidden keys are spoilt: the first and last, in the middle of a tile and of a later one.
const QUERIES: [u32; 4] = [0, 13, 90, 111];

/// Keys that a NaN or an infinity replaces, and values that would show in a sum as soon as their weight is not 0.
const SPOILT: [(f32, f32); 3] = [(f32::NAN, 3e38), (f32::INFINITY, -3e38), (f32::NEG_INFINITY, f32::NAN)];

#[test]
fn no_shipped_spec_leaks() {
    // Without a mask, or with one that is wider than the sequence.
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
    let check = |shipped: &&Shipped| check(&specs::shipped(shipped), &[Dtype::F32]) == 0;
    let names: Vec<_> = SHIPPED.iter().filter(check).map(|shipped| shipped.name).collect();
    assert_eq!(names, HIDE_NOTHING);
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
            assert!(check(&spec, &Dtype::ALL) > 0);
        }
    }
}

/// Spoils what is hidden from single queries, on each engine, generated and loaded; gives how many queries had something
/// hidden.
fn check(spec: &Spec, dtypes: &[Dtype]) -> usize {
    let mut rows = 0;
    for entry in engines::available() {
        for (&dtype, layout) in dtypes.iter().zip(Layout::ALL) {
            for source in Source::ALL {
                let Ok(kernel) = compile(spec, entry, dtype, source) else { continue };
                let problem = Problem::prefill(spec.source, 1, 112, 130).expect("short");
                let case = Case { variant: kernel.variant(), problem, dtype, layout, seed: 3 };
                rows += check_kernel(&kernel, &case, || run::describe(&spec.name, entry, &case));
            }
        }
    }
    rows
}

fn compile(spec: &Spec, entry: &Entry, dtype: Dtype, source: Source) -> Result<Kernel, regard::CompileError> {
    let options = Options {
        dtype: Some(dtype),
        isa: Some(entry.isa),
        engine: Some(entry.engine),
        kernel: Some(source),
    };
    Kernel::compile_with(spec, &machine::host(), options)
}

fn check_kernel(kernel: &Kernel, case: &Case<'_>, told: impl Fn() -> String) -> usize {
    let clean = case.inputs();
    let run = |inputs: &Inputs| {
        run::run(kernel, case, inputs, &Solo).unwrap_or_else(|error| panic!("{}: {error}", told()))
    };
    let expected = run(&clean);
    let mut rows = 0;
    for (query, (key, value)) in QUERIES.into_iter().zip(SPOILT.into_iter().cycle()) {
        let hidden = hidden(case, &clean, query);
        if hidden.is_empty() {
            continue;
        }
        rows += 1;
        let mut inputs = clean.clone();
        for (tensor, bad) in [(&mut inputs.k, key), (&mut inputs.v, value)] {
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

/// The keys that the mask hides from a query in every head.
fn hidden(case: &Case<'_>, inputs: &Inputs, query: u32) -> Vec<usize> {
    let Case { variant, problem, .. } = case;
    let data = inputs.captured();
    let captured = Captured::bind(variant.inputs, &data, &variant.heads, variant.source, problem)
        .expect("the inputs are the case's");
    let by_head = [Var::H, Var::G].into_iter().any(|var| variant.allow.reads(var));
    let is_hidden = |k: &usize| {
        (0..if by_head { variant.heads.query } else { 1 }).all(|h| {
            let scope = Scope {
                h: h as i32,
                g: (h / variant.heads.group()) as i32,
                q: problem.q_offset + query as i32,
                k: *k as i32,
                nq: problem.queries as i32,
                nk: problem.keys as i32,
                ..Scope::default()
            };
            eval(variant.allow, &scope, &captured) == Ok(Value::Bool(false))
        })
    };
    (0..problem.keys as usize).filter(is_hidden).collect()
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
