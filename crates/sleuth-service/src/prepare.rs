use std::sync::Arc;

use sleuth_core::{Encoded, Failure, Pixels};
use sleuth_input::{GrowingResponse, Preparer};

/// Turns what a caller sends into what a device takes. Synchronous and CPU-bound; the service runs
/// what takes long off the async threads, and asks for the image last and once for all items that
/// share it.
pub trait Prepare: Send + Sync + 'static {
    /// Names the pixels an image file of this BLAKE3 will have: equal keys, equal pixels.
    fn image_key(&self, blake3: &[u8; 32]) -> [u8; 32];

    /// Decodes, resizes and normalises an image file.
    fn pixels(&self, image: &[u8]) -> Result<Pixels, Failure>;

    /// `<bos>`, the prompt and a newline as token ids.
    fn prompt(&self, text: &str) -> Result<Arc<[u32]>, Failure>;

    /// A response's tokens and the bytes they stand for.
    fn response(&self, text: &str) -> Result<Encoded, Failure>;

    /// A response that arrives in pieces.
    fn grow(&self) -> Box<dyn Growing>;
}

/// A response that arrives in pieces: the tokens of all of them together are those of
/// [`Prepare::response`] of the whole. After an error it is of no more use.
pub trait Growing: Send {
    /// Takes the next bytes, which may end inside a character; gives the tokens that can no longer
    /// change and were not given before.
    fn push(&mut self, bytes: &[u8]) -> Result<Encoded, Failure>;

    /// The rest, once nothing more comes.
    fn finish(&mut self) -> Result<Encoded, Failure>;

    /// All bytes so far.
    fn bytes(&self) -> &[u8];

    /// Bytes whose tokens may still change.
    fn held_back(&self) -> usize;
}

// === impl Preparer ===

impl Prepare for Preparer {
    fn image_key(&self, blake3: &[u8; 32]) -> [u8; 32] {
        Self::image_key(self, blake3)
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

    fn grow(&self) -> Box<dyn Growing> {
        Box::new(self.grow_response())
    }
}

// === impl GrowingResponse ===

impl Growing for GrowingResponse {
    fn push(&mut self, bytes: &[u8]) -> Result<Encoded, Failure> {
        Ok(Self::push(self, bytes)?)
    }

    fn finish(&mut self) -> Result<Encoded, Failure> {
        Ok(Self::finish(self)?)
    }

    fn bytes(&self) -> &[u8] {
        Self::bytes(self)
    }

    fn held_back(&self) -> usize {
        Self::held_back(self)
    }
}
