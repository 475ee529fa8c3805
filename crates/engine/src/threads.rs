//! Who does the work: a pool of ours, one of the caller's, or nobody else.

/// Workers that run one function at the same time.
///
/// Implement it for a pool of your own: `run` calls `work(i)` for every `i` in `0..count`, at the same time where it
/// can, and returns when all have returned. A run gives the same bits whatever the count.
pub trait Threads: Sync {
    /// How many workers there are, the caller's own thread included; at least 1.
    fn count(&self) -> usize;

    /// Calls `work` once with each index below [`Threads::count`].
    fn run(&self, work: &(dyn Fn(usize) + Sync));
}

/// The caller's own thread alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Threads for Solo {
    fn count(&self) -> usize {
        1
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        work(0);
    }
}
