//! Products of one row, where a core waits for memory more than it multiplies.
//!
//! A core looks some hundred instructions ahead, and whatever is not a load and its product takes a part of that. So all tiles of a
//! block run in one function, with several lines between two jumps, and chains of sums side by side rather than one after the other.

mod stream;
mod tile;

use self::stream::NEAR;
pub(super) use self::stream::{Next, Stream};
use self::tile::AddTiles;
use super::floats::Product;
use super::load::Stored;
use super::{Before, LANES, Target};
use crate::engine::Op;
use crate::isa::Door;

/// What a tile is.
#[derive(Clone, Copy)]
struct Shape {
    /// Vectors of lanes: 1, 2 or 4.
    vectors: usize,
    /// Chains side by side, if not one alone.
    pairs: bool,
}

/// Adds a product of one row to outputs. It runs as a function of its own, as do its tiles, so that these find the registers free.
pub(super) struct AddSingle<'a, 'p, 't, D, S, const N: usize> {
    pub lanes: D,
    pub product: &'a Product<'p, S, N>,
    pub before: Before<'a>,
    pub target: Target<'t>,
}

impl<D: Door, S: Stored<N>, const N: usize> Op for AddSingle<'_, '_, '_, D, S, N> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, product, before, target } = self;
        let Shape { vectors, pairs } = Shape::of::<D, S, N>(product);
        match (vectors, pairs) {
            (1, false) => lanes.call(AddTiles::<D, S, N, 1, 1> { lanes, product, before, target }),
            (2, false) => lanes.call(AddTiles::<D, S, N, 2, 1> { lanes, product, before, target }),
            (_, false) => lanes.call(AddTiles::<D, S, N, 4, 1> { lanes, product, before, target }),
            (1, true) => lanes.call(AddTiles::<D, S, N, 1, 2> { lanes, product, before, target }),
            (2, true) => lanes.call(AddTiles::<D, S, N, 2, 2> { lanes, product, before, target }),
            (_, true) => lanes.call(AddTiles::<D, S, N, 4, 2> { lanes, product, before, target }),
        }
    }
}

impl Shape {
    /// Of the tiles of a product: no wider than it is, and so that a tile reads about as many lines as it asks ahead, two chains of a
    /// panel before the next panel if there are as many.
    fn of<D: Door, S: Stored<N>, const N: usize>(product: &Product<'_, S, N>) -> Self {
        let &Product { a, chain, panels, .. } = product;
        let per_panel = LANES / D::WIDTH;
        let runs = if 2 * chain.min(a.depth) >= NEAR { 2 } else { 4 };
        let pairs = a.depth.is_multiple_of(2 * chain);
        let side_by_side = match pairs {
            true if a.depth == 2 * chain => runs / 2,
            true => 1,
            false => runs,
        };
        let mut vectors = (side_by_side * per_panel).min(4);
        while vectors > 1 && vectors > panels * per_panel {
            vectors /= 2;
        }
        Self { vectors, pairs }
    }
}
