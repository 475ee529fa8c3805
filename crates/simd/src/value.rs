//! Lanes with operators.
//!
//! Each value carries its token, which has no size, so that `a * b + c` needs no context. No operator contracts:
//! a fused multiply-add is written [`F32::mul_add`].

use core::ops::{Add, BitAnd, BitOr, Div, Mul, Neg, Not, Sub};

use pulp::{Simd, bytemuck};

use crate::lanes::Lanes;

/// Lanes of binary32.
#[derive(Clone, Copy)]
pub struct F32<L: Lanes> {
    lanes: L,
    raw: <L::Simd as Simd>::f32s,
}

/// Lanes of 32-bit integers; arithmetic wraps.
#[derive(Clone, Copy)]
pub struct I32<L: Lanes> {
    lanes: L,
    raw: <L::Simd as Simd>::i32s,
}

/// Lanes of bools.
#[derive(Clone, Copy)]
pub struct Mask<L: Lanes> {
    lanes: L,
    raw: <L::Simd as Simd>::m32s,
}

macro_rules! binary {
    ($type:ident, $($trait:ident :: $method:ident = $pulp:ident),+) => {$(
        impl<L: Lanes> $trait for $type<L> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self { lanes: self.lanes, raw: self.lanes.simd().$pulp(self.raw, other.raw) }
            }
        }
    )+};
}

macro_rules! compare {
    ($type:ident, $($(#[$doc:meta])* $method:ident = $pulp:ident),+ $(,)?) => {
        impl<L: Lanes> $type<L> {$(
            $(#[$doc])*
            #[inline(always)]
            pub fn $method(self, other: Self) -> Mask<L> {
                Mask { lanes: self.lanes, raw: self.lanes.simd().$pulp(self.raw, other.raw) }
            }
        )+}
    };
}

binary!(F32, Add::add = add_f32s, Sub::sub = sub_f32s, Mul::mul = mul_f32s, Div::div = div_f32s);
binary!(I32, Add::add = add_i32s, Sub::sub = sub_i32s, Mul::mul = mul_i32s);
binary!(Mask, BitAnd::bitand = and_m32s, BitOr::bitor = or_m32s);
compare!(
    F32,
    /// `self < other`; false where either is NaN.
    lt = less_than_f32s,
    /// `self <= other`; false where either is NaN.
    le = less_than_or_equal_f32s,
    /// `self == other`; false where either is NaN.
    eq = equal_f32s,
);
compare!(
    I32,
    /// `self < other`.
    lt = less_than_i32s,
    /// `self <= other`.
    le = less_than_or_equal_i32s,
    /// `self == other`.
    eq = equal_i32s,
);

impl<L: Lanes> Neg for F32<L> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        // Exact of every number, zeros among them. Functions of pulp that are not `#[inline(always)]`, as that for signs is not, may
        // be compiled without the instruction set.
        self.like(-0.0) - self
    }
}

impl<L: Lanes> Not for Mask<L> {
    type Output = Self;
    #[inline(always)]
    fn not(self) -> Self {
        Self { raw: self.lanes.simd().not_m32s(self.raw), ..self }
    }
}

impl<L: Lanes> F32<L> {
    /// The same value in each lane.
    #[inline(always)]
    pub fn splat(lanes: L, x: f32) -> Self {
        Self { lanes, raw: lanes.simd().splat_f32s(x) }
    }

    /// A vector as `pulp` has it.
    #[inline(always)]
    pub fn from_raw(lanes: L, raw: <L::Simd as Simd>::f32s) -> Self {
        Self { lanes, raw }
    }

    /// The vector as `pulp` has it.
    #[inline(always)]
    pub fn raw(self) -> <L::Simd as Simd>::f32s {
        self.raw
    }

    /// The token.
    #[inline(always)]
    pub fn lanes(self) -> L {
        self.lanes
    }

    /// Another constant for the same lanes.
    #[inline(always)]
    pub fn like(self, x: f32) -> Self {
        Self::splat(self.lanes, x)
    }

    /// `self * b + c`, fused where the instruction set fuses.
    #[inline(always)]
    pub fn mul_add(self, b: Self, c: Self) -> Self {
        Self { raw: self.lanes.simd().mul_add_e_f32s(self.raw, b.raw, c.raw), ..self }
    }

    /// The larger of each pair: `other > self ? other : self`, so that a NaN in `self` stays.
    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        Self { raw: self.lanes.max(self.raw, other.raw), ..self }
    }

    /// The smaller of each pair: `other < self ? other : self`, so that a NaN in `self` stays.
    #[inline(always)]
    pub fn min(self, other: Self) -> Self {
        Self { raw: self.lanes.min(self.raw, other.raw), ..self }
    }

    /// Absolute value.
    #[inline(always)]
    pub fn abs(self) -> Self {
        let rest = self.like(f32::from_bits(0x7fff_ffff));
        Self { raw: self.lanes.simd().and_f32s(self.raw, rest.raw), ..self }
    }

    /// A float that is not negative, with the sign of another.
    #[inline(always)]
    pub fn signed_as(self, sign: Self) -> Self {
        let simd = self.lanes.simd();
        let sign_bit = simd.and_f32s(sign.raw, simd.splat_f32s(-0.0));
        Self { raw: simd.or_f32s(self.raw, sign_bit), ..self }
    }

    /// Square root.
    #[inline(always)]
    pub fn sqrt(self) -> Self {
        Self { raw: self.lanes.simd().sqrt_f32s(self.raw), ..self }
    }

    /// The largest integral float not above.
    #[inline(always)]
    pub fn floor(self) -> Self {
        Self { raw: self.lanes.floor(self.raw), ..self }
    }

    /// The smallest integral float not below.
    #[inline(always)]
    pub fn ceil(self) -> Self {
        -(-self).floor()
    }

    /// Truncated to an int: saturating, 0 for NaN.
    #[inline(always)]
    pub fn to_i32(self) -> I32<L> {
        I32 { lanes: self.lanes, raw: self.lanes.to_i32(self.raw) }
    }

    /// One lane.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline(always)]
    pub fn lane(self, lane: usize) -> f32 {
        bytemuck::cast_slice::<_, f32>(core::slice::from_ref(&self.raw))[lane]
    }

    /// Each lane through a scalar function.
    #[inline(always)]
    pub fn map(self, f: impl Fn(f32) -> f32) -> Self {
        let mut raw = self.raw;
        for x in bytemuck::cast_slice_mut::<_, f32>(core::slice::from_mut(&mut raw)) {
            *x = f(*x);
        }
        Self { raw, ..self }
    }

    /// Each pair of lanes through a scalar function.
    #[inline(always)]
    pub fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut raw = self.raw;
        let right = bytemuck::cast_slice::<_, f32>(core::slice::from_ref(&other.raw));
        for (x, &y) in
            bytemuck::cast_slice_mut::<_, f32>(core::slice::from_mut(&mut raw)).iter_mut().zip(right)
        {
            *x = f(*x, y);
        }
        Self { raw, ..self }
    }

    /// The bits as integers.
    #[inline(always)]
    pub fn to_bits(self) -> I32<L> {
        I32 { lanes: self.lanes, raw: self.lanes.simd().transmute_i32s_f32s(self.raw) }
    }

    /// The largest of all lanes.
    #[inline(always)]
    pub fn reduce_max(self) -> f32 {
        self.lanes.simd().reduce_max_f32s(self.raw)
    }

    /// The sum of all lanes.
    #[inline(always)]
    pub fn sum(self) -> f32 {
        self.lanes.simd().reduce_sum_f32s(self.raw)
    }
}

impl<L: Lanes> I32<L> {
    /// The same value in each lane.
    #[inline(always)]
    pub fn splat(lanes: L, x: i32) -> Self {
        Self { lanes, raw: lanes.simd().splat_i32s(x) }
    }

    /// A vector as `pulp` has it.
    #[inline(always)]
    pub fn from_raw(lanes: L, raw: <L::Simd as Simd>::i32s) -> Self {
        Self { lanes, raw }
    }

    /// The vector as `pulp` has it.
    #[inline(always)]
    pub fn raw(self) -> <L::Simd as Simd>::i32s {
        self.raw
    }

    /// Each lane as the nearest float.
    #[inline(always)]
    pub fn to_f32(self) -> F32<L> {
        F32 { lanes: self.lanes, raw: self.lanes.to_f32(self.raw) }
    }

    /// Another constant for the same lanes.
    #[inline(always)]
    pub fn like(self, x: i32) -> Self {
        Self::splat(self.lanes, x)
    }

    /// Each lane from its index.
    #[inline(always)]
    pub fn from_fn(lanes: L, mut f: impl FnMut(usize) -> i32) -> Self {
        let mut raw = lanes.simd().splat_i32s(0);
        for (lane, x) in
            bytemuck::cast_slice_mut::<_, i32>(core::slice::from_mut(&mut raw)).iter_mut().enumerate()
        {
            *x = f(lane);
        }
        Self { lanes, raw }
    }

    /// One lane.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline(always)]
    pub fn lane(self, lane: usize) -> i32 {
        bytemuck::cast_slice::<_, i32>(core::slice::from_ref(&self.raw))[lane]
    }

    /// Each lane through a scalar function.
    #[inline(always)]
    pub fn map(self, mut f: impl FnMut(i32) -> i32) -> Self {
        Self::from_fn(self.lanes, |lane| f(self.lane(lane)))
    }

    /// The smaller of each pair.
    #[inline(always)]
    pub fn min(self, other: Self) -> Self {
        other.lt(self).select_i32(other, self)
    }

    /// The larger of each pair.
    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        self.lt(other).select_i32(other, self)
    }

    /// Each pair of lanes through a scalar function.
    #[inline(always)]
    pub fn zip(self, other: Self, f: impl Fn(i32, i32) -> i32) -> Self {
        let mut raw = self.raw;
        let right = bytemuck::cast_slice::<_, i32>(core::slice::from_ref(&other.raw));
        for (x, &y) in
            bytemuck::cast_slice_mut::<_, i32>(core::slice::from_mut(&mut raw)).iter_mut().zip(right)
        {
            *x = f(*x, y);
        }
        Self { raw, ..self }
    }

    /// The bits as floats.
    #[inline(always)]
    pub fn from_bits(self) -> F32<L> {
        F32 { lanes: self.lanes, raw: self.lanes.simd().transmute_f32s_i32s(self.raw) }
    }
}

impl<L: Lanes> I32<L> {
    /// Each lane's bits, so many places lower, with zeros above.
    #[inline(always)]
    pub fn shift_right<const PLACES: u32>(self) -> Self {
        let simd = self.lanes.simd();
        let bits = simd.wrapping_dyn_shr_u32s(simd.transmute_u32s_i32s(self.raw), simd.splat_u32s(PLACES));
        Self { raw: simd.transmute_i32s_u32s(bits), ..self }
    }

    /// The sum of all lanes; wraps.
    #[inline(always)]
    pub fn sum(self) -> i32 {
        let lanes = bytemuck::cast_slice::<_, i32>(core::slice::from_ref(&self.raw));
        lanes.iter().fold(0i32, |sum, &x| sum.wrapping_add(x))
    }
}

impl<L: Lanes> Mask<L> {
    /// The same value in each lane.
    #[inline(always)]
    pub fn splat(lanes: L, x: bool) -> Self {
        I32::splat(lanes, x as i32).eq(I32::splat(lanes, 1))
    }

    /// `if_true` where the lane is set, else `if_false`.
    #[inline(always)]
    pub fn select(self, if_true: F32<L>, if_false: F32<L>) -> F32<L> {
        let simd = self.lanes.simd();
        let (if_true, otherwise) =
            (simd.transmute_u32s_f32s(if_true.raw), simd.transmute_u32s_f32s(if_false.raw));
        let raw = simd.transmute_f32s_u32s(simd.select_u32s(self.raw, if_true, otherwise));
        F32 { raw, ..if_false }
    }

    /// `if_true` where the lane is set, else `if_false`.
    #[inline(always)]
    pub fn select_i32(self, if_true: I32<L>, if_false: I32<L>) -> I32<L> {
        let simd = self.lanes.simd();
        let (if_true, otherwise) =
            (simd.transmute_u32s_i32s(if_true.raw), simd.transmute_u32s_i32s(if_false.raw));
        let raw = simd.transmute_i32s_u32s(simd.select_u32s(self.raw, if_true, otherwise));
        I32 { raw, ..if_false }
    }

    /// Whether some lane is set.
    #[inline(always)]
    pub fn any(self) -> bool {
        self.lanes.simd().first_true_m32s(self.raw) < L::WIDTH
    }
}

/// Floats as whole vectors.
///
/// # Panics
/// If the length is not a multiple of the width.
#[inline(always)]
pub fn vectors<L: Lanes>(_: L, floats: &[f32]) -> &[<L::Simd as Simd>::f32s] {
    let (vectors, rest) = L::Simd::as_simd_f32s(floats);
    assert!(rest.is_empty(), "{} floats are no whole vectors of {}", floats.len(), L::WIDTH);
    vectors
}

/// Floats as whole vectors, to be written.
///
/// # Panics
/// If the length is not a multiple of the width.
#[inline(always)]
pub fn vectors_mut<L: Lanes>(_: L, floats: &mut [f32]) -> &mut [<L::Simd as Simd>::f32s] {
    let len = floats.len();
    let (vectors, rest) = L::Simd::as_mut_simd_f32s(floats);
    assert!(rest.is_empty(), "{len} floats are no whole vectors of {}", L::WIDTH);
    vectors
}

/// Ints as whole vectors.
///
/// # Panics
/// If the length is not a multiple of the width.
#[inline(always)]
pub fn vectors_i32<L: Lanes>(_: L, ints: &[i32]) -> &[<L::Simd as Simd>::i32s] {
    let (vectors, rest) = L::Simd::as_simd_i32s(ints);
    assert!(rest.is_empty(), "{} ints are no whole vectors of {}", ints.len(), L::WIDTH);
    vectors
}

/// Ints as whole vectors, to be written.
///
/// # Panics
/// If the length is not a multiple of the width.
#[inline(always)]
pub fn vectors_i32_mut<L: Lanes>(_: L, ints: &mut [i32]) -> &mut [<L::Simd as Simd>::i32s] {
    let len = ints.len();
    let (vectors, rest) = L::Simd::as_mut_simd_i32s(ints);
    assert!(rest.is_empty(), "{len} ints are no whole vectors of {}", L::WIDTH);
    vectors
}

/// The first vector of a slice.
///
/// # Panics
/// If the slice is shorter than a vector.
#[inline(always)]
pub fn load_f32<L: Lanes>(lanes: L, floats: &[f32]) -> F32<L> {
    F32::from_raw(lanes, L::Simd::as_simd_f32s(floats).0[0])
}

/// The first vector of a slice.
///
/// # Panics
/// If the slice is shorter than a vector.
#[inline(always)]
pub fn load_i32<L: Lanes>(lanes: L, ints: &[i32]) -> I32<L> {
    I32::from_raw(lanes, L::Simd::as_simd_i32s(ints).0[0])
}
