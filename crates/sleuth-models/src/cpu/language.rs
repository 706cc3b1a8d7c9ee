mod body;

use std::sync::Arc;

use sleuth_core::Pixels;

use self::body::Body;
pub use self::body::LanguageFeatures;
use super::element;
use super::kv::{KvType, PrefixKv, SuffixKv};
use super::mllama::MllamaCpu;
use super::model::CpuModel;
use super::rows::{Rows, RowsMut};
use super::spread::spread;
use super::weights::{Linear, Module, row_stride};
use super::workspace::{BLOCK_ROWS, Workspace};
use super::{ModelSizes, NewPrefix, PassShape, Suffix, shape};
use crate::backbone::PassError;
use crate::checkpoint::Checkpoint;
use crate::paligemma::{PaliGemmaConfig, TextConfig, VisionConfig};
use crate::{BeforeImage, LoadError, ModelConfig, SuffixAttention};

/// A backbone with its language head: what comes after an image, a prompt and some tokens.
///
/// As in [`CpuModel`], a distribution is a function of image, prompt and tokens, down to the bit,
/// whatever shares the pass. Written tokens are causal, as the models were trained. None of them
/// caps its logits.
#[derive(Debug)]
pub struct LanguageModel {
    body: Body,
    /// `[hidden, vocabulary]`, without bias.
    head: Linear,
    sizes: ModelSizes,
}

/// What a pass over tokens gave.
#[derive(Debug)]
pub struct Extended {
    /// For each suffix the states of its tokens after the final norm, `[tokens, hidden]`.
    pub states: Vec<Vec<f32>>,
    /// For each suffix, what goes on; `None` for [`Suffix::Whole`].
    pub suffixes: Vec<Option<SuffixKv>>,
}

/// Logits of the token after each of some states.
#[derive(Debug)]
pub struct NextTokens {
    /// `[states, stride]`, of which the first `vocabulary` count.
    logits: Vec<f32>,
    vocabulary: usize,
    stride: usize,
    /// `ln Σ e^logit` of each.
    log_sums: Vec<f32>,
}

const TIED: &str = "language_model.embed_tokens";
const UNTIED: &str = "lm_head";

// === impl LanguageModel ===

impl LanguageModel {
    /// Packs a checkpoint's weights; a reward head is neither needed nor read. The language head is
    /// the embedding where the config ties them. Everything is checked: presence, shapes, finite
    /// values. `before_image` is of no meaning to PaliGemma.
    pub fn load(
        config: &ModelConfig,
        checkpoint: &Arc<Checkpoint>,
        before_image: BeforeImage,
        kv: KvType,
    ) -> Result<Self, LoadError> {
        let path = if config.is_tied() { TIED } else { UNTIED };
        let module = Module::new(checkpoint, path);
        let head = module.weight(config.hidden(), config.vocabulary())?;
        let none = (Vec::new(), 0.0);
        let body = match config {
            ModelConfig::PaliGemma(config) => {
                let attention = SuffixAttention::Causal;
                let model = CpuModel::with_head(config, checkpoint, none, attention, kv)?;
                Body::PaliGemma(Box::new(model))
            }
            ModelConfig::Mllama(config) => {
                let model = MllamaCpu::with_head(config, checkpoint, none, before_image, kv)?;
                Body::Mllama(Box::new(model))
            }
        };
        Ok(Self { body, head, sizes: config.sizes(kv) })
    }

    /// What images and tokens take.
    pub fn sizes(&self) -> ModelSizes {
        self.sizes
    }

    /// Ids that may be written.
    pub fn vocabulary(&self) -> usize {
        self.head.outputs()
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> u64 {
        self.body.weight_bytes() + self.head.bytes()
    }

    /// Bytes of packed weights of a model with this config, before anything is loaded. An adapter
    /// that changes the embedding makes a copy of it, which is counted where `own_embedding`.
    pub fn weight_bytes_of(config: &ModelConfig, own_embedding: bool) -> u64 {
        let hidden = config.hidden();
        let head = Linear::bytes_for(hidden, config.vocabulary());
        let rows = if own_embedding { config.embedding_rows() } else { 0 };
        let embedding = (rows * hidden * size_of::<f32>()) as u64;
        packed_bytes(config) + head + embedding
    }

    /// Bytes that a workspace of `threads` threads holds at most after passes of this shape, and the
    /// next tokens of [`BLOCK_ROWS`] states; and what seeing an image takes beside it.
    pub fn workspace_bytes_of(config: &ModelConfig, shape: &PassShape, threads: usize) -> u64 {
        let vocabulary = row_stride(config.vocabulary());
        let next = 2 * BLOCK_ROWS * vocabulary * size_of::<f32>();
        let passes = match config {
            ModelConfig::PaliGemma(config) => shape::workspace_bytes(config, shape, threads),
            ModelConfig::Mllama(config) => {
                let seeing = if shape.images == 0 { 0 } else { MllamaCpu::seeing_bytes_of(config) };
                MllamaCpu::workspace_bytes_of(config, shape, threads) + seeing
            }
        };
        passes + next as u64
    }

    /// What there is to know of an image, which is as the model's preprocessor makes it.
    pub fn see(
        &self,
        space: &mut Workspace,
        pixels: &Pixels,
    ) -> Result<LanguageFeatures, PassError> {
        self.body.see(space, pixels)
    }

    /// Keys and values of an image and a prompt, and the state of the last row, `[hidden]`: what
    /// the first token follows from.
    pub fn prefill(
        &self,
        space: &mut Workspace,
        prefix: NewPrefix<'_, LanguageFeatures>,
    ) -> Result<(Arc<PrefixKv>, Vec<f32>), PassError> {
        self.body.prefill(space, prefix)
    }

    /// Takes suffixes on by their tokens, in one packed pass.
    pub fn extend(
        &self,
        space: &mut Workspace,
        suffixes: Vec<Suffix<'_>>,
    ) -> Result<Extended, LoadError> {
        let done = self.body.extend(space, suffixes)?;
        Ok(Extended { states: done.logits, suffixes: done.suffixes })
    }

    /// What follows each of `states`, which are `[hidden]`. Memory is `states` × vocabulary × 4
    /// bytes, twice.
    pub fn next(&self, space: &mut Workspace, states: &[&[f32]]) -> NextTokens {
        let (hidden, vocabulary) = (self.body.hidden(), self.vocabulary());
        let (in_stride, stride) = (row_stride(hidden), row_stride(vocabulary));
        let mut logits = vec![0.0; states.len() * stride];
        let mut log_sums = vec![0.0; states.len()];
        let Workspace { team, thin, .. } = space;
        for (states, logits) in
            states.chunks(BLOCK_ROWS).zip(logits.chunks_mut(BLOCK_ROWS * stride))
        {
            let count = states.len();
            let mut x = RowsMut::new(thin.scratch.normed.room(count * in_stride), in_stride, count);
            for (row, state) in states.iter().enumerate() {
                x.row_mut(row)[..hidden].copy_from_slice(state);
            }
            let out = RowsMut::new(logits, stride, count);
            spread(team, &mut thin.parts, x.as_rows(), [(&self.head, out)]);
        }
        let rows = Rows::new(&logits, stride, states.len());
        let tasks = log_sums.iter_mut().enumerate().collect();
        team.run(tasks, |(row, sum): (usize, &mut f32), _| {
            *sum = element::log_sum_exp(&rows.row(row)[..vocabulary]);
        });
        NextTokens { logits, vocabulary, stride, log_sums }
    }

    /// `ln p(token | what led to the state)` of each pair, some rows at a time.
    pub fn log_probabilities(&self, space: &mut Workspace, pairs: &[(&[f32], u32)]) -> Vec<f32> {
        let mut out = Vec::with_capacity(pairs.len());
        for pairs in pairs.chunks(BLOCK_ROWS) {
            let states: Vec<&[f32]> = pairs.iter().map(|&(state, _)| state).collect();
            let next = self.next(space, &states);
            let tokens = pairs.iter().enumerate();
            out.extend(tokens.map(|(row, &(_, token))| next.log_probability(row, token)));
        }
        out
    }
}

// === impl NextTokens ===

impl NextTokens {
    /// Logits `[vocabulary]` of what follows state `row`.
    pub fn logits(&self, row: usize) -> &[f32] {
        &self.logits[row * self.stride..][..self.vocabulary]
    }

    /// `ln p(token)` after state `row`; `token` is below the vocabulary's size.
    pub fn log_probability(&self, row: usize, token: u32) -> f32 {
        self.logits(row)[token as usize] - self.log_sums[row]
    }
}

/// Bytes of packed weights of a model without its language head; the embedding stays mapped.
pub(crate) fn packed_bytes(config: &ModelConfig) -> u64 {
    match config {
        ModelConfig::PaliGemma(config) => paligemma_bytes(config),
        ModelConfig::Mllama(config) => MllamaCpu::weight_bytes_of(config),
    }
}

fn paligemma_bytes(config: &PaliGemmaConfig) -> u64 {
    let (v, t) = (&config.vision_config, &config.text_config);
    let projector = Linear::bytes_for(v.hidden_size, t.hidden_size);
    vision_bytes(v) + projector + decoder_bytes(t)
}

fn vision_bytes(v: &VisionConfig) -> u64 {
    let (hidden, wide) = (v.hidden_size, v.intermediate_size);
    let layer = 4 * Linear::bytes_for(hidden, hidden)
        + Linear::bytes_for(hidden, wide)
        + Linear::bytes_for(wide, hidden);
    Linear::bytes_for(3 * v.patch_size * v.patch_size, hidden) + v.num_hidden_layers as u64 * layer
}

fn decoder_bytes(t: &TextConfig) -> u64 {
    let (hidden, wide) = (t.hidden_size, t.intermediate_size);
    let query = t.num_attention_heads * t.head_dim;
    let key_value = t.num_key_value_heads * t.head_dim;
    let layer = Linear::bytes_for(hidden, query)
        + 2 * Linear::bytes_for(hidden, key_value)
        + Linear::bytes_for(query, hidden)
        + 2 * Linear::bytes_for(hidden, wide)
        + Linear::bytes_for(wide, hidden);
    t.num_hidden_layers as u64 * layer
}

#[cfg(test)]
mod tests;
