//! Inner products with rows that lie one after the other.

use regard_simd::{F32, vectors};

use super::LANES;
use super::ahead::{Ahead, Cursor, NEAR, Soon};
use crate::engine::Op;
use crate::isa::Door;

/// Rows whose products are made at once.
const ROWS: usize = 4;

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
    let cursor = ahead.map(|ahead| Cursor::of_rows(rows, ahead, (ROWS * a.len(), NEAR)));
    // Several lines of each row between two jumps, where there are as many.
    match a.len().is_multiple_of(4) {
        true => lanes.call(Products::<D, 4> { lanes, a, rows, cursor, to }),
        false => lanes.call(Products::<D, 1> { lanes, a, rows, cursor, to }),
    }
}

/// The products, `W` lines at once. They run as a function of their own, so that there is little between two rows.
struct Products<'a, D, const W: usize> {
    lanes: D,
    a: &'a [Line],
    rows: &'a [Line],
    cursor: Option<Cursor<'a>>,
    to: &'a mut [f32],
}

impl<D: Door, const W: usize> Op for Products<'_, D, W> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, a, rows, mut cursor, to } = self;
        let (fours, rest) = to.as_chunks_mut::<ROWS>();
        let mut rows = rows;
        for to in fours {
            let of_four;
            (of_four, rows) = rows.split_at(ROWS * a.len());
            *to = match cursor.as_mut().and_then(|cursor| cursor.next()) {
                Some(soon) => four::<D, W, true>(lanes, a, of_four, soon),
                None => four::<D, W, false>(lanes, a, of_four, Soon::NOTHING),
            };
        }
        for (to, row) in rest.iter_mut().zip(rows.chunks_exact(a.len().max(1))) {
            *to = inner_product(lanes, a.as_flattened(), row.as_flattened());
        }
    }
}

/// Of four rows. If `ASKS`, a line is asked for when one of these is read: many at once would hold up those that are waited for.
#[inline(always)]
fn four<D: Door, const W: usize, const ASKS: bool>(
    lanes: D,
    a: &[Line],
    rows: &[Line],
    mut soon: Soon,
) -> [f32; ROWS] {
    // Slices of one length, so that nothing is compared in the loop.
    let (len, count) = (a.len(), a.len() / W);
    let a = &a.as_chunks::<W>().0[..count];
    let mut of_rows = [&a[..0]; ROWS];
    for (r, row) in of_rows.iter_mut().enumerate() {
        *row = &rows[r * len..].as_chunks::<W>().0[..count];
    }
    let mut sums = [F32::splat(lanes, 0.0); ROWS];
    for j in 0..count {
        for i in 0..W {
            for v in 0..LANES / D::WIDTH {
                let a = F32::from_raw(lanes, vectors(lanes, &a[j][i])[v]);
                for (sum, row) in sums.iter_mut().zip(&of_rows) {
                    *sum = a.mul_add(F32::from_raw(lanes, vectors(lanes, &row[j][i])[v]), *sum);
                }
            }
            if ASKS {
                soon.ask(lanes, i * ROWS..(i + 1) * ROWS);
            }
        }
        soon.go_on(W * ROWS);
    }
    let [a, b, c, d] = sums;
    [a.sum(), b.sum(), c.sum(), d.sum()]
}
