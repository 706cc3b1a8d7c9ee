use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{Adapter, Checkpoint, VersionFiles, VersionParts};
use crate::cpu::{KvType, LanguageModel};
use crate::mllama::TEMPLATES;
use crate::{BeforeImage, LoadError, LoadOptions, ModelConfig, RewardSettings};

/// A model folder as a backbone: an adapter's deltas are merged times τ, and its reward head is left
/// out (TLDR section 5.4). The folder needs no reward head.
#[derive(Debug)]
pub struct BackboneFolder {
    /// `config.json`.
    pub config: ModelConfig,
    /// The weights, mapped; the adapter is merged as they are read.
    pub checkpoint: Arc<Checkpoint>,
    before_image: BeforeImage,
    version: VersionFiles,
}

// === impl BackboneFolder ===

impl BackboneFolder {
    /// Reads a folder's files and its adapter's.
    pub fn open(folder: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        let config = ModelConfig::from_folder(folder)?;
        let before_image = RewardSettings::from_folder(folder)?.before_image;
        let adapter = options.adapter.as_deref().map(Adapter::open).transpose()?;
        let adapter_files = adapter.as_ref().map(Adapter::files);
        let mut checkpoint = Checkpoint::open(folder)?;
        if let Some(adapter) = adapter {
            checkpoint = checkpoint.with_adapter(adapter, options.tau)?;
        }
        let templates: &[&str] = match config {
            ModelConfig::PaliGemma(_) => &[],
            ModelConfig::Mllama(_) => &TEMPLATES,
        };
        let templates = templates.iter().map(|name| folder.join(name)).filter(|path| path.exists());
        let weights: Vec<PathBuf> = checkpoint.files().iter().cloned().chain(templates).collect();
        let version = VersionFiles::read(&VersionParts {
            folder,
            weights: &weights,
            adapter: adapter_files.as_ref().map_or(&[], |files| files.as_slice()),
            tau: options.tau,
        })?;
        Ok(Self { config, checkpoint: Arc::new(checkpoint), before_image, version })
    }

    /// The version with keys and values of a type: 64 hexadecimal digits.
    pub fn version(&self, kv: KvType) -> String {
        self.version.name(kv)
    }

    /// Bytes that the packed weights take, before they are loaded.
    pub fn weight_bytes(&self) -> u64 {
        let embedding = "language_model.embed_tokens.weight";
        LanguageModel::weight_bytes_of(&self.config, self.checkpoint.is_adapted(embedding))
    }

    /// Packs the weights for the CPU.
    pub fn load_language(&self, kv: KvType) -> Result<LanguageModel, LoadError> {
        LanguageModel::load(&self.config, &self.checkpoint, self.before_image, kv)
    }
}
