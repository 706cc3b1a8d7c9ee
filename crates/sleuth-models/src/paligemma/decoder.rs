use std::sync::Arc;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::config::TextConfig;
use super::linear::Linear;
use crate::ops::{
    HeadShape, RopeTable, RowKeys, Segment, attention_softmax, gelu_tanh_times, packed_attention,
    rms_norm, rope,
};

/// One Gemma 1 block.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) input_norm: RmsNorm,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    out: Linear,
    post_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    pub(crate) heads: HeadShape,
}

/// Keys and values of some rows, `[kv_heads, rows, head_dim]` each, keys already rotated.
#[derive(Clone, Debug)]
pub(crate) struct KeyValues {
    pub(crate) key: Tensor,
    pub(crate) value: Tensor,
}

#[derive(Clone, Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

// === impl Layer ===

impl Layer {
    pub(crate) fn load(config: &TextConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let heads = HeadShape {
            query: config.num_attention_heads,
            key_value: config.num_key_value_heads,
            dim: config.head_dim,
        };
        let attention = vb.pp("self_attn");
        let (q_width, kv_width) = (heads.query * heads.dim, heads.key_value * heads.dim);
        Ok(Self {
            input_norm: RmsNorm::load(config, &vb.pp("input_layernorm"))?,
            query: Linear::without_bias(hidden, q_width, &attention.pp("q_proj"))?,
            key: Linear::without_bias(hidden, kv_width, &attention.pp("k_proj"))?,
            value: Linear::without_bias(hidden, kv_width, &attention.pp("v_proj"))?,
            out: Linear::without_bias(q_width, hidden, &attention.pp("o_proj"))?,
            post_norm: RmsNorm::load(config, &vb.pp("post_attention_layernorm"))?,
            gate: Linear::without_bias(hidden, wide, &vb.pp("mlp.gate_proj"))?,
            up: Linear::without_bias(hidden, wide, &vb.pp("mlp.up_proj"))?,
            down: Linear::without_bias(wide, hidden, &vb.pp("mlp.down_proj"))?,
            heads,
        })
    }

    /// `x` is `[rows, hidden]`.
    pub(crate) fn normed_input(&self, x: &Tensor) -> Result<Tensor> {
        self.input_norm.forward(x)
    }

    /// Keys and values of normed rows.
    pub(crate) fn key_values(&self, normed: &Tensor, table: &RopeTable) -> Result<KeyValues> {
        let rows = normed.dim(0)?;
        let per_head = |linear: &Linear| {
            linear.forward(normed)?.reshape((rows, self.heads.key_value, self.heads.dim))
        };
        let key = rope(&per_head(&self.key)?, table)?;
        Ok(KeyValues {
            key: key.transpose(0, 1)?.contiguous()?,
            value: per_head(&self.value)?.transpose(0, 1)?.contiguous()?,
        })
    }

    /// Rotated queries of normed rows, `[rows, heads, head_dim]`.
    pub(crate) fn queries(&self, normed: &Tensor, table: &RopeTable) -> Result<Tensor> {
        let rows = normed.dim(0)?;
        let query =
            self.query.forward(normed)?.reshape((rows, self.heads.query, self.heads.dim))?;
        rope(&query, table)
    }

    /// Attention of some rows: `query` `[rows, heads, head_dim]` over `kv`, to
    /// `[rows, heads · head_dim]`.
    ///
    /// The query heads that share a KV head are stacked into rows of one product, so nothing is
    /// repeated.
    pub(crate) fn attend(
        &self,
        query: &Tensor,
        kv: &KeyValues,
        visible: &Arc<[RowKeys]>,
    ) -> Result<Tensor> {
        let HeadShape { query: heads, key_value, dim } = self.heads;
        let rows = query.dim(0)?;
        let stacked = query.transpose(0, 1)?.contiguous()?.reshape((
            key_value,
            heads / key_value * rows,
            dim,
        ))?;
        let scores = stacked.matmul(&kv.key.t()?)?;
        let weights = attention_softmax(&scores, 1.0 / (dim as f64).sqrt(), visible)?;
        weights
            .matmul(&kv.value)?
            .reshape((heads, rows, dim))?
            .transpose(0, 1)?
            .contiguous()?
            .reshape((rows, heads * dim))
    }

    /// Attention of all packed rows at once, on the CPU: `query` `[rows, heads, head_dim]` over
    /// the same rows' keys and values, to `[rows, heads · head_dim]`.
    pub(crate) fn attend_packed(
        &self,
        query: &Tensor,
        own: &KeyValues,
        segments: &Arc<[Segment]>,
    ) -> Result<Tensor> {
        let flat = |x: &Tensor| x.flatten_from(1);
        let by_row = |x: &Tensor| flat(&x.transpose(0, 1)?.contiguous()?);
        let (key, value) = (by_row(&own.key)?, by_row(&own.value)?);
        packed_attention(&flat(query)?, &key, &value, self.heads, segments)
    }

    /// Everything after attention: output projection, residuals, gated MLP.
    pub(crate) fn finish(&self, residual: &Tensor, attended: &Tensor) -> Result<Tensor> {
        let x = (residual + self.out.forward(attended)?)?;
        let normed = self.post_norm.forward(&x)?;
        let gated = gelu_tanh_times(&self.gate.forward(&normed)?, &self.up.forward(&normed)?)?;
        x + self.down.forward(&gated)?
    }
}

// === impl KeyValues ===

impl KeyValues {
    /// The rows `start..start + len`.
    pub(crate) fn rows(&self, start: usize, len: usize) -> Result<Self> {
        Ok(Self {
            key: self.key.narrow(1, start, len)?.contiguous()?,
            value: self.value.narrow(1, start, len)?.contiguous()?,
        })
    }

    /// These rows, then `other`'s.
    pub(crate) fn then(&self, other: &Self) -> Result<Self> {
        Ok(Self {
            key: Tensor::cat(&[&self.key, &other.key], 1)?,
            value: Tensor::cat(&[&self.value, &other.value], 1)?,
        })
    }
}

// === impl RmsNorm ===

impl RmsNorm {
    pub(crate) fn load(config: &TextConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self { weight: vb.get(config.hidden_size, "weight")?, eps: config.rms_norm_eps })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        rms_norm(x, &self.weight, self.eps)
    }
}
