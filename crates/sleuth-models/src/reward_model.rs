use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::checkpoint::{Adapter, Checkpoint, VersionFiles, VersionParts};
use crate::cpu::{CpuModel, KvType};
use crate::device::DeviceSettings;
use crate::paligemma::{Group, PaliGemma, PaliGemmaConfig, Prefix, PrefixKv, PrefixStates};
use crate::{LoadError, RewardHead, RewardSettings, SuffixAttention};

/// What to load beside the base.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// A PEFT adapter folder; its head wins over the base's.
    pub adapter: Option<PathBuf>,
    /// Factor on every LoRA delta, 0..1 usually (TLDR section 5.4).
    pub tau: f64,
}

/// PaliGemma with TLDR's head: pixels and token ids in, a logit per response token out.
#[derive(Debug)]
pub struct RewardPaliGemma {
    backbone: PaliGemma,
    head: RewardHead,
    settings: RewardSettings,
}

/// A model folder that was read and checked, but for its weights' values.
#[derive(Debug)]
pub struct ModelFolder {
    /// `config.json`.
    pub config: PaliGemmaConfig,
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

/// What folders of every architecture hold beside their config.
pub(crate) struct RewardFiles {
    pub(crate) settings: RewardSettings,
    pub(crate) head: RewardHead,
    pub(crate) checkpoint: Arc<Checkpoint>,
    pub(crate) adapter: Option<String>,
    pub(crate) version: VersionFiles,
}

// === impl LoadOptions ===

impl Default for LoadOptions {
    fn default() -> Self {
        Self { adapter: None, tau: 1.0 }
    }
}

// === impl ModelFolder ===

impl ModelFolder {
    /// Reads a folder's files and its adapter's.
    pub fn open(folder: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        let config = PaliGemmaConfig::from_folder(folder)?;
        let files = RewardFiles::open(folder, options, config.text_config.hidden_size, &[])?;
        let RewardFiles { settings, head, checkpoint, adapter, version } = files;
        Ok(Self { config, settings, head, checkpoint, adapter, version })
    }

    /// The version with keys and values of a type: 64 hexadecimal digits.
    pub fn version(&self, kv: KvType) -> String {
        self.version.name(kv)
    }

    /// The version on a device with these types.
    pub fn version_on(&self, settings: DeviceSettings) -> String {
        self.version.name_on(settings.weights, settings.kv)
    }

    /// Bytes of the weights in f32, but for the padding of packed panels.
    pub fn weight_bytes(&self) -> u64 {
        self.checkpoint.numbers() * 4
    }

    /// Packs the weights for the CPU.
    pub fn load_cpu(&self, kv: KvType) -> Result<CpuModel, LoadError> {
        let attention = self.settings.suffix_attention;
        CpuModel::load(&self.config, &self.checkpoint, &self.head, attention, kv)
    }
}

// === impl RewardFiles ===

impl RewardFiles {
    /// Files of a folder whose states have `hidden` elements. `templates` names those that say how
    /// texts are laid out, beside the tokenizer: they are part of the version.
    pub(crate) fn open(
        folder: &Path,
        options: &LoadOptions,
        hidden: usize,
        templates: &[&str],
    ) -> Result<Self, LoadError> {
        let settings = RewardSettings::from_folder(folder)?;
        let adapter = options.adapter.as_deref().map(Adapter::open).transpose()?;
        let head = RewardHead::open(folder, adapter.as_ref(), hidden, &Device::Cpu)?;
        let name = adapter.as_ref().map(Adapter::name);
        let adapter_files = adapter.as_ref().map(Adapter::files);
        let mut checkpoint = Checkpoint::open(folder)?;
        if let Some(adapter) = adapter {
            checkpoint = checkpoint.with_adapter(adapter, options.tau)?;
        }
        let templates = templates.iter().map(|name| folder.join(name)).filter(|path| path.exists());
        let weights: Vec<PathBuf> = checkpoint.files().iter().cloned().chain(templates).collect();
        let version = VersionFiles::read(&VersionParts {
            folder,
            weights: &weights,
            adapter: adapter_files.as_ref().map_or(&[], |files| files.as_slice()),
            tau: options.tau,
        })?;
        let checkpoint = Arc::new(checkpoint);
        Ok(Self { settings, head, checkpoint, adapter: name, version })
    }
}

// === impl RewardPaliGemma ===

impl RewardPaliGemma {
    /// Loads a model folder. Everything is checked: presence, shapes, finite values.
    pub fn open(folder: &Path, options: &LoadOptions, device: &Device) -> Result<Self, LoadError> {
        let folder = ModelFolder::open(folder, options)?;
        let backbone = folder.checkpoint.build(device, |vb| PaliGemma::load(&folder.config, vb))?;
        let head = folder.head.to_device(device)?;
        Ok(Self { backbone, head, settings: folder.settings })
    }

    /// From parts, as training builds it.
    pub fn from_parts(backbone: PaliGemma, head: RewardHead, settings: RewardSettings) -> Self {
        Self { backbone, head, settings }
    }

    /// The backbone.
    pub fn backbone(&self) -> &PaliGemma {
        &self.backbone
    }

    /// The folder's reward settings.
    pub fn settings(&self) -> &RewardSettings {
        &self.settings
    }

    /// Projected image rows of each image: `pixels` `[images, 3, side, side]` f32 to
    /// `[image tokens, hidden]` each.
    pub fn image_rows(&self, pixels: &Tensor) -> candle_core::Result<Vec<Tensor>> {
        let features = self.backbone.see(pixels)?;
        (0..features.dim(0)?).map(|i| self.backbone.project(&features.get(i)?)).collect()
    }

    /// Logits of every response of every group, in order; one vector per response.
    ///
    /// With [`SuffixAttention::Causal`] a group's prefix is computed once. With
    /// [`SuffixAttention::Full`] every response is a sequence of its own, since the prefix sees it.
    pub fn score(&self, groups: &[Group<'_>]) -> candle_core::Result<Vec<Vec<f32>>> {
        let states = match self.settings.suffix_attention {
            SuffixAttention::Causal => self.backbone.forward(groups, PrefixStates::Drop)?.responses,
            SuffixAttention::Full => self.full_states(groups)?,
        };
        let logits = self.head.forward(&states)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let mut rest = logits.as_slice();
        let mut out = Vec::new();
        for response in groups.iter().flat_map(|g| &g.responses) {
            let (own, after) = rest.split_at(response.len());
            out.push(own.to_vec());
            rest = after;
        }
        Ok(out)
    }

    /// Keys and values of prefixes alone.
    pub fn prefill(&self, groups: &[Group<'_>]) -> candle_core::Result<Vec<PrefixKv>> {
        Ok(self.backbone.forward(groups, PrefixStates::Drop)?.kv)
    }

    fn full_states(&self, groups: &[Group<'_>]) -> candle_core::Result<Tensor> {
        let mut states = Vec::new();
        for group in groups {
            let Prefix::New { image, prompt } = group.prefix else {
                candle_core::bail!("a model with full suffix attention has no reusable prefix");
            };
            for response in &group.responses {
                let ids = [prompt, response].concat();
                let whole =
                    Group { prefix: Prefix::New { image, prompt: &ids }, responses: Vec::new() };
                let Some(rows) = self.backbone.forward(&[whole], PrefixStates::Keep)?.prefixes
                else {
                    candle_core::bail!("no states of a prefix that was asked to be kept");
                };
                states.push(rows.narrow(0, rows.dim(0)? - response.len(), response.len())?);
            }
        }
        Tensor::cat(&states, 0)
    }
}
