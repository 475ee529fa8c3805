//! Cells of a picture: what their pairs are, and which pairs they hold.

use std::ops::Range;

/// What some pairs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Of a tile that is never visited.
    Dead,
    /// Masked out, in a partial tile.
    Masked,
    /// Of a partial tile, and perhaps allowed: tested lane by lane.
    Tested,
    /// Allowed, in a partial tile.
    Allowed,
    /// Of a tile without mask code.
    Full,
}

impl Kind {
    /// Every kind, from the lightest colour to the darkest.
    pub(crate) const ALL: [Kind; 5] = [Kind::Dead, Kind::Masked, Kind::Tested, Kind::Allowed, Kind::Full];
}

/// How much of a cell is of each kind of [`Kind::ALL`], in eighths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Cell([u8; Kind::ALL.len()]);

impl Cell {
    /// Parts that shares are counted in.
    pub(crate) const PARTS: u8 = 8;

    /// A cell of one kind.
    pub(crate) fn of(kind: Kind) -> Self {
        let mut shares = [0; Kind::ALL.len()];
        shares[kind as usize] = Self::PARTS;
        Self(shares)
    }

    /// The parts of each kind, which sum to [`Cell::PARTS`].
    pub(crate) fn shares(self) -> impl Iterator<Item = (Kind, u8)> {
        Kind::ALL.into_iter().zip(self.0)
    }

    /// The kind that most of it is of.
    pub(crate) fn most(self) -> Kind {
        let most = self.shares().max_by_key(|&(_, parts)| parts);
        most.map_or(Kind::Dead, |(kind, _)| kind)
    }

    /// Rounds areas to parts; what rounding leaves over goes to the largest, so that no part is lost.
    pub(crate) fn from_areas(areas: [u64; Kind::ALL.len()]) -> Self {
        let all: u128 = areas.iter().map(|&area| u128::from(area)).sum();
        let mut parts = areas.map(|area| (u128::from(area) * u128::from(Self::PARTS) / all.max(1)) as u8);
        let largest = (0..areas.len()).max_by_key(|&i| areas[i]).unwrap_or_default();
        parts[largest] += Self::PARTS - parts.iter().sum::<u8>();
        Self(parts)
    }
}

/// One axis of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    /// The first query or key, counted from that of the problem.
    pub(crate) first: u64,
    /// Queries or keys.
    pub(crate) len: u64,
    /// Queries or keys of a cell; the last may be cut short.
    pub(crate) unit: u64,
}

impl Axis {
    /// An axis over a range, in cells of `unit`.
    pub(crate) fn new(range: &Range<u64>, unit: u64) -> Self {
        Self { first: range.start, len: range.end - range.start, unit }
    }

    /// Number of cells.
    pub(crate) fn cells(self) -> usize {
        self.len.div_ceil(self.unit) as usize
    }

    /// Where a cell begins, or, past the last, where the axis ends; counted from the first query or key shown.
    pub(crate) fn edge(self, cell: usize) -> u64 {
        (cell as u64 * self.unit).min(self.len)
    }
}

/// A range cut at multiples of `step`.
pub(crate) fn steps(range: &Range<u64>, step: u64) -> impl Iterator<Item = Range<u64>> + use<> {
    let Range { start, end } = *range;
    (start / step..end.div_ceil(step)).map(move |i| (i * step).max(start)..((i + 1) * step).min(end))
}

/// The cells that a range touches, and how much of it is in each.
pub(crate) fn overlaps(axis: Axis, range: &Range<u64>) -> impl Iterator<Item = (usize, u64)> + use<> {
    let range = range.start - axis.first..range.end - axis.first;
    steps(&range, axis.unit).map(move |part| ((part.start / axis.unit) as usize, part.end - part.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_cell_sum_to_the_whole() {
        for areas in [[0, 0, 0, 0, 7], [1, 1, 1, 0, 0], [u64::MAX, 1, u64::MAX, 0, 5], [0; 5]] {
            let cell = Cell::from_areas(areas);
            assert_eq!(cell.shares().map(|(_, parts)| parts).sum::<u8>(), Cell::PARTS, "{areas:?}");
        }
        assert_eq!(Cell::from_areas([0, 0, 0, 0, 7]), Cell::of(Kind::Full));
        assert_eq!(
            Cell::from_areas([1, 0, 0, 0, 1]).shares().map(|(_, parts)| parts).collect::<Vec<_>>(),
            [4, 0, 0, 0, 4]
        );
    }

    #[test]
    fn a_range_is_shared_out_among_the_cells_it_touches() {
        let axis = Axis { first: 100, len: 25, unit: 10 };
        assert_eq!(axis.cells(), 3);
        assert_eq!((axis.edge(2), axis.edge(3)), (20, 25));
        assert_eq!(overlaps(axis, &(105..125)).collect::<Vec<_>>(), [(0, 5), (1, 10), (2, 5)]);
        assert_eq!(overlaps(axis, &(110..110)).count(), 0);
    }
}
