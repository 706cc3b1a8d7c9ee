use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use sleuth_service::{REWARD_BOUNDS, VersionStats};
use sleuth_telemetry::metrics::{Counted, Family};

use super::{Baseline, Version};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Against {
    version: String,
    baseline: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    baseline: String,
}

pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    versions: &[VersionStats],
    baseline: Option<&Baseline>,
) -> fmt::Result {
    let rewards = versions.iter().map(|v| {
        let all = v.rewards.all();
        let counted = Counted { bounds: &REWARD_BOUNDS, counts: &all.counts, sum: all.sum };
        (Version::of(v), counted)
    });
    Family::new(encoder, "token_reward", "Rewards of tokens that were computed.")
        .histograms(rewards)?;
    let flagged = versions.iter().map(|v| (Version::of(v), v.rewards.all().flagged));
    let help = "Tokens whose reward is not above the model's threshold.";
    Family::new(encoder, "flagged_tokens", help).counters(flagged)?;
    let rates =
        versions.iter().filter_map(|v| Some((Version::of(v), v.rewards.recent().flagged_rate()?)));
    let help = "Share of flagged tokens among the last 50,000 to 100,000.";
    Family::new(encoder, "flagged_rate", help).gauges(rates)?;
    let Some(baseline) = baseline else { return Ok(()) };
    let of = || baseline.version.clone();
    let rate = baseline.rewards.flagged_rate().map(|rate| (Of { baseline: of() }, rate));
    let help = "Share of flagged tokens in the baseline.";
    Family::new(encoder, "baseline_flagged_rate", help).gauges(rate)?;
    let indices = versions.iter().filter_map(|v| {
        let index = v.rewards.recent().stability_index(&baseline.rewards)?;
        Some((Against { version: v.card.version.clone(), baseline: of() }, index))
    });
    let help = "Population stability index of recent token rewards against the baseline.";
    Family::new(encoder, "reward_stability_index", help).gauges(indices)
}
