//! What is read soon, and when it is asked for.
//!
//! Tiles read the lines of a block as they lie, then those of the next one, and ask for as many as they read, some further. A processor
//! keeps few requests at a time, and some drop what comes faster, as comes from a tile whose own lines are near if it asks for those of
//! a whole block. At a short distance requests are as slow as lines come, since the tile waits for these.
//!
//! How lines are asked for, and where, is the processor's own: see [`Prefetch`].

use core::ops::Range;

use regard_ir::cache::{Block, PageShape};
use regard_simd::Prefetch;

use super::LANES;
use super::load::Step;
use crate::isa::Door;

/// How a processor is asked.
struct Manner {
    /// Lines from those that are read to those that are asked for: so many that some are always on their way, and fewer than are kept.
    near: usize,
    /// Products of a line with all rows from which on a core is too slow to find what comes next by itself.
    slow: usize,
}

impl Manner {
    const fn of(prefetch: Prefetch) -> Self {
        match prefetch {
            Prefetch::IntoFirst | Prefetch::IntoSecond => Self { near: 128, slow: 0 },
            Prefetch::AtJumps => Self { near: 128, slow: 8 },
            Prefetch::Close => Self { near: 64, slow: 2 },
        }
    }
}

/// How lines are asked for.
pub(super) trait Ask {
    /// Asks for a line.
    fn line<D: Door>(lanes: D, at: *const Step);
}

/// Into the first cache.
pub(super) struct IntoFirst;

/// Into the second cache.
pub(super) struct IntoSecond;

impl Ask for IntoFirst {
    #[inline(always)]
    fn line<D: Door>(lanes: D, at: *const Step) {
        lanes.prefetch(at);
    }
}

impl Ask for IntoSecond {
    #[inline(always)]
    fn line<D: Door>(lanes: D, at: *const Step) {
        lanes.prefetch_far(at);
    }
}

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
    #[inline(always)]
    pub fn keys(shape: &PageShape, words: &'a [u32]) -> Self {
        Self::block(words, &shape.keys)
    }

    /// A block of values, or nothing if it is empty.
    #[inline(always)]
    pub fn values(shape: &PageShape, words: &'a [u32]) -> Self {
        Self::block(words, &shape.values)
    }

    /// Rows that are read one after the other.
    #[inline(always)]
    pub const fn rows(words: &'a [u32]) -> Self {
        Self { words, numbers: words.len() / LANES }
    }

    #[inline(always)]
    pub(super) fn block(words: &'a [u32], block: &Block) -> Self {
        if words.is_empty() { Self::NOTHING } else { Self { words, numbers: block.words() / LANES } }
    }

    /// All lines as they lie.
    #[inline(always)]
    pub(super) fn lines(&self) -> &'a [Step] {
        self.words.as_chunks().0
    }

    /// Asks for the lines that are not numbers.
    #[inline(always)]
    pub(super) fn ask_for_rest<D: Door>(&self, lanes: D) {
        self.lines()[self.numbers..].iter().for_each(|line| lanes.prefetch(line));
    }
}

/// How the lines of a block are read.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// Lines that a tile reads.
    pub tile: usize,
    /// Lines that are read in another order than that in which they lie, before those after them.
    pub side: usize,
    /// Products of a line with all rows.
    pub products: usize,
}

impl Pace {
    /// Of the first panels of a block, which tiles go over so many pairs at a time, and take whole or a panel alone: `depth` lines of each,
    /// with so many products of each line.
    #[inline(always)]
    pub fn new(
        (block, panels): (&Block, usize),
        (pairs, alone): (usize, bool),
        depth: usize,
        products: usize,
    ) -> Self {
        let turns = block.in_turns(0);
        let tile = if alone { 1 } else { panels.min(pairs * turns).max(turns) };
        let side = if pairs > 1 { pairs * turns * block.depth } else { 0 };
        Self { tile: tile * depth, side, products }
    }
}

/// Where tiles ask, some lines ([`Manner`]) or a tile further than they read.
pub(super) struct Stream<'a> {
    /// Lines of the block that are yet to be asked for.
    lines: &'a [Step],
    /// Those of the next one.
    then: &'a [Step],
    /// Whether those of the block are found by the processor itself, and not asked for.
    finds: bool,
}

/// Lines that a tile asks for, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Next(*const Step);

impl<'a> Stream<'a> {
    /// Before the first tile of a block, of which these lines are read and which takes these words. None where the processor is to find
    /// what comes next by itself.
    #[inline(always)]
    pub fn new(
        prefetch: Prefetch,
        (lines, words): (&'a [Step], &[u32]),
        then: Ahead<'a>,
        Pace { tile, side, products }: Pace,
    ) -> Option<Self> {
        let follows = words.as_ptr_range().end == then.words.as_ptr();
        let Manner { near, slow } = Manner::of(prefetch);
        let finds = products < slow;
        if finds && follows {
            return None;
        }
        let near = (near.checked_div(tile).unwrap_or(0).max(1) * tile).max(side);
        Some(Self { lines: &lines[near.min(lines.len())..], then: &then.lines()[..then.numbers], finds })
    }

    /// What the next tile asks for, which reads so many lines. Of what comes after the next block nothing is known.
    #[inline(always)]
    pub fn next(&mut self, count: usize) -> Option<Next> {
        if self.lines.len() < count {
            *self = Self { lines: self.then, then: &[], finds: false };
        }
        let (asked, lines) = self.lines.split_at_checked(count)?;
        self.lines = lines;
        if self.finds { None } else { Some(Next(asked.as_ptr())) }
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

    /// What tiles of a block ask for, each for as many lines as it reads, of a processor that asks as told.
    fn asked(
        prefetch: Prefetch,
        lines: &[Step],
        then: Ahead<'_>,
        (tile, products): (usize, usize),
    ) -> Option<Vec<*const Step>> {
        let pace = Pace { tile, side: 0, products };
        let mut stream = Stream::new(prefetch, (lines, lines.as_flattened()), then, pace)?;
        let tiles = (0..lines.len() / tile).filter_map(|_| stream.next(tile));
        Some(tiles.flat_map(|Next(first)| (0..tile).map(move |it| first.wrapping_add(it))).collect())
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
            let some = order[near..][..count].to_vec();
            assert_eq!(asked(Prefetch::IntoFirst, lines, then, (tile, 1)), Some(some), "{count} {tile}");
            // Where nothing comes after a block nothing beyond it is asked for.
            let some = order[near..count].to_vec();
            assert_eq!(
                asked(Prefetch::IntoFirst, lines, Ahead::NOTHING, (tile, 1)),
                Some(some),
                "{count} {tile}"
            );
        }
    }

    #[test]
    fn where_what_comes_next_follows_some_processors_find_it_by_themselves() {
        let memory = vec![[0; LANES]; 512];
        let (lines, rest) = memory.split_at(256);
        let [next, other] = [0, 1].map(|begin| Ahead::rows(rest[begin..].as_flattened()));
        let asked = |prefetch, then, products| asked(prefetch, lines, then, (64, products));
        let order = |lines: &[Step]| lines.iter().map(core::ptr::from_ref).collect::<Vec<_>>();
        for (prefetch, products, near) in [(Prefetch::AtJumps, 7, 128), (Prefetch::Close, 1, 64)] {
            assert_eq!(asked(prefetch, next, products), None);
            // At a jump they are to find where it leads to.
            assert_eq!(asked(prefetch, other, products), Some(order(&rest[1..][..near])));
            assert_eq!(asked(prefetch, Ahead::NOTHING, products), Some(vec![]));
        }
        // What they find no sooner than it is read is asked for, as others ask for all.
        let cases = [
            (Prefetch::AtJumps, 8, 128),
            (Prefetch::Close, 2, 64),
            (Prefetch::IntoFirst, 1, 128),
            (Prefetch::IntoSecond, 1, 128),
        ];
        for (prefetch, products, near) in cases {
            let all = [order(&lines[near..]), order(&rest[..near])].concat();
            assert_eq!(asked(prefetch, next, products), Some(all));
        }
    }
}
