//! PaliGemma 1: SigLIP, one linear projector, Gemma 1.
//!
//! Numerics follow transformers (`paligemma`, `siglip`, `gemma`): image rows enter the decoder raw,
//! text rows scaled by `√hidden`; RMS norm multiplies by `1 + weight` in f32; rotary angles in f32,
//! positions from 1; softmax in f32.

mod config;
mod cost;
mod decoder;
mod forward;
mod linear;
mod vision;

pub use config::{PaliGemmaConfig, TextConfig, VisionConfig};
pub use cost::pass_cost;
pub(crate) use decoder::{KeyValues, Layer};
pub use forward::{Group, Output, PaliGemma, Prefix, PrefixKv, PrefixStates};
