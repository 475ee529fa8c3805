//! Storage types of queries, keys, values and outputs.

use core::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pulp::bytemuck;
use regard_ir::plan::Dtype;
use regard_simd::{F32, Lanes, load_f32, vectors, vectors_mut};

/// A storage type, `f32`, `f16` or `bf16` (of the crate `half`): how its elements become f32 and back.
pub trait Element: Copy + Default + Send + Sync + private::Sealed + 'static {
    /// Its name in plans.
    const DTYPE: Dtype;

    /// Elements of this type.
    fn elements(elements: &[Self]) -> Elements<'_>;

    /// The same to be written.
    fn elements_mut(elements: &mut [Self]) -> ElementsMut<'_>;

    /// The elements, if they are of this type.
    fn of<'a>(elements: Elements<'a>) -> Option<&'a [Self]>;

    /// The first vector of a row, as floats.
    ///
    /// # Panics
    /// If the row is shorter than a vector.
    fn load<L: Lanes>(lanes: L, row: &[Self]) -> F32<L>;

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

mod private {
    /// No other crate may implement it: kernels exist for the three types alone.
    pub trait Sealed {}
}

/// Elements of a tensor, or of a row of it, in the type that they are stored as.
///
/// What computes on floats asks for them here, row by row, and is compiled once for all types.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// In binary16.
    F16(&'a [f16]),
    /// In bfloat16.
    Bf16(&'a [bf16]),
}

/// The same of elements of any type.
macro_rules! of_each {
    ($self:expr, $elements:ident => $do:expr) => {
        match $self {
            Elements::F32($elements) => $do,
            Elements::F16($elements) => $do,
            Elements::Bf16($elements) => $do,
        }
    };
}

impl<'a> Elements<'a> {
    /// Their type.
    pub const fn dtype(self) -> Dtype {
        match self {
            Elements::F32(_) => Dtype::F32,
            Elements::F16(_) => Dtype::F16,
            Elements::Bf16(_) => Dtype::Bf16,
        }
    }

    /// How many there are.
    pub const fn len(self) -> usize {
        of_each!(self, elements => elements.len())
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Some of them.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline(always)]
    pub fn part(self, range: Range<usize>) -> Self {
        match self {
            Elements::F32(elements) => Elements::F32(&elements[range]),
            Elements::F16(elements) => Elements::F16(&elements[range]),
            Elements::Bf16(elements) => Elements::Bf16(&elements[range]),
        }
    }

    /// One of them as a float.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline(always)]
    pub fn to_f32(self, at: usize) -> f32 {
        of_each!(self, elements => Element::to_f32(elements[at]))
    }

    /// Each as a float.
    pub fn floats(self) -> impl Iterator<Item = f32> + 'a {
        (0..self.len()).map(move |at| self.to_f32(at))
    }

    /// All as floats: themselves where they are stored so, else widened into `scratch`, which is at least as long.
    #[inline(always)]
    pub fn widen<'s, L: Lanes>(self, lanes: L, scratch: &'s mut [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        match self {
            Elements::F32(elements) => elements,
            Elements::F16(elements) => widen(lanes, elements, scratch),
            Elements::Bf16(elements) => widen(lanes, elements, scratch),
        }
    }

    /// Writes all as floats to `to`, which is as long.
    #[inline(always)]
    pub fn widen_into<L: Lanes>(self, lanes: L, to: &mut [f32]) {
        match self {
            Elements::F32(elements) => to.copy_from_slice(elements),
            Elements::F16(elements) => _ = widen(lanes, elements, to),
            Elements::Bf16(elements) => _ = widen(lanes, elements, to),
        }
    }

    /// Their bits, where they are stored as bf16.
    #[inline(always)]
    pub fn bf16_bits(self) -> Option<&'a [u16]> {
        match self {
            Elements::Bf16(elements) => Some(elements.reinterpret_cast()),
            _ => None,
        }
    }

    /// The bytes that they lie in.
    #[inline(always)]
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Elements::F32(elements) => bytemuck::cast_slice(elements),
            Elements::F16(elements) => bytemuck::cast_slice::<u16, u8>(elements.reinterpret_cast()),
            Elements::Bf16(elements) => bytemuck::cast_slice::<u16, u8>(elements.reinterpret_cast()),
        }
    }
}

/// Elements of a row that is written, in the type that they are stored as.
#[derive(Debug)]
pub enum ElementsMut<'a> {
    /// Floats.
    F32(&'a mut [f32]),
    /// In binary16.
    F16(&'a mut [f16]),
    /// In bfloat16.
    Bf16(&'a mut [bf16]),
}

impl ElementsMut<'_> {
    /// The same to be read.
    pub const fn as_ref(&self) -> Elements<'_> {
        match self {
            ElementsMut::F32(elements) => Elements::F32(elements),
            ElementsMut::F16(elements) => Elements::F16(elements),
            ElementsMut::Bf16(elements) => Elements::Bf16(elements),
        }
    }

    /// Writes the nearest values of floats, ties to even, of which there are at least as many.
    #[inline(always)]
    pub fn write<L: Lanes>(self, lanes: L, values: &[f32]) {
        match self {
            ElementsMut::F32(row) => Element::narrow_into(lanes, &values[..row.len()], row),
            ElementsMut::F16(row) => Element::narrow_into(lanes, &values[..row.len()], row),
            ElementsMut::Bf16(row) => Element::narrow_into(lanes, &values[..row.len()], row),
        }
    }
}

/// Widens a row vector by vector, and the rest one by one.
#[inline(always)]
fn widen<'a, L: Lanes, T: Element>(lanes: L, row: &[T], scratch: &'a mut [f32]) -> &'a [f32] {
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

/// What an element of a type is one of.
macro_rules! is_one_of {
    ($variant:ident) => {
        const DTYPE: Dtype = Dtype::$variant;

        #[inline(always)]
        fn elements(elements: &[Self]) -> Elements<'_> {
            Elements::$variant(elements)
        }

        #[inline(always)]
        fn elements_mut(elements: &mut [Self]) -> ElementsMut<'_> {
            ElementsMut::$variant(elements)
        }

        #[inline(always)]
        fn of<'a>(elements: Elements<'a>) -> Option<&'a [Self]> {
            match elements {
                Elements::$variant(elements) => Some(elements),
                _ => None,
            }
        }
    };
}

impl private::Sealed for f32 {}

impl Element for f32 {
    is_one_of!(F32);

    #[inline(always)]
    fn load<L: Lanes>(lanes: L, row: &[f32]) -> F32<L> {
        load_f32(lanes, row)
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

impl private::Sealed for f16 {}

impl Element for f16 {
    is_one_of!(F16);

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

impl private::Sealed for bf16 {}

impl Element for bf16 {
    is_one_of!(Bf16);

    #[inline(always)]
    fn load<L: Lanes>(lanes: L, row: &[bf16]) -> F32<L> {
        F32::from_raw(lanes, lanes.load_bf16(row.reinterpret_cast()))
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
