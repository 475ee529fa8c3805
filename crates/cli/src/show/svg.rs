//! A scene as SVG.

use std::fmt::Write;

use super::color::Rgb;
use super::scene::{Anchor, Item, Rect, Scene, Style, Text};

/// Fonts whose characters are 0.6 em wide, as [`Style::advance`] has it.
const FONTS: &str = "'Noto Sans Mono','DejaVu Sans Mono',Menlo,'Liberation Mono',Courier,monospace";

/// The text of an SVG file.
pub(crate) fn svg(scene: &Scene) -> String {
    let Scene { width, height, items } = scene;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{}\" height=\"{}\" \
         font-family=\"{FONTS}\">\n",
        half(*width),
        half(*height)
    );
    for item in items {
        match item {
            Item::Rects(_, rects) if rects.is_empty() => {}
            Item::Rects(color, rects) => {
                let d: String = rects.iter().map(path).collect();
                add(
                    &mut svg,
                    format_args!(
                        "<path fill=\"{}\" shape-rendering=\"crispEdges\" d=\"{d}\"/>\n",
                        hex(*color)
                    ),
                );
            }
            Item::Text(text) => add(&mut svg, format_args!("{}\n", line(text))),
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn path(&Rect { x, y, width, height }: &Rect) -> String {
    format!("M{x} {y}h{width}v{height}h-{width}z")
}

fn line(text: &Text) -> String {
    let Text { x, y, anchor, style, color, text } = text;
    let anchor = match anchor {
        Anchor::Start => "",
        Anchor::Middle => " text-anchor=\"middle\"",
        Anchor::End => " text-anchor=\"end\"",
    };
    let weight = if *style == Style::Title { " font-weight=\"bold\"" } else { "" };
    // A character is 0.6 em wide in the fonts above.
    let size = f64::from(style.advance()) / 0.6;
    format!(
        "<text x=\"{x}\" y=\"{}\" font-size=\"{size:.1}\"{weight}{anchor} fill=\"{}\">{}</text>",
        y + style.baseline(),
        hex(*color),
        escaped(text)
    )
}

fn hex(Rgb(r, g, b): Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn half(dots: u32) -> String {
    if dots.is_multiple_of(2) { (dots / 2).to_string() } else { format!("{}.5", dots / 2) }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c if c.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            c => escaped.push(c),
        }
    }
    escaped
}

fn add(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = svg.write_fmt(text);
}
