use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::ops::{Dropout, low_rank_linear};

/// `x · weightᵀ (+ bias)`, `weight` `[out, in]`, which may be stored in half precision; where the builder has a LoRA pair for it, its delta
/// is added and `weight` stays as it is.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    /// `[rank, in]` and `[out, rank]`, LoRA's factor in the second.
    low_rank: Option<(Tensor, Tensor)>,
    /// Of the pair's input, while it is trained.
    dropout: Option<Dropout>,
}

/// Where training says what is left out: `[chance, seed]`, the seed a whole number below 2^24.
const DROPOUT: &str = "lora_dropout";

// === impl Linear ===

impl Linear {
    pub(crate) fn with_bias(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let bias = vb.get(output, "bias")?;
        Ok(Self { bias: Some(bias), ..Self::without_bias(input, output, vb)? })
    }

    pub(crate) fn without_bias(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let (a, b) = ("lora_A.weight", "lora_B.weight");
        let low_rank = if vb.contains_tensor(a) {
            Some((vb.get_unchecked(a)?, vb.get_unchecked(b)?))
        } else {
            None
        };
        let dropout = if vb.contains_tensor(DROPOUT) {
            Some(dropout(&vb.get_unchecked(DROPOUT)?)?)
        } else {
            None
        };
        Ok(Self { weight: vb.get((output, input), "weight")?, bias: None, low_rank, dropout })
    }

    pub(crate) fn from_parts(weight: Tensor, bias: Tensor) -> Self {
        Self { weight, bias: Some(bias), low_rank: None, dropout: None }
    }

    /// `x` is `[rows, in]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.low_rank {
            None if self.weight.dtype() == x.dtype() => x.matmul(&self.weight.t()?)?,
            None => {
                x.to_dtype(self.weight.dtype())?.matmul(&self.weight.t()?)?.to_dtype(x.dtype())?
            }
            Some((a, b)) => low_rank_linear(x, &self.weight, a, b, self.dropout)?,
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

fn dropout(tensor: &Tensor) -> Result<Dropout> {
    let [chance, seed] = tensor.to_vec1::<f32>()?[..] else {
        candle_core::bail!("`{DROPOUT}` is [chance, seed]")
    };
    Ok(Dropout { chance, seed: seed as u32 })
}
