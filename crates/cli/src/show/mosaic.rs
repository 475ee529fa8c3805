//! A grid as few boxes of one colour each.

use std::collections::BTreeMap;

use super::cell::{Cell, Kind};
use super::color::{self, Rgb};
use super::grid::Grid;

/// Boxes of cells by colour, in the order in which they are painted: [left, top, right, bottom] in cells.
///
/// A box may cover cells that are painted after it, so that fewer boxes are needed.
pub(crate) fn merged(grid: &Grid) -> Vec<(Rgb, Vec<[usize; 4]>)> {
    let (n_rows, n_columns) = (grid.rows.cells(), grid.columns.cells());
    let mut areas: BTreeMap<Cell, usize> = BTreeMap::new();
    for row in 0..n_rows {
        for &cell in grid.row(row) {
            *areas.entry(cell).or_default() += 1;
        }
    }
    areas.remove(&Cell::of(Kind::Dead));
    // By the kind that a cell is most of, the lightest first: what is masked lies around what is allowed.
    let mut order: Vec<Cell> = areas.into_keys().collect();
    order.sort_by_key(|&cell| (cell.most(), cell));
    let ranks: BTreeMap<Cell, usize> = order.iter().copied().zip(0..).collect();
    let ranks: Vec<Vec<Option<usize>>> =
        (0..n_rows).map(|row| grid.row(row).iter().map(|cell| ranks.get(cell).copied()).collect()).collect();

    let mut layers = Vec::new();
    for (own, &cell) in order.iter().enumerate() {
        let mut boxes = Vec::new();
        let mut done = vec![vec![false; n_columns]; n_rows];
        for row in 0..n_rows {
            for column in 0..n_columns {
                if ranks[row][column] != Some(own) || done[row][column] {
                    continue;
                }
                let fits = |row: usize, column: usize| ranks[row][column].is_some_and(|rank| rank >= own);
                let mut right = (column..n_columns).find(|&at| !fits(row, at)).unwrap_or(n_columns);
                while ranks[row][right - 1] != Some(own) {
                    right -= 1;
                }
                let bottom = (row + 1..n_rows).find(|&at| !(column..right).all(|column| fits(at, column)));
                let bottom = bottom.unwrap_or(n_rows);
                for row in &mut done[row..bottom] {
                    row[column..right].fill(true);
                }
                boxes.push([column, row, right, bottom]);
            }
        }
        layers.push((color::cell(cell), boxes));
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Painted one after the other, the boxes give each cell its colour.
    #[test]
    fn boxes_cover_what_they_stand_for() {
        let mut rng = 1u32;
        let mut next = |n: u32| {
            rng = rng.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (rng >> 16) % n
        };
        for (rows, columns) in [(0, 5), (1, 1), (7, 13), (16, 16)] {
            let cells: Vec<Cell> = (0..rows * columns)
                .map(|_| match next(6) {
                    5 => Cell::from_areas([1, 0, 1, 0, 2]),
                    kind => Cell::of(Kind::ALL[kind as usize]),
                })
                .collect();
            let grid = Grid::of(rows, columns, cells.clone());
            let mut painted = vec![color::kind(Kind::Dead); cells.len()];
            for (color, boxes) in merged(&grid) {
                for [left, top, right, bottom] in boxes {
                    for row in top..bottom {
                        painted[row * columns..][left..right].fill(color);
                    }
                }
            }
            let expected: Vec<Rgb> = cells.iter().map(|&cell| color::cell(cell)).collect();
            assert_eq!(painted, expected, "{rows} x {columns}");
        }
    }
}
