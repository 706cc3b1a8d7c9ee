use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::cpu::{KvType, ModelSizes, packed_bytes};
use crate::mllama::{MllamaConfig, MllamaFolder};
use crate::paligemma::PaliGemmaConfig;
use crate::{LoadError, LoadOptions, ModelFolder, RewardSettings};

/// `config.json` of a folder of any architecture that is read, by its `model_type`.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// PaliGemma 1.
    PaliGemma(PaliGemmaConfig),
    /// Llama 3.2 Vision.
    Mllama(MllamaConfig),
}

/// A model folder of any architecture, read and checked, but for its weights' values.
#[derive(Debug)]
pub enum RewardFolder {
    /// PaliGemma 1.
    PaliGemma(ModelFolder),
    /// Llama 3.2 Vision.
    Mllama(MllamaFolder),
}

#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    model_type: String,
}

// === impl ModelConfig ===

impl ModelConfig {
    /// Reads and checks the folder's `config.json`.
    pub fn from_folder(folder: &Path) -> Result<Self, LoadError> {
        let path = folder.join(PaliGemmaConfig::FILE);
        let text = fs::read_to_string(&path)
            .map_err(|source| LoadError::Read { path: path.clone(), source })?;
        Self::from_json(&text).map_err(|problem| LoadError::malformed(path, problem))
    }

    /// Parses and checks `config.json`; the error names the field.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let kind: Kind = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match kind.model_type.as_str() {
            "paligemma" => PaliGemmaConfig::from_json(text).map(Self::PaliGemma),
            MllamaConfig::MODEL_TYPE => MllamaConfig::from_json(text).map(Self::Mllama),
            other => Err(format!(
                "`model_type` is `{other}`; `paligemma` and `{}` are supported",
                MllamaConfig::MODEL_TYPE
            )),
        }
    }

    /// What `architectures` says.
    pub fn architecture(&self) -> &'static str {
        match self {
            Self::PaliGemma(_) => PaliGemmaConfig::ARCHITECTURE,
            Self::Mllama(_) => MllamaConfig::ARCHITECTURE,
        }
    }

    /// Width of a token's state.
    pub fn hidden(&self) -> usize {
        match self {
            Self::PaliGemma(config) => config.text_config.hidden_size,
            Self::Mllama(config) => config.text_config.hidden_size,
        }
    }

    /// Rows of the embedding: token ids are below it.
    pub fn embedding_rows(&self) -> usize {
        match self {
            Self::PaliGemma(config) => config.text_config.vocab_size,
            Self::Mllama(config) => config.text_config.embedding_rows(),
        }
    }

    /// Ids that its language head writes.
    pub fn vocabulary(&self) -> usize {
        match self {
            Self::PaliGemma(config) => config.text_config.vocab_size,
            Self::Mllama(config) => config.text_config.vocab_size,
        }
    }

    /// Whether the language head is the embedding.
    pub fn is_tied(&self) -> bool {
        match self {
            Self::PaliGemma(config) => config.is_tied(),
            // It has more rows than the head.
            Self::Mllama(_) => false,
        }
    }

    /// The id that stands for the image in a prompt, where prompts hold it.
    pub fn image_in_prompt(&self) -> Option<u32> {
        match self {
            Self::PaliGemma(_) => None,
            Self::Mllama(config) => Some(config.image_token_index),
        }
    }

    /// Whether pixels of this height and width are an image of the model's.
    pub fn takes(&self, height: usize, width: usize) -> bool {
        let side = self.image_side();
        match self {
            Self::PaliGemma(_) => (height, width) == (side, side),
            Self::Mllama(config) => {
                let canvases = config.vision_config.canvases();
                canvases
                    .iter()
                    .any(|[rows, columns]| (height, width) == (rows * side, columns * side))
            }
        }
    }

    /// Bytes of weights packed for scoring on the CPU, but for the reward head; the embedding stays
    /// mapped.
    pub fn weight_bytes(&self) -> u64 {
        packed_bytes(self)
    }

    /// What images and tokens take.
    pub fn sizes(&self, kv: KvType) -> ModelSizes {
        ModelSizes::of(self, kv)
    }

    /// Longest sequence, with the image's rows where it has any.
    pub fn max_positions(&self) -> usize {
        match self {
            Self::PaliGemma(config) => config.text_config.max_position_embeddings,
            Self::Mllama(config) => config.text_config.max_position_embeddings,
        }
    }

    /// Rows of an image in a sequence.
    pub fn image_rows(&self) -> usize {
        match self {
            Self::PaliGemma(config) => config.vision_config.image_tokens(),
            Self::Mllama(_) => 0,
        }
    }

    /// Side of the square image that the tower takes, or of a tile, in pixels.
    pub fn image_side(&self) -> usize {
        match self {
            Self::PaliGemma(config) => config.vision_config.image_size,
            Self::Mllama(config) => config.vision_config.image_size,
        }
    }

    /// Most tiles of an image, where the tower takes tiles.
    pub fn tiles(&self) -> Option<usize> {
        match self {
            Self::PaliGemma(_) => None,
            Self::Mllama(config) => Some(config.vision_config.max_num_tiles),
        }
    }
}

// === impl RewardFolder ===

impl RewardFolder {
    /// Reads a folder's files and its adapter's.
    pub fn open(folder: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        match ModelConfig::from_folder(folder)? {
            ModelConfig::PaliGemma(_) => ModelFolder::open(folder, options).map(Self::PaliGemma),
            ModelConfig::Mllama(_) => MllamaFolder::open(folder, options).map(Self::Mllama),
        }
    }

    /// What `architectures` says.
    pub fn architecture(&self) -> &'static str {
        match self {
            Self::PaliGemma(_) => PaliGemmaConfig::ARCHITECTURE,
            Self::Mllama(_) => MllamaConfig::ARCHITECTURE,
        }
    }

    /// `reward_config.json`.
    pub fn settings(&self) -> &RewardSettings {
        match self {
            Self::PaliGemma(folder) => &folder.settings,
            Self::Mllama(folder) => &folder.settings,
        }
    }

    /// The adapter's name.
    pub fn adapter(&self) -> Option<&str> {
        match self {
            Self::PaliGemma(folder) => folder.adapter.as_deref(),
            Self::Mllama(folder) => folder.adapter.as_deref(),
        }
    }

    /// The version with keys and values of a type: 64 hexadecimal digits.
    pub fn version(&self, kv: KvType) -> String {
        match self {
            Self::PaliGemma(folder) => folder.version(kv),
            Self::Mllama(folder) => folder.version(kv),
        }
    }

    /// Bytes of the weights in f32, but for the padding of packed panels.
    pub fn weight_bytes(&self) -> u64 {
        match self {
            Self::PaliGemma(folder) => folder.weight_bytes(),
            Self::Mllama(folder) => folder.weight_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_type_says_which_config_it_is() {
        let mllama = ModelConfig::from_json(r#"{"model_type": "mllama"}"#).unwrap();
        assert_eq!((mllama.architecture(), mllama.tiles()), (MllamaConfig::ARCHITECTURE, Some(4)));
        assert_eq!((mllama.image_rows(), mllama.embedding_rows()), (0, 128_264));
        let paligemma = r#"{"model_type": "paligemma", "vision_config": {"hidden_size": 1152,
            "num_attention_heads": 16}, "text_config": {"hidden_size": 2048, "num_attention_heads": 8,
            "num_key_value_heads": 1}}"#;
        let paligemma = ModelConfig::from_json(paligemma).unwrap();
        assert_eq!(
            (paligemma.architecture(), paligemma.tiles()),
            (PaliGemmaConfig::ARCHITECTURE, None)
        );
        for other in [r#"{"model_type": "llava"}"#, "{}"] {
            let problem = ModelConfig::from_json(other).unwrap_err();
            assert!(problem.contains("model_type") && problem.contains("mllama"), "{problem}");
        }
    }
}
