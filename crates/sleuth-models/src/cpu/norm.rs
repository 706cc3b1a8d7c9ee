use super::element;
use super::rows::{Rows, RowsMut};
use super::weights::Module;
use crate::LoadError;

#[derive(Debug)]
pub(super) struct RmsNorm {
    /// What rows are multiplied by: Gemma's checkpoints hold it less 1.
    weight: Vec<f32>,
    eps: f32,
}

#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

// === impl RmsNorm ===

impl RmsNorm {
    /// The norm `name` of rows of `width`; `offset` is added to the stored weight.
    pub(super) fn load(
        module: &Module<'_>,
        name: &str,
        width: usize,
        (eps, offset): (f64, f32),
    ) -> Result<Self, LoadError> {
        let weight = module.values(&format!("{name}.weight"), width)?;
        let weight = weight.into_iter().map(|w| offset + w).collect();
        Ok(Self { weight, eps: eps as f32 })
    }

    pub(super) fn forward(&self, x: Rows<'_>, out: RowsMut<'_>) {
        element::rms_norm(x, &self.weight, self.eps, out);
    }

    /// Each of the first `heads` parts of each row by itself, in place.
    pub(super) fn heads(&self, x: RowsMut<'_>, heads: usize) {
        element::rms_norm_heads(x, heads, &self.weight, self.eps);
    }
}

// === impl LayerNorm ===

impl LayerNorm {
    pub(super) fn load(
        module: &Module<'_>,
        name: &str,
        width: usize,
        eps: f64,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            weight: module.values(&format!("{name}.weight"), width)?,
            bias: module.values(&format!("{name}.bias"), width)?,
            eps: eps as f32,
        })
    }

    pub(super) fn forward(&self, x: Rows<'_>, out: RowsMut<'_>) {
        element::layer_norm(x, (&self.weight, &self.bias), self.eps, out);
    }
}
