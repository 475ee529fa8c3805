//! The register tile of few rows: `R` rows by `U` vectors of lanes by `C` chains of sums.

use core::ops::Range;

use regard_simd::{F32, Lanes, Simd, vectors_mut};

use super::super::floats::Product;
use super::super::load::{Step, Stored};
use super::super::{Before, LANES, Target};
use super::{Next, Stream};
use crate::engine::Op;
use crate::isa::Door;

/// Adds a product to outputs, tile after tile, so that between two tiles there is little beside their reads.
pub(super) struct AddTiles<'a, 'p, 't, D, S, const N: usize, const R: usize, const U: usize, const C: usize> {
    pub lanes: D,
    pub product: &'a Product<'p, S, N>,
    pub before: Before<'a>,
    pub target: Target<'t>,
}

/// Lines of each run between two jumps, where all runs have that many or more.
const AT_ONCE: usize = 8;

/// Sums of a tile.
type Sums<D, const R: usize, const U: usize, const C: usize> =
    [[[<<D as Lanes>::Simd as Simd>::f32s; U]; C]; R];

impl<D: Door, S: Stored<N>, const N: usize, const R: usize, const U: usize, const C: usize> Op
    for AddTiles<'_, '_, '_, D, S, N, R, U, C>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let &Product { a, chain, panel, .. } = self.product;
        match [a.depth, chain, panel].iter().all(|lines| lines.is_multiple_of(AT_ONCE)) {
            true => self.take::<AT_ONCE>(),
            false => self.take::<1>(),
        }
    }
}

impl<D: Door, S: Stored<N>, const N: usize, const R: usize, const U: usize, const C: usize>
    AddTiles<'_, '_, '_, D, S, N, R, U, C>
{
    /// Takes all tiles, `W` lines of each run at once.
    #[inline(always)]
    fn take<const W: usize>(self) {
        let Self { lanes, product, before, target } = self;
        let &Product { a, chain, words, panels, panel, .. } = product;
        let per_panel = LANES / D::WIDTH;
        let stream = words.ahead.map(|ahead| {
            let tile = U.div_ceil(per_panel) * C * chain.min(a.depth);
            Stream::new(&words.steps()[..panels * panel], ahead, tile)
        });
        let mut write = Write {
            to: target.to,
            stride: target.stride,
            rows: a.rows,
            add: !matches!(before, Before::Nothing),
        };
        if let Before::Scaled(factors) = before {
            write.scale(lanes, factors, panels * LANES);
        }
        let mut rows: [&[[[f32; N]; W]]; R] = [&[]; R];
        for (r, row) in rows.iter_mut().enumerate() {
            let numbers: &[[f32; N]] = a.numbers[r.min(a.rows - 1) * a.stride..].as_chunks().0;
            *row = &numbers.as_chunks().0[..a.depth / W];
        }
        let lines = words.steps().as_chunks().0;
        let mut runs =
            Runs { a: rows, lines, panel: panel / W, depth: a.depth / W, chain: chain / W, stream, write };
        let vectors = panels * per_panel;
        let whole = vectors / U * U;
        runs.take::<D, S, U, C>(lanes, 0..whole);
        runs.take::<D, S, 1, C>(lanes, whole..vectors);
    }
}

/// What is multiplied, `W` lines at once.
struct Runs<'a, 't, const N: usize, const R: usize, const W: usize> {
    /// Of each row.
    a: [&'a [[[f32; N]; W]]; R],
    lines: &'a [[Step; W]],
    /// From one panel to the next.
    panel: usize,
    /// Of a panel, and of a chain of it.
    depth: usize,
    chain: usize,
    /// Where lines are asked for while others are read.
    stream: Option<Stream<'a>>,
    write: Write<'t>,
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

impl<const N: usize, const R: usize, const W: usize> Runs<'_, '_, N, R, W> {
    /// Takes vectors of lanes, counted over the panels, as many tiles as they are.
    #[inline(always)]
    fn take<D: Door, S: Stored<N>, const U: usize, const C: usize>(
        &mut self,
        lanes: D,
        vectors: Range<usize>,
    ) {
        // No `step_by`, whose set-up takes dozens of instructions for each panel.
        let mut first = vectors.start;
        while first < vectors.end {
            let mut begin = 0;
            while begin < self.depth {
                let at = At { first, begin, count: self.chain.min(self.depth - begin) };
                // Where several tiles share a panel the first one asks.
                let stream = self.stream.as_mut().filter(|_| first.is_multiple_of(LANES / D::WIDTH));
                let sums = match stream.and_then(|stream| stream.next()) {
                    Some(next) => self.sums::<D, S, U, C, true>(lanes, at, next),
                    None => self.sums::<D, S, U, C, false>(lanes, at, Next::NOTHING),
                };
                self.write.write(lanes, (first, begin > 0), &sums);
                begin += C * self.chain;
            }
            first += U;
        }
    }

    /// The sums of a tile, which asks for a line for each that it reads if `ASKS`.
    #[inline(always)]
    fn sums<D: Door, S: Stored<N>, const U: usize, const C: usize, const ASKS: bool>(
        &self,
        lanes: D,
        At { first, begin, count }: At,
        mut next: Next,
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
                    next.ask(lanes, i * runs..(i + 1) * runs);
                }
            }
            next.go_on(W * runs);
        }
        sums
    }
}

/// Where sums go.
struct Write<'a> {
    /// Rows that are `stride` apart.
    to: &'a mut [f32],
    stride: usize,
    /// Rows that are written.
    rows: usize,
    /// Whether those of the first chain are added to what is there, as those of all others are.
    add: bool,
}

impl Write<'_> {
    /// Multiplies the first numbers of each row by its factor.
    #[inline(always)]
    fn scale<D: Door>(&mut self, lanes: D, factors: &[f32], count: usize) {
        for (row, &factor) in self.to.chunks_mut(self.stride).zip(factors).take(self.rows) {
            for x in vectors_mut(lanes, &mut row[..count]) {
                *x = (F32::from_raw(lanes, *x) * F32::splat(lanes, factor)).raw();
            }
        }
    }

    /// Writes the sums of a tile whose first vector is number `first`.
    #[inline(always)]
    fn write<D: Door, const R: usize, const U: usize, const C: usize>(
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
