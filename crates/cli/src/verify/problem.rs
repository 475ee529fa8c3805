//! Problems that nobody gave: awkward sizes, seeded tensors.

use std::borrow::Cow;

use half::{bf16, f16};
use regard::{Dtype, Problem, Spec};
use regard_ir::operands::{Operand, Rows};
use regard_ir::plan::Blocks;
use regard_ir::problem::OwnedProblem;
use regard_ir::variant::{Axis, Heads, InputShape, InputType, Source, Variant};
use regard_oracle::random::{self, CapturedBuffer};

use crate::failure::Failure;
use crate::memory::{self, OutOfMemory};
use crate::tensors::signature::{Bound, Layout};
use crate::tensors::stored::{CapturedElements, Stored, StoredElements, StoredStates};

/// What random tensors are drawn from; each tensor adds its place.
const SEED: u64 = 0x7265_6761_7264;

/// Sizes of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Sequences.
    pub(crate) batch: usize,
    /// Queries of each.
    pub(crate) queries: usize,
    /// Keys of each.
    pub(crate) keys: usize,
}

impl Size {
    /// Sizes that find what a kernel forgets: nothing to attend to, more queries than keys, odd ones, one past each
    /// block of the plans.
    pub(crate) fn awkward<'a>(plans: impl Iterator<Item = &'a Blocks>) -> Vec<Size> {
        let size = |batch, queries, keys| Size { batch, queries, keys };
        let mut sizes = vec![size(1, 5, 0), size(2, 1, 1), size(1, 7, 3), size(3, 17, 101)];
        for blocks in plans {
            let edge = size(1, blocks.query_block as usize + 1, blocks.key_block as usize + 1);
            if !sizes.contains(&edge) {
                sizes.push(edge);
            }
        }
        sizes
    }
}

/// N(0, 1) tensors of a size, rounded to `dtype`, and plausible captured inputs; the same on every call.
///
/// # Errors
/// If no problem has that size, or there is no memory for it.
pub(crate) fn random(
    spec: &Spec,
    dtype: Dtype,
    size: Size,
    layout: Layout,
) -> Result<Bound<'static>, Failure> {
    let problem = Problem::prefill(spec.source, size.batch, size.queries, size.keys)?;
    tensors(spec, dtype, &problem, layout)
}

/// As [`random`], of a problem.
///
/// # Errors
/// If there is no memory for it.
pub(crate) fn tensors(
    spec: &Spec,
    dtype: Dtype,
    problem: &Problem<'_>,
    layout: Layout,
) -> Result<Bound<'static>, Failure> {
    let variant = spec.variant();
    let positions = OwnedProblem::spread(problem, variant.per_token())?;
    let positions = &positions.view();
    let heads = variant.heads;
    let [batch, queries, keys] = problem.extents();
    let output = |width| [batch, variant.output_heads(), queries, width];
    let operand = |operand: &Operand| {
        let (batch, rows) = match operand.rows {
            Rows::Queries => (batch, queries),
            Rows::Keys => (batch, keys),
            Rows::Matrix(rows) => (1, rows),
        };
        [batch, operand.heads.unwrap_or(1), rows, operand.width]
    };
    let operands: Vec<Operand> = variant.operands().collect();
    let shapes = operands.iter().map(operand);
    let gate = variant.output.gate.map(|gate| output(if gate.per_head { 1 } else { heads.value_dim }));
    let rows = shapes.chain([output(heads.value_dim)]).chain(gate);
    let rows = rows.map(|shape| elements(shape).saturating_mul(dtype.size_bytes() as u128));
    memory::ask(
        "the tensors of this problem",
        rows.fold(input_bytes(spec, positions), u128::saturating_add),
    )?;

    let drawn = |shape, layout: Layout, numbers: &mut dyn Iterator<Item = f32>| -> Result<_, OutOfMemory> {
        let elements = match dtype {
            Dtype::F32 => StoredElements::F32(taken(shape, numbers, |x| x)?.into()),
            Dtype::F16 => StoredElements::F16(taken(shape, numbers, f16::from_f32)?.into()),
            Dtype::Bf16 => StoredElements::Bf16(taken(shape, numbers, bf16::from_f32)?.into()),
        };
        let shape = shape.map(|n| n as usize);
        Ok(Stored { elements, shape, strides: layout.strides(shape) })
    };
    let gate_seed = SEED + (operands.len() + variant.inputs.len()) as u64;
    let rows = operands.iter().enumerate().map(|(at, of)| {
        // A matrix has no tokens that could lie outside of its heads.
        let layout = if matches!(of.rows, Rows::Matrix(_)) { Layout::Bhnd } else { layout };
        drawn(operand(of), layout, &mut random::operand(of, problem.keys, SEED + at as u64))
    });
    Ok(Bound {
        problem: problem.into(),
        layout,
        operands: rows.collect::<Result<_, _>>()?,
        captured: (0..variant.inputs.len()).map(|at| input(&variant, at, positions)).collect(),
        gate: gate.map(|shape| drawn(shape, layout, &mut random::normal(gate_seed))).transpose()?,
        start: None,
    })
}

/// States before the first tokens of a problem, of a spec with such: of N(0, 1/16), with sums of features that are all above 1.
///
/// # Errors
/// If there is no memory for them.
pub(crate) fn states(spec: &Spec, problem: &Problem<'_>) -> Result<Option<StoredStates<'static>>, Failure> {
    let Some(recurrence) = spec.variant().recurrence() else { return Ok(None) };
    let heads = spec.heads;
    let drawn = |shape: [u32; 4], seed, round: &dyn Fn(f32) -> f32| -> Result<_, OutOfMemory> {
        let elements = StoredElements::F32(taken(shape, &mut random::normal(seed), round)?.into());
        let shape = shape.map(|n| n as usize);
        Ok(Stored { elements, shape, strides: Layout::Bhnd.strides(shape) })
    };
    let of = |rows, width| [problem.batch, heads.value, rows, width];
    let state = drawn(of(heads.dim, heads.value_dim), SEED - 1, &|x| 0.25 * x)?;
    let norm = recurrence.normalize_eps.map(|_| drawn(of(1, heads.dim), SEED - 2, &|x| 1.0 + x.abs()));
    Ok(Some(StoredStates { state, norm: norm.transpose()? }))
}

/// Plausible elements of the captured input at `at`; the same on every call. Takes at most [`input_bytes`] of memory.
pub(crate) fn input(variant: &Variant<'_>, at: usize, problem: &Problem<'_>) -> CapturedElements<'static> {
    let seed = SEED + (variant.operands().count() + at) as u64;
    match random::captured(variant, problem, at, seed) {
        CapturedBuffer::F32(data) => CapturedElements::F32(Cow::Owned(data)),
        CapturedBuffer::I32(data) => CapturedElements::I32(Cow::Owned(data)),
        CapturedBuffer::Bool(data) => CapturedElements::Bool(Cow::Owned(data)),
    }
}

/// What all captured inputs of a problem take.
pub(crate) fn input_bytes(spec: &Spec, problem: &Problem<'_>) -> u128 {
    let bytes = |shape| input_len(shape, &spec.heads, spec.source, problem).saturating_mul(input_size(shape));
    spec.inputs.shapes.iter().map(bytes).fold(0, u128::saturating_add)
}

fn taken<T>(
    shape: [u32; 4],
    from: &mut dyn Iterator<Item = f32>,
    round: impl Fn(f32) -> T,
) -> Result<Vec<T>, OutOfMemory> {
    let len = elements(shape);
    let mut numbers = memory::reserved("a tensor of this problem", len)?;
    // What was reserved fits `usize`.
    numbers.extend(from.take(len as usize).map(round));
    Ok(numbers)
}

fn elements(shape: [u32; 4]) -> u128 {
    shape.iter().fold(1, |product, &n| product * u128::from(n))
}

fn input_len(shape: &InputShape, heads: &Heads, source: Source, problem: &Problem<'_>) -> u128 {
    let len = |axis: &Axis| match *axis {
        Axis::Batch => problem.batch,
        Axis::Head => heads.query,
        Axis::KvHead => heads.kv,
        Axis::Query => problem.query_axis(source),
        Axis::Key => problem.keys,
        Axis::Len(len) => len,
    };
    shape.axes().iter().fold(1, |product: u128, axis| product.saturating_mul(len(axis).into()))
}

fn input_size(shape: &InputShape) -> u128 {
    match shape.dtype {
        InputType::F32 | InputType::I32 => 4,
        InputType::Bool => 1,
    }
}

#[cfg(test)]
mod tests {
    use regard_ir::rows::{Gate, Mix};

    use super::*;
    use crate::tensors::stored::StoredElements;

    fn gqa() -> Spec {
        regard::shipped("gqa").unwrap().spec
    }

    #[test]
    fn a_size_gives_the_same_tensors_each_time_and_no_two_alike() {
        let size = Size { batch: 1, queries: 2, keys: 3 };
        let tensors = |layout| random(&gqa(), Dtype::Bf16, size, layout).unwrap();
        let (a, b) = (tensors(Layout::Bhnd), tensors(Layout::Bhnd));
        let bits = |stored: &Stored<'_>| match &stored.elements {
            StoredElements::Bf16(data) => data.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(bits(&a.operands[0]), bits(&b.operands[0]));
        assert_ne!(bits(&a.operands[1]), bits(&a.operands[2]));
        assert_eq!(a.operands[1].shape, [1, 8, 3, 128]);
        assert_eq!(tensors(Layout::Bnhd).operands[1].strides, [3072, 128, 1024, 1]);
    }

    #[test]
    fn gates_are_drawn_for_each_output_head() {
        let mut spec = gqa();
        spec.output.mix = Some(Mix { heads: 3, input: 0 });
        spec.inputs.names.push("mix".to_owned());
        spec.inputs.shapes.push(InputShape::new(InputType::F32, &[Axis::Len(3), Axis::Head]));
        let size = Size { batch: 2, queries: 2, keys: 3 };
        let gate = |spec: &Spec| random(spec, Dtype::F16, size, Layout::Bnhd).unwrap().gate.map(|g| g.shape);
        assert_eq!(gate(&spec), None);
        spec.output.gate = Some(Gate { per_head: false, silu: true });
        assert_eq!(gate(&spec), Some([2, 3, 2, 128]));
        spec.output.gate = Some(Gate { per_head: true, silu: true });
        assert_eq!(gate(&spec), Some([2, 3, 2, 1]));
    }

    #[test]
    fn sizes_past_all_memory_are_refused() {
        for (queries, keys) in [(1 << 30, 1), (i32::MAX as usize, i32::MAX as usize), (usize::MAX, 1)] {
            let size = Size { batch: i32::MAX as usize, queries, keys };
            assert!(random(&gqa(), Dtype::F32, size, Layout::Bhnd).is_err());
        }
    }
}
