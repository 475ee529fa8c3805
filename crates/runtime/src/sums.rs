//! What becomes of a row tile's sums: they are added up over cells, divided, and turned into rows.

use regard_engine::pack::PANEL;
use regard_ir::inputs::Captured;
use regard_ir::variant::Sink;
use regard_simd::{F32, Lanes, TRANSPOSE, load_f32, rows_apart, vectors_mut};

/// Turns eight lanes from `lane` on of an output, `[value_width][width]`, into rows of `value_width`.
#[inline(always)]
pub(crate) fn turn<L: Lanes>(
    lanes: L,
    output: &[f32],
    [lane, width]: [usize; 2],
    value_width: usize,
    to: &mut [f32],
) {
    if lane + TRANSPOSE > width {
        for (channel, lanes) in output.chunks_exact(width).enumerate() {
            for (i, &x) in lanes[lane..].iter().enumerate() {
                to[i * value_width + channel] = x;
            }
        }
        return;
    }
    for (panel, channels) in output.chunks_exact(PANEL * width).enumerate() {
        lanes.transpose(rows_apart(&channels[lane..], width), &mut to[panel * PANEL..], value_width);
    }
}

/// `a = a · a_factor + b · b_factor`, rows of `a` and `b` being as long as the factors.
#[inline(always)]
pub(crate) fn add_scaled<L: Lanes>(lanes: L, a: &mut [f32], a_factor: &[f32], b: &[f32], b_factor: &[f32]) {
    let width = a_factor.len();
    for (a, b) in a.chunks_exact_mut(width).zip(b.chunks_exact(width)) {
        for at in (0..width).step_by(L::WIDTH) {
            let old = load_f32(lanes, &a[at..]) * load_f32(lanes, &a_factor[at..]);
            let sum = old + load_f32(lanes, &b[at..]) * load_f32(lanes, &b_factor[at..]);
            vectors_mut(lanes, &mut a[at..at + L::WIDTH])[0] = sum.raw();
        }
    }
}

/// Divides each lane of `output`, `[value_width][width]`, by its sum; a sum of 0 gives 0.
#[inline(always)]
pub(crate) fn divide<L: Lanes>(lanes: L, output: &mut [f32], sum: &[f32], inverse: &mut [f32]) {
    let width = sum.len();
    let zero = F32::splat(lanes, 0.0);
    for at in (0..width).step_by(L::WIDTH) {
        let sum = load_f32(lanes, &sum[at..]);
        let inverse = &mut inverse[at..at + L::WIDTH];
        vectors_mut(lanes, inverse)[0] = sum.eq(zero).select(zero, F32::splat(lanes, 1.0) / sum).raw();
    }
    multiply(lanes, output, inverse);
}

/// Multiplies each lane of `output`, `[value_width][width]`, by its factor; a factor of 0 gives 0.
#[inline(always)]
pub(crate) fn multiply<L: Lanes>(lanes: L, output: &mut [f32], factors: &[f32]) {
    let width = factors.len();
    let zero = F32::splat(lanes, 0.0);
    for channel in output.chunks_exact_mut(width) {
        for at in (0..width).step_by(L::WIDTH) {
            let factor = load_f32(lanes, &factors[at..]);
            // Where nothing was added up the output is 0 whatever the values held: 0 · NaN must not be formed.
            let product = factor.eq(zero).select(zero, load_f32(lanes, &channel[at..]) * factor);
            vectors_mut(lanes, &mut channel[at..at + L::WIDTH])[0] = product.raw();
        }
    }
}

/// What turns a sum of values into an output when e^sink joins the sum of the weights: 2^reference over both sums. A sum
/// of 0 gives 0.
pub(crate) fn sunk_inverse(sum: f32, reference: f32, sink: f64) -> f32 {
    if sum == 0.0 {
        return 0.0;
    }
    let sink = sink * core::f64::consts::LOG2_E - reference as f64;
    (1.0 / (sum as f64 + libm::exp2(sink))) as f32
}

/// ln(sum · 2^reference + e^sink).
pub(crate) fn log_sum(sum: f32, reference: f32, sink: f64) -> f32 {
    if sum == 0.0 {
        return sink as f32;
    }
    let own = libm::log2(sum as f64) + reference as f64;
    if sink == f64::NEG_INFINITY {
        return (own * core::f64::consts::LN_2) as f32;
    }
    let own = own * core::f64::consts::LN_2;
    let largest = own.max(sink);
    (largest + libm::log1p(libm::exp(own.min(sink) - largest))) as f32
}

/// The logit that joins the sum of a query head.
pub(crate) fn logit(sink: Sink, head: i32, captured: &Captured<'_>) -> f64 {
    match sink {
        Sink::None => f64::NEG_INFINITY,
        Sink::One => 0.0,
        Sink::Learned { input } => {
            let logits = captured.floats(input).unwrap_or_default();
            logits.get(head as usize).map_or(f64::NEG_INFINITY, |&logit| logit.into())
        }
    }
}
