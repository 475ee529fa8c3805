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
    let slope = |head| (exact::alibi_slope(head, heads) as f32).to_bits() as i32;
    // Lanes next to each other are mostly rows of one head, and a slope takes longer than all else of a score.
    let mut known: Option<(i32, i32)> = None;
    let slopes = head.map(|head| match known {
        Some((of, slope)) if of == head => slope,
        _ => known.insert((head, slope(head))).1,
    });
    slopes.from_bits()
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
    match captured.uniform_dims(input as usize) {
        Some(dims) => gather_uniform(captured, input, index, &dims, each),
        None => {
            for (lane, to) in each.iter_mut().enumerate() {
                *to = element(captured, input, index, lane);
            }
        }
    }
    I32::from_raw(lanes, elements)
}

/// The most lanes of a vector.
const MAX_LANES: usize = 16;

/// [`gather`] where all sequences have the same lengths: places are found for all lanes at once.
#[inline(always)]
fn gather_uniform<L: Lanes>(
    captured: &Captured<'_>,
    input: u16,
    index: &[I32<L>],
    dims: &[u32; MAX_AXES],
    to: &mut [i32],
) {
    let (mut places, mut inside) = ([0usize; MAX_LANES], [true; MAX_LANES]);
    for (index, &len) in index.iter().zip(dims) {
        let raw = index.raw();
        let index: &[i32] = bytemuck::cast_slice(core::slice::from_ref(&raw));
        for ((place, inside), &i) in places.iter_mut().zip(&mut inside).zip(index) {
            *inside &= (i as u32) < len;
            *place = place.wrapping_mul(len as usize).wrapping_add(i as u32 as usize);
        }
    }
    let places = places.iter().zip(&inside).map(|(&place, &inside)| if inside { place } else { usize::MAX });
    match captured.data(input as usize) {
        InputData::F32(data) => pick(data, places, to, |x| x.to_bits() as i32),
        InputData::I32(data) => pick(data, places, to, |x| x),
        InputData::Bool(data) => pick(data, places, to, bits_of),
    }
}

/// The bits of the elements at some places; 0 where there is none.
#[inline(always)]
fn pick<T: Copy>(data: &[T], places: impl Iterator<Item = usize>, to: &mut [i32], bits: impl Fn(T) -> i32) {
    for (to, place) in to.iter_mut().zip(places) {
        *to = data.get(place).map_or(0, |&x| bits(x));
    }
}

/// A bool as bits: −1 for true.
const fn bits_of(byte: u8) -> i32 {
    -((byte != 0) as i32)
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
        InputData::Bool(data) => bits_of(data[offset]),
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
