//! The rate of something that all threads do at the same time, again and again.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use regard::Threads;

use super::Spread;
use crate::timing::median;

/// Seconds that the turns of one figure take together at least, and at most where other programs disturb them.
const SECONDS: Range<f64> = 0.03..0.12;

/// The fewest turns of a figure, whatever they take.
const TURNS: usize = 5;

/// So many turns are as fast as the fastest before a figure is believed, give or take [`NEAR`].
const AGREEING: usize = 3;

/// Two rates are the same if one is at least so much of the other.
const NEAR: f64 = 0.98;

/// How long a thread waits for the others at the start of a turn: longer than a system takes to wake one that it has a
/// core for.
const PATIENCE: Duration = Duration::from_millis(2);

/// Rates, in 10⁹ a second, of turns in which each thread does `amount` by calling `work` with its index.
///
/// A turn begins when all threads are awake, and lasts until the last is done: waking them may take as long as the work,
/// and threads that share a core are not counted twice.
pub(super) fn rates(threads: &dyn Threads, amount: f64, work: impl Fn(usize) + Sync) -> Spread {
    let amount = amount * threads.count() as f64;
    turn(threads, &work);
    let start = Instant::now();
    let (mut rates, mut best, mut agreeing) = (Vec::new(), 0.0, 0);
    loop {
        let rate = rate(amount, turn(threads, &work));
        rates.push(rate);
        best = f64::max(best, rate);
        agreeing = match rate >= NEAR * best {
            true => rates.iter().filter(|&&rate| rate >= NEAR * best).count(),
            false => agreeing,
        };
        let seconds = start.elapsed().as_secs_f64();
        let believed = seconds >= SECONDS.start && agreeing >= AGREEING;
        if rates.len() >= TURNS && (believed || seconds >= SECONDS.end) {
            break;
        }
    }
    rates.sort_by(f64::total_cmp);
    Spread { min: rates[0], median: median(&rates), max: rates[rates.len() - 1] }
}

/// The same of a single turn.
pub(super) fn once(threads: &dyn Threads, amount: f64, work: impl Fn(usize) + Sync) -> f64 {
    rate(amount * threads.count() as f64, turn(threads, &work))
}

fn rate(amount: f64, time: Duration) -> f64 {
    amount / time.as_secs_f64().max(f64::MIN_POSITIVE) / 1e9
}

/// The time from the first start of `work` to its last end.
fn turn(threads: &dyn Threads, work: &(impl Fn(usize) + Sync)) -> Duration {
    let (arrived, span) = (AtomicUsize::new(0), Mutex::new(None::<Range<Instant>>));
    threads.run(&|worker| {
        arrived.fetch_add(1, Ordering::Relaxed);
        let waiting = Instant::now();
        while arrived.load(Ordering::Relaxed) < threads.count() && waiting.elapsed() < PATIENCE {
            thread::yield_now();
        }
        let start = Instant::now();
        work(worker);
        let end = Instant::now();
        if let Ok(mut span) = span.lock() {
            let all = span.take().unwrap_or(start..end);
            *span = Some(all.start.min(start)..all.end.max(end));
        }
    });
    span.into_inner().ok().flatten().map_or(Duration::ZERO, |all| all.end - all.start)
}
