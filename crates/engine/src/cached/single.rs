//! Products of one row, where a core waits for memory more than it multiplies.
//!
//! A core looks some hundred instructions ahead, and whatever is not a load and its product takes a part of that. So all tiles of a
//! block run in one function, with several lines between two jumps.

use core::marker::PhantomData;

use regard_simd::{F32, Simd, vectors_mut};

use super::ahead::{Ask, Next, Stream};
use super::floats::Product;
use super::load::{Step, Stored};
use super::{Before, LANES, Side, Target};
use crate::engine::Op;
use crate::isa::Door;

/// Adds a product of one row to outputs, and asks for lines as `A` does; `V` vectors are two lines. It runs as a function of its own, so
/// that its sums find the registers free.
pub(super) struct AddSingle<'a, 'p, 't, 's, D, S, A, const N: usize, const V: usize> {
    pub lanes: D,
    pub product: &'a Product<'p, S, N>,
    pub before: Before<'a>,
    pub target: Target<'t>,
    pub stream: Option<Stream<'s>>,
    pub kind: PhantomData<A>,
}

/// Steps between two jumps, of two lines each, where chains are as long.
const AT_ONCE: usize = 4;

impl<D: Door, S: Stored<N>, A: Ask, const N: usize, const V: usize> Op
    for AddSingle<'_, '_, '_, '_, D, S, A, N, V>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, product, before, target, mut stream, .. } = self;
        let to = &mut target.to[..product.panels * LANES];
        if let Before::Scaled(factors) = before {
            for x in vectors_mut(lanes, to) {
                *x = (F32::from_raw(lanes, *x) * F32::splat(lanes, factors[0])).raw();
            }
        }
        for page in 0..product.words.pages {
            let (words, a) = product.page(page);
            let before = if page == 0 { before } else { Before::Kept };
            let numbers: &[[f32; N]] = &a.numbers.as_chunks().0[..a.depth];
            let is_even = [a.depth, product.chain].iter().all(|lines| lines.is_multiple_of(AT_ONCE));
            let mut first = 0;
            while first < product.panels {
                let side = words.side(first, product.panels, 1);
                let to = &mut to[first * LANES..][..side.count * LANES];
                let mut row = Row::<D, A> { lanes, side, stream: &mut stream, to, before, kind: PhantomData };
                match (side.turns, is_even) {
                    (2, true) => row.add::<S, N, V, 2, AT_ONCE>(numbers, product.chain),
                    (2, false) => row.add::<S, N, V, 2, 1>(numbers, product.chain),
                    _ => row.add::<S, N, V, 1, 1>(numbers, product.chain),
                }
                first += side.count;
            }
        }
    }
}

/// A row's sums over some panels.
struct Row<'a, 's, D, A> {
    lanes: D,
    side: Side<'a>,
    stream: &'a mut Option<Stream<'s>>,
    to: &'a mut [f32],
    before: Before<'a>,
    kind: PhantomData<A>,
}

impl<D: Door, A: Ask> Row<'_, '_, D, A> {
    /// Adds all chains, `W` steps of lines between two jumps, of which `T` take turns.
    #[inline(always)]
    fn add<S: Stored<N>, const N: usize, const V: usize, const T: usize, const W: usize>(
        &mut self,
        numbers: &[[f32; N]],
        chain: usize,
    ) {
        let mut add = !matches!(self.before, Before::Nothing);
        let mut lines: &[[Step; T]] = self.side.lines.as_chunks().0;
        let mut numbers = numbers;
        while !numbers.is_empty() {
            let count = chain.min(numbers.len());
            let (of_chain, of_row);
            (of_chain, lines) = lines.split_at(count);
            (of_row, numbers) = numbers.split_at(count);
            let (of_chain, of_row) = (of_chain.as_chunks::<W>().0, of_row.as_chunks::<W>().0);
            let sums = match self.stream.as_mut().and_then(|stream| stream.next(T * count)) {
                Some(next) => self.sums::<S, N, V, T, W, true>(of_row, of_chain, next),
                None => self.sums::<S, N, V, T, W, false>(of_row, of_chain, Next::NOTHING),
            };
            for (to, sum) in vectors_mut(self.lanes, self.to).iter_mut().zip(sums) {
                *to = if add { self.lanes.simd().add_f32s(*to, sum) } else { sum };
            }
            add = true;
        }
    }

    /// The sums of a chain, which asks for a line for each that it reads if `ASKS`.
    #[inline(always)]
    fn sums<
        S: Stored<N>,
        const N: usize,
        const V: usize,
        const T: usize,
        const W: usize,
        const ASKS: bool,
    >(
        &self,
        row: &[[[f32; N]; W]],
        lines: &[[[Step; T]; W]],
        mut next: Next,
    ) -> [<D::Simd as Simd>::f32s; V] {
        let (lanes, simd, per_panel) = (self.lanes, self.lanes.simd(), LANES / D::WIDTH);
        let mut sums = [simd.splat_f32s(0.0); V];
        for (row, lines) in row.iter().zip(lines) {
            for i in 0..W {
                for (v, sum) in sums.iter_mut().enumerate().take(T * per_panel) {
                    let numbers = S::load(lanes, &lines[i][v / per_panel], v % per_panel);
                    for n in 0..N {
                        *sum = S::mul_add(lanes, simd.splat_f32s(row[i][n]), numbers[n], *sum);
                    }
                }
                if ASKS {
                    next.ask::<D, A>(lanes, i * T..(i + 1) * T);
                }
            }
            next.go_on(W * T);
        }
        sums
    }
}
