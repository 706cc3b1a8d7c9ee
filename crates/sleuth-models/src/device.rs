//! PaliGemma on candle's tensors, for scoring on any of candle's devices.
//!
//! The same algorithm as on the CPU ([`crate::cpu`]): all new prefixes and all responses are packed
//! rows of one pass without padding, a group's queries are stacked against their shared prefix, each
//! response has its own causal block, and one softmax spans both. Weights may be stored in half
//! precision; norms, angles, scores, softmax, residuals and the head are f32. Scores exist in blocks
//! of a bounded size only.
//!
//! Rewards' bits are not promised here: a device's products may sum in another order for another
//! shape. Held to the golden files on candle's CPU device.

mod attention;
mod backbone;
mod courier;
#[cfg(feature = "cuda")]
mod cuda;
mod fault;
mod kv;
mod pass;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sleuth_core::Pixels;

pub use self::courier::{Courier, ThroughHost};
#[cfg(feature = "cuda")]
pub use self::cuda::BetweenDevices;
pub use self::kv::{DeviceFeatures, DevicePrefix, DeviceSuffix};
use self::pass::Pass;
use crate::backbone::{Done, NewPrefix, PassTimes, Work};
use crate::cpu::KvType;
use crate::paligemma::{Group, PaliGemma, PaliGemmaConfig, Prefix, PrefixStates};
use crate::{LoadError, ModelFolder, RewardHead, SuffixAttention};

/// Type that matrices are stored in on a device. Norms, biases and the head are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightType {
    /// Exact.
    F32,
    /// Half the memory; what checkpoints are published in.
    #[default]
    BF16,
    /// Half the memory, for devices without bf16.
    F16,
}

/// How a model is laid out on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSettings {
    /// Of matrices.
    pub weights: WeightType,
    /// Of keys and values.
    pub kv: KvType,
    /// Bytes that a block of attention scores may take.
    pub score_bytes: usize,
}

/// PaliGemma with a reward head on one of candle's devices.
#[derive(Debug)]
pub struct DeviceModel {
    backbone: PaliGemma,
    head: RewardHead,
    attention: SuffixAttention,
    settings: DeviceSettings,
    weight_bytes: u64,
    courier: Arc<dyn Courier>,
}

/// What one worker has of a device beside the weights.
#[derive(Debug, Default)]
pub struct DeviceSpace {
    times: PassTimes,
}

// === impl WeightType ===

impl WeightType {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::BF16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// As in settings: `f32`, `bf16` or `f16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::BF16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Bytes of a number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::BF16 | Self::F16 => 2,
        }
    }
}

// === impl DeviceSettings ===

impl Default for DeviceSettings {
    fn default() -> Self {
        Self { weights: WeightType::default(), kv: KvType::F16, score_bytes: 256 << 20 }
    }
}

// === impl DeviceModel ===

impl DeviceModel {
    /// Loads a folder's weights on `device`; `courier` brings what lies on others. Everything is checked: presence, shapes,
    /// finite values.
    pub fn load(
        folder: &ModelFolder,
        device: &Device,
        settings: DeviceSettings,
        courier: Arc<dyn Courier>,
    ) -> Result<Self, LoadError> {
        let weights = settings.weights.dtype();
        let backbone = folder
            .checkpoint
            .build_as(device, weights, |vb| PaliGemma::load(&folder.config, vb))?;
        Ok(Self {
            weight_bytes: Self::weight_bytes_of(folder, settings.weights),
            head: folder.head.to_device(device)?,
            attention: folder.settings.suffix_attention,
            backbone,
            settings,
            courier,
        })
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.backbone.device()
    }

    /// Bytes of a model's weights on a device.
    pub fn weight_bytes_of(folder: &ModelFolder, weights: WeightType) -> u64 {
        folder.weight_bytes() / size_of::<f32>() as u64 * weights.bytes() as u64
    }

    /// Bytes that a pass of `rows` packed rows and a few images works in, at most: activations, blocks
    /// of scores, and what candle makes of both on the way.
    pub fn workspace_bytes_of(folder: &ModelFolder, rows: usize, settings: DeviceSettings) -> u64 {
        let text = &folder.config.text_config;
        let query = text.num_attention_heads * text.head_dim;
        // The residual and its norm, queries and what is attended, the gated MLP's three widths, in
        // f32 and once more in the weights' type.
        let row = 4 * text.hidden_size + 3 * query + 3 * text.intermediate_size;
        let row_bytes = row * (size_of::<f32>() + settings.weights.bytes());
        (rows * row_bytes + 3 * settings.score_bytes) as u64
    }

    /// Bytes of keys and values of so many rows.
    pub fn kv_bytes_of(folder: &ModelFolder, rows: usize, kv: KvType) -> u64 {
        kv_bytes(&folder.config, rows, kv)
    }

    fn vision(&self, images: &[&Pixels]) -> candle_core::Result<Vec<DeviceFeatures>> {
        let side = self.backbone.config().vision_config.image_size;
        let at_a_time = self.images_at_a_time();
        let mut features = Vec::with_capacity(images.len());
        for images in images.chunks(at_a_time) {
            let values: Vec<f32> =
                images.iter().flat_map(|pixels| pixels.values().iter().copied()).collect();
            let pixels = Tensor::from_vec(values, (images.len(), 3, side, side), self.device())?;
            let seen = self.backbone.see(&pixels)?;
            for image in 0..images.len() {
                features.push(DeviceFeatures(seen.get(image)?.copy()?));
            }
        }
        self.device().synchronize()?;
        Ok(features)
    }

    /// As many as keep a layer's scores within their block.
    fn images_at_a_time(&self) -> usize {
        let vision = &self.backbone.config().vision_config;
        let scores = vision.num_attention_heads * vision.image_tokens().pow(2) * size_of::<f32>();
        (self.settings.score_bytes / scores).max(1)
    }

    fn run(
        &self,
        work: Work<'_, DeviceFeatures, DevicePrefix, DeviceSuffix>,
    ) -> candle_core::Result<Done<DevicePrefix, DeviceSuffix>> {
        Pass::new(self, work)?.run()
    }

    fn run_full(
        &self,
        sequences: &[(NewPrefix<'_, DeviceFeatures>, &[u32])],
    ) -> candle_core::Result<Vec<Vec<f32>>> {
        let mut logits = Vec::with_capacity(sequences.len());
        for (prefix, response) in sequences {
            let image = self.backbone.project(&prefix.features.0)?;
            let ids = [prefix.prompt, response].concat();
            let whole = Group {
                prefix: Prefix::New { image: &image, prompt: &ids },
                responses: Vec::new(),
            };
            let output = self.backbone.forward(&[whole], PrefixStates::Keep)?;
            let Some(rows) = output.prefixes else {
                candle_core::bail!("no states of a prefix that was asked to be kept");
            };
            let states = rows.narrow(0, rows.dim(0)? - response.len(), response.len())?;
            logits.push(self.head.forward(&states)?.to_vec1()?);
        }
        Ok(logits)
    }
}

/// Bytes of the keys and values of so many rows, in all layers.
fn kv_bytes(config: &PaliGemmaConfig, rows: usize, kv: KvType) -> u64 {
    let text = &config.text_config;
    let row = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim;
    (rows * row * kv.bytes()) as u64
}
