//! Time that processors spent, which neighbours on the machine do not lengthen as they do the time on the clock.

use std::fs;

/// Ticks of a second in what Linux tells of processes, on every architecture that it still runs on.
const TICKS: f64 = 100.0;

/// Seconds that ended children of this process computed, over all their threads, to a hundredth. `None` where the system does
/// not tell.
pub(super) fn of_children() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may have spaces; the state after it is the third field.
    let (_, after_name) = stat.rsplit_once(')')?;
    let user_of_children = after_name.split_whitespace().nth(16 - 3)?;
    Some(user_of_children.parse::<f64>().ok()? / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn time_goes_on() {
        let before = of_children().unwrap();
        assert!(before >= 0.0 && of_children().unwrap() >= before);
    }
}
