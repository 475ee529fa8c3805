//! The register tile of both products with what is cached: `c[r][l] (+)= Σ_j Σ_n a[j][r][n] · panel[j][l][n]`.
//!
//! Lanes are keys in scores and channels in outputs; rows are pairs of query head and query, and are broadcast. A tile is
//! `R` rows by `U` vectors of lanes. With one query of few heads it is bound by the reads of the panels, with several it
//! keeps every sum in a register.

use core::marker::PhantomData;

use regard_simd::{Simd, vectors_mut};

use super::load::{Step, Stored};
use crate::engine::Op;
use crate::isa::Door;

/// The most rows of a tile.
pub(super) const MAX_ROWS: usize = 8;

/// What becomes of a tile's sums.
pub(super) struct Write<'a> {
    /// Rows that are `stride` apart, of which the first vector is the tile's first.
    pub to: &'a mut [f32],
    pub stride: usize,
    /// Rows that are written.
    pub rows: usize,
    /// What each lane is multiplied by, from the tile's first vector on.
    pub scales: Option<&'a [f32]>,
    /// Whether sums are added to what is there, after that was multiplied by its row's factor.
    pub add: bool,
    /// A factor for each row, a power of two.
    pub factors: Option<&'a [f32]>,
}

/// One tile. It runs as a function of its own, so that its sums keep every register.
pub(super) struct Tile<'a, D, S, const N: usize, const R: usize, const U: usize> {
    pub lanes: D,
    /// `[depth][R][N]`.
    pub a: &'a [[[f32; N]; R]],
    /// Whole panels, each as deep as `a` or deeper, that are `panel` rows apart.
    pub panels: &'a [Step],
    pub panel: usize,
    /// The first vector of lanes, counted over the panels.
    pub first: usize,
    /// Rows that are asked for before they are needed, as many of them for each row of `panels` that is read.
    pub ahead: &'a [Step],
    pub write: Write<'a>,
    pub stored: PhantomData<S>,
}

impl<D: Door, S: Stored<N>, const N: usize, const R: usize, const U: usize> Op for Tile<'_, D, S, N, R, U> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, a, panels, panel, first, ahead, write, .. } = self;
        let simd = lanes.simd();
        let per_panel = super::LANES / D::WIDTH;
        // Slices of one length, so that nothing is compared in the loop.
        let mut rows = [&panels[..0]; U];
        for (u, rows) in rows.iter_mut().enumerate() {
            *rows = &panels[(first + u) / per_panel * panel..][..a.len()];
        }
        let mut sums = [[simd.splat_f32s(0.0); U]; R];
        let mut line = 0;
        for (j, a) in a.iter().enumerate() {
            let mut numbers = [[simd.splat_f32s(0.0); N]; U];
            for (u, numbers) in numbers.iter_mut().enumerate() {
                *numbers = S::load(lanes, &rows[u][j], (first + u) % per_panel);
            }
            for n in 0..N {
                for (sums, a) in sums.iter_mut().zip(a) {
                    let a = simd.splat_f32s(a[n]);
                    for (sum, numbers) in sums.iter_mut().zip(&numbers) {
                        *sum = simd.mul_add_e_f32s(a, numbers[n], *sum);
                    }
                }
            }
            for u in 0..U {
                if (first + u) % per_panel == 0 {
                    if let Some(step) = ahead.get(line) {
                        lanes.prefetch(step);
                    }
                    line += 1;
                }
            }
        }
        let Write { to, stride, rows, scales, add, factors } = write;
        for (r, sums) in sums.iter().enumerate().take(rows) {
            let to = vectors_mut(lanes, &mut to[r * stride..][..U * D::WIDTH]);
            let factor = factors.map(|factors| simd.splat_f32s(factors[r]));
            for (u, (to, &sum)) in to.iter_mut().zip(sums).enumerate() {
                let mut sum = sum;
                if let Some(scales) = scales {
                    sum = simd
                        .mul_f32s(sum, regard_simd::vectors(lanes, &scales[u * D::WIDTH..][..D::WIDTH])[0]);
                }
                if add {
                    let before = match factor {
                        Some(factor) => simd.mul_f32s(*to, factor),
                        None => *to,
                    };
                    sum = simd.add_f32s(before, sum);
                }
                *to = sum;
            }
        }
    }
}
