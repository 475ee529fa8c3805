//! Products with the matrices of latents: a query is brought to them before it meets keys, and its output back.
//!
//! Matrices are read as they are given, four rows at a time, once for all queries of a head.

use regard_engine::element::Element;
use regard_engine::isa::Door;
use regard_ir::machine::Isa;
use regard_simd::{F32, load_f32, vectors_mut};

use crate::carve::ALIGN;
use crate::lines;
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

/// Floats that a product works in.
pub(super) const fn scratch_len(rank: usize) -> usize {
    // Rows of the matrix, and a chain of sums.
    (ROWS + 1) * padded(rank)
}

/// A head's matrix, row by row.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    pub rows: View<'a, T>,
    pub head: usize,
}

impl<'a, T: Element> Matrix<'a, T> {
    /// Asks for the rows behind the four from number `first` on: the first product to read a matrix would wait for each.
    #[inline(always)]
    fn ask_behind<D: Door>(&self, lanes: D, first: usize) {
        let count = self.rows.counts()[2];
        for row in (first + ROWS).min(count)..(first + 2 * ROWS).min(count) {
            lines::ask(lanes, self.rows.row(0, self.head, row));
        }
    }

    /// Up to four rows from number `first` on, widened where they must be, each in whole vectors; zeros past the last.
    #[inline(always)]
    fn four<'s, D: Door>(&self, lanes: D, first: usize, scratch: &'s mut [f32]) -> [&'s [f32]; ROWS]
    where
        'a: 's,
    {
        let (rank, count) = (self.rows.width(), self.rows.counts()[2]);
        let mut found: [&[f32]; ROWS] = [&[]; ROWS];
        let pieces = scratch.chunks_exact_mut(padded(rank)).take(ROWS).enumerate();
        for (i, piece) in pieces {
            found[i] = if first + i >= count {
                piece.fill(0.0);
                piece
            } else {
                let row = self.rows.row(0, self.head, first + i);
                if rank.is_multiple_of(ALIGN) {
                    T::widen(lanes, row, piece)
                } else {
                    let (there, behind) = piece.split_at_mut(rank);
                    T::widen_into(lanes, row, there);
                    behind.fill(0.0);
                    piece
                }
            };
        }
        found
    }
}

/// `to[c] = Σ_n query[n] · matrix[n][c]` for each of some queries, whose rows in `to` begin `stride` apart.
#[inline(always)]
pub(super) fn absorb<D: Door, T: Element>(
    lanes: D,
    matrix: Matrix<'_, T>,
    queries: View<'_, T>,
    of: [usize; 2],
    (to, stride): (&mut [f32], usize),
    scratch: &mut [f32],
) {
    let [batch, head] = of;
    let (rank, depth) = (matrix.rows.width(), matrix.rows.counts()[2]);
    let count = queries.counts()[2];
    let (rows, sums) = scratch.split_at_mut(ROWS * padded(rank));
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
            for n in (begin..end).step_by(ROWS) {
                if query == 0 {
                    matrix.ask_behind(lanes, n);
                }
                let four = matrix.four(lanes, n, rows);
                let x: [f32; ROWS] =
                    core::array::from_fn(|i| if n + i < end { row[n + i].to_f32() } else { 0.0 });
                let x = x.map(|x| F32::splat(lanes, x));
                for (v, sum) in vectors_mut(lanes, sums).iter_mut().enumerate() {
                    let at = v * D::WIDTH;
                    let mut total = F32::from_raw(lanes, *sum);
                    for (x, w) in x.iter().zip(&four) {
                        total = x.mul_add(load_f32(lanes, &w[at..]), total);
                    }
                    *sum = total.raw();
                }
            }
            for (to, sum) in to[query * stride..][..rank].iter_mut().zip(&*sums) {
                *to += sum;
            }
        }
    }
}

/// `to[v] = Σ_c row[c] · matrix[v][c]`, of a row in whole vectors, which may be the first to be multiplied by the matrix.
#[inline(always)]
pub(super) fn bring_back<D: Door, T: Element>(
    lanes: D,
    matrix: Matrix<'_, T>,
    (row, is_first): (&[f32], bool),
    to: &mut [f32],
    scratch: &mut [f32],
) {
    let vectors = padded(matrix.rows.width()) / D::WIDTH;
    for (four, to) in to.chunks_mut(ROWS).enumerate() {
        if is_first {
            matrix.ask_behind(lanes, four * ROWS);
        }
        let four = matrix.four(lanes, four * ROWS, scratch);
        let mut totals = [0.0; ROWS];
        for begin in (0..vectors).step_by(chain(D::ISA)) {
            let mut sums = [F32::splat(lanes, 0.0); ROWS];
            for v in begin..vectors.min(begin + chain(D::ISA)) {
                let x = load_f32(lanes, &row[v * D::WIDTH..]);
                for (sum, w) in sums.iter_mut().zip(&four) {
                    *sum = x.mul_add(load_f32(lanes, &w[v * D::WIDTH..]), *sum);
                }
            }
            for (total, sum) in totals.iter_mut().zip(sums) {
                *total += sum.sum();
            }
        }
        to.copy_from_slice(&totals[..to.len()]);
    }
}
