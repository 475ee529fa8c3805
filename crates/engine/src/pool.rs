//! A pool of std threads that wait for one function at a time.
//!
//! Why not a crate: the pools that are well kept allocate on each call, or start the other threads only after a
//! heartbeat of 100 µs, which is longer than a short attention call. This one publishes a pointer, wakes the workers
//! and waits: no allocation, no lock, no queue.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};
use std::vec::Vec;

use crate::threads::Threads;

/// How long a waiting thread spins before it parks: a few times what it costs to wake it.
const SPIN: Duration = Duration::from_micros(20);

/// Turns between two looks at the clock.
const TURNS: u32 = 64;

/// Threads that wait, parked, for work.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// What the caller and the workers both see.
struct Shared {
    /// Counts calls; a worker has work when it differs from the last that it saw.
    call: AtomicU32,
    /// The call's job while one is under way.
    job: AtomicPtr<Job<'static>>,
    /// Whether a call is under way.
    busy: AtomicBool,
    /// Whether the pool is being dropped.
    stop: AtomicBool,
}

/// One call, on its caller's stack.
struct Job<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    caller: Thread,
    /// Workers that have not finished.
    unfinished: AtomicUsize,
    panicked: AtomicBool,
}

impl Pool {
    /// A pool of `count` workers, the caller's thread being one of them; 0 counts as 1.
    ///
    /// # Errors
    /// If the system starts no more threads.
    pub fn new(count: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            call: AtomicU32::new(0),
            job: AtomicPtr::new(core::ptr::null_mut()),
            busy: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(count.saturating_sub(1)) };
        for index in 1..count {
            let shared = Arc::clone(&pool.shared);
            let name = std::format!("regard-{index}");
            pool.workers.push(thread::Builder::new().name(name).spawn(move || shared.serve(index))?);
        }
        Ok(pool)
    }
}

impl Shared {
    /// What worker `index` does until the pool is dropped.
    fn serve(&self, index: usize) {
        let mut seen = 0;
        loop {
            wait_until(|| self.call.load(Ordering::Acquire) != seen);
            seen = self.call.load(Ordering::Acquire);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            // SAFETY: `Threads::run` stores the job before it counts the call, and leaves neither its frame nor the
            // job before `unfinished` is 0, to which this worker has not yet contributed.
            let job = unsafe { &*self.job.load(Ordering::Acquire) };
            if catch_unwind(AssertUnwindSafe(|| (job.work)(index))).is_err() {
                job.panicked.store(true, Ordering::Relaxed);
            }
            // The job may be gone as soon as the count falls: what is needed afterwards is taken first.
            let caller = job.caller.clone();
            if job.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
                caller.unpark();
            }
        }
    }
}

/// Spins for a while, then parks until `done`. Whoever makes it true unparks this thread afterwards.
fn wait_until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while start.elapsed() < SPIN {
        for _ in 0..TURNS {
            if done() {
                return;
            }
            core::hint::spin_loop();
        }
    }
    while !done() {
        thread::park();
    }
}

impl Threads for Pool {
    fn count(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls from within `work`, or from a second thread while a call is under way, run on their own thread.
    ///
    /// # Panics
    /// If `work` panics, after every worker has returned.
    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || self.shared.busy.swap(true, Ordering::Acquire) {
            (0..self.count()).for_each(work);
            return;
        }
        let job = Job {
            work,
            caller: thread::current(),
            unfinished: AtomicUsize::new(self.workers.len()),
            panicked: AtomicBool::new(false),
        };
        self.shared.job.store((&raw const job).cast_mut().cast(), Ordering::Release);
        self.shared.call.fetch_add(1, Ordering::Release);
        self.workers.iter().for_each(|worker| worker.thread().unpark());
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        wait_until(|| job.unfinished.load(Ordering::Acquire) == 0);
        self.shared.busy.store(false, Ordering::Release);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!job.panicked.load(Ordering::Relaxed), "a worker of the pool panicked; its message is above");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.call.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches every panic of its work, so there is nothing to learn from how it ended.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_is_called_once_a_call() {
        let pool = Pool::new(3).unwrap();
        let counts: [AtomicUsize; 3] = Default::default();
        for _ in 0..1000 {
            pool.run(&|i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(counts.map(AtomicUsize::into_inner), [1000; 3]);
    }

    #[test]
    fn a_call_within_a_call_runs_on_its_own_thread() {
        let pool = Pool::new(2).unwrap();
        let count = AtomicUsize::new(0);
        pool.run(&|_| {
            pool.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(count.into_inner(), 4);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2).unwrap();
        for culprit in 0..2 {
            assert!(catch_unwind(AssertUnwindSafe(|| pool.run(&|i| assert_ne!(i, culprit)))).is_err());
        }
        let count = AtomicUsize::new(0);
        pool.run(&|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 2);
    }
}
