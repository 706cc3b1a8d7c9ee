use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

use crate::ops::rope_frequencies;

/// How the angles of the rotary embedding are stretched: `rope_scaling` of a text config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeScaling {
    /// `llama3`, or `default` for none.
    #[serde(alias = "type")]
    pub rope_type: String,
    /// What the frequencies of long waves are divided by.
    #[serde(default)]
    pub factor: Option<f64>,
    /// Waves longer than the original length over this are long.
    #[serde(default)]
    pub low_freq_factor: Option<f64>,
    /// Waves shorter than the original length over this stay.
    #[serde(default)]
    pub high_freq_factor: Option<f64>,
    /// The original length, in tokens.
    #[serde(default)]
    pub original_max_position_embeddings: Option<f64>,
    /// Where transformers 5 keeps the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
}

// === impl RopeScaling ===

impl RopeScaling {
    /// Frequencies for heads of `head_dim`, with base `theta`.
    pub fn frequencies(&self, head_dim: usize, theta: f64) -> Vec<f32> {
        let plain = rope_frequencies(head_dim, theta);
        match self.bands() {
            Some(bands) => plain.into_iter().map(|f| bands.stretch(f)).collect(),
            None => plain,
        }
    }

    /// What is wrong with it, by field.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.rope_type.as_str() {
            "default" => Ok(()),
            "llama3" => match self.bands() {
                Some(Bands { factor, low, high, length })
                    if factor >= 1.0 && low > 0.0 && high > low && length >= 1.0 =>
                {
                    Ok(())
                }
                _ => Err("`text_config.rope_scaling` must have `factor` of at least 1, \
                          `low_freq_factor` above 0, `high_freq_factor` above that, and \
                          `original_max_position_embeddings`"
                    .to_owned()),
            },
            other => Err(format!(
                "`text_config.rope_scaling.rope_type` is `{other}`; `llama3` and `default` are supported"
            )),
        }
    }

    fn bands(&self) -> Option<Bands> {
        if self.rope_type != "llama3" {
            return None;
        }
        Some(Bands {
            factor: self.factor?,
            low: self.low_freq_factor?,
            high: self.high_freq_factor?,
            length: self.original_max_position_embeddings?,
        })
    }
}

/// Llama 3.1's rule: short waves stay, long ones are stretched, those between are mixed.
struct Bands {
    factor: f64,
    low: f64,
    high: f64,
    length: f64,
}

// === impl Bands ===

impl Bands {
    fn stretch(&self, frequency: f32) -> f32 {
        let frequency = f64::from(frequency);
        let wave = TAU / frequency;
        let stretched = if wave > self.length / self.low {
            frequency / self.factor
        } else if wave < self.length / self.high {
            frequency
        } else {
            let share = (self.length / wave - self.low) / (self.high - self.low);
            (1.0 - share) * frequency / self.factor + share * frequency
        };
        stretched as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama3() -> RopeScaling {
        RopeScaling {
            rope_type: "llama3".to_owned(),
            factor: Some(8.0),
            low_freq_factor: Some(1.0),
            high_freq_factor: Some(4.0),
            original_max_position_embeddings: Some(8192.0),
            rope_theta: None,
        }
    }

    #[test]
    fn short_waves_stay_and_long_ones_are_stretched() {
        let (plain, scaled) =
            (rope_frequencies(128, 500_000.0), llama3().frequencies(128, 500_000.0));
        let ratio: Vec<f32> = plain.iter().zip(&scaled).map(|(p, s)| p / s).collect();
        assert!((ratio[0] - 1.0).abs() < 1e-6 && (ratio[63] - 8.0).abs() < 1e-5);
        assert!(ratio.windows(2).all(|pair| pair[1] >= pair[0] - 1e-5));
        assert!(ratio.iter().any(|r| *r > 1.5 && *r < 7.0));
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let mut scaling = llama3();
        assert_eq!(scaling.check(), Ok(()));
        scaling.high_freq_factor = None;
        assert!(scaling.check().unwrap_err().contains("high_freq_factor"));
        scaling.rope_type = "yarn".to_owned();
        assert!(scaling.check().unwrap_err().contains("yarn"));
    }
}
