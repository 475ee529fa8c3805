//! Products of so few rows that a core waits for memory more than it multiplies.
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
use super::rows::RowTile;
use super::tile::Operand;
use super::{Before, LANES, Target};
use crate::engine::Op;
use crate::isa::Door;

/// Rows whose products of a line take less time than it takes to come from memory.
pub(super) const FEW: usize = 1;

/// What a tile is beside its rows.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Vectors of lanes, a power of two.
    vectors: usize,
    /// Chains side by side.
    chains: usize,
}

/// Adds a product of few rows to outputs. It runs as a function of its own, as do its tiles, so that these find the registers free.
pub(super) struct AddFew<'a, 'p, 't, D, S, const N: usize> {
    pub lanes: D,
    pub product: &'a Product<'p, S, N>,
    pub before: Before<'a>,
    pub target: Target<'t>,
}

impl<D: Door, S: Stored<N>, const N: usize> Op for AddFew<'_, '_, '_, D, S, N> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { lanes, product, before, target } = self;
        let Operand { rows, depth, .. } = product.a;
        let rows = RowTile::new(0, rows).width;
        let shape = Shape::of::<D>(rows, (depth, product.chain)).within(product.panels * (LANES / D::WIDTH));
        macro_rules! one_of {
            ($(($rows:literal, $vectors:literal, $chains:literal))*) => {
                match (rows, shape.vectors, shape.chains) {
                    $(($rows, $vectors, $chains) => lanes.call(
                        AddTiles::<D, S, N, $rows, $vectors, $chains> { lanes, product, before, target }
                    ),)*
                    _ => panic!("a tile of {rows} rows by {shape:?}"),
                }
            };
        }
        one_of! {
            (1, 1, 1) (1, 2, 1) (1, 4, 1) (1, 1, 2) (1, 2, 2) (1, 4, 2)
        }
    }
}

impl Shape {
    /// Of tiles of so many rows over panels so deep, in chains of so many lines: as large as leaves each sum in a register.
    fn of<D: Door>(rows: usize, (depth, chain): (usize, usize)) -> Self {
        let (sums, panel) = (if D::TILE > 4 { 16 } else { 8 }, (LANES / D::WIDTH).min(4));
        // Runs of lines side by side: so many that a tile reads about as many lines as it asks ahead, two chains of a panel before the
        // next panel if there are as many.
        let runs = if 2 * chain.min(depth) >= NEAR { 2 } else { 4 };
        let pairs = depth.is_multiple_of(2 * chain) && rows * panel * 2 <= sums;
        let (panels, chains) = match pairs {
            true => (if depth == 2 * chain { runs / 2 } else { 1 }, 2),
            false => (runs, 1),
        };
        let mut vectors = (panels * panel).min(4);
        while rows * vectors * chains > sums {
            vectors /= 2;
        }
        Self { vectors, chains }
    }

    /// The same of no more vectors than there are, but one.
    const fn within(mut self, there: usize) -> Self {
        while self.vectors > there && self.vectors > 1 {
            self.vectors /= 2;
        }
        self
    }
}
