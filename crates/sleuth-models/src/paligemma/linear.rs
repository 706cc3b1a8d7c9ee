use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// `x · weightᵀ (+ bias)`, `weight` `[out, in]`.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

// === impl Linear ===

impl Linear {
    pub(super) fn with_bias(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let bias = vb.get(output, "bias")?;
        Ok(Self { bias: Some(bias), ..Self::without_bias(input, output, vb)? })
    }

    pub(super) fn without_bias(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self { weight: vb.get((output, input), "weight")?, bias: None })
    }

    pub(super) fn from_parts(weight: Tensor, bias: Tensor) -> Self {
        Self { weight, bias: Some(bias) }
    }

    /// `x` is `[rows, in]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}
