//! The register tile of both products with what is cached: `c[r][l] (+)= Σ_j Σ_n a[j][r][n] · panel[j][l][n]`.
//!
//! Lanes are keys in scores and channels in outputs; rows are pairs of query head and query, and are broadcast. A tile is
//! `R` rows by `U` vectors of lanes. With one query of few heads it is bound by the reads of the panels, with several it
//! keeps every sum in a register.

use core::marker::PhantomData;
use core::ops::Range;

use regard_simd::{Lanes, Simd, vectors_mut};

use super::RowTile;
use super::ahead::{Ask, Next};
use super::load::{Step, Stored};
use crate::engine::Op;
use crate::isa::Door;

/// What becomes of a tile's sums.
pub(super) struct Write<'a> {
    /// Rows that are `stride` apart, of which the first vector is the tile's first.
    pub to: &'a mut [f32],
    pub stride: usize,
    /// Rows that are written.
    pub rows: usize,
    /// Whether sums are added to what is there, after that was multiplied by its row's factor.
    pub add: bool,
    /// A factor for each row, a power of two.
    pub factors: Option<&'a [f32]>,
}

/// Panels side by side, each as deep as what it is multiplied with, or deeper.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    /// From a line of the first on.
    pub lines: &'a [Step],
    /// Lines of each.
    pub apart: usize,
}

impl<'a> Panels<'a> {
    /// The lines of one of them, of which each is one of `W` that take turns, and which of these.
    #[inline(always)]
    pub fn lines<const W: usize>(&self, panel: usize, range: Range<usize>) -> (&'a [[Step; W]], usize) {
        (&self.lines[panel / W * W * self.apart..].as_chunks().0[range], panel % W)
    }
}

/// One tile of panels of which `W` take turns, which asks for lines as `A` does. It runs as a function of its own, so that its sums keep every register.
pub(super) struct Tile<'a, D, S, A, const N: usize, const R: usize, const U: usize, const W: usize> {
    pub lanes: D,
    pub a: Operand<'a>,
    pub panels: Panels<'a>,
    /// The first vector of lanes, counted over the panels.
    pub first: usize,
    /// Lines that are asked for while these are read.
    pub next: Option<Next>,
    pub write: Write<'a>,
    pub kind: PhantomData<(S, A)>,
}

/// Steps between two jumps of a tile of 16 registers.
const AT_ONCE: usize = 4;

/// Rows that are broadcast: `depth` times as many numbers as a word takes of each, `stride` numbers apart.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub numbers: &'a [f32],
    pub stride: usize,
    /// Rows that there are; what a tile has more repeats the last.
    pub rows: usize,
    pub depth: usize,
}

impl<'a> Operand<'a> {
    /// The rows of a tile, all of one length.
    #[inline(always)]
    fn rows<const N: usize, const R: usize>(&self) -> [&'a [[f32; N]]; R] {
        let Self { numbers, stride, rows, depth } = *self;
        let mut all: [&[[f32; N]]; R] = [&[]; R];
        for (r, row) in all.iter_mut().enumerate() {
            *row = &numbers[r.min(rows - 1) * stride..].as_chunks().0[..depth];
        }
        all
    }

    /// Those of a tile.
    #[inline(always)]
    pub fn tile(&self, tile: RowTile) -> Self {
        Self { numbers: &self.numbers[tile.first * self.stride..], rows: tile.rows, ..*self }
    }
}

/// Sums of a tile.
type Sums<D, const R: usize, const U: usize> = [[<<D as Lanes>::Simd as Simd>::f32s; U]; R];

impl<'a, D: Door, S: Stored<N>, A: Ask, const N: usize, const R: usize, const U: usize, const W: usize>
    Tile<'a, D, S, A, N, R, U, W>
{
    /// Adds the products of some steps, `T` between two jumps.
    #[inline(always)]
    fn add<const T: usize>(
        &self,
        mut sums: Sums<D, R, U>,
        next: &mut Option<Next>,
        range: Range<usize>,
    ) -> Sums<D, R, U> {
        let (lanes, first) = (self.lanes, self.first);
        let simd = lanes.simd();
        let per_panel = super::LANES / D::WIDTH;
        // Slices of one length, so that nothing is compared in the loop.
        let count = range.len() / T;
        let mut a: [&[[[f32; N]; T]]; R] = [&[]; R];
        for (a, row) in a.iter_mut().zip(self.a.rows::<N, R>()) {
            *a = &row[range.clone()].as_chunks().0[..count];
        }
        let mut lines: [(&[[[Step; W]; T]], usize); U] = [(&[], 0); U];
        for (u, lines) in lines.iter_mut().enumerate() {
            let (of_panel, turn) = self.panels.lines::<W>((first + u) / per_panel, range.clone());
            *lines = (&of_panel.as_chunks().0[..count], turn);
        }
        for j in 0..count {
            for t in 0..T {
                let mut numbers = [[simd.splat_f32s(0.0); N]; U];
                for (u, numbers) in numbers.iter_mut().enumerate() {
                    let (lines, turn) = lines[u];
                    *numbers = S::load(lanes, &lines[j][t][turn], (first + u) % per_panel);
                }
                for n in 0..N {
                    for (sums, a) in sums.iter_mut().zip(&a) {
                        let a = simd.splat_f32s(a[j][t][n]);
                        for (sum, numbers) in sums.iter_mut().zip(&numbers) {
                            *sum = S::mul_add(lanes, a, numbers[n], *sum);
                        }
                    }
                }
                if let Some(next) = next {
                    let count = U.div_ceil(per_panel);
                    next.ask::<D, A>(lanes, t * count..(t + 1) * count);
                }
            }
            if let Some(next) = next {
                next.go_on(T * U.div_ceil(per_panel));
            }
        }
        sums
    }
}

impl<D: Door, S: Stored<N>, A: Ask, const N: usize, const R: usize, const U: usize, const W: usize> Op
    for Tile<'_, D, S, A, N, R, U, W>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (depth, mut next) = (self.a.depth, self.next);
        let mut sums = [[self.lanes.simd().splat_f32s(0.0); U]; R];
        // In 16 registers a tile has so few products a step that the instructions of a loop count.
        let whole = if D::TILE > 4 { 0 } else { depth / AT_ONCE * AT_ONCE };
        if whole > 0 {
            sums = self.add::<AT_ONCE>(sums, &mut next, 0..whole);
        }
        if whole < depth {
            sums = self.add::<1>(sums, &mut next, whole..depth);
        }
        self.write.write(self.lanes, &sums);
    }
}

impl Write<'_> {
    #[inline(always)]
    pub fn write<D: Door, const R: usize, const U: usize>(self, lanes: D, sums: &Sums<D, R, U>) {
        let simd = lanes.simd();
        let Self { to, stride, rows, add, factors } = self;
        for (r, sums) in sums.iter().enumerate().take(rows) {
            let to = vectors_mut(lanes, &mut to[r * stride..][..U * D::WIDTH]);
            for u in 0..U {
                let mut sum = sums[u];
                if add {
                    let before = match factors {
                        Some(factors) => simd.mul_f32s(to[u], simd.splat_f32s(factors[r])),
                        None => to[u],
                    };
                    sum = simd.add_f32s(before, sum);
                }
                to[u] = sum;
            }
        }
    }
}
