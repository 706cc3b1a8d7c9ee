//! What a model folder holds, and what is missing or wrong.

use std::error::Error;
use std::path::Path;

use candle_core::Device;
use serde::Serialize;

use crate::checkpoint::{Adapter, Checkpoint};
use crate::cpu::{KvType, ModelSizes};
use crate::mllama::MllamaConfig;
use crate::paligemma::PaliGemmaConfig;
use crate::{LoadError, LoadOptions, ModelConfig, RewardFolder, RewardHead, RewardSettings};

/// A fact or a fault, a line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub what: &'static str,
    /// What was found.
    pub is: String,
    /// The figure, where it is memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether it keeps the model from loading.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub wrong: bool,
}

/// Findings in the order in which a folder is looked through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

/// Looks through a folder's config, settings, weights, adapter and head, and goes on after a fault,
/// so that one run names them all. `more` adds what other crates know of the folder.
pub fn inspect(
    folder: &Path,
    options: &LoadOptions,
    more: impl FnOnce(&ModelConfig, &mut Findings),
) -> Findings {
    let mut findings = Findings::default();
    let config = findings.take("config.json", ModelConfig::from_folder(folder));
    if let Some(config) = &config {
        findings.shape(config);
        more(config, &mut findings);
    }
    if let Some(settings) = findings.take("reward_config.json", RewardSettings::from_folder(folder))
    {
        findings
            .fact("suffix attention", format!("{:?}", settings.suffix_attention).to_lowercase());
        findings.fact("threshold", settings.threshold.to_string());
        findings.fact("prompt", format!("{:?}", settings.prompt));
    }
    if let Some(checkpoint) = findings.take("weights", Checkpoint::open(folder)) {
        findings.weights(&checkpoint);
    }
    findings.adapter_and_head(folder, options, config.as_ref());
    // The load itself finds what is left: missing tensors, wrong shapes, values not finite.
    if findings.faults() == 0
        && let Some(opened) = findings.take("load", RewardFolder::open(folder, options))
        && let Some(bytes) = findings.take("load", packed_bytes(&opened))
    {
        findings.fact("version", opened.version(KvType::F32));
        findings.memory("packed weights", bytes, "");
    }
    findings
}

/// Packs the weights.
fn packed_bytes(folder: &RewardFolder) -> Result<u64, LoadError> {
    match folder {
        RewardFolder::PaliGemma(folder) => {
            folder.load_cpu(KvType::F32).map(|model| model.weight_bytes())
        }
        RewardFolder::Mllama(folder) => {
            folder.load_cpu(KvType::F32).map(|model| model.weight_bytes())
        }
    }
}

// === impl Findings ===

impl Findings {
    /// Adds a fact.
    pub fn fact(&mut self, what: &'static str, is: String) {
        self.0.push(Finding { what, is, bytes: None, wrong: false });
    }

    /// Adds what something takes.
    pub fn memory(&mut self, what: &'static str, bytes: u64, more: &str) {
        let is = format!("{bytes} bytes ({:.1} MiB){more}", bytes as f64 / f64::from(1 << 20));
        self.0.push(Finding { what, is, bytes: Some(bytes), wrong: false });
    }

    /// The value, or a line that says what is wrong.
    pub fn take<T, E: Into<Box<dyn Error + Send + Sync>>>(
        &mut self,
        what: &'static str,
        found: Result<T, E>,
    ) -> Option<T> {
        match found {
            Ok(value) => Some(value),
            Err(error) => {
                let is = chain(&*error.into());
                self.0.push(Finding { what, is, bytes: None, wrong: true });
                None
            }
        }
    }

    /// All findings.
    pub fn all(&self) -> &[Finding] {
        &self.0
    }

    /// How many keep the model from loading.
    pub fn faults(&self) -> usize {
        self.0.iter().filter(|f| f.wrong).count()
    }

    fn shape(&mut self, config: &ModelConfig) {
        self.fact("architecture", config.architecture().to_owned());
        match config {
            ModelConfig::PaliGemma(config) => self.paligemma(config),
            ModelConfig::Mllama(config) => self.mllama(config),
        }
        self.takes(config);
    }

    fn mllama(&mut self, config: &MllamaConfig) {
        let (v, t) = (&config.vision_config, &config.text_config);
        let vision = format!(
            "{} local and {} global layers x {}, {} heads, up to {} tiles of {} px, patch {}, {} \
             states of a tile",
            v.num_hidden_layers,
            v.num_global_layers,
            v.hidden_size,
            v.heads(),
            v.max_num_tiles,
            v.image_size,
            v.patch_size,
            v.tile_tokens()
        );
        self.fact("vision", vision);
        let decoder = format!(
            "{} layers x {}, {} of them on the image, MLP {}, {} heads of {}, {} KV heads, {} rows of \
             vocabulary",
            t.num_hidden_layers,
            t.hidden_size,
            t.cross_attention_layers.len(),
            t.intermediate_size,
            t.num_attention_heads,
            t.head_dim(),
            t.num_key_value_heads,
            t.embedding_rows()
        );
        self.fact("decoder", decoder);
    }

    /// Told without weights too: of a large model one wants to know before one fetches them.
    fn takes(&mut self, config: &ModelConfig) {
        let [f32, f16] = [KvType::F32, KvType::F16].map(|kv| config.sizes(kv));
        self.memory("weights take", config.weight_bytes(), ", packed in f32");
        let half = |bytes: u64| format!(", in f16 {bytes}");
        let (token, image) = (ModelSizes::row_bytes, ModelSizes::image_kv_bytes);
        self.memory("K/V per token", token(&f32), &half(token(&f16)));
        self.memory("K/V per image", image(&f32), &half(image(&f16)));
        let held = "; --vision-cache and --prefix-cache hold it between batches";
        self.memory("an image is kept as", f32.features_bytes, held);
    }

    fn paligemma(&mut self, config: &PaliGemmaConfig) {
        let (v, t) = (&config.vision_config, &config.text_config);
        self.fact(
            "vision",
            format!(
                "{} layers x {}, {} heads, {} px, patch {}, {} image tokens",
                v.num_hidden_layers,
                v.hidden_size,
                v.num_attention_heads,
                v.image_size,
                v.patch_size,
                v.image_tokens()
            ),
        );
        self.fact(
            "decoder",
            format!(
                "{} layers x {}, MLP {}, {} heads of {}, {} KV heads, {} rows of vocabulary",
                t.num_hidden_layers,
                t.hidden_size,
                t.intermediate_size,
                t.num_attention_heads,
                t.head_dim,
                t.num_key_value_heads,
                t.vocab_size
            ),
        );
    }

    fn weights(&mut self, checkpoint: &Checkpoint) {
        let tensors = checkpoint.tensors();
        let count: usize =
            tensors.iter().map(|(_, _, shape)| shape.iter().product::<usize>()).sum();
        let mut types: Vec<&str> = tensors.iter().map(|(_, dtype, _)| dtype.as_str()).collect();
        types.sort_unstable();
        types.dedup();
        let files = checkpoint.files().len();
        self.fact(
            "weights",
            format!(
                "{count} parameters, {} tensors, {files} files, {}",
                tensors.len(),
                types.join(" ")
            ),
        );
        self.fact(
            "memory",
            format!("{:.1} MiB of weights in f32", (count * 4) as f64 / f64::from(1 << 20)),
        );
    }

    fn adapter_and_head(
        &mut self,
        folder: &Path,
        options: &LoadOptions,
        config: Option<&ModelConfig>,
    ) {
        let adapter = match &options.adapter {
            None => {
                self.fact("adapter", "none".to_owned());
                None
            }
            Some(path) => self.take("adapter", Adapter::open(path)),
        };
        if let Some(adapter) = &adapter {
            let modules = adapter.modules().count();
            self.fact(
                "adapter",
                format!(
                    "{}, rank {} on {modules} modules, tau {}",
                    adapter.name(),
                    adapter.rank(),
                    options.tau
                ),
            );
        }
        let Some(config) = config else { return };
        let own = adapter.as_ref().is_some_and(|a| a.saved("score.weight").is_some());
        let head = RewardHead::open(folder, adapter.as_ref(), config.hidden(), &Device::Cpu);
        if self.take("head", head).is_some() {
            let place = if own { "in the adapter" } else { RewardHead::FILE };
            self.fact("head", format!("linear, {} to 1, {place}", config.hidden()));
        }
    }
}

/// An error and its causes, on one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
