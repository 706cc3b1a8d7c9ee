use std::io;
use std::sync::Arc;

use sleuth_core::Pixels;
use sleuth_models::backbone::PassError;
use sleuth_models::cpu::{
    Behind, CpuModel, Extended, KvType, LanguageFeatures, LanguageModel, NewPrefix, NextTokens,
    PassShape, PrefixKv, Suffix, SuffixKv, Workspace,
};
use sleuth_models::{BackboneFolder, LoadError};

use super::LanguageFacts;
use crate::CacheStats;
use crate::cache::{Cache, Lookup};

/// A backbone with its language head on the CPU, its threads, and caches of its own: its weights
/// are another version than the scorer's, so nothing of either fits the other.
#[derive(Debug)]
pub struct LanguageWorker {
    model: LanguageModel,
    space: Workspace,
    prefixes: Cache<(Arc<[u32]>, [u8; 32]), Prefilled>,
    images: Cache<[u8; 32], LanguageFeatures>,
    max_kv_bytes: u64,
}

/// How a worker is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanguageSettings {
    /// Threads.
    pub threads: usize,
    /// The type keys and values are stored in.
    pub kv: KvType,
    /// Bytes of prefixes' keys and values that are held between requests.
    pub prefix_bytes: u64,
    /// Bytes of the vision tower's outputs that are held between requests.
    pub vision_bytes: u64,
    /// Bytes of keys and values that all running requests hold at most.
    pub max_kv_bytes: u64,
}

/// Why a backbone was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LanguageError {
    /// It needs more memory than it may have.
    #[error(
        "the corrector's backbone needs {} MiB ({} of weights, {} of caches and running requests, {} \
         of work space) where {} MiB are allowed",
        mebibytes(*needed), mebibytes(*weights), mebibytes(*caches), mebibytes(*work),
        allowed / MEBIBYTE
    )]
    Memory {
        /// All of it, in bytes.
        needed: u64,
        /// Packed weights.
        weights: u64,
        /// Caches, and keys and values of running requests.
        caches: u64,
        /// Work space of the largest pass.
        work: u64,
        /// What it may have.
        allowed: u64,
    },
    /// The folder or its weights are not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The system gave no threads.
    #[error("the corrector's threads could not be started")]
    Threads(#[from] io::Error),
}

/// What is kept of an image and a prompt.
#[derive(Debug)]
pub(super) struct Prefilled {
    pub(super) kv: Arc<PrefixKv>,
    /// The state that the first token follows from, `[hidden]`.
    pub(super) state: Vec<f32>,
}

const MEBIBYTE: u64 = 1 << 20;
/// Of a model whose images are large, so many are held between requests.
const IMAGES: u64 = 2;
/// Rows of a prompt that a held prefix has.
const PROMPT_ROWS: usize = 256;
/// Rows of prompts and candidates that run at a time.
const RUNNING_ROWS: usize = 8192;

/// Rounded up: what has to be allowed.
fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(MEBIBYTE)
}

// === impl LanguageSettings ===

impl LanguageSettings {
    /// A gigabyte altogether beside the weights, keys and values in f32.
    pub fn with_threads(threads: usize) -> Self {
        let (prefix_bytes, vision_bytes, max_kv_bytes) = (1 << 28, 1 << 28, 1 << 29);
        Self { threads, kv: KvType::F32, prefix_bytes, vision_bytes, max_kv_bytes }
    }

    /// More where the folder's model is too large for that: room for some images in each, and for
    /// the rows of some requests.
    #[must_use]
    pub fn fitting(self, folder: &BackboneFolder) -> Self {
        let sizes = folder.config.sizes(self.kv);
        Self {
            prefix_bytes: self.prefix_bytes.max(IMAGES * sizes.prefix_bytes(PROMPT_ROWS)),
            vision_bytes: self.vision_bytes.max(IMAGES * sizes.features_bytes),
            max_kv_bytes: self.max_kv_bytes.max(sizes.prefix_bytes(RUNNING_ROWS)),
            ..self
        }
    }
}

// === impl LanguageWorker ===

impl LanguageWorker {
    /// Packs a folder's weights, where they and all the rest fit `memory` bytes: nothing is loaded
    /// where they do not.
    pub fn load(
        folder: &BackboneFolder,
        settings: LanguageSettings,
        memory: u64,
    ) -> Result<Self, LanguageError> {
        let LanguageSettings { threads, kv, prefix_bytes, vision_bytes, max_kv_bytes } = settings;
        let weights = folder.weight_bytes();
        let caches = prefix_bytes.saturating_add(vision_bytes).saturating_add(max_kv_bytes);
        let refuse = |work: u64| {
            let needed = weights.saturating_add(caches).saturating_add(work);
            let error = LanguageError::Memory { needed, weights, caches, work, allowed: memory };
            if needed > memory { Err(error) } else { Ok(()) }
        };
        // No pass has more rows than the keys and values that it may hold.
        let row = folder.config.sizes(kv).row_bytes().max(1);
        let rows = usize::try_from(max_kv_bytes / row).unwrap_or(usize::MAX);
        let rows = rows.max(CpuModel::KV_PAGE_ROWS).min(folder.config.max_positions());
        let largest = PassShape { images: 1, prefixes: vec![rows], suffixes: Vec::new() };
        refuse(LanguageModel::workspace_bytes_of(&folder.config, &largest, threads))?;
        let model = folder.load_language(kv)?;
        Ok(Self {
            model,
            space: Workspace::new(threads)?,
            prefixes: Cache::new(prefix_bytes),
            images: Cache::new(vision_bytes),
            max_kv_bytes,
        })
    }

    pub(super) fn facts(&self) -> LanguageFacts {
        LanguageFacts::of(&self.model, self.max_kv_bytes)
    }

    pub(super) fn max_kv_bytes(&self) -> u64 {
        self.max_kv_bytes
    }

    /// Of prefixes and images.
    pub(super) fn cache_stats(&self) -> (CacheStats, CacheStats) {
        (self.prefixes.stats(), self.images.stats())
    }

    /// An image's and a prompt's keys and values: held, or computed now.
    pub(super) fn prefix(
        &mut self,
        pixels: &Pixels,
        image_key: [u8; 32],
        prompt: &Arc<[u32]>,
    ) -> Result<Arc<Prefilled>, PassError> {
        let key = (Arc::clone(prompt), image_key);
        if let Lookup::Hit(held) = self.prefixes.lookup(&key) {
            return Ok(held);
        }
        let computed = self.prefill(pixels, image_key, prompt);
        match &computed {
            Ok(prefilled) => {
                let bytes = prefilled.kv.bytes() + size_of_val(prefilled.state.as_slice()) as u64;
                self.prefixes.fulfil(key, prefilled, bytes);
            }
            Err(_) => self.prefixes.abandon(&key),
        }
        computed
    }

    fn prefill(
        &mut self,
        pixels: &Pixels,
        image_key: [u8; 32],
        prompt: &[u32],
    ) -> Result<Arc<Prefilled>, PassError> {
        let features = if let Lookup::Hit(held) = self.images.lookup(&image_key) {
            held
        } else {
            let seen = self.model.see(&mut self.space, pixels).map(Arc::new);
            match &seen {
                Ok(features) => {
                    self.images.fulfil(image_key, features, features.bytes());
                }
                Err(_) => self.images.abandon(&image_key),
            }
            seen?
        };
        let prefix = NewPrefix { features: &*features, prompt };
        let (kv, state) = self.model.prefill(&mut self.space, prefix)?;
        Ok(Arc::new(Prefilled { kv, state }))
    }

    /// What is given, behind a prefix; and the state that the next token follows from.
    pub(super) fn given(
        &mut self,
        prefix: &Prefilled,
        given: &[u32],
    ) -> Result<(SuffixKv, Vec<f32>), PassError> {
        let first = Suffix::First { prefix: Behind::Cached(&prefix.kv), tokens: given };
        let Extended { mut states, suffixes } = self.extend(vec![first])?;
        let kv = suffixes.into_iter().flatten().next().ok_or_else(nothing)?;
        let hidden = prefix.state.len();
        let all = states.pop().ok_or_else(nothing)?;
        let state = all.len().checked_sub(hidden).map(|from| all[from..].to_vec());
        Ok((kv, state.unwrap_or_else(|| prefix.state.clone())))
    }

    pub(super) fn extend(&mut self, suffixes: Vec<Suffix<'_>>) -> Result<Extended, LoadError> {
        self.model.extend(&mut self.space, suffixes)
    }

    pub(super) fn next(&mut self, states: &[&[f32]]) -> NextTokens {
        self.model.next(&mut self.space, states)
    }

    pub(super) fn log_probabilities(&mut self, pairs: &[(&[f32], u32)]) -> Vec<f32> {
        self.model.log_probabilities(&mut self.space, pairs)
    }
}

/// As many results come from a pass as went in.
fn nothing() -> LoadError {
    LoadError::Incomplete
}
