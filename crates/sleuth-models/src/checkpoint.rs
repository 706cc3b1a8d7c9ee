//! Published checkpoint layouts: one or many safetensors files, old and new tensor names, PEFT
//! adapters, and the version that names all of it.

mod adapter;
mod names;
mod tensors;
mod version;

pub use adapter::Adapter;
pub use names::canonical_name;
pub use tensors::Checkpoint;
pub use version::{VersionFiles, VersionParts};
