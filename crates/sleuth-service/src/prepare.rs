use std::sync::Arc;

use sleuth_core::{Encoded, Failure, Pixels};
use sleuth_input::Preparer;

/// Turns what a caller sends into what a device takes. Synchronous and CPU-bound; the service runs
/// it off the async threads, and asks for the image last and once for all items that share it.
pub trait Prepare: Send + Sync + 'static {
    /// Names the pixels an image file will have: equal keys, equal pixels. Decodes nothing.
    fn image_key(&self, image: &[u8]) -> [u8; 32];

    /// Decodes, resizes and normalises an image file.
    fn pixels(&self, image: &[u8]) -> Result<Pixels, Failure>;

    /// `<bos>`, the prompt and a newline as token ids.
    fn prompt(&self, text: &str) -> Result<Arc<[u32]>, Failure>;

    /// A response's tokens and the bytes they stand for.
    fn response(&self, text: &str) -> Result<Encoded, Failure>;
}

// === impl Preparer ===

impl Prepare for Preparer {
    fn image_key(&self, image: &[u8]) -> [u8; 32] {
        Self::image_key(self, blake3::hash(image).as_bytes())
    }

    fn pixels(&self, image: &[u8]) -> Result<Pixels, Failure> {
        self.prepare_image(image).map(|image| image.pixels)
    }

    fn prompt(&self, text: &str) -> Result<Arc<[u32]>, Failure> {
        Ok(self.tokenizer().encode_prompt(text)?)
    }

    fn response(&self, text: &str) -> Result<Encoded, Failure> {
        Ok(self.tokenizer().encode_response(text)?)
    }
}
