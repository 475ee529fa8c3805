//! A picture in the characters of a terminal.
//!
//! With colours a character is two cells, its upper and its lower half. Without them it is one, or two characters are,
//! so that pairs are nearly square.

use console::Style;
use regard_ir::text::grouped;

use super::cell::{Cell, Kind};
use super::color::{self, Rgb};
use super::grid::{Grid, Room};
use super::picture::{Entry, Picture};
use super::scene::{KEYS, QUERIES, labels};

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    /// Characters alone.
    Plain,
    /// The 256 colours of the xterm palette.
    Palette,
    /// Every colour.
    True,
}

/// A terminal, or a file that stands for one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// What it can show.
    pub(crate) ink: Ink,
    /// Characters of a line.
    pub(crate) columns: u16,
}

/// Characters to the left of the mask: a long position, `-2,147,483,648`.
const LABEL: usize = 14;
/// A screen narrower than this is written past.
const MIN_COLUMNS: u16 = 40;
/// Lines of a mask.
const MAX_LINES: u32 = 64;

impl Screen {
    /// Where stdout goes; 80 columns and no colours where that is no terminal.
    pub(crate) fn stdout() -> Self {
        let term = console::Term::stdout();
        let features = term.features();
        let ink = match (features.colors_supported(), features.true_colors_supported()) {
            (false, _) => Ink::Plain,
            (true, false) => Ink::Palette,
            (true, true) => Ink::True,
        };
        Self { ink, columns: term.size_checked().map_or(80, |(_, columns)| columns) }
    }

    /// The cells that fit.
    pub(crate) fn room(self) -> Room {
        let columns = u32::from(self.columns.max(MIN_COLUMNS)) - LABEL as u32 - 1;
        let (rows, height) = match self.ink {
            Ink::Plain => (MAX_LINES, 2),
            Ink::Palette | Ink::True => (2 * MAX_LINES, 1),
        };
        Room { rows, columns, height, align: false }
    }

    /// The lines of a picture.
    pub(crate) fn draw(self, picture: &Picture) -> String {
        let mut text = format!("{}\n{}\n{}\n\n", picture.title, picture.mask(), picture.sizes);
        let grid = &picture.grid;
        let wide = self.characters(grid);
        text.push_str(&format!("{QUERIES:>LABEL$} {KEYS}\n{:LABEL$} {}\n", "", key_labels(grid, wide)));
        let labels = labels(grid.rows, picture.first_query);
        let per_line = if self.ink == Ink::Plain { 1 } else { 2 };
        for first in (0..grid.rows.cells()).step_by(per_line) {
            let (from, to) = (grid.rows.edge(first), grid.rows.edge(first + per_line));
            let label = labels.iter().find(|(at, _)| (from..to).contains(at));
            let label = label.map_or("", |(_, label)| label);
            let line = self.line(grid, first, wide);
            text.push_str(&format!("{label:>LABEL$} {line}\n"));
        }
        text.push('\n');
        for Entry { kinds, name, count, meaning } in &picture.legend {
            let swatch: String = kinds.iter().map(|&kind| self.swatch(kind)).collect();
            let pad = 3 - kinds.len();
            text.push_str(&format!("{swatch}{:pad$} {:>11} {name:<7} {meaning}\n", "", grouped(*count)));
        }
        text.push('\n');
        for fact in &picture.facts {
            text.push_str(&format!("{:<24} {}\n", fact.what, fact.meaning));
        }
        text
    }

    /// Characters of a cell.
    fn characters(self, grid: &Grid) -> usize {
        let columns = grid.columns.cells();
        let double = self.ink == Ink::Plain
            && grid.rows.unit == grid.columns.unit
            && 2 * columns <= self.room().columns as usize;
        if double { 2 } else { 1 }
    }

    fn line(self, grid: &Grid, row: usize, wide: usize) -> String {
        let upper = grid.row(row);
        if self.ink == Ink::Plain {
            let character = |cell: &Cell| character(cell.most()).repeat(wide);
            return upper.iter().map(character).collect();
        }
        let lower = (row + 1 < grid.rows.cells()).then(|| grid.row(row + 1));
        let colors =
            |column: usize| (color::cell(upper[column]), lower.map(|lower| color::cell(lower[column])));
        let mut line = String::new();
        let mut column = 0;
        while column < upper.len() {
            let own = colors(column);
            let end = (column..upper.len()).find(|&at| colors(at) != own).unwrap_or(upper.len());
            line.push_str(&self.styled(own, "▀".repeat(end - column)));
            column = end;
        }
        line
    }

    fn swatch(self, kind: Kind) -> String {
        match self.ink {
            Ink::Plain => character(kind).to_owned(),
            Ink::Palette | Ink::True => self.styled((color::kind(kind), None), "█".to_owned()),
        }
    }

    fn styled(self, (front, back): (Rgb, Option<Rgb>), text: String) -> String {
        let mut style = Style::new().force_styling(true);
        if self.ink == Ink::True {
            style = style.true_color(front.0, front.1, front.2);
            if let Some(Rgb(r, g, b)) = back {
                style = style.on_true_color(r, g, b);
            }
        } else {
            style = style.color256(palette(front));
            if let Some(back) = back {
                style = style.on_color256(palette(back));
            }
        }
        style.apply_to(text).to_string()
    }
}

fn character(kind: Kind) -> &'static str {
    match kind {
        Kind::Dead => "·",
        Kind::Masked => "░",
        Kind::Tested => "▒",
        Kind::Allowed => "▓",
        Kind::Full => "█",
    }
}

/// Positions of keys, each above its column, where there is room.
fn key_labels(grid: &Grid, wide: usize) -> String {
    let mut line = String::new();
    for (key, label) in labels(grid.columns, 0) {
        let column = (key / grid.columns.unit) as usize * wide;
        let free = line.chars().count();
        if column >= free + usize::from(free > 0) {
            line.push_str(&" ".repeat(column - free));
            line.push_str(&label);
        }
    }
    line
}

/// The nearest colour of the palette's 6 × 6 × 6 cube or of its 24 greys.
fn palette(Rgb(r, g, b): Rgb) -> u8 {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let nearest = |channel: u8| (0..6).min_by_key(|&i| LEVELS[i].abs_diff(channel)).unwrap_or(0);
    let cube = [r, g, b].map(nearest);
    let grey = ((u32::from(r) + u32::from(g) + u32::from(b)) / 3).saturating_sub(3).min(235) / 10;
    let distance = |color: [u8; 3]| -> u32 {
        color.iter().zip([r, g, b]).map(|(a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
    };
    let [red, green, blue] = cube;
    if distance([(8 + 10 * grey) as u8; 3]) < distance(cube.map(|i| LEVELS[i])) {
        232 + grey as u8
    } else {
        (16 + 36 * red + 6 * green + blue) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_of_the_palette_are_themselves() {
        for (rgb, index) in [
            (Rgb(0, 0, 0), 16),
            (Rgb(255, 255, 255), 231),
            (Rgb(95, 135, 175), 67),
            (Rgb(238, 238, 238), 255),
            (Rgb(8, 8, 8), 232),
        ] {
            assert_eq!(palette(rgb), index, "{rgb:?}");
        }
    }
}
