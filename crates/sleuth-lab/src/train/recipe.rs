use serde::{Deserialize, Serialize};
use sleuth_models::paligemma::{PaliGemmaConfig, TextConfig, VisionConfig};

/// Everything that decides a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Of parameters, scenes and captions.
    pub seed: u64,
    /// The model's shape.
    pub architecture: Architecture,
    /// In order; each starts from the last one's parameters.
    pub stages: Vec<Stage>,
    /// The adapter that the reward stage trains.
    pub lora: LoraRecipe,
}

/// The shape of the model; the vocabulary follows from the tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Side of the input, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Vision width.
    pub vision_hidden: usize,
    /// Vision MLP width.
    pub vision_mlp: usize,
    /// Vision layers.
    pub vision_layers: usize,
    /// Vision heads.
    pub vision_heads: usize,
    /// Decoder width.
    pub hidden: usize,
    /// Decoder MLP width.
    pub mlp: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Decoder query heads.
    pub heads: usize,
    /// Decoder key and value heads.
    pub kv_heads: usize,
    /// Width of a decoder head.
    pub head_dim: usize,
}

/// One stage of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What is learned.
    pub kind: StageKind,
    /// Optimiser steps.
    pub steps: u64,
    /// Images per step.
    pub images: usize,
    /// Responses behind each image; unused by the vision stage.
    pub responses: usize,
    /// Peak learning rate, reached after `warmup` steps; then a cosine to a hundredth of it.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Decoupled weight decay on matrices.
    pub weight_decay: f64,
    /// Weight of a bad token in the label loss; TLDR states none, which is 1.
    pub bad_token_weight: f64,
    /// The largest global gradient norm.
    pub clip: f64,
}

/// What a stage learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// The vision tower: kind, colour and size of what each patch shows.
    Vision,
    /// Projector and decoder: clean captions as language, all captions as token labels.
    Base,
    /// A LoRA adapter on projector and decoder, and the reward head: token labels alone (TLDR
    /// section 5.1).
    Reward,
}

/// The adapter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraRecipe {
    /// Rank.
    pub rank: usize,
    /// The deltas are scaled by `alpha / rank`.
    pub alpha: f64,
}

// === impl Recipe ===

impl Recipe {
    /// What `models/mini` is trained by.
    pub fn mini() -> Self {
        let stage = Stage {
            kind: StageKind::Vision,
            steps: 1200,
            images: 32,
            responses: 8,
            learning_rate: 1.5e-3,
            warmup: 100,
            weight_decay: 0.01,
            bad_token_weight: 3.0,
            clip: 1.0,
        };
        Self {
            seed: 7,
            architecture: Architecture {
                image_size: 64,
                patch_size: 8,
                vision_hidden: 128,
                vision_mlp: 256,
                vision_layers: 4,
                vision_heads: 4,
                hidden: 128,
                mlp: 384,
                layers: 4,
                heads: 4,
                kv_heads: 1,
                head_dim: 32,
            },
            stages: vec![
                stage.clone(),
                Stage {
                    kind: StageKind::Base,
                    steps: 3000,
                    images: 8,
                    learning_rate: 2e-3,
                    ..stage.clone()
                },
                Stage {
                    kind: StageKind::Reward,
                    steps: 400,
                    images: 8,
                    learning_rate: 1e-3,
                    bad_token_weight: 1.5,
                    ..stage
                },
            ],
            lora: LoraRecipe { rank: 16, alpha: 32.0 },
        }
    }
}

// === impl Architecture ===

impl Architecture {
    /// The config of a model with a vocabulary of `vocab_size` whose image placeholder is
    /// `image_token`.
    pub fn config(&self, vocab_size: usize, image_token: u32) -> PaliGemmaConfig {
        PaliGemmaConfig {
            architectures: vec![PaliGemmaConfig::ARCHITECTURE.to_owned()],
            model_type: "paligemma".to_owned(),
            vision_config: VisionConfig {
                hidden_size: self.vision_hidden,
                intermediate_size: self.vision_mlp,
                num_hidden_layers: self.vision_layers,
                num_attention_heads: self.vision_heads,
                image_size: self.image_size,
                patch_size: self.patch_size,
                ..VisionConfig::default()
            },
            text_config: TextConfig {
                hidden_size: self.hidden,
                intermediate_size: self.mlp,
                num_hidden_layers: self.layers,
                num_attention_heads: self.heads,
                num_key_value_heads: self.kv_heads,
                head_dim: self.head_dim,
                vocab_size,
                max_position_embeddings: 1024,
                ..TextConfig::default()
            },
            projection_dim: self.hidden,
            image_token_index: image_token,
        }
    }
}

// === impl Stage ===

impl Stage {
    /// The learning rate of a step: linear warm-up, then a cosine to a hundredth of the peak.
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.learning_rate * (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let done = ((step - self.warmup) as f64 / span).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.learning_rate * (0.01 + 0.99 * cosine)
    }
}

impl StageKind {
    /// The name used in files and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vision => "vision",
            Self::Base => "base",
            Self::Reward => "reward",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_warms_up_peaks_and_falls_to_a_hundredth() {
        let stage = Recipe::mini().stages[1].clone();
        assert!(stage.learning_rate_at(0) < stage.learning_rate_at(50));
        assert!((stage.learning_rate_at(stage.warmup) - stage.learning_rate).abs() < 1e-9);
        let last = stage.learning_rate_at(stage.steps);
        assert!((last - stage.learning_rate / 100.0).abs() < 1e-9);
    }

    #[test]
    fn a_recipe_survives_json() {
        let text = serde_json::to_string(&Recipe::mini()).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), Recipe::mini());
    }
}
