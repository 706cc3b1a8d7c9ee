//! Losses as sums, so that shards of a batch add up.

use candle_core::{D, Device, Result, Tensor};

/// Sum over rows of the cross entropy of `logits` `[rows, classes]`.
pub(super) fn cross_entropy(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let rows = targets.len();
    let log_probs = candle_nn::ops::log_softmax(logits, D::Minus1)?;
    let targets = Tensor::from_slice(targets, (rows, 1), logits.device())?;
    log_probs.gather(&targets, 1)?.sum_all()?.neg()
}

/// Weighted sum of the binary cross entropy of `logits` `[tokens]`; `good[i]` is token `i`'s label
/// and bad tokens weigh `bad_weight`.
pub(super) fn token_labels(logits: &Tensor, good: &[bool], bad_weight: f64) -> Result<Tensor> {
    let n = good.len();
    let targets: Vec<f32> = good.iter().map(|&g| f32::from(u8::from(g))).collect();
    let weights: Vec<f32> = good.iter().map(|&g| if g { 1.0 } else { bad_weight as f32 }).collect();
    let targets = Tensor::from_vec(targets, n, &Device::Cpu)?;
    let weights = Tensor::from_vec(weights, n, &Device::Cpu)?;
    // ln(1 + e^x) - x·y, written so that no exponent is positive.
    let softplus = (logits.relu()? + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    ((softplus - (logits * targets)?)? * weights)?.sum_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_agree_with_hand_computation() {
        let logits = Tensor::new(&[2.0_f32, -1.0, 0.5], &Device::Cpu).unwrap();
        let got =
            token_labels(&logits, &[true, false, false], 2.0).unwrap().to_scalar::<f32>().unwrap();
        let softplus = |x: f64| x.exp().ln_1p();
        let want = softplus(-2.0) + 2.0 * softplus(-1.0) + 2.0 * softplus(0.5);
        assert!((f64::from(got) - want).abs() < 1e-5, "{got} {want}");
        let logits = Tensor::new(&[[0.0_f32, 0.0], [3.0, 1.0]], &Device::Cpu).unwrap();
        let got = cross_entropy(&logits, &[0, 1]).unwrap().to_scalar::<f32>().unwrap();
        let want = 2.0_f64.ln() + softplus(2.0);
        assert!((f64::from(got) - want).abs() < 1e-5, "{got} {want}");
    }
}
