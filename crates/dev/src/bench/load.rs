//! What other programs take of the machine, and what they leave.
//!
//! Times on a machine that others use are longer, and not evenly so: whoever waits at barriers waits for the slowest
//! thread. Samples by turns share that out; how much of it there was is kept beside them.

use std::fs;

/// Time that processors have spent, in the system's ticks, since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    all: u64,
    busy: u64,
    own: u64,
}

impl Load {
    /// Now, where `own` are the processes that do not count as others; `None` on systems without `/proc`.
    pub(super) fn now(own: &[u32]) -> Option<Self> {
        let (all, busy) = processors(&fs::read_to_string("/proc/stat").ok()?)?;
        let of = |process: &u32| of_process(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?);
        // One that has ended takes nothing any more.
        Some(Self { all, busy, own: own.iter().filter_map(of).sum() })
    }

    /// The share of the machine that others took from `earlier` until now; 0 where ticks are too coarse to tell.
    pub(super) fn foreign_since(self, earlier: Self) -> f64 {
        let spent = |now: u64, then: u64| now.saturating_sub(then) as f64;
        let all = spent(self.all, earlier.all);
        let foreign = spent(self.busy, earlier.busy) - spent(self.own, earlier.own);
        if all > 0.0 { (foreign / all).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// Bytes of memory that programs can still have; `None` on systems without `/proc`.
pub(super) fn free_bytes() -> Option<f64> {
    free(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// The line `MemAvailable: 1234 kB` of `/proc/meminfo`, in bytes.
fn free(meminfo: &str) -> Option<f64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(kib.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

/// All ticks and busy ones, of the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn processors(stat: &str) -> Option<(u64, u64)> {
    let numbers = stat.lines().next()?.split_whitespace().skip(1).take(8);
    let ticks: Vec<u64> = numbers.map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let all: u64 = ticks.iter().sum();
    Some((all, all - ticks.get(3)? - ticks.get(4)?))
}

/// User and system ticks of a process, whose name may have spaces.
fn of_process(stat: &str) -> Option<u64> {
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_is_foreign() {
        assert_eq!(processors("cpu  30 0 10 50 10 0 0 0 0 0\ncpu0 1 2"), Some((100, 40)));
        assert_eq!(free("MemFree:  1 kB\nMemAvailable:   24 kB\n"), Some(24576.0));
        assert_eq!(of_process("7 (a b) c) S 1 1 1 0 -1 4 0 0 0 0 25 5 0 0 20"), Some(30));
        let earlier = Load { all: 100, busy: 40, own: 10 };
        let later = Load { all: 200, busy: 120, own: 60 };
        assert_eq!(later.foreign_since(earlier), 0.3);
        assert_eq!(earlier.foreign_since(earlier), 0.0);
    }
}
