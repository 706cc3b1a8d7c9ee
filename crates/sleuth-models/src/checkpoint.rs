//! Published checkpoint layouts: one or many safetensors files, old and new tensor names, PEFT
//! adapters, and the version that names all of it.

mod adapter;
mod merged;
mod names;
mod tensors;
mod version;

pub use adapter::Adapter;
pub use merged::{Merged, write_merged};
pub use names::canonical_name;
pub use tensors::Checkpoint;
pub use version::{VersionFiles, VersionParts};
