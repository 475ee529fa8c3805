//! A scene as PNG: rectangles painted, text from the rasters of a font that is compiled in.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, RasterizedChar, get_raster};

use super::color::Rgb;
use super::scene::{Anchor, Item, Rect, Scene, Style, Text};
use crate::memory::{self, OutOfMemory};

/// Dots of a metre: 192 to an inch.
const DOTS_PER_METRE: u32 = 7559;

/// The bytes of a PNG file.
///
/// # Errors
/// If there is no memory for the pixels.
pub(crate) fn png(scene: &Scene) -> Result<Vec<u8>, OutOfMemory> {
    let mut canvas = Canvas::new(scene)?;
    for item in &scene.items {
        match item {
            Item::Rects(color, rects) => rects.iter().for_each(|rect| canvas.fill(rect, *color)),
            Item::Text(text) => canvas.write(text),
        }
    }
    Ok(canvas.encode())
}

struct Canvas {
    width: u32,
    height: u32,
    /// Red, green and blue of each pixel, row by row.
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(&Scene { width, height, .. }: &Scene) -> Result<Self, OutOfMemory> {
        let pixels = memory::zeroed("the picture", 3 * u128::from(width) * u128::from(height))?;
        Ok(Self { width, height, pixels })
    }

    fn fill(&mut self, rect: &Rect, Rgb(r, g, b): Rgb) {
        let columns = rect.x.min(self.width)..(rect.x + rect.width).min(self.width);
        for y in rect.y.min(self.height)..(rect.y + rect.height).min(self.height) {
            let at = |x: u32| 3 * (y as usize * self.width as usize + x as usize);
            let row = &mut self.pixels[at(columns.start)..at(columns.end)];
            row.as_chunks_mut::<3>().0.fill([r, g, b]);
        }
    }

    fn write(&mut self, text: &Text) {
        let advance = text.style.advance();
        let width = text.text.chars().count() as u32 * advance;
        let left = match text.anchor {
            Anchor::Start => text.x,
            Anchor::Middle => text.x.saturating_sub(width / 2),
            Anchor::End => text.x.saturating_sub(width),
        };
        for (i, c) in (0..).zip(text.text.chars()) {
            if let Some(raster) = raster(c, text.style) {
                self.blend(&raster, (left + i * advance, text.y), text.color);
            }
        }
    }

    fn blend(&mut self, raster: &RasterizedChar, (left, top): (u32, u32), Rgb(r, g, b): Rgb) {
        for (y, row) in (top..self.height).zip(raster.rows()) {
            for (x, &ink) in (left..self.width).zip(row) {
                let at = 3 * (y as usize * self.width as usize + x as usize);
                for (below, above) in self.pixels[at..at + 3].iter_mut().zip([r, g, b]) {
                    let (ink, paper) = (u32::from(ink), 255 - u32::from(ink));
                    *below = ((u32::from(*below) * paper + u32::from(above) * ink + 127) / 255) as u8;
                }
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        encoder.set_pixel_dims(Some(png::PixelDimensions {
            xppu: DOTS_PER_METRE,
            yppu: DOTS_PER_METRE,
            unit: png::Unit::Meter,
        }));
        encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&self.pixels))
            .expect("a vector takes all bytes, and there are as many pixels as the header says");
        bytes
    }
}

/// What a character looks like; one that the font lacks is drawn as the sign for that.
fn raster(c: char, style: Style) -> Option<RasterizedChar> {
    let (weight, height) = match style {
        Style::Title => (FontWeight::Bold, RasterHeight::Size32),
        Style::Body => (FontWeight::Regular, RasterHeight::Size32),
        Style::Small => (FontWeight::Regular, RasterHeight::Size24),
    };
    get_raster(c, weight, height).or_else(|| get_raster(char::REPLACEMENT_CHARACTER, weight, height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_as_wide_as_the_layout_says() {
        for style in [Style::Title, Style::Body, Style::Small] {
            for c in ['m', '\u{1d11e}'] {
                let raster = raster(c, style).unwrap();
                assert_eq!(
                    (raster.width(), raster.height()),
                    (style.advance() as usize, style.line() as usize)
                );
            }
        }
    }
}
