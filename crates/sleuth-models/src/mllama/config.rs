use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::rotary::RopeScaling;
use crate::ops::rope_frequencies;
use crate::{Activation, LoadError};

/// `config.json` of a Llama 3.2 Vision folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MllamaConfig {
    /// `["MllamaForConditionalGeneration"]`.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// `mllama`.
    #[serde(default)]
    pub model_type: String,
    /// The vision tower.
    #[serde(default)]
    pub vision_config: VisionConfig,
    /// The decoder.
    #[serde(default)]
    pub text_config: TextConfig,
    /// Id of `<|image|>`.
    #[serde(default = "image_token_index", alias = "image_token_id")]
    pub image_token_index: u32,
}

/// The vision tower; omitted fields have transformers' `MllamaVisionConfig` defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    /// Width.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// What bends the MLP's values.
    pub hidden_act: Activation,
    /// Layers before the post norm.
    pub num_hidden_layers: usize,
    /// Gated layers behind it.
    pub num_global_layers: usize,
    /// Heads, as published files name them; it wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_heads: Option<usize>,
    /// Heads, as the class names them.
    pub num_attention_heads: usize,
    /// Side of a square tile, in pixels.
    pub image_size: usize,
    /// Side of a square patch, in pixels.
    pub patch_size: usize,
    /// Of the layers' norms.
    pub norm_eps: f64,
    /// Most tiles of an image.
    pub max_num_tiles: usize,
    /// Layers before the post norm whose inputs are part of the output, in this order.
    pub intermediate_layers_indices: Vec<usize>,
    /// Canvases in the order of their ids, rows and columns of tiles; all that fit, if omitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supported_aspect_ratios: Option<Vec<[usize; 2]>>,
    /// Width of the output: the final state and the intermediate ones.
    pub vision_output_dim: usize,
}

/// The decoder; omitted fields have transformers' `MllamaTextConfig` defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextConfig {
    /// Width.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// What bends the MLP's gate.
    pub hidden_act: Activation,
    /// Layers, of both kinds.
    pub num_hidden_layers: usize,
    /// Query heads; a multiple of `num_key_value_heads`.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Ids that can be written; the embedding has eight rows more.
    pub vocab_size: usize,
    /// Of the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// How its angles are stretched.
    #[serde(alias = "rope_parameters", skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// The layers that look at the image.
    pub cross_attention_layers: Vec<usize>,
}

fn image_token_index() -> u32 {
    128_256
}

// === impl VisionConfig ===

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 1280,
            intermediate_size: 5120,
            hidden_act: Activation::Gelu,
            num_hidden_layers: 32,
            num_global_layers: 8,
            attention_heads: None,
            num_attention_heads: 16,
            image_size: 448,
            patch_size: 14,
            norm_eps: 1e-5,
            max_num_tiles: 4,
            intermediate_layers_indices: vec![3, 7, 15, 23, 30],
            supported_aspect_ratios: None,
            vision_output_dim: 7680,
        }
    }
}

impl VisionConfig {
    /// Heads, wherever the file keeps them.
    pub fn heads(&self) -> usize {
        self.attention_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.heads()
    }

    /// Patches along one side of a tile.
    pub fn patches_per_side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// States of a tile: its class and its patches.
    pub fn tile_tokens(&self) -> usize {
        self.patches_per_side().pow(2) + 1
    }

    /// Rows of a tile in the tower: its tokens, and padding up to a multiple of eight.
    pub fn tile_rows(&self) -> usize {
        self.tile_tokens().next_multiple_of(8)
    }

    /// States of an image, absent tiles among them.
    pub fn image_tokens(&self) -> usize {
        self.max_num_tiles * self.tile_tokens()
    }

    /// All canvases, rows and columns of tiles, in the order of their ids, which count from 1.
    pub fn canvases(&self) -> Vec<[usize; 2]> {
        let most = self.max_num_tiles;
        (1..=most).flat_map(|rows| (1..=most / rows).map(move |columns| [rows, columns])).collect()
    }
}

// === impl TextConfig ===

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            hidden_size: 4096,
            intermediate_size: 14_336,
            hidden_act: Activation::Silu,
            num_hidden_layers: 40,
            num_attention_heads: 32,
            num_key_value_heads: 8,
            vocab_size: 128_256,
            rms_norm_eps: 1e-5,
            rope_theta: 500_000.0,
            rope_scaling: None,
            max_position_embeddings: 131_072,
            cross_attention_layers: vec![3, 8, 13, 18, 23, 28, 33, 38],
        }
    }
}

impl TextConfig {
    /// Rows that the embedding has above the vocabulary, `<|image|>` the first.
    const EXTRA_ROWS: usize = 8;

    /// Rows of the embedding.
    pub fn embedding_rows(&self) -> usize {
        self.vocab_size + Self::EXTRA_ROWS
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Layers that attend to the text, whose keys and values are kept for each text.
    pub fn self_attention_layers(&self) -> usize {
        self.num_hidden_layers - self.cross_attention_layers.len()
    }

    /// Rotary frequencies, one for each pair of a head's elements.
    pub fn rope_frequencies(&self) -> Vec<f32> {
        let (dim, scaling) = (self.head_dim(), self.rope_scaling.as_ref());
        let theta = scaling.and_then(|s| s.rope_theta).unwrap_or(self.rope_theta);
        scaling.map_or_else(|| rope_frequencies(dim, theta), |s| s.frequencies(dim, theta))
    }
}

// === impl MllamaConfig ===

impl MllamaConfig {
    /// The file's name in a model folder.
    pub const FILE: &'static str = "config.json";
    /// What `architectures` says.
    pub const ARCHITECTURE: &'static str = "MllamaForConditionalGeneration";
    /// What `model_type` says.
    pub const MODEL_TYPE: &'static str = "mllama";

    /// Reads and checks the folder's `config.json`.
    pub fn from_folder(folder: &Path) -> Result<Self, LoadError> {
        let path = folder.join(Self::FILE);
        let text = fs::read_to_string(&path)
            .map_err(|source| LoadError::Read { path: path.clone(), source })?;
        Self::from_json(&text).map_err(|problem| LoadError::malformed(path, problem))
    }

    /// Parses and checks `config.json`; the error names the field.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let config: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if config.model_type != Self::MODEL_TYPE {
            return Err(format!("`model_type` is `{}`; `mllama` is supported", config.model_type));
        }
        config.check_sizes()?;
        config.vision_config.check()?;
        config.text_config.check()?;
        let (image, rows) = (config.image_token_index, config.text_config.embedding_rows());
        if image as usize >= rows {
            return Err(format!(
                "`image_token_index` is {image}, but the embedding has {rows} rows"
            ));
        }
        Ok(config)
    }

    fn check_sizes(&self) -> Result<(), String> {
        let (v, t) = (&self.vision_config, &self.text_config);
        for (name, value, max) in [
            ("vision_config.hidden_size", v.hidden_size, 1 << 16),
            ("vision_config.intermediate_size", v.intermediate_size, 1 << 20),
            ("vision_config.num_hidden_layers", v.num_hidden_layers, 1 << 10),
            ("vision_config.num_global_layers", v.num_global_layers, 1 << 10),
            ("vision_config.attention_heads", v.heads(), 1 << 10),
            ("vision_config.image_size", v.image_size, 1 << 13),
            ("vision_config.patch_size", v.patch_size, v.image_size),
            ("vision_config.max_num_tiles", v.max_num_tiles, 16),
            ("text_config.hidden_size", t.hidden_size, 1 << 16),
            ("text_config.intermediate_size", t.intermediate_size, 1 << 20),
            ("text_config.num_hidden_layers", t.num_hidden_layers, 1 << 10),
            ("text_config.num_attention_heads", t.num_attention_heads, 1 << 10),
            ("text_config.num_key_value_heads", t.num_key_value_heads, t.num_attention_heads),
            ("text_config.vocab_size", t.vocab_size, 1 << 24),
            ("text_config.max_position_embeddings", t.max_position_embeddings, 1 << 24),
        ] {
            if value == 0 || value > max {
                return Err(format!("`{name}` is {value}, outside 1..={max}"));
            }
        }
        Ok(())
    }
}

impl VisionConfig {
    fn check(&self) -> Result<(), String> {
        let states = 1 + self.intermediate_layers_indices.len();
        let in_depth = |at: &usize| *at <= self.num_hidden_layers;
        let rules = [
            (
                self.hidden_size.is_multiple_of(self.heads()),
                "`vision_config.attention_heads` must divide `vision_config.hidden_size`",
            ),
            (self.norm_eps > 0.0, "`vision_config.norm_eps` must be positive"),
            (
                self.intermediate_layers_indices.iter().all(in_depth),
                "`vision_config.intermediate_layers_indices` must be at most \
                 `vision_config.num_hidden_layers`",
            ),
            (
                self.vision_output_dim == self.hidden_size * states,
                "`vision_config.vision_output_dim` must be `hidden_size` times one more than there \
                 are `intermediate_layers_indices`",
            ),
            // Without padding the reference's mask hides everything from everything.
            (
                !self.tile_tokens().is_multiple_of(8),
                "`vision_config.image_size` and `patch_size` give a multiple of eight states for a \
                 tile, for which transformers' mask is not defined",
            ),
            (
                self.supported_aspect_ratios.as_ref().is_none_or(|r| *r == self.canvases()),
                "`vision_config.supported_aspect_ratios` must be all pairs of rows and columns \
                 within `max_num_tiles`, in order, as the image processor numbers them",
            ),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, rule)| Err((*rule).to_owned()))
    }
}

impl TextConfig {
    fn check(&self) -> Result<(), String> {
        let cross = &self.cross_attention_layers;
        let rules = [
            (
                self.hidden_size.is_multiple_of(2 * self.num_attention_heads),
                "`text_config.num_attention_heads` must divide half of `text_config.hidden_size`",
            ),
            (
                self.num_attention_heads.is_multiple_of(self.num_key_value_heads),
                "`text_config.num_key_value_heads` must divide `text_config.num_attention_heads`",
            ),
            (self.rms_norm_eps > 0.0, "`text_config.rms_norm_eps` must be positive"),
            (self.rope_theta > 1.0, "`text_config.rope_theta` must be above 1"),
            (
                cross.windows(2).all(|pair| pair[0] < pair[1])
                    && cross.iter().all(|at| *at < self.num_hidden_layers),
                "`text_config.cross_attention_layers` must be layers, in order",
            ),
            (
                cross.len() < self.num_hidden_layers,
                "`text_config.cross_attention_layers` must leave a layer for the text",
            ),
        ];
        let broken = rules.iter().find(|(holds, _)| !holds);
        broken.map_or(Ok(()), |(_, rule)| Err((*rule).to_owned()))?;
        self.rope_scaling.as_ref().map_or(Ok(()), RopeScaling::check)
    }
}

#[cfg(test)]
mod tests;
