//! A progress bar on terminals, for work over a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work shorter than this shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);

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
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
