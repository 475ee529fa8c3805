//! Storage types of queries, keys, values and outputs.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use regard_ir::plan::Dtype;
use regard_simd::{F32, Lanes, load_f32, vectors, vectors_mut};

/// A storage type: how its rows become f32 and back.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// Its name in plans.
    const DTYPE: Dtype;

    /// The row as floats: itself where it is stored so, else widened into `scratch`, which is at least as long.
    fn widen<'a, L: Lanes>(lanes: L, row: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32];

    /// The first vector of a row, as floats.
    ///
    /// # Panics
    /// If the row is shorter than a vector.
    fn load<L: Lanes>(lanes: L, row: &[Self]) -> F32<L>;

    /// Writes the row as floats to `to`, which is as long.
    #[inline(always)]
    fn widen_into<L: Lanes>(lanes: L, row: &[Self], to: &mut [f32]) {
        Self::widen(lanes, row, to);
    }

    /// The row's bits, where it is stored as bf16.
    #[inline(always)]
    fn bf16_bits(_row: &[Self]) -> Option<&[u16]> {
        None
    }

    /// The nearest value, ties to even.
    fn narrow(x: f32) -> Self;

    /// Writes the nearest values of a row of floats, which is as long, ties to even.
    #[inline(always)]
    fn narrow_into<L: Lanes>(_lanes: L, row: &[f32], to: &mut [Self]) {
        for (to, &x) in to.iter_mut().zip(row) {
            *to = Self::narrow(x);
        }
    }

    /// One value as a float.
    fn to_f32(self) -> f32;
}

/// Widens a row vector by vector, and the rest one by one.
#[inline(always)]
fn widen_row<'a, L: Lanes, T: Element>(lanes: L, row: &[T], scratch: &'a mut [f32]) -> &'a [f32] {
    let scratch = &mut scratch[..row.len()];
    let whole = row.len() / L::WIDTH * L::WIDTH;
    let (body, tail) = scratch.split_at_mut(whole);
    for (row, to) in row.chunks_exact(L::WIDTH).zip(vectors_mut(lanes, body)) {
        *to = T::load(lanes, row).raw();
    }
    for (&x, to) in row[whole..].iter().zip(tail) {
        *to = x.to_f32();
    }
    scratch
}

/// Narrows whole vectors of floats to the bits of the nearest binary16.
#[inline(always)]
pub(crate) fn store_f16<L: Lanes>(lanes: L, floats: &[f32], to: &mut [u16]) {
    for (&x, to) in vectors(lanes, floats).iter().zip(to.chunks_exact_mut(L::WIDTH)) {
        lanes.store_f16(x, to);
    }
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;

    #[inline(always)]
    fn widen<'a, L: Lanes>(_: L, row: &'a [f32], _: &'a mut [f32]) -> &'a [f32] {
        row
    }

    #[inline(always)]
    fn load<L: Lanes>(lanes: L, row: &[f32]) -> F32<L> {
        load_f32(lanes, row)
    }

    #[inline(always)]
    fn widen_into<L: Lanes>(_: L, row: &[f32], to: &mut [f32]) {
        to.copy_from_slice(row);
    }

    #[inline(always)]
    fn narrow(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for f16 {
    const DTYPE: Dtype = Dtype::F16;

    #[inline(always)]
    fn widen<'a, L: Lanes>(lanes: L, row: &'a [f16], scratch: &'a mut [f32]) -> &'a [f32] {
        widen_row(lanes, row, scratch)
    }

    #[inline(always)]
    fn load<L: Lanes>(lanes: L, row: &[f16]) -> F32<L> {
        F32::from_raw(lanes, lanes.load_f16(row.reinterpret_cast()))
    }

    #[inline(always)]
    fn narrow(x: f32) -> f16 {
        f16::from_f32(x)
    }

    /// By the instruction of the set, which `narrow` has to do without.
    #[inline(always)]
    fn narrow_into<L: Lanes>(lanes: L, row: &[f32], to: &mut [f16]) {
        let whole = row.len() / L::WIDTH * L::WIDTH;
        store_f16(lanes, &row[..whole], to.reinterpret_cast_mut());
        for (to, &x) in to.iter_mut().zip(row).skip(whole) {
            *to = Self::narrow(x);
        }
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;

    #[inline(always)]
    fn widen<'a, L: Lanes>(lanes: L, row: &'a [bf16], scratch: &'a mut [f32]) -> &'a [f32] {
        widen_row(lanes, row, scratch)
    }

    #[inline(always)]
    fn load<L: Lanes>(lanes: L, row: &[bf16]) -> F32<L> {
        F32::from_raw(lanes, lanes.load_bf16(row.reinterpret_cast()))
    }

    #[inline(always)]
    fn bf16_bits(row: &[bf16]) -> Option<&[u16]> {
        Some(row.reinterpret_cast())
    }

    #[inline(always)]
    fn narrow(x: f32) -> bf16 {
        // As `bf16::from_f32`, in fewer steps: a loop over it is one over vectors.
        let bits = x.to_bits();
        let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        let quiet = bits | 0x0040_0000;
        let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
        bf16::from_bits((if is_nan { quiet } else { nearest } >> 16) as u16)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowed_to_bf16_is_the_nearest() {
        let lower = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
        for bits in (0..=u32::from(u16::MAX)).flat_map(|upper| lower.map(|lower| upper << 16 | lower)) {
            let x = f32::from_bits(bits);
            assert_eq!(<bf16 as Element>::narrow(x).to_bits(), bf16::from_f32(x).to_bits(), "{bits:x}");
        }
    }
}
