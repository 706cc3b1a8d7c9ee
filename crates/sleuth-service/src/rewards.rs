//! How a version's rewards are distributed, and how far from what they were.

use sleuth_core::TokenReward;

/// Inclusive upper bounds of token rewards: about `σ(-6)` to `σ(6)`, since most rewards lie close
/// to 0 or 1 and what moves there would be lost in bins of equal width.
pub const REWARD_BOUNDS: [f64; 13] =
    [0.0025, 0.0067, 0.018, 0.047, 0.12, 0.27, 0.5, 0.73, 0.88, 0.953, 0.982, 0.9933, 0.9975];

/// Token rewards by size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RewardCounts {
    /// One for each bound, and one for what is above the last.
    pub counts: [u64; REWARD_BOUNDS.len() + 1],
    /// Of all rewards.
    pub sum: f64,
    /// Tokens whose reward is not above the model's threshold.
    pub flagged: u64,
}

/// A version's rewards since its start, and those of late.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RewardHistory {
    all: RewardCounts,
    current: RewardCounts,
    before: RewardCounts,
}

/// Tokens after which the older half of what counts as recent is forgotten.
const WINDOW: u64 = 50_000;
/// Tokens from which distributions can be compared: the index of two samples of one distribution
/// is about bins / tokens, which must be far below what counts as a shift.
const ENOUGH: u64 = 1_000;
/// The least share of a bin, as a logarithm of nothing is no number.
const LEAST_SHARE: f64 = 1e-4;

// === impl RewardCounts ===

impl RewardCounts {
    /// Counts a response's tokens.
    pub fn add(&mut self, tokens: &[TokenReward], threshold: f32) {
        for token in tokens {
            let reward = f64::from(token.reward);
            self.counts[REWARD_BOUNDS.partition_point(|&bound| bound < reward)] += 1;
            self.sum += reward;
            self.flagged += u64::from(!token.is_good(threshold));
        }
    }

    /// Tokens.
    pub fn tokens(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The share of flagged tokens, 0 to 1; `None` for too few tokens.
    pub fn flagged_rate(&self) -> Option<f64> {
        let tokens = self.tokens();
        (tokens >= ENOUGH).then(|| self.flagged as f64 / tokens as f64)
    }

    /// The population stability index against another distribution: `Σ (p - q) ln(p / q)` over the
    /// bins, at least 0. Below 0.1 counts as the same, above 0.25 as another. `None` where either
    /// has too few tokens.
    pub fn stability_index(&self, other: &Self) -> Option<f64> {
        let (own, others) = (self.tokens(), other.tokens());
        if own.min(others) < ENOUGH {
            return None;
        }
        let share = |count: u64, of: u64| (count as f64 / of as f64).max(LEAST_SHARE);
        let bins = self.counts.iter().zip(&other.counts);
        Some(
            bins.map(|(&a, &b)| {
                let (p, q) = (share(a, own), share(b, others));
                (p - q) * (p / q).ln()
            })
            .sum(),
        )
    }

    fn plus(&self, other: &Self) -> Self {
        Self {
            counts: std::array::from_fn(|bin| self.counts[bin] + other.counts[bin]),
            sum: self.sum + other.sum,
            flagged: self.flagged + other.flagged,
        }
    }
}

// === impl RewardHistory ===

impl RewardHistory {
    pub(crate) fn add(&mut self, tokens: &[TokenReward], threshold: f32) {
        self.all.add(tokens, threshold);
        self.current.add(tokens, threshold);
        if self.current.tokens() >= WINDOW {
            self.before = std::mem::take(&mut self.current);
        }
    }

    /// Since the version was loaded.
    pub fn all(&self) -> &RewardCounts {
        &self.all
    }

    /// Of the last 50,000 to 100,000 tokens.
    pub fn recent(&self) -> RewardCounts {
        self.current.plus(&self.before)
    }
}

#[cfg(test)]
mod tests {
    use sleuth_core::ByteSpan;

    use super::*;

    fn tokens(logit: f32, n: usize) -> Vec<TokenReward> {
        let span = ByteSpan::try_new(0, 1).unwrap();
        vec![TokenReward::from_logit(span, logit); n]
    }

    fn counts(of: &[(f32, usize)]) -> RewardCounts {
        let mut counts = RewardCounts::default();
        for &(logit, n) in of {
            counts.add(&tokens(logit, n), 0.5);
        }
        counts
    }

    #[test]
    fn a_distribution_is_as_stable_as_it_is_like_another() {
        let usual = counts(&[(4.5, 9000), (-4.5, 1000)]);
        let same = counts(&[(4.5, 900), (-4.5, 100)]);
        let shifted = counts(&[(4.5, 7000), (-4.5, 3000)]);
        assert!(same.stability_index(&usual).unwrap() < 1e-12);
        // (0.3 - 0.1) ln 3 + (0.7 - 0.9) ln (7 / 9)
        let expected = 0.2 * 3_f64.ln() + 0.2 * (9.0_f64 / 7.0).ln();
        let index = shifted.stability_index(&usual).unwrap();
        assert!((index - expected).abs() < 1e-12, "{index}");
        assert!((index - usual.stability_index(&shifted).unwrap()).abs() < 1e-12);
        let other = counts(&[(0.2, 5000)]);
        assert!(other.stability_index(&usual).unwrap().is_finite(), "empty bins have a share");
        assert_eq!(counts(&[(1.0, 999)]).stability_index(&usual), None);
    }

    #[test]
    fn flagged_tokens_are_those_not_above_the_threshold() {
        let counts = counts(&[(1.0, 900), (0.0, 50), (-1.0, 50)]);
        assert_eq!((counts.tokens(), counts.flagged), (1000, 100));
        assert_eq!(counts.flagged_rate(), Some(0.1));
        assert!((counts.sum - (900.0 * 0.731_058_6 + 25.0 + 50.0 * 0.268_941_4)).abs() < 0.01);
    }

    #[test]
    fn recent_rewards_are_forgotten_and_the_rest_is_not() {
        let mut rewards = RewardHistory::default();
        rewards.add(&tokens(-3.0, 50_000), 0.5);
        for _ in 0..4 {
            rewards.add(&tokens(3.0, 25_000), 0.5);
        }
        assert_eq!(rewards.all().tokens(), 150_000);
        assert_eq!((rewards.recent().tokens(), rewards.recent().flagged), (50_000, 0));
    }
}
