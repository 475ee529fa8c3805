//! Blocks that are made by whoever needs them first and read by all who come after.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, Ordering};

use super::MAX_TASKS;

/// Memory for the blocks of some owners at a time: each owner's lie in a place, which the next takes over when nobody visits it.
///
/// Nobody waits. Who finds no place, or a block that another is making, does without.
pub struct Shelf<'a> {
    start: *mut f32,
    /// Elements of a block.
    len: usize,
    /// Blocks of a place.
    per_place: usize,
    /// Whose each place is, and how many visit it.
    places: &'a [AtomicU32],
    /// What became of each block, and whose it is.
    blocks: &'a [AtomicU32],
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: threads reach the memory through `Visit::block` and `Visit::made` alone. The former gives a block that is missing to one
// caller, to be written; both give it to others only to be read, once that one has said that it is made.
unsafe impl Sync for Shelf<'_> {}

/// Bits of a place's word that count its visitors; above them is the number of its owner, from 1 on.
const VISITORS: u32 = 15;

/// The most visitors of a place.
const MOST_VISITORS: u32 = (1 << VISITORS) - 1;

const _: () = assert!(MAX_TASKS as u64 + 1 < 1 << (u32::BITS - VISITORS), "an owner's number fits");

impl<'a> Shelf<'a> {
    /// Elements of the marks of a shelf of so many places of `per_place` blocks; saturates.
    pub const fn marks_len(places: usize, per_place: usize) -> usize {
        places.saturating_mul(per_place.saturating_add(1))
    }

    /// An empty shelf of blocks of `len` elements, `per_place` for each of `places` owners.
    ///
    /// # Panics
    /// If there are fewer elements than that, or fewer marks than [`Shelf::marks_len`] says.
    pub fn new(memory: &'a mut [f32], marks: &'a mut [u32], [places, per_place, len]: [usize; 3]) -> Self {
        let needed = places.checked_mul(per_place).and_then(|blocks| blocks.checked_mul(len));
        assert!(needed.is_some_and(|needed| needed <= memory.len()), "room for all blocks");
        let marks = &mut marks[..Self::marks_len(places, per_place)];
        marks.fill(0);
        // SAFETY: an `AtomicU32` has size, alignment and values of a u32, and the slice is borrowed for 'a for this alone.
        let marks = unsafe { &*(core::ptr::from_mut(marks) as *const [AtomicU32]) };
        let (places, blocks) = marks.split_at(places);
        Self { start: memory.as_mut_ptr(), len, per_place, places, blocks, lifetime: PhantomData }
    }

    /// Comes to the blocks of an owner, a number below [`MAX_TASKS`]: `None` where all places are visited for others.
    ///
    /// Owners who come one after the other find places apart, if there are enough.
    pub fn visit(&self, owner: u32) -> Option<Visit<'_>> {
        if owner >= MAX_TASKS || self.places.is_empty() {
            return None;
        }
        let (owner, home) = (owner + 1, owner as usize % self.places.len());
        let around = || (home..self.places.len()).chain(0..home);
        // Its own place first, wherever that is.
        around()
            .find_map(|at| self.enter(at, owner, true))
            .or_else(|| around().find_map(|at| self.enter(at, owner, false)))
    }

    /// Enters a place that is the owner's, or, unless it must be, one that nobody visits.
    fn enter(&self, at: usize, owner: u32, is_own: bool) -> Option<Visit<'_>> {
        let place = &self.places[at];
        let mut word = place.load(Ordering::Relaxed);
        loop {
            let (of, visitors) = (word >> VISITORS, word & MOST_VISITORS);
            let entered = match visitors {
                _ if of == owner && visitors < MOST_VISITORS => word + 1,
                0 if !is_own => owner << VISITORS | 1,
                _ => return None,
            };
            // What visitors before read and wrote has happened when the next comes: each leaves by a release.
            match place.compare_exchange_weak(word, entered, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(Visit { shelf: self, at, owner }),
                Err(found) => word = found,
            }
        }
    }
}

/// The right to the blocks of an owner.
pub struct Visit<'s> {
    shelf: &'s Shelf<'s>,
    at: usize,
    owner: u32,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.shelf.places[self.at].fetch_sub(1, Ordering::Release);
    }
}

/// A block of a visited owner.
pub enum Found<'v> {
    /// As it was made.
    Made(&'v [f32]),
    /// Not yet made, and this caller's to make.
    Missing(Making<'v>),
    /// Another is making it, or there is no room for it.
    Elsewhere,
}

/// A block to be made. One that is dropped before stays out of reach.
pub struct Making<'v> {
    block: &'v mut [f32],
    mark: &'v AtomicU32,
    made: u32,
}

impl<'v> Making<'v> {
    /// Where it is made; whatever was there before.
    pub fn room(&mut self) -> &mut [f32] {
        self.block
    }

    /// The block, which is as it is to be, from now on for all.
    pub fn made(self) -> &'v [f32] {
        self.mark.store(self.made, Ordering::Release);
        self.block
    }
}

impl Visit<'_> {
    /// The mark of block number `number`, and where the block lies: inside the memory, of which `Shelf::new` compared the length.
    /// `None` where there is no room for it.
    fn find(&self, number: usize) -> Option<(&AtomicU32, *mut f32)> {
        let Shelf { start, len, per_place, blocks, .. } = *self.shelf;
        let number = self.at * per_place + Some(number).filter(|&number| number < per_place)?;
        Some((&blocks[number], start.wrapping_add(number * len)))
    }

    /// Block number `number` of the owner, if it is made.
    pub fn made(&self, number: usize) -> Option<&[f32]> {
        let (mark, block) = self.find(number)?;
        if mark.load(Ordering::Acquire) != self.owner << 1 | 1 {
            return None;
        }
        // SAFETY: inside the memory (`find`). Whoever wrote it for this owner has ended to (`Making::made` released the mark), and
        // nobody writes it again while this visit lasts: `Shelf::enter` gives the place to another owner when nobody visits it.
        Some(unsafe { core::slice::from_raw_parts(block, self.shelf.len) })
    }

    /// Block number `number` of the owner.
    pub fn block(&self, number: usize) -> Found<'_> {
        if let Some(block) = self.made(number) {
            return Found::Made(block);
        }
        let Some((mark, block)) = self.find(number) else { return Found::Elsewhere };
        let (found, making) = (mark.load(Ordering::Relaxed), self.owner << 1);
        let is_taken = found >> 1 == self.owner;
        if is_taken || mark.compare_exchange(found, making, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Found::Elsewhere;
        }
        // SAFETY: inside the memory (`find`). The exchange gave the block to this caller alone, while the place is this owner's;
        // earlier owners' visitors have left before this one came (`Visit::drop` releases, `Shelf::enter` acquires).
        let block = unsafe { core::slice::from_raw_parts_mut(block, self.shelf.len) };
        Found::Missing(Making { block, mark, made: making | 1 })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn shelf<'a>(memory: &'a mut [f32], marks: &'a mut [u32], sizes: [usize; 3]) -> Shelf<'a> {
        Shelf::new(memory, marks, sizes)
    }

    fn is_made(visit: &Visit<'_>, number: usize) -> bool {
        matches!(visit.block(number), Found::Made(_))
    }

    #[test]
    fn a_block_is_made_once_and_read_by_all() {
        let (mut memory, mut marks) = ([f32::NAN; 12], [7; 4]);
        let shelf = shelf(&mut memory, &mut marks, [1, 3, 4]);
        let visit = shelf.visit(5).expect("an empty place");
        let Found::Missing(mut making) = visit.block(1) else { panic!("nobody has made it") };
        assert!(matches!(visit.block(1), Found::Elsewhere), "another is making it");
        making.room().fill(3.0);
        assert_eq!(making.made(), [3.0; 4]);
        let again = shelf.visit(5).expect("its own place");
        let Found::Made(block) = again.block(1) else { panic!("it was made") };
        assert_eq!(block, [3.0; 4]);
        assert!(matches!(again.block(3), Found::Elsewhere), "a place has three");
    }

    #[test]
    fn a_place_is_taken_over_when_nobody_visits_it() {
        let (mut memory, mut marks) = ([0.0; 4], [0; 4]);
        let shelf = shelf(&mut memory, &mut marks, [2, 1, 2]);
        let first = shelf.visit(0).expect("an empty place");
        let second = shelf.visit(2).expect("the other, as its own is visited");
        assert!(shelf.visit(4).is_none(), "both are visited");
        for visit in [&first, &second] {
            let Found::Missing(making) = visit.block(0) else { panic!("of another owner") };
            making.made();
        }
        drop(first);
        let third = shelf.visit(4).expect("the first is free");
        assert!(!is_made(&third, 0), "what another owner left is not its own");
        drop((second, third));
        assert!(is_made(&shelf.visit(2).expect("its place"), 0), "what nobody took over is still there");
        assert!(shelf.visit(MAX_TASKS).is_none(), "no such owner");
    }

    #[test]
    fn a_block_that_was_given_up_stays_out_of_reach() {
        let (mut memory, mut marks) = ([0.0; 2], [0; 2]);
        let shelf = shelf(&mut memory, &mut marks, [1, 1, 2]);
        let visit = shelf.visit(0).expect("an empty place");
        assert!(matches!(visit.block(0), Found::Missing(_)), "given up as soon as it is given");
        assert!(matches!(visit.block(0), Found::Elsewhere));
    }

    #[test]
    fn a_shelf_without_places_has_no_visitors() {
        assert!(shelf(&mut [], &mut [], [0, 3, 4]).visit(0).is_none());
    }

    #[test]
    fn threads_never_see_a_block_of_another_owner_or_half_of_one() {
        let (places, per_place, len) = (2, 5, 64);
        let mut memory = vec![0.0; places * per_place * len];
        let mut marks = vec![0; Shelf::marks_len(places, per_place)];
        let shelf = shelf(&mut memory, &mut marks, [places, per_place, len]);
        let work = |turns: &mut dyn Iterator<Item = u32>| {
            let mut read = 0;
            for turn in turns {
                let (owner, number) = (turn % 7, turn as usize % per_place);
                let Some(visit) = shelf.visit(owner) else { continue };
                let value = (owner * 10 + number as u32) as f32;
                match visit.block(number) {
                    Found::Missing(mut making) => {
                        making.room().fill(value);
                        making.made();
                    }
                    Found::Made(block) => {
                        assert!(block.iter().all(|&x| x == value), "{value}: {block:?}");
                        read += 1;
                    }
                    Found::Elsewhere => {}
                }
            }
            read
        };
        let turns = if cfg!(miri) { 200 } else { 50_000 };
        let read: Vec<usize> = thread::scope(|scope| {
            let workers: Vec<_> = (0..3u32)
                .map(|i| scope.spawn(move || work(&mut (0..turns).map(|turn| turn / 4 + i))))
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("no thread saw a wrong block")).collect()
        });
        assert!(read.iter().sum::<usize>() > 0, "some block was read");
    }
}
