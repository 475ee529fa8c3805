//! Seeded inputs of the kind that the bounds are stated for.

use regard_ir::inputs::InputData;
use regard_ir::problem::Problem;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Source};

/// Independent N(0, 1) numbers, the same for a seed on every platform.
///
/// Box and Muller's transform of uniform numbers, with the logarithm, cosine and sine of `libm`.
pub fn normal(seed: u64) -> impl Iterator<Item = f32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(move || {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - rng.f64()));
        let angle = std::f64::consts::TAU * rng.f64();
        [(radius * libm::cos(angle)) as f32, (radius * libm::sin(angle)) as f32]
    })
    .flatten()
}

/// The elements of one captured input, owned.
#[derive(Clone, Debug, PartialEq)]
pub enum CapturedBuffer {
    /// binary32.
    F32(Vec<f32>),
    /// 32-bit integers.
    I32(Vec<i32>),
    /// Bytes; anything but 0 is true.
    Bool(Vec<u8>),
}

impl CapturedBuffer {
    /// The view that a problem binds.
    pub fn data(&self) -> InputData<'_> {
        match self {
            CapturedBuffer::F32(data) => InputData::F32(data),
            CapturedBuffer::I32(data) => InputData::I32(data),
            CapturedBuffer::Bool(data) => InputData::Bool(data),
        }
    }
}

/// Plausible elements for a captured input.
///
/// Floats are N(0, 1) and bools are coins. Ints along a last axis `q` or `k` are document ids that start at 0 and
/// rise by one here and there, four documents to a row on average; other ints are lengths from 1 to nk.
pub fn captured(
    shape: &InputShape,
    heads: &Heads,
    source: Source,
    problem: &Problem,
    seed: u64,
) -> CapturedBuffer {
    let axis_len = |axis: &Axis| match *axis {
        Axis::Batch => problem.batch,
        Axis::Head => heads.query,
        Axis::KvHead => heads.kv,
        Axis::Query => problem.query_axis(source),
        Axis::Key => problem.keys,
        Axis::Len(len) => len,
    } as usize;
    let len = shape.axes().iter().map(axis_len).product();
    let mut rng = fastrand::Rng::with_seed(seed);
    match (shape.dtype, shape.axes().last()) {
        (InputType::F32, _) => CapturedBuffer::F32(normal(seed).take(len).collect()),
        (InputType::Bool, _) => CapturedBuffer::Bool((0..len).map(|_| rng.u8(0..2)).collect()),
        (InputType::I32, Some(axis @ (Axis::Query | Axis::Key))) => {
            let row = axis_len(axis);
            let mut id = 0;
            let ids = (0..len).map(|i| {
                let starts = i % row == 0;
                id = if starts { 0 } else { id + i32::from(rng.usize(0..row) < 3) };
                id
            });
            CapturedBuffer::I32(ids.collect())
        }
        (InputType::I32, _) => {
            CapturedBuffer::I32((0..len).map(|_| rng.i32(1..=(problem.keys as i32).max(1))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let numbers: Vec<f64> = normal(1).take(1 << 16).map(f64::from).collect();
        let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
        let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / numbers.len() as f64;
        // Five standard errors of each.
        assert!(mean.abs() < 5.0 / 256.0, "mean {mean}");
        assert!((variance - 1.0).abs() < 5.0 * (2f64).sqrt() / 256.0, "variance {variance}");
    }

    #[test]
    fn a_seed_gives_the_same_bits_everywhere() {
        let bits: Vec<u32> = normal(42).take(4).map(f32::to_bits).collect();
        assert_eq!(bits, [0xbfe2_3b7f, 0x3d91_f4c4, 0x3fe0_03bd, 0x3ee5_9587]);
        assert_ne!(bits, normal(43).take(4).map(f32::to_bits).collect::<Vec<_>>());
    }

    #[test]
    fn document_ids_rise_and_lengths_lie_in_the_keys() {
        let heads = Heads { query: 2, kv: 1, value: 1, dim: 8, value_dim: 8 };
        let problem = Problem::prefill(Source::SelfAttention, 3, 5, 100).unwrap();
        let shape = |axes: &[Axis]| {
            let mut padded = [Axis::Len(1); regard_ir::expr::MAX_AXES];
            padded[..axes.len()].copy_from_slice(axes);
            InputShape { dtype: InputType::I32, rank: axes.len() as u8, axes: padded }
        };
        let of = |axes: &[Axis]| match captured(&shape(axes), &heads, Source::SelfAttention, &problem, 7) {
            CapturedBuffer::I32(data) => data,
            other => panic!("{other:?}"),
        };
        let docs = of(&[Axis::Batch, Axis::Query]);
        assert_eq!(docs.len(), 300);
        for row in docs.chunks(100) {
            assert_eq!(row[0], 0);
            assert!(row.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1));
        }
        assert!(docs.iter().any(|&id| id > 0));
        let lens = of(&[Axis::Batch]);
        assert!(lens.len() == 3 && lens.iter().all(|len| (1..=100).contains(len)));
    }
}
