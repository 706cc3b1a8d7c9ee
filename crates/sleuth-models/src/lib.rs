//! Backbones with a reward head: PaliGemma 1, and Llama 3.2 Vision for scoring on the CPU.
//!
//! Loads published checkpoint layouts and PEFT adapters, and gives a logit for every response token.
//! Knows nothing of tokenizers, image files, queues or networks.
//!
//! Invariants
//! - Prefix rows (image and prompt) never attend to response rows, so the prefix's keys and values
//!   are the same for every response (causal suffix).
//! - All arithmetic is f32, whatever type the weights are stored in.
//! - A loaded checkpoint has every tensor the config asks for, in the right shape, all finite.

pub mod backbone;
pub mod checkpoint;
pub mod cpu;
pub mod device;
pub mod mllama;
pub mod ops;
pub mod paligemma;

mod activation;
mod architecture;
mod error;
#[cfg(test)]
mod golden;
mod head;
mod inspect;
mod reward_model;
mod self_test;
mod settings;

pub use activation::Activation;
pub use architecture::{ModelConfig, RewardFolder};
pub use backbone::{Backbone, BackboneFolder};
pub use error::LoadError;
pub use head::RewardHead;
pub use inspect::{Finding, Findings, inspect};
pub use reward_model::{LoadOptions, ModelFolder, RewardPaliGemma};
pub use self_test::{SELF_TEST_FILE, read_self_test};
pub use settings::{BeforeImage, RewardSettings, SuffixAttention};
