//! A picture laid out on a page: rectangles and text, which [`svg`](super::svg) writes and [`png`](super::png) paints.
//!
//! Lengths are dots, 192 to an inch: a dot is a pixel of the PNG and half a pixel of the SVG. Text has one width a
//! character, so that what stands beside it is placed exactly whatever font there is.

use regard_ir::text::grouped;

use super::cell::{Axis, Kind};
use super::color::{self, Rgb};
use super::grid::{Depth, Grid, Room};
use super::mosaic::merged;
use super::picture::{Entry, Picture};
use super::wrap::wrapped;

/// The longer side of the mask.
const PLOT: u32 = 1024;
/// The shorter side is not shorter.
const MIN_PLOT: u32 = 64;
/// Around all.
const MARGIN: u32 = 40;
/// Between the mask and what stands to the right of it.
const GAP: u32 = 48;
/// Width of the text to the right of the mask.
const SIDE: u32 = 28 * Style::Body.advance();
/// Length of a tick.
const TICK: u32 = 8;
/// What the axes show.
pub(crate) const QUERIES: &str = "query q";
pub(crate) const KEYS: &str = "key k";
/// A tile narrower than this is drawn without lines around it.
const MIN_RULED: u32 = 12;
/// Dots of a pair of the detail.
const DETAIL_PAIR: u32 = 8;
/// Pairs of a side of the detail.
pub(crate) const DETAIL: u64 = 48;

/// Cells of a mask; more would be less than two dots wide.
pub(crate) const ROOM: Room = Room { rows: PLOT / 2, columns: PLOT / 2, height: 1, align: true };

/// A page of rectangles and text.
pub(crate) struct Scene {
    /// Width of the page.
    pub(crate) width: u32,
    /// Its height.
    pub(crate) height: u32,
    /// What is on it, from the bottom up.
    pub(crate) items: Vec<Item>,
}

/// Something on a page.
pub(crate) enum Item {
    /// Rectangles of one colour.
    Rects(Rgb, Vec<Rect>),
    /// A line of text.
    Text(Text),
}

/// A rectangle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rect {
    /// Its left edge.
    pub(crate) x: u32,
    /// Its upper edge.
    pub(crate) y: u32,
    /// Its width.
    pub(crate) width: u32,
    /// Its height.
    pub(crate) height: u32,
}

/// A line of text.
pub(crate) struct Text {
    /// Where it starts, is centred, or ends.
    pub(crate) x: u32,
    /// Its upper edge.
    pub(crate) y: u32,
    /// What `x` is.
    pub(crate) anchor: Anchor,
    /// Its size and weight.
    pub(crate) style: Style,
    /// Its colour.
    pub(crate) color: Rgb,
    /// What it says.
    pub(crate) text: String,
}

/// Which point of a text is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

/// Sizes and weights of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// The title.
    Title,
    /// Usual text.
    Body,
    /// Remarks and ticks.
    Small,
}

impl Style {
    /// Dots from one line to the next.
    pub(crate) const fn line(self) -> u32 {
        match self {
            Style::Title | Style::Body => 32,
            Style::Small => 24,
        }
    }

    /// Dots from the upper edge of a line to its baseline.
    pub(crate) const fn baseline(self) -> u32 {
        match self {
            Style::Title | Style::Body => 25,
            Style::Small => 19,
        }
    }

    /// Dots from one character to the next.
    pub(crate) const fn advance(self) -> u32 {
        match self {
            Style::Title | Style::Body => 14,
            Style::Small => 11,
        }
    }
}

/// Lays a picture out.
pub(crate) fn layout(picture: &Picture) -> Scene {
    let mut scene = Scene { width: 0, height: 0, items: Vec::new() };
    let plot = Plot::new(picture);
    let detail = picture.detail.as_ref().map(|detail| detail_size(detail).0);
    let side_x = plot.place.x + plot.place.width + GAP;
    scene.width = side_x + SIDE.max(detail.unwrap_or(0)) + MARGIN;

    let y = scene.head(picture);
    let plot = plot.at(y + Style::Small.line() * 3 + TICK);
    scene.mosaic(&picture.grid, plot.place);
    scene.rules(&plot);
    scene.frame(plot.place, color::FRAME);
    scene.axes(picture, &plot);
    let end = scene.side(picture, (side_x, plot.place.y));
    let mut bottom = end.max(plot.place.y + plot.place.height);
    if let Some(detail) = &picture.detail {
        let (width, height) = detail_size(detail);
        let below = Style::Small.line() * 2 + GAP / 2;
        let y = (end + GAP).max((plot.place.y + plot.place.height).saturating_sub(height + below) + below);
        let place = Rect { x: side_x, y, width, height };
        scene.detail(detail, place, &plot, picture.first_query);
        bottom = bottom.max(y + height);
    }
    scene.height = bottom + MARGIN;
    let page = Rect { x: 0, y: 0, width: scene.width, height: scene.height };
    scene.items.insert(0, Item::Rects(color::PAGE, vec![page]));
    scene
}

/// The mask on the page.
struct Plot<'a> {
    grid: &'a Grid,
    place: Rect,
    tile: (u64, u64),
}

impl<'a> Plot<'a> {
    fn new(picture: &'a Picture) -> Self {
        let grid = &picture.grid;
        let labels = labels(grid.rows, picture.first_query);
        let widest = labels.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0) as u32;
        let (width, height) = plot_size(grid);
        let x = MARGIN + widest.max(QUERIES.len() as u32) * Style::Small.advance() + TICK + 8;
        Self { grid, place: Rect { x, y: 0, width, height }, tile: picture.tile() }
    }

    fn at(self, y: u32) -> Self {
        Self { place: Rect { y, ..self.place }, ..self }
    }

    fn x(&self, key: u64) -> u32 {
        self.place.x + at(key, self.grid.columns.len, self.place.width)
    }

    fn y(&self, query: u64) -> u32 {
        self.place.y + at(query, self.grid.rows.len, self.place.height)
    }
}

/// Where `position` of `len` is on a line of `dots`.
fn at(position: u64, len: u64, dots: u32) -> u32 {
    let (position, len, dots) = (u128::from(position), u128::from(len.max(1)), u128::from(dots));
    ((2 * position * dots + len) / (2 * len)) as u32
}

/// Width and height of a mask: square pairs, and where cells are pairs or steps, cells of whole dots.
fn plot_size(grid: &Grid) -> (u32, u32) {
    let Grid { rows, columns, depth, .. } = grid;
    let longer = rows.len.max(columns.len).max(1);
    let unit = rows.unit.max(columns.unit);
    let cell = u64::from(PLOT) * unit / longer;
    let side = |len: u64| match depth {
        Depth::Pairs | Depth::Steps if cell > 0 => (len * cell).div_ceil(unit) as u32,
        _ => at(len, longer, PLOT),
    };
    (side(columns.len).clamp(MIN_PLOT, PLOT), side(rows.len).clamp(MIN_PLOT, PLOT))
}

fn detail_size(detail: &Grid) -> (u32, u32) {
    let dots = |axis: Axis| axis.len as u32 * DETAIL_PAIR;
    (dots(detail.columns), dots(detail.rows))
}

/// Positions that are labelled: about five round ones, those of an axis that starts at `first`. Each with how many
/// queries or keys come before it.
pub(crate) fn labels(axis: Axis, first: i64) -> Vec<(u64, String)> {
    const ABOUT: u64 = 5;
    let step = (axis.len / ABOUT).max(1).next_power_of_two() as i64;
    let mut position = first + (-first).rem_euclid(step);
    let mut labels = Vec::new();
    while position < first + axis.len as i64 {
        labels.push(((position - first) as u64, grouped(position)));
        position += step;
    }
    labels
}

impl Scene {
    fn text(&mut self, (x, y): (u32, u32), style: Style, color: Rgb, text: impl Into<String>) {
        self.anchored((x, y), Anchor::Start, style, color, text);
    }

    fn anchored(
        &mut self,
        (x, y): (u32, u32),
        anchor: Anchor,
        style: Style,
        color: Rgb,
        text: impl Into<String>,
    ) {
        self.items.push(Item::Text(Text { x, y, anchor, style, color, text: text.into() }));
    }

    /// Title, mask and sizes. Gives where they end.
    fn head(&mut self, picture: &Picture) -> u32 {
        let room = (self.width - 2 * MARGIN) as usize / Style::Body.advance() as usize;
        let mut y = MARGIN;
        for line in wrapped(&picture.title, room, 1) {
            self.text((MARGIN, y), Style::Title, color::INK, line);
        }
        y += Style::Title.line() + 6;
        for line in wrapped(picture.mask(), room, 3) {
            self.text((MARGIN, y), Style::Body, color::INK, line);
            y += Style::Body.line();
        }
        y += 4;
        self.text((MARGIN, y), Style::Small, color::FAINT, &picture.sizes);
        y + Style::Small.line()
    }

    fn mosaic(&mut self, grid: &Grid, place: Rect) {
        let background = color::kind(Kind::Dead);
        self.items.push(Item::Rects(background, vec![place]));
        for (color, boxes) in merged(grid) {
            let rect = |&[left, top, right, bottom]: &[usize; 4]| {
                let x = |cell| place.x + at(grid.columns.edge(cell), grid.columns.len, place.width);
                let y = |cell| place.y + at(grid.rows.edge(cell), grid.rows.len, place.height);
                Rect { x: x(left), y: y(top), width: x(right) - x(left), height: y(bottom) - y(top) }
            };
            self.items.push(Item::Rects(color, boxes.iter().map(rect).collect()));
        }
    }

    /// Lines between tiles, where tiles are large enough.
    fn rules(&mut self, plot: &Plot<'_>) {
        let Rect { x, y, width, height } = plot.place;
        let (rows, columns) = (plot.grid.rows.len, plot.grid.columns.len);
        let edges = |len: u64, tile: u64, dots: u32| {
            let drawn = at(tile, len, dots) >= MIN_RULED;
            (1..len.div_ceil(tile)).map(move |i| i * tile).take_while(move |_| drawn)
        };
        let mut lines: Vec<Rect> = edges(columns, plot.tile.1, width)
            .map(|key| Rect { x: plot.x(key) - 1, y, width: 2, height })
            .collect();
        lines.extend(edges(rows, plot.tile.0, height).map(|query| Rect {
            x,
            y: plot.y(query) - 1,
            width,
            height: 2,
        }));
        self.items.push(Item::Rects(color::RULE, lines));
    }

    fn frame(&mut self, Rect { x, y, width, height }: Rect, color: Rgb) {
        const LINE: u32 = 2;
        let (left, top) = (x - LINE, y - LINE);
        let (wide, high) = (width + 2 * LINE, height + 2 * LINE);
        let lines = vec![
            Rect { x: left, y: top, width: wide, height: LINE },
            Rect { x: left, y: y + height, width: wide, height: LINE },
            Rect { x: left, y: top, width: LINE, height: high },
            Rect { x: x + width, y: top, width: LINE, height: high },
        ];
        self.items.push(Item::Rects(color, lines));
    }

    fn axes(&mut self, picture: &Picture, plot: &Plot<'_>) {
        let Rect { x, y, .. } = plot.place;
        let (small, line) = (Style::Small, Style::Small.line());
        let mut ticks = Vec::new();
        let mut free_from = 0;
        for (key, label) in labels(plot.grid.columns, 0) {
            let middle = plot.x(key);
            ticks.push(Rect { x: middle - 1, y: y - 2 - TICK, width: 2, height: TICK });
            let half = label.chars().count() as u32 * small.advance() / 2;
            if middle >= free_from + half {
                self.anchored((middle, y - TICK - 4 - line), Anchor::Middle, small, color::FAINT, label);
                free_from = middle + half + 2 * small.advance();
            }
        }
        let mut free_from = 0;
        for (query, label) in labels(plot.grid.rows, picture.first_query) {
            let middle = plot.y(query);
            ticks.push(Rect { x: x - 2 - TICK, y: middle - 1, width: TICK, height: 2 });
            if middle >= free_from {
                self.anchored((x - TICK - 8, middle - line / 2), Anchor::End, small, color::FAINT, label);
                free_from = middle + line;
            }
        }
        self.items.push(Item::Rects(color::FRAME, ticks));
        let titles = y - TICK - 8 - 2 * line;
        self.text((x, titles), small, color::INK, KEYS);
        self.anchored((x - TICK - 8, titles), Anchor::End, small, color::INK, QUERIES);
    }

    /// Legend and facts. Gives where they end.
    fn side(&mut self, picture: &Picture, (x, y): (u32, u32)) -> u32 {
        const SWATCH: u32 = 28;
        let room = |style: Style| (SIDE / style.advance()) as usize;
        let indent = x + SWATCH + 18;
        let mut y = y;
        for Entry { kinds, name, count, meaning } in &picture.legend {
            let n = kinds.len() as u32;
            for (i, &kind) in (0..).zip(kinds) {
                let (top, bottom) = (SWATCH * i / n, SWATCH * (i + 1) / n);
                let rect = Rect { x, y: y + 2 + top, width: SWATCH, height: bottom - top };
                self.items.push(Item::Rects(color::kind(kind), vec![rect]));
            }
            let plural = if *count == 1 { "" } else { "s" };
            self.text(
                (indent, y),
                Style::Body,
                color::INK,
                format!("{} {name} tile{plural}", grouped(*count)),
            );
            self.text((indent, y + Style::Body.line()), Style::Small, color::FAINT, *meaning);
            y += Style::Body.line() + Style::Small.line() + 14;
        }
        y += 18;
        for fact in &picture.facts {
            for line in wrapped(&fact.what, room(Style::Body), 2) {
                self.text((x, y), Style::Body, color::INK, line);
                y += Style::Body.line();
            }
            for line in wrapped(&fact.meaning, room(Style::Small), 2) {
                self.text((x, y), Style::Small, color::FAINT, line);
                y += Style::Small.line();
            }
            y += 12;
        }
        y - 12
    }

    /// Some pairs large, and where they are.
    fn detail(&mut self, detail: &Grid, place: Rect, plot: &Plot<'_>, first_query: i64) {
        let line = Style::Small.line();
        let (rows, columns) = (detail.rows, detail.columns);
        let (q, k) = (first_query + rows.first as i64, columns.first);
        self.text(
            (place.x, place.y - 8 - 2 * line),
            Style::Small,
            color::MARK,
            format!("{} × {} pairs, one by one,", rows.len, columns.len),
        );
        let from = format!("from q = {}, k = {} on", grouped(q), grouped(k));
        self.text((place.x, place.y - 8 - line), Style::Small, color::MARK, from);
        self.mosaic(detail, place);
        self.frame(place, color::MARK);
        let (x, y) = (plot.x(columns.first), plot.y(rows.first));
        let (right, bottom) = (plot.x(columns.first + columns.len), plot.y(rows.first + rows.len));
        let mark = Rect { x, y, width: (right - x).max(6), height: (bottom - y).max(6) };
        self.frame(mark, color::MARK);
    }
}
