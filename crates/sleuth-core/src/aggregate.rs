use std::fmt;
use std::str::FromStr;

use crate::TokenReward;

/// How token rewards become one number for a sentence or a response.
///
/// `p` is a token's reward (a probability), `θ` the threshold; a token is good where `p > θ`
/// (TLDR section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Aggregation {
    /// `exp(mean(ln p))`, 0..1: the default.
    #[default]
    MeanLog,
    /// 1 where every token is good, else 0: TLDR's veto (Eq. 4 and 5).
    ProductBits,
    /// `∏ p`, 0..1.
    Product,
    /// `min p`, 0..1.
    Min,
    /// `mean p`, 0..1.
    Mean,
    /// `Σ ln p`, -inf..0.
    LogSum,
    /// The number of tokens that are not good.
    CountBelow,
}

/// No aggregation has that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownAggregation(pub String);

// === impl Aggregation ===

impl Aggregation {
    /// Every aggregation, in the order of the wire's numbers.
    pub const ALL: [Self; 7] = [
        Self::MeanLog,
        Self::ProductBits,
        Self::Product,
        Self::Min,
        Self::Mean,
        Self::LogSum,
        Self::CountBelow,
    ];

    /// The name used in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MeanLog => "mean_log",
            Self::ProductBits => "product_bits",
            Self::Product => "product",
            Self::Min => "min",
            Self::Mean => "mean",
            Self::LogSum => "log_sum",
            Self::CountBelow => "count_below",
        }
    }

    /// Aggregates at least one token; `None` for none, since no tokens have no reward.
    ///
    /// Logarithms are taken from the logits (`-ln(1 + e^-x)`), so that a reward that rounds to 0
    /// stays finite.
    pub fn apply(self, tokens: &[TokenReward], threshold: f32) -> Option<f32> {
        if tokens.is_empty() {
            return None;
        }
        let n = tokens.len() as f64;
        let log_sum = || tokens.iter().map(|t| ln_sigmoid(f64::from(t.logit))).sum::<f64>();
        let bad = || tokens.iter().filter(|t| !t.is_good(threshold)).count();
        let value = match self {
            Self::MeanLog => (log_sum() / n).exp(),
            Self::ProductBits => f64::from(u8::from(bad() == 0)),
            Self::Product => log_sum().exp(),
            Self::Min => tokens.iter().map(|t| f64::from(t.reward)).fold(f64::INFINITY, f64::min),
            Self::Mean => tokens.iter().map(|t| f64::from(t.reward)).sum::<f64>() / n,
            Self::LogSum => log_sum(),
            Self::CountBelow => bad() as f64,
        };
        Some(value as f32)
    }
}

impl fmt::Display for Aggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Aggregation {
    type Err = UnknownAggregation;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|a| a.name() == name)
            .ok_or_else(|| UnknownAggregation(name.to_owned()))
    }
}

// === impl UnknownAggregation ===

impl fmt::Display for UnknownAggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Aggregation::ALL.map(Aggregation::name).join(", ");
        write!(f, "no aggregation is named `{}`; there are {names}", self.0)
    }
}

impl std::error::Error for UnknownAggregation {}

/// `ln σ(x)`, stable for large `|x|`.
pub(crate) fn ln_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ByteSpan;

    fn tokens(logits: &[f32]) -> Vec<TokenReward> {
        logits
            .iter()
            .map(|&x| TokenReward::from_logit(ByteSpan::try_new(0, 1).unwrap(), x))
            .collect()
    }

    #[test]
    fn no_tokens_have_no_reward() {
        for a in Aggregation::ALL {
            assert_eq!(a.apply(&[], 0.5), None);
        }
    }

    #[test]
    fn mean_log_is_the_geometric_mean() {
        let t = tokens(&[0.0, 0.0]);
        let got = Aggregation::MeanLog.apply(&t, 0.5).unwrap();
        assert!((got - 0.5).abs() < 1e-6, "{got}");
    }

    #[test]
    fn one_bad_token_vetoes_product_bits() {
        assert_eq!(Aggregation::ProductBits.apply(&tokens(&[3.0, 2.0]), 0.5), Some(1.0));
        assert_eq!(Aggregation::ProductBits.apply(&tokens(&[3.0, -0.1, 2.0]), 0.5), Some(0.0));
        assert_eq!(Aggregation::CountBelow.apply(&tokens(&[3.0, -0.1, -2.0]), 0.5), Some(2.0));
    }

    #[test]
    fn logs_stay_finite_where_the_reward_rounds_to_zero() {
        let got = Aggregation::LogSum.apply(&tokens(&[-200.0]), 0.5).unwrap();
        assert!((got + 200.0).abs() < 1e-3, "{got}");
    }

    #[test]
    fn names_parse_back() {
        for a in Aggregation::ALL {
            assert_eq!(a.name().parse::<Aggregation>().unwrap(), a);
        }
        assert!("median".parse::<Aggregation>().is_err());
    }
}
