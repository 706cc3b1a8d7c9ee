use std::path::Path;
use std::sync::Arc;

use super::MllamaConfig;
use crate::checkpoint::{Checkpoint, VersionFiles};
use crate::cpu::{KvType, MllamaCpu};
use crate::reward_model::RewardFiles;
use crate::{LoadError, LoadOptions, RewardHead, RewardSettings, SuffixAttention};

/// A Llama 3.2 Vision folder that was read and checked, but for its weights' values.
#[derive(Debug)]
pub struct MllamaFolder {
    /// `config.json`.
    pub config: MllamaConfig,
    /// `reward_config.json`.
    pub settings: RewardSettings,
    /// The adapter's head, else the folder's.
    pub head: RewardHead,
    /// The weights, mapped; the adapter is merged as they are read.
    pub checkpoint: Arc<Checkpoint>,
    /// The adapter's name.
    pub adapter: Option<String>,
    version: VersionFiles,
}

/// Where a chat template may stand; it decides what a prompt becomes.
pub(crate) const TEMPLATES: [&str; 3] =
    ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"];

// === impl MllamaFolder ===

impl MllamaFolder {
    /// Reads a folder's files and its adapter's.
    ///
    /// # Errors
    /// As [`ModelFolder::open`](crate::ModelFolder::open); [`LoadError::Malformed`] where
    /// `reward_config.json` asks for full attention, which a causal decoder has not.
    pub fn open(folder: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        let config = MllamaConfig::from_folder(folder)?;
        let hidden = config.text_config.hidden_size;
        let files = RewardFiles::open(folder, options, hidden, &TEMPLATES)?;
        let RewardFiles { settings, head, checkpoint, adapter, version } = files;
        if settings.suffix_attention == SuffixAttention::Full {
            let problem = "`suffix_attention` must be `causal`: the decoder of `mllama` is";
            return Err(LoadError::malformed(folder.join(RewardSettings::FILE), problem));
        }
        Ok(Self { config, settings, head, checkpoint, adapter, version })
    }

    /// The version with keys and values of a type: 64 hexadecimal digits.
    pub fn version(&self, kv: KvType) -> String {
        self.version.name(kv)
    }

    /// Bytes of the weights in f32, but for the padding of packed panels.
    pub fn weight_bytes(&self) -> u64 {
        self.checkpoint.numbers() * 4
    }

    /// Packs the weights for the CPU.
    pub fn load_cpu(&self, kv: KvType) -> Result<MllamaCpu, LoadError> {
        let before_image = self.settings.before_image;
        MllamaCpu::load(&self.config, &self.checkpoint, &self.head, before_image, kv)
    }
}
