//! Products with the matrices of latents: a query is brought to them before it meets keys, and its output back.
//!
//! Matrices are read as they are given, four rows at a time, once for all queries of a head. The rows behind them are asked for as they
//! lie, a line for each that is read: four short rows in turns are not found by a processor itself, and of many lines that are asked
//! for at once some drop most.

use half::{bf16, f16};
use regard_engine::cached::LANES;
use regard_engine::element::{Element, Elements};
use regard_engine::isa::Door;
use regard_ir::machine::Isa;
use regard_ir::plan::Dtype;
use regard_simd::{F32, load_f32, vectors_mut};

use crate::carve::ALIGN;
use crate::lines::LINE_BYTES;
use crate::view::View;

/// Rows of a matrix that are multiplied at a time.
const ROWS: usize = 4;

/// Products of one chain of sums; fewer where a product and a sum round apart.
const fn chain(isa: Isa) -> usize {
    match isa {
        Isa::Scalar | Isa::WasmSimd => 32,
        _ => 64,
    }
}

/// Channels of a latent, in whole vectors of any width.
pub(super) const fn padded(rank: usize) -> usize {
    rank.next_multiple_of(ALIGN)
}

/// A head's matrix, row by row.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub rows: View<'a>,
    pub head: usize,
}

impl<'a> Matrix<'a> {
    /// The four rows from number `first` on, or as many as there are, where they lie one behind the other.
    #[inline(always)]
    fn behind(&self, first: usize) -> Behind<'a> {
        let count = self.rows.counts()[2].saturating_sub(first).min(ROWS);
        Behind(self.rows.block([0, self.head, first], count).map_or(&[], Elements::bytes))
    }

    /// So many rows from number `first` on, which are of this type.
    #[inline(always)]
    fn rows_from<T: Element, const N: usize>(&self, first: usize) -> [&'a [T]; N] {
        core::array::from_fn(|i| T::of(self.rows.row(0, self.head, first + i)).unwrap_or_default())
    }
}

/// Bytes that are read soon.
struct Behind<'a>(&'a [u8]);

impl Behind<'_> {
    /// None that are asked for.
    const NOTHING: Self = Self(&[]);

    /// Asks for some lines, as many as there are.
    #[inline(always)]
    fn ask<D: Door>(&mut self, lanes: D, count: usize) {
        for _ in 0..count.min(self.0.len().div_ceil(LINE_BYTES)) {
            lanes.prefetch_far(self.0.as_ptr());
            self.0 = self.0.get(LINE_BYTES..).unwrap_or_default();
        }
    }
}

/// Vectors of a line of elements of this type.
const fn line_vectors<D: Door, T: Element>() -> usize {
    let bytes = D::WIDTH * size_of::<T>();
    if bytes < LINE_BYTES { LINE_BYTES / bytes } else { 1 }
}

/// A row from its last whole vector on, with zeros behind it; `None` where whole vectors are all of it.
#[inline(always)]
fn tail<D: Door, T: Element>(lanes: D, row: &[T]) -> Option<F32<D>> {
    let rest = &row[row.len() / D::WIDTH * D::WIDTH..];
    if rest.is_empty() {
        return None;
    }
    let mut padded = [T::default(); LANES];
    padded[..rest.len()].copy_from_slice(rest);
    Some(T::load(lanes, &padded))
}

/// `to[c] = Σ_n query[n] · matrix[n][c]` for each of some queries, whose rows in `to` begin `stride` apart. Works in `sums`, as
/// long as [`padded`] says.
#[inline(always)]
pub(super) fn absorb<D: Door>(
    lanes: D,
    matrix: Matrix<'_>,
    queries: View<'_>,
    of: [usize; 2],
    to: (&mut [f32], usize),
    sums: &mut [f32],
) {
    match matrix.rows.dtype() {
        Dtype::F32 => absorb_of::<_, f32>(lanes, matrix, queries, of, to, sums),
        Dtype::F16 => absorb_of::<_, f16>(lanes, matrix, queries, of, to, sums),
        Dtype::Bf16 => absorb_of::<_, bf16>(lanes, matrix, queries, of, to, sums),
    }
}

/// As [`absorb`], of a matrix of this type.
#[inline(always)]
fn absorb_of<D: Door, T: Element>(
    lanes: D,
    matrix: Matrix<'_>,
    queries: View<'_>,
    of: [usize; 2],
    (to, stride): (&mut [f32], usize),
    sums: &mut [f32],
) {
    let [batch, head] = of;
    let (rank, depth) = (matrix.rows.width(), matrix.rows.counts()[2]);
    let count = queries.counts()[2];
    for query in 0..count {
        to[query * stride..][..rank].fill(0.0);
    }
    for begin in (0..depth).step_by(chain(D::ISA)) {
        let end = depth.min(begin + chain(D::ISA));
        // The four rows are read once for all queries where these are few, else once more for each.
        for query in 0..count {
            let row = queries.row(batch, head, query);
            let sums = &mut sums[..padded(rank)];
            sums.fill(0.0);
            let mut n = begin;
            while n + ROWS <= end {
                let behind = if query == 0 { matrix.behind(n + ROWS) } else { Behind::NOTHING };
                add_rows::<_, T, ROWS>(lanes, (matrix, n), row, behind, sums);
                n += ROWS;
            }
            for n in n..end {
                add_rows::<_, T, 1>(lanes, (matrix, n), row, Behind::NOTHING, sums);
            }
            for (to, sum) in to[query * stride..][..rank].iter_mut().zip(&*sums) {
                *to += sum;
            }
        }
    }
}

/// Adds the products of some rows from number `first` on with a query's numbers of theirs.
#[inline(always)]
fn add_rows<D: Door, T: Element, const N: usize>(
    lanes: D,
    (matrix, first): (Matrix<'_>, usize),
    query: Elements<'_>,
    mut behind: Behind<'_>,
    sums: &mut [f32],
) {
    let rows: [&[T]; N] = matrix.rows_from(first);
    let mut x = [F32::splat(lanes, 0.0); N];
    for (i, x) in x.iter_mut().enumerate() {
        *x = F32::splat(lanes, query.to_f32(first + i));
    }
    let whole = matrix.rows.width() / D::WIDTH;
    let (whole, rest) = vectors_mut(lanes, sums).split_at_mut(whole);
    let of_line = line_vectors::<D, T>();
    for (line, sums) in whole.chunks_mut(of_line).enumerate() {
        behind.ask(lanes, N);
        for (v, sum) in sums.iter_mut().enumerate() {
            let mut total = F32::from_raw(lanes, *sum);
            for (x, row) in x.iter().zip(&rows) {
                total = x.mul_add(T::load(lanes, &row[(line * of_line + v) * D::WIDTH..]), total);
            }
            *sum = total.raw();
        }
    }
    for (x, row) in x.iter().zip(&rows) {
        if let (Some(tail), Some(sum)) = (tail(lanes, row), rest.first_mut()) {
            *sum = x.mul_add(tail, F32::from_raw(lanes, *sum)).raw();
        }
    }
}

/// `to[v] = Σ_c row[c] · matrix[v][c]`, of a row in whole vectors, which may be the first to be multiplied by the matrix.
#[inline(always)]
pub(super) fn bring_back<D: Door>(lanes: D, matrix: Matrix<'_>, row: (&[f32], bool), to: &mut [f32]) {
    match matrix.rows.dtype() {
        Dtype::F32 => bring_back_of::<_, f32>(lanes, matrix, row, to),
        Dtype::F16 => bring_back_of::<_, f16>(lanes, matrix, row, to),
        Dtype::Bf16 => bring_back_of::<_, bf16>(lanes, matrix, row, to),
    }
}

/// As [`bring_back`], of a matrix of this type.
#[inline(always)]
fn bring_back_of<D: Door, T: Element>(
    lanes: D,
    matrix: Matrix<'_>,
    (row, is_first): (&[f32], bool),
    to: &mut [f32],
) {
    let (fours, rest) = to.as_chunks_mut::<ROWS>();
    let last = fours.len() * ROWS;
    for (four, to) in fours.iter_mut().enumerate() {
        let first = four * ROWS;
        let behind = if is_first { matrix.behind(first + ROWS) } else { Behind::NOTHING };
        *to = products(lanes, matrix.rows_from::<T, ROWS>(first), row, behind);
    }
    for (i, to) in rest.iter_mut().enumerate() {
        [*to] = products(lanes, matrix.rows_from::<T, 1>(last + i), row, Behind::NOTHING);
    }
}

/// Products of a row in whole vectors with some rows of a matrix.
#[inline(always)]
fn products<D: Door, T: Element, const N: usize>(
    lanes: D,
    rows: [&[T]; N],
    row: &[f32],
    mut behind: Behind<'_>,
) -> [f32; N] {
    let of_line = line_vectors::<D, T>();
    let whole = rows.first().map_or(0, |row| row.len() / D::WIDTH);
    let mut totals = [0.0; N];
    for begin in (0..row.len() / D::WIDTH).step_by(chain(D::ISA)) {
        let end = begin + chain(D::ISA);
        let mut sums = [F32::splat(lanes, 0.0); N];
        for line in (begin..whole.min(end)).step_by(of_line) {
            behind.ask(lanes, N);
            for v in line..whole.min(end).min(line + of_line) {
                let x = load_f32(lanes, &row[v * D::WIDTH..]);
                for (sum, w) in sums.iter_mut().zip(&rows) {
                    *sum = x.mul_add(T::load(lanes, &w[v * D::WIDTH..]), *sum);
                }
            }
        }
        if (begin..end).contains(&whole) {
            for (sum, w) in sums.iter_mut().zip(&rows) {
                if let Some(w) = tail(lanes, w) {
                    *sum = load_f32(lanes, &row[whole * D::WIDTH..]).mul_add(w, *sum);
                }
            }
        }
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total += sum.sum();
        }
    }
    totals
}
