use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::LoadError;

/// What response tokens may attend to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SuffixAttention {
    /// Image, prompt, and the response up to and including the token itself.
    #[default]
    Causal,
    /// Everything sees everything, as checkpoints trained by transformers 4.41 to 4.57 without
    /// `token_type_ids` did.
    Full,
}

/// What tokens before an image take of it, in a model whose layers look at images (Mllama).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BeforeImage {
    /// They attend to all of it, absent tiles too, as transformers computes it and as adapters were
    /// trained on it.
    #[default]
    Attends,
    /// Nothing, as Meta's own code has it.
    Skips,
}

/// `reward_config.json` of a model folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardSettings {
    /// The prompt used when a request has none.
    pub prompt: String,
    /// A token is flagged where its reward is not above this, 0..1.
    pub threshold: f32,
    /// What response tokens may attend to.
    pub suffix_attention: SuffixAttention,
    /// What tokens before an image take of it; of no meaning to PaliGemma.
    pub before_image: BeforeImage,
}

// === impl RewardSettings ===

impl Default for RewardSettings {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            threshold: 0.5,
            suffix_attention: SuffixAttention::Causal,
            before_image: BeforeImage::Attends,
        }
    }
}

impl RewardSettings {
    /// The file's name in a model folder.
    pub const FILE: &'static str = "reward_config.json";

    /// Reads the folder's file; a folder without one has the defaults.
    pub fn from_folder(folder: &Path) -> Result<Self, LoadError> {
        let path = folder.join(Self::FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(LoadError::Read { path, source }),
        };
        let settings: Self =
            serde_json::from_str(&text).map_err(|e| LoadError::malformed(&path, e))?;
        if !(0.0..=1.0).contains(&settings.threshold) {
            return Err(LoadError::malformed(path, "`threshold` must lie in 0..=1"));
        }
        Ok(settings)
    }
}
