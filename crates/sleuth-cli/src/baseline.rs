//! The file that says how a version's rewards are distributed where all is well.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sleuth_server::Baseline;
use sleuth_service::{REWARD_BOUNDS, RewardCounts};

/// As it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Of the file; 1.
    format: u32,
    /// The version that scored.
    version: String,
    /// Inclusive upper bounds of the bins of token rewards.
    bounds: Vec<f64>,
    /// Tokens in each bin, and above the last bound.
    counts: Vec<u64>,
    /// Sum of all rewards.
    sum: f64,
    /// Tokens that the model's own threshold flags.
    flagged: u64,
}

const FORMAT: u32 = 1;

pub(crate) fn write(path: &Path, baseline: &Baseline) -> Result<()> {
    let Baseline { version, rewards } = baseline;
    let file = File {
        format: FORMAT,
        version: version.clone(),
        bounds: REWARD_BOUNDS.to_vec(),
        counts: rewards.counts.to_vec(),
        sum: rewards.sum,
        flagged: rewards.flagged,
    };
    let text = serde_json::to_string_pretty(&file)?;
    fs::write(path, text + "\n").with_context(|| path.display().to_string())
}

pub(crate) fn read(path: &Path) -> Result<Baseline> {
    let named = || path.display().to_string();
    let text = fs::read(path).with_context(named)?;
    parse(&text).with_context(named)
}

fn parse(text: &[u8]) -> Result<Baseline> {
    let File { format, version, bounds, counts, sum, flagged } = serde_json::from_slice(text)?;
    ensure!(format == FORMAT, "format is {format}; this program reads {FORMAT}");
    ensure!(
        bounds == REWARD_BOUNDS,
        "bounds are not this program's; write the file anew with `sleuth eval --baseline`"
    );
    let counts: [u64; REWARD_BOUNDS.len() + 1] =
        counts.try_into().ok().context("counts has one number per bound and one more")?;
    let tokens = counts.iter().try_fold(0_u64, |sum, &n| sum.checked_add(n));
    let tokens = tokens.context("counts are too large")?;
    ensure!(flagged <= tokens, "flagged is more than all tokens");
    ensure!(sum >= 0.0 && sum <= tokens as f64, "sum is not of rewards between 0 and 1");
    Ok(Baseline { version, rewards: RewardCounts { counts, sum, flagged } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let mut rewards = RewardCounts { sum: 5.5, flagged: 2, ..RewardCounts::default() };
        rewards.counts[13] = 6;
        let baseline = Baseline { version: "v1".to_owned(), rewards };
        let file = std::env::temp_dir().join(format!("baseline-{}.json", std::process::id()));
        write(&file, &baseline).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(read(&file).unwrap(), baseline);
        fs::remove_file(&file).unwrap();
        for (is, becomes) in [
            ("\"format\": 1", "\"format\": 2"),
            ("\"flagged\": 2", "\"flagged\": 7"),
            ("\"sum\": 5.5", "\"sum\": 7.0"),
            ("0.0025", "0.0024"),
            ("\"sum\"", "\"total\""),
        ] {
            let changed = text.replacen(is, becomes, 1);
            assert_ne!(changed, text);
            assert!(parse(changed.as_bytes()).is_err(), "{becomes}");
        }
    }
}
