use std::path::{Path, PathBuf};
use std::sync::Arc;

use sleuth_core::{Encoded, Failure, Pixels, Prepared};

use crate::{
    FolderError, GrowingResponse, ImageLimits, InputError, Preprocessor, TextLimits, TextTokenizer,
    decode_rgb,
};

/// Turns image bytes, a prompt and a response into work for a device, within limits.
///
/// Shared by all callers; every call is independent, synchronous and CPU-bound.
#[derive(Debug)]
pub struct Preparer {
    tokenizer: Arc<TextTokenizer>,
    preprocessor: Preprocessor,
    preprocessor_digest: [u8; 32],
    image_limits: ImageLimits,
}

/// A decoded, resized and normalised image, for any number of responses; cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedImage {
    /// f32 `[3, height, width]`.
    pub pixels: Pixels,
    /// [`Preparer::image_key`] of the image file.
    pub key: [u8; 32],
}

// === impl Preparer ===

impl Preparer {
    /// Puts a preparer together from its parts.
    pub fn new(
        tokenizer: TextTokenizer,
        preprocessor: Preprocessor,
        image_limits: ImageLimits,
    ) -> Self {
        let preprocessor_digest = preprocessor.digest();
        Self { tokenizer: Arc::new(tokenizer), preprocessor, preprocessor_digest, image_limits }
    }

    /// Loads `tokenizer.json`, `preprocessor_config.json`, and where the model has them the chat
    /// template and `generation_config.json`, from a model folder.
    ///
    /// # Errors
    /// [`FolderError`] naming the file, and the field where one is at fault.
    pub fn from_folder(
        folder: &Path,
        image_limits: ImageLimits,
        text_limits: TextLimits,
    ) -> Result<Self, FolderError> {
        let tokenizer = TextTokenizer::from_file(&folder.join("tokenizer.json"), text_limits)?
            .with_template_of(folder)?
            .with_ends_of(folder)?;
        let preprocessor = Preprocessor::from_file(&folder.join("preprocessor_config.json"))?;
        Ok(Self::new(tokenizer, preprocessor, image_limits))
    }

    /// Prepares one item: text first, since it is cheaper to refuse.
    ///
    /// # Errors
    /// The [`Failure`] of the first [`InputError`]: the response, then the prompt, then the image.
    pub fn prepare(
        &self,
        image: &[u8],
        prompt: &str,
        response: &str,
    ) -> Result<(Prepared, Encoded), Failure> {
        let (prompt, response) = self.encode(prompt, response)?;
        let image = self.prepare_image(image)?;
        Ok(assemble(&image, prompt, response))
    }

    /// Prepares one item with an image that is prepared already.
    ///
    /// # Errors
    /// The [`Failure`] of the response or of the prompt.
    pub fn prepare_with(
        &self,
        image: &PreparedImage,
        prompt: &str,
        response: &str,
    ) -> Result<(Prepared, Encoded), Failure> {
        let (prompt, response) = self.encode(prompt, response)?;
        Ok(assemble(image, prompt, response))
    }

    /// Decodes, resizes and normalises an image file.
    ///
    /// # Errors
    /// The [`Failure`] of an image variant of [`InputError`].
    pub fn prepare_image(&self, image: &[u8]) -> Result<PreparedImage, Failure> {
        let rgb = decode_rgb(image, &self.image_limits)?;
        let key = self.image_key(blake3::hash(image).as_bytes());
        Ok(PreparedImage { pixels: self.preprocessor.pixels(&rgb), key })
    }

    /// The key of an image's pixels, from the BLAKE3 of its file: equal keys, equal pixels.
    pub fn image_key(&self, image_blake3: &[u8; 32]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.preprocessor_digest);
        hasher.update(image_blake3);
        *hasher.finalize().as_bytes()
    }

    /// A response that arrives in pieces.
    pub fn grow_response(&self) -> GrowingResponse {
        self.tokenizer.grow()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The image settings.
    pub fn preprocessor(&self) -> &Preprocessor {
        &self.preprocessor
    }

    fn encode(&self, prompt: &str, response: &str) -> Result<(Arc<[u32]>, Encoded), InputError> {
        let response = self.tokenizer.encode_response(response)?;
        let prompt = self.tokenizer.encode_prompt(prompt)?;
        Ok((prompt, response))
    }
}

/// Reads a file of a model folder.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FolderError> {
    std::fs::read(path).map_err(|source| FolderError::Read { path: PathBuf::from(path), source })
}

fn assemble(image: &PreparedImage, prompt: Arc<[u32]>, response: Encoded) -> (Prepared, Encoded) {
    let prepared = Prepared {
        pixels: image.pixels.clone(),
        image_key: image.key,
        prompt,
        response: Arc::from(response.ids.as_slice()),
    };
    (prepared, response)
}

#[cfg(test)]
mod tests;
