use serde::{Deserialize, Serialize};
use sleuth_models::paligemma::{PaliGemmaConfig, TextConfig, VisionConfig};

use crate::scenes::Emphasis;

/// Everything that decides a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Of parameters, scenes and captions.
    pub seed: u64,
    /// The model's shape, where it is made from nothing; a run that starts from a model folder has
    /// that folder's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// In order; each starts from the last one's parameters.
    pub stages: Vec<Stage>,
    /// The adapter that the reward stage trains.
    pub lora: LoraRecipe,
}

/// The shape of the model; the vocabulary follows from the tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// What is learned.
    pub kind: StageKind,
    /// Optimiser steps.
    pub steps: u64,
    /// Images per step.
    pub images: usize,
    /// Responses behind each image; unused by the vision stage.
    #[serde(default)]
    pub responses: usize,
    /// Peak learning rate, reached after `warmup` steps; then a cosine to a hundredth of it.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Decoupled weight decay on matrices.
    pub weight_decay: f64,
    /// The largest global gradient norm.
    pub clip: f64,
    /// Pretraining: weight of a patch's loss beside a token's, from the first step to the last.
    #[serde(default)]
    pub patch_weight: Ramp,
    /// Pretraining: weight of the token labels beside the language loss. At 0 every text is true.
    #[serde(default)]
    pub label_weight: f64,
    /// Weight of a bad token in the label loss; TLDR states none, which is 1.
    #[serde(default = "one")]
    pub bad_token_weight: f64,
    /// Pretraining: every sentence of a caption is false with this chance, whatever the others are.
    /// At 0 the captions are as in data folders: half of them perturbed, with one or two edits.
    #[serde(default)]
    pub falsehood: f64,
    /// With `falsehood`: the taxonomy that is lied about more than the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emphasis: Option<Emphasis>,
    /// What takes the steps.
    #[serde(default)]
    pub optimiser: Algorithm,
    /// What the reward stage's loss is taken on.
    #[serde(default)]
    pub objective: Objective,
}

/// A number that changes evenly over a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// At the first step.
    pub from: f64,
    /// At the last step.
    pub to: f64,
}

/// What a stage learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// The vision tower: what each patch shows.
    Vision,
    /// All of the backbone: true words as language, and on with what each patch shows.
    Pretrain,
    /// A LoRA adapter and the reward head: token labels alone, the vision tower frozen (TLDR
    /// section 5.1).
    Reward,
}

/// How parameters follow their gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// AdamW.
    #[default]
    #[serde(rename = "adamw")]
    AdamW,
    /// Muon on the matrices between embeddings and heads, AdamW on the rest.
    Muon,
}

/// Which tokens of a response the reward is trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Every token, with its own label: TLDR.
    #[default]
    Tokens,
    /// The last token, with the label of the whole response: the paper's naive baseline.
    LastToken,
}

/// The adapter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraRecipe {
    /// Rank.
    pub rank: usize,
    /// The deltas are scaled by `alpha / rank`.
    pub alpha: f64,
    /// Chance of each value of a pair's input to be left out in a step, 0..1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropout: f64,
    /// What it adapts.
    #[serde(default)]
    pub targets: LoraTargets,
}

/// Which linear layers an adapter adapts (the paper's ablation, its table 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraTargets {
    /// The projector alone.
    Projector,
    /// Every linear layer of the decoder.
    Decoder,
    /// Both: TLDR.
    #[default]
    Both,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

const fn one() -> f64 {
    1.0
}

// === impl Recipe ===

impl Recipe {
    /// What `models/mini` is trained by: `recipes/mini.json` of the repository.
    ///
    /// # Panics
    /// Never: a test reads the file.
    #[expect(clippy::expect_used, reason = "the file is part of the program, and a test reads it")]
    pub fn mini() -> Self {
        serde_json::from_str(include_str!("../../../../recipes/mini.json"))
            .expect("recipes/mini.json is a recipe")
    }

    /// Whether any stage trains the backbone itself.
    pub fn trains_base(&self) -> bool {
        self.stages.iter().any(|s| s.kind != StageKind::Reward)
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
            tie_word_embeddings: None,
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

impl Ramp {
    /// The value when `done` of `all` steps were taken.
    pub fn at(self, done: u64, all: u64) -> f64 {
        self.from + (self.to - self.from) * (done as f64 / all.saturating_sub(1).max(1) as f64)
    }
}

impl LoraTargets {
    /// Whether a module of the backbone, by its canonical name, is adapted.
    pub fn adapts(self, module: &str) -> bool {
        let projector = module == "multi_modal_projector.linear";
        let decoder = module.starts_with("language_model.layers.") && module.ends_with("_proj");
        match self {
            Self::Projector => projector,
            Self::Decoder => decoder,
            Self::Both => projector || decoder,
        }
    }

    /// The regular expression by which PEFT finds the same modules.
    pub const fn peft_pattern(self) -> &'static str {
        match self {
            Self::Projector => r"(.*\.)?multi_modal_projector\.linear",
            Self::Decoder => r"(.*\.)?language_model\.layers\..*_proj",
            Self::Both => r"(.*\.)?(language_model\.layers\..*_proj|multi_modal_projector\.linear)",
        }
    }
}

impl Recipe {
    /// Leaves only the stages of these kinds.
    ///
    /// # Errors
    /// The kind that the recipe has no stage of.
    pub fn keep_stages(&mut self, kinds: &[StageKind]) -> Result<(), StageKind> {
        let has = |kind: &StageKind| self.stages.iter().any(|s| s.kind == *kind);
        if let Some(missing) = kinds.iter().find(|k| !has(k)) {
            return Err(*missing);
        }
        self.stages.retain(|s| kinds.contains(&s.kind));
        Ok(())
    }
}

/// Reads a name as files have it.
macro_rules! from_name {
    ($type:ty, $what:literal) => {
        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(name: &str) -> Result<Self, String> {
                serde_json::from_value(serde_json::Value::String(name.to_owned()))
                    .map_err(|e| format!("no {} is named so: {e}", $what))
            }
        }
    };
}

from_name!(StageKind, "stage");
from_name!(LoraTargets, "set of targets");
from_name!(Objective, "objective");

impl StageKind {
    /// The name used in files and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vision => "vision",
            Self::Pretrain => "pretrain",
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
    fn a_ramp_goes_from_end_to_end() {
        let ramp = Ramp { from: 1.0, to: 0.1 };
        assert!((ramp.at(0, 10) - 1.0).abs() < 1e-12 && (ramp.at(9, 10) - 0.1).abs() < 1e-12);
        assert!((ramp.at(0, 1) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        let mut recipe = serde_json::to_value(Recipe::mini()).unwrap();
        recipe["stages"][0]["learning_rte"] = 1.into();
        let error = serde_json::from_value::<Recipe>(recipe).unwrap_err().to_string();
        assert!(error.contains("learning_rte"), "{error}");
    }

    #[test]
    fn a_recipe_survives_json() {
        let text = serde_json::to_string(&Recipe::mini()).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), Recipe::mini());
    }
}
