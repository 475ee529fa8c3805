//! Rows in tiles of 1, 2, 4 or 8.

use super::tile::MAX_ROWS;
use crate::isa::Door;

/// Some rows that are multiplied at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowTile {
    /// The first row.
    pub first: usize,
    /// Rows that there are.
    pub rows: usize,
    /// Rows of the tile, a power of two; those past `rows` count for nothing.
    pub width: usize,
}

/// Cuts rows into tiles, the last one no wider than it must be.
pub fn row_tiles<D: Door>(_: D, rows: usize) -> impl Iterator<Item = RowTile> {
    let most = MAX_ROWS.min(D::TILE);
    (0..rows).step_by(most).map(move |first| {
        let rows = most.min(rows - first);
        RowTile { first, rows, width: rows.next_power_of_two() }
    })
}
