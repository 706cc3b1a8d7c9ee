/// Average precision as scikit-learn defines it: `Σ (Rₙ - Rₙ₋₁) · Pₙ` over the distinct scores,
/// highest first; equal scores count as one threshold. `None` without a positive.
pub(super) fn average_precision(scored: impl Iterator<Item = (f32, bool)>) -> Option<f64> {
    let mut scored: Vec<(f32, bool)> = scored.collect();
    let positives = scored.iter().filter(|(_, positive)| *positive).count();
    if positives == 0 {
        return None;
    }
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut seen, mut found, mut sum) = (0_usize, 0_usize, 0.0);
    for tied in scored.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let own = tied.iter().filter(|(_, positive)| *positive).count();
        seen += tied.len();
        found += own;
        sum += own as f64 * found as f64 / seen as f64;
    }
    Some(sum / positives as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_hand_computation() {
        // The example of scikit-learn's documentation.
        let scored = [(0.1, false), (0.4, false), (0.35, true), (0.8, true)];
        let got = average_precision(scored.into_iter()).unwrap();
        assert!((got - 0.833_333_333).abs() < 1e-6, "{got}");
    }

    #[test]
    fn equal_scores_do_not_depend_on_their_order() {
        let one = average_precision([(1.0, true), (1.0, false)].into_iter());
        let two = average_precision([(1.0, false), (1.0, true)].into_iter());
        assert_eq!(one, Some(0.5));
        assert_eq!(one, two);
        assert_eq!(average_precision([(1.0, false)].into_iter()), None);
    }
}
