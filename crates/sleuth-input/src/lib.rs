//! From what a caller sends to what a device takes: images become normalised pixels, texts become
//! token ids with the bytes they stand for.
//!
//! [`Preparer`] puts it together from a model folder: [`decode_rgb`] reads a JPEG, PNG or WebP file
//! within [`ImageLimits`]; [`Preprocessor`] resizes and normalises as the model's
//! `preprocessor_config.json` says, bit for bit as Pillow and transformers do; [`TextTokenizer`]
//! encodes prompts and responses as plain text, and a [`GrowingResponse`] one that arrives in pieces.
//!
//! All of it is synchronous, CPU-bound and bounded in memory by the limits; nothing here logs.

mod chat;
mod decode;
mod ends;
mod error;
mod limits;
mod prepare;
mod preprocess;
mod resample;
mod tiles;
mod tokenizer;

pub use decode::decode_rgb;
pub use error::{FolderError, InputError, TextPart};
pub use image::RgbImage;
pub use limits::{ImageLimits, TextLimits};
pub use prepare::{PreparedImage, Preparer};
pub use preprocess::Preprocessor;
pub use resample::{Filter, resize};
pub use tokenizer::{GrowingResponse, TextTokenizer};
