//! Seeded inputs of the kind that the bounds are stated for.

use regard_ir::inputs::{self, InputData};
use regard_ir::operands::{Operand, Rows};
use regard_ir::problem::Problem;
use regard_ir::rows::Frequencies;
use regard_ir::variant::{Axis, InputType, Pseudo, Recurrence, Source, Turned, Variant};

/// Independent N(0, 1) numbers, the same for a seed on every platform.
///
/// Box and Muller's transform of uniform numbers, with the logarithm, cosine and sine of `libm`.
pub fn normal(seed: u64) -> impl Iterator<Item = f32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    // Each two uniform numbers make two, of which the second waits.
    let mut waiting = None;
    std::iter::repeat_with(move || {
        waiting.take().unwrap_or_else(|| {
            let radius = libm::sqrt(-2.0 * libm::log(1.0 - rng.f64()));
            let (sin, cos) = libm::sincos(std::f64::consts::TAU * rng.f64());
            waiting = Some((radius * sin) as f32);
            (radius * cos) as f32
        })
    })
}

/// Plausible elements for an operand of sequences of so many keys: rows of N(0, 1), and matrices that make such rows of such
/// rows. What tokens teach lookahead keys is as much less as there are more of them.
pub fn operand(operand: &Operand, keys: u32, seed: u64) -> impl Iterator<Item = f32> {
    let scale = match operand.rows {
        Rows::Keys if operand.name == Turned::VU.name() => 1.0 / (keys.max(1) as f32).sqrt(),
        Rows::Queries | Rows::Keys => 1.0,
        Rows::Matrix(_) => 1.0 / (operand.width as f32).sqrt(),
    };
    normal(seed).map(move |x| scale * x)
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

/// Plausible elements for a captured input of a variant.
///
/// Floats are N(0, 1) and bools are coins. Ints along a last axis `q` or `k` are document ids that start at 0 and
/// rise by one here and there, four documents to a row on average; other ints are lengths from 1 to nk. What a table
/// reads is as a model has it: see [`Role`]. Of a variant in pseudo-heads, the problem counts virtual tokens.
pub fn captured(variant: &Variant<'_>, problem: &Problem<'_>, input: usize, seed: u64) -> CapturedBuffer {
    let shape = &variant.inputs[input];
    let shapes = core::slice::from_ref(shape);
    let len = inputs::lens(shapes, &variant.heads, variant.source, problem).sum();
    let mut rng = fastrand::Rng::with_seed(seed);
    let floats = |of: &dyn Fn(f32) -> f32| CapturedBuffer::F32(normal(seed).take(len).map(of).collect());
    match (shape.dtype, Role::of(variant, input), shape.axes().last()) {
        (InputType::F32, Role::Factors, _) => floats(&|x| 1.0 + 0.1 * x),
        (InputType::F32, Role::Decay, _) => floats(&|x| -libm::expf(1.5 * x - 3.0)),
        (InputType::F32, Role::Strength, _) => floats(&|x| 1.0 / (1.0 + libm::expf(-x))),
        (InputType::F32, Role::Mix, _) => {
            let heads = variant.heads.query as usize;
            let noise = 0.25 / (heads as f32).sqrt();
            let factor = |(at, x)| if at / heads % heads == at % heads { 1.0 + noise * x } else { noise * x };
            CapturedBuffer::F32(normal(seed).take(len).enumerate().map(factor).collect())
        }
        (InputType::F32, Role::PseudoHeads { sources }, _) => {
            let heads = variant.heads.query as usize;
            let per_token = variant.per_token() as usize;
            let (noise, group) = (0.25 / (sources as f32).sqrt(), heads / sources);
            let factor = |(at, x)| {
                let (source, head) = (at / per_token / heads, at / per_token % heads);
                if source == head / group { 1.0 + noise * x } else { noise * x }
            };
            CapturedBuffer::F32(normal(seed).take(len).enumerate().map(factor).collect())
        }
        (InputType::F32, Role::Collapse, _) => {
            let heads = variant.heads.query as usize;
            let per_token = variant.per_token() as usize;
            let (share, noise) = (1.0 / per_token as f32, 0.25 / ((heads * per_token) as f32).sqrt());
            let factor = |(at, x)| {
                let (to, from) = (at / (heads * per_token), at / per_token % heads);
                if to == from { share + noise * x } else { noise * x }
            };
            CapturedBuffer::F32(normal(seed).take(len).enumerate().map(factor).collect())
        }
        (InputType::F32, Role::Frequencies, _) => {
            let frequency = |t| libm::pow(10_000.0, -(t as f64) / len as f64) as f32;
            CapturedBuffer::F32((0..len).map(frequency).collect())
        }
        (InputType::F32, _, _) => floats(&|x| x),
        (InputType::Bool, _, _) => CapturedBuffer::Bool((0..len).map(|_| rng.u8(0..2)).collect()),
        (InputType::I32, role, Some(axis @ (Axis::Query | Axis::Key))) => {
            let by_query = *axis == Axis::Query && variant.source == Source::Cross;
            let row = if by_query { problem.queries } else { problem.keys } as usize;
            let packed = problem.packed.map(|it| if by_query { it.cu_q() } else { it.cu_k() });
            let mut id = 0;
            let ids = (0..len).map(|i| {
                let starts = packed.map_or(i % row == 0, |starts| starts.contains(&(i as i32)));
                let new_document = !starts && rng.usize(0..row) < 3;
                id = match role {
                    _ if starts => 0,
                    Role::Positions if new_document => 0,
                    Role::Positions => id + 1,
                    _ => id + i32::from(new_document),
                };
                id
            });
            CapturedBuffer::I32(ids.collect())
        }
        (InputType::I32, _, _) => {
            CapturedBuffer::I32((0..len).map(|_| rng.i32(1..=(problem.keys as i32).max(1))).collect())
        }
    }
}

/// What reads a captured input.
enum Role {
    /// Expressions, or a sink, which is a logit like any other.
    Expressions,
    /// A learned norm: factors 1 + N(0, 0.1²).
    Factors,
    /// A mix of heads: each output its own query head and N(0, 1/16) of all together. Heads that agree, as where few
    /// keys are seen, do not cancel.
    Mix,
    /// Mixes into pseudo-heads, from so many heads: each pseudo-head its own head's rows and N(0, 1/16) of all together, so
    /// that scores are about as large as without.
    PseudoHeads { sources: usize },
    /// The collapse of pseudo-heads: the mean of a head's own, and N(0, 1/16) of all together.
    Collapse,
    /// The decay of a state: logs of a log-normal size, half of them above −0.05 and a few below −1.
    Decay,
    /// How strongly a delta rule writes: a sigmoid of N(0, 1).
    Strength,
    /// Rope, as positions: they count up from 0 in each of about four documents.
    Positions,
    /// Rope, as frequencies: 10000^(−2t/dim).
    Frequencies,
}

impl Role {
    fn of(variant: &Variant<'_>, input: usize) -> Self {
        let is = |index: u16| usize::from(index) == input;
        let output = &variant.output;
        let norms = variant.qk_norm.and_then(|norm| norm.learned).into_iter().flatten();
        if norms.chain(output.norm.and_then(|norm| norm.learned)).any(is) {
            return Role::Factors;
        }
        if let Some(Pseudo { mix: [q, k, v], collapse, .. }) = variant.pseudo() {
            let [query, kv] = [variant.heads.query, variant.heads.kv].map(|n| n as usize);
            match () {
                () if is(q) => return Role::PseudoHeads { sources: query },
                () if is(k) || is(v) => return Role::PseudoHeads { sources: kv },
                () if is(collapse) => return Role::Collapse,
                () => {}
            }
        }
        if let Some(Recurrence { decay, delta, .. }) = variant.recurrence() {
            match () {
                () if decay.input().is_some_and(is) => return Role::Decay,
                () if delta.is_some_and(is) => return Role::Strength,
                () => {}
            }
        }
        match variant.position {
            _ if output.mix.is_some_and(|mix| is(mix.input)) => Role::Mix,
            Some(position) if position.ids.is_some_and(is) => Role::Positions,
            Some(position) if matches!(position.frequencies, Frequencies::Input(index) if is(index)) => {
                Role::Frequencies
            }
            _ => Role::Expressions,
        }
    }
}

#[cfg(test)]
mod tests {
    use regard_ir::expr::{Expr, Op, Type, Var};
    use regard_ir::identity::Identity;
    use regard_ir::rows::{Mix, NormKind, Output, OutputNorm, Position, QkNorm, RopeLayout};
    use regard_ir::variant::{Heads, InputShape, Mechanism, Weights};

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

    /// What two sequences of 100 keys capture, where the tables of `change` read inputs of these shapes.
    fn drawn(shapes: &[InputShape], change: impl FnOnce(&mut Variant<'_>)) -> Vec<CapturedBuffer> {
        let (modify, allow) =
            (Expr::leaf(Op::Var(Var::S), Type::Float), Expr::leaf(Op::Bool(true), Type::Bool));
        let mut variant = Variant {
            identity: Identity(0),
            heads: Heads { query: 16, kv: 1, value: 1, dim: 8, value_dim: 8 },
            source: Source::SelfAttention,
            position: None,
            qk_norm: None,
            scale: 1.0,
            modify: modify.tree(),
            allow: allow.tree(),
            weights: Weights::Sigmoid,
            mechanism: Mechanism::Plain,
            output: Output::default(),
            inputs: shapes,
        };
        change(&mut variant);
        let problem = Problem::prefill(Source::SelfAttention, 2, 5, 100).unwrap();
        (0..shapes.len()).map(|input| captured(&variant, &problem, input, 7)).collect()
    }

    fn ints(buffer: &CapturedBuffer) -> &[i32] {
        let CapturedBuffer::I32(data) = buffer else { panic!("{buffer:?}") };
        data
    }

    fn floats(buffer: &CapturedBuffer) -> &[f32] {
        let CapturedBuffer::F32(data) = buffer else { panic!("{buffer:?}") };
        data
    }

    #[test]
    fn document_ids_rise_and_lengths_lie_in_the_keys() {
        let shape = |axes: &[Axis]| InputShape::new(InputType::I32, axes);
        let drawn = drawn(&[shape(&[Axis::Batch, Axis::Query]), shape(&[Axis::Batch])], |_| {});
        let docs = ints(&drawn[0]);
        assert_eq!(docs.len(), 200);
        for row in docs.chunks(100) {
            assert_eq!(row[0], 0);
            assert!(row.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1));
        }
        assert!(docs.iter().any(|&id| id > 0));
        let lens = ints(&drawn[1]);
        assert!(lens.len() == 2 && lens.iter().all(|len| (1..=100).contains(len)));
    }

    #[test]
    fn inputs_of_tables_are_as_models_have_them() {
        let shapes = [
            InputShape::new(InputType::I32, &[Axis::Batch, Axis::Key]),
            InputShape::new(InputType::F32, &[Axis::Len(2)]),
            InputShape::new(InputType::F32, &[Axis::Len(8)]),
            InputShape::new(InputType::F32, &[Axis::Len(8)]),
            InputShape::new(InputType::F32, &[Axis::Len(2), Axis::Head]),
            InputShape::new(InputType::F32, &[Axis::Len(8)]),
        ];
        let drawn = drawn(&shapes, |variant| {
            variant.position = Some(Position {
                frequencies: Frequencies::Input(1),
                dim: 4,
                layout: RopeLayout::Half,
                offset: 0,
                ids: Some(0),
            });
            variant.qk_norm = Some(QkNorm {
                kind: NormKind::Rms,
                eps: 0.0,
                learned: Some([2, 3]),
                all_heads: false,
                after_rope: false,
            });
            variant.output.mix = Some(Mix { heads: 2, input: 4 });
            variant.output.norm = Some(OutputNorm { eps: 0.0, learned: Some(5) });
        });
        let ids = ints(&drawn[0]);
        assert!(ids.chunks(100).all(|row| row[0] == 0));
        assert!(ids.windows(2).all(|pair| pair[1] == 0 || pair[1] == pair[0] + 1));
        assert!(ids.iter().filter(|&&id| id == 0).count() > 2);
        assert_eq!(floats(&drawn[1]), [1.0, 0.01]);
        for norm in [2, 3, 5] {
            assert!(floats(&drawn[norm]).iter().all(|x| (0.5..1.5).contains(x)), "{:?}", drawn[norm]);
        }
        let mix = floats(&drawn[4]);
        let squares: f32 = mix.iter().map(|x| x * x).sum();
        assert!(mix.len() == 32 && (0.5..4.0).contains(&squares), "{squares} of 32/16");
    }
}
