//! Which sequences take one pass over a cell together.
//!
//! Sequences that forked from one prefix have its pages in common. A cell whose pages are the same for several of them is
//! read once, with the queries of all stacked. Every row of a pass is computed as if it were alone, so a row's bits are
//! those of a pass over a copy of the cell. A pass leaves a slot for each of its sequences.

use core::ops::Range;

use regard_ir::plan::Plan;
use regard_ir::problem::Problem;

use crate::cache::{CachedSequence, Caches, Pages};

/// Memory for the lists of a call.
pub(super) struct Lists<'a> {
    /// The page that each sequence begins with, where it may share it.
    pub roots: &'a mut [u32],
    /// Where the live cells of each sequence begin in `cells`, and past the last.
    pub firsts: &'a mut [u32],
    /// The stack of each live cell of each sequence, and the sequence's place in it.
    pub cells: &'a mut [[u32; 2]],
    /// Where the stacks that each sequence leads begin in `stacks`, and past the last.
    pub leads: &'a mut [u32],
    /// The cell of each stack and where its sequences begin in `members`; past the last stack where the last one's end.
    pub stacks: &'a mut [[u32; 2]],
    /// The sequences of the stacks.
    pub members: &'a mut [u32],
    /// Where the sums of each pass begin, counted in slots, and past the last.
    pub starts: &'a mut [u32],
}

/// The passes of a call: each key head takes one over each stack's cell.
#[derive(Clone, Copy)]
pub(super) struct Stacks<'a> {
    heads: usize,
    firsts: &'a [u32],
    cells: &'a [[u32; 2]],
    leads: &'a [u32],
    stacks: &'a [[u32; 2]],
    members: &'a [u32],
    /// As [`Lists::starts`].
    pub starts: &'a [u32],
}

/// One pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass<'a> {
    pub head: usize,
    pub cell: u32,
    /// The sequences whose queries attend to the cell, each with as many queries as the others.
    pub sequences: &'a [u32],
}

/// Where the sums of a sequence and key head over one cell are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where the slots of the pass begin and end.
    pub slots: [u32; 2],
    /// The sequence's own among them.
    pub slot: usize,
}

/// How large the lists are.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub sequences: usize,
    /// Key heads.
    pub heads: usize,
    /// Sequences of a stack at most.
    pub most: usize,
}

impl<'a> Stacks<'a> {
    /// Stacks the sequences of a call on their cells.
    ///
    /// `live` calls what it is given with each live cell of a sequence, in their order.
    pub fn new(
        size: Size,
        lists: Lists<'a>,
        live: impl Fn(usize, &mut dyn FnMut(u32)),
        prefixes: &impl Prefixes,
    ) -> Self {
        let Size { sequences: count, heads, most } = size;
        let Lists { roots, firsts, cells, leads, stacks, members, starts } = lists;
        let (mut listed, mut stacked) = (0, 0);
        for sequence in 0..count {
            (firsts[sequence], leads[sequence]) = (listed as u32, stacked as u32);
            let (shared, other) = if most > 1 { relative(prefixes, roots, sequence) } else { (0, 0) };
            let mut theirs = firsts[other] as usize;
            live(sequence, &mut |cell| {
                let same = if cell < shared {
                    // Both lists rise, and the other's has all its live cells.
                    while theirs < firsts[other + 1] as usize && stacks[cells[theirs][0] as usize][0] < cell {
                        theirs += 1;
                    }
                    (theirs < firsts[other + 1] as usize).then(|| cells[theirs][0]).filter(|&stack| {
                        let [of, sequences] = stacks[stack as usize];
                        of == cell && (sequences as usize) < most
                    })
                } else {
                    None
                };
                let stack = same.unwrap_or_else(|| {
                    stacks[stacked] = [cell, 0];
                    stacked += 1;
                    stacked as u32 - 1
                });
                let sequences = &mut stacks[stack as usize][1];
                cells[listed] = [stack, *sequences];
                *sequences += 1;
                listed += 1;
            });
            firsts[sequence + 1] = listed as u32;
        }
        leads[count] = stacked as u32;
        // From how many sequences a stack has to where they begin.
        let mut begin = 0;
        for [_, sequences] in &mut stacks[..stacked] {
            begin += core::mem::replace(sequences, begin);
        }
        stacks[stacked] = [0, begin];
        for sequence in 0..count {
            for &[stack, place] in &cells[firsts[sequence] as usize..firsts[sequence + 1] as usize] {
                members[(stacks[stack as usize][1] + place) as usize] = sequence as u32;
            }
        }
        let starts = &mut starts[..stacked * heads + 1];
        starts[0] = 0;
        let (leads, stacks) = (&*leads, &stacks[..=stacked]);
        let mut all = Self { heads, firsts, cells, leads, stacks, members, starts: &[] };
        for pass in 0..stacked * heads {
            starts[pass + 1] = starts[pass] + all.pass(pass).sequences.len() as u32;
        }
        all.starts = starts;
        all
    }

    /// A pass by its number. Those of a sequence's stacks follow each other, and of them those of a key head.
    pub fn pass(&self, number: usize) -> Pass<'a> {
        // The last sequence whose passes begin here or before: those before it that begin here too lead none.
        let lead = self.leads.partition_point(|&stack| stack as usize * self.heads <= number) - 1;
        let Range { start, end } = self.led(lead);
        let of_lead = number - start * self.heads;
        let (head, stack) = (of_lead / (end - start), start + of_lead % (end - start));
        let [[cell, first], [_, last]] = [self.stacks[stack], self.stacks[stack + 1]];
        Pass { head, cell, sequences: &self.members[first as usize..last as usize] }
    }

    /// The stacks that a sequence leads.
    fn led(&self, lead: usize) -> Range<usize> {
        self.leads[lead] as usize..self.leads[lead + 1] as usize
    }

    /// How many live cells a sequence has.
    pub fn count(&self, sequence: usize) -> usize {
        (self.firsts[sequence + 1] - self.firsts[sequence]) as usize
    }

    /// Whether some sequence has more than one.
    pub fn several(&self) -> bool {
        self.firsts.windows(2).any(|pair| pair[1] - pair[0] > 1)
    }

    /// Where the sums of a sequence and key head over each of its live cells are, in the order of the cells.
    pub fn places(&self, sequence: usize, head: usize) -> impl Iterator<Item = Place> + use<'a> {
        let all = *self;
        let cells = &self.cells[self.firsts[sequence] as usize..self.firsts[sequence + 1] as usize];
        cells.iter().map(move |&[stack, slot]| {
            let lead = all.leads.partition_point(|&first| first <= stack) - 1;
            let Range { start, end } = all.led(lead);
            let pass = start * all.heads + head * (end - start) + (stack as usize - start);
            Place { slots: [all.starts[pass], all.starts[pass + 1]], slot: slot as usize }
        })
    }
}

/// What sequences begin with.
pub(super) trait Prefixes {
    /// The page that a sequence begins with, if others may share it.
    fn root(&self, sequence: usize) -> Option<u32>;

    /// How many whole cells two sequences have in common, counted from the first.
    fn cells(&self, sequences: [usize; 2]) -> u32;
}

/// No page.
const NONE: u32 = u32::MAX;

/// A sequence before this one that has the most cells with it in common, and how many. `roots` are those of the sequences
/// before, and this one's is added.
fn relative(prefixes: &impl Prefixes, roots: &mut [u32], sequence: usize) -> (u32, usize) {
    let root = prefixes.root(sequence);
    roots[sequence] = root.unwrap_or(NONE);
    let Some(root) = root else { return (0, 0) };
    let (all, mut most, mut relative) = (prefixes.cells([sequence; 2]), 0, 0);
    // The latest first: its stacks are the ones that still have room.
    for other in (0..sequence).rev().filter(|&other| roots[other] == root) {
        let shared = prefixes.cells([other, sequence]);
        if shared > most {
            (most, relative) = (shared, other);
        }
        if most == all {
            break;
        }
    }
    (most, relative)
}

/// The sequences of some caches.
pub(super) struct Cached<'a> {
    pub caches: &'a dyn Caches,
    pub problem: &'a Problem<'a>,
    pub plan: &'a Plan,
}

impl Prefixes for Cached<'_> {
    fn root(&self, sequence: usize) -> Option<u32> {
        let cache = self.caches.get(sequence);
        // A pass has as many queries of each sequence.
        let is_full = self.problem.sequence(sequence as u32).queries == self.problem.queries;
        match cache.pages {
            Pages::Table(pages) if is_full && cache.len >= self.plan.decode.key_cell => {
                pages.first().copied()
            }
            _ => None,
        }
    }

    fn cells(&self, sequences: [usize; 2]) -> u32 {
        let [a, b] = sequences.map(|sequence| self.caches.get(sequence));
        in_common(&a, &b, self.plan.cache.tokens as usize) / self.plan.decode.key_cell
    }
}

/// How many tokens two sequences have in the same pages of `page` tokens each.
fn in_common(a: &CachedSequence<'_>, b: &CachedSequence<'_>, page: usize) -> u32 {
    let (Pages::Table(a_pages), Pages::Table(b_pages)) = (a.pages, b.pages) else { return 0 };
    if !core::ptr::eq(a.memory, b.memory) {
        return 0;
    }
    let pages = a_pages.iter().zip(b_pages).take_while(|(a, b)| a == b).count();
    u32::try_from(pages.saturating_mul(page)).unwrap_or(u32::MAX).min(a.len).min(b.len)
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    /// Sequences by the cells that each of two has in common with the other, itself included.
    struct Table<'a>(&'a [&'a [u32]]);

    impl Prefixes for Table<'_> {
        fn root(&self, sequence: usize) -> Option<u32> {
            // That of the first it shares cells with.
            (0..=sequence).find(|&other| self.cells([other, sequence]) > 0).map(|root| root as u32)
        }

        fn cells(&self, [a, b]: [usize; 2]) -> u32 {
            self.0[a.max(b)][a.min(b)]
        }
    }

    /// Stacks sequences of some live cells.
    fn with(heads: usize, most: usize, live: &[&[u32]], common: &[&[u32]], look: impl Fn(Stacks<'_>)) {
        let (sequences, cells) = (live.len(), live.iter().map(|cells| cells.len()).sum::<usize>());
        let mut numbers: [Vec<u32>; 5] =
            [sequences, sequences + 1, sequences + 1, cells, cells * heads + 1].map(|len| vec![0; len]);
        let [roots, firsts, leads, members, starts] = &mut numbers;
        let mut pairs: [Vec<[u32; 2]>; 2] = [cells, cells + 1].map(|len| vec![[0; 2]; len]);
        let [cells, stacks] = &mut pairs;
        let lists = Lists { roots, firsts, cells, leads, stacks, members, starts };
        let visit =
            |sequence: usize, visit: &mut dyn FnMut(u32)| live[sequence].iter().for_each(|&cell| visit(cell));
        look(Stacks::new(Size { sequences, heads, most }, lists, visit, &Table(common)));
    }

    #[test]
    fn each_live_cell_is_of_one_pass_and_no_pass_has_too_many() {
        let live: [&[u32]; 6] = [&[0, 1, 2], &[0, 1, 2, 3], &[], &[1, 2, 3], &[0, 1, 2, 3], &[0]];
        // Sequence 1 is a fork of 0 at two cells; 3 and 4 of 1 at three, of which 3 does not see the first; 5 is alone.
        let common: [&[u32]; 6] =
            [&[3], &[2, 4], &[0, 0, 0], &[2, 3, 0, 4], &[2, 3, 0, 3, 4], &[0, 0, 0, 0, 0, 1]];
        with(2, 3, &live, &common, |stacks| {
            let passes = stacks.starts.len() - 1;
            let all: Vec<_> = (0..passes).map(|number| stacks.pass(number)).collect();
            let of_head = |head| -> Vec<(u32, &[u32])> {
                all.iter().filter(|pass| pass.head == head).map(|pass| (pass.cell, pass.sequences)).collect()
            };
            let expected: [(u32, &[u32]); 10] = [
                (0, &[0, 1]),
                (1, &[0, 1, 3]),
                (2, &[0]),
                (2, &[1, 3, 4]),
                (3, &[1]),
                (3, &[3]),
                // Its latest relative does not see the first cell, and has no room in the second.
                (0, &[4]),
                (1, &[4]),
                (3, &[4]),
                (0, &[5]),
            ];
            assert_eq!(of_head(0), expected);
            assert_eq!(of_head(1), expected);
            // Each sequence finds the slots of its cells again, in their order.
            for (sequence, live) in live.iter().enumerate() {
                assert_eq!(stacks.count(sequence), live.len());
                for head in 0..2 {
                    let places: Vec<_> = stacks.places(sequence, head).collect();
                    assert_eq!(places.len(), live.len());
                    for (Place { slots, slot }, &cell) in places.into_iter().zip(*live) {
                        let number = stacks.starts.iter().position(|&start| start == slots[0]).unwrap();
                        assert_eq!(slots[1], stacks.starts[number + 1]);
                        let pass = stacks.pass(number);
                        assert_eq!((pass.head, pass.cell), (head, cell));
                        assert_eq!(pass.sequences[slot] as usize, sequence);
                    }
                }
            }
            assert!(stacks.several());
        });
    }

    #[test]
    fn sequences_that_share_nothing_are_alone() {
        with(1, 1, &[&[0], &[0], &[7]], &[&[1], &[1, 1], &[1, 1, 8]], |stacks| {
            assert_eq!(stacks.starts, [0, 1, 2, 3]);
            assert_eq!(stacks.pass(2), Pass { head: 0, cell: 7, sequences: &[2] });
            assert!(!stacks.several());
        });
        with(3, 4, &[&[], &[]], &[&[0], &[0, 0]], |stacks| assert_eq!(stacks.starts, [0]));
    }

    #[test]
    fn pages_are_in_common_up_to_the_first_that_is_not() {
        let (memory, other) = ([0; 4], [0; 4]);
        let of = |memory, pages, len| CachedSequence { memory, pages, len, written: len };
        let a = of(&memory, Pages::Table(&[3, 1, 2]), 40);
        assert_eq!(in_common(&a, &of(&memory, Pages::Table(&[3, 1, 0]), 48), 16), 32);
        assert_eq!(in_common(&a, &of(&memory, Pages::Table(&[3, 1, 2, 0]), 60), 16), 40);
        assert_eq!(in_common(&a, &of(&memory, Pages::Table(&[3, 1, 2]), 20), 16), 20);
        assert_eq!(in_common(&a, &of(&memory, Pages::Table(&[1, 3, 2]), 48), 16), 0);
        assert_eq!(in_common(&a, &of(&other, Pages::Table(&[3, 1, 2]), 48), 16), 0);
        assert_eq!(in_common(&a, &of(&memory, Pages::Run { first: 0, pages: 4 }, 48), 16), 0);
    }
}
