//! Formats of keys and values: within the bounds on what the cache holds, and near what it was given.

use regard::{Dtype, RowOf, Solo};
use regard_ir::bounds::{self, Quantity};
use regard_ir::cache::Codec;
use regard_ir::plan::Precision;
use regard_ir::spec::CacheFormat;
use regard_oracle::Tensor4;
use regard_oracle::sample::Sample;
use regard_testkit::{Case, Failure, Input, Inputs, Layout, Outputs};
use regard_tests::cached::{self, Filled};
use regard_tests::{engines, run, specs};

use crate::{KEYS, Sizes, attend, cached_as, named};

/// A case's inputs in f32, with what a cache holds of its keys and values.
fn held(case: &Case<'_>, inputs: &Inputs, filled: &Filled) -> Inputs {
    let read = |tensor: &Input, row: fn(usize) -> RowOf| {
        let [_, heads, tokens, width] = tensor.view().shape();
        let mut values = vec![0.0f32; heads * tokens * width];
        for (index, &sequence) in filled.sequences.iter().enumerate() {
            let of = case.problem.sequence(index as u32);
            for token in 0..of.keys as usize {
                for head in 0..heads {
                    let at = (head * tokens + of.first_key as usize + token) * width;
                    let to = &mut values[at..at + width];
                    assert_eq!(filled.cache.read(sequence, token, row(head), to), Ok(true));
                }
            }
        }
        Input::new(Dtype::F32, [1, heads, tokens, width], Layout::Bhnd, values)
    };
    let widened = |tensor: &Input| {
        let view = tensor.view();
        let [_, heads, tokens, _] = view.shape();
        let places = (0..heads).flat_map(|h| (0..tokens).map(move |n| (h, n)));
        let values = places.flat_map(|(h, n)| view.row(0, h, n)).map(|x| x as f32);
        Input::new(Dtype::F32, view.shape(), Layout::Bhnd, values.collect::<Vec<_>>())
    };
    Inputs {
        q: widened(&inputs.q),
        k: read(&inputs.k, RowOf::Key),
        v: read(&inputs.v, RowOf::Value),
        captured: inputs.captured.clone(),
        gate: inputs.gate.as_ref().map(widened),
    }
}

/// A case's outputs in f32.
fn widened(case: &Case<'_>, outputs: &Outputs) -> Outputs {
    let mut wide = Outputs { lse: outputs.lse.clone(), ..case.outputs() };
    let view = outputs.o.view();
    let [batch, heads, tokens, _] = view.shape();
    for (b, h, n) in
        (0..batch).flat_map(|b| (0..heads).flat_map(move |h| (0..tokens).map(move |n| (b, h, n))))
    {
        for (channel, x) in view.row(b, h, n).into_iter().enumerate() {
            wide.o.set([b, h, n, channel], x);
        }
    }
    wide
}

/// The root mean square of the difference of two outputs by that of the second, of the head where it is largest.
fn relative_rms(found: &Tensor4<'_>, expected: &Tensor4<'_>) -> f64 {
    let [_, heads, tokens, _] = expected.shape();
    let of_head = |h: usize| {
        let rows =
            |tensor: &Tensor4<'_>| -> Vec<f64> { (0..tokens).flat_map(|n| tensor.row(0, h, n)).collect() };
        let (found, expected) = (rows(found), rows(expected));
        let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
        let difference = squares(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
        (difference / squares(&mut expected.iter().copied())).sqrt()
    };
    (0..heads).map(of_head).fold(0.0, f64::max)
}

#[test]
fn every_format_holds_its_bounds() {
    use CacheFormat::{Dtype as Float, Int4, Int8};
    let formats = [
        (Int8, Int8, 64),
        (Int4, Int4, 64),
        (Int8, Int4, 16),
        (Int4, Float(Dtype::Bf16), 48),
        (Float(Dtype::F16), Int8, 80),
        (Float(Dtype::F16), Float(Dtype::F16), 32),
        (Float(Dtype::Bf16), Float(Dtype::F32), 160),
        (Float(Dtype::F32), Float(Dtype::Bf16), 1024),
    ];
    // None of them turns or norms keys, so that the oracle can be asked about what the cache holds.
    let names = [
        "causal",
        "sliding_window",
        "alibi",
        "softcap_bias",
        "document",
        "mqa",
        "attention_sink",
        "sigmoid",
        "cross",
    ];
    let mut seed = 0;
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for entry in engines::serving(dtype) {
            for ((k, v, page), name) in formats.into_iter().zip(names.iter().cycle().skip(seed as usize)) {
                seed += 1;
                let spec = specs::narrow(named(name), 72, 40);
                let kernel = run::compile(&cached_as(spec, k, v, page), entry, dtype);
                let queries = [1, 5][seed as usize % 2];
                let sizes = Sizes::new(&KEYS[4..], queries);
                let case = sizes.case(&kernel, seed);
                let inputs = case.inputs();
                let filled = cached::fill(&kernel, &case, &inputs, 100).expect("a case is small");
                let outputs = attend(&kernel, &case, &inputs, &filled, &Solo);
                let told = || format!("{} in {:?}", run::describe(name, entry, &case), kernel.plan().cache);
                let cache = kernel.plan().cache;
                let storage = bounds::bound(Quantity::Output, dtype, Precision::Exact, 0.0);
                let of = |codec| bounds::cached(codec, dtype).unwrap_or(storage);
                let rms = of(cache.k).max(of(cache.v));
                let sample = Sample::new(&case.problem, &case.variant.heads, 1, seed);
                // Queries and weights of 16 bits leave more than f32 does, and less than any bound on 16-bit storage.
                let of_integers =
                    [cache.k, cache.v].iter().any(|codec| matches!(codec, Codec::Int8 | Codec::Int4));
                let allowed = if of_integers && dtype == Dtype::F32 { Dtype::F16 } else { dtype };
                let wide = Case { dtype: Dtype::F32, ..case };
                match wide.judge(&held(&case, &inputs, &filled), &widened(&wide, &outputs), &sample) {
                    Ok(_) => {}
                    Err(Failure::Bound(report)) if report.share() <= loosened(allowed) => {}
                    Err(error) => panic!("{}: {error}", told()),
                }
                let exact = run::run(&kernel, &case, &inputs, &Solo).expect("a case that was judged");
                let found = relative_rms(&outputs.o.view(), &exact.o.view());
                assert!(found <= rms, "{}: {found:.1e} of {rms:.1e}", told());
            }
        }
    }
}

/// How much wider the bounds of a storage type are than those of f32.
fn loosened(dtype: Dtype) -> f64 {
    let of = |dtype| bounds::bound(Quantity::Output, dtype, Precision::Exact, 0.0);
    of(dtype) / of(Dtype::F32)
}
