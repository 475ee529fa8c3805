//! What is read soon, and when it is asked for.
//!
//! A tile that reads a line asks for the one that will be read so many lines later, by itself or by a tile after it: in the order in
//! which tiles read, not in that of memory. A processor keeps few requests at a time, and some drop what comes faster, as comes from a
//! tile whose own lines are near if it asks for those of a whole block. At a short distance requests are as slow as lines come, since
//! the tile waits for these.
//!
//! Which cache lines are asked into is the processor's own: see [`Nearest`].

use regard_ir::cache::{Block, PageShape};
use regard_simd::Nearest;

use super::LANES;
use super::load::Step;
use crate::isa::Door;

/// Lines from the one that is read to the one that is asked for: so many that some are always on their way, and fewer than are kept.
const NEAR: usize = 96;

/// The same where products of a line take about as long as a line takes to come, so that requests are further apart, or where lines are
/// asked into the second cache, from which they still have to come.
const FAR: usize = 160;

/// Products of a line with all rows from which on it is so.
const SLOW: usize = 8;

/// Panels that a tile reads side by side, at most.
const WIDEST: usize = 4;

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
    /// Lines of a panel.
    panel: usize,
}

impl<'a> Ahead<'a> {
    /// Nothing.
    pub const NOTHING: Self = Self { words: &[], numbers: 0, panel: 0 };

    /// A block of keys, or nothing if it is empty.
    #[inline(always)]
    pub fn keys(shape: &PageShape, words: &'a [u32]) -> Self {
        Self::block(words, &shape.keys, shape.keys.channels)
    }

    /// A block of values, or nothing if it is empty.
    #[inline(always)]
    pub fn values(shape: &PageShape, words: &'a [u32]) -> Self {
        Self::block(words, &shape.values, shape.tokens)
    }

    /// Rows that are read one after the other.
    #[inline(always)]
    pub fn rows(words: &'a [u32]) -> Self {
        let numbers = words.len() / LANES;
        // So short that those of all panels side by side are the first lines that are read.
        Self { words, numbers, panel: numbers.min(NEAR / WIDEST) }
    }

    /// A block whose panels have lines for so many channels or tokens.
    #[inline(always)]
    fn block(words: &'a [u32], block: &Block, of_panel: usize) -> Self {
        if words.is_empty() {
            return Self::NOTHING;
        }
        let numbers = block.codec.numbers();
        let panel = (of_panel + numbers as usize - 1) >> numbers.trailing_zeros();
        Self { words, numbers: block.words / LANES, panel }
    }

    /// All lines as they lie.
    #[inline(always)]
    pub(super) fn lines(&self) -> &'a [Step] {
        self.words.as_chunks().0
    }

    /// Those of numbers.
    #[inline(always)]
    pub(super) fn numbers(&self) -> &'a [Step] {
        &self.lines()[..self.numbers]
    }

    /// Asks for the lines that are not numbers.
    #[inline(always)]
    pub(super) fn ask_for_rest<D: Door>(&self, lanes: D) {
        self.lines()[self.numbers..].iter().for_each(|line| lanes.prefetch(line));
    }
}

/// The lines of a block in the order in which tiles read them: `depth` lines of each of some panels side by side, then of those after
/// them, and after the last panel the next lines of the first.
#[derive(Clone, Copy)]
pub(super) struct Course<'a> {
    /// Whole panels.
    pub lines: &'a [Step],
    /// Lines of a panel.
    pub panel: usize,
    pub depth: usize,
}

/// Where tiles ask, some tiles further than they read.
pub(super) struct Cursor<'a> {
    course: Course<'a>,
    then: Ahead<'a>,
    /// Panels that a tile reads side by side, a power of two.
    width: usize,
    /// Lines of a tile.
    depth: usize,
    /// Its first panel and the first line in that.
    at: [usize; 2],
    /// Lines of a panel further than the first.
    rest: usize,
}

/// Lines of panels side by side.
#[derive(Clone, Copy)]
struct Run {
    first: *const Step,
    /// Lines from one panel to the next.
    panel: usize,
}

/// The lines that a tile asks for.
#[derive(Clone, Copy)]
pub(super) struct Soon {
    /// The next ones.
    run: Run,
    /// How many of each panel are asked for before those of the tile after it.
    left: usize,
    then: Run,
}

impl<'a> Cursor<'a> {
    /// Before the first tile of a block, of tiles `width` panels wide in which a line takes so many products.
    #[inline(always)]
    pub fn new(
        course: Course<'a>,
        then: Ahead<'a>,
        (width, products): (usize, usize),
        nearest: Nearest,
    ) -> Self {
        let near = if products < SLOW && nearest == Nearest::First { NEAR } else { FAR };
        // Of the block after the next one nothing is known.
        let near = near.min(course.lines.len());
        let (depth, rest) = (course.depth.max(1), near >> width.trailing_zeros());
        let mut cursor = Self { course, then, width, depth, at: [0; 2], rest };
        while cursor.rest >= depth {
            cursor.rest -= depth;
            cursor.advance();
        }
        cursor
    }

    /// What the next tile asks for.
    #[inline(always)]
    pub fn next(&mut self) -> Soon {
        let run = self.run(self.rest);
        self.advance();
        Soon { run, left: self.depth - self.rest, then: self.run(0) }
    }

    /// From a line of the tile on.
    #[inline(always)]
    fn run(&self, line: usize) -> Run {
        let Course { lines, panel, .. } = self.course;
        let [first, begin] = self.at;
        Run { first: lines.as_ptr().wrapping_add(first * panel + begin + line), panel }
    }

    /// Goes on by a tile. At the end it stays.
    #[inline(always)]
    fn advance(&mut self) {
        let Course { lines, panel, depth } = self.course;
        let [first, begin] = self.at;
        if (first + self.width) * panel < lines.len() {
            self.at[0] += self.width;
        } else if begin + depth < panel {
            self.at = [0, begin + depth];
        } else if self.then.numbers > 0 {
            let panel = self.then.panel;
            self.course = Course { lines: self.then.numbers(), panel, depth: self.depth.min(panel) };
            (self.then, self.at) = (Ahead::NOTHING, [0; 2]);
        }
    }
}

impl Soon {
    /// Asks for a line in each of some panels, as one of as many is read.
    #[inline(always)]
    pub fn ask<D: Door, A: Ask>(&mut self, lanes: D, panels: usize) {
        let Run { first, panel } = self.run;
        (0..panels).for_each(|it| A::line(lanes, first.wrapping_add(it * panel)));
        self.go_on();
    }

    #[inline(always)]
    fn go_on(&mut self) {
        self.run.first = self.run.first.wrapping_add(1);
        self.left = self.left.wrapping_sub(1);
        if self.left == 0 {
            self.run = self.then;
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// The lines that tiles ask for, by their places in memory: for each tile and line of it, of each panel.
    fn asked(
        course: Course<'_>,
        then: Ahead<'_>,
        of: (usize, usize),
        nearest: Nearest,
        tiles: usize,
    ) -> Vec<usize> {
        let (mut cursor, begin) = (Cursor::new(course, then, of, nearest), course.lines.as_ptr());
        let mut all = Vec::new();
        for _ in 0..tiles {
            let mut soon = cursor.next();
            for _ in 0..course.depth {
                let Run { first, panel } = soon.run;
                let at = |it| (first.wrapping_add(it * panel) as usize - begin as usize) / size_of::<Step>();
                all.extend((0..of.0).map(at));
                soon.go_on();
            }
        }
        all
    }

    /// The lines of a block as tiles read them.
    fn read(begin: usize, [panels, panel, depth]: [usize; 3], width: usize) -> Vec<usize> {
        let mut all = Vec::new();
        for line in (0..panel).step_by(depth) {
            for first in (0..panels).step_by(width) {
                for j in line..line + depth {
                    all.extend((first..first + width).map(|it| begin + it * panel + j));
                }
            }
        }
        all
    }

    #[test]
    fn lines_are_asked_for_in_the_order_in_which_they_are_read() {
        // Of 128 channels in f32 and bf16, keys and the values after them, by tiles of few rows and of many.
        let (first, second) = (Nearest::First, Nearest::Second);
        for (keys, values, depth, (width, products), nearest, near) in [
            ([4, 128], [8, 64], 64, (4, 4), first, NEAR),
            ([4, 128], [8, 64], 64, (2, 8), first, FAR),
            ([4, 64], [8, 32], 32, (4, 1), first, NEAR),
            ([4, 64], [8, 32], 32, (2, 8), first, FAR),
            ([4, 64], [8, 32], 32, (1, 2), first, NEAR),
            ([4, 128], [8, 64], 64, (4, 4), second, FAR),
            ([4, 64], [8, 32], 32, (4, 1), second, FAR),
        ] {
            let ([panels, panel], count) = (keys, keys[0] * keys[1]);
            let memory = vec![[0; LANES]; count + values[0] * values[1] + 1];
            let lines = &memory[..count];
            let course = Course { lines, panel, depth };
            let words = memory[count..].as_flattened();
            let then = Ahead { words, numbers: values[0] * values[1], panel: values[1] };
            let mut order = read(0, [panels, panel, depth], width);
            order.extend(read(count, [values[0], values[1], depth], width));
            let tiles = count / width / depth;
            assert_eq!(
                asked(course, then, (width, products), nearest, tiles),
                order[near..][..count],
                "{keys:?} {width}"
            );
        }
    }

    #[test]
    fn where_nothing_comes_after_a_block_nothing_beyond_it_is_asked_for() {
        let memory = [[0; LANES]; 256];
        for (width, products) in [(4, 1), (2, 8), (1, 1)] {
            let course = Course { lines: &memory, panel: 32, depth: 32 };
            let all = asked(course, Ahead::NOTHING, (width, products), Nearest::First, 8 / width);
            assert!(all.iter().all(|&line| line < memory.len()), "{width}");
        }
    }
}
