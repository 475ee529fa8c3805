//! Colours of the picture: blue, orange and grey, told apart by any eye, and by how dark they are where there is no
//! colour.

use super::cell::{Cell, Kind};

/// Red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Rgb(pub(crate) u8, pub(crate) u8, pub(crate) u8);

/// The page.
pub(crate) const PAGE: Rgb = Rgb(255, 255, 255);
/// What is written first.
pub(crate) const INK: Rgb = Rgb(24, 32, 44);
/// What is written beside it.
pub(crate) const FAINT: Rgb = Rgb(98, 108, 122);
/// Around the mask, and ticks.
pub(crate) const FRAME: Rgb = Rgb(140, 150, 164);
/// Between tiles.
pub(crate) const RULE: Rgb = Rgb(196, 203, 213);
/// Around the pairs that are shown in detail.
pub(crate) const MARK: Rgb = Rgb(200, 30, 80);

/// The colour of a kind.
pub(crate) fn kind(kind: Kind) -> Rgb {
    match kind {
        Kind::Dead => Rgb(232, 236, 241),
        Kind::Masked => Rgb(252, 231, 196),
        Kind::Tested => Rgb(245, 188, 96),
        Kind::Allowed => Rgb(226, 137, 18),
        Kind::Full => Rgb(27, 75, 128),
    }
}

/// The colour of a cell: those of its kinds, mixed by their shares.
pub(crate) fn cell(cell: Cell) -> Rgb {
    let mut sums = [u32::from(Cell::PARTS) / 2; 3];
    for (one, parts) in cell.shares() {
        let Rgb(r, g, b) = kind(one);
        for (sum, channel) in sums.iter_mut().zip([r, g, b]) {
            *sum += u32::from(channel) * u32::from(parts);
        }
    }
    let [r, g, b] = sums.map(|sum| (sum / u32::from(Cell::PARTS)) as u8);
    Rgb(r, g, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance, about.
    fn luminance(Rgb(r, g, b): Rgb) -> f64 {
        let linear = |channel: u8| (f64::from(channel) / 255.0).powf(2.2);
        0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
    }

    #[test]
    fn kinds_differ_in_brightness_too() {
        for pair in Kind::ALL.windows(2) {
            let (light, dark) = (luminance(kind(pair[0])), luminance(kind(pair[1])));
            // Dead and masked are both "no"; what may be computed stands out from either.
            let least = if pair[1] == Kind::Masked { 0.99 } else { 1.25 };
            assert!((light + 0.05) / (dark + 0.05) > least, "{pair:?}: {light} {dark}");
        }
    }

    #[test]
    fn pure_cells_have_the_colour_of_their_kind() {
        for one in Kind::ALL {
            assert_eq!(cell(Cell::of(one)), kind(one));
        }
    }
}
