use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::LoadError;

/// `config.json` of a PaliGemma 1 folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaliGemmaConfig {
    /// `["PaliGemmaForConditionalGeneration"]`.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// `paligemma`.
    #[serde(default)]
    pub model_type: String,
    /// The vision tower.
    pub vision_config: VisionConfig,
    /// The decoder.
    pub text_config: TextConfig,
    /// Width of the projector's output; the decoder's width.
    #[serde(default = "defaults::projection_dim")]
    pub projection_dim: usize,
    /// Id of the `<image>` placeholder.
    #[serde(default = "defaults::image_token_index", alias = "image_token_id")]
    pub image_token_index: u32,
    /// Whether the language head is the embedding. transformers' default is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tie_word_embeddings: Option<bool>,
}

/// SigLIP; omitted fields have transformers' `SiglipVisionConfig` defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    /// Width.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Side of the square input, in pixels.
    pub image_size: usize,
    /// Side of a square patch, in pixels.
    pub patch_size: usize,
    /// Of the layer norms.
    pub layer_norm_eps: f64,
}

/// Gemma 1; omitted fields have transformers' `GemmaConfig` defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextConfig {
    /// `gemma`; PaliGemma 2 has `gemma2`, which is another decoder.
    pub model_type: String,
    /// Width.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads; a multiple of `num_key_value_heads`.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Of the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Longest sequence, image and text together.
    pub max_position_embeddings: usize,
    /// Where newer transformers keep `rope_theta`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<RopeParameters>,
}

/// transformers 5 nests the rotary base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeParameters {
    /// Base of the rotary embedding.
    pub rope_theta: Option<f64>,
}

mod defaults {
    pub(super) fn projection_dim() -> usize {
        2048
    }

    pub(super) fn image_token_index() -> u32 {
        256_000
    }
}

// === impl VisionConfig ===

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 16,
            layer_norm_eps: 1e-6,
        }
    }
}

impl VisionConfig {
    /// Patches along one side.
    pub fn patches_per_side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Image tokens: patches of an image.
    pub fn image_tokens(&self) -> usize {
        self.patches_per_side().pow(2)
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

// === impl TextConfig ===

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            model_type: "gemma".to_owned(),
            hidden_size: 3072,
            intermediate_size: 24_576,
            num_hidden_layers: 28,
            num_attention_heads: 16,
            num_key_value_heads: 16,
            head_dim: 256,
            vocab_size: 256_000,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            max_position_embeddings: 8192,
            rope_parameters: None,
        }
    }
}

impl TextConfig {
    /// Base of the rotary embedding, wherever the file keeps it.
    pub fn rope_theta(&self) -> f64 {
        self.rope_parameters.as_ref().and_then(|p| p.rope_theta).unwrap_or(self.rope_theta)
    }
}

// === impl PaliGemmaConfig ===

impl PaliGemmaConfig {
    /// The file's name in a model folder.
    pub const FILE: &'static str = "config.json";
    /// What `architectures` says.
    pub const ARCHITECTURE: &'static str = "PaliGemmaForConditionalGeneration";

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
        config.check()?;
        Ok(config)
    }

    /// Whether the language head is the embedding.
    pub fn is_tied(&self) -> bool {
        self.tie_word_embeddings.unwrap_or(true)
    }

    fn check(&self) -> Result<(), String> {
        if self.model_type != "paligemma" {
            return Err(format!("`model_type` is `{}`; `paligemma` is supported", self.model_type));
        }
        let (v, t) = (&self.vision_config, &self.text_config);
        if t.model_type != "gemma" {
            return Err(format!(
                "`text_config.model_type` is `{}`; `gemma` is supported",
                t.model_type
            ));
        }
        for (name, value, max) in [
            ("vision_config.hidden_size", v.hidden_size, 1 << 16),
            ("vision_config.intermediate_size", v.intermediate_size, 1 << 20),
            ("vision_config.num_hidden_layers", v.num_hidden_layers, 1 << 10),
            ("vision_config.num_attention_heads", v.num_attention_heads, 1 << 10),
            ("vision_config.image_size", v.image_size, 1 << 13),
            ("vision_config.patch_size", v.patch_size, v.image_size),
            ("text_config.hidden_size", t.hidden_size, 1 << 16),
            ("text_config.intermediate_size", t.intermediate_size, 1 << 20),
            ("text_config.num_hidden_layers", t.num_hidden_layers, 1 << 10),
            ("text_config.num_attention_heads", t.num_attention_heads, 1 << 10),
            ("text_config.num_key_value_heads", t.num_key_value_heads, t.num_attention_heads),
            ("text_config.head_dim", t.head_dim, 1 << 12),
            ("text_config.vocab_size", t.vocab_size, 1 << 24),
            ("text_config.max_position_embeddings", t.max_position_embeddings, 1 << 24),
        ] {
            if value == 0 || value > max {
                return Err(format!("`{name}` is {value}, outside 1..={max}"));
            }
        }
        let rules = [
            (
                self.projection_dim == t.hidden_size,
                "`projection_dim` must equal `text_config.hidden_size`",
            ),
            (
                v.hidden_size.is_multiple_of(v.num_attention_heads),
                "`vision_config.num_attention_heads` must divide `vision_config.hidden_size`",
            ),
            (
                t.num_attention_heads.is_multiple_of(t.num_key_value_heads),
                "`text_config.num_key_value_heads` must divide `text_config.num_attention_heads`",
            ),
            (t.head_dim.is_multiple_of(2), "`text_config.head_dim` must be even"),
            (t.rms_norm_eps > 0.0 && v.layer_norm_eps > 0.0, "the norms' `eps` must be positive"),
            (t.rope_theta() > 1.0, "`text_config.rope_theta` must be above 1"),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, rule)| Err((*rule).to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: &str = r#"{
        "architectures": ["PaliGemmaForConditionalGeneration"], "model_type": "paligemma",
        "hidden_size": 2048, "vocab_size": 257216, "projection_dim": 2048, "image_token_index": 257152,
        "text_config": {"hidden_size": 2048, "intermediate_size": 16384, "model_type": "gemma",
            "num_attention_heads": 8, "num_hidden_layers": 18, "num_image_tokens": 1024,
            "num_key_value_heads": 1, "torch_dtype": "float32", "vocab_size": 257216},
        "vision_config": {"hidden_size": 1152, "image_size": 448, "intermediate_size": 4304,
            "model_type": "siglip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 27,
            "num_image_tokens": 1024, "patch_size": 14, "projection_dim": 2048,
            "projector_hidden_act": "gelu_fast", "vision_use_head": false}}"#;

    #[test]
    fn the_published_config_parses_with_its_omitted_fields() {
        let config = PaliGemmaConfig::from_json(PUBLISHED).unwrap();
        assert_eq!(config.text_config.head_dim, 256);
        assert!((config.text_config.rms_norm_eps - 1e-6).abs() < 1e-18);
        assert_eq!(config.vision_config.image_tokens(), 1024);
        assert_eq!(config.vision_config.head_dim(), 72);
    }

    #[test]
    fn another_decoder_is_refused() {
        let two = PUBLISHED.replace("\"model_type\": \"gemma\"", "\"model_type\": \"gemma2\"");
        assert!(PaliGemmaConfig::from_json(&two).unwrap_err().contains("gemma2"));
    }

    #[test]
    fn nonsense_is_refused_by_field() {
        let bad = PUBLISHED.replace("\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3");
        assert!(PaliGemmaConfig::from_json(&bad).unwrap_err().contains("num_key_value_heads"));
        let zero = PUBLISHED.replace("\"patch_size\": 14", "\"patch_size\": 0");
        assert!(PaliGemmaConfig::from_json(&zero).unwrap_err().contains("patch_size"));
    }
}
