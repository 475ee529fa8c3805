//! What a cache holds of keys and values, and how near outputs are to it and to what it was given.

use regard::{Dtype, Kernel, RowOf};
use regard_ir::bounds::{self, Quantity};
use regard_ir::cache::Codec;
use regard_ir::plan::Precision;
use regard_ir::variant::Mechanism;
use regard_oracle::sample::Sample;
use regard_oracle::{Keys, Tensor4};
use regard_testkit::{Case, Failure, Input, Inputs, Layout, Outputs};

use crate::cached::Filled;

/// A case's inputs in f32, with what a cache holds of its keys and values.
///
/// # Panics
/// If it does not hold them all.
pub fn inputs(kernel: &Kernel, case: &Case<'_>, inputs: &Inputs, filled: &Filled) -> Inputs {
    // Rows that are mixed before they are cached are those of virtual tokens and query heads.
    let mixed = case.variant.pseudo().filter(|_| kernel.plan().cache.mixed);
    let rows_of_token = mixed.map_or(1, |pseudo| pseudo.heads as usize);
    let read = |tensor: &Input, row: fn(usize) -> RowOf| {
        let [_, heads, tokens, width] = tensor.view().shape();
        let heads = mixed.map_or(heads, |_| case.variant.heads.query as usize);
        let tokens = tokens * rows_of_token;
        let mut values = vec![0.0f32; heads * tokens * width];
        for (index, &sequence) in filled.sequences.iter().enumerate() {
            let of = case.problem.sequence(index as u32);
            for token in 0..of.keys as usize * rows_of_token {
                for head in 0..heads {
                    let first = of.first_key as usize * rows_of_token;
                    let at = (head * tokens + first + token) * width;
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
        operands: match &inputs.operands[..] {
            [q_c, k_c, v_c, q_u, k_u, v_u] if inputs.of_lookahead => {
                let [k_c, v_c] = [read(k_c, RowOf::Key), read(v_c, RowOf::Value)];
                vec![widened(q_c), k_c, v_c, read(q_u, RowOf::Asks), widened(k_u), widened(v_u)]
            }
            [q, k, v] => vec![widened(q), read(k, RowOf::Key), read(v, RowOf::Value)],
            // A latent and its rotary key are one cached row.
            [q_nope, q_rope, c_kv, k_rope, w_uk, w_uv] => {
                let [rank, rope] = [c_kv, k_rope].map(|tensor| tensor.view().shape()[3]);
                let rows = read(&blank(c_kv, rank + rope), RowOf::Key);
                let [c_kv, k_rope] = [0..rank, rank..rank + rope].map(|channels| taken(&rows, channels));
                vec![widened(q_nope), widened(q_rope), c_kv, k_rope, widened(w_uk), widened(w_uv)]
            }
            other => panic!("{} operands", other.len()),
        },
        of_lookahead: inputs.of_lookahead,
        captured: inputs.captured.clone(),
        gate: inputs.gate.as_ref().map(widened),
        keys: if mixed.is_some() { Keys::Mixed } else { Keys::Cached },
    }
}

/// As many rows as a tensor has, of another width.
fn blank(like: &Input, width: usize) -> Input {
    let [_, heads, tokens, _] = like.view().shape();
    Input::new(Dtype::F32, [1, heads, tokens, width], Layout::Bhnd, core::iter::repeat(0.0))
}

/// Some channels of a tensor, in f32.
fn taken(from: &Input, channels: core::ops::Range<usize>) -> Input {
    let view = from.view();
    let [_, heads, tokens, _] = view.shape();
    let places = (0..heads).flat_map(|h| (0..tokens).map(move |n| (h, n)));
    let values = places.flat_map(|(h, n)| view.row(0, h, n)[channels.clone()].to_vec()).map(|x| x as f32);
    let shape = [1, heads, tokens, channels.len()];
    Input::new(Dtype::F32, shape, Layout::Bhnd, values.collect::<Vec<_>>())
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
pub fn relative_rms(found: &Tensor4<'_>, expected: &Tensor4<'_>) -> f64 {
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

/// Judges outputs by the oracle on the inputs that a cache holds, in f32, and says how far they are off by the largest.
///
/// # Errors
/// As [`Case::judge`].
pub fn judge(kernel: &Kernel, case: &Case<'_>, held: &Inputs, outputs: &Outputs) -> Result<f64, Failure> {
    let cache = kernel.plan().cache;
    // Queries and weights of 16 bits leave more than f32 does, and less than any bound on 16-bit storage.
    let of_integers = [cache.k, cache.v].iter().any(|codec| matches!(codec, Codec::Int8 | Codec::Int4));
    let allowed = if of_integers && case.dtype == Dtype::F32 { Dtype::F16 } else { case.dtype };
    let (wide, precision) = (Case { dtype: Dtype::F32, ..*case }, kernel.plan().precision());
    let sample = Sample::new(&case.problem, &case.variant.heads, 1, case.seed);
    match wide.judge_as(precision, held, &widened(&wide, outputs), &sample) {
        Err(Failure::Bound(report))
            if report.share() > loosened(&case.variant.mechanism, allowed, precision) =>
        {
            Err(Failure::Bound(report))
        }
        Ok(report) => Ok(report.output.error),
        Err(Failure::Bound(report)) => Ok(report.output.error),
        Err(failure) => Err(failure),
    }
}

/// How far the outputs of a head may be from those of what a cache was given, rms by rms.
pub fn allowed_rms(kernel: &Kernel) -> f64 {
    let (cache, dtype) = (kernel.plan().cache, kernel.plan().dtype);
    let storage = bounds::bound(Quantity::Output, dtype, Precision::Exact, 0.0);
    bounds::kept(&cache, dtype).unwrap_or(storage)
}

/// How much wider the bounds of a mechanism are in a storage type than in f32.
fn loosened(mechanism: &Mechanism<'_>, dtype: Dtype, precision: Precision) -> f64 {
    let of = |dtype| bounds::bound_of(mechanism, Quantity::Output, dtype, precision, 0.0);
    of(dtype) / of(Dtype::F32)
}
