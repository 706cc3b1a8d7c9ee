use std::fmt;
use std::path::PathBuf;

use sleuth_core::{ErrorClass, Failure, Reason};

/// Which text of an item is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextPart {
    /// The prompt.
    Prompt,
    /// The response.
    Response,
}

/// Why an item's image or text cannot be used. [`InputError::failure`] says it to the caller.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// There are no image bytes.
    #[error("the image is empty")]
    ImageMissing,
    /// The image file is over [`ImageLimits::max_bytes`](crate::ImageLimits::max_bytes).
    #[error("the image has {bytes} bytes, over the limit of {limit}")]
    ImageTooManyBytes {
        /// The file's bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The header promises more than
    /// [`ImageLimits::max_pixels`](crate::ImageLimits::max_pixels) or
    /// [`ImageLimits::max_side`](crate::ImageLimits::max_side) allows.
    #[error(
        "the image is {width} by {height} pixels, over the limit of {max_pixels} pixels and \
         {max_side} per side"
    )]
    ImageTooManyPixels {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Most pixels.
        max_pixels: u64,
        /// Longest side.
        max_side: u32,
    },
    /// An animation of more than [`ImageLimits::max_frames`](crate::ImageLimits::max_frames).
    #[error("the image has {frames} frames, over the limit of {limit}")]
    ImageTooManyFrames {
        /// Its frames.
        frames: u32,
        /// The limit.
        limit: u32,
    },
    /// Decoding needs more memory than the limits allow.
    #[error("the image needs more memory to decode than the limits allow")]
    ImageTooMuchMemory(#[source] image::ImageError),
    /// No JPEG, PNG or WebP file.
    #[error("the image is no JPEG, PNG or WebP file")]
    ImageFormat,
    /// A variant of JPEG, PNG or WebP that is not supported.
    #[error("the image uses a variant of its format that is not supported")]
    ImageVariant(#[source] image::ImageError),
    /// The header promises no pixels.
    #[error("the image has no pixels: {width} by {height}")]
    ImageNoPixels {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The file ends before its image does.
    #[error("the image ends early")]
    ImageTruncated,
    /// The file's bytes are damaged or end early.
    #[error("the image is damaged or ends early")]
    ImageDamaged(#[source] image::ImageError),
    /// The response has no characters.
    #[error("the response is empty")]
    ResponseEmpty,
    /// The response is not UTF-8.
    #[error("the response is not UTF-8 from byte {valid_up_to} on")]
    ResponseNotUtf8 {
        /// Its bytes before the first that is at fault.
        valid_up_to: usize,
    },
    /// More bytes after the end of the response.
    #[error("the response has already ended")]
    ResponseEnded,
    /// The text is over its limit in bytes.
    #[error("the {part} has {bytes} bytes, over the limit of {limit}")]
    TextTooManyBytes {
        /// Which text.
        part: TextPart,
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The text is over its limit in tokens.
    #[error("the {part} has {tokens} tokens, over the limit of {limit}")]
    TextTooManyTokens {
        /// Which text.
        part: TextPart,
        /// Its tokens.
        tokens: usize,
        /// The limit.
        limit: usize,
    },
    /// The tokenizer would drop a part of the text, or fails on it.
    #[error("the model's tokenizer cannot encode the {part}")]
    TextNotEncodable {
        /// Which text.
        part: TextPart,
    },
}

/// Why a file of a model folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The file cannot be read.
    #[error("cannot read {path}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `tokenizer.json` is no tokenizer that this build understands.
    #[error("tokenizer.json is not a tokenizer that can be loaded")]
    Tokenizer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// `tokenizer.json` has no token of that name.
    #[error("tokenizer.json has no token `{0}`")]
    TokenMissing(&'static str),
    /// `preprocessor_config.json` is not JSON of the expected shape.
    #[error("preprocessor_config.json is not valid")]
    PreprocessorJson(#[source] serde_json::Error),
    /// A field of `preprocessor_config.json` has a value that makes no sense here.
    #[error("preprocessor_config.json: `{field}` {problem}")]
    PreprocessorField {
        /// The field, as a dotted path.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// `generation_config.json` is not JSON of the expected shape.
    #[error("generation_config.json: `eos_token_id` must be an id or a list of ids")]
    Generation(#[source] serde_json::Error),
    /// The chat template cannot be used.
    #[error("{file}: {problem}")]
    ChatTemplate {
        /// The file that holds it.
        file: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

// === impl TextPart ===

impl TextPart {
    /// The request field that holds this text.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Prompt => "context.prompt",
            Self::Response => "response",
        }
    }

    const fn too_large(self) -> Reason {
        match self {
            Self::Prompt => Reason::PROMPT_TOO_LARGE,
            Self::Response => Reason::RESPONSE_TOO_LARGE,
        }
    }
}

impl fmt::Display for TextPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prompt => "prompt",
            Self::Response => "response",
        })
    }
}

// === impl InputError ===

impl InputError {
    /// The verdict for the caller: class, reason and field. Its text is this error's own, which
    /// never quotes the input; sources stay behind.
    pub fn failure(&self) -> Failure {
        const IMAGE: &str = "context.image.data";
        let (class, reason, field) = match self {
            Self::ImageMissing => (ErrorClass::InvalidRequest, Reason::IMAGE_MISSING, IMAGE),
            Self::ImageTooManyBytes { .. }
            | Self::ImageTooManyPixels { .. }
            | Self::ImageTooMuchMemory(_) => (ErrorClass::TooLarge, Reason::IMAGE_TOO_LARGE, IMAGE),
            Self::ImageTooManyFrames { .. } => (ErrorClass::TooLarge, Reason::IMAGE_FRAMES, IMAGE),
            Self::ImageFormat | Self::ImageVariant(_) => {
                (ErrorClass::InvalidRequest, Reason::IMAGE_FORMAT, IMAGE)
            }
            Self::ImageNoPixels { .. } | Self::ImageTruncated | Self::ImageDamaged(_) => {
                (ErrorClass::InvalidRequest, Reason::IMAGE_DAMAGED, IMAGE)
            }
            Self::ResponseEmpty => {
                (ErrorClass::InvalidRequest, Reason::RESPONSE_EMPTY, TextPart::Response.field())
            }
            Self::ResponseNotUtf8 { .. } => {
                (ErrorClass::InvalidRequest, Reason::RESPONSE_NOT_UTF8, TextPart::Response.field())
            }
            Self::ResponseEnded => {
                (ErrorClass::InvalidRequest, Reason::FIELD_INVALID, TextPart::Response.field())
            }
            Self::TextTooManyBytes { part, .. } | Self::TextTooManyTokens { part, .. } => {
                (ErrorClass::TooLarge, part.too_large(), part.field())
            }
            Self::TextNotEncodable { part } => {
                (ErrorClass::InvalidRequest, Reason::FIELD_INVALID, part.field())
            }
        };
        Failure::new(class, reason, self.to_string()).at(field)
    }
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        error.failure()
    }
}
