//! Llama 3.2 Vision: a tower that looks at tiles, and a Llama decoder of which some layers look at the
//! image instead of at the text.
//!
//! Numerics follow transformers up to 4.54.1, as Meta's: the tower's intermediate states are the
//! inputs of the layers named. Later versions take their outputs.

mod config;
mod folder;
mod rotary;

pub use config::{MllamaConfig, TextConfig, VisionConfig};
pub use folder::MllamaFolder;
pub(crate) use folder::TEMPLATES;
pub use rotary::RopeScaling;
