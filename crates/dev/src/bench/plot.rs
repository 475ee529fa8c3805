//! A picture of results: how many times as long as ours everyone else takes, workload by workload.
//!
//! A row for each measurement of ours that others have too, a dot for each of them, on a scale where twice and half are
//! equally far from 1. Right of the line, ours is faster.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::peers::PEERS;
use super::summary::{Machine, Row};
use crate::error::Error;

/// Pixels: of the picture, of a row, and of what is around the rows.
const WIDTH: i32 = 1000;
const ROW: i32 = 24;
const LEFT: i32 = 190;
const RIGHT: i32 = 30;
const TOP: i32 = 104;
const BOTTOM: i32 = 46;

/// Colours that people of any sight tell apart, in the order of peers.
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(110, 110, 110),
    RGBColor(240, 228, 66),
];

const INK: RGBColor = RGBColor(34, 34, 34);
const PALE: RGBColor = RGBColor(222, 222, 222);
const STRIPE: RGBColor = RGBColor(246, 246, 246);

/// Where things are.
struct Frame {
    rows: i32,
    /// The powers of two at both ends of the scale.
    scale: [f64; 2],
}

impl Frame {
    fn new(rows: &[&Row]) -> Self {
        let ratios = rows.iter().flat_map(|row| row.others.iter().map(|other| row.times(other).log2()));
        let (low, high) = ratios.fold((-1.0f64, 2.0f64), |(low, high), x| (low.min(x), high.max(x)));
        Self { rows: rows.len() as i32, scale: [low.floor(), high.ceil()] }
    }

    fn height(&self) -> i32 {
        TOP + self.rows * ROW + BOTTOM
    }

    fn bottom(&self) -> i32 {
        TOP + self.rows * ROW
    }

    /// Where a ratio is.
    fn x(&self, ratio: f64) -> i32 {
        let [low, high] = self.scale;
        LEFT + (f64::from(WIDTH - LEFT - RIGHT) * (ratio.log2() - low) / (high - low)).round() as i32
    }
}

/// Draws what is known of a machine; nothing where there are no others.
///
/// # Errors
/// If the picture cannot be written.
pub fn draw(machine: &Machine, path: &Path) -> Result<(), Error> {
    let rows: Vec<_> = machine.rows.iter().filter(|row| !row.others.is_empty()).collect();
    let mut picture = String::new();
    let frame = Frame::new(&rows);
    {
        let area =
            SVGBackend::with_string(&mut picture, (WIDTH as u32, frame.height() as u32)).into_drawing_area();
        paint(&area, &frame, machine, &rows).map_err(|error| Error::Plot(error.to_string()))?;
        area.present().map_err(|error| Error::Plot(error.to_string()))?;
    }
    std::fs::write(path, picture).map_err(Error::file(path))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn paint<'a>(area: &Area<'a>, frame: &Frame, machine: &Machine, rows: &[&Row]) -> Drawn<'a> {
    area.fill(&WHITE)?;
    let session = &machine.session;
    text(area, (20, 26), &"Time beside regard's", 20, HPos::Left)?;
    let machine_line = format!("{}, {}, {} cores; {}", session.cpu, session.isa, session.cores, session.date);
    text(area, (20, 50), &machine_line, 13, HPos::Left)?;
    legend(area, rows)?;
    for index in (0..frame.rows).step_by(2) {
        let y = TOP + index * ROW;
        area.draw(&Rectangle::new([(20, y), (WIDTH - RIGHT, y + ROW)], STRIPE.filled()))?;
    }
    scale(area, frame)?;
    for (index, row) in rows.iter().enumerate() {
        let y = TOP + index as i32 * ROW + ROW / 2;
        text(area, (LEFT - 14, y), &row.title(), 13, HPos::Right)?;
        // The best comes last, and so lies on top.
        for other in row.others.iter().rev() {
            let color = color(&other.who);
            let at = (frame.x(row.times(other)), y);
            area.draw(&Circle::new(at, 6, color.filled()))?;
            area.draw(&Circle::new(at, 6, WHITE.stroke_width(1)))?;
        }
    }
    Ok(())
}

fn scale<'a>(area: &Area<'a>, frame: &Frame) -> Drawn<'a> {
    let [low, high] = frame.scale;
    for power in low as i32..=high as i32 {
        let ratio = 2f64.powi(power);
        let x = frame.x(ratio);
        let style = if power == 0 { INK.stroke_width(2) } else { PALE.stroke_width(1) };
        area.draw(&PathElement::new([(x, TOP - 4), (x, frame.bottom() + 4)], style))?;
        let label =
            if power < 0 { format!("1/{}", 2i32.pow(power.unsigned_abs())) } else { format!("{ratio}") };
        text(area, (x, frame.bottom() + 15), &label, 12, HPos::Center)?;
    }
    let one = frame.x(1.0);
    text(area, (one + 10, frame.bottom() + 34), &"regard is faster →", 12, HPos::Left)?;
    text(area, (one - 10, frame.bottom() + 34), &"← slower", 12, HPos::Right)
}

fn legend<'a>(area: &Area<'a>, rows: &[&Row]) -> Drawn<'a> {
    let is_there = |name: &str| rows.iter().any(|row| row.others.iter().any(|other| other.who == name));
    let mut x = LEFT;
    for peer in PEERS.iter().filter(|peer| is_there(peer.name)) {
        area.draw(&Circle::new((x, 80), 6, color(peer.name).filled()))?;
        text(area, (x + 12, 80), &peer.title, 13, HPos::Left)?;
        // A letter is about 7 pixels wide at this size.
        x += 34 + 7 * peer.title.len() as i32;
    }
    Ok(())
}

fn color(who: &str) -> RGBColor {
    let place = PEERS.iter().position(|peer| peer.name == who).unwrap_or(COLORS.len() - 1);
    COLORS[place.min(COLORS.len() - 1)]
}

fn text<'a>(area: &Area<'a>, at: (i32, i32), words: &dyn AsRef<str>, size: u32, from: HPos) -> Drawn<'a> {
    let style =
        TextStyle::from(("sans-serif", size).into_font()).color(&INK).pos(Pos::new(from, VPos::Center));
    area.draw(&Text::new(words.as_ref().to_owned(), at, style))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_and_half_are_equally_far_from_one() {
        let frame = Frame { rows: 1, scale: [-2.0, 2.0] };
        let [half, one, two] = [0.5, 1.0, 2.0].map(|ratio| frame.x(ratio));
        assert!((one - half) - (two - one) <= 1 && half > LEFT && two < WIDTH - RIGHT);
    }

    #[test]
    fn there_is_a_colour_for_every_peer() {
        assert!(PEERS.len() <= COLORS.len());
    }
}
