//! The register tile of both products with what is cached: `c[r][l] (+)= Σ_j Σ_n a[j][r][n] · panel[j][l][n]`.
//!
//! Lanes are keys in scores and channels in outputs; rows are pairs of query head and query, and are broadcast. A tile is
//! `R` rows by `U` vectors of lanes by `C` chains of sums. With one query of few heads it is bound by the reads of the panels, with
//! several it keeps every sum in a register.

use core::marker::PhantomData;

use regard_simd::{Simd, vectors_mut};

use super::ahead::{Cursor, Soon};
use super::load::{Step, Stored};
use super::rows::RowTile;
use super::{LANES, Over};
use crate::engine::Op;
use crate::isa::Door;

/// What becomes of sums.
pub(super) struct Write<'a> {
    /// Rows that are `stride` apart.
    pub to: &'a mut [f32],
    pub stride: usize,
    /// Rows that are written.
    pub rows: usize,
    /// Whether those of the first chain are added to what is there, as those of all others are.
    pub add: bool,
}

/// Tiles of some rows, one after the other. They run as a function of their own, so that sums keep every register, and so that between
/// two tiles there is little beside their reads.
pub(super) struct Tile<'a, 'c, D, S, const N: usize, const R: usize, const U: usize, const C: usize> {
    pub lanes: D,
    pub a: Operand<'a>,
    /// Whole panels, each as deep as `a` or deeper, that are `panel` lines apart.
    pub panels: &'a [Step],
    pub panel: usize,
    pub over: Over,
    /// Where lines are asked for while these are read.
    pub cursor: Option<&'a mut Cursor<'c>>,
    pub write: Write<'a>,
    pub stored: PhantomData<S>,
}

/// Rows that are broadcast: `depth` times as many numbers as a word takes of each, `stride` numbers apart.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub numbers: &'a [f32],
    pub stride: usize,
    /// Rows that there are; what a tile has more repeats the last.
    pub rows: usize,
    pub depth: usize,
    /// Of that, what is one chain of sums; the last may be shorter.
    pub chain: usize,
}

impl Operand<'_> {
    /// Chains of sums.
    pub const fn chains(&self) -> usize {
        self.depth.div_ceil(self.chain)
    }

    /// Those of a tile.
    #[inline(always)]
    pub fn tile(&self, tile: RowTile) -> Self {
        Self { numbers: &self.numbers[tile.first * self.stride..], rows: tile.rows, ..*self }
    }
}

/// Lines of each run between two jumps, where all are that many or more: fewer instructions beside the products let a processor look
/// further ahead.
const AT_ONCE: usize = 8;

/// Sums of a tile.
type Sums<D, const R: usize, const U: usize, const C: usize> =
    [[[<<D as regard_simd::Lanes>::Simd as Simd>::f32s; U]; C]; R];

impl<D: Door, S: Stored<N>, const N: usize, const R: usize, const U: usize, const C: usize> Op
    for Tile<'_, '_, D, S, N, R, U, C>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Operand { depth, chain, .. } = self.a;
        if [depth, chain, self.panel].iter().all(|lines| lines.is_multiple_of(AT_ONCE)) {
            self.take::<AT_ONCE>();
        } else {
            self.take::<1>();
        }
    }
}

impl<D: Door, S: Stored<N>, const N: usize, const R: usize, const U: usize, const C: usize>
    Tile<'_, '_, D, S, N, R, U, C>
{
    /// Takes all tiles, `W` lines of each run at once.
    #[inline(always)]
    fn take<const W: usize>(mut self) {
        let per_panel = LANES / D::WIDTH;
        let Operand { numbers, stride, rows, depth, chain } = self.a;
        let mut a: [&[[[f32; N]; W]]; R] = [&[]; R];
        for (r, a) in a.iter_mut().enumerate() {
            let row: &[[f32; N]] = numbers[r.min(rows - 1) * stride..].as_chunks().0;
            *a = &row.as_chunks().0[..depth / W];
        }
        let runs = Runs { a, lines: self.panels.as_chunks().0, panel: self.panel / W };
        let Over { vectors, chains } = self.over;
        // No `step_by`, whose set-up takes dozens of instructions for each panel.
        let mut first = vectors.start;
        while first < vectors.end {
            let mut number = chains.start;
            while number < chains.end {
                let begin = number * (chain / W);
                let at = At { first, begin, count: (chain / W).min(depth / W - begin) };
                // Where several tiles share a panel the first one asks.
                let cursor = self.cursor.as_mut().filter(|_| first.is_multiple_of(per_panel));
                let sums = match cursor.and_then(|cursor| cursor.next()) {
                    Some(soon) => runs.sums::<D, S, U, C, true>(self.lanes, at, soon),
                    None => runs.sums::<D, S, U, C, false>(self.lanes, at, Soon::NOTHING),
                };
                self.write.write(self.lanes, (first, number > 0), &sums);
                number += C;
            }
            first += U;
        }
    }
}

/// What is multiplied, `W` lines at once.
#[derive(Clone, Copy)]
struct Runs<'a, const N: usize, const R: usize, const W: usize> {
    /// Of each row.
    a: [&'a [[[f32; N]; W]]; R],
    lines: &'a [[Step; W]],
    /// From one panel to the next.
    panel: usize,
}

/// Where a tile is.
#[derive(Clone, Copy)]
struct At {
    /// Its first vector, counted over the panels.
    first: usize,
    /// Where its first chain begins, and how long each is.
    begin: usize,
    count: usize,
}

impl<const N: usize, const R: usize, const W: usize> Runs<'_, N, R, W> {
    /// The sums of a tile, which asks for a line for each that it reads if `ASKS`.
    #[inline(always)]
    fn sums<D: Door, S: Stored<N>, const U: usize, const C: usize, const ASKS: bool>(
        &self,
        lanes: D,
        At { first, begin, count }: At,
        mut soon: Soon,
    ) -> Sums<D, R, U, C> {
        let (simd, per_panel) = (lanes.simd(), LANES / D::WIDTH);
        let runs = C * U.div_ceil(per_panel);
        // Slices of one length, so that nothing is compared in the loop.
        let mut a = [[&[][..]; C]; R];
        for (row, a) in self.a.iter().zip(&mut a) {
            for (c, a) in a.iter_mut().enumerate() {
                *a = &row[begin + c * count..][..count];
            }
        }
        let mut lines = [[&[][..]; U]; C];
        for (c, lines) in lines.iter_mut().enumerate() {
            for (u, lines) in lines.iter_mut().enumerate() {
                let begin = (first + u) / per_panel * self.panel + begin + c * count;
                *lines = &self.lines[begin..][..count];
            }
        }
        let mut sums = [[[simd.splat_f32s(0.0); U]; C]; R];
        for j in 0..count {
            for i in 0..W {
                for c in 0..C {
                    let mut numbers = [[simd.splat_f32s(0.0); N]; U];
                    for (u, numbers) in numbers.iter_mut().enumerate() {
                        *numbers = S::load(lanes, &lines[c][u][j][i], (first + u) % per_panel);
                    }
                    for n in 0..N {
                        for (sums, a) in sums.iter_mut().zip(&a) {
                            let a = simd.splat_f32s(a[c][j][i][n]);
                            for (sum, numbers) in sums[c].iter_mut().zip(&numbers) {
                                *sum = S::mul_add(lanes, a, numbers[n], *sum);
                            }
                        }
                    }
                }
                if ASKS {
                    soon.ask(lanes, i * runs..(i + 1) * runs);
                }
            }
            soon.go_on(W * runs);
        }
        sums
    }
}

impl Write<'_> {
    /// Writes the sums of a tile whose first vector is number `first`.
    #[inline(always)]
    pub fn write<D: Door, const R: usize, const U: usize, const C: usize>(
        &mut self,
        lanes: D,
        (first, add): (usize, bool),
        sums: &Sums<D, R, U, C>,
    ) {
        let simd = lanes.simd();
        let add = add || self.add;
        for (r, sums) in sums.iter().enumerate().take(self.rows) {
            let begin = r * self.stride + first * D::WIDTH;
            let to = vectors_mut(lanes, &mut self.to[begin..][..U * D::WIDTH]);
            for u in 0..U {
                let mut sum = sums[0][u];
                if add {
                    sum = simd.add_f32s(to[u], sum);
                }
                for sums in &sums[1..] {
                    sum = simd.add_f32s(sum, sums[u]);
                }
                to[u] = sum;
            }
        }
    }
}
