//! What samples of a time say.

use serde::{Deserialize, Serialize};

/// Samples of a time, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The shortest.
    pub min: f64,
    /// What a quarter of them are below.
    pub lower: f64,
    /// The middle one.
    pub median: f64,
    /// What three quarters of them are below.
    pub upper: f64,
    /// How many there are.
    pub samples: usize,
}

impl Spread {
    /// Of samples in any order; `None` if there is none.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            min: *sorted.first()?,
            lower: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            upper: quantile(&sorted, 0.75),
            samples: sorted.len(),
        })
    }
}

/// What a share of sorted numbers is below, between two of them in proportion; 0 of none.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    let below = sorted.get(place as usize).copied().unwrap_or(0.0);
    let above = sorted.get(place.ceil() as usize).copied().unwrap_or(below);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_samples() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { min: 1.0, lower: 1.75, median: 2.5, upper: 3.25, samples: 4 });
        let one = Spread::of(&[7.0]).unwrap();
        assert_eq!((one.lower, one.median, one.upper, one.samples), (7.0, 7.0, 7.0, 1));
        assert_eq!(Spread::of(&[]), None);
    }
}
