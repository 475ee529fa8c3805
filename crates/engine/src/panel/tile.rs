//! The register tile of both products: `c[i][r] (+)= Σ_l a[l][i] · b[l][r]`.
//!
//! `a: [depth][PANEL]` is broadcast, `b: [depth][width]` and `c: [PANEL][width]` are vectors of row lanes. Elements of a
//! and b are floats, or words of two bf16 each, whose product is that of the first and that of the second. A tile of
//! `D::TILE` broadcast rows by 3 vectors keeps every sum in a register and loads each vector of `b` once for all of
//! them: on AVX2 7 loads for 12 multiply-adds, on AVX-512 3 loads and 8 memory operands for 24. Narrower widths serve
//! the last tile of a block. Source of the shape: the BLIS micro-kernel (Van Zee and van de Geijn, *BLIS: A Framework
//! for Rapidly Instantiating BLAS Functionality*).

use core::marker::PhantomData;

use regard_simd::{Lanes, Simd, vectors, vectors_mut};

use crate::engine::{Op, Rescale};
use crate::isa::Door;
use crate::pack::PANEL;

/// What elements of the operands are.
pub(crate) trait Elements: Copy {
    /// Numbers in an element.
    const NUMBERS: usize;

    /// `a · b + c`, lane by lane. `#[inline(always)]`.
    fn mul_add<D: Door>(
        lanes: D,
        a: <D::Simd as Simd>::f32s,
        b: <D::Simd as Simd>::f32s,
        c: <D::Simd as Simd>::f32s,
    ) -> <D::Simd as Simd>::f32s;
}

/// f32 numbers.
#[derive(Clone, Copy)]
pub(crate) struct Floats;

/// Words of two bf16 numbers.
#[derive(Clone, Copy)]
pub(crate) struct Pairs;

impl Elements for Floats {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn mul_add<D: Door>(
        lanes: D,
        a: <D::Simd as Simd>::f32s,
        b: <D::Simd as Simd>::f32s,
        c: <D::Simd as Simd>::f32s,
    ) -> <D::Simd as Simd>::f32s {
        lanes.simd().mul_add_e_f32s(a, b, c)
    }
}

impl Elements for Pairs {
    const NUMBERS: usize = 2;

    #[inline(always)]
    fn mul_add<D: Door>(
        lanes: D,
        a: <D::Simd as Simd>::f32s,
        b: <D::Simd as Simd>::f32s,
        c: <D::Simd as Simd>::f32s,
    ) -> <D::Simd as Simd>::f32s {
        lanes.dot_bf16(a, b, c)
    }
}

/// Multiplies one panel; see the module.
///
/// # Panics
/// If the width is not 1 to 3 vectors, or an operand is no whole number of rows.
#[inline(always)]
pub(super) fn multiply<D: Door, K: Elements>(
    lanes: D,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    width: usize,
    rescale: Rescale<'_>,
) {
    let elements = PhantomData::<K>;
    match width / D::WIDTH {
        1 => lanes.call(Panel::<D, K, 1> { lanes, a, b, c, rescale, elements }),
        2 => lanes.call(Panel::<D, K, 2> { lanes, a, b, c, rescale, elements }),
        3 => lanes.call(FullPanel(Panel { lanes, a, b, c, rescale, elements })),
        vectors => panic!("a row tile has 1 to 3 vectors, not {vectors}"),
    }
}

/// One panel at one width. It runs as a function of its own, so that its sums keep every register.
struct Panel<'a, D, K, const V: usize> {
    lanes: D,
    a: &'a [f32],
    b: &'a [f32],
    c: &'a mut [f32],
    rescale: Rescale<'a>,
    elements: PhantomData<K>,
}

/// Operands as rows of whole vectors.
type Rows<'a, D, const V: usize> = (
    &'a [[f32; PANEL]],
    &'a [[<<D as Lanes>::Simd as Simd>::f32s; V]],
    &'a mut [[<<D as Lanes>::Simd as Simd>::f32s; V]],
);

impl<'a, D: Door, K, const V: usize> Panel<'a, D, K, V> {
    #[inline(always)]
    fn rows(self) -> Rows<'a, D, V> {
        let (a, a_rest) = self.a.as_chunks::<PANEL>();
        let (b, b_rest) = vectors(self.lanes, self.b).as_chunks::<V>();
        let (c, c_rest) = vectors_mut(self.lanes, self.c).as_chunks_mut::<V>();
        assert!(a_rest.is_empty() && b_rest.is_empty() && c_rest.is_empty(), "operands are whole rows");
        assert!(a.len() == b.len() && c.len() == PANEL, "a and b are equally deep, c has {PANEL} rows");
        (a, b, c)
    }
}

impl<D: Door, K: Elements, const V: usize> Op for Panel<'_, D, K, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, rescale, .. } = self;
        let (a, b, c) = self.rows();
        if D::TILE == PANEL {
            write(lanes, &sum::<D, K, V, PANEL, 0>(lanes, a, b), c, rescale);
        } else {
            let (low, high) = c.split_at_mut(PANEL / 2);
            write(lanes, &sum::<D, K, V, { PANEL / 2 }, 0>(lanes, a, b), low, rescale);
            write(lanes, &sum::<D, K, V, { PANEL / 2 }, { PANEL / 2 }>(lanes, a, b), high, rescale);
        }
    }
}

/// A panel at the full width, whose sums an instruction set may form in its own way.
struct FullPanel<'a, D, K>(Panel<'a, D, K, 3>);

impl<D: Door, K: Elements> Op for FullPanel<'_, D, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        if D::TILE == PANEL || K::NUMBERS > 1 {
            return self.0.run();
        }
        let Panel { lanes, rescale, .. } = self.0;
        let (a, b, c) = self.0.rows();
        let (low, high) = c.split_at_mut(PANEL / 2);
        write(lanes, &lanes.half_tile::<0>(a, b), low, rescale);
        write(lanes, &lanes.half_tile::<{ PANEL / 2 }>(a, b), high, rescale);
    }
}

/// The sums of broadcast rows `FIRST..FIRST + M`, each from zero and in order of depth.
#[inline(always)]
pub(crate) fn sum<D: Door, K: Elements, const V: usize, const M: usize, const FIRST: usize>(
    lanes: D,
    a: &[[f32; PANEL]],
    b: &[[<D::Simd as Simd>::f32s; V]],
) -> [[<D::Simd as Simd>::f32s; V]; M] {
    let simd = lanes.simd();
    let mut sums = [[simd.splat_f32s(0.0); V]; M];
    for (a, b) in a.iter().zip(b) {
        for (sums, &a) in sums.iter_mut().zip(&a[FIRST..FIRST + M]) {
            let a = simd.splat_f32s(a);
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum = K::mul_add(lanes, a, b, *sum);
            }
        }
    }
    sums
}

#[inline(always)]
fn write<D: Door, const V: usize>(
    lanes: D,
    sums: &[[<D::Simd as Simd>::f32s; V]],
    c: &mut [[<D::Simd as Simd>::f32s; V]],
    rescale: Rescale<'_>,
) {
    let simd = lanes.simd();
    for (sums, c) in sums.iter().zip(c) {
        for v in 0..V {
            c[v] = match rescale {
                Rescale::Replace => sums[v],
                Rescale::Keep => simd.add_f32s(c[v], sums[v]),
                // The factor is a power of two: the product is exact, and a fused and an unfused sum agree.
                Rescale::By(factors) => {
                    simd.add_f32s(simd.mul_f32s(c[v], vectors(lanes, factors)[v]), sums[v])
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::scalar::Scalar;

    #[test]
    fn multiplies_adds_and_rescales() {
        // depth 2, width 1: c[i] = a[0][i] * b[0] + a[1][i] * b[1]
        let a: [f32; 16] = core::array::from_fn(|i| i as f32);
        let b = [10.0, 1.0];
        let mut c = [f32::NAN; 8];
        multiply::<_, Floats>(Scalar, &a, &b, &mut c, 1, Rescale::Replace);
        let product: [f32; 8] = core::array::from_fn(|i| 10.0 * i as f32 + (8 + i) as f32);
        assert_eq!(c, product);
        multiply::<_, Floats>(Scalar, &a, &b, &mut c, 1, Rescale::Keep);
        assert_eq!(c, product.map(|x| 2.0 * x));
        multiply::<_, Floats>(Scalar, &a, &b, &mut c, 1, Rescale::By(&[0.5]));
        assert_eq!(c, product.map(|x| 2.0 * x));
    }
}
