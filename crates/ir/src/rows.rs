//! What happens to rows: to those of q and k before they meet, and to those of o after the weighted sum.
//!
//! Learned factors are captured inputs, which follow the declared ones and are named as the language names them:
//! `q_norm`, `k_norm`, `mix`, `o_norm`.

use core::f64::consts::PI;

/// Rotary positions: channels are turned in pairs by an angle that grows with the row's position.
///
/// The pair (x₁, x₂) number t of a row at position p becomes `factor · (x₁ cos φ − x₂ sin φ, x₂ cos φ + x₁ sin φ)`
/// with φ = p · [`Position::frequency`]`(t)`. Source: Su et al., *RoFormer*.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Position {
    /// Where the frequencies come from.
    pub frequencies: Frequencies,
    /// Rotary width, even.
    pub dim: u32,
    /// Which channels form a pair.
    pub layout: RopeLayout,
    /// First rotary channel.
    pub offset: u32,
    /// The captured i32 input `[b, k]` that gives the positions, where they are not the absolute ones.
    pub ids: Option<u16>,
}

/// Where rotary frequencies come from.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Frequencies {
    /// theta^(−2t/dim), stretched.
    Theta {
        /// The base.
        theta: f64,
        /// How they are stretched past the trained length.
        scaling: RopeScaling,
    },
    /// A captured f32 input of dim/2 frequencies.
    Input(u16),
}

/// Which channels form a rotary pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum RopeLayout {
    /// (t, t + dim/2).
    Half,
    /// (2t, 2t + 1).
    Interleaved,
}

/// How rotary frequencies are stretched; field names as in model configs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[allow(missing_docs)] // The names are those of the model configs that the values come from.
pub enum RopeScaling {
    /// As trained.
    None,
    /// Every frequency divided by the factor.
    Linear { factor: f64 },
    /// Llama 3's blend by wavelength.
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_max_position_embeddings: u32 },
    /// YaRN's ramp by channel (Peng et al., *YaRN*), its ends rounded outwards if `truncate`.
    Yarn {
        factor: f64,
        beta_fast: f64,
        beta_slow: f64,
        attention_factor: f64,
        original_max_position_embeddings: u32,
        truncate: bool,
    },
}

impl Position {
    /// Angle of pair `t` from one position to the next; `None` where an input says it.
    pub fn frequency(&self, t: u32) -> Option<f64> {
        let Frequencies::Theta { theta, scaling } = self.frequencies else { return None };
        let (t, dim) = (t as f64, self.dim as f64);
        let trained = libm::pow(theta, -2.0 * t / dim);
        Some(match scaling {
            RopeScaling::None => trained,
            RopeScaling::Linear { factor } => trained / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: len,
            } => {
                // Turns over the trained length: many are kept, few are stretched, those between are blended.
                let turns = len as f64 * trained / (2.0 * PI);
                let kept = if turns >= high { 1.0 } else { ((turns - low) / (high - low)).clamp(0.0, 1.0) };
                trained * (kept + (1.0 - kept) / factor)
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_max_position_embeddings: len,
                truncate,
                ..
            } => {
                // The pair that makes so many turns over the trained length.
                let pair =
                    |turns: f64| dim * libm::log(len as f64 / (turns * 2.0 * PI)) / (2.0 * libm::log(theta));
                let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
                if truncate {
                    (low, high) = (libm::floor(low), libm::ceil(high));
                }
                let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
                if low == high {
                    high += 0.001;
                }
                let stretched = ((t - low) / (high - low)).clamp(0.0, 1.0);
                trained * (1.0 - stretched + stretched / factor)
            }
        })
    }

    /// What turned channels are multiplied by: YaRN's attention factor, else 1.
    pub const fn factor(&self) -> f64 {
        match self.frequencies {
            Frequencies::Theta { scaling: RopeScaling::Yarn { attention_factor, .. }, .. } => {
                attention_factor
            }
            _ => 1.0,
        }
    }
}

/// Normalisation of q and k rows.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct QkNorm {
    /// Root mean square or Euclidean length.
    pub kind: NormKind,
    /// Added to the mean square or the sum of squares, under the root.
    pub eps: f64,
    /// The captured f32 inputs `q_norm` and `k_norm` that hold a factor for each channel, where there are such.
    pub learned: Option<[u16; 2]>,
    /// Over all heads' rows of a token together, with a factor for each channel of each head, instead of each head's.
    pub all_heads: bool,
    /// After the rotation instead of before it.
    pub after_rope: bool,
}

/// A row's norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum NormKind {
    /// x / sqrt(mean(x²) + eps).
    Rms,
    /// x / sqrt(Σ x² + eps).
    L2,
}

/// What happens to o after the weighted sum, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Output {
    /// Heads are mixed.
    pub mix: Option<Mix>,
    /// Root-mean-square norm of each head's row.
    pub norm: Option<OutputNorm>,
    /// A gate, which the call gives.
    pub gate: Option<Gate>,
    /// Whether the log of the weights' sum is an output.
    pub lse: bool,
}

/// Sums of heads: `o'[n] = Σ_h mix[n, h] · o[h]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Mix {
    /// Heads of the result.
    pub heads: u32,
    /// The captured f32 input `[heads, query heads]`.
    pub input: u16,
}

/// Root-mean-square norm of an output row.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct OutputNorm {
    /// Added to the mean square, under the root.
    pub eps: f64,
    /// The captured f32 input `o_norm` that holds a factor for each channel, where there is one.
    pub learned: Option<u16>,
}

/// A gate on the output: each element is multiplied by an activation of the gate's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Gate {
    /// One value for a head's row instead of one for each element.
    pub per_head: bool,
    /// SiLU instead of the sigmoid.
    pub silu: bool,
}
