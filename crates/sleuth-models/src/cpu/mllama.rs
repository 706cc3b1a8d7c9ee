//! Llama 3.2 Vision on the CPU, for scoring, on the kernels and under the promises of [`super`].
//!
//! What layers see of an image depends on the image alone: [`ImageKv`](super::ImageKv) is computed
//! once and shared by all prompts. A prompt's own keys and values are shared by its responses.

mod backbone;
#[cfg(test)]
mod case;
mod cross;
#[cfg(test)]
mod golden;
mod layer;
mod memory;
mod model;
mod shape;
#[cfg(test)]
mod tests;
mod tower;

pub use model::MllamaCpu;
