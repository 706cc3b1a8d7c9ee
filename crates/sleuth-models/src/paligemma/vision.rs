use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::config::VisionConfig;
use super::linear::Linear;
use crate::ops::{
    HeadShape, RowKeys, Segment, attention_softmax, gelu_tanh, layer_norm, packed_attention,
};

/// SigLIP without its pooling head: pixels to one row per patch.
#[derive(Clone, Debug)]
pub(super) struct VisionTower {
    config: VisionConfig,
    patch: Linear,
    positions: Tensor,
    layers: Vec<Layer>,
    post_norm: LayerNorm,
}

#[derive(Clone, Debug)]
struct Layer {
    norm_1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    norm_2: LayerNorm,
    up: Linear,
    down: Linear,
}

#[derive(Clone, Debug)]
struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

// === impl VisionTower ===

impl VisionTower {
    pub(super) fn load(config: &VisionConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (hidden, side) = (config.hidden_size, config.patch_size);
        let embeddings = vb.pp("embeddings");
        let conv = embeddings.pp("patch_embedding");
        let kernel =
            conv.get((hidden, 3, side, side), "weight")?.reshape((hidden, 3 * side * side))?;
        let layers = (0..config.num_hidden_layers)
            .map(|i| Layer::load(config, &vb.pp("encoder.layers").pp(i)))
            .collect::<Result<_>>()?;
        Ok(Self {
            patch: Linear::from_parts(kernel, conv.get(hidden, "bias")?),
            positions: embeddings
                .pp("position_embedding")
                .get((config.image_tokens(), hidden), "weight")?
                .to_dtype(DType::F32)?,
            layers,
            post_norm: LayerNorm::load(config, &vb.pp("post_layernorm"))?,
            config: config.clone(),
        })
    }

    /// `[images, 3, side, side]` to `[images, patches, hidden]`, patches row by row.
    pub(super) fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let images = pixels.dim(0)?;
        let tokens = self.config.image_tokens();
        let rows = self.patch.forward(&self.patches(pixels)?)?;
        let mut x = rows.reshape((images, tokens, ()))?.broadcast_add(&self.positions)?;
        x = x.reshape((images * tokens, ()))?;
        for layer in &self.layers {
            x = layer.forward(&x, images, &self.config)?;
        }
        self.post_norm.forward(&x)?.reshape((images, tokens, ()))
    }

    /// The convolution's stride equals its kernel, so it is one product over flattened patches:
    /// `[images · patches, 3 · side · side]`.
    fn patches(&self, pixels: &Tensor) -> Result<Tensor> {
        let (side, n) = (self.config.patch_size, self.config.patches_per_side());
        let images = pixels.dim(0)?;
        // A convolution drops the pixels that fill no whole patch.
        let pixels = pixels.narrow(2, 0, n * side)?.narrow(3, 0, n * side)?;
        pixels
            .reshape(vec![images, 3, n, side, n, side])?
            .permute(vec![0, 2, 4, 1, 3, 5])?
            .contiguous()?
            .reshape((images * n * n, 3 * side * side))
    }
}

// === impl Layer ===

impl Layer {
    fn load(config: &VisionConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let attention = vb.pp("self_attn");
        let square = |name: &str| Linear::with_bias(hidden, hidden, &attention.pp(name));
        Ok(Self {
            norm_1: LayerNorm::load(config, &vb.pp("layer_norm1"))?,
            query: square("q_proj")?,
            key: square("k_proj")?,
            value: square("v_proj")?,
            out: square("out_proj")?,
            norm_2: LayerNorm::load(config, &vb.pp("layer_norm2"))?,
            up: Linear::with_bias(hidden, wide, &vb.pp("mlp.fc1"))?,
            down: Linear::with_bias(wide, hidden, &vb.pp("mlp.fc2"))?,
        })
    }

    /// `x` is `[images · patches, hidden]`.
    fn forward(&self, x: &Tensor, images: usize, config: &VisionConfig) -> Result<Tensor> {
        let x = (x + self.attend(&self.norm_1.forward(x)?, images, config)?)?;
        let wide = gelu_tanh(&self.up.forward(&self.norm_2.forward(&x)?)?)?;
        &x + self.down.forward(&wide)?
    }

    /// Every patch sees every patch of its own image.
    fn attend(&self, x: &Tensor, images: usize, config: &VisionConfig) -> Result<Tensor> {
        let (tokens, heads, dim) =
            (config.image_tokens(), config.num_attention_heads, config.head_dim());
        let (query, key, value) =
            (self.query.forward(x)?, self.key.forward(x)?, self.value.forward(x)?);
        if x.device().is_cpu() {
            let heads = HeadShape { query: heads, key_value: heads, dim };
            let image = |i: usize| Segment::closed(i * tokens..(i + 1) * tokens);
            let segments = (0..images).map(image).collect();
            return self.out.forward(&packed_attention(&query, &key, &value, heads, &segments)?);
        }
        self.out.forward(&attend_by_products(&query, &key, &value, images, config)?)
    }
}

/// Attention by candle's own operations, for devices other than the CPU: `query`, `key` and `value`
/// are `[images · patches, hidden]`, as is the result.
fn attend_by_products(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    images: usize,
    config: &VisionConfig,
) -> Result<Tensor> {
    let (tokens, heads, dim) =
        (config.image_tokens(), config.num_attention_heads, config.head_dim());
    let per_head = |y: &Tensor| -> Result<Tensor> {
        let y = y.reshape((images, tokens, heads, dim))?;
        y.transpose(1, 2)?.contiguous()?.reshape((images * heads, tokens, dim))
    };
    let (query, key, value) = (per_head(query)?, per_head(key)?, per_head(value)?);
    let all = tokens as u32;
    let visible: Arc<[RowKeys]> = [RowKeys { shared: all, own_start: all, own_end: all }].into();
    let scores = query.matmul(&key.t()?)?;
    let weights = attention_softmax(&scores, 1.0 / (dim as f64).sqrt(), &visible)?;
    let mixed = weights.matmul(&value)?.reshape((images, heads, tokens, dim))?;
    mixed.transpose(1, 2)?.contiguous()?.reshape((images * tokens, heads * dim))
}

// === impl LayerNorm ===

impl LayerNorm {
    fn load(config: &VisionConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let hidden = config.hidden_size;
        Ok(Self {
            weight: vb.get(hidden, "weight")?,
            bias: vb.get(hidden, "bias")?,
            eps: config.layer_norm_eps,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn attention_by_products_is_that_of_the_packed_kernel() {
        let config: VisionConfig = serde_json::from_str(
            r#"{"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1,
                "num_attention_heads": 3, "image_size": 28, "patch_size": 7}"#,
        )
        .unwrap();
        let tokens = config.image_tokens();
        let rows = || Tensor::randn(0_f32, 1_f32, (2 * tokens, 24), &Device::Cpu).unwrap();
        let (query, key, value) = (rows(), rows(), rows());
        let heads = HeadShape { query: 3, key_value: 3, dim: 8 };
        let segments = (0..2).map(|i| Segment::closed(i * tokens..(i + 1) * tokens)).collect();
        let packed = packed_attention(&query, &key, &value, heads, &segments).unwrap();
        let products = attend_by_products(&query, &key, &value, 2, &config).unwrap();
        let diff = (packed - products).unwrap().abs().unwrap().max_all().unwrap();
        assert!(diff.to_scalar::<f32>().unwrap() < 1e-5);
    }
}
