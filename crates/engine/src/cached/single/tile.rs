//! The register tile of one row: `U` vectors of lanes by `C` chains of sums.

use core::ops::Range;

use regard_simd::{F32, Lanes, Simd, vectors_mut};

use super::super::ahead::IntoFirst;
use super::super::floats::Product;
use super::super::load::{Step, Stored};
use super::super::{Before, LANES, Target};
use super::{Next, Stream};
use crate::engine::Op;
use crate::isa::Door;

/// Adds a product to outputs, tile after tile, so that between two tiles there is little beside their reads.
pub(super) struct AddTiles<'a, 'p, 't, D, S, const N: usize, const U: usize, const C: usize> {
    pub lanes: D,
    pub product: &'a Product<'p, S, N>,
    pub before: Before<'a>,
    pub target: Target<'t>,
}

/// Lines of each run between two jumps, where all runs have that many or more.
const AT_ONCE: usize = 8;

/// Sums of a tile.
type Sums<D, const U: usize, const C: usize> = [[<<D as Lanes>::Simd as Simd>::f32s; U]; C];

impl<D: Door, S: Stored<N>, const N: usize, const U: usize, const C: usize> Op
    for AddTiles<'_, '_, '_, D, S, N, U, C>
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

impl<D: Door, S: Stored<N>, const N: usize, const U: usize, const C: usize>
    AddTiles<'_, '_, '_, D, S, N, U, C>
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
        let to = &mut target.to[..panels * LANES];
        if let Before::Scaled(factors) = before {
            for x in vectors_mut(lanes, to) {
                *x = (F32::from_raw(lanes, *x) * F32::splat(lanes, factors[0])).raw();
            }
        }
        let numbers: &[[f32; N]] = a.numbers.as_chunks().0;
        let mut runs = Runs {
            a: &numbers.as_chunks::<W>().0[..a.depth / W],
            lines: words.steps().as_chunks::<W>().0,
            panel: panel / W,
            chain: chain / W,
            stream,
            to,
            add: !matches!(before, Before::Nothing),
        };
        let vectors = panels * per_panel;
        let whole = vectors / U * U;
        runs.take::<D, S, U, C>(lanes, 0..whole);
        runs.take::<D, S, 1, C>(lanes, whole..vectors);
    }
}

/// What is multiplied, `W` lines at once.
struct Runs<'a, 't, const N: usize, const W: usize> {
    /// The row, as long as a panel is deep.
    a: &'a [[[f32; N]; W]],
    lines: &'a [[Step; W]],
    /// From one panel to the next.
    panel: usize,
    /// Of a chain.
    chain: usize,
    /// Where lines are asked for while others are read.
    stream: Option<Stream<'a>>,
    /// Where sums go.
    to: &'t mut [f32],
    /// Whether those of the first chain are added to what is there, as those of all others are.
    add: bool,
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

impl<const N: usize, const W: usize> Runs<'_, '_, N, W> {
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
            while begin < self.a.len() {
                let at = At { first, begin, count: self.chain.min(self.a.len() - begin) };
                // Where several tiles share a panel the first one asks.
                let stream = self.stream.as_mut().filter(|_| first.is_multiple_of(LANES / D::WIDTH));
                let sums = match stream.and_then(|stream| stream.next()) {
                    Some(next) => self.sums::<D, S, U, C, true>(lanes, at, next),
                    None => self.sums::<D, S, U, C, false>(lanes, at, Next::NOTHING),
                };
                self.write(lanes, at, &sums);
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
    ) -> Sums<D, U, C> {
        let (simd, per_panel) = (lanes.simd(), LANES / D::WIDTH);
        let runs = C * U.div_ceil(per_panel);
        // Slices of one length, so that nothing is compared in the loop.
        let mut a = [&[][..]; C];
        let mut lines = [[&[][..]; U]; C];
        for (c, (a, lines)) in a.iter_mut().zip(&mut lines).enumerate() {
            *a = &self.a[begin + c * count..][..count];
            for (u, lines) in lines.iter_mut().enumerate() {
                let begin = (first + u) / per_panel * self.panel + begin + c * count;
                *lines = &self.lines[begin..][..count];
            }
        }
        let mut sums = [[simd.splat_f32s(0.0); U]; C];
        for j in 0..count {
            for i in 0..W {
                for c in 0..C {
                    let mut numbers = [[simd.splat_f32s(0.0); N]; U];
                    for (u, numbers) in numbers.iter_mut().enumerate() {
                        *numbers = S::load(lanes, &lines[c][u][j][i], (first + u) % per_panel);
                    }
                    for n in 0..N {
                        let a = simd.splat_f32s(a[c][j][i][n]);
                        for (sum, numbers) in sums[c].iter_mut().zip(&numbers) {
                            *sum = S::mul_add(lanes, a, numbers[n], *sum);
                        }
                    }
                }
                if ASKS {
                    next.ask::<D, IntoFirst>(lanes, i * runs..(i + 1) * runs);
                }
            }
            next.go_on(W * runs);
        }
        sums
    }

    /// Writes the sums of a tile.
    #[inline(always)]
    fn write<D: Door, const U: usize, const C: usize>(
        &mut self,
        lanes: D,
        At { first, begin, .. }: At,
        sums: &Sums<D, U, C>,
    ) {
        let (simd, add) = (lanes.simd(), self.add || begin > 0);
        let to = vectors_mut(lanes, &mut self.to[first * D::WIDTH..][..U * D::WIDTH]);
        for (u, to) in to.iter_mut().enumerate() {
            let mut sum = sums[0][u];
            if add {
                sum = simd.add_f32s(*to, sum);
            }
            for sums in &sums[1..] {
                sum = simd.add_f32s(sum, sums[u]);
            }
            *to = sum;
        }
    }
}
