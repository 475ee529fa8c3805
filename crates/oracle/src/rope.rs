//! Rotary positions, with frequencies as the model library that the scalings are named after computes them
//! (`modeling_rope_utils` of Hugging Face Transformers).

use core::f64::consts::{PI, TAU};

use regard_ir::inputs::{Captured, InputData};
use regard_ir::rows::{Frequencies, Position, RopeLayout, RopeScaling};

/// The rotation of a row by its position.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    position: Position,
    /// Of each pair, radians from one position to the next.
    frequencies: Vec<f64>,
    /// What cosine and sine are multiplied by.
    attention_factor: f64,
}

impl Rope {
    /// The rotation that a variant asks for; frequencies that an input gives are taken from `captured`.
    pub(crate) fn new(position: Position, captured: &Captured<'_>) -> Self {
        let dim = position.dim as usize;
        let (frequencies, attention_factor) = match position.frequencies {
            Frequencies::Theta { theta, scaling } => scaled(theta, dim, scaling),
            Frequencies::Input(input) => match captured.data(input.into()) {
                InputData::F32(data) => (data.iter().map(|&x| f64::from(x)).collect(), 1.0),
                other => unreachable!("frequencies are f32, not {}", other.dtype().name()),
            },
        };
        Self { position, frequencies, attention_factor }
    }

    /// Turns the pairs of `row` by the angles of a position; other channels stay.
    pub(crate) fn turn(&self, row: &mut [f64], at: i32) {
        let Position { dim, layout, offset, .. } = self.position;
        let turned = &mut row[offset as usize..][..dim as usize];
        for (t, frequency) in self.frequencies.iter().enumerate() {
            let (one, two) = match layout {
                RopeLayout::Half => (t, t + dim as usize / 2),
                RopeLayout::Interleaved => (2 * t, 2 * t + 1),
            };
            let angle = f64::from(at) * frequency;
            let (cos, sin) = (self.attention_factor * angle.cos(), self.attention_factor * angle.sin());
            let (x, y) = (turned[one], turned[two]);
            turned[one] = x * cos - y * sin;
            turned[two] = y * cos + x * sin;
        }
    }
}

/// The frequency of each pair, and the attention factor.
fn scaled(theta: f64, dim: usize, scaling: RopeScaling) -> (Vec<f64>, f64) {
    let powers = (0..dim).step_by(2).map(|channel| theta.powf(channel as f64 / dim as f64));
    let trained: Vec<f64> = powers.map(|power| 1.0 / power).collect();
    match scaling {
        RopeScaling::None => (trained, 1.0),
        RopeScaling::Linear { factor } => (trained.iter().map(|f| f / factor).collect(), 1.0),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let trained_len = f64::from(original_max_position_embeddings);
            let (longest, shortest) = (trained_len / low_freq_factor, trained_len / high_freq_factor);
            let blended = trained.iter().map(|&frequency| {
                let wavelength = TAU / frequency;
                if wavelength > longest {
                    return frequency / factor;
                }
                if wavelength <= shortest {
                    return frequency;
                }
                let smooth =
                    (trained_len / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            });
            (blended.collect(), 1.0)
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            attention_factor,
            original_max_position_embeddings,
            truncate,
        } => {
            let trained_len = f64::from(original_max_position_embeddings);
            let correction_dim = |rotations: f64| {
                dim as f64 * (trained_len / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln())
            };
            let (mut low, mut high) = (correction_dim(beta_fast), correction_dim(beta_slow));
            if truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
            if low == high {
                high += 0.001;
            }
            let blended = trained.iter().enumerate().map(|(t, &extrapolated)| {
                let interpolated = extrapolated / factor;
                let ramp = ((t as f64 - low) / (high - low)).clamp(0.0, 1.0);
                interpolated * ramp + extrapolated * (1.0 - ramp)
            });
            (blended.collect(), attention_factor)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds the frequencies of some pairs against numbers computed to 40 digits.
    fn check(theta: f64, dim: usize, scaling: RopeScaling, expected: &[(usize, f64)]) {
        let (found, _) = scaled(theta, dim, scaling);
        assert_eq!(found.len(), dim / 2);
        for &(t, expected) in expected {
            assert!((found[t] / expected - 1.0).abs() < 1e-14, "pair {t}: {} is not {expected}", found[t]);
        }
    }

    #[test]
    fn linear_frequencies_are_divided() {
        let expected = [(0, 0.4), (1, 0.04), (2, 0.004), (3, 0.0004)];
        check(10_000.0, 8, RopeScaling::Linear { factor: 2.5 }, &expected);
    }

    #[test]
    fn llama_3_keeps_short_waves_blends_middling_ones_and_stretches_long_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let expected = [
            (0, 1.0),
            (20, 0.01656044008099445),
            (30, 0.001371893567761138),
            (33, 0.0003126937503840651),
            (40, 3.428102195952591e-5),
            (63, 3.068925988914511e-7),
        ];
        check(500_000.0, 128, scaling, &expected);
    }

    #[test]
    fn llama_3_without_a_blend_stretches_every_wave_past_one_length() {
        let scaling = RopeScaling::Llama3 {
            factor: 16.0,
            low_freq_factor: 1.0,
            high_freq_factor: 1.0,
            original_max_position_embeddings: 8192,
        };
        let expected = [(0, 1.0), (34, 0.0009384738703573803), (35, 4.7781061769823415e-5)];
        check(500_000.0, 128, scaling, &expected);
    }

    #[test]
    fn yarn_ramps_between_whole_pairs_or_between_fractions_of_them() {
        let yarn = |factor, len, truncate| RopeScaling::Yarn {
            factor,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: 1.0,
            original_max_position_embeddings: len,
            truncate,
        };
        let expected = [
            (0, 1.0),
            (10, 0.05623413251903491),
            (15, 0.008334508951020775),
            (20, 0.0007905694150420948),
            (23, 3.33380358040831e-5),
            (31, 3.33380358040831e-6),
        ];
        check(10_000.0, 64, yarn(40.0, 4096, true), &expected);
        let expected = [
            (8, 0.05081327481546147),
            (10, 0.01933500112654036),
            (15, 0.001052602101386335),
            (18, 3.830881237375338e-5),
            (31, 3.023511428119214e-7),
        ];
        check(150_000.0, 64, yarn(32.0, 4096, false), &expected);
    }

    #[test]
    fn a_ramp_without_length_is_a_step() {
        let scaling = RopeScaling::Yarn {
            factor: 2.0,
            beta_fast: 1.0,
            beta_slow: 1.0,
            attention_factor: 1.0,
            original_max_position_embeddings: 8,
            truncate: false,
        };
        check(100.0, 4, scaling, &[(0, 1.0), (1, 0.05)]);
    }

    #[test]
    fn it_agrees_with_what_kernels_use() {
        let scalings = [
            RopeScaling::None,
            RopeScaling::Linear { factor: 4.0 },
            RopeScaling::Llama3 {
                factor: 32.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            },
            RopeScaling::Llama3 {
                factor: 16.0,
                low_freq_factor: 1.0,
                high_freq_factor: 1.0,
                original_max_position_embeddings: 8192,
            },
            RopeScaling::Yarn {
                factor: 16.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                attention_factor: 1.3,
                original_max_position_embeddings: 32768,
                truncate: true,
            },
        ];
        for (theta, dim, scaling) in [(1e4, 64), (1e6, 128), (5e5, 26), (100.0, 2)]
            .into_iter()
            .flat_map(|(theta, dim)| scalings.map(|scaling| (theta, dim, scaling)))
        {
            let position = Position {
                frequencies: Frequencies::Theta { theta, scaling },
                dim,
                layout: RopeLayout::Half,
                offset: 0,
                ids: None,
            };
            let (frequencies, factor) = scaled(theta, dim as usize, scaling);
            assert_eq!(factor, position.factor());
            for (t, found) in frequencies.into_iter().enumerate() {
                let kernels = position.frequency(t as u32).unwrap();
                assert!((found / kernels - 1.0).abs() < 1e-12, "{scaling:?}, pair {t}: {found}, {kernels}");
            }
        }
    }
}
