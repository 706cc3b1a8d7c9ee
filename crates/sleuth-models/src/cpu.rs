//! PaliGemma on the CPU, for scoring.
//!
//! Weights are packed once into panels; a pass takes blocks of packed rows through whole layers, so
//! that their activations stay in cache; every product, sum and exponential of a row runs in an
//! order that depends on absolute positions alone. So the same image, prompt and response give the
//! same bits whatever shares the batch, however the response was cut, on any number of threads, and
//! with the prefix cached or computed.
//!
//! Candle's tensors serve training ([`crate::paligemma`]) and other devices ([`crate::device`]); all are held
//! to the same golden files.
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into the dispatched closure is compiled for the CPU's vectors"
)]

mod angles;
mod attention;
mod backbone;
mod decoder;
mod element;
mod embedding;
mod encoder;
mod kernel;
mod kv;
mod language;
mod mllama;
mod mlp;
mod model;
mod norm;
mod pass;
mod rows;
mod shape;
mod sizes;
mod spread;
mod team;
#[cfg(test)]
mod tests;
mod times;
mod vision;
mod weights;
mod workspace;

pub use crate::backbone::{
    Behind, Done, NewPrefix, PassCost, PassShape, PassTimes, Suffix, SuffixShape, Work,
};
pub use kv::{ImageKv, KvType, PrefixKv, SuffixKv};
pub(crate) use language::packed_bytes;
pub use language::{Extended, LanguageFeatures, LanguageModel, NextTokens};
pub use mllama::MllamaCpu;
pub use model::{CpuModel, ImageFeatures};
pub use sizes::ModelSizes;
pub use workspace::Workspace;
