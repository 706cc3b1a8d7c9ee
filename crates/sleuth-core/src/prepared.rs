use std::fmt;
use std::sync::Arc;

use crate::ByteSpan;

/// An image as the vision tower takes it: f32, channel first (`[3, height, width]`), normalised.
#[derive(Clone, PartialEq)]
pub struct Pixels {
    height: u32,
    width: u32,
    values: Arc<[f32]>,
}

/// `values` does not hold `3 * height * width` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelCount {
    /// `3 * height * width`.
    pub expected: usize,
    /// What was given.
    pub found: usize,
}

/// A text as ids of the reward model's tokenizer, each with the bytes it stands for.
///
/// `ids` and `spans` have equal lengths. The byte-fallback tokens of one character all span it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Where each token stands in the text.
    pub spans: Vec<ByteSpan>,
}

/// Work for a device: everything decoded, tokenised and within limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The image.
    pub pixels: Pixels,
    /// Digest of the encoded image and of how it is preprocessed: equal keys, equal pixels.
    pub image_key: [u8; 32],
    /// `<bos>`, prompt and newline, without image tokens; not empty.
    pub prompt: Arc<[u32]>,
    /// The response's tokens; not empty.
    pub response: Arc<[u32]>,
}

// === impl Pixels ===

impl Pixels {
    /// Takes `[3, height, width]` values in channel-first order.
    pub fn try_new(height: u32, width: u32, values: Arc<[f32]>) -> Result<Self, PixelCount> {
        let expected = 3 * height as usize * width as usize;
        if values.len() == expected {
            Ok(Self { height, width, values })
        } else {
            Err(PixelCount { expected, found: values.len() })
        }
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// `[3, height, width]`, channel first.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

impl fmt::Debug for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pixels(3x{}x{})", self.height, self.width)
    }
}

// === impl PixelCount ===

impl fmt::Display for PixelCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pixel values where {} belong", self.found, self.expected)
    }
}

impl std::error::Error for PixelCount {}
