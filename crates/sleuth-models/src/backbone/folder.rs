use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::{Adapter, Checkpoint, VersionFiles, VersionParts};
use crate::cpu::{KvType, LanguageModel};
use crate::paligemma::PaliGemmaConfig;
use crate::{LoadError, LoadOptions};

/// A model folder as a backbone: an adapter's deltas are merged times τ, and its reward head is left
/// out (TLDR section 5.4). The folder needs no reward head.
#[derive(Debug)]
pub struct BackboneFolder {
    /// `config.json`.
    pub config: PaliGemmaConfig,
    /// The weights, mapped; the adapter is merged as they are read.
    pub checkpoint: Arc<Checkpoint>,
    version: VersionFiles,
}

// === impl BackboneFolder ===

impl BackboneFolder {
    /// Reads a folder's files and its adapter's.
    pub fn open(folder: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        let config = PaliGemmaConfig::from_folder(folder)?;
        let adapter = options.adapter.as_deref().map(Adapter::open).transpose()?;
        let adapter_files = adapter.as_ref().map(Adapter::files);
        let mut checkpoint = Checkpoint::open(folder)?;
        if let Some(adapter) = adapter {
            checkpoint = checkpoint.with_adapter(adapter, options.tau)?;
        }
        let version = VersionFiles::read(&VersionParts {
            folder,
            weights: checkpoint.files(),
            adapter: adapter_files.as_ref().map_or(&[], |files| files.as_slice()),
            tau: options.tau,
        })?;
        Ok(Self { config, checkpoint: Arc::new(checkpoint), version })
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
        LanguageModel::load(&self.config, &self.checkpoint, kv)
    }
}
