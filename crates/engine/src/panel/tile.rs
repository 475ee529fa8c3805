//! The register tile of both products: `c[i][r] (+)= Σ_l a[l][i] · b[l][r]`.
//!
//! `a: [depth][PANEL]` is broadcast, `b: [depth][width]` and `c: [PANEL][width]` are vectors of row lanes. Elements of a
//! and b are floats, or words of two bf16 each, whose product is that of the first and that of the second. A tile of
//! `D::TILE` broadcast rows by 3 vectors keeps every sum in a register and loads each vector of `b` once for all of
//! them: on AVX2 7 loads for 12 multiply-adds, on AVX-512 3 loads and 8 memory operands for 24. Narrower widths serve
//! the last tile of a block. Source of the shape: the BLIS micro-kernel (Van Zee and van de Geijn, *BLIS: A Framework
//! for Rapidly Instantiating BLAS Functionality*).

use core::marker::PhantomData;
use core::ops::Range;

use regard_simd::{Lanes, Simd, vectors, vectors_mut};

use crate::engine::{Op, Rescale};
use crate::isa::Door;
use crate::pack::PANEL;
use crate::stairs::{Stairs, VECTORS};

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
        VECTORS => lanes.call(FullPanel(Panel { lanes, a, b, c, rescale, elements })),
        vectors => panic!("a row tile has 1 to 3 vectors, not {vectors}"),
    }
}

/// Multiplies one panel by some vectors of a full row tile, the first or the last ones; by none where no vector sees the panel.
///
/// # Panics
/// If an operand is no whole number of rows.
#[inline(always)]
pub(super) fn multiply_some<D: Door, K: Elements>(
    lanes: D,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    vectors: &Range<usize>,
    rescale: Rescale<'_>,
) {
    let elements = PhantomData::<K>;
    let panel = Panel { lanes, a, b, c, rescale, elements };
    match (vectors.start, vectors.end) {
        (0, 1) => lanes.call(SomePanel::<D, K, 0, 1>(panel)),
        (0, 2) => lanes.call(SomePanel::<D, K, 0, 2>(panel)),
        (1, VECTORS) => lanes.call(SomePanel::<D, K, 1, VECTORS>(panel)),
        (2, VECTORS) => lanes.call(SomePanel::<D, K, 2, VECTORS>(panel)),
        _ => {}
    }
}

/// Multiplies one panel by a full row tile, whose vectors see what the stairs say.
///
/// # Panics
/// If an operand is no whole number of rows, or the stairs lead past them.
#[inline(always)]
pub(super) fn multiply_seen<D: Door, K: Elements>(
    lanes: D,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    stairs: Stairs,
    rescale: Rescale<'_>,
) {
    let panel = Panel { lanes, a, b, c, rescale, elements: PhantomData::<K> };
    lanes.call(SeenPanel { panel, runs: stairs.runs(K::NUMBERS) });
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
struct FullPanel<'a, D, K>(Panel<'a, D, K, VECTORS>);

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

/// A panel by some vectors of a full row tile.
struct SomePanel<'a, D, K, const BEGIN: usize, const END: usize>(Panel<'a, D, K, VECTORS>);

impl<D: Door, K: Elements, const BEGIN: usize, const END: usize> Op for SomePanel<'_, D, K, BEGIN, END> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Panel { lanes, rescale, .. } = self.0;
        let (a, b, c) = self.0.rows();
        let mut sums = [[lanes.simd().splat_f32s(0.0); VECTORS]; PANEL];
        add::<D, K, BEGIN, END>(lanes, &mut sums, a, b);
        write_some::<D, VECTORS, BEGIN, END>(lanes, &sums, c, rescale);
    }
}

/// A panel by a full row tile, of which runs of rows are seen by the first vectors, by all, and by the last ones.
struct SeenPanel<'a, D, K> {
    panel: Panel<'a, D, K, VECTORS>,
    runs: [Range<usize>; 2 * VECTORS - 1],
}

impl<D: Door, K: Elements> Op for SeenPanel<'_, D, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { panel, runs: [one, two, all, last_two, last] } = self;
        let Panel { lanes, rescale, .. } = panel;
        let (a, b, c) = panel.rows();
        let mut sums = [[lanes.simd().splat_f32s(0.0); VECTORS]; PANEL];
        add::<D, K, 0, 1>(lanes, &mut sums, &a[one.clone()], &b[one]);
        add::<D, K, 0, 2>(lanes, &mut sums, &a[two.clone()], &b[two]);
        add::<D, K, 0, VECTORS>(lanes, &mut sums, &a[all.clone()], &b[all]);
        add::<D, K, 1, VECTORS>(lanes, &mut sums, &a[last_two.clone()], &b[last_two]);
        add::<D, K, 2, VECTORS>(lanes, &mut sums, &a[last.clone()], &b[last]);
        write(lanes, &sums, c, rescale);
    }
}

/// Adds products by vectors `BEGIN..END` to their sums, in order of depth.
#[inline(always)]
fn add<D: Door, K: Elements, const BEGIN: usize, const END: usize>(
    lanes: D,
    sums: &mut [[<D::Simd as Simd>::f32s; VECTORS]; PANEL],
    a: &[[f32; PANEL]],
    b: &[[<D::Simd as Simd>::f32s; VECTORS]],
) {
    let simd = lanes.simd();
    for (a, b) in a.iter().zip(b) {
        for (sums, &a) in sums.iter_mut().zip(a) {
            let a = simd.splat_f32s(a);
            for (sum, &b) in sums[BEGIN..END].iter_mut().zip(&b[BEGIN..END]) {
                *sum = K::mul_add(lanes, a, b, *sum);
            }
        }
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
    write_some::<D, V, 0, V>(lanes, sums, c, rescale);
}

#[inline(always)]
fn write_some<D: Door, const V: usize, const BEGIN: usize, const END: usize>(
    lanes: D,
    sums: &[[<D::Simd as Simd>::f32s; V]],
    c: &mut [[<D::Simd as Simd>::f32s; V]],
    rescale: Rescale<'_>,
) {
    let simd = lanes.simd();
    for (sums, c) in sums.iter().zip(c) {
        for v in BEGIN..END {
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

    /// Rows of a left operand of 8, of a full row tile, and what is there before.
    fn operands<D: Door, K: Elements>(depth: usize) -> [std::vec::Vec<f32>; 3] {
        let numbers = |count: usize, seed: u32| {
            let mut word = seed;
            let mut half = || {
                word = word.wrapping_mul(0x9e37_79b1).rotate_left(7) ^ 0x5bd1_e995;
                (((word >> 8) as f32 / (1 << 23) as f32 - 1.0).to_bits()) >> 16
            };
            let one = |bits: u32| f32::from_bits(bits << 16);
            let mut element =
                || if K::NUMBERS == 1 { one(half()) } else { f32::from_bits(half() | half() << 16) };
            (0..count).map(|_| element()).collect()
        };
        let width = VECTORS * D::WIDTH;
        [numbers(depth * PANEL, 1), numbers(depth * width, 2), numbers(PANEL * width, 3)]
    }

    struct Seen<D, K>(D, PhantomData<K>);

    impl<D: Door, K: Elements> Op for Seen<D, K> {
        type Output = ();

        /// Rows that are not seen are zero: leaving them out changes no bit.
        fn run(self) {
            let width = VECTORS * D::WIDTH;
            let rising = [[0..16, 0..32, 0..48], [0..48, 16..48, 32..48], [0..24, 8..40, 16..48]];
            for seen in rising.into_iter().chain([[0..48, 0..48, 0..48], [0..8, 0..8, 16..40]]) {
                let [a, mut b, c] = operands::<D, K>(48 / K::NUMBERS);
                let stairs = Stairs::over(seen);
                for (row, b) in b.chunks_exact_mut(width).enumerate() {
                    let vectors = stairs.vectors(row * K::NUMBERS..(row + 1) * K::NUMBERS);
                    for (v, b) in b.chunks_exact_mut(D::WIDTH).enumerate() {
                        if !vectors.contains(&v) {
                            b.fill(0.0);
                        }
                    }
                }
                let factors: std::vec::Vec<f32> = (0..width).map(|r| 0.25 * (1 + r % 2) as f32).collect();
                for rescale in [Rescale::Replace, Rescale::Keep, Rescale::By(&factors)] {
                    let (mut all, mut some) = (c.clone(), c.clone());
                    multiply::<D, K>(self.0, &a, &b, &mut all, width, rescale);
                    multiply_seen::<D, K>(self.0, &a, &b, &mut some, stairs, rescale);
                    let bits =
                        |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<std::vec::Vec<_>>();
                    assert_eq!(bits(&all), bits(&some), "{stairs:?}");
                }
                for vectors in [0..1, 0..2, 1..3, 2..3] {
                    let (mut all, mut some) = (c.clone(), c.clone());
                    multiply::<D, K>(self.0, &a, &b, &mut all, width, Rescale::Keep);
                    multiply_some::<D, K>(self.0, &a, &b, &mut some, &vectors, Rescale::Keep);
                    for (at, ((all, some), before)) in all.iter().zip(&some).zip(&c).enumerate() {
                        let is_seen = vectors.contains(&(at % width / D::WIDTH));
                        assert_eq!(some, if is_seen { all } else { before }, "{vectors:?} at {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_seen_changes_no_bit() {
        Seen(Scalar, PhantomData::<Floats>).run();
        Seen(Scalar, PhantomData::<Pairs>).run();
        #[cfg(target_arch = "x86_64")]
        match crate::isa::avx512::Avx512::detect() {
            Some(lanes) => lanes.enter(Seen(lanes, PhantomData::<Floats>)),
            None => std::println!("skipped AVX-512: not on this CPU"),
        }
    }

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
