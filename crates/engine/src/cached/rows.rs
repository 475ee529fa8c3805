//! Tiles of 1, 2, 4 or 8 rows.

/// Some rows that are multiplied at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowTile {
    /// The first row.
    pub first: usize,
    /// Rows that there are.
    pub rows: usize,
    /// Rows of the tile, a power of two; those past `rows` count for nothing.
    pub width: usize,
}

impl RowTile {
    /// A tile no wider than it must be.
    pub const fn new(first: usize, rows: usize) -> Self {
        Self { first, rows, width: rows.next_power_of_two() }
    }
}
