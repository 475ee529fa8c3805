//! Pieces of one slice, each of which is given out once.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicUsize, Ordering};

/// A slice in equal pieces, each given out once.
pub struct Lots<'a, T> {
    start: *mut T,
    size: usize,
    count: usize,
    next: AtomicUsize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: threads reach the slice through `take` alone, which gives each piece to one caller. `T` is sent to them.
unsafe impl<T: Send> Sync for Lots<'_, T> {}

impl<'a, T> Lots<'a, T> {
    /// Cuts `data` into pieces of `size` elements; what is left over stays unused.
    pub fn new(data: &'a mut [T], size: usize) -> Self {
        let count = data.len().checked_div(size).unwrap_or(0);
        Self { start: data.as_mut_ptr(), size, count, next: AtomicUsize::new(0), lifetime: PhantomData }
    }

    /// The next piece and its number, or `None` when all are given out.
    pub fn take(&self) -> Option<(usize, &'a mut [T])> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        if turn >= self.count {
            return None;
        }
        // SAFETY: `turn < count`, so the piece lies inside the slice that `new` was given for 'a; the counter gives
        // out each turn once (it would take 2^64 calls to wrap), so no other reference to the piece exists.
        Some((turn, unsafe { core::slice::from_raw_parts_mut(self.start.add(turn * self.size), self.size) }))
    }
}

/// A slice in runs of equal pieces, each run given out once.
pub struct LotRuns<'a, T> {
    start: *mut T,
    len: usize,
    size: usize,
    starts: &'a [u32],
    next: AtomicUsize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: threads reach the slice through `take` alone, which gives each run to one caller. `T` is sent to them.
unsafe impl<T: Send> Sync for LotRuns<'_, T> {}

impl<'a, T> LotRuns<'a, T> {
    /// Cuts `data` into pieces of `size` elements and those into runs: run i is pieces `starts[i]..starts[i + 1]`.
    ///
    /// # Panics
    /// If the starts fall, or leave the data.
    pub fn new(data: &'a mut [T], size: usize, starts: &'a [u32]) -> Self {
        assert!(starts.is_sorted(), "runs begin one after the other");
        let end = starts.last().map_or(Some(0), |&end| (end as usize).checked_mul(size));
        assert!(end.is_some_and(|end| end <= data.len()), "runs of pieces inside the data");
        let (start, len) = (data.as_mut_ptr(), data.len());
        Self { start, len, size, starts, next: AtomicUsize::new(0), lifetime: PhantomData }
    }

    /// The number of the run that is given out next, unless all are: a guess, as others take runs too.
    pub fn upcoming(&self) -> Option<usize> {
        let turn = self.next.load(Ordering::Relaxed);
        (turn + 1 < self.starts.len()).then_some(turn)
    }

    /// The next run and its number, or `None` when all are given out.
    pub fn take(&self) -> Option<(usize, &'a mut [T])> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let [begin, end] = *self.starts.get(turn..)?.first_chunk::<2>()?;
        let (begin, end) = (begin as usize * self.size, end as usize * self.size);
        assert!(begin <= end && end <= self.len, "a run inside the data");
        // SAFETY: the run lies inside the slice that `new` was given for 'a (compared above); starts never fall (`new`
        // checked, and they are borrowed since), so runs of different numbers are disjoint, and the counter gives out each
        // number once (it would take 2^64 calls to wrap).
        Some((turn, unsafe { core::slice::from_raw_parts_mut(self.start.add(begin), end - begin) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_that_is_told_is_the_one_that_is_taken() {
        let mut data = [0u8; 6];
        let runs = LotRuns::new(&mut data, 2, &[0, 1, 1, 3]);
        for (number, pieces) in [1, 0, 2].into_iter().enumerate() {
            assert_eq!(runs.upcoming(), Some(number));
            let (taken, run) = runs.take().expect("there are three");
            assert_eq!((taken, run.len()), (number, 2 * pieces));
        }
        assert_eq!(runs.upcoming(), None);
        assert!(runs.take().is_none());
        assert_eq!(runs.upcoming(), None);
    }
}
