//! Lines that are asked for as they lie.
//!
//! Tiles of one row read the lines of a block in the order in which they lie, then those of the next one, and ask for as many as they
//! read, some tiles ahead. Memory gives more than where lines of several panels are asked for side by side.

use core::ops::Range;

use pulp::bytemuck;

use super::super::LANES;
use super::super::ahead::{Ahead, Ask};
use super::super::load::Step;
use crate::isa::Door;

/// Lines from those that are read to those that are asked for: so many that some are always on their way, and fewer than are kept.
pub(in super::super) const NEAR: usize = 128;

/// Where tiles ask, [`NEAR`] lines or a tile further than they read.
pub(in super::super) struct Stream<'a> {
    /// Lines of the block that are yet to be asked for.
    lines: &'a [Step],
    /// Those of the next one.
    then: &'a [Step],
    /// Lines that a tile reads.
    tile: usize,
}

/// Lines that a tile asks for, one after the other.
#[derive(Clone, Copy)]
pub(in super::super) struct Next(*const Step);

impl<'a> Stream<'a> {
    /// Before the first tile of a block, of tiles that read so many lines.
    #[inline(always)]
    pub fn new(lines: &'a [Step], then: Ahead<'a>, tile: usize) -> Self {
        let near = NEAR.checked_div(tile).unwrap_or(0).max(1) * tile;
        Self { lines: &lines[near.min(lines.len())..], then: then.numbers(), tile }
    }

    /// The same of rows of floats.
    #[inline(always)]
    pub fn of_rows(rows: &'a [[f32; LANES]], then: Ahead<'a>, tile: usize) -> Self {
        Self::new(bytemuck::cast_slice(rows), then, tile)
    }

    /// What the next tile asks for. Of what comes after the next block nothing is known.
    #[inline(always)]
    pub fn next(&mut self) -> Option<Next> {
        if self.lines.is_empty() {
            (self.lines, self.then) = (self.then, &[]);
        }
        let first = self.lines.first()?;
        self.lines = &self.lines[self.tile.min(self.lines.len())..];
        Some(Next(first))
    }
}

impl Next {
    /// None that is asked for.
    pub const NOTHING: Self = Self(core::ptr::null());

    /// Asks for some of the lines, by their number.
    #[inline(always)]
    pub fn ask<D: Door, A: Ask>(&self, lanes: D, numbers: Range<usize>) {
        numbers.for_each(|it| A::line(lanes, self.0.wrapping_add(it)));
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
        let mut stream = Stream::new(lines, then, tile);
        let tiles = (0..lines.len() / tile).filter_map(|_| stream.next());
        tiles.flat_map(|Next(first)| (0..tile).map(move |it| first.wrapping_add(it))).collect()
    }

    #[test]
    fn lines_are_asked_for_as_they_lie() {
        // Of 128 channels in f32 and bf16, and of fewer, a block and the rows after it.
        let cases =
            [(512, 128, 128), (512, 64, 128), (256, 64, 128), (256, 256, 256), (96, 48, 96), (64, 32, 64)];
        for (count, tile, near) in cases {
            let memory = vec![[0; LANES]; 2 * count + 1];
            let (lines, rest) = memory.split_at(count);
            let then = Ahead::rows(rest[..count].as_flattened());
            let order: Vec<_> = memory.iter().map(core::ptr::from_ref).collect();
            assert_eq!(asked(lines, then, tile), order[near..][..count], "{count} {tile}");
            // Where nothing comes after a block nothing beyond it is asked for.
            assert_eq!(asked(lines, Ahead::NOTHING, tile), order[near..count], "{count} {tile}");
        }
    }
}
