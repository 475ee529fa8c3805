//! What is read soon, and when it is asked for.
//!
//! Tiles read the lines of a block in the order in which they lie, and then those of the next one. While a tile reads so many it asks for
//! as many that come soon after. A processor keeps few requests at a time, and some drop what comes faster, as comes from a tile whose
//! own lines are near if it asks for those of a whole block. At a short distance requests are as slow as lines come, since the tile
//! waits for these.

use core::ops::Range;

use regard_ir::cache::{Block, PageShape};

use super::LANES;
use super::load::Step;
use crate::isa::Door;

/// Lines from those that are read to those that are asked for: so many that some are always on their way, and fewer than are kept.
pub(super) const NEAR: usize = 128;

/// The same of tiles of many rows, whose products of a line take about as long as a line takes to come.
pub(super) const FAR: usize = 192;

/// What is read after a block.
#[derive(Clone, Copy)]
pub struct Ahead<'a> {
    words: &'a [u32],
    /// Lines of numbers, after which come scales and the like.
    numbers: usize,
}

impl<'a> Ahead<'a> {
    /// Nothing.
    pub const NOTHING: Self = Self { words: &[], numbers: 0 };

    /// A block of keys, or nothing if it is empty.
    pub fn keys(shape: &PageShape, words: &'a [u32]) -> Self {
        Self::block(words, &shape.keys)
    }

    /// A block of values, or nothing if it is empty.
    pub fn values(shape: &PageShape, words: &'a [u32]) -> Self {
        Self::block(words, &shape.values)
    }

    /// Rows that are read one after the other.
    pub fn rows(words: &'a [u32]) -> Self {
        Self { words, numbers: words.len() / LANES }
    }

    fn block(words: &'a [u32], block: &Block) -> Self {
        if words.is_empty() { Self::NOTHING } else { Self { words, numbers: block.words / LANES } }
    }

    /// All lines.
    pub(super) fn lines(&self) -> &'a [Step] {
        self.words.as_chunks().0
    }

    /// Asks for the lines that are not numbers.
    #[inline(always)]
    pub(super) fn ask_for_rest<D: Door>(&self, lanes: D) {
        self.lines()[self.numbers..].iter().for_each(|line| lanes.prefetch(line));
    }
}

/// Where tiles ask, [`NEAR`] lines or a tile further than they read.
pub(super) struct Cursor<'a> {
    /// Lines of the block that are yet to be asked for.
    lines: &'a [Step],
    /// Those of the next one.
    then: &'a [Step],
    /// Lines that a tile reads.
    tile: usize,
}

/// Lines that are asked for, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Soon(*const Step);

impl<'a> Cursor<'a> {
    /// Before the first tile of a block, of tiles that read so many lines and ask about so many further.
    pub fn new(lines: &'a [Step], then: Ahead<'a>, (tile, near): (usize, usize)) -> Self {
        let near = near.checked_div(tile).unwrap_or(0).max(1) * tile;
        Self { lines: &lines[near.min(lines.len())..], then: &then.lines()[..then.numbers], tile }
    }

    /// The same of rows of floats.
    pub fn of_rows(rows: &'a [[f32; LANES]], then: Ahead<'a>, tile: (usize, usize)) -> Self {
        Self::new(pulp::bytemuck::cast_slice(rows), then, tile)
    }

    /// What the next tile asks for. Of what comes after the next block nothing is known.
    #[inline(always)]
    pub fn next(&mut self) -> Option<Soon> {
        if self.lines.is_empty() {
            (self.lines, self.then) = (self.then, &[]);
        }
        let first = self.lines.first()?;
        self.lines = &self.lines[self.tile.min(self.lines.len())..];
        Some(Soon(first))
    }
}

impl Soon {
    /// None that is asked for.
    pub const NOTHING: Self = Self(core::ptr::null());

    /// Asks for some of the lines, by their number.
    #[inline(always)]
    pub fn ask<D: Door>(&self, lanes: D, numbers: Range<usize>) {
        numbers.for_each(|it| lanes.prefetch(self.0.wrapping_add(it)));
    }

    /// Counts on from so many lines further.
    #[inline(always)]
    pub fn go_on(&mut self, count: usize) {
        self.0 = self.0.wrapping_add(count);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// What tiles of a block ask for, each for as many lines as it reads.
    fn asked(lines: &[Step], then: Ahead<'_>, tile: usize) -> Vec<*const Step> {
        let mut cursor = Cursor::new(lines, then, (tile, NEAR));
        let tiles = (0..lines.len() / tile).filter_map(|_| cursor.next());
        tiles.flat_map(|Soon(first)| (0..tile).map(move |it| first.wrapping_add(it))).collect()
    }

    #[test]
    fn lines_are_asked_for_in_the_order_in_which_they_are_read() {
        // Of 128 channels in f32 and bf16, and of fewer, keys and the values after them.
        let cases =
            [(512, 128, 128), (512, 64, 128), (256, 64, 128), (256, 256, 256), (96, 48, 96), (64, 32, 64)];
        for (count, tile, near) in cases {
            let memory = vec![[0; LANES]; 2 * count + 1];
            let (lines, rest) = memory.split_at(count);
            let then = Ahead { words: rest.as_flattened(), numbers: count };
            let order: Vec<_> = memory.iter().map(core::ptr::from_ref).collect();
            assert_eq!(asked(lines, then, tile), order[near..][..count], "{count} {tile}");
            // Where nothing comes after a block nothing beyond it is asked for.
            assert_eq!(asked(lines, Ahead::NOTHING, tile), order[near..count], "{count} {tile}");
        }
    }
}
