//! Progress bars on terminals, for work over a second.
//!
//! Work within work has a bar of its own, below the other's: all bars of the process share the terminal.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work shorter than this shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Every bar that is shown.
static TERMINAL: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// How far some work is. Where stderr is no terminal nothing is ever drawn; the bar is gone when the work is done.
pub(crate) struct Progress {
    bar: ProgressBar,
    start: Instant,
    hidden: AtomicBool,
}

impl Progress {
    /// Of `total` steps, named by a plural.
    pub(crate) fn new(steps: &'static str, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let template = format!("[{{bar:40}}] {{pos}}/{{len}} {steps}, {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, start: Instant::now(), hidden: AtomicBool::new(true) }
    }

    /// One step is done.
    pub(crate) fn advance(&self) {
        if self.start.elapsed() > PATIENCE && self.hidden.swap(false, Ordering::Relaxed) {
            TERMINAL.add(self.bar.clone());
        }
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        TERMINAL.remove(&self.bar);
    }
}

/// Takes the bars off the terminal while `write` writes to it.
pub(crate) fn set_aside<R>(write: impl FnOnce() -> R) -> R {
    TERMINAL.suspend(write)
}
