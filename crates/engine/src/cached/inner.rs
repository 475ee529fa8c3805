//! Inner products with rows that lie one after the other.

use core::marker::PhantomData;

use pulp::bytemuck;
use regard_simd::{F32, Prefetch, Simd, vectors};

use super::LANES;
use super::ahead::{Ahead, Ask, IntoFirst, IntoSecond, Next, Pace, Stream};
use crate::engine::Op;
use crate::isa::Door;

/// Rows whose products are made at once.
const ROWS: usize = 8;

/// A line of numbers.
type Line = [f32; LANES];

/// Σ a · b of rows of whole lines.
#[inline(always)]
pub fn inner_product<D: Door>(lanes: D, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = F32::splat(lanes, 0.0);
    for (&a, &b) in vectors(lanes, a).iter().zip(vectors(lanes, b)) {
        sum = F32::from_raw(lanes, a).mul_add(F32::from_raw(lanes, b), sum);
    }
    sum.sum()
}

/// `to[k] = Σ a · row k`, as [`inner_product`] has it, of as many rows, each as long as `a`, which has whole lines. Lines of `ahead` are
/// asked for while the last ones are read; if it is `None` the rows are near already, so that nothing is asked for.
///
/// # Panics
/// If there are fewer rows.
#[inline(always)]
pub fn inner_products<D: Door>(lanes: D, a: &[f32], rows: &[f32], ahead: Option<Ahead<'_>>, to: &mut [f32]) {
    let (a, rows): (&[Line], &[Line]) = (a.as_chunks().0, &rows.as_chunks().0[..to.len() * a.len() / LANES]);
    let stream = ahead.and_then(|ahead| {
        let words = (bytemuck::cast_slice(rows), bytemuck::cast_slice(rows));
        let pace = Pace { tile: ROWS * a.len(), side: 0, products: 1 };
        Stream::new(lanes.prefetches(), words, ahead, pace)
    });
    match lanes.prefetches() {
        Prefetch::IntoFirst => all::<D, IntoFirst>(lanes, (a, rows), stream, to),
        _ => all::<D, IntoSecond>(lanes, (a, rows), stream, to),
    }
}

/// The same, whose lines are asked for as `A` does.
#[inline(always)]
fn all<D: Door, A: Ask>(lanes: D, (a, rows): (&[Line], &[Line]), stream: Option<Stream<'_>>, to: &mut [f32]) {
    let ask = PhantomData;
    // Several lines of each row between two jumps, where there are as many. Where these are all of it, rows are at known distances, and
    // a line takes no instruction that finds it.
    match a.len() {
        8 => lanes.call(Products::<D, A, 8, true> { lanes, a, rows, stream, to, ask }),
        4 => lanes.call(Products::<D, A, 4, true> { lanes, a, rows, stream, to, ask }),
        len if len.is_multiple_of(4) => {
            lanes.call(Products::<D, A, 4, false> { lanes, a, rows, stream, to, ask });
        }
        _ => lanes.call(Products::<D, A, 1, false> { lanes, a, rows, stream, to, ask }),
    }
}

/// The products, `W` lines of each row at once, which are `ALL` of it or not. They run as a function of their own, so that there is
/// little between two groups of rows.
struct Products<'a, D, A, const W: usize, const ALL: bool> {
    lanes: D,
    a: &'a [Line],
    rows: &'a [Line],
    stream: Option<Stream<'a>>,
    to: &'a mut [f32],
    ask: PhantomData<A>,
}

impl<D: Door, A: Ask, const W: usize, const ALL: bool> Op for Products<'_, D, A, W, ALL> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, a, rows, mut stream, to, .. } = self;
        let len = if ALL { W } else { a.len() };
        let a = &a.as_chunks::<W>().0[..len / W];
        let (groups, rest) = to.as_chunks_mut::<ROWS>();
        let mut rows = rows;
        for to in groups {
            let of_group;
            (of_group, rows) = rows.split_at(ROWS * len);
            let sums = match stream.as_mut().and_then(|stream| stream.next(ROWS * len)) {
                Some(next) => products::<D, A, W, true>(lanes, a, of_group, next),
                None => products::<D, A, W, false>(lanes, a, of_group, Next::NOTHING),
            };
            *to = lanes.sums(sums);
        }
        for (to, row) in rest.iter_mut().zip(rows.chunks_exact(len.max(1))) {
            *to = inner_product(lanes, a.as_flattened().as_flattened(), row.as_flattened());
        }
    }
}

/// Of a group of rows, still to be summed over lanes. If `ASKS`, as many lines are asked for after each row's as these were: many at once
/// would hold up those that are waited for.
#[inline(always)]
fn products<D: Door, A: Ask, const W: usize, const ASKS: bool>(
    lanes: D,
    a: &[[Line; W]],
    rows: &[Line],
    mut next: Next,
) -> [<D::Simd as Simd>::f32s; ROWS] {
    // Slices of one length, so that nothing is compared in the loop.
    let mut of_rows = [&a[..0]; ROWS];
    for (r, row) in of_rows.iter_mut().enumerate() {
        *row = &rows[r * W * a.len()..].as_chunks().0[..a.len()];
    }
    let simd = lanes.simd();
    let mut sums = [simd.splat_f32s(0.0); ROWS];
    for j in 0..a.len() {
        // All `W` lines of a row before the next row: line by line in turns, memory would be read at eight places at once.
        for (r, (sum, row)) in sums.iter_mut().zip(&of_rows).enumerate() {
            for i in 0..W {
                for v in 0..LANES / D::WIDTH {
                    let a = vectors(lanes, &a[j][i])[v];
                    *sum = simd.mul_add_e_f32s(a, vectors(lanes, &row[j][i])[v], *sum);
                }
            }
            if ASKS {
                next.ask::<D, A>(lanes, r * W..(r + 1) * W);
            }
        }
        next.go_on(W * ROWS);
    }
    sums
}
