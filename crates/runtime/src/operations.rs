//! What operations do to lanes where `regard-simd` has no operator for them, for interpreted and generated variants
//! alike.

use pulp::bytemuck;
use regard_ir::exact;
use regard_ir::expr::{Binary, MAX_AXES, Unary};
use regard_ir::inputs::{Captured, InputData};
use regard_simd::{F32, I32, Lanes, Mask};

/// The bool whose bits are 0 or −1.
#[inline(always)]
pub fn truth<L: Lanes>(bits: I32<L>) -> Mask<L> {
    bits.lt(bits.like(0))
}

/// The absolute value; that of the smallest int is itself.
#[inline(always)]
pub fn abs<L: Lanes>(x: I32<L>) -> I32<L> {
    let zero = x.like(0);
    x.lt(zero).select_i32(zero - x, x)
}

/// `a // b`: rounded down, 0 by zero.
#[inline(always)]
pub fn floor_div<L: Lanes>(a: I32<L>, b: I32<L>) -> I32<L> {
    a.zip(b, exact::floor_div)
}

/// `a % b` with the sign of the divisor, 0 by zero.
#[inline(always)]
pub fn floor_rem<L: Lanes>(a: I32<L>, b: I32<L>) -> I32<L> {
    a.zip(b, exact::floor_rem)
}

/// A function that has no lane form, or whose result decides something: each lane through the one scalar routine.
#[inline(always)]
pub fn exactly<L: Lanes>(op: Unary, x: F32<L>) -> F32<L> {
    x.map(|x| exact::unary(op, x))
}

/// `a` to the power `b`, each lane through the one scalar routine.
#[inline(always)]
pub fn pow<L: Lanes>(a: F32<L>, b: F32<L>) -> F32<L> {
    a.zip(b, |a, b| exact::binary(Binary::Pow, a, b))
}

/// The ALiBi slope of each head among `heads`.
#[inline(always)]
pub fn alibi<L: Lanes>(head: I32<L>, heads: u32) -> F32<L> {
    head.map(|head| (exact::alibi_slope(head, heads) as f32).to_bits() as i32).from_bits()
}

/// `if_true` where the lane is set, else `if_false`.
#[inline(always)]
pub fn select_mask<L: Lanes>(condition: Mask<L>, if_true: Mask<L>, if_false: Mask<L>) -> Mask<L> {
    condition & if_true | !condition & if_false
}

/// Whether both are set or neither is.
#[inline(always)]
pub fn same<L: Lanes>(a: Mask<L>, b: Mask<L>) -> Mask<L> {
    select_mask(a, b, !b)
}

/// The bits of an element of a captured input for each lane: 0 where the index leaves the axes, −1 for true.
#[inline(always)]
pub fn gather<L: Lanes>(lanes: L, captured: &Captured<'_>, input: u16, index: &[I32<L>]) -> I32<L> {
    let mut elements = I32::splat(lanes, 0).raw();
    let each = bytemuck::cast_slice_mut::<_, i32>(core::slice::from_mut(&mut elements));
    for (lane, to) in each.iter_mut().enumerate() {
        *to = element(captured, input, index, lane);
    }
    I32::from_raw(lanes, elements)
}

/// As [`gather`], where all lanes have the same index.
#[inline(always)]
pub fn broadcast<L: Lanes>(lanes: L, captured: &Captured<'_>, input: u16, index: &[I32<L>]) -> I32<L> {
    I32::splat(lanes, element(captured, input, index, 0))
}

#[inline(always)]
fn element<L: Lanes>(captured: &Captured<'_>, input: u16, index: &[I32<L>], lane: usize) -> i32 {
    bits(captured, input, &indices(index, lane)[..index.len()])
}

#[inline(always)]
fn indices<L: Lanes>(index: &[I32<L>], lane: usize) -> [i32; MAX_AXES] {
    let mut at = [0; MAX_AXES];
    for (at, index) in at.iter_mut().zip(index) {
        *at = index.lane(lane);
    }
    at
}

fn bits(captured: &Captured<'_>, input: u16, index: &[i32]) -> i32 {
    let input = input as usize;
    let Some(offset) = captured.offset(input, index) else { return 0 };
    match captured.data(input) {
        InputData::F32(data) => data[offset].to_bits() as i32,
        InputData::I32(data) => data[offset],
        InputData::Bool(data) => -((data[offset] != 0) as i32),
    }
}

/// Whether an index leaves the axes of a captured input.
#[inline(always)]
pub fn outside<L: Lanes>(lanes: L, captured: &Captured<'_>, input: u16, index: &[I32<L>]) -> Mask<L> {
    let Some(dims) = captured.uniform_dims(input as usize) else {
        return outside_packed(lanes, captured, input, index);
    };
    let mut outside = Mask::splat(lanes, false);
    for (&i, &len) in index.iter().zip(&dims) {
        let len = i.like(len.min(i32::MAX as u32) as i32);
        outside = outside | i.lt(i.like(0)) | len.le(i);
    }
    outside
}

/// [`outside`] where sequences have lengths of their own: an index is looked up lane by lane.
#[inline(always)]
fn outside_packed<L: Lanes>(lanes: L, captured: &Captured<'_>, input: u16, index: &[I32<L>]) -> Mask<L> {
    let mut outside = I32::splat(lanes, 0).raw();
    let each = bytemuck::cast_slice_mut::<_, i32>(core::slice::from_mut(&mut outside));
    for (lane, to) in each.iter_mut().enumerate() {
        *to = leaves(captured, input, &indices(index, lane)[..index.len()]);
    }
    I32::from_raw(lanes, outside).lt(I32::splat(lanes, 0))
}

/// −1 where an index leaves the axes, else 0.
fn leaves(captured: &Captured<'_>, input: u16, index: &[i32]) -> i32 {
    -(captured.offset(input as usize, index).is_none() as i32)
}
