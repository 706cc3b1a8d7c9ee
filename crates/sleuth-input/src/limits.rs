/// What an encoded image may cost. Checked before pixels are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Largest file, in bytes. Default 32 MiB.
    pub max_bytes: usize,
    /// Most pixels (`width * height`). Default 64 Mi.
    ///
    /// A decoder may hold some 10 bytes per pixel for a moment: 640 MiB at the default.
    pub max_pixels: u64,
    /// Longest side, in pixels. Default 32,768; bounds the resampler's tables and its intermediate
    /// image, which a very long and thin image would otherwise make large.
    pub max_side: u32,
    /// Most frames. Default 1: a reward for the first frame of an animation would say nothing of
    /// the others. Where more are allowed the first is taken.
    pub max_frames: u32,
}

/// What a prompt and a response may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLimits {
    /// Longest response, in UTF-8 bytes; checked before it is tokenised. Default 64 KiB.
    pub max_response_bytes: usize,
    /// Longest prompt, in UTF-8 bytes; checked before it is tokenised. Default 16 KiB.
    pub max_prompt_bytes: usize,
    /// Longest response, in tokens. Default 8,192.
    pub max_response_tokens: usize,
    /// Longest prompt, in tokens, with `<bos>` and the newline. Default 2,048.
    pub max_prompt_tokens: usize,
}

// === impl ImageLimits ===

impl ImageLimits {
    /// Most bytes a decoder may hold at a time: 16-bit RGBA of every pixel, and room for metadata.
    pub(crate) fn max_alloc(&self) -> u64 {
        self.max_pixels.saturating_mul(8).saturating_add(16 << 20)
    }
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { max_bytes: 32 << 20, max_pixels: 64 << 20, max_side: 1 << 15, max_frames: 1 }
    }
}

// === impl TextLimits ===

impl Default for TextLimits {
    fn default() -> Self {
        Self {
            max_response_bytes: 64 << 10,
            max_prompt_bytes: 16 << 10,
            max_response_tokens: 8192,
            max_prompt_tokens: 2048,
        }
    }
}
