use serde::Serialize;

use super::Judged;

/// How well rewards are probabilities, and where to cut.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// The threshold with the highest response accuracy; where several have it, the middle of the
    /// widest stretch.
    pub threshold: f32,
    /// Response accuracy there, 0..1.
    pub response_accuracy: f64,
    /// Response accuracy at 0.5.
    pub response_accuracy_at_half: f64,
    /// Mean squared difference of a token's reward and its label, 0..1.
    pub brier: f64,
    /// Bins of equal width.
    pub equal_width: Reliability,
    /// Bins with equally many tokens.
    pub equal_mass: Reliability,
}

/// A reliability curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reliability {
    /// Mean distance of reward and share of good tokens, weighed by tokens, 0..1.
    pub expected_calibration_error: f64,
    /// Bins that hold a token, from the lowest reward to the highest.
    pub bins: Vec<Bin>,
}

/// Tokens of about the same reward.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// How many.
    pub tokens: u64,
    /// Their mean reward.
    pub mean_reward: f64,
    /// Share of them that is good.
    pub good: f64,
}

const BINS: usize = 10;

pub(super) fn calibrate(judged: &[Judged]) -> Option<Calibration> {
    if judged.is_empty() {
        return None;
    }
    let mut scored: Vec<(f32, bool)> = judged
        .iter()
        .flat_map(|j| j.tokens.iter().zip(&j.truth).map(|(t, &good)| (t.reward, good)))
        .collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let error =
        |&(reward, good): &(f32, bool)| (f64::from(reward) - f64::from(u8::from(good))).powi(2);
    let (threshold, response_accuracy) = best_threshold(judged);
    let at_half = judged.iter().filter(|j| j.is_passed(0.5) == j.is_clean()).count();
    Some(Calibration {
        threshold,
        response_accuracy,
        response_accuracy_at_half: at_half as f64 / judged.len() as f64,
        brier: scored.iter().map(error).sum::<f64>() / scored.len() as f64,
        equal_width: equal_width(&scored),
        equal_mass: reliability(scored.chunks(scored.len().div_ceil(BINS))),
    })
}

/// A response passes where its least reward is above the threshold, so only those matter.
fn best_threshold(judged: &[Judged]) -> (f32, f64) {
    let mut least: Vec<(f32, bool)> =
        judged.iter().map(|j| (j.least_reward(), j.is_clean())).collect();
    least.sort_by(|a, b| a.0.total_cmp(&b.0));
    // At first all pass: right are the clean ones. Each step flags one more.
    let mut right = least.iter().filter(|l| l.1).count();
    let mut best = (right, 0.0, least[0].0);
    for (i, &(reward, clean)) in least.iter().enumerate() {
        right = if clean { right - 1 } else { right + 1 };
        let next = least.get(i + 1).map_or(1.0, |n| n.0);
        let wider = right == best.0 && next - reward > best.2 - best.1;
        if next > reward && (right > best.0 || wider) {
            best = (right, reward, next);
        }
    }
    (f32::midpoint(best.1, best.2), best.0 as f64 / least.len() as f64)
}

fn equal_width(sorted: &[(f32, bool)]) -> Reliability {
    let bin = |reward: f32| ((reward * BINS as f32) as usize).min(BINS - 1);
    reliability(sorted.chunk_by(|a, b| bin(a.0) == bin(b.0)))
}

fn reliability<'a>(chunks: impl Iterator<Item = &'a [(f32, bool)]>) -> Reliability {
    let bins: Vec<Bin> = chunks
        .map(|chunk| {
            let n = chunk.len() as f64;
            Bin {
                tokens: chunk.len() as u64,
                mean_reward: chunk.iter().map(|c| f64::from(c.0)).sum::<f64>() / n,
                good: chunk.iter().filter(|c| c.1).count() as f64 / n,
            }
        })
        .collect();
    let all: u64 = bins.iter().map(|b| b.tokens).sum();
    let apart = |b: &Bin| b.tokens as f64 * (b.mean_reward - b.good).abs();
    let expected_calibration_error = bins.iter().map(apart).sum::<f64>() / all.max(1) as f64;
    Reliability { expected_calibration_error, bins }
}

#[cfg(test)]
mod tests {
    use super::super::Evaluation;
    use super::super::report::tests::add;

    #[test]
    fn the_threshold_parts_clean_from_perturbed_responses() {
        let mut evaluation = Evaluation::new();
        // Least rewards: clean 0.27 and 0.73, perturbed 0.05 and 0.12.
        add(&mut evaluation, "ab", &[-1.0, 3.0]);
        add(&mut evaluation, "ab", &[1.0, 3.0]);
        add(&mut evaluation, "aB", &[2.0, -3.0]);
        add(&mut evaluation, "aB", &[2.0, -2.0]);
        let calibration = evaluation.calibration().unwrap();
        assert!((0.12..0.27).contains(&calibration.threshold), "{calibration:?}");
        assert!((calibration.response_accuracy - 1.0).abs() < 1e-12);
        assert!((calibration.response_accuracy_at_half - 0.75).abs() < 1e-12);
        let report = evaluation.report(calibration.threshold);
        assert_eq!(report.response_accuracy, Some(calibration.response_accuracy));
    }

    #[test]
    fn the_reported_accuracy_is_that_of_the_threshold_however_rewards_tie() {
        for seed in 0..200_u32 {
            let mut evaluation = Evaluation::new();
            for i in 0..12_u32 {
                let h = (seed * 31 + i).wrapping_mul(2_654_435_761) >> 20;
                let logit = f32::from((h % 5) as u8) - 2.0;
                add(&mut evaluation, if h / 5 % 2 == 0 { "a" } else { "B" }, &[logit]);
            }
            let calibration = evaluation.calibration().unwrap();
            let report = evaluation.report(calibration.threshold);
            assert_eq!(report.response_accuracy, Some(calibration.response_accuracy), "{seed}");
            assert!(calibration.response_accuracy >= calibration.response_accuracy_at_half);
        }
    }

    #[test]
    fn perfect_rewards_have_no_calibration_error() {
        let mut evaluation = Evaluation::new();
        add(&mut evaluation, "aBcD", &[40.0, -40.0, 40.0, -40.0]);
        let calibration = evaluation.calibration().unwrap();
        assert!(calibration.brier < 1e-9);
        for curve in [&calibration.equal_width, &calibration.equal_mass] {
            assert!(curve.expected_calibration_error < 1e-9);
            assert_eq!(curve.bins.iter().map(|b| b.tokens).sum::<u64>(), 4);
        }
    }
}
